"""Charts carry the numbers of their table, draw a band only where one is published, and keep labels apart."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

from smart_app import charts
from smart_app.cases import Curve, Finding, Modality, ModelLine, Receipt
from smart_app.formats import Formats

DOWN = tuple(100.0 - 1.5 * year for year in range(1, 16))
LESS = tuple(value + 0.2 for value in DOWN)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(markup: str) -> ElementTree.Element:
    named = str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(named)  # noqa: S314 (drawn here)


def finding(**more: object) -> Finding:
    model = ModelLine("m", "1", "M", "0" * 64)
    return Finding("i", model, "2026", "said", Receipt(1, "ab", "2026"), **more)  # type: ignore[arg-type]


def test_each_curve_ends_with_its_name_and_number() -> None:
    chart = drawn(charts.survival([Curve("alone", DOWN), Curve("with <x>", LESS)], Formats.of("de")))
    labels = [each for each in chart.iter(f"{SVG}text") if each.get("class") == "label"]
    assert [each.text for each in labels] == ["alone 77,5 %", "with <x> 77,7 %"]
    heights = sorted(float(str(each.get("y"))) for each in labels)
    assert heights[1] - heights[0] >= 16.9
    assert len(list(chart.iter(f"{SVG}polyline"))) == 2
    assert list(chart.iter(f"{SVG}polygon")) == []


def test_lines_are_told_apart_without_colour() -> None:
    chart = drawn(charts.survival([Curve(str(n), DOWN) for n in range(5)]))
    dashes = [each.get("stroke-dasharray") for each in chart.iter(f"{SVG}polyline")]
    assert len(set(dashes)) == 5


def test_a_curve_begins_at_all_and_goes_through_each_year() -> None:
    line = next(drawn(charts.survival([Curve("alone", DOWN)])).iter(f"{SVG}polyline"))
    points = [tuple(map(float, pair.split(","))) for pair in str(line.get("points")).split()]
    assert len(points) == 16
    steps = {round(after[1] - before[1], 0) for before, after in pairwise(points)}
    assert len(steps) <= 2  # a straight line, up to rounding


def test_a_band_is_drawn_where_there_is_one() -> None:
    band = tuple((value - 2, value + 2) for value in DOWN)
    assert len(list(drawn(charts.survival([Curve("alone", DOWN, band)])).iter(f"{SVG}polygon"))) == 1


def test_a_modality_without_part_has_an_empty_bar() -> None:
    chart = charts.amounts([Modality("a", "A", 0.5), Modality("b", "B", -0.25), Modality("c", "C", None, "no result")])
    kinds = re.findall(r'class="bar (\w+)"', chart)
    assert kinds == ["more", "less", "none"]
    assert "+0.50" in chart
    assert "−0.25" in chart


def test_a_risk_shows_what_is_published_and_no_more() -> None:
    bare = charts.risk(finding(probability=0.153))
    assert "15 %" in bare
    assert "<rect" not in bare
    both = charts.risk(finding(probability=0.153, band=(0.13, 0.18), after=(0.11, 0.2)))
    assert both.count("<rect") == 2


def test_no_chart_has_an_inline_style() -> None:
    for chart in (charts.survival([Curve("a", DOWN)]), charts.amounts([]), charts.risk(finding(probability=1.0))):
        assert "style=" not in chart
        assert 'role="img"' in chart
        assert "aria-label=" in chart
