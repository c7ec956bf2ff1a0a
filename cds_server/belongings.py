"""What is held of a person: every sealed object by the reference of its key, every row of the projection by its id.

Parts are found by the rows that came of them, by what calls and studies they belong to, and, because a delivery that
repeats what is known leaves no row, by reading every part that carries one of the person's numbers. A part that another
person's data share is told apart: it can only go whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from adapters.dicom.part10 import MEDIA_TYPE as IMAGE
from adapters.readers.subjects import identifiers_of
from cds_server.actions import ACTION
from cds_server.decisions import CALL, INFERENCE, SNAPSHOT
from cds_server.hygiene import HELD
from cds_server.jobs import JOB, STEP
from cds_server.outbox import KIND as SEND_KIND
from cds_server.reading import NO_RULES, PartRead, SourceRules, read_part
from cds_server.shown import CARD, SYSTEM_ACTION
from cds_server.store.access_tables import AccessRow
from cds_server.store.board_tables import BOARD
from cds_server.store.pack import MANIFEST, part_ref
from cds_server.store.reads import LandingRow, RecordRow
from cds_server.store.store import Store
from cds_server.store.vault import object_ref, record_key_ref
from models import strict
from models.errors import BadInput, CdsError
from models.nouns import Part, Verb

ACCESS, SESSION, TOKEN = b"v", b"e", b"o"
"""Kinds of what `access` seals (`cds_server.access.log`), and sessions of the app (`cds_server.smart.sessions`)."""
SHORTEST = 4
"""Characters of a number that is looked for in bytes that nobody could read."""
_PLAIN = re.compile(r"[0-9A-Za-z ._:-]*")
"""What every format writes as it is."""
LARGEST = 64 << 20
"""Bytes of an image object without a row, up to which it is looked through."""

SEALED = {
    "landing": ("pack", "manifest"),
    "patient_record": ("sealed",),
    "resource": ("facts",),
    "dicom_object": ("header",),
    "call": ("sealed",),
    "snapshot": ("sealed",),
    "inference": ("sealed",),
    "card": ("sealed",),
    "action": ("sealed",),
    "advice": ("sealed",),
    "system_action": ("sealed",),
    "job": ("sealed",),
    "job_step": ("sealed",),
    "access": ("sealed",),
    "board_case": ("sealed",),
    "board_recommendation": ("sealed",),
    "board_sign_off": ("sealed",),
    "board_minutes": ("sealed",),
}
"""Columns that an erasure reaches. A test fails for a governed table with a sealed column that is neither here nor in
`KEPT`."""
KEPT = {
    "flag_claim": "who handles a flag: of the staff, and of nobody else",
    "board_meeting": "title and place of a meeting, of no patient",
}


@dataclass(slots=True)
class Belongings:
    records: list[RecordRow]
    head: int
    """The last ledger entry when this was looked up."""
    keys: set[bytes] = field(default_factory=set)
    rows: dict[str, list[int]] = field(default_factory=dict)
    parts: set[tuple[int, int]] = field(default_factory=set)
    """(landing, part)"""
    shared: set[tuple[int, int]] = field(default_factory=set)
    """Those of them that hold another person's data, too."""
    counts: dict[str, int] = field(default_factory=dict)
    sent: list[dict[str, str]] = field(default_factory=list)
    """Results that were handed over: destination, when, the job's reference."""
    answered: dict[str, int] = field(default_factory=dict)
    """Namespace of an EHR -> cards that it was sent about this person."""
    waiting: list[int] = field(default_factory=list)
    """Jobs of results that are still to be sent."""
    flags: list[int] = field(default_factory=list)
    """Open flags about the person."""
    cases: list[int] = field(default_factory=list)
    """Of the tumor board."""
    exports: list[dict[str, str]] = field(default_factory=list)
    """What was taken out at our doors (`access`): act, door, when."""
    person: Any = None
    """How the person is named, for what comes while this is used."""
    numbers: frozenset[str] = frozenset()
    """Local ids and identifiers: never leaves this process."""

    def add(self, kind: str, *refs: bytes) -> None:
        self.keys.update(refs)
        self.counts[kind] = self.counts.get(kind, 0) + len(refs)


