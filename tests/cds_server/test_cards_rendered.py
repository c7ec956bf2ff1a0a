"""Renderings, held to the letter: a card with everything that a card can have, and what each service says today.

`snapshots/*.json` is what goes over the wire; `snapshots/*.html` is what a client that shows GitHub Flavored Markdown
makes of the detail. Both change only on purpose: run `python -m tests.cds_server.test_cards_rendered` and review.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from cds_server.hooks.cards import (
    Action,
    ActionType,
    Card,
    Indicator,
    Link,
    LinkType,
    SelectionBehavior,
    Source,
    Suggestion,
    escape,
    render,
    render_action,
    table,
)
from cds_server.hooks.reasons import CLINICAL
from models.nouns import Coding
from tests.cds_server.played import cards, request, service
from tests.cds_server.wire_checks import check_response

SNAPSHOTS = Path(__file__).parent / "snapshots"
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ORDER = {
    "resourceType": "MedicationRequest",
    "id": "draft-1",
    "status": "draft",
    "intent": "order",
    "subject": {"reference": "Patient/1"},
    "medicationCodeableConcept": {"text": "enoxaparin"},
}
NEW = {name: member for name, member in ORDER.items() if name != "id"}
TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
NASTY = 'O"Brien <script>alert(1)</script> | [x](javascript:alert(1)) **b** &amp; 1. # www.evil.example'


def everything() -> dict[str, Any]:
    """An answer that uses each member that CDS Hooks 2.0 has."""
    suggested = (
        Action(ActionType.DELETE, "Drop the draft", resource_id="MedicationRequest/draft-1"),
        Action(ActionType.CREATE, "Order enoxaparin", resource=NEW),
        Action(ActionType.UPDATE, "Change the draft", resource=ORDER),
    )
    card = Card(
        uuid="00000000-0000-4000-8000-000000000001",
        summary="One sentence.",
        indicator=Indicator.WARNING,
        source=Source(
            "A guideline",
            Coding("https://example.org/topics", "t", "A topic"),
            url="https://example.org/guideline",
            icon="https://example.org/icon-100.png",
        ),
        detail="\n\n".join([f"**About:** {escape(NASTY)}", table(["What", "Value"], [[NASTY, "1"]], numeric=True)]),
        suggestions=(
            Suggestion("Do all of it", "00000000-0000-4000-8000-000000000002", suggested, recommended=True),
            Suggestion("Nothing now", "00000000-0000-4000-8000-000000000003"),
        ),
        selection_behavior=SelectionBehavior.ANY,
        override_reasons=CLINICAL,
        links=(
            Link("Guideline", "https://example.org/guideline#dose", LinkType.ABSOLUTE),
            Link("App", "https://example.org/launch", LinkType.SMART, app_context='{"i":1}', autolaunchable=True),
        ),
    )
    system = Action(ActionType.UPDATE, "Annotate the draft", resource=ORDER)
    return {"cards": [render(card)], "systemActions": [render_action(system)]}


def of_service(service_id: str, name: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"cards": [render(card) for card in cards(service(service_id), request(name))]}


RENDERED: dict[str, Callable[[], dict[str, Any]]] = {
    "everything": everything,
    "prognosis": of_service("breast-cancer-prognosis", "jenny-m.patient-view"),
    "prognosis-abstained": of_service("breast-cancer-prognosis", "lena-b.patient-view"),
    "news2": of_service("deterioration-news2-encounter-start", "nils-d.encounter-start"),
    "vte": of_service("vte-risk-chemotherapy-order-sign", "tomas-v.order-sign"),
    "vte-abstained": of_service("vte-risk-chemotherapy-order-sign", "olga-p.order-sign"),
}


def texts(body: dict[str, Any]) -> tuple[str, str]:
    """The wire form, and the details as a browser gets them."""
    html = "\n".join(f"<h1>{card['summary']}</h1>\n{MARKDOWN.render(card['detail'])}" for card in body["cards"])
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n", html


@pytest.mark.requirement("cds-hooks_2.0", "80", "81", "82", "83", "84", "85", "87", "88", "90", "92", "93", "95", "96")
@pytest.mark.requirement("cds-hooks_2.0", "98", "99", "100", "103", "104", "105", "107", "111", "115", "117", "119")
@pytest.mark.requirement("cds-hooks_2.0", "121", "122", "124", "127", "128", "130", "131", "132", "133", "134", "135")
@pytest.mark.requirement("cds-hooks_2.0", "136", "138", "139", "141", "142", "144", "146", "147", "216", "217", "219")
@pytest.mark.parametrize("name", RENDERED)
def test_a_rendering_is_the_one_in_the_tree(name: str) -> None:
    body = RENDERED[name]()
    assert check_response(body) == []
    wire, html = texts(body)
    assert wire == (SNAPSHOTS / f"{name}.json").read_text(encoding="utf-8")
    assert html == (SNAPSHOTS / f"{name}.html").read_text(encoding="utf-8")
    assert set(re.findall(r"<([a-z0-9]+)", html)) <= {"h1", "p", "strong", "em", "ul", "li"} | TABLE


def main() -> None:
    SNAPSHOTS.mkdir(exist_ok=True)
    for name, make in RENDERED.items():
        wire, html = texts(make())
        (SNAPSHOTS / f"{name}.json").write_text(wire, encoding="utf-8")
        (SNAPSHOTS / f"{name}.html").write_text(html, encoding="utf-8")


if __name__ == "__main__":
    main()
