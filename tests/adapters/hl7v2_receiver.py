"""A receiver of messages on plain sockets, each connection on a thread: it answers as a test says, rightly or not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from adapters.hl7v2.acks import header_of
from adapters.hl7v2.frames import Frame, FrameDecoder, frame

PATIENCE = 30.0
"""Seconds for what must come, on a machine that is busy."""
CLOSE = b"close"
"""In place of bytes: the connection ends here."""
Behaviour = Callable[[bytes, int], list[bytes]]
"""(message, how many came before it over all connections) -> what is written, in order."""


def number_of(raw: bytes) -> str:
    return header_of(raw).control_id.decode()


def ack(number: str, code: str = "AA") -> bytes:
    return frame(f"MSH|^~\\&|R|R|S|S|2026||ACK^R01^ACK|X|P|2.5.1\rMSA|{code}|{number}\r".encode())


def always(code: str = "AA") -> Behaviour:
    return lambda raw, _: [ack(number_of(raw), code)]


@dataclass(slots=True)
class Receiver:
    behave: Behaviour = field(default_factory=always)
    got: list[tuple[int, bytes]] = field(default_factory=list)
    """(number of the connection, message)."""
    connections: int = 0
    port: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def messages(self) -> list[bytes]:
        return [raw for _, raw in self.got]

    def wait(self, count: int) -> None:
        """Until so many messages came."""
        give_up = time.monotonic() + PATIENCE
        while len(self.got) < count:
            assert time.monotonic() < give_up, f"{len(self.got)} messages came, not {count}"
            time.sleep(0.01)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._sockets.append(line)
            threading.Thread(target=self._serve, args=(line, self.connections), daemon=True).start()

    def _serve(self, line: socket.socket, connection: int) -> None:
        decoder = FrameDecoder()
        with contextlib.suppress(OSError), line:
            while data := line.recv(65536):
                for event in decoder.feed(data):
                    if not isinstance(event, Frame):
                        continue
                    with self._lock:
                        before = len(self.got)
                        self.got.append((connection, event.payload))
                    for each in self.behave(event.payload, before):
                        if each == CLOSE:
                            return
                        line.sendall(each)


@contextlib.contextmanager
def receiving(behave: Behaviour | None = None, port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver(behave or always())
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(16)
        receiver.port = listening.getsockname()[1]
        thread = threading.Thread(target=receiver._accept, args=(listening,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for each in receiver._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=PATIENCE)
            for each in receiver._sockets:
                each.close()