def belongings(store: Store, record: RecordRow, rules: SourceRules = NO_RULES) -> Belongings:
    """Of the person that this record is one of. Reads every part that may be about them: minutes on a large store."""
    reads = store.reads
    head = reads.head()[0]
    found = Belongings(reads.records(reads.person(record.id)), head)
    _projection(store, found)
    _parts_by_rows(store, found)
    person = found.person = _Person(store, found)
    _parts_by_reading(store, found, person, rules)
    _seal_parts(store, found)
    _decisions(store, found)
    _jobs(store, found)
    _board(store, found)
    _sessions(store, found)
    _looks(store, found)
    _flags(store, found)
    return found


# ---- the projection --------------------------------------------------------------------------------------------------


def _projection(store: Store, found: Belongings) -> None:
    asked = {
        "record_identifier": "SELECT id FROM record_identifier WHERE record_id = ?",
        "resource": "SELECT id FROM resource WHERE record_id = ?",
        "resource_closing": (
            "SELECT c.id FROM resource_closing c JOIN resource r ON r.id = c.resource_id WHERE r.record_id = ?"
        ),
        "dicom_object": "SELECT id FROM dicom_object WHERE record_id = ?",
    }
    for record in found.records:
        for table, statement in asked.items():
            found.rows.setdefault(table, []).extend(row[0] for row in store.reads.query(statement, (record.id,)))
        links = "SELECT id FROM link WHERE record_id = ? OR other_id = ?"
        found.rows.setdefault("link", []).extend(row[0] for row in store.reads.query(links, (record.id, record.id)))
        found.add("records", record_key_ref(record.ref))
    found.rows["link"] = sorted(set(found.rows.get("link", ())))
    found.rows["patient_record"] = [record.id for record in found.records]
    for table in [table for table, ids in found.rows.items() if not ids]:
        del found.rows[table]


# ---- parts -----------------------------------------------------------------------------------------------------------


def _parts_by_rows(store: Store, found: Belongings) -> None:
    mine = {record.id for record in found.records}
    for record_id in mine:
        for statement in (
            "SELECT DISTINCT landing_id, part FROM resource WHERE record_id = ?",
            "SELECT DISTINCT landing_id, part FROM dicom_object WHERE record_id = ?",
        ):
            found.parts.update((row[0], row[1]) for row in store.reads.query(statement, (record_id,)))
        for statement in (
            "SELECT id, parts FROM landing WHERE record_id = ?",
            "SELECT l.id, l.parts FROM examined_study e JOIN landing l ON l.id = e.landing_id WHERE e.record_id = ?",
        ):
            for landing_id, parts in store.reads.query(statement, (record_id,)):
                found.parts.update((landing_id, part) for part in range(parts))
    for landing_id, part in found.parts:
        rows = store.reads.query(
            "SELECT DISTINCT record_id FROM resource WHERE landing_id = ? AND part = ? AND record_id IS NOT NULL",
            (landing_id, part),
        )
        if any(row[0] not in mine for row in rows):
            found.shared.add((landing_id, part))


