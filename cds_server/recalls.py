"""Truth over time: when what an inference rests on is corrected or withdrawn, somebody must know.

Each closing of a resource version leads to the inferences whose snapshot holds a fact from it. Where the version that
came instead says the same, nothing follows. Otherwise the inference gets a Flag; and where its card would now say
something else, because of this correction and nothing else, the Flag is a recall: the card was shown to somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cds_server.hooks.cards import render
from cds_server.hooks.service import CardGuide
from cds_server.logs import log
from cds_server.registry import Registry
from cds_server.reproduce import Recorded, cards_of, load_id
from cds_server.store.entropy import new_uuid
from cds_server.store.reads import marks
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import CdsError
from models.nouns import Fact, Snapshot

CURSOR = "recall"
BATCH = 64
CORRECTED, RECALL = "corrected", "recall"
_SAID = {
    CORRECTED: "a fact that this inference rests on was corrected or withdrawn; its cards would say the same",
    RECALL: "a fact that this inference rests on was corrected or withdrawn, and its card would now say something else",
}


@dataclass(frozen=True, slots=True)
class _Closed:
    """A version that is no longer what we know, and what came in its place."""

    id: int
    landing: str
    part: int
    pointer: str
    record: str
    record_id: int
    local: bytes
    known_from: str
    known_to: str


@dataclass(frozen=True, slots=True)
class _Finding:
    inference: int
    record: int
    reason: str


class Recaller:
    """Reads closings in their order, some at a time."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._services = {spec.id: spec for spec in registry.specs}

    def some(self) -> int:
        """Look at up to a batch of closings; gives how many."""
        at = self._cursor()
        closed = list(self._closed(at))
        newest = self._newest()
        if not closed and newest <= at:
            return 0
        found = [finding for each in closed for finding in self._touched(each)]
        last = closed[-1].id if len(closed) == BATCH else max(newest, at)
        self._keep(found, last)
        return len(closed)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _cursor(self) -> int:
        row = self._store.reads.one("SELECT at FROM cursor WHERE name = ?", (CURSOR,))
        return int(row[0]) if row else 0

    def _newest(self) -> int:
        row = self._store.reads.one("SELECT MAX(id) FROM resource_closing")
        return int(row[0] or 0) if row else 0

    def _closed(self, after: int) -> Iterator[_Closed]:
        """Closings of versions that facts were read from, of patients about whom something may have been inferred."""
        for row in self._store.reads.query(
            "SELECT c.id, l.ref, r.part, r.pointer, p.ref, r.record_id, r.local_digest, r.known_from, c.known_to "
            "FROM resource_closing c JOIN resource r ON r.id = c.resource_id JOIN landing l ON l.id = r.landing_id "
            "JOIN patient_record p ON p.id = r.record_id "
            "WHERE c.id > ? AND r.facts IS NOT NULL AND ("
            "EXISTS (SELECT 1 FROM inference i WHERE i.record_id = r.record_id) "
            "OR EXISTS (SELECT 1 FROM link k WHERE k.record_id = r.record_id) "
            "OR EXISTS (SELECT 1 FROM link k WHERE k.other_id = r.record_id)) ORDER BY c.id LIMIT ?",
            (after, BATCH),
        ):
            closing, landing, part, pointer, record, record_id, local, known_from, known_to = row
            yield _Closed(closing, landing, part, pointer, record, record_id, bytes(local), known_from, known_to)

    def _touched(self, closed: _Closed) -> Iterator[_Finding]:
        person = self._store.reads.person(closed.record_id)
        rows = self._store.reads.query(
            f"SELECT id FROM inference WHERE record_id IN ({marks(person)}) AND at >= ? AND at <= ? ORDER BY id",
            (*person, closed.known_from, closed.known_to),
        )
        successor: Sequence[Fact] | None = None
        for (inference_id,) in rows:
            try:
                recorded = load_id(self._store, inference_id)
            except CdsError:
                continue  # erased: there is nothing that anybody could be told
            rested = [fact for fact in recorded.snapshot.facts if _from(fact, closed)]
            if not rested:
                continue
            if successor is None:
                successor = self._successor(closed)
            said = {_said(fact) for fact in successor}
            if all(_said(fact) in said for fact in rested):
                continue
            reason = RECALL if self._differs(recorded, rested, successor) else CORRECTED
            yield _Finding(recorded.id, closed.record_id, reason)

    def _successor(self, closed: _Closed) -> Sequence[Fact]:
        """The facts of the version that took its place; none where it was withdrawn."""
        rows = self._store.reads.query(
            "SELECT p.ref, r.facts FROM resource r JOIN patient_record p ON p.id = r.record_id "
            "WHERE r.local_digest = ? AND r.known_from >= ? AND r.facts IS NOT NULL ORDER BY r.id LIMIT 1",
            (closed.local, closed.known_to),
        )
        return [fact for ref, sealed in rows for fact in self._store.vault.open_facts(ref, sealed)]

    def _differs(self, recorded: Recorded, rested: Iterable[Fact], successor: Sequence[Fact]) -> bool:
        """Whether a card that was shown would say something else, were these facts those."""
        shown = [_advice(each["card"]) for each in cards_of(self._store, recorded.id)]
        spec = self._services.get(recorded.service)
        if not shown or spec is None:
            return False
        name, _, version = recorded.model.partition("@")
        gone = {fact.id for fact in rested}
        codes = {fact.code.token for fact in rested}
        kept = [fact for fact in recorded.snapshot.facts if fact.id not in gone]
        instead = [fact for fact in successor if fact.code.token in codes]
        corrected = recorded.snapshot.but(facts=Snapshot.ordered([*kept, *instead]))
        try:
            judgement = self._registry.scorer_then(name, version, recorded.model_digest).judge(corrected)
            guide = CardGuide(inference="", data_as_of=recorded.snapshot.as_of, public_url="", new_uuid=new_uuid)
            now = [_advice(render(card)) for card in spec.cards(judgement, guide)]
        except CdsError as error:
            log().warning("a corrected inference cannot be judged again", service=recorded.service, what=error.what)
            return True  # a person must look
        return now != shown

    # -- the record ----------------------------------------------------------------------------------------------------

    def _keep(self, found: Sequence[_Finding], cursor: int) -> None:
        def act(tx: Tx) -> None:
            added = 0
            for each in found:
                open_already = tx.read(
                    "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
                    "WHERE f.inference_id = ? AND f.reason IN (?, ?) AND c.id IS NULL",
                    (each.inference, each.reason, RECALL),
                )
                if open_already:
                    continue
                tx.add(
                    "flag",
                    kind="flag",
                    reason=each.reason,
                    record_id=each.record,
                    inference_id=each.inference,
                    detail=_SAID[each.reason],
                    at=tx.now,
                )
                tx.flush()
                added += 1
            if added:
                tx.entry("recall", "system", {"flags": added})
            if tx.execute("UPDATE cursor SET at = ? WHERE name = ?", (cursor, CURSOR)) == 0:
                tx.execute("INSERT INTO cursor (name, at) VALUES (?, ?)", (CURSOR, cursor))

        self._store.writer.submit(act).result()


def _from(fact: Fact, closed: _Closed) -> bool:
    source = fact.source
    return (
        source.landing == closed.landing
        and source.part == closed.part
        and (source.pointer == closed.pointer or source.pointer.startswith(closed.pointer + "/"))
        and fact.record == closed.record
    )


def _said(fact: Fact) -> tuple[Any, ...]:
    """What a fact says, wherever it comes from."""
    return (
        fact.code.token,
        fact.number,
        fact.unit,
        fact.comparator,
        tuple(coding.token for coding in fact.coded),
        fact.text,
        fact.status,
        fact.absent_reason,
        fact.effective,
        fact.effective_end,
        fact.focus,
        tuple(coding.token for coding in fact.body_site),
        fact.laterality,
    )


def _advice(card: Any) -> tuple[str, str]:
    return str(card.get("summary")), str(card.get("indicator"))
