"""A real HTTP server on loopback that takes alerts, or does what a test wants instead."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What nobody but the server may know: it is in the address, as with Slack.
TOKEN = "T0KEN-xyzzy-94d1"
# What the server may do instead of answering with a status.
CLOSE = "close the connection without an answer"
TAKE_AND_CLOSE = "take the message and close the connection without an answer"
SLOW = "answer only after a while"
DRIP = "take the message and answer a line at a time, without an end"


@dataclass
class Webhook:
    """Takes documents; `answers` are used up in order, then all are 200."""

    port: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int | str] = field(default_factory=list)
    always: int | str | None = None
    requests: int = 0
    slow_seconds: float = 1.0
    # Longer texts are answered with 400, as Discord does.
    longest: int | None = None

    @property
    def url(self) -> str:
        """The address with its secret."""
        return f"http://127.0.0.1:{self.port}/services/{TOKEN}"

    @property
    def events(self) -> list[tuple[str, str]]:
        """What was told of which problem, in order."""
        return [(one["event"], one["name"]) for document in self.taken for one in document["alerts"]]

    def answer(self) -> int | str:
        """Return what to do with the next request."""
        self.requests += 1
        if self.always is not None:
            return self.always
        return self.answers.pop(0) if self.answers else 200


@contextmanager
def webhook(**options: Any) -> Iterator[Webhook]:
    """A running server."""
    server = Webhook(**options)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            content = self.rfile.read(length)
            if len(content) < length:
                # Only its head came.
                self.close_connection = True
                return
            document = json.loads(content)
            said = server.answer()
            if said == SLOW:
                time.sleep(server.slow_seconds)
                said = 200
            if server.longest is not None and len(document["text"]) > server.longest:
                said = 400
            if said in (200, 204, TAKE_AND_CLOSE, DRIP) and self.path.endswith(TOKEN):
                server.taken.append(document)
            if said == DRIP:
                self._drip()
            if isinstance(said, str):
                self.close_connection = True
                return
            self.send_response(said)
            if said == 302:
                self.send_header("Location", server.url)
            self.end_headers()

        def _drip(self) -> None:
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                for number in range(90):
                    self.wfile.write(f"X-{number}: 1\r\n".encode())
                    time.sleep(0.1)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.port = listening.server_port
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join(10)
