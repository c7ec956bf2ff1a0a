"""Whose record is it. A wrong patient is the worst failure there is, so: stated rules, and a Flag instead of a guess.

- A PatientRecord is (namespace, local id): `Patient/1` of two EHRs are two records.
- A feed's own word joins two of its records (a merge, a link: HL7 v2 A40, A24), and parts them again (A37).
- Records become one Person by links, made when two Patient resources carry the same value of a *joining system*
  (configuration `[identity] joining_systems`), dated, and reversible: a link whose identifier is withdrawn is unlinked.
- Never by name. Birth date and sex are only ever used against a link: records that contradict each other stay apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cds_server.projected import value_text
from cds_server.store.reads import component, marks
from cds_server.store.writer import Tx
from models.nouns import Fact

_BASIS = "joining-system "
FEED = "feed"
"""Basis of a link that the sender of both records stated."""
PATIENT = "http://hl7.org/fhir/Patient"
_VETO = (f"{PATIENT}|birthDate", f"{PATIENT}|gender")


@dataclass(frozen=True, slots=True)
class Identifier:
    system: str
    value: str


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of the identifiers of one Patient version."""

    linked: tuple[int, ...] = ()
    refused: str | None = None
    """The rule that kept records apart, in our words; a Flag is due."""


def join(
    tx: Tx, record_id: int, identifiers: Iterable[Identifier], demographics: dict[str, str], systems: frozenset[str]
) -> Joined:
    """Link a record to the persons that its joining identifiers name, or say which rule forbids it.

    `demographics`: values of birthDate and gender of this version, as far as stated.
    """
    joining = [i for i in identifiers if i.system in systems]
    if not joining:
        return Joined()
    tx.flush()  # Patients of this very act are looked at like any other
    own = _person(tx, record_id)
    shared = [(other, i) for i in joining for other in _holders(tx, i) if other != record_id]
    claimed = {person for other, _ in shared if (person := _person(tx, other)) != own}
    if len(claimed) > 1:
        return Joined(refused="its identifiers claim different persons")
    for person in claimed:
        if _contradicting_identifiers(tx, own, person, joining, systems):
            return Joined(refused="the two persons carry different values of one joining system")
        if _contradicting_demographics(tx, person, demographics):
            return Joined(refused="birth date or sex contradict each other")
    for other, identifier in dict.fromkeys(shared):
        basis = f"{_BASIS}{identifier.system}"
        if other not in _joined_to(tx, record_id, basis):
            tx.add("link", verb="link", record_id=record_id, other_id=other, basis=basis, at=tx.now)
            tx.flush()
    return Joined(linked=tuple(sorted({other for other, _ in shared})))


def join_by_feed(tx: Tx, record_id: int, other_id: int) -> str | None:
    """Join two records because their sender says so; gives the rule that forbids it, where one does.

    The sender knows its own patients; but where birth date or sex contradict each other, one of its two messages is
    wrong, and a person must say which.
    """
    if record_id == other_id:
        return "the two records are one and the same"
    tx.flush()
    if other_id in _joined_to(tx, record_id, FEED):
        return None
    if _contradicting_demographics(tx, _person(tx, other_id), _demographics(tx, record_id)):
        return "the feed joins two records whose birth date or sex contradict each other"
    tx.add("link", verb="link", record_id=record_id, other_id=other_id, basis=FEED, at=tx.now)
    tx.flush()
    return None


def part_by_feed(tx: Tx, record_id: int, other_id: int) -> str | None:
    """Undo what the feed joined; gives why there is nothing to undo, where there is not."""
    tx.flush()
    if other_id not in _joined_to(tx, record_id, FEED):
        return "the feed parts two records that it had not joined"
    tx.add("link", verb="unlink", record_id=record_id, other_id=other_id, basis=FEED, at=tx.now)
    tx.flush()
    return None


def withdraw(tx: Tx, record_id: int, lost_systems: Iterable[str]) -> int:
    """Unlink what stood on an identifier that the record no longer carries; gives the number of links undone.

    Links run between two records that share an identifier, never through a third: what others share stays joined.
    """
    tx.flush()
    undone = 0
    for system in lost_systems:
        basis = f"{_BASIS}{system}"
        for other in _joined_to(tx, record_id, basis):
            tx.add("link", verb="unlink", record_id=record_id, other_id=other, basis=basis, at=tx.now)
            undone += 1
    tx.flush()
    return undone


