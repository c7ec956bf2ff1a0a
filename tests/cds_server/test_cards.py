"""Cards cannot be wrong on the wire, and text from a record cannot run or format."""

from __future__ import annotations

import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cds_server.hooks.cards import (
    MAX_SUMMARY,
    Action,
    ActionType,
    Card,
    Indicator,
    Link,
    LinkType,
    SelectionBehavior,
    Source,
    Suggestion,
    card_bytes,
    clean,
    cut,
    escape,
    render,
    render_action,
    table,
)
from cds_server.hooks.reasons import CATEGORIES, CLINICAL, HL7, OURS, OverrideReason, category
from models.nouns import Coding
from tests.cds_server.wire_checks import check_card, check_response

SOURCE = Source("Test", Coding("https://example.org/topics", "t"))


def a_card(**changes: Any) -> Card:
    members: dict[str, Any] = {"uuid": "u-1", "summary": "Say.", "indicator": Indicator.INFO, "source": SOURCE}
    return Card(**{**members, **changes})


# ---- nouns -----------------------------------------------------------------------------------------------------------


def test_a_bare_card_has_no_empty_members() -> None:
    card = render(a_card())
    assert card == {
        "uuid": "u-1",
        "summary": "Say.",
        "indicator": "info",
        "source": {"label": "Test", "topic": {"system": "https://example.org/topics", "code": "t"}},
    }


def test_a_full_card_keeps_the_contract() -> None:
    patient = {"resourceType": "Patient", "id": "1"}
    actions = (
        Action(ActionType.CREATE, "Add", resource=patient),
        Action(ActionType.DELETE, "Drop", resource_id="MedicationRequest/a.b-1"),
    )
    card = a_card(
        detail="**x**",
        suggestions=(Suggestion("Do", "u-2", actions, recommended=True), Suggestion("Else", "u-3")),
        selection_behavior=SelectionBehavior.AT_MOST_ONE,
        override_reasons=CLINICAL,
        links=(
            Link("Guideline", "https://example.org/g", LinkType.ABSOLUTE),
            Link("App", "https://example.org/app/launch", LinkType.SMART, app_context='{"inference":"i"}'),
        ),
    )
    assert check_response({"cards": [render(card)]}) == []
    assert json.loads(json.dumps(render(card))) == render(card)


