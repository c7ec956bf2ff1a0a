"""What a version leaves unsaid and the one before it said: it stands on (`Statement.keeps`, `Statement.group`).

A fact that is carried over keeps its own source: the message that stated it, and since when it is known.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from adapters.readers.facts import PATIENT
from cds_server.projected import Projected, value_text
from cds_server.store.tables import MANY
from cds_server.store.writer import Tx
from models.canonical import spell
from models.nouns import Fact, Statement

ALL = "identifier"
_ONE = "identifier|"


def over(
    tx: Tx, record: str, before: int, keeps: Collection[str], stated: Projected, here: tuple[str, int]
) -> Projected:
    """A Patient's facts with those of the version `before` about elements that the new one keeps, and does not state.
    `here`: landing and part of the new one, whose own facts are never carried (a redo replaces what it said)."""
    tx.flush()
    sealed = tx.read("SELECT facts FROM resource WHERE id = ?", (before,))[0][0]
    said = {code for code, _ in stated.demographics}
    kept = [
        fact
        for fact in (tx.vault.open_facts(record, sealed) if sealed else ())
        if fact.code.system == PATIENT
        and fact.code.code in keeps
        and fact.code.code not in said
        and (fact.source.landing, fact.source.part) != here
    ]
    return _together(stated, kept) if kept else stated


def _together(stated: Projected, kept: list[Fact]) -> Projected:
    codes = {fact.code.token for fact in kept} | ({stated.code} if stated.code else set())
    facts = spell(kept) if not stated.facts else stated.facts[:-1] + b"," + spell(kept)[1:]
    demographics = tuple((fact.code.code, text) for fact in kept if (text := value_text(fact)))
    return stated.but(
        facts=facts,
        count=stated.count + len(kept),
        code=MANY if len(codes) > 1 else next(iter(codes)),
        demographics=(*stated.demographics, *demographics),
    )


class _Known(Protocol):
    """An open version of a resource."""

    @property
    def id(self) -> int: ...
    @property
    def record_id(self) -> int | None: ...


def stands_against(tx: Tx, known: _Known | None, statement: Statement, older: bool) -> bool:
    """Whether what is known stands against a new version. `older`: what their dates say; but a result that is final is
    not replaced by a preliminary one, nor kept out by one, whichever was sent later."""
    if known is None or statement.settled is None or statement.settled is not older:
        return older
    tx.flush()
    rows = tx.read(
        "SELECT p.ref, r.facts FROM resource r JOIN patient_record p ON p.id = r.record_id WHERE r.id = ?", (known.id,)
    )
    if not rows or not rows[0][1]:
        return older
    status = {fact.status for fact in tx.vault.open_facts(*rows[0])}
    if statement.settled:
        return status.isdisjoint(_OPEN)  # the older, and final: kept out only by what is final, too
    return not status.isdisjoint(_SETTLED)  # the newer, and preliminary


_OPEN = frozenset({"registered", "partial", "preliminary"})
_SETTLED = frozenset({"final", "amended", "corrected"})


class Member(NamedTuple):
    """An open version of a member of a group."""

    id: int
    content: bytes
    record_id: int | None
    known_from: str
    updated: str | None
    subsetted: bool


def members(tx: Tx, group: bytes) -> list[tuple[bytes, Member]]:
    """Keyed digest of the local id, and the open version, of each member of a group."""
    tx.flush()
    rows: list[Any] = tx.read(
        "SELECT r.local_digest, r.id, r.content, r.record_id, r.known_from, r.updated, r.subsetted FROM resource r "
        "LEFT JOIN resource_closing c ON c.resource_id = r.id WHERE r.member_of = ? AND c.id IS NULL ORDER BY r.id",
        (group,),
    )
    return [(bytes(row[0]), Member(row[1], bytes(row[2]), row[3], row[4], row[5], bool(row[6]))) for row in rows]


def identifiers(tx: Tx, before: int, keeps: Collection[str]) -> list[tuple[str, bytes]]:
    """System and digest of the identifiers of the version `before` that the new one keeps."""
    tx.flush()
    rows: list[Any] = tx.read("SELECT system, value_digest FROM record_identifier WHERE resource_id = ?", (before,))
    return [(system, bytes(digest)) for system, digest in rows if ALL in keeps or f"{_ONE}{system}" in keeps]
