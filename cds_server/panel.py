"""The models that a service speaks by, and how long they may think.

A model that is known to be quick runs where the call runs: handing it to a thread would cost more than it does. One
that is slow, or that nobody has timed yet, runs in a thread of its own, so that it keeps no other call waiting, and is
given up at its share of the deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from cds_server.deadline import JUDGED, Clock
from cds_server.reception import Known
from models.errors import Late
from models.nouns import JSON, Judgement, Snapshot
from models.scoring import Scorer

QUICK = 0.02
"""Seconds of processor time."""
THREADS = 2
"""Of a slow model: it gets no more of this machine than this, however many ask."""


@dataclass(frozen=True)
class Panel:
    """The models that a service speaks by: its own, and those that are judged where the record answers their codes."""

    own: Scorer
    beside: tuple[tuple[Scorer, frozenset[str]], ...]
    off: tuple[str, ...] = ()
    """Names of models that would sit beside the own one, and were stopped."""

    @cached_property
    def wanted(self) -> frozenset[str]:
        return self.own.facts_wanted().union(*(scorer.facts_wanted() for scorer, _ in self.beside))

    def asked(self, known: Known, context: JSON) -> list[tuple[Scorer, Snapshot]]:
        """The own model, then those of the others that have something to say, each with what it judges."""
        tokens = [fact.token for fact in known.facts]
        speaking = [self.own, *[scorer for scorer, codes in self.beside if not codes.isdisjoint(tokens)]]
        return [(scorer, snapshot(scorer, known, context, tokens)) for scorer in speaking]

    def judge(self, known: Known, context: JSON) -> tuple[Judgement, ...]:
        """All judgements, here and now, however long they take (for commands)."""
        return tuple(scorer.judge(frozen) for scorer, frozen in self.asked(known, context))


def snapshot(scorer: Scorer, known: Known, context: JSON, tokens: Sequence[str]) -> Snapshot:
    """Freeze what is known of what a model asks for, with the request's own context. `tokens`: of the facts."""
    wanted = scorer.facts_wanted()
    return Snapshot(
        person=known.person,
        records=tuple([record.ref for record in known.records]),
        as_of=known.at,
        clinical_time=known.at,
        model=scorer.model.id,
        facts=tuple([fact for fact, token in zip(known.facts, tokens, strict=True) if token in wanted]),
        context=context,
    )


@dataclass(slots=True)
class _Pace:
    """How long a model took, the longest of late: its own processor time, in seconds.

    Not by the wall clock: on a busy machine, one judgement that others held up would send the model to its threads, and
    there, between the calls, it would look slow ever after.
    """

    longest: float | None = None
    threads: ThreadPoolExecutor | None = None

    @property
    def quick(self) -> bool:
        return self.longest is not None and self.longest < QUICK

    def took(self, seconds: float) -> None:
        self.longest = max(seconds, 0.9 * (self.longest or 0.0))


class Bench:
    """Where panels sit: knows each model's pace."""

    def __init__(self) -> None:
        self._paces: dict[str, _Pace] = {}

    async def judge(
        self, panel: Panel, known: Known, context: JSON, clock: Clock
    ) -> tuple[tuple[Judgement, ...], tuple[str, ...]]:
        """The judgements, and the names of models beside the own one that did not judge in time.

        Errors: Late, when the own model did not; whatever a model raises.
        """
        asked = [(scorer, frozen, self._pace(scorer)) for scorer, frozen in panel.asked(known, context)]
        slow = {scorer.model.id: self._begin(scorer, frozen, pace) for scorer, frozen, pace in asked if not pace.quick}
        if not slow:
            return tuple([_timed(scorer, frozen, pace) for scorer, frozen, pace in asked]), ()
        quick = {
            name: _timed(scorer, frozen, pace)
            for scorer, frozen, pace in asked
            if (name := scorer.model.id) not in slow
        }
        began = time.monotonic()
        done, _ = await asyncio.wait(slow.values(), timeout=clock.left(JUDGED))
        clock.waited += time.monotonic() - began
        for task in slow.values():
            task.cancel()  # one that a thread works on cannot be stopped: its result is dropped
        judged = quick | {name: task.result() for name, task in slow.items() if task in done}
        if panel.own.model.id not in judged:
            raise Late("the model did not answer in time", where=panel.own.model.id)
        late = tuple(scorer.model.name for scorer, _, _ in asked if scorer.model.id not in judged)
        return tuple(judged[scorer.model.id] for scorer, _, _ in asked if scorer.model.id in judged), late

    def warm(self, scorer: Scorer, known: Known) -> None:
        """Let a model judge twice, here and now, and remember how long the second time took."""
        for _ in range(2):
            began = time.thread_time()
            Panel(scorer, ()).judge(known, {})
            seconds = time.thread_time() - began
        self._pace(scorer).took(seconds)

    def close(self) -> None:
        for pace in self._paces.values():
            if pace.threads is not None:
                pace.threads.shutdown(wait=False, cancel_futures=True)

    def _pace(self, scorer: Scorer) -> _Pace:
        pace = self._paces.get(scorer.model.id)
        return self._paces.setdefault(scorer.model.id, _Pace()) if pace is None else pace

    def _begin(self, scorer: Scorer, frozen: Snapshot, pace: _Pace) -> asyncio.Future[Judgement]:
        if pace.threads is None:
            pace.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="cds-model")
        return asyncio.get_running_loop().run_in_executor(pace.threads, _timed, scorer, frozen, pace)


def _timed(scorer: Scorer, frozen: Snapshot, pace: _Pace) -> Judgement:
    began = time.thread_time()
    judgement = scorer.judge(frozen)
    pace.took(time.thread_time() - began)
    return judgement


def told(off: Sequence[str], late: Sequence[str]) -> tuple[str, ...]:
    """What a reader of the cards must know of models that were stopped, or did not judge in time."""
    stopped = [f"the model {name} was stopped and had no part in this" for name in off]
    return (*stopped, *[f"the model {name} did not answer in time and had no part in this" for name in late])
