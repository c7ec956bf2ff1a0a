"""How far two judgements of one snapshot are apart: number by number, with the distance that is still called nothing.

Bits may differ where another version of ONNX Runtime or numpy, or another processor, adds in another order. A binary64
has about sixteen digits, and no card shows more than four: what agrees to nine says the same. Text, and whether
something is there at all, must be the same to the letter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EPSILON = 1e-9
"""Relative to the value where that is above 1, else absolute."""


@dataclass(slots=True)
class Apart:
    """One output (or one feature), then and now."""

    output: str
    """Its path: `score.probability`, `score.outputs.survival_s`, `vectors.clinical.age.value`."""
    epsilon: float = EPSILON
    distance: float = 0.0
    """The largest of its numbers; infinite where text differs, or one of the two is not there."""
    count: int = 0
    """Numbers of it that were compared."""

    @property
    def within(self) -> bool:
        return self.distance <= self.epsilon

    def plain(self) -> dict[str, Any]:
        distance = self.distance if math.isfinite(self.distance) else None
        return {"output": self.output, "epsilon": self.epsilon, "distance": distance, "numbers": self.count}

    def __str__(self) -> str:
        if not math.isfinite(self.distance):
            return f"{self.output} is another"
        return f"{self.output} by {self.distance:.1e} (epsilon {self.epsilon:.0e})"


def apart(then: Any, now: Any) -> list[Apart]:
    """Every number of the two, by path, and whatever else differs. `then` and `now`: parsed JSON."""
    found: dict[str, Apart] = {}
    _walk("", then, now, found)
    return list(found.values())


def _walk(path: str, then: Any, now: Any, found: dict[str, Apart]) -> None:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted(then.keys() | now.keys()):
            below = f"{path}.{name}" if path else name
            if name in then and name in now:
                _walk(below, then[name], now[name], found)
            else:
                _at(below, found).distance = math.inf
    elif isinstance(then, list) and isinstance(now, list):
        if len(then) != len(now):
            _at(path, found).distance = math.inf
            return
        for one, other in zip(then, now, strict=True):
            _walk(_named(path, one), one, other, found)
    elif _number(then) and _number(now):
        each = _at(path, found)
        scale, distance = max(1.0, abs(then)), abs(float(then) - float(now))
        each.count += 1
        if distance / (EPSILON * scale) >= each.distance / each.epsilon:
            each.distance, each.epsilon = distance, EPSILON * scale
    elif then != now:
        _at(path, found).distance = math.inf


def _at(path: str, found: dict[str, Apart]) -> Apart:
    return found.setdefault(path, Apart(path))


def _named(path: str, item: Any) -> str:
    """Items of a list that have a name are told apart by it; others are one output together."""
    if isinstance(item, Mapping):
        name = item.get("modality") or item.get("name")
        if isinstance(name, str):
            return f"{path}.{name}"
    return path


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