def _joined_to(tx: Tx, record_id: int, basis: str) -> list[int]:
    """Records that this one is linked to on that ground, now."""
    active: dict[int, bool] = {}
    for one, other, verb in tx.read(
        "SELECT record_id, other_id, verb FROM link WHERE basis = ? AND (record_id = ? OR other_id = ?) ORDER BY id",
        (basis, record_id, record_id),
    ):
        active[other if one == record_id else one] = verb == "link"
    return sorted(other for other, on in active.items() if on)


def _person(tx: Tx, record_id: int) -> tuple[int, ...]:
    def links_of(ids: Sequence[int]) -> list[Any]:
        return tx.read(
            "SELECT record_id, other_id, basis, verb FROM link "
            f"WHERE record_id IN ({marks(ids)}) OR other_id IN ({marks(ids)}) ORDER BY id",
            (*ids, *ids),
        )

    return component(record_id, links_of)


def _holders(tx: Tx, identifier: Identifier) -> list[int]:
    """Records whose open Patient version carries this identifier."""
    digest = tx.vault.index("identifier", identifier.system, identifier.value)
    rows = tx.read(
        "SELECT DISTINCT i.record_id FROM record_identifier i "
        "LEFT JOIN resource_closing c ON c.resource_id = i.resource_id "
        "WHERE i.system = ? AND i.value_digest = ? AND c.id IS NULL",
        (identifier.system, digest),
    )
    return sorted(row[0] for row in rows)


def _held(tx: Tx, records: Iterable[int], systems: frozenset[str]) -> dict[str, set[bytes]]:
    ids, names = sorted(records), sorted(systems)
    held: dict[str, set[bytes]] = {}
    for system, digest in tx.read(
        "SELECT i.system, i.value_digest FROM record_identifier i "
        "LEFT JOIN resource_closing c ON c.resource_id = i.resource_id "
        f"WHERE i.record_id IN ({marks(ids)}) AND i.system IN ({marks(names)}) AND c.id IS NULL",
        (*ids, *names),
    ):
        held.setdefault(system, set()).add(bytes(digest))
    return held


def _contradicting_identifiers(
    tx: Tx, own: tuple[int, ...], person: tuple[int, ...], joining: list[Identifier], systems: frozenset[str]
) -> bool:
    ours = _held(tx, own, systems)
    for identifier in joining:
        ours.setdefault(identifier.system, set()).add(tx.vault.index("identifier", identifier.system, identifier.value))
    theirs = _held(tx, person, systems)
    return any(theirs.get(system) and not values & theirs[system] for system, values in ours.items())


def _demographics(tx: Tx, record_id: int) -> dict[str, str]:
    """Birth date and sex as the open Patient version of a record states them."""
    stated: dict[str, str] = {}
    for fact in _patient_facts(tx, (record_id,)):
        if fact.code.token in _VETO and (text := value_text(fact)):
            stated[fact.code.code] = text
    return stated


def _contradicting_demographics(tx: Tx, person: tuple[int, ...], demographics: dict[str, str]) -> bool:
    for fact in _patient_facts(tx, person):
        if fact.code.token in _VETO:
            stated, known = demographics.get(fact.code.code), value_text(fact)
            if stated and known and not (stated.startswith(known) or known.startswith(stated)):
                return True
    return False


def _patient_facts(tx: Tx, records: tuple[int, ...]) -> list[Fact]:
    rows = tx.read(
        "SELECT p.ref, r.facts FROM resource r JOIN patient_record p ON p.id = r.record_id "
        "LEFT JOIN resource_closing c ON c.resource_id = r.id "
        f"WHERE r.record_id IN ({marks(records)}) AND r.type = 'Patient' AND r.facts IS NOT NULL AND c.id IS NULL",
        records,
    )
    return [fact for ref, sealed in rows for fact in tx.vault.open_facts(ref, sealed)]
