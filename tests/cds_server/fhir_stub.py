"""A FHIR server of our own that does what a polite one never would. It is a real HTTP server on a free port.

Each path is given an answer: a resource, a number (its status), bytes, or a function of the request that writes what it
likes. What came is kept, with the token it showed.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Write = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Stub:
    answers: dict[str, Any] = field(default_factory=dict)
    """Beginning of a path below the base -> what is answered; the longest that fits."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Authorization) of each request."""
    base: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/r4/")
        self.asked.append((path, handler.headers.get("Authorization")))
        fitting = [start for start in self.answers if path.startswith(start)]
        given = self.answers[max(fitting, key=len)] if fitting else 404
        if callable(given):
            given(handler)
        elif isinstance(given, int):
            send(handler, b"", given)
        else:
            send(handler, given if isinstance(given, bytes) else json.dumps(given).encode())


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    with contextlib.suppress(OSError):
        handler.send_response(status)
        for name, value in {"Content-Type": "application/fhir+json", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def after(seconds: float, resource: Any) -> Write:
    def write(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        send(handler, json.dumps(resource).encode())

    return write


def drip(handler: BaseHTTPRequestHandler) -> None:
    """One byte every now and then, for as long as somebody listens."""
    with contextlib.suppress(OSError):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/fhir+json")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)


def redirect(to: str) -> Write:
    return lambda handler: send(handler, b"", 302, Location=to)


@contextlib.contextmanager
def stub() -> Iterator[Stub]:
    made = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.base = f"http://127.0.0.1:{server.server_address[1]}/r4"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