class _Person:
    """By which ids and identifiers the person is named, and whether something that was read is about them."""

    def __init__(self, store: Store, found: Belongings) -> None:
        self._index = store.vault.index
        self.locals = {(record.namespace, store.reads.local_id(record)) for record in found.records}
        self._identifiers = {
            (row[0], bytes(row[1]))
            for record in found.records
            for row in store.reads.query(
                "SELECT DISTINCT system, value_digest FROM record_identifier WHERE record_id = ?", (record.id,)
            )
        }
        self.numbers = {local_id for _, local_id in self.locals}
        # `issuer-value` of HL7 v2 and DICOM: the bytes hold the value alone
        self.numbers |= {
            local_id[at + 1 :] for local_id in self.numbers for at, sign in enumerate(local_id) if sign == "-"
        } - {""}

    def names(self, namespace: str, read: PartRead) -> tuple[bool, bool]:
        """(about this person, about another one)."""
        mine = other = False
        for each in read.reads:
            statement, subject = each.statement, each.subject
            named = {statement.local_id} if statement.resource_type == "Patient" else set[str]()
            if statement.other_id:
                named.add(statement.other_id)
            if subject is not None and subject.local_id is not None:
                named.add(subject.local_id)
            for local_id in named:
                is_mine = (namespace, local_id) in self.locals
                mine, other = mine or is_mine, other or not is_mine
            if subject is not None and subject.system is not None and subject.value is not None:
                is_mine = self.has(subject.system, subject.value)
                mine, other = mine or is_mine, other or not is_mine
        if read.image is not None and read.image.patient is not None:
            is_mine = (namespace, read.image.patient) in self.locals
            mine, other = mine or is_mine, other or not is_mine
        return mine, other

    def has(self, system: str, value: str) -> bool:
        return (system, self._index("identifier", system, value)) in self._identifiers

    def learn(self, read: PartRead) -> None:
        """Take the identifiers of the person's Patient resources as numbers to look for."""
        for each in read.reads:
            body = each.statement.body
            if each.statement.verb is Verb.ASSERT and each.statement.resource_type == "Patient" and body is not None:
                try:
                    held = identifiers_of(body)
                except BadInput:
                    continue
                self.numbers |= {value for system, value, _ in held if self.has(system, value)}

    def carried_by(self, body: bytes) -> bool:
        """Whether a number of theirs stands in these bytes, or may in another spelling (JSON `\\u`, HL7 `\\X`)."""
        if b"\\u" in body or b"\\X" in body:
            return True
        return any(number.encode() in body or not _PLAIN.fullmatch(number) for number in self.numbers)

    def named_in(self, body: bytes) -> bool:
        """Whether a number of theirs stands in bytes that nobody could read, as a word of its own."""
        return any(
            re.search(rb"(?<![0-9A-Za-z])" + re.escape(number.encode()) + rb"(?![0-9A-Za-z])", body)
            for number in self.numbers
            if len(number) >= SHORTEST
        )


def _parts_by_reading(store: Store, found: Belongings, person: _Person, rules: SourceRules) -> None:
    """First the parts that are theirs, for their identifiers and for whom else they name; then all others."""
    for landing_id in sorted({landing_id for landing_id, _ in found.parts}):
        landing = store.reads.landing(landing_id)
        if landing is None or landing.media_type == IMAGE:
            continue
        for ordinal, body in _left(store, landing):
            if (landing_id, ordinal) in found.parts and body is not None:
                read = _read(landing, ordinal, body, rules)
                person.learn(read)
                if person.names(landing.namespace, read)[1]:
                    found.shared.add((landing_id, ordinal))
    found.numbers = frozenset(person.numbers)
    _look_through(store, found, person, rules, 0)


def _look_through(store: Store, found: Belongings, person: _Person, rules: SourceRules, after: int) -> None:
    """Add the parts of landings after this one that are about the person and are not known to be."""
    namespaces = {namespace for namespace, _ in person.locals}
    for landing_id in store.reads.landing_ids():
        landing = store.reads.landing(landing_id) if landing_id > after else None
        if landing is None or landing.namespace not in namespaces:
            continue
        if landing.media_type == IMAGE and (landing.size > LARGEST or _indexed(store, landing)):
            continue
        for ordinal, body in _left(store, landing):
            if body is None or (landing_id, ordinal) in found.parts or not person.carried_by(body):
                continue
            read = _read(landing, ordinal, body, rules)
            mine, other = person.names(landing.namespace, read)
            if mine or (not other and person.named_in(body)):
                found.parts.add((landing_id, ordinal))
                if mine and other:
                    found.shared.add((landing_id, ordinal))


def late_parts(store: Store, found: Belongings, rules: SourceRules = NO_RULES) -> set[bytes]:
    """Keys of parts that came while the person was looked up and erased, and of what was judged meanwhile."""
    later = Belongings(found.records, found.head)
    _look_through(store, later, found.person, rules, found.head << 20)
    later.parts -= later.shared  # another person's too: of a record that is made anew, if at all
    _seal_parts(store, later)
    return (later.keys | decisions_of(store, [record.id for record in found.records])) - found.keys


