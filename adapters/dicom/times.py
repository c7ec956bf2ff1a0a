"""Dates and times of DICOM (DA, TM, DT; PS3.5 6.2) as FHIR writes them, no more precise than they are known.

Timezone Offset From UTC (0008,0201) speaks for every time in its object; else the archive's zone does; else the date
alone is kept: an hour is not guessed.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

from adapters.hl7v2.times import Zones, moment, zone
from models.errors import Unreadable

_DATE = re.compile(r"(\d{4})[.\-]?(\d\d)[.\-]?(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6})\d*)?)?)?", re.ASCII)
_OFFSET = re.compile(r"[+-]\d{4}", re.ASCII)
_zone = lru_cache(maxsize=64)(zone)


def date_of(day: str) -> str:
    """A DA (also in the old form with full stops) as YYYY-MM-DD; empty where it is none."""
    found = _DATE.fullmatch(day.strip())
    if not found:
        return ""
    try:
        return datetime(int(found[1]), int(found[2]), int(found[3])).date().isoformat()  # noqa: DTZ001 (a day only)
    except ValueError:
        return ""


@lru_cache(maxsize=4096)
def date_time(day: str, clock: str, offset: str, zone_name: str | None) -> str:
    """DA and TM as a FHIR dateTime; empty without a day. Without an offset or zone, the day. Raises: Misconfigured, for
    a zone that is none."""
    stated = date_of(day)
    if not stated:
        return ""
    found = _TIME.fullmatch(clock.strip())
    if not found:
        return stated
    said = offset.strip()
    zones = Zones(said if _OFFSET.fullmatch(said) else None, _zone(zone_name) if zone_name else None)
    seconds = min(found[3] or "", "59")  # a leap second is 60 in a TM; clocks behind this server have none
    digits = f"{found[1]}{found[2] or ''}{seconds}{'.' + found[4] if found[4] else ''}"
    try:
        return moment(f"{stated.replace('-', '')}{digits}", "TM", zones).text
    except Unreadable:
        return stated


def of_text(written: str, offset: str, zone_name: str | None) -> str:
    """A DT (`20260301091500.000000+0100`) as a FHIR dateTime; empty where it is none."""
    plain, said = written.strip(), ""
    if len(plain) > 5 and plain[-5] in "+-":
        plain, said = plain[:-5], plain[-5:]
    return date_time(plain[:8], plain[8:], said or offset, zone_name)


def instant_of(text: str) -> str:
    """The dateTime where it is an instant; else empty."""
    return text if "T" in text else ""
