"""Times of HL7 v2 (TS, DTM, DT, TM; chapter 2A) as FHIR writes them, no more precise than they were sent.

FHIR wants an offset with every time of day (R4 datatypes, dateTime). It comes from the field; else from MSH-7, which
speaks for the whole message (chapter 2, MSH-7); else from the source's time zone. Where none is known, or the zone's
clock showed that time twice or never (the nights of a change), the date alone is kept: an hour is not guessed.

Seconds that were not sent are filled with zeros, as FHIR's types require; so are the minutes of a bare hour.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from zoneinfo import ZoneInfo

from adapters.hl7v2.message import Message
from adapters.hl7v2.places import Path
from models.errors import Misconfigured, Unreadable

_TIME = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?:(?P<day>\d\d)"
    r"(?:(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?)?)?)?)?"
    r"(?P<offset>[+-]\d{4})?",
    re.ASCII,
)
_OF_DAY = re.compile(
    r"(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?)?(?:[+-]\d{4})?", re.ASCII
)
_OFFSET = re.compile(r"[+-]\d{4}$", re.ASCII)


class Precision(IntEnum):
    """How much of a time was sent."""

    YEAR = 4
    MONTH = 6
    DAY = 8
    HOUR = 10
    MINUTE = 12
    SECOND = 14


_DEGREES = {
    "Y": Precision.YEAR,
    "L": Precision.MONTH,
    "D": Precision.DAY,
    "H": Precision.HOUR,
    "M": Precision.MINUTE,
    "S": Precision.SECOND,
}
"""Table 0529, the second component of TS (until 2.5)."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as FHIR writes it."""

    text: str
    """A dateTime: `2026`, `2026-03`, `2026-03-01`, `2026-03-01T09:00:00+01:00`."""
    precision: Precision
    """As it was sent; `text` may have less of it, where no offset is known."""
    zoned: bool
    """It has a time of day and an offset: it is an instant."""
    note: str | None = None
    """Why the time of day was left out, in our words."""

    @property
    def date(self) -> str:
        """The day (or month, or year) alone, as it stood at the sender's place."""
        return self.text[:10]

    @property
    def instant(self) -> str | None:
        return self.text if self.zoned else None


@dataclass(frozen=True, slots=True)
class Zones:
    """What stands in for an offset that a field lacks."""

    message: str | None = None
    """`+0100`: of MSH-7."""
    source: ZoneInfo | None = None


NO_ZONES = Zones()


def zone(name: str) -> ZoneInfo:
    """The time zone of a source, by its name in the IANA database. Raises: Misconfigured."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Misconfigured("a time zone that is not in the IANA database", where="timezone") from None


def zones_of(message: Message, source: ZoneInfo | None = None) -> Zones:
    """The offset of MSH-7, where it is one, and the source's zone."""
    found = _OFFSET.search(message.get("MSH-7"))
    return Zones(found[0] if found and _offset(found[0]) else None, source)


def moment(text: str, where: Path | str, zones: Zones = NO_ZONES, *, degree: str = "") -> Moment:
    """Read a TS, DTM or DT. `degree`: the second component of a TS, which may say that less of it is meant.

    Raises: Unreadable with the place (no time of this form, no day of the calendar, no offset of this world).
    """
    found = _TIME.fullmatch(text.strip())
    if not found:
        raise Unreadable("not a time of the form YYYYMMDDHHMMSS", where=str(where))
    year, month, day = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    if not (year and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]):
        raise Unreadable("a day that no calendar has", where=str(where))
    if found["hour"] is not None:
        _check_of_day(found, where)
    if found["offset"] and not _offset(found["offset"]):
        raise Unreadable("an offset from UTC that no place has", where=str(where))
    precision = min(_sent(found), _DEGREES.get(degree, Precision.SECOND))
    days = f"{year:04d}-{month:02d}-{day:02d}"
    if precision <= Precision.DAY:
        return Moment(days[: {Precision.YEAR: 4, Precision.MONTH: 7}.get(precision, 10)], precision, zoned=False)
    clock = _spelled(found, precision)
    offset, note = _offset_at(datetime.fromisoformat(f"{days}T{clock[:5]}"), found["offset"], zones)
    if offset is None:
        return Moment(days, precision, zoned=False, note=note)
    return Moment(f"{days}T{clock}{offset}", precision, zoned=True)


def time_of_day(text: str, where: Path | str) -> str:
    """Read a TM as a FHIR time, which has no offset: one that was sent is left out. Raises: Unreadable."""
    found = _OF_DAY.fullmatch(text.strip())
    if not found:
        raise Unreadable("not a time of day of the form HHMMSS", where=str(where))
    _check_of_day(found, where)
    return _spelled(found, Precision.SECOND)


def _sent(found: re.Match[str]) -> Precision:
    for name, precision in (
        ("second", Precision.SECOND),
        ("minute", Precision.MINUTE),
        ("hour", Precision.HOUR),
        ("day", Precision.DAY),
        ("month", Precision.MONTH),
    ):
        if found[name] is not None:
            return precision
    return Precision.YEAR


def _check_of_day(found: re.Match[str], where: Path | str) -> None:
    """60 is a leap second, which FHIR takes too; 24 hours are the next day, and whose day that is we do not say."""
    if int(found["hour"]) > 23 or int(found["minute"] or 0) > 59 or int(found["second"] or 0) > 60:
        raise Unreadable("a time of day that no clock shows", where=str(where))


def _spelled(found: re.Match[str], precision: Precision) -> str:
    minute = found["minute"] or "00" if precision >= Precision.MINUTE else "00"
    second = found["second"] or "00" if precision >= Precision.SECOND else "00"
    fraction = f".{found['fraction']}" if precision >= Precision.SECOND and found["fraction"] else ""
    return f"{found['hour']}:{minute}:{second}{fraction}"


def _offset(sent: str) -> str | None:
    """`+0100` as FHIR writes it; None for one that no place has (FHIR: up to 14 hours)."""
    hours, minutes = int(sent[1:3]), int(sent[3:])
    if minutes > 59 or hours * 60 + minutes > 14 * 60:
        return None
    return f"+{sent[1:3]}:{sent[3:]}" if hours == minutes == 0 else f"{sent[:3]}:{sent[3:]}"


def _offset_at(local: datetime, sent: str | None, zones: Zones) -> tuple[str | None, str | None]:
    """The offset of a local time, or None and the reason."""
    if sent := sent or zones.message:
        return _offset(sent), None
    if zones.source is None:
        return None, "no time zone is known: the date alone is kept"
    if not timedelta(days=1) <= local - datetime.min <= datetime.max - datetime.min - timedelta(days=2):  # noqa: DTZ901
        return None, "a year at the end of the calendar: the date alone is kept"
    early, late = (local.replace(tzinfo=zones.source, fold=fold) for fold in (0, 1))
    if early.utcoffset() != late.utcoffset():
        return None, "the clock of the source showed this time twice or never: the date alone is kept"
    seconds = int((early.utcoffset() or timedelta()).total_seconds())
    if seconds % 60:
        return None, "a local mean time: the date alone is kept"
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}", None


def stamp(at: datetime) -> str:
    """A moment as we send it, to the second, with its offset: it fits every version's TS."""
    if at.tzinfo is None:
        raise ValueError("a moment without a zone")
    return at.strftime("%Y%m%d%H%M%S%z")[:19]
