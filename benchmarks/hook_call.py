"""A hook call, scored and durably recorded, beside a bare FastAPI route that parses the same bodies.

Both run one process under the same uvicorn settings, in turns (A, B, A, B, ...), and are driven by the same client
over 16 kept-alive connections; every request is another patient with other values. The route is one as FastAPI's
tutorial writes it (decision 0037 says why that one is the measure); the least that a server can do is measured, too.
The store is SQLite with full sync, preloaded with the Synthea set; the background validation of `cds serve` runs as it
ships. Then p99 at half of its own top rate, alone and while `cds digest` reads the whole set once more in a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks import _bench
from benchmarks._bare import LEAST
from benchmarks._inside import call_once
from benchmarks._load import Load, drive, warm

FLOOR, AIM = 0.15, 0.30
"""Of the bare route's rate. 0.29 is where the nearest neighbour stands, with one fixed card and no record."""
P99_ALONE, P99_DIGESTING = 40.0, 100.0
"""Milliseconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-seconds", type=float, default=20.0, help="of each measurement at half rate")
    parser.add_argument("--processes", type=int, default=1, help="of either server")
    parser.add_argument("--types", nargs="*", default=[], help="preload only these resource types (default: all)")
    parser.add_argument("--instance", type=Path, help="copy this preloaded data directory instead of preloading")
    args = parser.parse_args()
    with _bench.scratch() as scratch:
        instance = scratch / "var"
        _preload(instance, args)
        return 0 if _measure(instance, args) else 1


def _preload(instance: Path, args: argparse.Namespace) -> None:
    files = _bench.files_of(args.types)
    if args.instance:
        shutil.copytree(args.instance, instance)
    else:
        with _bench.Waiting("preloading"):
            _bench.cds(instance, "land", "--source", "synthea", *files)
            _bench.cds(instance, "digest")
    _bench.cds(instance, "land", "--source", "synthea-again", *files)  # to be digested while calls come in


def _measure(instance: Path, args: argparse.Namespace) -> bool:
    ours: list[Load] = []
    bares: list[float] = []
    leasts: list[float] = []
    answer = instance.with_name("answer.json")
    answer.write_text(json.dumps(call_once(instance.with_name("one")), separators=(",", ":"), ensure_ascii=False))
    with _bench.serving(instance, args.processes) as (port, _):
        warm(lambda: drive(port, min(2.0, args.seconds)))
        with _bench.bare(answer, args.processes) as (bare_port, _):
            for _ in range(args.rounds):
                ours.append(drive(port, args.seconds))
                bares.append(drive(bare_port, args.seconds, check=False).rate)
                leasts.append(drive(bare_port, args.seconds / 2, check=False, path=LEAST).rate)
        rates = [load.rate for load in ours]
        top, bare = statistics.median(rates), statistics.median(bares)
        shed = max(load.shed_share for load in ours)
        assert top, "no answer came"
        print(f"rounds     ours {_listed(rates)}   bare {_listed(bares)}   {_bench.machine()}")
        print(f"least      {_listed(leasts)}: a body parsed and left alone, {answer.stat().st_size} bytes made ahead")
        alone = drive(port, args.latency_seconds, rate=top / 2)
        print(f"half rate  {_told(alone)}")
        beside, digested = _while_digesting(instance, port, top / 2, args.latency_seconds)
        print(f"digesting  {_told(beside)}   cds digest {'ended before' if digested else 'outlasted'} the load")
    return all(
        [
            _bench.figure(
                "hook call, scored and recorded: rate",
                top,
                "requests/s",
                against=f"bare FastAPI route, same bodies, same answer: {bare:.0f} requests/s (the least: "
                f"{statistics.median(leasts):.0f}); shed {shed:.1%}",
                ratio=top / bare,
                goal=f">= {FLOOR} (aim {AIM})",
                ok=top / bare >= FLOOR,
            ),
            _bench.figure(
                "hook call: p99 at half of its top rate",
                alone.p99,
                "ms",
                against=f"open loop at {top / 2:.0f} requests/s; shed {alone.shed_share:.1%}",
                goal=f"< {P99_ALONE:.0f} ms, none shed",
                ok=alone.p99 < P99_ALONE and not alone.shed,
            ),
            _bench.figure(
                "hook call: p99 at half of its top rate, while cds digest runs",
                beside.p99,
                "ms",
                against=f"open loop at {top / 2:.0f} requests/s; shed {beside.shed_share:.1%}",
                goal=f"< {P99_DIGESTING:.0f} ms, none shed",
                ok=beside.p99 < P99_DIGESTING and not beside.shed,
            ),
        ]
    )


def _while_digesting(instance: Path, port: int, rate: float, seconds: float) -> tuple[Load, bool]:
    """The load at a rate beside a running digest, and whether the digest ended first."""
    digest = _bench.start(instance, "digest")
    try:
        load = drive(port, seconds, rate=rate)
        assert digest.poll() in (None, 0), "cds digest failed"
        return load, digest.poll() is not None
    finally:
        digest.terminate()
        digest.wait()


def _listed(rates: list[float]) -> str:
    return " ".join(f"{rate:.0f}" for rate in rates)


def _told(load: Load) -> str:
    times = f"p50 {load.p50:.1f} ms  p99 {load.p99:.1f} ms  worst {load.worst:.0f} ms"
    return f"{load.rate:.0f}/s  {times}  shed {load.shed_share:.1%}  ({load.answered} answers)"


if __name__ == "__main__":
    sys.exit(main())
