"""Which messages of a feed are held against their version in the background, and what that found so far.

A share of the messages, chosen by a keyed digest of their bytes: the same ones when it is done again, more of the same
where the share grows, and nothing that a sender could aim at. At most so many seconds of processor time an hour: what
is chosen after that is counted and passed over, and the report says so. A finding is kept as (event, version, place,
rule) and a count: no value, no number of a message.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from cds_server.configured import Table
from cds_server.store.store import Store

KEYS = frozenset({"conformance_share", "conformance_seconds"})
HOUR = 3600
SHARE, SECONDS = 0.01, 60


@dataclass(frozen=True, slots=True)
class Sampling:
    """Of one source."""

    share: float = SHARE
    """Of its messages; 0: none is checked."""
    seconds: int = SECONDS
    """Of processor time, an hour."""
    charset: str | None = None
    """Of messages that declare none: as the reader takes them."""


OFF = Sampling(0.0)


def sampling_of(table: Table, charset: str | None) -> Sampling:
    """What `[[source]]` says of it. Raises: Misconfigured."""
    share = table.entries.get("conformance_share", SHARE)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise table.wrong("conformance_share", "is not a number from 0 (off) to 1")
    return Sampling(float(share), table.seconds("conformance_seconds", SECONDS, 1, HOUR), charset)


def chosen(content: bytes, part: int, share: float) -> bool:
    """Whether a part of a delivery is one of the sample. `content`: the keyed digest of the delivery's bytes."""
    drawn = hashlib.sha256(content + part.to_bytes(8, "big")).digest()[:8]
    return int.from_bytes(drawn, "big") < share * 2.0**64


@dataclass(frozen=True, slots=True)
class Found:
    """Something about the messages of a source that does not keep to their version."""

    event: str
    """`ORU^R01`; `other` for what table 0003 does not know."""
    version: str
    place: str
    """`PID-8`; `ORU_R01/OBX` for a segment that is missing, or not at its place."""
    code: str
    rule: str
    messages: int
    """Of those that were checked, how many say it; once or several times."""
    times: int
    share: float
    """Of the messages of the source that were checked."""
    first: str
    last: str
    """When the first and the last message that says it came."""


@dataclass(frozen=True, slots=True)
class Report:
    source: str
    seen: int
    checked: int
    unreadable: int
    """Of the checked ones: no message at all, or in a character set that cannot be read."""
    passed_over: int
    """Chosen, and not checked because the time of the hour was spent."""
    failed: int
    """Chosen, and not checked because the check itself failed."""
    seconds: float
    """Of processor time, in all."""
    spent: bool
    """The time of this hour is spent."""
    first: str
    last: str
    findings: tuple[Found, ...]

    @property
    def times(self) -> int:
        return sum(each.times for each in self.findings)


def reports(store: Store, source: str | None = None, *, now: float | None = None) -> list[Report]:
    """What was found so far, by source (all: None); the most frequent finding first."""
    hour = int((time.time() if now is None else now) // HOUR)
    found: dict[str, list[Any]] = {}
    for of, *row in store.reads.query(
        "SELECT source, event, version, place, code, rule, messages, times, first, last FROM hl7_finding "
        "WHERE (? = '' OR source = ?) ORDER BY messages DESC, source, event, version, place, rule",
        (source or "", source or ""),
    ):
        found.setdefault(of, []).append(row)
    made = []
    for of, seen, checked, unreadable, passed, failed, ms, in_hour, over, first, last in store.reads.query(
        "SELECT source, seen, checked, unreadable, passed_over, failed, ms, hour, spent, first, last FROM hl7_sample "
        "WHERE (? = '' OR source = ?) ORDER BY source",
        (source or "", source or ""),
    ):
        findings = tuple(
            Found(event, version, place, code, rule, messages, times, messages / max(checked, 1), begun, ended)
            for event, version, place, code, rule, messages, times, begun, ended in found.get(of, ())
        )
        spent = in_hour == hour and bool(over)
        made.append(Report(of, seen, checked, unreadable, passed, failed, ms / 1000, spent, first, last, findings))
    return made
