"""How fast a recorded hook call could be at all: only what it asks of other people's code, beside route and neighbour.

`_ceiling.py` says what that is. The bare FastAPI route and HealthChain (one fixed card, nothing recorded) run in turns
with it, with as many processes, driven by the same client. What `hook_call.py` and `hooks.py` measure of ours can't be
above the ratio that stands here; the goals of those two are printed beside it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import _bench
from benchmarks._ceiling import take
from benchmarks._load import drive, warm
from benchmarks.hooks import NEIGHBOURS_PATH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2), help="of each server")
    parser.add_argument("--connections", type=int, default=16)
    args = parser.parse_args()
    with _bench.scratch() as scratch:
        taken = take(scratch / "var")
        (scratch / "taken").write_bytes(pickle.dumps(taken))
        (scratch / "answer.json").write_bytes(taken.answer)
        (scratch / "card.json").write_text(json.dumps(json.loads(taken.answer)["cards"][0]))
        rows = sum(len(rows) for _, _, rows in taken.rows)
        print(f"one call: {len(taken.graphs)} graph runs, {len(taken.sealed)} sealed payloads, {rows} rows")
        for processes in args.processes:
            _measure(scratch, args, processes)
    return 0


def _measure(scratch: Path, args: argparse.Namespace, processes: int) -> None:
    signed, rates = processes > 1, dict[str, list[float]]()
    with (
        _bench.ceiling(scratch / "taken", processes, signed=signed) as (ceiling, _),
        _bench.bare(scratch / "answer.json", processes) as (bare, _),
        _bench.neighbour(scratch / "card.json", processes) as (other, _),
    ):
        for _ in range(args.rounds):
            for name, port, path in (
                ("ceiling", ceiling, None),
                ("bare", bare, None),
                ("HealthChain", other, NEIGHBOURS_PATH),
            ):
                options: dict[str, Any] = {"path": path} if path else {}
                once = partial(drive, port, connections=args.connections, check=False, **options)
                if name not in rates:
                    warm(partial(once, 0.5))
                rates.setdefault(name, []).append(once(args.seconds).rate)
    top, route, neighbour = (statistics.median(rates[name]) for name in ("ceiling", "bare", "HealthChain"))
    beside, goal = (neighbour, ">= 1 (issue: of HealthChain)") if signed else (route, ">= 0.15 (of the bare route)")
    _bench.figure(
        f"ceiling of a recorded call, {processes} processes, {'signed (RS384)' if signed else 'unsigned'}: rate",
        top,
        "requests/s",
        against=f"bare route {route:.0f}, HealthChain {neighbour:.0f} requests/s; {_bench.machine()}",
        ratio=top / beside,
        goal=f"none: the goal of ours is {goal}",
        ok=True,
    )


if __name__ == "__main__":
    sys.exit(main())
