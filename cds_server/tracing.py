"""Why one judgement differs from another of the same patient: feature by feature, down to the facts and their landings.

Two sides are compared, the earlier first. A feature differs where its value does, or whether it is missing. What lies
behind is looked for in its own facts: one that came late, was corrected, withdrawn, is of a record that was joined
since. Where its facts are the same, it is another model, another question, or time that passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cds_server.store.store import Store
from models.nouns import JSON, Fact, Snapshot, instant


class Cause(StrEnum):
    LATE = "late"
    """It was so already, and was known only later."""
    CORRECTED = "corrected"
    """Another version of the same resource took its place."""
    WITHDRAWN = "withdrawn"
    """Its resource was taken back, with nothing in its place."""
    NEW = "new"
    """It happened, or was measured, in between."""
    JOINED = "joined"
    """It is of a record that was joined with the patient's in between."""
    PARTED = "parted"
    CHOSEN = "chosen"
    """It was known before, and another one was read."""
    LEFT = "left"
    """It is known still, and another one is read, or none: it grew too old, or was outranked."""
    MODEL = "model"
    CONTEXT = "context"
    TIME = "time"
    """The same facts at a later time: an age, a window."""


SAID: Mapping[Cause, str] = {
    Cause.LATE: "known only later",
    Cause.CORRECTED: "corrected",
    Cause.WITHDRAWN: "withdrawn",
    Cause.NEW: "happened in between",
    Cause.JOINED: "of a record that was joined",
    Cause.PARTED: "of a record that was parted",
    Cause.CHOSEN: "known before, read only now",
    Cause.LEFT: "known still, read no more",
    Cause.MODEL: "another model version",
    Cause.CONTEXT: "the request said something else",
    Cause.TIME: "the same facts, at another time",
}


@dataclass(frozen=True, slots=True)
class Side:
    """One judgement, as it stands on record or as it was made for comparing."""

    model: str
    """`name@version`."""
    digest: str
    """Of the manifest."""
    snapshot: Snapshot
    judged: JSON
    """Plain vectors and score (`decisions.judged_bytes`, parsed)."""
    titles: Mapping[str, str]
    """Feature -> what people call it."""

    def features(self) -> dict[tuple[str, str], JSON]:
        return {
            (vector["modality"], feature["name"]): feature
            for vector in self.judged["vectors"]
            for feature in vector.get("features", ())
        }

    def absent(self) -> dict[str, str | None]:
        return {vector["modality"]: vector.get("absent") for vector in self.judged["vectors"]}


