"""A real HTTP server on loopback in the place of a Pushgateway."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A request that the server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str


@dataclass
class Pushgateway:
    """Keeps what is pushed, and answers with `status` and `answer`; `is_dripping`: a byte at a time, for ever."""

    port: int = 0
    status: int = 200
    answer: str = ""
    is_dripping: bool = False
    pushed: list[Pushed] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def url(self, login: str = "", path: str = "") -> str:
        """Where it is, as LOYALTY_METRICS_PUSH_URL has it."""
        return f"http://{login}{'@' if login else ''}127.0.0.1:{self.port}{path}"


@contextmanager
def pushgateway() -> Iterator[Pushgateway]:
    """A server on a port of its own."""
    gateway = Pushgateway()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            gateway.pushed.append(
                Pushed(method=self.command, path=self.path, headers=dict(self.headers.items()), body=body)
            )
            if gateway.is_dripping:
                while not gateway.closed.is_set():
                    try:
                        self.wfile.write(b"H")
                    except OSError:
                        return
                    time.sleep(0.05)
                return
            answer = gateway.answer.encode()
            self.send_response(gateway.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so there
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gateway.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        gateway.closed.set()
        server.shutdown()
        server.server_close()
