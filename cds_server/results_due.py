"""Which results are due at which destination: every inference that one wants, and every correction of one that it had.

Reads inferences, and flags on inferences, in the order in which they were recorded. A job and how far was read are one
act: an inference is queued once, whatever is killed.

A correction goes out under the number of the first result (OBR-3), with OBR-25 C. Its values are those of the inference
that was recorded since; where there is none, the patient is scored anew, on record. Where that says nothing, or a newer
inference went out already under a number of its own, the earlier result is withdrawn (OBX-11 W): the same values under
two numbers would be two results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adapters.hl7v2.composed import Status
from adapters.sinks.states import State
from cds_server.decisions import Decisions
from cds_server.destinations import Destination
from cds_server.jobs import Job, Order
from cds_server.logs import log
from cds_server.outbox import (
    again,
    begin,
    due_cursor,
    job_of,
    jobs_of,
    keep,
    message_of,
    newest,
    remembered,
    stands,
)
from cds_server.outgoing import Composed, Composer, Held
from cds_server.recalls import CORRECTED, RECALL
from cds_server.registry import Registry
from cds_server.reproduce import Recorded, load, load_id
from cds_server.services import all_services
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from cds_server.what_if import WHAT_IF
from models.errors import CdsError, Conflict
from models.shelf import SHIPPED, Shelf

ACTOR = "system"
BATCH = 64
PASSED = 1024
"""Inferences after which it is kept how far was read, whether or not any was sent."""
FEW = 32
"""Newer inferences that are looked at: those of a patient who is scored with each vital sign may be hundreds."""
NOT_SENT = "not-sent"
"""Reason of the flag on a result that a destination wants and cannot be given; one a patient and destination."""


@dataclass(frozen=True, slots=True)
class _Event:
    id: int
    inference: int
    correction: bool


def send_again(store: Store, settings: Settings, flags: Mapping[int, str | None], actor: str) -> tuple[int, list[str]]:
    """Of flags (row -> pointer) those on refused results: how many are on their way again, and why others are not."""
    wanted = {flag: ref for flag, pointer in flags.items() if (ref := job_of(pointer)) is not None}
    if not wanted:
        return 0, []
    specs = all_services(conformance=settings.conformance)
    composer = Composer(store, settings, Registry(store, Shelf((SHIPPED, *settings.model_roots)), specs))
    sent, problems = 0, []
    for flag, ref in wanted.items():
        try:
            again(store, composer, ref, flag, actor)
            sent += 1
        except CdsError as error:
            problems.append(f"flag {flag}: {error}")
    return sent, problems


class Due:
    def __init__(self, store: Store, composer: Composer, registry: Registry, decisions: Decisions) -> None:
        self._store, self._composer, self._registry, self._decisions = store, composer, registry, decisions
        self._jobs = jobs_of(store)
        self._at: dict[str, int] = {}
        self._passed: dict[str, int] = {}

    def some(self) -> int:
        """Queue what is due; gives how many inferences and corrections were looked at."""
        return sum(self._some(each) for each in self._composer.destinations.values())

    def _some(self, destination: Destination) -> int:
        if destination.name not in self._at:
            begin(self._store, (destination.name,))
            self._at[destination.name] = stands(self._store, due_cursor(destination.name))
        at, last = self._at[destination.name], newest(self._store)
        if last <= at:
            return 0
        events = self._events(at, last)
        for event in events:
            try:
                self._at[destination.name] = self._one(destination, event, self._at[destination.name])
            except Conflict:  # another process was here
                self._at.pop(destination.name)
                return 1
        if len(events) < BATCH:
            self._at[destination.name] = last
        self._passed[destination.name] = self._passed.get(destination.name, 0) + len(events)
        if self._passed[destination.name] >= PASSED:
            self._pass(destination.name, self._at[destination.name])
        return len(events)

    def _pass(self, name: str, at: int) -> None:
        """Keep how far was read where there was nothing to send: a restart need not read it again."""

        def act(tx: Tx) -> None:
            if tx.read("SELECT at FROM cursor WHERE name = ?", (due_cursor(name),))[0][0] < at:
                keep(tx, due_cursor(name), at)

        self._store.writer.submit(act).result()
        self._passed[name] = 0

    def _events(self, after: int, upto: int) -> list[_Event]:
        inferences = self._store.reads.query(
            "SELECT id, id FROM inference WHERE id > ? AND id <= ? ORDER BY id LIMIT ?", (after, upto, BATCH)
        )
        flags = self._store.reads.query(
            "SELECT id, inference_id FROM flag WHERE id > ? AND id <= ? AND reason IN (?, ?) "
            "AND inference_id IS NOT NULL ORDER BY id LIMIT ?",
            (after, upto, CORRECTED, RECALL, BATCH),
        )
        found = [_Event(row[0], row[1], False) for row in inferences] + [_Event(row[0], row[1], True) for row in flags]
        return sorted(found, key=lambda event: event.id)[:BATCH]

    def _one(self, destination: Destination, event: _Event, at: int) -> int:
        """Queue what an event leads to; gives how far this destination's results are queued now."""
        found = self._store.reads.one("SELECT service, model FROM inference WHERE id = ?", (event.inference,))
        if (
            found is None
            or found[0].startswith(WHAT_IF)
            or not destination.wants(found[0], str(found[1]).partition("@")[0])
        ):
            return at
        try:
            recorded = load_id(self._store, event.inference)
        except CdsError:
            return at  # erased: nobody is told anything of it any more
        try:
            planned = list(self._planned(destination, recorded, correction=event.correction))
        except Conflict:
            raise
        except CdsError as error:
            log().error("a result cannot be sent", source=destination.name, what=error.what)
            planned = [Held(f"it could not be composed: {error.what}", _record(self._store, recorded))]
        except (
            ValueError,
            TypeError,
            ArithmeticError,
            LookupError,
        ) as error:  # of a model with outputs of its own kind
            log().error("a result cannot be sent", source=destination.name, error=type(error).__name__)
            planned = [Held("it could not be composed: a fault of this program", _record(self._store, recorded))]
        if not planned:
            return at
        self._keep(destination, recorded, planned, event.id)
        return event.id

    # -- what is said --------------------------------------------------------------------------------------------------

    def _planned(self, destination: Destination, recorded: Recorded, *, correction: bool) -> Iterator[_Planned | Held]:
        if correction:
            earlier = self._chain(destination, recorded)
            if earlier is not None:
                instead = self._instead(destination, recorded)
                status = Status.CORRECTED if instead else Status.WITHDRAWN
                number = str(earlier.asked["number"])
                yield from self._said(destination, instead or recorded, earlier.run, number, status)
        elif self._sent(destination, recorded.ref) is None:
            yield from self._said(destination, recorded, recorded.ref.replace("-", ""), recorded.ref, Status.FINAL)

    def _said(
        self, destination: Destination, recorded: Recorded, run: str, number: str, status: Status
    ) -> Iterator[_Planned | Held]:
        chain = self._jobs.of_run(run) if destination.archive is not None else ()
        earlier = [message_of(each) for each in chain if each.source == destination.name]
        made = self._composer.compose(destination, recorded, number=number, status=status, earlier=earlier)
        if isinstance(made, Composed):
            asked = {
                "inference": recorded.ref,
                "number": number,
                "status": status.value,
                "lane": made.lane,
                **remembered(made),
            }
            ref = self._ref(destination, recorded.ref, withdrawn=status is Status.WITHDRAWN)
            yield _Planned(ref, run, Order(status.name.lower(), destination.name, asked))
        elif made is not None:
            yield made

    def _chain(self, destination: Destination, recorded: Recorded) -> Job | None:
        """The last message of the chain that told this very inference; None where it was never queued for this
        destination, was dropped, or something newer was said in its place."""
        told = self._sent(destination, recorded.ref)
        if told is None:
            return None
        chain = [each for each in self._jobs.of_run(told.run) if each.source == destination.name]
        if all(each.state == State.DROPPED for each in chain):
            return None
        last = chain[-1]
        return last if last.ref == told.ref else None

    def _instead(self, destination: Destination, recorded: Recorded) -> Recorded | None:
        """The inference that takes the place of one whose facts were corrected; None: it is withdrawn."""
        (record_id,) = self._store.reads.query("SELECT record_id FROM inference WHERE id = ?", (recorded.id,))[0]
        newer = sorted(
            (
                row
                for each in self._store.reads.person(record_id)
                for row in self._store.reads.query(
                    "SELECT id, ref FROM inference WHERE record_id = ? AND service = ? AND id > ? "
                    "ORDER BY id DESC LIMIT ?",
                    (each, recorded.service, recorded.id, FEW),
                )
            ),
            reverse=True,
        )
        if any(self._sent(destination, ref) for _, ref in newer):
            return None  # it stands under a number of its own, and is what is corrected where it has to be
        if newer and not self._flagged(newer[0][0]):
            found = load_id(self._store, newer[0][0])
            fits = found.snapshot.context == recorded.snapshot.context and _name(found) == _name(recorded)
            return found if fits else None
        if recorded.snapshot.context or self._registry.stopped(recorded.service):
            return None  # the question was the request's own, or nobody shall be scored: there is no answer to give
        spec = next((spec for spec in self._registry.specs if spec.id == recorded.service), None)
        (record,) = self._store.reads.records([record_id])
        if spec is None or spec.model != _name(recorded):
            return None
        try:
            ref = self._decisions.score_unasked(spec, record)
        except CdsError as error:
            log().error("a corrected result could not be scored again", service=spec.id, what=error.what)
            return None
        return load(self._store, ref) if ref is not None else None

    def _flagged(self, inference_id: int) -> bool:
        return (
            self._store.reads.one(
                "SELECT 1 FROM flag WHERE inference_id = ? AND reason IN (?, ?)", (inference_id, CORRECTED, RECALL)
            )
            is not None
        )

    def _sent(self, destination: Destination, inference: str) -> Job | None:
        return self._jobs.by_ref(self._ref(destination, inference))

    def _ref(self, destination: Destination, inference: str, *, withdrawn: bool = False) -> str:
        """A job is found again by what it tells: no inference is queued twice for one destination."""
        said = "withdrawn" if withdrawn else "told"
        return self._store.vault.index("scope", "send", destination.name, inference, said).hex()[:32]

    # -- the record ----------------------------------------------------------------------------------------------------

    def _keep(self, destination: Destination, recorded: Recorded, planned: list[_Planned | Held], at: int) -> None:
        def act(tx: Tx) -> None:
            if tx.read("SELECT at FROM cursor WHERE name = ?", (due_cursor(destination.name),))[0][0] >= at:
                raise Conflict("another process queued this result", where=destination.name)
            refs, held = [], 0
            for each in planned:
                if isinstance(each, Held):
                    held += _flag(tx, destination.name, recorded.id, each)
                else:
                    refs.append(self._jobs.add(tx, destination.name, each.run, each.order, each.ref)[1])
            if refs or held:
                tx.entry("queue", ACTOR, {"kind": "send", "source": destination.name, "jobs": refs, "held": held})
            keep(tx, due_cursor(destination.name), at)

        self._store.writer.submit(act).result()


@dataclass(frozen=True, slots=True)
class _Planned:
    ref: str
    run: str
    order: Order


def _flag(tx: Tx, destination: str, inference_id: int, held: Held) -> int:
    """One for each patient and reason until somebody has dealt with it."""
    detail = f"not sent to {destination}: {held.why}"
    if tx.read(
        "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE f.reason = ? AND f.record_id = ? AND f.detail = ? AND c.id IS NULL",
        (NOT_SENT, held.record_id, detail),
    ):
        return 0
    tx.add(
        "flag",
        kind="flag",
        reason=NOT_SENT,
        record_id=held.record_id,
        inference_id=inference_id,
        detail=detail,
        at=tx.now,
    )
    return 1


def _name(recorded: Recorded) -> str:
    return recorded.model.partition("@")[0]


def _record(store: Store, recorded: Recorded) -> int:
    return int(store.reads.query("SELECT record_id FROM inference WHERE id = ?", (recorded.id,))[0][0])
