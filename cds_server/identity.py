"""Whose record is it. A wrong patient is the worst failure there is, so: stated rules only, and a Flag instead of a guess.

- A PatientRecord is (namespace, local id): `Patient/1` of two EHRs are two records.
- Records become one Person by links, made when two Patient resources carry the same value of a *joining system*
  (configuration `[identity] joining_systems`), dated, and reversible: a link whose identifier is withdrawn is unlinked.
- Never by name. Birth date and sex are only ever used against a link: records that contradict each other stay apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cds_server.store.reads import component, marks
from cds_server.store.writer import Tx
from models.nouns import Fact

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
    own = _person(tx, record_id)
    claimed: dict[tuple[int, ...], Identifier] = {}
    for identifier in joining:
        for other in _holders(tx, identifier):
            person = _person(tx, other)
            if person != own:
                claimed.setdefault(person, identifier)
    if len(claimed) > 1:
        return Joined(refused="its identifiers claim different persons")
    linked = []
    for person, identifier in claimed.items():
        if _contradicting_identifiers(tx, own, person, joining, systems):
            return Joined(refused="the two persons carry different values of one joining system")
        if _contradicting_demographics(tx, person, demographics):
            return Joined(refused="birth date or sex contradict each other")
        other = min(person)
        tx.add(
            "link",
            verb="link",
            record_id=record_id,
            other_id=other,
            basis=f"joining-system {identifier.system}",
            at=tx.now,
        )
        linked.append(other)
    return Joined(linked=tuple(linked))


def withdraw(tx: Tx, record_id: int, lost_systems: Iterable[str]) -> int:
    """Unlink what stood on an identifier that the record no longer carries; gives the number of links undone."""
    undone = 0
    for system in lost_systems:
        basis = f"joining-system {system}"
        active: dict[tuple[int, int], bool] = {}
        for one, other, verb in tx.read(
            "SELECT record_id, other_id, verb FROM link WHERE basis = ? AND (record_id = ? OR other_id = ?) ORDER BY id",
            (basis, record_id, record_id),
        ):
            active[one, other] = verb == "link"
        for (one, other), on in active.items():
            if on:
                tx.add("link", verb="unlink", record_id=one, other_id=other, basis=basis, at=tx.now)
                undone += 1
    return undone


def _person(tx: Tx, record_id: int) -> tuple[int, ...]:
    pending = [(row["record_id"], row["other_id"], row["verb"]) for row in tx.pending("link")]

    def rows_of(ids: list[int]) -> list[Any]:
        stored = tx.read(
            f"SELECT record_id, other_id, verb FROM link WHERE record_id IN ({marks(ids)}) OR other_id IN ({marks(ids)}) "
            "ORDER BY id",
            (*ids, *ids),
        )
        return stored + [row for row in pending if row[0] in ids or row[1] in ids]

    return component(record_id, rows_of)


def _holders(tx: Tx, identifier: Identifier) -> list[int]:
    """Records whose open Patient version carries this identifier."""
    digest = tx.vault.index("identifier", identifier.system, identifier.value)
    stored = tx.read(
        "SELECT DISTINCT i.record_id FROM record_identifier i LEFT JOIN resource_closing c ON c.resource_id = i.resource_id "
        "WHERE i.system = ? AND i.value_digest = ? AND c.id IS NULL",
        (identifier.system, digest),
    )
    pending = [
        row["record_id"]
        for row in tx.pending("record_identifier")
        if row["system"] == identifier.system and row["value_digest"] == digest
    ]
    return sorted({*(row[0] for row in stored), *(int(str(p)) for p in pending)})


def _held(tx: Tx, records: Iterable[int], systems: frozenset[str]) -> dict[str, set[bytes]]:
    ids, names = sorted(records), sorted(systems)
    held: dict[str, set[bytes]] = {}
    for system, digest in tx.read(
        "SELECT i.system, i.value_digest FROM record_identifier i LEFT JOIN resource_closing c ON c.resource_id = i.resource_id "
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


def _contradicting_demographics(tx: Tx, person: tuple[int, ...], demographics: dict[str, str]) -> bool:
    rows = tx.read(
        "SELECT p.ref, f.sealed FROM fact f JOIN patient_record p ON p.id = f.record_id "
        "LEFT JOIN resource_closing c ON c.resource_id = f.resource_id "
        f"WHERE f.record_id IN ({marks(person)}) AND f.code IN ({marks(_VETO)}) AND c.id IS NULL",
        (*person, *_VETO),
    )
    for ref, sealed in rows:
        fact = Fact.from_plain(json.loads(tx.vault.open_fact(ref, sealed)))
        stated, known = demographics.get(fact.code.code), value_text(fact)
        if stated and known and not (stated.startswith(known) or known.startswith(stated)):
            return True
    return False


def value_text(fact: Fact) -> str | None:
    return fact.text or (fact.coded[0].code if fact.coded else None)