def decisions_of(store: Store, record_ids: Iterable[int]) -> set[bytes]:
    """Keys of everything that was decided about these records, whether they are still there or not."""
    found = Belongings([RecordRow(record_id, "", "") for record_id in record_ids], 0)
    _decisions(store, found)
    return {key for key in found.keys if not store.vault.keys.destroyed(key)}


def _indexed(store: Store, landing: LandingRow) -> bool:
    """Whether each of its objects has a row that says whose it is."""
    asked = "SELECT COUNT(DISTINCT part) FROM dicom_object WHERE landing_id = ? AND record_id IS NOT NULL"
    return int(store.reads.query(asked, (landing.id,))[0][0]) >= landing.parts


def _left(store: Store, landing: LandingRow) -> Iterator[tuple[int, bytes | None]]:
    try:
        yield from store.left(landing)
    except CdsError:  # bytes that are lost cannot be read by anybody
        return


def _read(landing: LandingRow, ordinal: int, body: bytes, rules: SourceRules) -> PartRead:
    part = Part(landing.ref, ordinal, landing.namespace, landing.media_type, landing.received_at, body)
    return read_part(part, rules.get(landing.source))


def _seal_parts(store: Store, found: Belongings) -> None:
    of: dict[int, set[int]] = {}
    for landing_id, part in found.parts:
        of.setdefault(landing_id, set()).add(part)
    for landing_id, parts in of.items():
        landing = store.reads.landing(landing_id)
        if landing is None:
            continue
        found.add("parts", *(part_ref(landing.ref, part) for part in parts))
        if len(parts) == landing.parts and landing.manifest is not None:
            found.add("manifests", part_ref(landing.ref, MANIFEST))


# ---- what was made of it ---------------------------------------------------------------------------------------------


def _decisions(store: Store, found: Belongings) -> None:
    reads = store.reads
    calls = {
        row[0]
        for landing_id in sorted({landing_id for landing_id, _ in found.parts})
        for row in reads.query("SELECT id FROM call WHERE landing_id = ?", (landing_id,))
    }
    for record in found.records:
        for inference_id, ref, call_id, snapshot in reads.query(
            "SELECT i.id, i.ref, i.call_id, s.ref FROM inference i JOIN snapshot s ON s.id = i.snapshot_id "
            "WHERE i.record_id = ? ORDER BY i.id",
            (record.id,),
        ):
            calls.add(call_id)
            found.add("inferences", object_ref(INFERENCE, ref))
            found.add("snapshots", object_ref(SNAPSHOT, snapshot))
            _of_inference(store, found, inference_id)
        for (uuid,) in reads.query("SELECT card FROM advice WHERE record_id = ? AND sealed IS NOT NULL", (record.id,)):
            found.add("cards", object_ref(HELD, uuid))
    for call_id in sorted(calls):
        for (ref,) in reads.query("SELECT ref FROM call WHERE id = ? AND sealed IS NOT NULL", (call_id,)):
            found.add("calls", object_ref(CALL, ref))


def _of_inference(store: Store, found: Belongings, inference_id: int) -> None:
    reads = store.reads
    for card_id, uuid, ehr in reads.query(
        "SELECT id, uuid, ehr FROM card WHERE inference_id = ? ORDER BY id", (inference_id,)
    ):
        found.add("cards", object_ref(CARD, uuid))
        found.answered[ehr] = found.answered.get(ehr, 0) + 1
        for (ref,) in reads.query("SELECT ref FROM action WHERE card_id = ?", (card_id,)):
            found.add("actions", object_ref(ACTION, ref))
    for (ref,) in reads.query("SELECT ref FROM action WHERE inference_id = ? AND card_id IS NULL", (inference_id,)):
        found.add("actions", object_ref(ACTION, ref))
    for (ref,) in reads.query("SELECT ref FROM system_action WHERE inference_id = ?", (inference_id,)):
        found.add("system actions", object_ref(SYSTEM_ACTION, ref))


