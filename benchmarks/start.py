"""From starting the process to the first 200 of /readyz, and `cds --help`."""

from __future__ import annotations

import argparse
import http.client
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import _bench
from cds_server.serve import program

READY, HELP = 3.0, 0.5
"""Seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5, help="times each; the median counts")
    args = parser.parse_args()
    with _bench.scratch() as scratch:
        fresh = [_ready(scratch / f"new-{n}") for n in range(args.count)]
        again = [_ready(scratch / "new-0") for _ in range(args.count)]
        helped = [_bench.cds(scratch / "none", "--help")[0] for _ in range(args.count)]
    print(f"new instance {_listed(fresh)}   again {_listed(again)}   --help {_listed(helped)}   {_bench.machine()}")
    figures = [
        ("start to ready, new instance", statistics.median(fresh), READY),
        ("start to ready, existing instance", statistics.median(again), READY),
        ("cds --help", statistics.median(helped), HELP),
    ]
    against = f"median of {args.count}"
    kept = [
        _bench.figure(claim, value, "s", against=against, goal=f"< {goal} s", ok=value < goal)
        for claim, value, goal in figures
    ]
    return 0 if all(kept) else 1


def _ready(instance: Path) -> float:
    """Seconds until /readyz answers 200. The instance is made where it is not there."""
    port = _bench.free_port()
    began = time.perf_counter()
    process = subprocess.Popen(
        [*program(), "serve", "--port", str(port)], env=_bench.environment(instance), start_new_session=True
    )
    try:
        while not _is_ready(port):
            assert process.poll() is None, "the server ended"
            assert time.perf_counter() - began < 60, "the server did not become ready"
            time.sleep(0.005)
        return time.perf_counter() - began
    finally:
        _bench.stop(process)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _listed(seconds: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in seconds)


if __name__ == "__main__":
    sys.exit(main())
