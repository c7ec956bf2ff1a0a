"""One line of the table: which check, of what, and how it went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    WARN = "warn"
    """Allowed, but a client will stumble."""
    UNSEEN = "-"
    """There was nothing to judge."""


SHOWN = 4
"""Breaches that a line of the table names; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Result:
    number: str
    """As the conformance suite numbers it; 4 is ours."""
    title: str
    about: str
    """`service (hook)`; empty: the server."""
    verdict: Verdict
    what: str = ""


def judged(number: str, title: str, about: str, wrong: Sequence[str], *, owed: bool = True) -> Result:
    """A pass where nothing is wrong; else a failure, or a warning where it is not owed."""
    if not wrong:
        return Result(number, title, about, Verdict.PASS)
    listed = list(dict.fromkeys(wrong))
    rest = f" (and {len(listed) - SHOWN} more)" if len(listed) > SHOWN else ""
    return Result(number, title, about, Verdict.FAIL if owed else Verdict.WARN, "; ".join(listed[:SHOWN]) + rest)


def unseen(number: str, title: str, about: str, what: str, *, owed: bool = False) -> Result:
    """Nothing to judge: a failure only where the thing itself was owed."""
    return Result(number, title, about, Verdict.FAIL if owed else Verdict.UNSEEN, what)


def failed(results: Iterable[Result]) -> bool:
    return any(result.verdict is Verdict.FAIL for result in results)
