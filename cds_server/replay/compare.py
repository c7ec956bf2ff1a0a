"""Two answers to one request, compared as a reader would: identity and clock are not what differs.

A uuid stands as `<uuid 1>`, numbered by its first place, so that two places which name the same thing still must.
Instants, and ages counted from now ("50 min ago"), stand as `<time>`; whole days only where the request's own days were
moved. The server's base URL stands as `<server>`, the numbers of ledger entries as what they are.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cds_server.hooks.routes import INFERENCES
from cds_server.replay.tapes import Answer

IGNORED = (f"/extension/{INFERENCES}/items/*/seq", f"/extension/{INFERENCES}/items/*/leaf")
"""Places of the ledger: as new as the call."""

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_TIME = re.compile(
    r"\b\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:?\d\d| UTC\b)?"
    r"|\b\d+ (?:s|sec|seconds?|min|minutes?|h|hours?|days?|weeks?|months?|years?) ago\b"
)
_DAY = re.compile(r"\b\d{4}-\d\d-\d\d\b")


def difference(then: Answer, now: Answer, *, days: bool = False, ignored: Sequence[str] = IGNORED) -> tuple[str, ...]:
    """Lines of a unified diff between what was recorded and what came now; none: they say the same.

    `days`: whole days are not compared either. `ignored`: JSON pointers into the body; `*` stands for any one step.
    """
    old, new = _readable(then, days, ignored), _readable(now, days, ignored)
    return tuple(difflib.unified_diff(old, new, "recorded", "now", n=3, lineterm=""))


def _readable(answer: Answer, days: bool, ignored: Iterable[str]) -> list[str]:
    body = _Masked(answer.origin, days, [_places(pointer) for pointer in ignored]).value(answer.body)
    return [f"HTTP {answer.status}", *_lines(body)]


def _places(pointer: str) -> re.Pattern[str]:
    return re.compile("/".join("[^/]*" if step == "*" else re.escape(step) for step in pointer.split("/")))


class _Masked:
    def __init__(self, origin: str, days: bool, ignored: Sequence[re.Pattern[str]]) -> None:
        self._origin = origin
        self._days = days
        self._ignored = ignored
        self._numbers: dict[str, int] = {}

    def value(self, value: Any, at: str = "") -> Any:
        if any(pattern.fullmatch(at) for pattern in self._ignored):
            return "<ignored>"
        if isinstance(value, dict):
            return {
                name: self.value(each, f"{at}/{name.replace('~', '~0').replace('/', '~1')}")
                for name, each in value.items()
            }
        if isinstance(value, list):
            return [self.value(each, f"{at}/{n}") for n, each in enumerate(value)]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        if self._origin:
            text = text.replace(self._origin, "<server>")
        text = _UUID.sub(lambda found: self._numbered(found[0].lower()), text)
        text = _TIME.sub("<time>", text)
        return _DAY.sub("<day>", text) if self._days else text

    def _numbered(self, uuid: str) -> str:
        return f"<uuid {self._numbers.setdefault(uuid, len(self._numbers) + 1)}>"


def _lines(value: Any, indent: str = "", lead: str = "") -> list[str]:
    """JSON for reading: a text of several lines as several lines."""
    if isinstance(value, (dict, list)) and value:
        named = value.items() if isinstance(value, dict) else (("-", each) for each in value)
        lines = [f"{indent}{lead}"] if lead else []
        inner = f"{indent}  " if lead else indent
        for name, each in named:
            lines += _lines(each, inner, name if name == "-" else f"{name}:")
        return lines
    if isinstance(value, str) and "\n" in value:
        return [f"{indent}{lead}", *(f"{indent}  | {line}".rstrip() for line in value.split("\n"))]
    return [] if value is None and not lead else [f"{indent}{lead} {json.dumps(value, ensure_ascii=False)}".rstrip()]
