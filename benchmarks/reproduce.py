"""Ten thousand inferences, each of another patient, then each encoded and scored again from its snapshot: same bits.

The inferences are made through the whole application, sixteen calls at a time; they are reproduced as `cds inference
all --reproduce` does, by a store that is opened anew.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Any

from benchmarks import _bench
from benchmarks._bodies import Bodies, survival
from benchmarks._inside import call
from cds_server import logs
from cds_server.app import build, create_app
from cds_server.reproduce import all_refs, load, reproduce
from cds_server.settings import load as settings_of

TOGETHER = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inferences")
    args = parser.parse_args()
    logs.configure("warning")
    with _bench.scratch() as scratch, _bench.Waiting("inferences"):
        settings = settings_of({"CDS_DATA_DIR": str(scratch / "var"), "CDS_TRUST": "open"})
        made = asyncio.run(_make(settings, args.count))
        again, equal, others = _again(settings)
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


async def _make(settings: Any, count: int) -> float:
    """Seconds."""
    parts = build(settings)
    app, bodies = create_app(parts), Bodies(time.time_ns())
    waiting = iter(range(count))
    began = time.perf_counter()

    async def one_after_another() -> None:
        for _ in waiting:
            assert survival(await call(app, bodies.one())), "the answer is no score"

    try:
        await asyncio.gather(*(one_after_another() for _ in range(TOGETHER)))
    finally:
        parts.close()
    return time.perf_counter() - began


def _again(settings: Any) -> tuple[float, int, list[str]]:
    """Seconds, how many were equal, and why the others were not."""
    parts = build(settings)
    try:
        began = time.perf_counter()
        results = [reproduce(parts.registry, load(parts.store, ref)) for ref in all_refs(parts.store.reads)]
        seconds = time.perf_counter() - began
    finally:
        parts.close()
    return seconds, sum(result.equal for result in results), [result.why for result in results if not result.equal]


if __name__ == "__main__":
    sys.exit(main())