@dataclass(frozen=True, slots=True)
class Trace:
    """One fact behind a difference, and what became of it."""

    cause: Cause
    fact: Fact
    source: str
    """Where its landing came from."""
    arrived: str
    known_to: str | None
    """When it stopped being what we know; None: it did not."""

    def plain(self) -> dict[str, Any]:
        fact = self.fact
        return {
            "cause": self.cause.value,
            "fact": fact.id,
            "what": fact.code.display or fact.code.code,
            "code": fact.code.token,
            "value": value_of(fact),
            "effective": fact.effective,
            "known_from": fact.known_from,
            "known_to": self.known_to,
            "resource": fact.source.resource,
            "landing": fact.source.landing,
            "part": fact.source.part,
            "pointer": fact.source.pointer,
            "source": self.source,
            "arrived": self.arrived,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """One feature that is not what it was, or a whole modality that spoke and does not, or the other way round."""

    model: str
    modality: str
    feature: str | None
    """None: the modality as a whole."""
    title: str
    before: str
    after: str
    causes: tuple[Cause, ...]
    traces: tuple[Trace, ...]

    def plain(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "modality": self.modality,
            "feature": self.feature,
            "title": self.title,
            "before": self.before,
            "after": self.after,
            "causes": [cause.value for cause in self.causes],
            "facts": [trace.plain() for trace in self.traces],
        }


def differences(store: Store, before: Side, after: Side) -> tuple[Difference, ...]:
    """What differs between two judgements by one model (whatever its version), the earlier first."""
    tracing = _Tracing(store, before, after)
    old, new = before.features(), after.features()
    found = []
    for modality, was in before.absent().items():
        now = after.absent().get(modality, was)
        if (was is None) != (now is None):
            found.append(tracing.modality(modality, was, now))
    for key in dict.fromkeys((*old, *new)):
        one, other = old.get(key), new.get(key)
        if one is None or other is None:
            continue  # its modality spoke once only: told above
        if (one["missing"], one.get("value")) != (other["missing"], other.get("value")):
            found.append(tracing.feature(key, one, other))
    return tuple(found)


class _Tracing:
    def __init__(self, store: Store, before: Side, after: Side) -> None:
        self._store = store
        self._before, self._after = before, after
        self._then = {fact.id: fact for fact in before.snapshot.facts}
        self._now = {fact.id: fact for fact in after.snapshot.facts}

    def feature(self, key: tuple[str, str], one: JSON, other: JSON) -> Difference:
        modality, name = key
        title = self._after.titles.get(name) or self._before.titles.get(name) or name
        traces = self._traces(one.get("facts", ()), other.get("facts", ()))
        return self._difference(modality, name, title, _read(one), _read(other), traces)

    def modality(self, name: str, was: str | None, now: str | None) -> Difference:
        """A whole modality: any of the facts that came or went may be why."""
        behind = {
            fact for key, each in self._after.features().items() if key[0] == name for fact in each.get("facts", ())
        }
        before = {
            fact for key, each in self._before.features().items() if key[0] == name for fact in each.get("facts", ())
        }
        traces = self._traces(sorted(before), sorted(behind))
        return self._difference(name, None, f"modality {name}", was or "spoke", now or "spoke", traces)

    def _difference(
        self, modality: str, feature: str | None, title: str, before: str, after: str, traces: tuple[Trace, ...]
    ) -> Difference:
        causes = tuple(dict.fromkeys(trace.cause for trace in traces)) or self._otherwise()
        model = self._after.model.partition("@")[0]
        return Difference(model, modality, feature, title, before, after, causes, traces)

    def _otherwise(self) -> tuple[Cause, ...]:
        """What else it may be, where no fact of its own came or went."""
        found = []
        if self._before.digest != self._after.digest:
            found.append(Cause.MODEL)
        if self._before.snapshot.context != self._after.snapshot.context:
            found.append(Cause.CONTEXT)
        return tuple(found) or (Cause.TIME,)

    def _traces(self, old: Iterable[str], new: Iterable[str]) -> tuple[Trace, ...]:
        old, new = list(old), list(new)
        came = [self._came(self._now[each]) for each in new if each not in old and each in self._now]
        taken = {self._identity(trace.fact) for trace in came if trace.cause is Cause.CORRECTED}
        gone = [self._then[each] for each in old if each not in new and each in self._then]
        went = [self._went(fact) for fact in gone]
        shown = [trace for trace in went if self._identity(trace.fact) not in taken or not came]
        if any(trace.cause in (Cause.LATE, Cause.NEW, Cause.CORRECTED) for trace in came):
            shown = [trace for trace in shown if trace.cause is not Cause.LEFT]  # what came is why
        return (*came, *shown)

    def _came(self, fact: Fact) -> Trace:
        if fact.known_from > self._before.snapshot.as_of:
            if self._earlier_version(fact):
                return self._trace(Cause.CORRECTED, fact)
            return self._trace(Cause.NEW if _after(fact, self._before.snapshot.clinical_time) else Cause.LATE, fact)
        joined = fact.record not in self._before.snapshot.records
        return self._trace(Cause.JOINED if joined else Cause.CHOSEN, fact)

    def _went(self, fact: Fact) -> Trace:
        row = self._row(fact)
        known_to = row[3] if row is not None else None
        if known_to is not None and known_to <= self._after.snapshot.as_of:
            replaced = row is not None and self._store.reads.one(
                "SELECT 1 FROM resource WHERE local_digest = ? AND known_from >= ? AND facts IS NOT NULL LIMIT 1",
                (row[1], known_to),
            )
            return self._trace(Cause.CORRECTED if replaced else Cause.WITHDRAWN, fact)
        parted = fact.record not in self._after.snapshot.records
        return self._trace(Cause.PARTED if parted else Cause.LEFT, fact)

    def _earlier_version(self, fact: Fact) -> bool:
        """Whether an earlier version of its resource was known before."""
        row = self._row(fact)
        if row is None:
            return False
        earlier = self._store.reads.one(
            "SELECT 1 FROM resource WHERE local_digest = ? AND known_from < ? AND known_from <= ? LIMIT 1",
            (row[1], row[2], self._before.snapshot.as_of),
        )
        return earlier is not None

    def _identity(self, fact: Fact) -> bytes | None:
        row = self._row(fact)
        return bytes(row[1]) if row is not None else None

    def _row(self, fact: Fact) -> Sequence[Any] | None:
        return row_of(self._store, fact)

    def _trace(self, cause: Cause, fact: Fact) -> Trace:
        source, namespace, arrived = self._store.reads.origin(fact.source.landing) or ("", "", "")
        row = self._row(fact)
        label = source if not namespace or source == namespace else f"{source} of {namespace}"
        return Trace(cause, fact, label, arrived, row[3] if row is not None else None)


def row_of(store: Store, fact: Fact) -> Sequence[Any] | None:
    """(pointer, keyed digest of its identity, known from, known to, id) of the resource version that a fact is of; None
    where it was not digested yet."""
    rows = store.reads.query(
        "SELECT r.pointer, r.local_digest, r.known_from, c.known_to, r.id FROM resource r "
        "JOIN landing l ON l.id = r.landing_id LEFT JOIN resource_closing c ON c.resource_id = r.id "
        "WHERE l.ref = ? AND r.part = ? ORDER BY r.id",
        (fact.source.landing, fact.source.part),
    )
    mine = [row for row in rows if _within(fact.source.pointer, row[0])]
    same = [row for row in mine if row[2] == fact.known_from] or mine
    return max(same, key=lambda row: len(row[0])) if same else None


def value_of(fact: Fact) -> str:
    """The value as people read it."""
    if fact.number is not None:
        return f"{fact.comparator or ''}{fact.number} {fact.unit or ''}".strip()
    if fact.coded:
        return fact.coded[0].display or fact.coded[0].code
    return fact.text or (f"absent: {fact.absent_reason}" if fact.absent_reason else "recorded")


def _within(pointer: str, of: str) -> bool:
    return not of or pointer == of or pointer.startswith(of + "/")


def _read(feature: JSON) -> str:
    return str(feature.get("label") or ("missing" if feature["missing"] else feature["value"]))


def _after(fact: Fact, moment: str) -> bool:
    """Whether something is of a time after an instant, as far as its own precision tells."""
    if fact.effective is None:
        return False
    if len(fact.effective) > 10:
        try:
            at = datetime.fromisoformat(fact.effective)
        except ValueError:
            return fact.effective[:10] > moment[:10]
        return instant(at if at.tzinfo else at.replace(tzinfo=UTC)) > moment
    return fact.effective > moment[: len(fact.effective)]
