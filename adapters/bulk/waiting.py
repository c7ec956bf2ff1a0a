"""How long to wait, and what a refusal lets one conclude. No clock of its own, no chance: the same question, the same
answer.

Bulk Data Access STU3, Bulk Data Status Request: a server sends Retry-After, a client backs off exponentially. Servers
also send absurd times: the time of day in seconds or milliseconds as seconds to wait (seen at bulk-data-server), five
hours (seen at Cerner). Nobody sleeps on the raw value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from adapters.bulk.request import PARAMETERS
from models import strict
from models.errors import BadInput

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:\s*,\s*[0-9]+(?:\.[0-9]*)?)*")
"""A repeated header comes as one, joined by commas."""
_LONGEST = 200
"""Characters of a Retry-After or Date that are looked at."""

_TRANSIENT = frozenset({"transient", "lock-error", "no-store", "timeout", "incomplete", "throttled"})
"""FHIR R4, value set issue-type, `transient` and below; without `exception`, which servers also use for good."""
# fmt: off
_CODES = _TRANSIENT | {
    "invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired", "forbidden",
    "suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long",
    "code-invalid", "extension", "too-costly", "business-rule", "conflict", "exception", "informational",
}
# fmt: on
"""FHIR R4, value set issue-type: what isn't in it is not taken from a server."""
_ALSO_WORDS = frozenset({"patient"})
"""Parameters whose names are words of the language, too."""


def http_date(value: str | None) -> datetime | None:
    """An HTTP date (RFC 9110, 5.6.7), with zone; None for anything else."""
    if value is None or len(value) > _LONGEST:
        return None
    try:
        moment = parsedate_to_datetime(value.strip())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_after(value: str | None, now: datetime, *, low: float = 1.0, high: float = 300.0) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3): seconds or an HTTP date; None where it says nothing.

    Never less than `low`, never more than `high`. `now`: with zone, best by the server's own Date.
    """
    text = (value or "").strip()
    if not text:
        return None
    if len(text) <= _LONGEST and _SECONDS.fullmatch(text):
        return _clamped(max(float(each) for each in text.split(",")), low, high)
    moment = http_date(text)
    return None if moment is None else _clamped((moment - now).total_seconds(), low, high)


def backoff(attempt: int, *, first: float = 1.0, high: float = 300.0) -> float:
    """Seconds to wait after the `attempt`-th answer (from 1) of a server that says nothing: `first`, twice it, ..."""
    return min(high, first * float(2 ** min(max(attempt, 1) - 1, 64)))


def failure_backoff(attempt: int, *, factor: float = 1.0) -> float:
    """Seconds to wait after the `attempt`-th failure (from 1) in a row, of the network or as 408 or 5xx: 1, 2, 4, 8
    minutes, then always 8; times `factor`."""
    return backoff(attempt, first=60.0, high=480.0) * factor


def _clamped(seconds: float, low: float, high: float) -> float:
    return min(max(seconds, low), high)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What of an OperationOutcome may be acted upon and repeated: codes and our own names, never its text."""

    transient: bool = False
    """The same request may succeed later (STU3, Response - Error Status): some issue says so, no error contradicts."""
    codes: tuple[str, ...] = ()
    """Issue types, each once, in the order they came."""
    parameters: tuple[str, ...] = ()
    """Parameters of ours that it names, by their names on the wire, in the order of `request.PARAMETERS`."""

    @property
    def stated(self) -> bool:
        """Whether there was an OperationOutcome with an issue at all."""
        return bool(self.codes)


def outcome_of(body: bytes) -> Outcome:
    """What the body of a refusal says; nothing, where it is no OperationOutcome. Raises nothing."""
    try:
        resource = strict.loads(body)
    except BadInput:
        return Outcome()
    if not isinstance(resource, dict) or resource.get("resourceType") != "OperationOutcome":
        return Outcome()
    listed = resource.get("issue")
    issues = [issue for issue in listed if isinstance(issue, dict)] if isinstance(listed, list) else []
    said = [(issue.get("code"), issue.get("severity")) for issue in issues]
    codes = [code for code, _ in said if isinstance(code, str) and code in _CODES]
    contradicted = any(severity in ("error", "fatal") and code not in _TRANSIENT for code, severity in _plain(said))
    texts = [text for issue in issues for text in _texts(issue)]
    return Outcome(
        transient=not contradicted and any(code in _TRANSIENT for code in codes),
        codes=tuple(dict.fromkeys(codes)),
        parameters=tuple(name for name in PARAMETERS if any(_names(text, name) for text in texts)),
    )


def _plain(said: list[tuple[Any, Any]]) -> Iterator[tuple[str, str]]:
    for code, severity in said:
        yield (code if isinstance(code, str) else ""), (severity if isinstance(severity, str) else "")


def _texts(issue: dict[str, Any]) -> Iterator[str]:
    """Where servers name a parameter: FHIR R4, OperationOutcome.issue."""
    details = issue.get("details")
    found = [issue.get("diagnostics"), details.get("text") if isinstance(details, dict) else None]
    for place in (issue.get("expression"), issue.get("location")):
        found += place if isinstance(place, list) else [place]
    for text in found:
        if isinstance(text, str):
            yield text


def _names(text: str, parameter: str) -> bool:
    """Whether a text names a parameter; one that is also a word, only in quotes or beside the word parameter."""
    name = re.escape(parameter)
    if parameter in _ALSO_WORDS:
        return bool(re.search(rf"[\"'`]{name}[\"'`]|\bparameter:? {name}\b|\b{name} parameter\b", text))
    return bool(re.search(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", text))
