"""The prognosis card, from the real model on the mCODE persona: what an oncologist reads, to the letter."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from cds_server.hooks.cards import Card, LinkType, render, words
from cds_server.hooks.evidence import age
from cds_server.hooks.orders import draft_orders
from cds_server.hooks.service import CardGuide
from cds_server.services import all_services
from cds_server.services.breast_cancer_prognosis import SERVICES, cards, steps
from models.nouns import Judgement, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.cds_server.wire_checks import check_response
from tests.models.records import condition, fact, jenny, persona

LOINC = "http://loinc.org"
GOLDEN = Path(__file__).parent / "prognosis_card.md"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    shelf = Shelf()
    version = shelf.get("predict-breast")
    return Scorer(version, shelf.path(version))


def guide(**changes: Any) -> CardGuide:
    serial = itertools.count(1)
    members = {
        "inference": "0190-inf",
        "data_as_of": "2018-06-01T11:58:03.000000Z",
        "public_url": "https://cds.example.org",
        "new_uuid": lambda: f"00000000-0000-4000-8000-{next(serial):012}",
        **changes,
    }
    return CardGuide(**members)


def card_of(scorer: Scorer, snapshot: Snapshot, **changes: Any) -> Card:
    (card,) = cards(scorer.judge(snapshot), guide(**changes))
    assert check_response({"cards": [render(card)]}) == []
    return card


class Cells(HTMLParser):
    """The text of each table row of a rendered card."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("td", "th")
        if self.open:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] += data


def rows(card: Card) -> list[list[str]]:
    cells = Cells()
    cells.feed(MarkdownIt("commonmark", {"html": False}).enable("table").render(card.detail or ""))
    return cells.rows


def test_the_card_of_the_persona(scorer: Scorer) -> None:
    card = card_of(scorer, jenny(context={"what_if": {"screen": 0}}))
    assert card.summary == (
        "Estimated 10-year survival: 87 % after surgery alone, 93 % with radiotherapy, hormone therapy and chemotherapy"
    )
    told = {row[0]: row[1:] for row in rows(card)}
    assert told["Alive after"] == ["5 years", "10 years", "15 years"]
    # The official program for 53 y, 25 mm, grade 2, no nodes, ER+ PR- HER2-, current smoker, found clinically:
    # 10-year survival 86.67 after surgery only, 92.69 with radiotherapy, hormones and third-generation chemotherapy.
    assert told["surgery alone"][1] == "86.7 %"
    assert told["and chemotherapy"][1] == "92.7 %"
    assert told["gain, all together"][1] == "+6.0"
    assert "and trastuzumab" not in told  # HER2-negative
    assert told["Tumour size"][:2] == ["25 mm", "2 months ago, 2018-04-01"]
    assert told["Tumour size"][2].endswith("(2.5 cm)")
    assert told["Positive nodes"][0] == "0 (no count recorded; derived from pN0)"
    assert "Not known:** Ki-67" in (card.detail or "")
    assert "Please check" in (card.detail or "")  # pT3 recorded with 2.5 cm


def test_the_whole_text_is_the_golden_one(scorer: Scorer) -> None:
    """What a person reads changes only on purpose: `prognosis_card.md` is reviewed with the change."""
    card = card_of(scorer, jenny(context={"what_if": {"screen": 0}}))
    text = re.sub(r"Observation/\d+", "Observation/n", f"# {card.summary}\n\n{card.detail}\n")
    assert text == GOLDEN.read_text()


def test_a_chart_without_a_breast_cancer_shows_no_card(scorer: Scorer) -> None:
    """Most charts. One with a cancer in situ, or with a refuted one, is told why there is no estimate."""
    judgement = scorer.judge(jenny(without="tumour"))
    assert judgement.score.abstained == "no invasive breast cancer is recorded"
    assert cards(judgement, guide()) == ()
    refuted = condition(status="refuted/")
    assert (
        card_of(scorer, jenny(tumour=refuted)).summary == "No survival estimate: no invasive breast cancer is recorded"
    )


def test_the_tumour_is_named(scorer: Scorer) -> None:
    second = condition(resource="Condition/second", laterality="right")
    said_of_it = {
        name: known.but(focus=("Condition/primary",))
        for name, known in persona().items()
        if known.kind == "observation"
    }
    card = card_of(scorer, jenny(also=[second], context={"focus": "Condition/primary"}, **said_of_it))
    assert "(Condition/primary)" in (card.detail or "").partition("\n")[0]
    assert "Condition/second" not in (card.detail or "")


def test_the_numbers_of_the_card_are_those_of_the_score(scorer: Scorer) -> None:
    judgement = scorer.judge(jenny())
    course = steps(judgement)
    assert [step.treatment for step in course] == [None, "radiotherapy", "hormone therapy", "chemotherapy"]
    for step, output in zip(course, ("survival_s", "survival_r", "survival_rh", "survival_rhc"), strict=True):
        assert step.alive == tuple(judgement.score.outputs[output][year - 1] for year in (5, 10, 15))
    assert course[-1].alive == tuple(judgement.score.outputs["survival_rhctb"][year - 1] for year in (5, 10, 15))


