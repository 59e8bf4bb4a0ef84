"""A mail server in a process of its own that takes everything; prints its port, and at SIGTERM how much it took."""

import asyncio
import signal
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session


class Sink:
    """Counts mails."""

    mails = 0

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        """Take a mail."""
        self.mails += 1
        return "250 OK"


async def main() -> None:
    """Serve until SIGTERM."""
    loop, sink, ended = asyncio.get_running_loop(), Sink(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: SMTP(sink, hostname="localhost", loop=loop), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    print(sink.mails, flush=True)
    sys.exit()


if __name__ == "__main__":
    asyncio.run(main())
