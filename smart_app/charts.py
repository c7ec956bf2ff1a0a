"""Charts as SVG, drawn on the server: classes for colour (no inline style), a different dash for each line, a label at
its end, and the same numbers in a table beside them. A band is drawn only where a model publishes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from smart_app.cases import Curve, Finding, Modality
from smart_app.formats import ISO, Formats
from smart_app.texts import t

WIDTH, HEIGHT = 860, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 240, 30, 44
_DASHES = ("", "7 4", "2 4", "10 4 2 4", "14 5", "4 2 1 2")
_LINE = 17
"""Pixels between two labels, at least."""


def survival(curves: Sequence[Curve], f: Formats = ISO) -> Markup:
    """Percent at each year, years 0 (100 %) to the last. The axis of percent begins where it helps, and says so."""
    years = max(len(curve.percent) for curve in curves)
    values = [value for curve in curves for value in (*curve.percent, *(each for pair in curve.band for each in pair))]
    floor = max(0.0, 10.0 * ((min(values) - 4) // 10))
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(year: float) -> float:
        return _LEFT + wide * year / years

    def y(percent: float) -> float:
        return _TOP + high * (100 - percent) / (100 - floor)

    parts = [_open(WIDTH, HEIGHT, t("case.curves_chart"))]
    step = 10 if 100 - floor > 40 else 5
    for percent in range(int(floor), 101, step):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + wide}" y1="{y(percent):.1f}" y2="{y(percent):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{y(percent) + 4:.1f}" text-anchor="end">{percent}</text>')
    for year in range(0, years + 1, 5 if years > 6 else 1):
        parts.append(f'<text x="{x(year):.1f}" y="{_TOP + high + 18}" text-anchor="middle">{year}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + wide}" y1="{_TOP + high}" y2="{_TOP + high}"/>')
    parts.append(
        f'<text x="{_LEFT + wide / 2:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{_e(t("case.years_axis"))}</text>'
    )
    parts.append(f'<text x="{_LEFT - 38}" y="13">{_e(t("case.percent_axis"))}</text>')
    ends = _apart([y(curve.percent[-1]) for curve in curves], _TOP + 4, _TOP + high)
    for number, (curve, at) in enumerate(zip(curves, ends, strict=True)):
        if curve.band:
            low = " ".join(f"{x(n + 1):.1f},{y(pair[0]):.1f}" for n, pair in enumerate(curve.band))
            top = " ".join(f"{x(n + 1):.1f},{y(pair[1]):.1f}" for n, pair in reversed(list(enumerate(curve.band))))
            parts.append(f'<polygon class="band f{number % 6}" points="{low} {top}"/>')
        points = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in enumerate((100.0, *curve.percent)))
        dash = _DASHES[number % len(_DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline class="line s{number % 6}"{dashed} points="{points}"/>')
        end = y(curve.percent[-1])
        near, far = x(years) + 3, x(years) + 16
        parts.append(f'<line class="s{number % 6}" x1="{near:.1f}" y1="{end:.1f}" x2="{far:.1f}" y2="{at:.1f}"/>')
        label = f"{curve.title} {f.number(curve.percent[-1], 1)} %"
        parts.append(f'<text class="label" x="{x(years) + 20:.1f}" y="{at + 4:.1f}">{_e(label)}</text>')
    return Markup("".join((*parts, "</svg>")))  # noqa: S704 - every text in it went through escape


def amounts(modalities: Sequence[Modality], f: Formats = ISO) -> Markup:
    """A bar for each modality: right of the line it raises the risk, left it lowers it, dashed it had no part."""
    row, left, right, width = 34, 170, 74, 560
    height = row * len(modalities) + 14
    most = max((abs(each.amount) for each in modalities if each.amount is not None), default=0.0) or 1.0
    middle, half = left + (width - left - right) / 2, (width - left - right) / 2
    parts = [_open(width, height, t("case.amounts_chart"))]
    for number, each in enumerate(modalities):
        at = 7 + row * number
        parts.append(f'<text class="label" x="{left - 12}" y="{at + 21}" text-anchor="end">{_e(each.title)}</text>')
        if each.amount is None:
            parts.append(f'<rect class="bar none" x="{middle - 28:.1f}" y="{at + 8}" width="56" height="18"/>')
            told = t("case.no_part")
        else:
            long = half * abs(each.amount) / most
            start = middle if each.amount >= 0 else middle - long
            kind = "more" if each.amount >= 0 else "less"
            parts.append(f'<rect class="bar {kind}" x="{start:.1f}" y="{at + 8}" width="{long:.1f}" height="18"/>')
            told = f.number(each.amount, 2, sign=True)
        parts.append(f'<text x="{width - right + 8}" y="{at + 21}">{_e(told)}</text>')
    parts.append(f'<line class="zero" x1="{middle:.1f}" x2="{middle:.1f}" y1="2" y2="{height - 2}"/>')
    return Markup("".join((*parts, "</svg>")))  # noqa: S704 - every text in it went through escape


def risk(finding: Finding, f: Formats = ISO) -> Markup:
    """One probability on a line from 0 to 100 %, with its band and with the range if missing results arrive."""
    width, height, left, wide = 560, 92, 18, 500
    share = finding.probability or 0.0

    def x(value: float) -> float:
        return left + wide * value

    parts = [_open(width, height, t("case.risk_chart"))]
    for percent in range(0, 101, 20):
        parts.append(f'<line class="grid" x1="{x(percent / 100):.1f}" x2="{x(percent / 100):.1f}" y1="22" y2="66"/>')
        parts.append(f'<text x="{x(percent / 100):.1f}" y="84" text-anchor="middle">{percent} %</text>')
    if finding.after is not None:
        low, high = finding.after
        parts.append(f'<rect class="bar none" x="{x(low):.1f}" y="30" width="{x(high) - x(low):.1f}" height="28"/>')
    if finding.band is not None:
        low, high = finding.band
        parts.append(f'<rect class="band f1" x="{x(low):.1f}" y="30" width="{x(high) - x(low):.1f}" height="28"/>')
    parts.append(f'<line class="range" x1="{x(share):.1f}" x2="{x(share):.1f}" y1="24" y2="64"/>')
    place = "start" if share < 0.08 else "end" if share > 0.92 else "middle"
    parts.append(f'<text class="label" x="{x(share):.1f}" y="15" text-anchor="{place}">{_e(f.percent(share))}</text>')
    return Markup("".join((*parts, "</svg>")))  # noqa: S704 - every text in it went through escape


def _open(width: int, height: int, label: str) -> str:
    kind = "chart" if width == WIDTH else "chart low"
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{_e(label)}">'


def _e(text: str) -> str:
    return str(Markup.escape(text))


def _apart(places: Sequence[float], top: float, bottom: float) -> list[float]:
    """Labels at these heights, in their order, no two nearer than a line; within the frame as far as they fit."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    found = list(places)
    for before, after in pairwise(order):
        found[after] = max(found[after], found[before] + _LINE)
    over = found[order[-1]] - bottom if order else 0.0
    if over > 0:
        found[order[-1]] -= over
        for after, before in pairwise(reversed(order)):
            found[before] = min(found[before], found[after] - _LINE)
    return [max(top, each) for each in found]