def _jobs(store: Store, found: Belongings) -> None:
    """Jobs that name the person: results about them, and pulls that asked for them by number."""
    records = {record.id for record in found.records}
    mine = {
        row[0]
        for record_id in sorted(records)
        for row in store.reads.query("SELECT ref FROM inference WHERE record_id = ?", (record_id,))
    }
    mine |= {record.ref for record in found.records}
    mine |= {number for number in found.numbers if len(number) >= SHORTEST}
    rows = store.reads.query("SELECT id, ref, kind, source, sealed FROM job ORDER BY id")
    for job_id, ref, kind, source, sealed in rows:
        steps = store.reads.query("SELECT ref, sealed, state, at FROM job_step WHERE job_id = ? ORDER BY id", (job_id,))
        said = [(object_ref(JOB, ref), sealed), *((object_ref(STEP, row[0]), row[1]) for row in steps if row[1])]
        if not any(mine.intersection(_texts(store, *each)) for each in said):
            continue
        found.add("jobs", *(key for key, _ in said))
        state = steps[-1][2] if steps else ""
        if kind == SEND_KIND and state == "acknowledged":
            found.sent.append({"destination": source, "job": ref, "at": steps[-1][3]})
        elif kind == SEND_KIND and state in ("waiting", "parked"):
            found.waiting.append(job_id)


def _texts(store: Store, ref: bytes, cipher: bytes) -> set[str]:
    """Every text in a sealed payload; none where it cannot be opened any more."""
    try:
        return set(_strings(strict.loads(store.vault.open(ref, bytes(cipher)))))
    except CdsError:
        return set()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    members: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for member in members:
        yield from _strings(member)


def _board(store: Store, found: Belongings) -> None:
    reads = store.reads
    for record in found.records:
        for case_id, ref in reads.query("SELECT id, ref FROM board_case WHERE record_id = ?", (record.id,)):
            found.cases.append(case_id)
            found.add("board", object_ref(BOARD, ref))
            for statement in (
                "SELECT ref FROM board_recommendation WHERE case_id = ?",
                "SELECT s.ref FROM board_sign_off s JOIN board_recommendation r ON r.id = s.recommendation_id "
                "WHERE r.case_id = ?",
                "SELECT ref FROM board_minutes WHERE case_id = ?",
            ):
                found.add("board", *(object_ref(BOARD, row[0]) for row in reads.query(statement, (case_id,))))


def _sessions(store: Store, found: Belongings) -> None:
    """Open cases of the app: whoever looks at the person just now."""
    for record in found.records:
        rows = store.reads.query("SELECT ref, token_ref FROM app_session WHERE record = ?", (record.ref,))
        for ref, token in rows:
            found.add("sessions", object_ref(SESSION, ref), *([object_ref(TOKEN, token)] if token else []))


def _looks(store: Store, found: Belongings) -> None:
    """Reasons for which the glass was broken speak of the patient. Who looked stays: it says nothing of whom."""
    assert AccessRow.__tablename__ == "access"  # noqa: S101 (the table that the statement names)
    for record in found.records:
        for (ref,) in store.reads.query(
            "SELECT a.ref FROM access a JOIN access_record r ON r.access_id = a.id "
            "WHERE r.record_id = ? AND a.outcome = 'broken'",
            (record.id,),
        ):
            found.add("reasons", object_ref(ACCESS, ref))
        for act, door, at in store.reads.query(
            "SELECT a.act, a.door, a.at FROM access a JOIN access_record r ON r.access_id = a.id "
            "WHERE r.record_id = ? AND a.outcome = 'seen' AND a.act IN ('export', 'minutes', 'proof') ORDER BY a.id",
            (record.id,),
        ):
            found.exports.append({"act": act, "door": door, "at": at})


def _flags(store: Store, found: Belongings) -> None:
    asked = (
        "SELECT f.id, f.landing_id, f.part FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE c.id IS NULL AND (f.record_id = ? OR f.inference_id IN (SELECT id FROM inference WHERE record_id = ?))"
    )
    flags = {row[0] for record in found.records for row in store.reads.query(asked, (record.id, record.id))}
    open_ones = "SELECT f.id FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id WHERE c.id IS NULL "
    for landing_id, part in found.parts:
        rows = store.reads.query(f"{open_ones}AND f.landing_id = ? AND f.part = ?", (landing_id, part))
        flags.update(row[0] for row in rows)
    found.flags = sorted(flags)
