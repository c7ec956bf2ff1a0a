"""The storage door as its senders meet it: `cds listen` and `cds serve` as processes, dcmtk and Orthanc as senders,
killed in a storm. Ids are rows of the receiver's checklist. `CDS_TEST_KILLS=1000` makes a soak of the storm."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from adapters.dicom.part10 import data_set_at
from cds_server.feed_counts import Counted, counts
from cds_server.settings import load
from cds_server.store.store import Store
from tests import dicom_made
from tests.adapters.dicom_senders import Requestor, fresh, object_of, request
from tests.peers import require
from tests.peers.pacs import Pacs
from tests.peers.server import CDS, START_SECONDS, Server, free_port

Make = Callable[..., Server]
KILLS = max(2, int(os.environ.get("CDS_TEST_KILLS", "10")) // 4)
SENDERS = 4
PATIENCE = 60.0


class Doors:
    """`cds listen` with storage sources `one`, `two`, …, each on a port that it keeps."""

    def __init__(self, server: Server, count: int) -> None:
        self.server = server
        self.ports = [free_port() for _ in range(count)]
        self.process: subprocess.Popen[bytes] | None = None
        configure(server, self.ports)

    def start(self) -> Doors:
        with (self.server.home / "listen.err").open("ab") as errors:
            self.process = subprocess.Popen(
                [*CDS, "listen"], env=self.server.env(), cwd=self.server.home, stderr=errors
            )
        for port in self.ports:
            await_port(port)
        return self

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE)

    def kill_storage(self, chance: random.Random) -> None:
        """One of the storage processes, at once."""
        assert self.process is not None
        os.kill(chance.choice(storage_processes(self.process.pid)), signal.SIGKILL)

    def kill_all(self) -> None:
        assert self.process is not None
        found = storage_processes(self.process.pid)
        for pid in (self.process.pid, *found):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE)


def configure(server: Server, ports: list[int]) -> None:
    lines = []
    for number, port in enumerate(ports, 1):
        lines += ["[[source]]", f"name = 'pacs{number}'", "kind = 'dicom-storage'", f"namespace = 'hospital{number}'"]
        lines += [f"listen = '127.0.0.1:{port}'", f"ae_title = 'OURS{number}'", "min_free_mb = 1"]
    config = server.home / "cds.toml"
    config.write_text("\n".join((*lines, "")))
    server.environment = {**server.environment, "CDS_CONFIG": str(config)}


def storage_processes(parent: int) -> list[int]:
    """Children, and theirs, that multiprocessing spawned."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if above == parent and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def await_port(port: int) -> None:
    give_up = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        assert time.monotonic() < give_up, "nobody listens"
        time.sleep(0.05)


def objects(server: Server) -> list[tuple[str, bytes]]:
    """(SOP Instance UID by the file's own head, the data set) of everything that was landed."""
    settings = load({}, data_dir=server.data_dir)
    store, found = Store.open(server.data_dir, server.database_url or settings.database_url), []
    try:
        for landing_id in store.reads.landing_ids():
            landing = store.reads.landing(landing_id)
            assert landing is not None
            file = store.part(landing, 0)
            at = file.index(b"\x02\0\x03\0UI") + 8
            length = int.from_bytes(file[at - 2 : at], "little")
            found.append((file[at : at + length].rstrip(b"\0").decode(), file[data_set_at(file) :]))
    finally:
        store.close()
    return found


@pytest.fixture
def doors(servers: Make) -> Iterator[Callable[..., Doors]]:
    made: list[Doors] = []

    def make(count: int = 1) -> Doors:
        made.append(Doors(servers(start=False), count).start())
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            assert each.stop() == 0


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(
        [str(each) for each in command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


class Storm:
    """Senders that resend an object until it is answered 0000, over a new association after each failure."""

    def __init__(self, ports: list[int]) -> None:
        self._ports, self._enough, self._lock = ports, threading.Event(), threading.Lock()
        self.acknowledged: set[str] = set()
        self.strange: list[int] = []
        self.failures = 0
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]

    def __enter__(self) -> Storm:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for each in self._threads:
            each.join(PATIENCE)

    def _send(self, number: int) -> None:
        which, chance = number % len(self._ports), random.Random(number)
        asked = request(called=f"OURS{which + 1}")
        with self._lock:
            uid = fresh()
        while True:
            try:
                with Requestor(self._ports[which], asked) as scu:
                    while scu.answered[0] == 2:
                        status = scu.store(uid, object_of(uid, body=bytes([number]) * size_of(uid)))
                        with self._lock:
                            if status:
                                self.strange.append(status)
                            self.acknowledged.add(uid)
                            if self._enough.is_set():
                                return
                            uid = fresh()
            except (OSError, AssertionError, IndexError):
                with self._lock:
                    self.failures += 1
                time.sleep(0.02 + chance.random() / 20)


def size_of(uid: str) -> int:
    """Some stand in the row, some in a file."""
    return 200_000 if uid.endswith(("0", "5")) else 2_000


def test_what_was_answered_0000_is_there_exactly_once_after_any_death(doors: Callable[..., Doors]) -> None:
    """(D12): two storage processes at once; one is killed and started again by itself, or all of them are."""
    listener, chance = doors(2), random.Random(8)
    with Storm(listener.ports) as storm:
        for number in range(KILLS):
            before = len(storm.acknowledged)
            give_up = time.monotonic() + PATIENCE
            while len(storm.acknowledged) < before + 5:
                assert time.monotonic() < give_up, "nothing was acknowledged"
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.3))
            if number % 2:
                listener.kill_all()
                listener.start()
            else:
                listener.kill_storage(chance)
    assert listener.stop() == 0
    assert storm.strange == []
    assert storm.failures >= 1
    found = Counter(uid for uid, _ in objects(listener.server))
    assert set(found) == storm.acknowledged
    assert set(found.values()) == {1}


