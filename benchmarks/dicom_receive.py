"""DICOM objects received: C-MOVE from Orthanc into ours beside dcmtk's storescp, memory, and a bare receiver.

Every 0000 of ours is for an object that is sealed and synced to disk; storescp and the bare pynetdicom receiver write
and sync nothing. The receivers take turns, round by round, and who is first: what a sync costs on a disk changes by the
minute. All of them run for days where they are used, so each takes a few objects before the clock runs; and none is
given an object, or a file to write over, that it has already.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import _bench
from cds_server.serve import program
from tests import dicom_made
from tests.peers.pacs import Pacs, free_ports

SLICES, SIDE, ROUNDS = 384, 326, 5
"""326 x 326 pixels of two bytes: 212 kB."""
WARMING = 24
SMALL = 200
BIG_MB = 210
MOVE, TWO_MOVES, SMALL_SHARE, MEMORY_MB = 3.5, 2.5, 0.6, 150
NODELAY = {**os.environ, "TCP_NODELAY": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--slices", type=int, default=SLICES, help="of each of the two MR series")
    parser.add_argument("--small", type=int, default=SMALL, help="CT objects of 9 kB")
    parser.add_argument("--megabytes", type=int, default=BIG_MB, help="of the one large object")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    with _bench.scratch() as scratch, _archive(scratch) as archive:
        kept = _moved(scratch, archive, args.slices, args.rounds)
        kept = _small(scratch, archive, args.small, args.rounds) and kept
        kept = _memory(scratch, args.megabytes) and kept
    return 0 if kept else 1


# ---- the figures -----------------------------------------------------------------------------------------------------


def _moved(scratch: Path, archive: Pacs, slices: int, rounds: int) -> bool:
    studies = [_load(archive, f"bench-mr-{number}", slices, SIDE, "MR") for number in (1, 2)]
    before = [_load(archive, f"bench-warm-{number}", min(WARMING, slices), SIDE, "MR") for number in (1, 2)]
    receivers = {"ours": _storing, "storescp": _storescp}
    one: dict[str, list[float]] = {each: [] for each in receivers}
    two: dict[str, list[float]] = {each: [] for each in receivers}
    for number in range(rounds):
        work = 0.0
        for name in sorted(receivers, reverse=bool(number % 2)):
            with receivers[name](scratch / f"{name}{number}", archive) as (titles, pids, count):
                _move(archive, list(zip(before, titles, strict=True)))
                held, spent = count(), sum(map(_processor_time, pids))
                one[name].append(_move(archive, [(studies[0], titles[0])]))
                two[name].append(_move(archive, list(zip(reversed(studies), titles, strict=True))))
                _expect(count() - held, 3 * slices)
                if name == "ours":
                    work = (sum(map(_processor_time, pids)) - spent) / (3 * slices)
        print(
            f"{slices} slices: ours {one['ours'][-1]:.2f} s, storescp {one['storescp'][-1]:.2f} s; two at once: "
            f"ours {two['ours'][-1]:.2f} s, storescp {two['storescp'][-1]:.2f} s; "
            f"processor time of ours {work * 1e3:.2f} ms an object   {_bench.machine()}",
            flush=True,
        )
    claim = f"C-MOVE of {slices} MR slices of 212 kB, sealed and synced"
    kept = _ratio(claim, one["ours"], one["storescp"], MOVE)
    return _ratio("two C-MOVEs at once to two storage processes", two["ours"], two["storescp"], TWO_MOVES) and kept


def _ratio(claim: str, ours: list[float], theirs: list[float], goal: float) -> bool:
    ratio = statistics.median(own / other for own, other in zip(ours, theirs, strict=True))
    return _bench.figure(
        claim,
        statistics.median(ours),
        "s",
        against=f"dcmtk storescp (TCP_NODELAY=1, no sync): {statistics.median(theirs):.2f} s",
        ratio=ratio,
        goal=f"<= {goal} times",
        ok=ratio <= goal,
    )


def _small(scratch: Path, archive: Pacs, count: int, rounds: int) -> bool:
    study, few = _load(archive, "bench-ct", count, 64, "CT"), min(WARMING, count)
    before = _load(archive, "bench-warm-ct", few, 64, "CT")
    ours: list[float] = []
    bare: list[float] = []
    for number in range(rounds):
        with _storing(scratch / f"small{number}", archive) as (titles, _, landed):
            _move(archive, [(before, titles[0])])
            ours.append(count / _move(archive, [(study, titles[0])]))
            _expect(landed(), count + few)
        with _bare(scratch / f"bare{number}", archive) as titles:
            _move(archive, [(before, titles[0])])
            bare.append(count / _move(archive, [(study, titles[0])]))
        print(f"{count} CT of 9 kB: ours {ours[-1]:.0f}/s, bare {bare[-1]:.0f}/s   {_bench.machine()}", flush=True)
    share = statistics.median(own / other for own, other in zip(ours, bare, strict=True))
    return _bench.figure(
        "small CT objects by C-MOVE, sealed and synced",
        statistics.median(ours),
        "objects/s",
        against=f"bare pynetdicom, bytes written and not synced: {statistics.median(bare):.0f}/s",
        ratio=share,
        goal=f">= {SMALL_SHARE} of it",
        ok=share >= SMALL_SHARE,
    )


def _memory(scratch: Path, megabytes: int) -> bool:
    side = int((megabytes * 1e6 / 2) ** 0.5)
    dataset = dicom_made.mammogram(name="bench-mg", rows=side, columns=side)
    path = scratch / "big.dcm"
    path.write_bytes(dicom_made.part10(dataset))
    with _one(scratch / "big", "BIG") as (port, pid):
        began = time.perf_counter()
        _storescu("BIG", port, path)
        seconds = time.perf_counter() - began
        peak = max(map(_peak, _storage_of(pid)))
    print(f"{path.stat().st_size / 1e6:.0f} MB in {seconds:.2f} s   {_bench.machine()}", flush=True)
    return _bench.figure(
        f"peak memory of the storage process, one object of {path.stat().st_size / 1e6:.0f} MB",
        peak / 1e6,
        "MB",
        against=f"received in {seconds:.2f} s",
        goal=f"<= {MEMORY_MB} MB",
        ok=peak <= MEMORY_MB * 1e6,
    )


# ---- the archive -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _archive(scratch: Path) -> Iterator[Pacs]:
    program_ = shutil.which("Orthanc")
    if program_ is None or shutil.which("storescp") is None:
        sys.exit("benchmarks: Orthanc or dcmtk is not installed: make peers")
    (scratch / "orthanc").mkdir()
    archive = Pacs(Path(program_), scratch / "orthanc")
    archive.start()
    try:
        archive.introduce("BENCH", free_ports(1)[0])
        yield archive
    finally:
        archive.stop()


def _load(archive: Pacs, name: str, count: int, side: int, modality: str) -> str:
    rng, study = np.random.default_rng(1), ""
    files = []
    for dataset in dicom_made.ct_series(name=name, slices=count, size=side, modality=modality, patient_id=name):
        dataset.PixelData = rng.integers(0, 4096, side * side, dtype=np.uint16).tobytes()
        study = str(dataset.StudyInstanceUID)
        files.append(dicom_made.part10(dataset))
    if set(archive.load(files)) != {200}:
        sys.exit("benchmarks: Orthanc did not take the series")
    return study


def _move(archive: Pacs, moves: list[tuple[str, str]]) -> float:
    """Seconds until all of them were answered."""
    failed: list[str] = []

    def one(study: str, title: str) -> None:
        command = ["movescu", "-S", "-aet", "BENCH", "-aec", "ORTHANC", "-aem", title]
        command += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "127.0.0.1", str(archive.port)]
        answer = subprocess.run(command, env=NODELAY, capture_output=True, text=True, check=False)
        if answer.returncode:
            failed.append(answer.stderr)

    threads = [threading.Thread(target=one, args=each) for each in moves]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failed:
        sys.exit(f"benchmarks: a C-MOVE failed: {failed[0]}")
    return time.perf_counter() - began


def _expect(found: int, count: int) -> None:
    """A C-MOVE may say success and have sent nothing."""
    if found != count:
        sys.exit(f"benchmarks: {found} objects of {count} came")


def _landed(home: Path) -> int:
    with contextlib.closing(sqlite3.connect(home / "var" / "cds.db")) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM landing").fetchone()[0])


def _storescu(title: str, port: int, path: Path) -> None:
    command = ["storescu", "-pdu", "131072", "-aec", title, "127.0.0.1", str(port), str(path)]
    subprocess.run(command, env=NODELAY, capture_output=True, check=True)


# ---- receivers -------------------------------------------------------------------------------------------------------


Receiving = tuple[list[str], list[int], Callable[[], int]]
"""AE titles, processes, and how many objects they hold."""


@contextlib.contextmanager
def _storing(home: Path, archive: Pacs) -> Iterator[Receiving]:
    """`cds listen` with two storage sources, a process each."""
    ports = free_ports(2)
    titles = ["OURSA", "OURSB"]
    with _listening(home, dict(zip(titles, ports, strict=True))) as process:
        for title, port in zip(titles, ports, strict=True):
            archive.introduce(title, port)
        yield titles, _storage_of(process.pid), lambda: _landed(home)
    shutil.rmtree(home)


@contextlib.contextmanager
def _one(home: Path, title: str) -> Iterator[tuple[int, int]]:
    port = free_ports(1)[0]
    with _listening(home, {title: port}) as process:
        yield port, process.pid


@contextlib.contextmanager
def _listening(home: Path, ports: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    home.mkdir()
    config = home / "cds.toml"
    config.write_text(
        "".join(
            f"[[source]]\nname = '{title.lower()}'\nkind = 'dicom-storage'\nnamespace = 'hospital'\n"
            f"listen = '127.0.0.1:{port}'\nae_title = '{title}'\nmin_free_mb = 100\n"
            for title, port in ports.items()
        )
    )
    environment = _bench.environment(home / "var", CDS_CONFIG=str(config))
    with _run([*program(), "listen"], list(ports.values()), environment) as process:
        yield process


@contextlib.contextmanager
def _storescp(home: Path, archive: Pacs) -> Iterator[Receiving]:
    """Two of dcmtk's receivers, that write what comes as it comes (+B). Its longest PDU is 131072, and so is the
    longest that Orthanc sends, to either."""
    with contextlib.ExitStack() as stack:
        titles, pids = [], []
        for name, port in zip("AB", free_ports(2), strict=True):
            folder = home / name
            folder.mkdir(parents=True)
            titles.append(f"THEIRS{name}")
            command = ["storescp", "+B", "-pdu", "131072", "-od", str(folder), "-aet", titles[-1], str(port)]
            pids.append(stack.enter_context(_run(command, [port], NODELAY)).pid)
            archive.introduce(titles[-1], port)
        yield titles, pids, lambda: sum(len(list((home / each).iterdir())) for each in "AB")
    shutil.rmtree(home)


@contextlib.contextmanager
def _bare(home: Path, archive: Pacs) -> Iterator[list[str]]:
    home.mkdir()
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "benchmarks._bare_storage", str(port), str(home)]
    with _run(command, [port], {**os.environ, "PYTHONPATH": str(_bench.ROOT)}):
        archive.introduce("BARE", port)
        yield ["BARE"]
    shutil.rmtree(home)


@contextlib.contextmanager
def _run(command: list[str], ports: list[int], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for port in ports:
            _until(lambda port=port: _listens(port), "a receiver does not listen")  # type: ignore[misc]
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def _until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up:
            sys.exit(f"benchmarks: {what}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _storage_of(parent: int) -> list[int]:
    """The storage processes below `cds listen`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if above == parent and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    if not found:
        sys.exit("benchmarks: there is no storage process")
    return found


def _processor_time(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    """Highest resident bytes of a process."""
    (kilobytes,) = [
        line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(kilobytes) * 1024


if __name__ == "__main__":
    sys.exit(main())