@pytest.mark.parametrize(
    "resource", [None, {"resourceType": "Patient", "multipleBirthInteger": 2}, {"resourceType": "Basic", "n": 2.0}]
)
def test_what_is_sealed_of_a_card_is_canonical(resource: dict[str, Any] | None) -> None:
    actions = (Action(ActionType.CREATE, "Add", resource=resource),) if resource else ()
    suggestion = Suggestion("Dö \u2028", "u-2", actions, recommended=True)
    link = Link("App", "https://example.org/app/launch", LinkType.SMART, app_context='{"inference":"i"}')
    members = {"suggestions": (suggestion,), "selection_behavior": SelectionBehavior.ANY, "links": (link,)}
    card = render(a_card(detail="**x** \u2060&#46;\n\t\x7f", override_reasons=CLINICAL, **members))
    assert card_bytes(card) == rfc8785.dumps(card)


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": " \n "},
        {"uuid": ""},
        {"detail": " "},
        {"suggestions": (Suggestion("a", "b"),)},
        {"selection_behavior": SelectionBehavior.ANY},
        {
            "suggestions": (Suggestion("a", "b", recommended=True), Suggestion("c", "d", recommended=True)),
            "selection_behavior": SelectionBehavior.AT_MOST_ONE,
        },
        {"suggestions": (Suggestion("a", "b"), Suggestion("c", "b")), "selection_behavior": SelectionBehavior.ANY},
        {"suggestions": (Suggestion("a", "u-1"),), "selection_behavior": SelectionBehavior.ANY},
        {"override_reasons": (CLINICAL[0], CLINICAL[0])},
    ],
)
def test_a_wrong_card_cannot_be_held(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        a_card(**changes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Link("a", "/relative", LinkType.ABSOLUTE),
        lambda: Link("a", "javascript:alert(1)", LinkType.ABSOLUTE),
        lambda: Link("a", "https://example.org", LinkType.ABSOLUTE, app_context="x"),
        lambda: Source("a", Coding("", "t")),
        lambda: Source("a", Coding("s", "t"), icon="icon.png"),
        lambda: Action(ActionType.CREATE, "a"),
        lambda: Action(ActionType.DELETE, "a", resource_id="no"),
        lambda: Action(ActionType.DELETE, "a", resource={"resourceType": "X"}, resource_id="X/1"),
        lambda: Action(ActionType.CREATE, "", resource={"resourceType": "Patient"}),
        lambda: Action(ActionType.CREATE, "a", resource={"resourceType": "no type", "id": "1"}),
        lambda: Action(ActionType.CREATE, "a", resource={"resourceType": "Patient", "name": [{"given": []}]}),
        lambda: Action(ActionType.CREATE, "a", resource={"resourceType": "Patient", "active": None}),
        lambda: Action(ActionType.CREATE, "a", resource={"resourceType": "Patient"}, resource_id="Patient/1"),
        lambda: Action(ActionType.UPDATE, "a", resource={"resourceType": "Patient"}),
        lambda: Action(ActionType.UPDATE, "a", resource_id="Patient/1"),
        lambda: Link("a", "https://example.org", LinkType.SMART, app_context=" "),
        lambda: Suggestion("", "u"),
        lambda: OverrideReason(HL7, "no-such-code", "x"),
        lambda: OverrideReason(OURS, "mine", "x"),
    ],
)
def test_a_wrong_part_cannot_be_held(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


def test_an_action_may_hold_what_is_false_or_zero() -> None:
    """`false` and `0` are values; only null, "", [] and {} are empty."""
    resource = {"resourceType": "Patient", "id": "a" * 194, "active": False, "multipleBirthInteger": 0}
    action = Action(ActionType.UPDATE, "Set", resource=resource)
    assert render_action(action) == {"type": "update", "description": "Set", "resource": resource}


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        (None, "none"),
        (Coding(HL7, "patient-refuses"), "does-not-align-preferences"),
        (Coding(HL7, "not-convenient-feasible"), "not-convenient-feasible"),
        (Coding(HL7, "no-such-code"), "other"),
        (Coding(OURS, "input-wrong"), "recipient-disagrees-evidence"),
        (Coding(OURS, "patient-refuses"), "other"),
        (Coding("https://ehr.example.org/reasons", "patient-refuses"), "other"),
    ],
)
def test_a_reason_counts_in_an_hl7_category(reason: Coding | None, counted: str) -> None:
    """What a client invents is `other`: no code from outside becomes the label of a metric."""
    assert category(reason) == counted


def test_reasons_are_few_and_counted() -> None:
    assert sum(map(len, CATEGORIES.values())) == 29
    assert len(CLINICAL) <= 7
    assert all(reason.category for reason in CLINICAL)


def test_the_checker_accepts_real_cards_and_finds_breaches(peer_data: Path) -> None:
    """Inferno's own valid cards pass; each planted breach is found."""
    real = json.loads((peer_data / "cds-hooks" / "valid_cards.json").read_text())
    for card in real:
        assert check_card(card) == [], card["summary"]
    good = render(a_card())
    breaches: list[dict[str, Any]] = [
        {**good, "summary": "x" * 140},
        {**good, "indicator": "hard-stop"},
        {**good, "links": []},
        {**good, "detail": None},
        {**good, "source": {"url": "https://example.org"}},
        {**good, "source": {"label": "x", "topic": {"code": "t"}}},
        {**good, "suggestions": [{"label": "a", "uuid": "b"}]},
        {**good, "links": [{"label": "a", "url": "https://x.org", "type": "absolute", "appContext": "x"}]},
        {**good, "overrideReasons": [{"code": "a", "system": "b"}]},
    ]
    for breach in breaches:
        assert check_response({"cards": [breach]}), breach
    assert check_response({"cards": []}) == []
    assert check_response({"cards": [], "extension": {"org.x": []}})
    assert check_response({"cards": [good, good]}) == ["/cards: a uuid occurs twice"]


