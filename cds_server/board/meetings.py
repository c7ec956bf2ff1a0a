"""Meetings and worklists: rows of the record, and the acts that add them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cds_server.access.log import actor_of
from cds_server.store.board_tables import BOARD
from cds_server.store.entropy import new_ref
from cds_server.store.reads import Reads
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import Conflict, NotFound
from smart_app.desk import Viewer

OPEN, CLOSED, WITHDRAWN = "open", "closed", "withdrawn"


@dataclass(frozen=True, slots=True)
class MeetingRow:
    id: int
    ref: str
    held_on: str
    title: str
    place: str
    closed: bool


@dataclass(frozen=True, slots=True)
class CaseRow:
    id: int
    ref: str
    meeting_id: int
    record_id: int
    record: str
    """Random reference of the patient record."""
    question: str
    asked_by: str


# ---- reads -----------------------------------------------------------------------------------------------------------

_MEETINGS = (
    "SELECT m.id, m.ref, m.held_on, m.sealed, "
    "(SELECT s.state FROM board_meeting_state s WHERE s.meeting_id = m.id ORDER BY s.id DESC LIMIT 1) "
    "FROM board_meeting m"
)
_ALL_MEETINGS = f"{_MEETINGS} ORDER BY m.held_on DESC, m.id DESC LIMIT 200"
_ONE_MEETING = f"{_MEETINGS} WHERE m.ref = ?"
_MEETING_BY_ID = f"{_MEETINGS} WHERE m.id = ?"
_CASES = (
    "SELECT c.id, c.ref, c.meeting_id, c.record_id, p.ref, c.sealed FROM board_case c "
    "JOIN patient_record p ON p.id = c.record_id"
)
_ON_WORKLIST = (
    " WHERE c.meeting_id = ? "
    "AND NOT EXISTS (SELECT 1 FROM board_case_state s WHERE s.case_id = c.id AND s.state = 'withdrawn') ORDER BY c.id"
)
_LISTED = _CASES + _ON_WORKLIST
_ONE_CASE = f"{_CASES} WHERE c.ref = ?"
_CASE_BY_ID = f"{_CASES} WHERE c.id = ?"
_ORDER = "SELECT cases FROM board_order WHERE meeting_id = ? ORDER BY id DESC LIMIT 1"
_COUNTS = (
    "SELECT c.meeting_id, COUNT(*), COUNT((SELECT MIN(s.id) FROM board_sign_off s "
    "JOIN board_recommendation r ON r.id = s.recommendation_id WHERE r.case_id = c.id AND NOT EXISTS "
    "(SELECT 1 FROM board_recommendation n WHERE n.case_id = c.id AND n.version > r.version))) FROM board_case c "
    "WHERE NOT EXISTS (SELECT 1 FROM board_case_state w WHERE w.case_id = c.id AND w.state = 'withdrawn') "
    "GROUP BY c.meeting_id"
)
"""Of each meeting: cases, and those whose newest recommendation somebody signed."""


def meetings(reads: Reads) -> list[MeetingRow]:
    """The newest first."""
    return [_meeting(reads, row) for row in reads.query(_ALL_MEETINGS)]


def meeting(reads: Reads, ref: str) -> MeetingRow:
    """Errors: NotFound."""
    return _found_meeting(reads, _ONE_MEETING, ref)


def meeting_by_id(reads: Reads, meeting_id: int) -> MeetingRow:
    return _found_meeting(reads, _MEETING_BY_ID, meeting_id)


def counts(reads: Reads) -> Mapping[int, tuple[int, int]]:
    """Meeting -> cases, signed ones."""
    return {row[0]: (int(row[1]), int(row[2])) for row in reads.query(_COUNTS)}


def cases(reads: Reads, meeting_id: int) -> list[CaseRow]:
    """The worklist, in its order; what was put on after the last reordering comes last."""
    found = {row[1]: row for row in reads.query(_LISTED, (meeting_id,))}
    last = reads.one(_ORDER, (meeting_id,))
    ordered = [ref for ref in (last[0].split() if last else ()) if ref in found]
    return [_case(reads, found[ref]) for ref in dict.fromkeys([*ordered, *found])]


def case(reads: Reads, ref: str) -> CaseRow:
    """Also one that was withdrawn. Errors: NotFound."""
    return _found_case(reads, _ONE_CASE, ref)


def case_by_id(reads: Reads, case_id: int) -> CaseRow:
    return _found_case(reads, _CASE_BY_ID, case_id)


def _found_meeting(reads: Reads, asked: str, of: str | int) -> MeetingRow:
    row = reads.one(asked, (of,))
    if row is None:
        raise NotFound("there is no such meeting")
    return _meeting(reads, row)


def _found_case(reads: Reads, asked: str, of: str | int) -> CaseRow:
    row = reads.one(asked, (of,))
    if row is None:
        raise NotFound("there is no such case on a worklist")
    return _case(reads, row)


def _meeting(reads: Reads, row: Any) -> MeetingRow:
    told = reads.open_payload(BOARD, row[1], row[3])
    return MeetingRow(row[0], row[1], row[2], told["title"], told["place"], row[4] == CLOSED)


def _case(reads: Reads, row: Any) -> CaseRow:
    told = reads.open_payload(BOARD, row[1], row[5])
    return CaseRow(row[0], row[1], row[2], row[3], row[4], told["question"], told["asked_by"]["name"])


# ---- acts ------------------------------------------------------------------------------------------------------------


def sealed(tx: Tx, payload: Mapping[str, Any]) -> tuple[str, bytes, bytes]:
    """A new reference, and what stands under it: cipher and commitment."""
    ref = new_ref()
    done = tx.vault.seal(object_ref(BOARD, ref), canonical(payload), tx.fresh_keys)
    return ref, done.cipher, done.commitment


def who(viewer: Viewer) -> dict[str, str]:
    """Somebody, as a sealed payload names them."""
    return {"subject": viewer.subject, "name": viewer.name, **({"ehr": viewer.ehr} if viewer.ehr else {})}


def check_open(tx: Tx, meeting_id: int) -> None:
    """Errors: Conflict, where the meeting is closed. Asked inside the act: whoever closes it is before or after."""
    row = tx.read("SELECT state FROM board_meeting_state WHERE meeting_id = ? ORDER BY id DESC LIMIT 1", (meeting_id,))
    if row and row[0][0] == CLOSED:
        raise Conflict("the meeting is closed: nothing about its cases changes any more")


def call(tx: Tx, viewer: Viewer, title: str, held_on: str, place: str) -> str:
    ref, cipher, commitment = sealed(tx, {"title": title, "place": place, "called_by": who(viewer)})
    tx.add("board_meeting", ref=ref, held_on=held_on, sealed=cipher, commitment=commitment, at=tx.now)
    tx.entry("board-meeting", actor_of(viewer), {"meeting": ref, "held_on": held_on, "sealed": commitment.hex()})
    return ref


def close(tx: Tx, viewer: Viewer, row: MeetingRow, *, closed: bool) -> None:
    last = tx.read("SELECT state FROM board_meeting_state WHERE meeting_id = ? ORDER BY id DESC LIMIT 1", (row.id,))
    if (bool(last) and last[0][0] == CLOSED) == closed:
        return
    state = CLOSED if closed else OPEN
    tx.add("board_meeting_state", meeting_id=row.id, state=state, at=tx.now)
    tx.entry("board-meeting", actor_of(viewer), {"meeting": row.ref, "state": state})


def add_case(tx: Tx, viewer: Viewer, row: MeetingRow, record_id: int, person: Sequence[int], question: str) -> str:
    """Put a patient on a worklist; gives the case. `person`: all records of theirs. Twice is once."""
    check_open(tx, row.id)
    known = tx.read(
        "SELECT c.ref, c.record_id FROM board_case c WHERE c.meeting_id = ? AND NOT EXISTS "
        "(SELECT 1 FROM board_case_state s WHERE s.case_id = c.id AND s.state = 'withdrawn')",
        (row.id,),
    )
    for ref, record in known:
        if record in person or record == record_id:
            return str(ref)
    ref, cipher, commitment = sealed(tx, {"question": question, "asked_by": who(viewer)})
    tx.add(
        "board_case",
        ref=ref,
        meeting_id=row.id,
        record_id=record_id,
        sealed=cipher,
        commitment=commitment,
        at=tx.now,
    )
    tx.entry(
        "board-case",
        actor_of(viewer),
        {"meeting": row.ref, "case": ref, "door": viewer.door.value, "sealed": commitment.hex()},
    )
    return ref


def withdraw(tx: Tx, viewer: Viewer, row: MeetingRow, of: CaseRow) -> None:
    check_open(tx, row.id)
    if tx.read("SELECT 1 FROM board_case_state WHERE case_id = ? AND state = 'withdrawn'", (of.id,)):
        return
    tx.add("board_case_state", case_id=of.id, state=WITHDRAWN, at=tx.now)
    tx.entry("board-case", actor_of(viewer), {"meeting": row.ref, "case": of.ref, "state": WITHDRAWN})


def reorder(tx: Tx, viewer: Viewer, row: MeetingRow, refs: Sequence[str]) -> None:
    check_open(tx, row.id)
    tx.add("board_order", meeting_id=row.id, cases=" ".join(refs), at=tx.now)
    tx.entry("board-order", actor_of(viewer), {"meeting": row.ref, "cases": list(refs)})
