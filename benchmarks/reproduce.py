"""Ten thousand inferences, each of another patient, then each encoded and scored again from its snapshot: same bits.

The inferences are made through the whole application, sixteen calls at a time; they are reproduced as `cds inference
all --reproduce` does, by a store that is opened anew. Then an auditor asks: what made a card, with the proof of each
entry; a page of what the model did; what a service would have said before the last call.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import _bench
from benchmarks._bodies import Bodies, survival
from benchmarks._inside import application, call, settings
from cds_server import logs
from cds_server.app import build
from cds_server.checkpoints import Checkpoints
from cds_server.questions.card import card
from cds_server.questions.made import made
from cds_server.questions.proofs import proven
from cds_server.reproduce import all_refs, load, reproduce
from cds_server.services.breast_cancer_prognosis import NAME
from cds_server.store.store import Store
from cds_server.time_machine import compare

TOGETHER = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inferences")
    args = parser.parse_args()
    logs.configure("warning")
    with _bench.scratch() as scratch, _bench.Waiting("inferences"):
        made = asyncio.run(_make(scratch / "var", args.count))
        again, equal, others = _again(scratch / "var")
        asked = _asked(scratch / "var")
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
    for claim, times in asked.items():
        _bench.figure(
            f"{claim}, of {args.count}: median",
            1000 * statistics.median(times),
            "ms",
            against=f"the slowest of {len(times)}: {1000 * max(times):.1f} ms",
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


def _asked(data_dir: Path) -> dict[str, list[float]]:
    """Question -> seconds of each answer."""
    parts = build(settings(data_dir))
    try:
        store, checkpoints = parts.store, Checkpoints(parts.store)
        checkpoints.make()
        rows = store.reads.query("SELECT uuid, inference_id FROM card ORDER BY id DESC LIMIT 20")
        (model, at, record_id) = store.reads.query(
            "SELECT model, at, record_id FROM inference WHERE id = ?", (rows[0][1],)
        )[0]
        (record,) = store.reads.records([record_id])
        asks: dict[str, list[Callable[[], object]]] = {
            "what made a card, with proofs": [partial(_card, store, checkpoints, row[0]) for row in rows],
            "a page of 50 inferences of a model, with proofs": [partial(_page, store, checkpoints, model)] * 5,
            "a service and a patient at an earlier time": [partial(compare, parts, NAME, record, at)] * 5,
        }
        return {claim: [_timed(ask) for ask in some] for claim, some in asks.items()}
    finally:
        parts.close()


def _card(store: Store, checkpoints: Checkpoints, uuid: str) -> object:
    return proven(store, checkpoints, card(store, uuid))


def _page(store: Store, checkpoints: Checkpoints, model: str) -> object:
    return proven(store, checkpoints, made(store, model))


def _timed(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
