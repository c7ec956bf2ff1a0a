"""What forms of a case say, checked: overrides, the filter of the timeline, an EHR's own colours."""

from __future__ import annotations

import pytest

from models.errors import BadInput, TooLarge
from models.nouns import Outcome
from smart_app.overrides import Reason, given
from smart_app.style import contrast, sheet
from smart_app.timeline import Wanted

REASONS = (Reason("need-more-info", "urn:s", "More information is needed first"),)
FORM = {"card": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "form": "a" * 32, "seen": "7", "outcome": "overridden"}


def test_an_override_says_why() -> None:
    with pytest.raises(BadInput, match="reason or a comment"):
        given(FORM, REASONS)
    coded = given({**FORM, "reason": "need-more-info", "instead": " board "}, REASONS)
    assert coded.reason is not None
    assert (coded.reason.code, coded.reason.system, coded.instead, coded.seen) == (
        "need-more-info",
        "urn:s",
        "board",
        7,
    )
    assert given({**FORM, "comment": "because"}, REASONS).comment == "because"


def test_to_agree_needs_no_reason_and_keeps_none() -> None:
    agreed = given({**FORM, "outcome": "accepted", "reason": "need-more-info", "instead": "x"}, REASONS)
    assert (agreed.outcome, agreed.reason, agreed.instead) == (Outcome.ACCEPTED, None, None)
    assert given({**FORM, "outcome": "deferred"}, REASONS).outcome is Outcome.DEFERRED


@pytest.mark.parametrize(
    "wrong",
    [{"card": "1"}, {"form": "x"}, {"seen": "-1"}, {"outcome": ""}, {"outcome": "deleted"}, {"reason": "other"}],
)
def test_another_form_is_refused_without_its_values(wrong: dict[str, str]) -> None:
    with pytest.raises(BadInput) as caught:
        given({**FORM, "comment": "c", **wrong}, REASONS)
    assert "deleted" not in str(caught.value)
    assert "other" not in str(caught.value)


def test_words_have_an_end() -> None:
    with pytest.raises(TooLarge):
        given({**FORM, "comment": "x" * 2001}, REASONS)


def test_a_filter_takes_what_it_names() -> None:
    wanted = Wanted.of(
        {"group": ["labs", "nonsense"], "text": [" HEMO "], "from": ["2018-02-01"], "to": ["2018-03-31"]}
    )
    assert wanted.groups == {"labs"}
    assert wanted.takes("labs", "2018-03-06T10:00:00Z", "Hemoglobin 12")
    assert not wanted.takes("drugs", "2018-03-06", "Hemoglobin")
    assert not wanted.takes("labs", "2018-04-01", "Hemoglobin")
    assert not wanted.takes("labs", "2018-01-31", "Hemoglobin")
    assert not wanted.takes("labs", "", "Hemoglobin")
    assert not wanted.takes("labs", "2018-03-06", "Platelets")
    assert wanted.takes("labs", "2018-02", "hemoglobin"), "a month that may hold the first day"
    assert Wanted.of({}).takes("other", "", "")


@pytest.mark.parametrize("day", ["2018-2-1", "yesterday", "2018-02-01T00:00"])
def test_a_day_that_is_none_is_refused(day: str) -> None:
    with pytest.raises(BadInput):
        Wanted.of({"from": [day]})


def test_of_an_ehrs_colours_only_those_that_can_be_read_are_taken() -> None:
    style = {"color_background": "#edeae3", "color_highlight": "#69b5ce", "dim_border_radius": "6px"}
    assert sheet(style) == ":root { --radius: 6px; --ground: #edeae3; }\n"
    assert sheet({"color_background": "#222222", "color_highlight": "#0b5786"}) == ":root { --accent: #0b5786; }\n"
    assert sheet({"font_family_body": "Georgia, Times, 'Times New Roman', serif"}).startswith(":root { --font: Georgia")
    assert sheet({"font_family_body": "x; } body { display: none", "dim_border_radius": "6px;}"}) == ""
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