def test_dcmtks_sender_leaves_with_us_what_it_leaves_with_dcmtks_receiver(
    doors: Callable[..., Doors], tmp_path: Path
) -> None:
    """(D2): the same files to us and to storescp, which keeps the bits (+B): the same data sets, in any syntax.

    Not those of the files: storescu writes some anew."""
    storescu = require("dcmtk")
    listener, theirs = doors(1), free_port()
    base, into = Path(pydicom.__file__).parent / "data" / "test_files", tmp_path / "theirs"
    into.mkdir()
    command = ["storescp", "+B", "+xa", "-od", into, "-aet", "OURS1", theirs]
    with subprocess.Popen([str(each) for each in command], stdout=subprocess.DEVNULL) as storescp:
        try:
            await_port(theirs)
            for name, option in (
                ("CT_small.dcm", "-x="),
                ("MR_small_bigendian.dcm", "-xb"),
                ("JPEG2000.dcm", "-xw"),
                ("SC_rgb_rle.dcm", "-xr"),
                ("SC_rgb_jpeg_dcmtk.dcm", "-xy"),
                ("image_dfl.dcm", "-xd"),
                ("reportsi.dcm", "-x="),
                ("rtplan.dcm", "-xi"),
            ):
                for port in (listener.ports[0], theirs):
                    answer = run(storescu, "-aec", "OURS1", option, "127.0.0.1", port, base / name)
                    assert answer.returncode == 0, (name, answer.stderr)
        finally:
            storescp.terminate()
    assert run("echoscu", "-aec", "OURS1", "127.0.0.1", listener.ports[0]).returncode == 0
    assert run("echoscu", "-aec", "THEIRS", "127.0.0.1", listener.ports[0]).returncode != 0
    assert listener.stop() == 0
    expected = {}
    for path in into.iterdir():
        raw, file = path.read_bytes(), pydicom.dcmread(path, stop_before_pixels=True)
        expected[str(file.SOPInstanceUID)] = raw[144 + file.file_meta.FileMetaInformationGroupLength :]
    assert len(expected) == 8
    assert dict(objects(listener.server)) == expected


def test_orthanc_moves_a_study_to_each_of_two_processes(doors: Callable[..., Doors], pacs: Pacs) -> None:
    """(D10): every object is stored; the move that brought it is known. Two moves at once."""
    require("dcmtk")
    listener = doors(2)
    names = ("storage-one", "storage-two")
    made = {name: list(dicom_made.ct_series(name=name, slices=25, patient_id=name, modality="MR")) for name in names}
    for series in made.values():
        assert set(pacs.load(dicom_made.part10(each) for each in series)) == {200}
    pacs.introduce("MOVER7S", free_port())
    for number, port in enumerate(listener.ports, 1):
        pacs.introduce(f"OURS{number}", port)
    moves = []
    for number, name in enumerate(names, 1):
        study = made[name][0].StudyInstanceUID
        command = ["movescu", "-S", "-aet", "MOVER7S", "-aec", "ORTHANC", "-aem", f"OURS{number}"]
        command += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "127.0.0.1", str(pacs.port)]
        moves.append(threading.Thread(target=run, args=command))
        moves[-1].start()
    for each in moves:
        each.join()
    assert listener.stop() == 0
    found = objects(listener.server)
    expected = {str(each.SOPInstanceUID) for series in made.values() for each in series}
    assert {uid for uid, _ in found} == expected
    assert len(found) == len(expected)


def test_cds_serve_runs_it_and_starts_it_again(servers: Make) -> None:
    port = free_port()
    server = servers(start=False)
    configure(server, [port])
    server.start()
    await_port(port)
    uid = fresh()
    with Requestor(port, request(called="OURS1")) as scu:
        assert scu.store(uid, object_of(uid)) == 0
    assert server.process is not None
    beside = [pid for child in children(server.process.pid) for pid in storage_processes(child)]
    assert len(beside) == 1
    os.kill(beside[0], signal.SIGKILL)
    give_up = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), Requestor(port, request(called="OURS1")) as scu:
            if scu.answered[0] == 2:
                assert scu.store(uid, object_of(uid)) == 0
                break
        assert time.monotonic() < give_up, "it was not started again"
        time.sleep(0.1)
    server.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert [each for each, _ in objects(server)] == [uid]
    counted = {what: times for _, what, times in counts_of(server)}
    assert (counted["duplicates"], counted["answered 0000"] >= 1, counted["now: open associations"]) == (1, True, 0)


def counts_of(server: Server) -> list[Counted]:
    store = Store.open(server.data_dir, f"sqlite:///{server.data_dir / 'cds.db'}")
    try:
        return counts(store)
    finally:
        store.close()


def children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.name))
    return found