# ---- text ------------------------------------------------------------------------------------------------------------

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "www.evil.example https://evil.example a@evil.example evil.com",
    "**bold** _em_ ~~gone~~ `code`",
    "| a | b |",
    "# head",
    "1. one",
    "- item",
    "+ item",
    "2) item",
    "    indented",
    "---",
    "===",
    "> quote",
    "&lt;b&gt; &#60;b&#62;",
    "a\\\n# b\r\n\r\n- c",
    "\u202eright to left",
    "half \ud800 pair",
    "[^1]: note",
    "- [ ] task",
    "$x^2$ :smile: @user #123",
]
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("!")

    handle_decl = handle_pi = unknown_decl = handle_comment


def _seen(html: str) -> _Tags:
    seen = _Tags()
    seen.feed(html)
    seen.close()
    return seen


def _with_payloads(test: Any) -> Any:
    for payload in PAYLOADS:
        test = example(payload)(test)
    return test


SNIPPETS = st.lists(
    st.sampled_from([*"<>&[](){}*_`~#|!-+.:@/\\=\"'$^ \n\t0a", "http", "://", "www.", "script", ".com"]), max_size=25
)
ANY_TEXT = st.one_of(st.text(max_size=60), SNIPPETS.map("".join))


@_with_payloads
@given(ANY_TEXT)
def test_escaped_text_neither_runs_nor_formats(text: str) -> None:
    shown = clean(text)
    escaped = escape(text)

    raw = _seen(escaped)  # a client that shows detail as HTML
    assert raw.tags == []
    assert raw.text.replace("\u2060", "") == shown

    document = _seen(MARKDOWN.render(escaped))  # a client that shows it as Markdown, at the start of a line
    assert set(document.tags) <= {"p"}
    assert document.text.strip().replace("\u2060", "") == shown

    cell = _seen(MARKDOWN.render(f"| h |\n| --- |\n| {escaped} |"))  # in a cell
    assert set(cell.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert cell.tags.count("td") == 1

    links = re.findall(r"://|www\.\S|[A-Za-z0-9]@\S|[a-z]\.[a-z]", raw.text)
    assert links == []  # what autolink extensions look for once references are resolved


def test_what_clinicians_write_stays_readable() -> None:
    written = ["25 mm", "2.5 cm (pathology)", "2018-03-16, 8 years ago", "ER+ HER2-", "grade 2; 1/3 nodes", "12:30"]
    for text in [*written, "+6.0", "-5 %", "no count (derived from pN0).", "in 2018. Then nothing"]:
        assert escape(text) == text


def test_table_cells_are_escaped_and_counted() -> None:
    made = table(["A", "B|"], [["x|y", "<b>"], ["1", "2"]], numeric=True)
    cells = _seen(MARKDOWN.render(made))
    assert cells.tags.count("td") == 4
    assert "b" not in cells.tags
    with pytest.raises(ValueError):
        table(["A"], [["1", "2"]])


# ---- summary ---------------------------------------------------------------------------------------------------------


@given(
    st.one_of(st.text(max_size=400), st.text(alphabet="ab \u0301\u200d\U0001f469\U0001f1e9\U0001f3fd", max_size=400))
)
def test_a_summary_is_short_and_whole(text: str) -> None:
    short = cut(text)
    assert len(short.encode("utf-16-le", "surrogatepass")) // 2 <= MAX_SUMMARY
    assert not set("<>\n\r") & set(short)
    if short.endswith("\u2026") and not clean(text).endswith("\u2026"):
        rest = clean(text)[len(short) - 1 :].lstrip(" ,;:")
        assert not rest or not unicodedata.category(rest[0]).startswith("M")


def test_a_summary_is_cut_between_words() -> None:
    assert cut("word " * 60) == "word " * 26 + "word\u2026"
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
    assert cut(family * 60).removesuffix("\u2026").replace(family, "") == ""
