"""What the prognosis card says when something about the patient is missing or odd."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from cds_server.hooks.service import CardGuide
from cds_server.services.breast_cancer_prognosis import cards
from models.codes import LOINC, SCT
from models.nouns import Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models.records import POSITIVE, condition, demographics, fact
from tests.models.records import jenny as persona

NAME = "card"
TITLE = "What the prognosis card says when …"
HEADER = ("When", "the card says", "and adds")


def jenny(without: str = "", **changes: Any) -> Snapshot:
    """The persona of the tests, without the pT that does not fit her tumour's size."""
    return persona(without=f"pt {without}", **changes)


def situations() -> Iterator[tuple[str, Snapshot]]:
    """Of a woman of 53 with 25 mm, grade 2, no nodes, ER-positive, PR- and HER2-negative, as on 2018-06-01."""
    born, sex = demographics(born="1940-01-01")
    _, male = demographics(sex="male")
    second = condition(resource="Condition/second", laterality="right")
    early = {"effective": "2018-03-10"}
    yield "everything needed is on record", jenny()
    yield "the tumour size is missing", jenny(without="size")
    yield "ER status is missing", jenny(without="er")
    yield "ER is recorded as not done", jenny(er=fact(LOINC, "85337-4", absent_reason="not-performed", **early))
    yield "PR status is missing (unknown is not negative)", jenny(without="pr")
    yield "HER2 status is missing", jenny(without="her2")
    yield "the grade is missing", jenny(without="grade")
    yield "a pT3 is recorded beside 25 mm", persona()
    yield "no node was counted, and pN0 is recorded", jenny()
    yield "no node was counted, and no pN is recorded", jenny(without="pn")
    yield "the tumour measures 900 cm", jenny(size=fact(LOINC, "33728-7", number="9000", unit="mm"))
    yield "the tumour's size is in a unit of mass", jenny(size=fact(LOINC, "33728-7", number="25", unit="g"))
    yield (
        "the size is only bounded (< 25 mm)",
        jenny(size=fact(LOINC, "33728-7", number="25", unit="mm", comparator="<")),
    )
    yield "HER2 is positive", jenny(her2=fact(LOINC, "48676-1", answer=POSITIVE, **early))
    yield "no breast cancer is on record", jenny(without="tumour")
    yield "two tumours are on record, and none is chosen", jenny(also=[second])
    yield (
        "distant metastases are recorded",
        jenny(cm=fact(SCT, "399387003", answer=(SCT, "1229903009"), effective="2018-03-16")),
    )
    yield "the patient is a man", jenny(sex=male)
    yield "the date of birth is missing", jenny(without="born")
    yield "she was 78 years old at diagnosis", jenny(born=born, sex=sex)
    yield "the smoking status is missing", jenny(without="smoking")


def told(_: Path) -> Iterator[tuple[str, str, str]]:
    shelf = Shelf()
    version = shelf.get("predict-breast")
    scorer = Scorer(version, shelf.path(version))
    guide = CardGuide(
        inference="record",
        data_as_of="2018-06-01T12:00:00Z",
        public_url="https://cds.example",
        new_uuid=lambda: str(uuid4()),
    )
    for when, snapshot in situations():
        shown = cards(scorer.judge(snapshot), guide)
        if not shown:
            yield when, "nothing: there is no card", "the inference is on record"
        for card in shown:
            yield when, card.summary, _added(card.detail or "")


def _added(detail: str) -> str:
    """What is not known, and what to check: the parts of a card that speak of doubts."""
    unknown = re.search(r"\*\*Not known:\*\* (.+)", detail)
    check = re.search(r"\*\*Please check\*\*\n\n((?:- .+\n?)+)", detail)
    said = [f"Not known: {unknown[1]}."] if unknown else []
    said += [f"Please check: {line.removeprefix('- ')}." for line in (check[1].splitlines() if check else [])]
    return " ".join(said) or "–"
