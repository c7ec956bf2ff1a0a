"""Applying statements that were applied before: only what a newer reader sees otherwise makes a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cds_server.digest import Open, Reducer
from cds_server.reading import PartRead, Read
from models.canonical import canonical
from models.errors import BadInput
from models.nouns import Verb


@dataclass(slots=True)
class Redo(Reducer):
    """A reducer for parts that were reduced already.

    The version that a place made, if it is still open, is replaced where its facts differ; if it was closed since,
    history stays as it was. A place that made nothing (it was in quarantine) speaks now, unless somebody spoke later.
    """

    closed: set[int] = field(default_factory=set)
    """Parts that could not be read before, and now are."""

    def rerun(self, parts: Sequence[PartRead]) -> None:
        """Apply the assertions of these parts again, in order; of a part that could not be read before, whatever it
        says, unless somebody spoke later."""
        self.look_up(parts)
        for part in parts:
            waiting = self._waiting(part.ordinal) if part.reads else []
            first = bool(waiting) and not self._made(part.ordinal)
            for read in part.reads:
                if read.statement.verb is Verb.ASSERT:
                    self._rerun(part.ordinal, read, waiting)
                elif first and not self._spoken_later(read):
                    self.apply(part.ordinal, read)

    def flag(
        self, kind: str, reason: str, part: int, pointer: str | None, detail: str, record_id: int | None = None
    ) -> None:
        """A Flag, unless the same one is open from an earlier time."""
        open_already = self.tx.read(
            "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id WHERE f.kind = ? AND f.reason = ? "
            "AND f.landing_id = ? AND f.part = ? AND COALESCE(f.pointer, '') = ? AND c.id IS NULL",
            (kind, reason, self.where.landing_id, part, pointer or ""),
        )
        if not open_already:
            super().flag(kind, reason, part, pointer, detail, record_id)

    def _waiting(self, part: int) -> list[int]:
        """The open flags of a part that could not be read."""
        return [
            row[0]
            for row in self.tx.read(
                "SELECT f.id FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
                "WHERE f.kind IN ('quarantine', 'dead-letter') AND f.landing_id = ? AND f.part = ? AND c.id IS NULL",
                (self.where.landing_id, part),
            )
        ]

    def _made(self, part: int) -> bool:
        return bool(
            self.tx.read(
                "SELECT 1 FROM resource WHERE landing_id = ? AND part = ? LIMIT 1", (self.where.landing_id, part)
            )
        )

    def _spoken_later(self, read: Read) -> bool:
        """Whether a delivery that came after this one said something of the same thing. Two records are joined or
        parted whatever was said of one of them."""
        if read.statement.verb in (Verb.LINK, Verb.UNLINK):
            return False
        local = self.local(read.statement.resource_type, read.statement.local_id)
        return bool(
            self.tx.read(
                "SELECT 1 FROM resource WHERE local_digest = ? AND landing_id > ? LIMIT 1",
                (local, self.where.landing_id),
            )
        )

    def _rerun(self, part: int, read: Read, waiting: list[int]) -> None:
        statement = read.statement
        made = self.tx.read(
            "SELECT r.id, r.record_id, c.id FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
            "WHERE r.landing_id = ? AND r.part = ? AND r.pointer = ? ORDER BY r.id DESC LIMIT 1",
            (self.where.landing_id, part, statement.pointer),
        )
        local = self.local(statement.resource_type, statement.local_id)
        if not made:
            later = self.tx.read(
                "SELECT 1 FROM resource WHERE local_digest = ? AND landing_id >= ? LIMIT 1",
                (local, self.where.landing_id),
            )
            if not later and (waiting or part in self.closed):
                before = self.tally.asserted
                self.apply(part, read)
                if self.tally.asserted > before:
                    self.closed.add(part)
                    for flag_id in waiting:
                        self.tx.add(
                            "flag_closing", flag_id=flag_id, resolution="read by a newer reader", at=self.tx.now
                        )
                    waiting.clear()
            else:
                self.tally.unchanged += 1
            return
        resource_id, record_id, closed = made[0]
        if closed is not None or not self._differs(part, read, resource_id, record_id):
            self.tally.unchanged += 1
            return
        known = self.versions.get(local)
        if known is not None and known.id == resource_id:
            self.versions[local] = Open(
                known.id, b"", known.record_id, known.known_from, known.updated, known.subsetted
            )  # so that the same bytes count as another version
            self.apply(part, read)

    def _differs(self, part: int, read: Read, resource_id: int, record_id: int | None) -> bool:
        """Whether the facts of this reading are not those that stand in the store, known-from and reader aside."""
        if record_id is None:
            return False
        ref = self.tx.read("SELECT ref FROM patient_record WHERE id = ?", (record_id,))[0][0]
        sealed = self.tx.read("SELECT facts FROM resource WHERE id = ?", (resource_id,))[0][0]
        stood = self.tx.vault.open_facts(ref, sealed) if sealed else ()
        here = (self.where.landing, part)  # what was carried over from another message is that one's
        before = [_comparable(fact.plain()) for fact in stood if (fact.source.landing, fact.source.part) == here]
        try:
            again = [_comparable(fact.plain()) for fact in self.where.project(part, read.statement, ref, self.tx.now)]
        except BadInput:
            return True
        return before != again


def _comparable(fact: dict[str, Any]) -> bytes:
    plain = dict(fact)
    plain.pop("known_from")
    plain["source"] = {key: value for key, value in plain["source"].items() if key != "reader"}
    return canonical(plain)
