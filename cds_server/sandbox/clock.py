"""A request about the last hours, played later: its times move with the clock, as those of a living chart would.

Such a fixture says what time it was then, in `extension["org.cds-server.sandbox"].now`. All others are played as they
stand. Only for the sandbox and the demo: what a real EHR sends is never touched.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Any

from models.nouns import JSON

EXTENSION = "org.cds-server.sandbox"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_STAYS = frozenset({"birthDate", "extension"})


def redated(request: JSON, now: datetime) -> dict[str, Any]:
    """The request with every day and instant moved by as much as `now` is later than the fixture's own clock.

    Days move by whole days; months, years and dates of birth stay.
    """
    own = clock_of(request)
    return dict(request) if own is None else moved(dict(request), now - own)


def clock_of(request: JSON) -> datetime | None:
    """What time it was when a fixture was written; None: it plays as it stands."""
    own = request.get("extension", {}).get(EXTENSION, {}).get("now")
    return None if own is None else datetime.fromisoformat(own)


def moved(value: Any, by: timedelta) -> Any:
    """JSON with each day and instant in it moved."""
    if isinstance(value, dict):
        return {name: each if name in _STAYS else moved(each, by) for name, each in value.items()}
    if isinstance(value, list):
        return [moved(each, by) for each in value]
    if not isinstance(value, str):
        return value
    if _INSTANT.fullmatch(value):
        return (datetime.fromisoformat(value) + by).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (date.fromisoformat(value) + timedelta(days=by.days)).isoformat() if _DAY.fullmatch(value) else value
