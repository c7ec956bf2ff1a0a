"""Where the time of a hook call goes: one call at a time through the whole application in this process, stage by stage.

Each stage is charged only with what no stage inside it is charged with, so that the lines add up to the whole call. CPU
is of all threads of the process; wall less CPU is waiting, for the disk above all (each act makes its keys and its rows
durable; under load, concurrent calls share that). The HTTP server is outside: a request of the bare route is its cost.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.readers import facts
from benchmarks import _bench
from benchmarks._bodies import Bodies, survival
from benchmarks._inside import application, call
from cds_server import decisions, logs, origins, panel, reception, wire
from cds_server.hooks import routes
from cds_server.store import vault, writer
from models.scoring import Scorer

STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "strict parse": ((wire, "loads"),),
    "envelope": ((routes, "parse"),),
    "read statements": ((decisions.Decisions, "_read"),),
    "land: keep the bytes": (
        (reception.Reception, "_pack"),
        (reception.Reception, "_record"),
        (reception.Reception, "_add_landing"),
    ),
    "facts": ((facts, "project"),),
    "what is known": (
        (reception, "_beside"),
        (reception, "_stated"),
        (reception.Reception, "_seen"),
        (panel, "snapshot"),
    ),
    "judge: encode, ONNX, fuse": ((Scorer, "judge"),),
    "cards": ((origins.Origins, "of"), (decisions, "render")),  # and the service's own function, below
    "infer: rows": ((decisions.Decisions, "add_inference"), (decisions.Decisions, "_add_call")),
    "seal (AES-GCM, keyed digests)": ((vault.Vault, "seal"), (vault.Index, "__call__")),
    "queries": ((writer.Tx, "read"),),
    "inserts": ((writer.Tx, "flush"),),
    "ledger entry": ((writer, "seal_entry"), (writer.Tx, "entry")),
    "keys durable": ((vault.KeyStore, "put"),),
    "transaction, commit, waiting": ((writer.Writer, "write"),),
    "response": ((routes, "_response"),),
}
REST = "framework, and what no line names"


@dataclass(slots=True)
class Spent:
    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0


class Watch:
    """Charges time to the innermost open stage. One call at a time: stages nest, whichever thread they are in."""

    def __init__(self) -> None:
        self.spent = {name: Spent() for name in (*STAGES, REST)}
        self._open: list[str] = []
        self._wall = self._cpu = 0.0

    def enter(self, name: str) -> None:
        self._charge()
        self.spent[name].calls += 1
        self._open.append(name)

    def leave(self) -> None:
        self._charge()
        self._open.pop()

    def _charge(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        if self._open:
            spent = self.spent[self._open[-1]]
            spent.wall += wall - self._wall
            spent.cpu += cpu - self._cpu
        self._wall, self._cpu = wall, cpu

    def wrapped(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(run):

            async def timed_later(*args: Any, **named: Any) -> Any:
                self.enter(name)
                try:
                    return await run(*args, **named)
                finally:
                    self.leave()

            return timed_later

        def timed(*args: Any, **named: Any) -> Any:
            self.enter(name)
            try:
                return run(*args, **named)
            finally:
                self.leave()

        return timed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=500, help="calls that are timed")
    parser.add_argument("--types", nargs="*", default=[], help="preload only these resource types (default: all)")
    parser.add_argument("--instance", type=Path, help="copy this preloaded data directory instead of preloading")
    args = parser.parse_args()
    with _bench.scratch() as scratch:
        instance = scratch / "var"
        if args.instance:
            shutil.copytree(args.instance, instance)
        else:
            with _bench.Waiting("preloading"):
                _bench.cds(instance, "land", "--source", "synthea", *_bench.files_of(args.types))
                _bench.cds(instance, "digest")
        watch = asyncio.run(_profile(instance, args.count))
    return 0 if _print(watch, args.count) else 1


async def _profile(instance: Path, count: int) -> Watch:
    logs.configure("warning")
    watch = Watch()
    for name, places in STAGES.items():
        for owner, attribute in places:
            setattr(owner, attribute, watch.wrapped(name, getattr(owner, attribute)))
    bodies = Bodies(time.time_ns())
    async with application(instance) as (app, parts):
        for spec in parts.registry.specs:
            object.__setattr__(spec, "cards", watch.wrapped("cards", spec.cards))
        for _ in range(min(50, count)):  # caches fill, SQLite's statements are prepared
            assert survival(await call(app, bodies.one())), "the answer is no score"
        for spent in watch.spent.values():
            spent.calls, spent.wall, spent.cpu = 0, 0.0, 0.0
        for _ in range(count):
            body = bodies.one()
            watch.enter(REST)
            await call(app, body)
            watch.leave()
    idle = [name for name, spent in watch.spent.items() if not spent.calls]
    assert not idle, f"no call comes through {', '.join(idle)}: the stage is called otherwise now"
    return watch


def _print(watch: Watch, count: int) -> bool:
    wall = sum(spent.wall for spent in watch.spent.values())
    cpu = sum(spent.cpu for spent in watch.spent.values())
    print(f"{'microseconds a call':34}{'wall':>9}{'CPU':>9}{'of CPU':>8}{'times':>8}")
    for name, spent in sorted(watch.spent.items(), key=lambda item: -item[1].cpu):
        share = f"{spent.cpu / cpu:.0%}" if cpu else ""
        print(f"{name:34}{_micro(spent.wall, count)}{_micro(spent.cpu, count)}{share:>8}{spent.calls / count:8.1f}")
    print(f"{'all':34}{_micro(wall, count)}{_micro(cpu, count)}   {_bench.machine()}")
    top = max(watch.spent, key=lambda name: watch.spent[name].cpu)
    return _bench.figure(
        "hook call in process: CPU",
        cpu / count * 1e6,
        "microseconds",
        against=f"its largest stage: {top}",
        ratio=watch.spent[top].cpu / cpu,
        goal="none: says where the rest of the rate goes",
        ok=True,
    )


def _micro(seconds: float, count: int) -> str:
    return f"{seconds / count * 1e6:9.0f}"


if __name__ == "__main__":
    sys.exit(main())
