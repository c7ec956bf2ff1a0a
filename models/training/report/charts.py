"""The report's figures as SVG, drawn here: text stays text, colours carry a shape or a label too, no script.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#8a4f86", "#6b7280"
LINES = (BLUE, ORANGE, GREEN, PURPLE)
Row = tuple[str, Mapping[str, float] | None, str]
"""Label, figure with value, low, high (None: no figure), note."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot area with linear axes."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 300.0
    height: float = 240.0
    left: float = 46.0
    top: float = 26.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return round(self.left + across * self.width, 1), round(self.top + (1.0 - up) * self.height, 1)

    def axes(self, xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str, *, percent: bool) -> list[str]:
        bottom, right = self.top + self.height, self.left + self.width
        marks = []
        for y in ys:
            _, at = self.at(self.x[0], y)
            marks.append(f'<path class="grid" d="M{self.left} {at}H{right}"/>')
            marks.append(_text(self.left - 6, at + 4, _tick(y, percent), "end"))
        for x in xs:
            at, _ = self.at(x, self.y[0])
            marks.append(f'<path class="tick" d="M{at} {bottom}v4"/>')
            marks.append(_text(at, bottom + 17, _tick(x, percent), "middle"))
        marks.append(f'<path class="axis" d="M{self.left} {bottom}H{right}"/>')
        marks.append(_text(self.left + self.width / 2, bottom + 34, x_title, "middle"))
        marks.append(_text(self.left - 38, self.top - 10, y_title, "start"))
        return marks


def calibration(title: str, points: Sequence[Mapping[str, float]]) -> str:
    """Stated against observed risk in ten groups, with 95 % intervals; the diagonal is right."""
    most = max(point["high"] for point in points)
    top = 0.8 if most > 0.6 else 0.6
    frame = Frame((0.0, top), (0.0, top))
    ticks = [step / 10 for step in range(0, int(top * 10) + 1, 2)]
    marks = frame.axes(ticks, ticks, "stated risk at 5 years", "observed", percent=True)
    (x0, y0), (x1, y1) = frame.at(0.0, 0.0), frame.at(top, top)
    marks.append(f'<path class="ideal" d="M{x0} {y0}L{x1} {y1}"/>')
    for point in points:
        x, y = frame.at(point["stated"], point["observed"])
        _, low = frame.at(point["stated"], point["low"])
        _, high = frame.at(point["stated"], min(point["high"], top))
        marks.append(f'<path stroke="{BLUE}" stroke-width="1.5" d="M{x} {low}V{high}"/>')
        told = (
            f"{point['n']} patients: stated {point['stated']:.0%}, observed {point['observed']:.0%} "
            f"({point['low']:.0%} to {point['high']:.0%})"
        )
        marks.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{BLUE}"><title>{told}</title></circle>')
    return _svg(frame.left + frame.width + 24, frame.top + frame.height + 44, f"Calibration, {title}", marks)


def decision(curves: Mapping[str, Sequence[float]], names: Mapping[str, str]) -> str:
    """Net benefit by threshold; `names`: curve -> legend, in drawing order; `all` is treating everybody."""
    thresholds = curves["threshold"]
    best = max(max(curves[name]) for name in names)
    frame = Frame((thresholds[0], thresholds[-1]), (-0.05, round(best + 0.05, 1)), width=560.0, height=260.0)
    ys = [step / 20 for step in range(-1, int(frame.y[1] * 20) + 1)]
    marks = frame.axes([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], ys, "threshold of risk for acting", "net benefit", percent=False)
    marks.append(f'<path class="ideal" d="{_path(frame, [(thresholds[0], 0.0), (thresholds[-1], 0.0)])}"/>')
    places = [("all", "treat all", GREY, "1 3"), *_styles(names)]
    for place, (name, label, colour, dash) in enumerate(places):
        points = [(x, y) for x, y in zip(thresholds, curves[name], strict=True) if frame.y[0] <= y <= frame.y[1]]
        style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        marks.append(f'<path fill="none" {style} d="{_path(frame, points)}"/>')
        at = frame.top + 16 + 19 * place
        marks.append(f'<path {style} d="M{frame.left + 370} {at - 4}h30"/>')
        marks.append(_text(frame.left + 408, at, label, "start"))
    return _svg(frame.left + frame.width + 24, frame.top + frame.height + 44, "Decision curves", marks)


def forest(
    title: str,
    rows: Sequence[Row],
    *,
    span: tuple[float, float],
    ticks: Sequence[float],
    right: float | None,
    axis: str,
    reach: tuple[float, float] | None = None,
) -> str:
    """One line a row: value with interval. `right`: the vertical line of no difference; `reach`: a goal's range."""
    label_width, note_width, step = 222.0, 200.0, 24.0
    frame = Frame(span, (0.0, 1.0), width=300.0, height=step * len(rows), left=label_width)
    bottom = frame.top + frame.height
    marks = []
    if reach is not None:
        x0, x1 = frame.at(reach[0], 0.0)[0], frame.at(reach[1], 0.0)[0]
        marks.append(f'<path class="reach" d="M{x0} {frame.top}H{x1}V{bottom}H{x0}Z"/>')
    for tick in ticks:
        x = frame.at(tick, 0.0)[0]
        marks.append(f'<path class="grid" d="M{x} {frame.top}V{bottom}"/>')
        marks.append(_text(x, bottom + 16, f"{tick:g}", "middle"))
    if right is not None:
        x = frame.at(right, 0.0)[0]
        marks.append(f'<path class="ideal" d="M{x} {frame.top}V{bottom}"/>')
    marks.append(_text(frame.left + frame.width / 2, bottom + 33, axis, "middle"))
    for place, (label, figure, note) in enumerate(rows):
        y = frame.top + step * (place + 0.5)
        marks.append(_text(0, y + 4, label, "start"))
        marks.append(_text(frame.left + frame.width + 12, y + 4, note, "start"))
        if figure is not None:
            marks += _bar(frame, figure, y)
    return _svg(label_width + frame.width + note_width, bottom + 42, title, marks)


def _bar(frame: Frame, figure: Mapping[str, float], y: float) -> list[str]:
    """A diamond with its interval; an arrow head where the interval leaves the frame."""
    low, high = max(figure["low"], frame.x[0]), min(figure["high"], frame.x[1])
    x0, x1 = frame.at(low, 0.0)[0], frame.at(high, 0.0)[0]
    marks = [f'<path stroke="{BLUE}" stroke-width="2" d="M{x0} {y}H{x1}"/>']
    if figure["high"] > high:
        marks.append(f'<path fill="{BLUE}" d="M{x1} {y - 4}l7 4l-7 4Z"/>')
    if figure["low"] < low:
        marks.append(f'<path fill="{BLUE}" d="M{x0} {y - 4}l-7 4l7 4Z"/>')
    if frame.x[0] <= figure["value"] <= frame.x[1]:
        x = frame.at(figure["value"], 0.0)[0]
        marks.append(f'<path fill="{BLUE}" d="M{x} {y - 5}l5 5l-5 5l-5 -5Z"/>')
    return marks


def _styles(names: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    dashes = ("none", "7 4", "2 3", "9 3 2 3")
    return [
        (name, label, colour, dash) for (name, label), colour, dash in zip(names.items(), LINES, dashes, strict=False)
    ]


def _path(frame: Frame, points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join("{} {}".format(*frame.at(x, y)) for x, y in points)


def _tick(value: float, percent: bool) -> str:
    return f"{value:.0%}".replace("%", " %") if percent else f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, title: str, marks: Sequence[Any]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>{"".join(marks)}</svg>'
    )