def test_no_person_is_named_and_no_date_of_birth_shown(scorer: Scorer) -> None:
    text = str(render(card_of(scorer, jenny())))
    assert "1965" not in text


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (jenny(tumour=condition(status="refuted/")), "no invasive breast cancer is recorded"),
        (jenny(without="size er"), "required and not usable: tumour size, ER status"),
        (jenny(also=[condition(resource="Condition/second", laterality="right")]), "two tumours, none chosen"),
    ],
)
def test_an_abstention_says_why(scorer: Scorer, snapshot: Snapshot, reason: str) -> None:
    card = card_of(scorer, snapshot)
    assert card.summary == f"No survival estimate: {reason}"
    assert "No estimate was made" in (card.detail or "")
    assert "%" not in (card.detail or "").split("Research tool")[0].replace("Ki-67", "")
    assert not card.suggestions


def test_text_of_the_record_does_not_run(scorer: Scorer) -> None:
    evil = fact(
        LOINC, "33728-7", number="25", unit="mm", original="<img src=x onerror=alert(1)>", resource="Observation/x|y"
    )
    card = card_of(scorer, jenny(size=evil))
    assert "<" not in (card.detail or "")
    assert "Observation/x|y (<img src=x onerror=alert(1)>)" in [row[-1] for row in rows(card)]


def test_no_text_of_a_record_is_kept_in_memory(scorer: Scorer) -> None:
    snapshot = jenny()
    card_of(scorer, snapshot)
    before = words.cache_info().currsize
    others = [
        fact.but(source=fact.source.but(resource=f"{fact.source.resource}-of-another")) for fact in snapshot.facts
    ]
    card = card_of(scorer, snapshot.but(facts=tuple(others)))
    assert "-of-another" in (card.detail or "")
    assert words.cache_info().currsize == before


def test_what_if_inputs_are_told_apart(scorer: Scorer) -> None:
    card = card_of(scorer, jenny(context={"what_if": {"gen": 0, "heart": 4}}))
    told = {row[0]: row[1:] for row in rows(card)}
    assert "and chemotherapy" not in told
    assert told["Dose at the heart"] == ["4", "–", "as asked in this request"]


def test_one_link_and_never_a_dead_one(scorer: Scorer) -> None:
    """As long as there is no app to show the reasoning, the link leads to what is published about the method."""
    (link,) = card_of(scorer, jenny()).links
    assert (link.type, link.app_context) == (LinkType.ABSOLUTE, None)
    assert link.url == "https://github.com/WintonCentre/predict-v30-r"
    (link,) = card_of(scorer, jenny(), smart_app=True).links
    assert link.url == "https://cds.example.org/app/launch"
    assert link.app_context == '{"inference":"0190-inf"}'


def test_a_judgement_seen_again_gives_the_same_card(scorer: Scorer) -> None:
    judgement: Judgement = scorer.judge(jenny())
    assert cards(judgement, guide()) == cards(judgement, guide())


@pytest.mark.parametrize(
    ("effective", "told"),
    [
        ("2018-06-01", "today"),
        ("2018-05-31T23:00:00+02:00", "1 day ago"),
        ("2018-04-10", "52 days ago"),
        ("2018-03-16", "2 months ago"),
        ("2017-03", "15 months ago"),
        ("2018-06", "this month"),
        ("2010-06-02", "7 years ago"),
        ("2010", "8 years ago"),
        ("2018", "this year"),
        ("2018-07-01", "in the future"),
        ("2017-02-31", "16 months ago"),
        ("soon", "of unknown date"),
    ],
)
def test_age_is_no_finer_than_its_source(effective: str, told: str) -> None:
    assert age(effective, "2018-06-01T12:00:00.000000Z") == told


# ---- from the request ------------------------------------------------------------------------------------------------


def an_order(reason: str | None = None, subject: str = "Patient/1", **members: Any) -> dict[str, Any]:
    order: dict[str, Any] = {"resourceType": "MedicationRequest", "subject": {"reference": subject}, **members}
    if reason:
        order["reasonReference"] = [{"reference": reason}]
    return {"resource": order}


def context(*orders: dict[str, Any]) -> dict[str, Any]:
    return {"patientId": "1", "draftOrders": {"resourceType": "Bundle", "entry": list(orders)}}


def test_draft_orders_are_told_in_codes() -> None:
    drug = {"coding": [{"system": "http://rx", "code": "1", "display": "Drug"}, {}], "text": "Drug 5 mg"}
    told = draft_orders(context(an_order("Condition/left", medicationCodeableConcept=drug)))
    assert told == {
        "focus": "Condition/left",
        "draft_orders": [
            {
                "type": "MedicationRequest",
                "codings": [{"system": "http://rx", "code": "1", "display": "Drug"}],
                "text": "Drug 5 mg",
            }
        ],
    }


@pytest.mark.parametrize(
    "orders",
    [
        [an_order("Condition/left"), an_order("Condition/right")],
        [an_order("Condition/left", subject="Patient/2")],
        [an_order("#contained")],
        [an_order(reasonReference="nonsense", medicationCodeableConcept=[], subject="Patient/1")],
        [],
    ],
)
def test_a_tumour_is_never_guessed(orders: list[dict[str, Any]]) -> None:
    assert draft_orders(context(*orders)) == {}


def test_both_services_are_found() -> None:
    assert {(spec.id, spec.hook) for spec in SERVICES} <= {(spec.id, spec.hook) for spec in all_services()}
    assert [spec.hook for spec in SERVICES] == ["patient-view", "order-sign"]
