"""`cds listen` as a process, and senders with plain sockets that resend until they are answered."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.hl7v2.acks import header_of
from adapters.hl7v2.frames import Frame, FrameDecoder, frame
from cds_server.settings import load
from cds_server.store.store import Store
from tests.peers.server import CDS, START_SECONDS, Server, free_port

PATIENCE = 60.0


def configure(server: Server, port: int, *lines: str) -> Server:
    """A source `lab` of the namespace `hosp` in the server's configuration file."""
    config = server.home / "cds.toml"
    source = ("[[source]]", "name = 'lab'", "kind = 'hl7v2-mllp'", "namespace = 'hosp'", f"listen = '127.0.0.1:{port}'")
    config.write_text("\n".join((*source, *lines, "")))
    server.environment = {**server.environment, "CDS_CONFIG": str(config)}
    return server


@dataclass(slots=True)
class Listener:
    """`cds listen` on an instance, always on the same port."""

    server: Server
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        configure(self.server, self.port, *self.options)

    @property
    def errors(self) -> Path:
        return self.server.home / "listen.err"

    def start(self) -> Listener:
        """Start, and wait until it takes connections."""
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*self.server.prefix, *CDS, "listen"], env=self.server.env(), cwd=self.server.home, stderr=errors
            )
        give_up = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return self
            assert self.process.poll() is None, self.errors.read_text()[-2000:]
            assert time.monotonic() < give_up, "cds listen did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
        return int(kilobytes) * 1024


class Line:
    """One connection of a sender."""

    def __init__(self, port: int, seconds: float = PATIENCE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._decoder = FrameDecoder()
        self._came: list[bytes] = []

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def answer(self) -> tuple[str, str]:
        """Code and control id of the next one. Raises ConnectionError at the end."""
        while not self._came:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError
            self._came += [event.payload for event in self._decoder.feed(data) if isinstance(event, Frame)]
        msa = self._came.pop(0).split(b"\rMSA|")[1].split(b"\r")[0].split(b"|")
        return msa[0].decode(), msa[1].decode()

    def tell(self, message: bytes) -> tuple[str, str]:
        self.socket.sendall(frame(message))
        return self.answer()


class Storm:
    """Senders that number their messages and resend each one until it is acknowledged, over a new connection after each
    failure. Two at a time send the same messages, as an engine with two threads does."""

    def __init__(self, port: int, senders: int) -> None:
        self._port = port
        self._enough = threading.Event()
        self.acknowledged: set[str] = set()
        self.strange: list[str] = []
        self.deaths = 0
        self._threads = [threading.Thread(target=self._run, args=(number // 2,)) for number in range(senders)]

    def __enter__(self) -> Storm:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends when each sender has its last answer: the listener must be there."""
        self._enough.set()
        for thread in self._threads:
            thread.join(timeout=PATIENCE)
            assert not thread.is_alive()

    def _run(self, pair: int) -> None:
        number, line = 0, None
        while not self._enough.is_set() or number == 0:
            control_id = f"P{pair}-{number}"
            while True:
                try:
                    line = line or Line(self._port)
                    padding = 100_000 if number % 8 == 0 else 0  # a pack of its own
                    told = line.tell(admission(control_id, f"{pair}{number % 50}", padding=padding))
                    break
                except OSError:
                    self.deaths += 1
                    if line is not None:
                        line.socket.close()
                    line = None
                    time.sleep(0.02)
            if told == ("AA", control_id):
                self.acknowledged.add(control_id)
            else:
                self.strange.append(f"{told} for {control_id}")
            number += 1
        if line is not None:
            line.socket.close()


def admission(control_id: str, patient: str = "123", *, mode: str = "P", accept: str = "", padding: int = 0) -> bytes:
    return (
        f"MSH|^~\\&|LAB|HOSP|CDS|X|20260301090000+0100||ADT^A01^ADT_A01|{control_id}|{mode}|2.5.1|||{accept}|\r"
        f"EVN|A01|20260301090000+0100\rPID|1||{patient}^^^HOSP^MR||DOE^JOAN||19600101|F\r"
        f"PV1|1|I|WARD^1^1|||||||||||||||V{patient}^^^HOSP^VN|||||||||||||||||||||||||20260301090000+0100\r"
        + (f"NTE|1||{'x' * padding}\r" if padding else "")
    ).encode()


def landed(server: Server) -> Counter[str]:
    """How often each control id landed."""
    settings = load({"CDS_DATA_DIR": str(server.data_dir), "CDS_TRUST": "open"})
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        refs = store.reads.query("SELECT ref FROM landing WHERE source = 'lab'")
        found: Counter[str] = Counter()
        for (ref,) in refs:
            landing = store.reads.landing_by_ref(ref)
            assert landing is not None
            for _, body in store.parts(landing, 0):
                found[header_of(body).control_id.decode()] += 1
        return found
    finally:
        store.close()
