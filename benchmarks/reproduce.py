"""Ten thousand inferences, each of another patient, then each encoded and scored again from its snapshot: same bits.

The inferences are made through the whole application, sixteen calls at a time; they are reproduced as `cds inference
all --reproduce` does, by a store that is opened anew.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from benchmarks import _bench
from benchmarks._bodies import Bodies, survival
from benchmarks._inside import application, call, settings
from cds_server import logs
from cds_server.app import build
from cds_server.reproduce import all_refs, load, reproduce

TOGETHER = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inferences")
    args = parser.parse_args()
    logs.configure("warning")
    with _bench.scratch() as scratch, _bench.Waiting("inferences"):
        made = asyncio.run(_make(scratch / "var", args.count))
        again, equal, others = _again(scratch / "var")
    print(f"made in {made:.1f} s ({args.count / made:.0f}/s), reproduced in {again:.1f} s   {_bench.machine()}")
    for why in sorted(set(others)):
        print(f"not equal: {why} ({others.count(why)} times)")
    same = _bench.figure(
        f"inferences reproduced bit for bit, of {args.count}",
        equal,
        "inferences",
        against="the bytes sealed when they were made",
        ratio=equal / args.count,
        goal="= 1",
        ok=equal == args.count,
    )
    _bench.figure(
        "reproducing: rate",
        args.count / again,
        "inferences/s",
        against=f"making them: {args.count / made:.0f}/s",
        ratio=made / again,
        goal="none: printed",
        ok=True,
    )
    return 0 if same else 1


async def _make(data_dir: Path, count: int) -> float:
    """Seconds."""
    bodies, waiting = Bodies(time.time_ns()), iter(range(count))
    async with application(data_dir) as (app, _):

        async def one_after_another() -> None:
            for _ in waiting:
                assert survival(await call(app, bodies.one())), "the answer is no score"

        began = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(TOGETHER)))
        return time.perf_counter() - began


def _again(data_dir: Path) -> tuple[float, int, list[str]]:
    """Seconds, how many were equal, and why the others were not."""
    parts = build(settings(data_dir))
    try:
        began = time.perf_counter()
        results = [reproduce(parts.registry, load(parts.store, ref)) for ref in all_refs(parts.store.reads)]
        seconds = time.perf_counter() - began
    finally:
        parts.close()
    return seconds, sum(result.equal for result in results), [result.why for result in results if not result.equal]


if __name__ == "__main__":
    sys.exit(main())
