"""`cds pull` from a bulk server on loopback: beside landing files from disk, on a file of 2 GB, on 20,000 files.

A pull downloads, verifies, lands and digests; `cds digest` runs after it and counts in, so that nothing is left out
whoever does it. The server is a process of its own and delivers over a gigabyte a second; its own memory is not
counted. The large file needs about 3 times its size in the scratch folder (`CDS_BENCH_DIR`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _bench
from cds_server.serve import program, wait_ready

GOAL = 1.5
"""Times `cds land` + `cds digest` of the same files from disk."""
PEAK = 600 * 10**6
"""Bytes, on any file size."""
SECONDS = 300.0
"""For the many files."""
SIZE = 2 * 10**9
FILES = 20_000
CLAIMS = ("speed", "memory", "files")
CONFIGURATION = """
[[source]]
name = "bulk"
kind = "fhir-bulk"
namespace = "bulk"
url = "http://127.0.0.1:{port}/fhir"
level = "system"
auth = "none"
"""


@dataclass(frozen=True, slots=True)
class Done:
    seconds: float
    peak: int
    """Bytes, of the larger process."""
    resources: int
    """Versions in the store afterwards."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--claims", nargs="+", choices=CLAIMS, default=CLAIMS, help="default: all")
    parser.add_argument(
        "--types", nargs="*", default=[], help="speed: only these types (default: all 148,203 resources)"
    )
    parser.add_argument("--bytes", type=int, default=SIZE, help="memory: size of the file")
    parser.add_argument("--files", type=int, default=FILES, help="files: how many")
    args = parser.parse_args()
    kept = []
    with _bench.Waiting("pull"):
        if "speed" in args.claims:
            kept.append(_speed(args.types))
        if "memory" in args.claims:
            kept.append(_memory(args.bytes))
        if "files" in args.claims:
            kept.append(_files(args.files))
    return 0 if all(kept) else 1


def _speed(types: list[str]) -> bool:
    with _bench.scratch() as scratch:
        plain = scratch / "plain"
        plain.mkdir()
        given = map(str, _bench.files_of(types))
        with _serving("--paths", *given, "--scratch", str(plain)) as port:  # it unpacks them: both ways read the same
            landing = _run(scratch / "disk", None, "land", "--source", "bulk", *map(str, sorted(plain.iterdir())))
            digesting = _run(scratch / "disk", None, "digest")
            pulled = _pulled(scratch / "pulled", port)
        here = _resources(scratch / "disk")
    least = landing[0] + digesting[0]
    print(
        f"{pulled.resources} resources: pull {pulled.seconds:.1f} s; land {landing[0]:.1f} s and digest "
        f"{digesting[0]:.1f} s   {_bench.machine()}"
    )
    return _bench.figure(
        f"cds pull of {pulled.resources} Synthea resources: download, verify, land, digest",
        pulled.seconds,
        "s",
        against=f"cds land + cds digest of the same files from disk: {least:.1f} s, {here} resources",
        ratio=pulled.seconds / least,
        goal=f"<= {GOAL}, the same resources",
        ok=pulled.seconds <= GOAL * least and pulled.resources == here,
    )


def _memory(size: int) -> bool:
    with _bench.scratch() as scratch, _serving("--bytes", str(size)) as port:
        free = shutil.disk_usage(scratch).free
        if free < 3 * size:
            sys.exit(f"bulk: {free / 1e9:.1f} GB are free, {3 * size / 1e9:.1f} are needed (CDS_BENCH_DIR)")
        pulled = _pulled(scratch / "pulled", port)
    print(f"{size / 1e9:.2g} GB: {pulled.seconds:.1f} s, {size / pulled.seconds / 1e6:.1f} MB/s   {_bench.machine()}")
    return _bench.figure(
        f"cds pull of one file of {size / 1e9:.2g} GB, digest included: peak resident memory",
        pulled.peak / 1e6,
        "MB",
        against=f"the larger process; {pulled.resources} resources with their text",
        goal=f"< {PEAK / 1e6:.0f} MB",
        ok=pulled.peak < PEAK and pulled.resources > 0,
    )


def _files(count: int) -> bool:
    with _bench.scratch() as scratch, _serving("--files", str(count)) as port:
        pulled = _pulled(scratch / "pulled", port)
    print(f"{count} files: {pulled.seconds:.1f} s, peak {pulled.peak / 1e6:.0f} MB   {_bench.machine()}")
    return _bench.figure(
        f"cds pull of {count} files of one line, digest included",
        pulled.seconds,
        "s",
        against=f"{pulled.resources} resources in the store",
        goal=f"<= {SECONDS:.0f}, all of them",
        ok=pulled.seconds <= SECONDS and pulled.resources == count,
    )


# ---- processes -------------------------------------------------------------------------------------------------------


def _pulled(data_dir: Path, port: int) -> Done:
    config = data_dir.with_suffix(".toml")
    config.write_text(CONFIGURATION.format(port=port))
    pulling = _run(data_dir, config, "pull", "bulk")
    digesting = _run(data_dir, config, "digest")
    return Done(pulling[0] + digesting[0], max(pulling[1], digesting[1]), _resources(data_dir))


def _run(data_dir: Path, config: Path | None, *arguments: str) -> tuple[float, int]:
    """A `cds` command to its end: (seconds, peak resident bytes)."""
    command = [*program(), *arguments]
    more = {"CDS_CONFIG": str(config)} if config else {}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=_bench.environment(data_dir, **more), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def _resources(data_dir: Path) -> int:
    with contextlib.closing(sqlite3.connect(data_dir / "cds.db")) as database:
        return int(database.execute("SELECT count(*) FROM resource").fetchone()[0])


@contextlib.contextmanager
def _serving(*arguments: str) -> Iterator[int]:
    """The bulk server: gives its port."""
    port = _bench.free_port()
    command = [sys.executable, "-m", "benchmarks._bulk_server", "--port", str(port), *arguments]
    env = {**os.environ, "PYTHONPATH": str(_bench.ROOT)}
    process = subprocess.Popen(command, env=env, start_new_session=True)
    try:
        wait_ready(f"http://127.0.0.1:{port}/healthz", process, seconds=120)
        yield port
    finally:
        _bench.stop(process)


if __name__ == "__main__":
    sys.exit(main())
