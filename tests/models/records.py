"""Keyword-only builders of facts, and the facts of the mCODE persona Jenny M (HL7 mCODE 4.0.0, EX_ExtendedExample)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from models.codes import LOINC, PATIENT, SCT
from models.nouns import Coding, Fact, Provenance, Snapshot

NOW = "2018-06-01T12:00:00.000000Z"
POSITIVE, NEGATIVE = (LOINC, "LA6576-8"), (LOINC, "LA6577-6")
_serial = itertools.count()


def fact(
    system: str,
    code: str,
    *,
    answer: tuple[str, str] | None = None,
    resource: str | None = None,
    record: str = "record-1",
    kind: str = "observation",
    status: str | None = "final",
    effective: str | None = "2018-04-01",
    **members: Any,
) -> Fact:
    serial = next(_serial)
    return Fact(
        id=members.pop("id", f"landing/0//{serial:06}#0"),
        record=record,
        kind=kind,
        codings=members.pop("codings", (Coding(system, code),)),
        source=Provenance("landing", 0, "", resource or f"Observation/{serial}", "fhir@1"),
        known_from=NOW,
        coded=(Coding(*answer),) if answer else members.pop("coded", ()),
        status=status,
        effective=effective,
        **members,
    )


def condition(**members: Any) -> Fact:
    members = {
        "system": SCT,
        "code": "353431000119107",
        "resource": "Condition/primary",
        "status": "confirmed/remission",
        "effective": "2018-03-16",
        "laterality": "left",
        **members,
    }
    return fact(members.pop("system"), members.pop("code"), kind="condition", **members)


def demographics(*, born: str = "1965-01-01", sex: str = "female", **members: Any) -> list[Fact]:
    members = {"kind": "demographic", "status": None, "effective": None, "resource": "Patient/jenny", **members}
    return [fact(PATIENT, "birthDate", text=born, **members), fact(PATIENT, "gender", text=sex, **members)]


def persona() -> dict[str, Fact]:
    """Jenny M as our readers take her from FHIR, by name: lengths in mm, the node count without a value."""
    born, sex = demographics()
    return {
        "born": born,
        "sex": sex,
        "tumour": condition(),
        "size": fact(LOINC, "33728-7", number="25", unit="mm", original="2.5 cm", effective="2018-04-01T00:00:00Z"),
        "grade": fact(LOINC, "44648-4", answer=(LOINC, "LA27824-4")),
        "nodes": fact(LOINC, "92832-5"),
        "er": fact(LOINC, "85337-4", answer=POSITIVE, effective="2018-03-10"),
        "pr": fact(LOINC, "85339-0", answer=NEGATIVE, effective="2018-03-10"),
        "her2": fact(LOINC, "48676-1", answer=NEGATIVE, effective="2018-03-10"),
        "smoking": fact(LOINC, "72166-2", answer=(SCT, "449868002"), effective="2018-03-16"),
        "pt": fact(SCT, "384625004", answer=(SCT, "1229859000")),
        "pn": fact(SCT, "371494008", answer=(SCT, "1229947003")),
        "cm": fact(SCT, "399387003", answer=(SCT, "1229901006"), effective="2018-03-16"),
    }


def snapshot(facts: Iterable[Fact], *, at: str = NOW, **context: Any) -> Snapshot:
    return Snapshot("person-1", ("record-1",), NOW, at, "predict-breast@3.2.0", Snapshot.ordered(list(facts)), context)


def jenny(
    *, without: str = "", also: Iterable[Fact] = (), context: dict[str, Any] | None = None, **instead: Fact
) -> Snapshot:
    """The persona, without some facts (names separated by spaces), with others instead, and with more."""
    facts = {name: known for name, known in {**persona(), **instead}.items() if name not in without.split()}
    return snapshot([*facts.values(), *also], **(context or {}))
