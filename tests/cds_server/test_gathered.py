"""Answers leave in one piece, and nothing that is written stays behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from cds_server.gathered import Gathered
from cds_server.serve import _Protocol


class Line(asyncio.Transport):
    """Remembers what left, call by call."""

    def __init__(self) -> None:
        self.left: list[bytes] = []

    def write(self, data: Any) -> None:
        self.left.append(bytes(data))

    def writelines(self, pieces: Iterable[Any]) -> None:
        self.left.append(b"+".join(map(bytes, pieces)))

    def is_closing(self) -> bool:
        return b"closed" in self.left

    def close(self) -> None:
        self.left.append(b"closed")

    def abort(self) -> None:
        self.left.append(b"aborted")


@pytest.mark.parametrize(
    ("done", "left"),
    [
        (["head", "body"], [b"head+body"]),
        (["head", ""], [b"head+"]),
        (["head", None, "body"], [b"head", b"body"]),
        (["head", "one", "two", "three"], [b"head+one", b"two+three"]),
        (["head", "one", "two"], [b"head+one", b"two"]),
        (["head", "close"], [b"head", b"closed"]),
        (["head", "body", "close"], [b"head+body", b"closed"]),
        (["head", "abort"], [b"aborted"]),
    ],
)
def test_what_is_written_in_one_turn_of_the_loop(done: list[str | None], left: list[bytes]) -> None:
    """None: a turn of the loop."""

    async def write() -> list[bytes]:
        line = Line()
        gathered = Gathered(line, asyncio.get_running_loop())
        for each in done:
            if each is None:
                await asyncio.sleep(0)
            elif each in ("close", "abort"):
                getattr(gathered, each)()
            else:
                gathered.write(each.encode())
        await asyncio.sleep(0)
        return line.left

    assert asyncio.run(write()) == left


def test_over_a_socket_a_head_does_not_wait_for_its_body() -> None:
    """An answer that comes in pieces is read piece by piece, on a connection that is kept."""
    go = threading.Event()

    async def answer(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await asyncio.get_running_loop().run_in_executor(None, go.wait, 10)
        for piece, more in ((b"one", True), (b"two", True), (b"end", False)):
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(answer, loop="uvloop", http=_Protocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        with socket.create_connection(listening.getsockname()[:2], timeout=10) as client:
            for _ in range(2):
                go.clear()
                client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(4096)
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                go.set()
                body = b""
                while len(body) < 9:
                    body += client.recv(4096)
                assert body == b"onetwoend"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
    assert not thread.is_alive()
