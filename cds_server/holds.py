"""Legal hold: nothing of a person is erased or purged while one stands. Set and lifted by people, each on record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cds_server.store.entropy import new_ref
from cds_server.store.reads import Reads, RecordRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import BadInput, Conflict, NotAllowed, NotFound

LONGEST = 500
"""Characters of a reason or a basis."""
_OPEN = (
    "SELECT h.ref, h.record_id, h.reason, h.at, h.entry, h.id FROM legal_hold h "
    "LEFT JOIN legal_hold_lift l ON l.hold_id = h.id WHERE l.id IS NULL ORDER BY h.id"
)


@dataclass(frozen=True, slots=True)
class Hold:
    ref: str
    record_id: int
    reason: str
    at: str
    seq: int
    id: int


def said(text: str, option: str) -> str:
    """A reason as it goes on record. Errors: BadInput."""
    plain = " ".join(text.split())
    if not 0 < len(plain) <= LONGEST:
        raise BadInput(f"a reason has 1 to {LONGEST} characters", where=option)
    return plain


def holds(reads: Reads) -> list[Hold]:
    """Those that stand, oldest first."""
    return [Hold(*row) for row in reads.query(_OPEN)]


def set_hold(store: Store, record: RecordRow, reason: str, actor: str) -> Hold:
    """From now on the person that this record is one of is kept. `reason` names nobody. Errors: BadInput."""
    ref, words = new_ref(), said(reason, "--reason")

    def act(tx: Tx) -> None:
        tx.add("legal_hold", ref=ref, record_id=record.id, reason=words, at=tx.now)
        tx.entry("hold", actor, {"hold": ref})

    store.writer.submit(act).result()
    return next(each for each in holds(store.reads) if each.ref == ref)


def lift(store: Store, ref: str, reason: str, actor: str) -> int:
    """The hold ends; gives the entry's number. Errors: NotFound, Conflict (it was lifted before), BadInput."""
    words = said(reason, "--reason")

    def act(tx: Tx) -> int:
        rows = tx.read("SELECT id FROM legal_hold WHERE ref = ?", (ref,))
        if not rows:
            raise NotFound("there is no hold of that name", where="HOLD")
        if tx.read("SELECT 1 FROM legal_hold_lift WHERE hold_id = ?", (rows[0][0],)):
            raise Conflict("this hold was lifted before", where="HOLD")
        tx.add("legal_hold_lift", hold_id=rows[0][0], reason=words, at=tx.now)
        return tx.entry("hold-lift", actor, {"hold": ref}).seq

    return store.writer.submit(act).result()


def held(reads: Reads, record_ids: Iterable[int]) -> list[Hold]:
    """The holds that stand on one of these records."""
    of = set(record_ids)
    return [each for each in holds(reads) if each.record_id in of]


def check_not_held(reads: Reads, record_ids: Iterable[int]) -> None:
    """Errors: NotAllowed, naming the holds."""
    if standing := held(reads, record_ids):
        named = ", ".join(each.ref for each in standing)
        raise NotAllowed(f"a legal hold stands on this person ({named}): nothing of them may be destroyed")


def held_people(reads: Reads) -> set[int]:
    """Every record of a person on whom a hold stands."""
    return {record for each in holds(reads) for record in reads.person(each.record_id)}
