"""Keyword-only builders for snapshots of the point scores: a person now, with what was observed lately."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models.codes import ICD10CM, LOINC
from models.nouns import Fact, Judgement, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models.records import demographics, fact, snapshot

NOW = "2026-11-20T10:00:00.000000Z"
TODAY = "2026-11-20T09:10:00Z"


def scorer(name: str) -> Scorer:
    shelf = Shelf()
    model = shelf.get(name)
    return Scorer(model, shelf.path(model))


def lab(code: str, number: float, unit: str | None, *, effective: str = TODAY, **members: Any) -> Fact:
    return fact(LOINC, code, number=f"{number:g}", unit=unit, effective=effective, **members)


def illness(code: str, *, system: str = ICD10CM, status: str = "confirmed/active", **members: Any) -> Fact:
    members = {"effective": "2020-01-01", "resource": f"Condition/{code}", **members}
    return fact(system, code, kind="condition", status=status, **members)


def person(*facts: Fact | Iterable[Fact], born: str = "1960-05-01", sex: str = "female", **context: Any) -> Snapshot:
    flat = [each for group in facts for each in ([group] if isinstance(group, Fact) else group)]
    return snapshot([*demographics(born=born, sex=sex), *flat], at=NOW, **context)


def value(judgement: Judgement, name: str) -> float | None:
    """The value of a feature, or None where it is marked missing."""
    (vector,) = judgement.vectors
    found = vector.feature(name)
    return None if found.missing else found.value
