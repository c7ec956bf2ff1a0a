"""What the benchmarks share: the figure's line, the real data, an instance, a server of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cds_server.serve import program, wait_ready

ROOT = Path(__file__).resolve().parents[1]


def figure(
    claim: str, value: float, unit: str, *, against: str, goal: str, ok: bool, ratio: float | None = None
) -> bool:
    """Print one figure as its line of JSON; `ratio` where the claim is one."""
    line = {"claim": claim, "value": _short(value), "unit": unit, "against": against, "ratio": _short(ratio)}
    print(json.dumps({**line, "goal": goal, "ok": bool(ok)}), flush=True)
    return ok


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def peer_data() -> Path:
    """Folder of the data written by others, read in place."""
    return Path(os.environ.get("CDS_PEER_DATA", ROOT.parent / "shared" / "data"))


def synthea() -> Path:
    """The Synthea set: 148,203 resources in NDJSON files by type."""
    folder = peer_data() / "fhir" / "synthea-smart-615"
    if not folder.is_dir():
        sys.exit("benchmarks: the Synthea set is not there: name the folder of the data in CDS_PEER_DATA")
    return folder


def files_of(types: Sequence[str]) -> list[Path]:
    """Its files, of some resource types (none: of all)."""
    found = sorted(synthea().glob("*.ndjson.gz"))
    return [path for path in found if not types or path.name.split(".")[0] in types]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder on a real disk, removed at the end. `CDS_BENCH_DIR` says where it is made."""
    folder = Path(tempfile.mkdtemp(prefix="cds-bench-", dir=os.environ.get("CDS_BENCH_DIR")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """The environment of a `cds` process on an instance; nothing of the caller's own configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    return {**kept, "CDS_DATA_DIR": str(data_dir), "CDS_TRUST": "open", "CDS_LOG_LEVEL": "warning", **more}


def cds(data_dir: Path, *arguments: str | Path, **options: Any) -> tuple[float, int]:
    """Run a `cds` command; gives (seconds, peak resident bytes). Raises CalledProcessError."""
    command = [*program(), *map(str, arguments)]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment(data_dir), stdout=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def start(data_dir: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """A `cds` command that runs on beside the caller."""
    return subprocess.Popen([*program(), *map(str, arguments)], env=environment(data_dir), stdout=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(data_dir: Path, processes: int = 1, **more: str) -> Iterator[tuple[int, int]]:
    """`cds serve` on an instance, as it ships: gives (port, pid). `more`: variables of its environment."""
    port = free_port()
    command = [*program(), "serve", "--port", str(port), "--workers", str(processes)]
    yield from _running(command, port, environment(data_dir, **more), "readyz")


@contextlib.contextmanager
def bare(answer: Path, processes: int = 1) -> Iterator[tuple[int, int]]:
    """The bare FastAPI routes, run by the same uvicorn settings; `answer`: file of what they answer."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._bare", "--port", str(port), "--answer", str(answer)]
    command += ["--processes", str(processes)]
    yield from _running(command, port, dict(os.environ), "healthz")


@contextlib.contextmanager
def ceiling(taken: Path, processes: int = 1, *, signed: bool = False) -> Iterator[tuple[int, int]]:
    """What a recorded call asks of other people's code alone; `taken`: file of what one call asked."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._ceiling", "--port", str(port), "--taken", str(taken)]
    command += ["--processes", str(processes), *(["--signed"] if signed else [])]
    yield from _running(command, port, dict(os.environ), "healthz")


@contextlib.contextmanager
def neighbour(card: Path, processes: int = 1) -> Iterator[tuple[int, int]]:
    """HealthChain in its own environment, answering with one fixed card: gives (port, pid)."""
    port, python = free_port(), ROOT / ".venv" / "peers" / "bin" / "python"
    if not python.exists():
        sys.exit("benchmarks: the neighbour is not installed: make peers")
    command = [str(python), "-m", "benchmarks._neighbour", "--port", str(port), "--processes", str(processes)]
    env = {**os.environ, "CDS_BENCH_CARD": str(card), "PYTHONPATH": str(ROOT)}
    yield from _running(command, port, env, "healthz", stdout=subprocess.DEVNULL)  # it greets with a banner


def _running(
    command: list[str], port: int, env: Mapping[str, str], ready: str, **options: Any
) -> Iterator[tuple[int, int]]:
    process = subprocess.Popen(command, env=env, start_new_session=True, **options)
    try:
        wait_ready(f"http://127.0.0.1:{port}/{ready}", process)
        yield port, process.pid
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
    """End a server that leads a session of its own, and wait until its background process is gone, too."""
    process.terminate()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine() -> str:
    """What else ran: the load averages, beside the number of processors."""
    one, five, _ = os.getloadavg()
    return f"{os.cpu_count()} processors, load {one:.1f} (1 min) {five:.1f} (5 min)"


class Waiting:
    """Prints a line on stderr every while, so that minutes of work are not silent."""

    def __init__(self, what: str, every: float = 30.0) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, args=(what, every), daemon=True)

    def _tell(self, what: str, every: float) -> None:
        began = time.monotonic()
        while not self._done.wait(every):
            print(f"  {what}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
