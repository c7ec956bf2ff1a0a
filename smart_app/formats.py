"""Dates and numbers as a reader's locale writes them. ISO 8601 and a decimal point where nothing else was asked for.

A date of a chart must not be read two ways: for English the month is a word. What the source did not say (a day, a
time) is not invented. Times stay in the zone that the source stated, which is named; our own instants are UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII)
_NUMBER = re.compile(r"([+\-]?)(\d+)(?:\.(\d+))?", re.ASCII)
_ACCEPTED = re.compile(r"\s*([A-Za-z]{2,3})(?:-([A-Za-z0-9]{2,8}))*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", re.ASCII)
THIN = "\u202f"
"""Narrow no-break space: between groups of three digits, where a comma or a point could be misread."""


@dataclass(frozen=True, slots=True)
class Formats:
    """How one locale writes."""

    locale: str = ""
    day: str = "{y}-{m}-{d}"
    month: str = "{y}-{m}"
    point: str = "."
    group: str = THIN

    @classmethod
    def of(cls, accept_language: str | None) -> Formats:
        """Of an `Accept-Language` header (RFC 9110, 12.5.4): the first of its languages that is known here."""
        wanted = []
        for order, each in enumerate((accept_language or "")[:200].split(",")):
            if found := _ACCEPTED.fullmatch(each):
                weight = float(found[3]) if found[3] else 1.0
                if weight:
                    wanted.append((-weight, order, each.partition(";")[0].strip().lower()))
        for _, _, tag in sorted(wanted):
            for known in (tag, tag.partition("-")[0]):
                if known in _KNOWN:
                    return _KNOWN[known]
        return ISO

    def date(self, text: str | None) -> str:
        """The day of a date or an instant, with no more of it than the source gave; empty for none."""
        found = _TIME.fullmatch(text or "")
        if found is None:
            return text or ""
        year, month, day, _, _ = found.groups()
        if month is None:
            return year
        values = {"y": year, "m": month, "d": day or "", "n": int(day or 0), "b": MONTHS[(int(month) - 1) % 12]}
        return (self.day if day else self.month).format(**values)

    def time(self, text: str | None) -> str:
        """Day and minute with the zone: `16 Mar 2018, 10:05 UTC`; the day alone where there is no time."""
        found = _TIME.fullmatch(text or "")
        if found is None or found[4] is None:
            return self.date(text)
        zone = "UTC" if found[5] == "Z" else f"UTC{found[5]}" if found[5] else ""
        return f"{self.date(text)}, {found[4]}{f' {zone}' if zone else ''}"

    def number(self, value: float | int | str | None, digits: int | None = None, *, sign: bool = False) -> str:
        """A number of ours with so many digits after the point, or decimal text of a source with all of its own."""
        if value is None:
            return ""
        if isinstance(value, str):
            written = value
        else:
            written = format(value, ("+" if sign else "") + ("g" if digits is None else f".{digits}f"))
        found = _NUMBER.fullmatch(written)
        if found is None:  # 1e-05, or no number: as it stands
            return written
        whole = found[2] if len(found[2]) < 5 else re.sub(r"(?<=\d)(?=(?:\d{3})+$)", self.group, found[2])
        signed = "−" if found[1] == "-" else found[1]
        if not any(digit in "123456789" for digit in found[2] + (found[3] or "")):
            signed = "" if signed == "−" else signed  # minus nothing is nothing
        return signed + whole + (f"{self.point}{found[3]}" if found[3] else "")

    def percent(self, share: float | None, digits: int = 0) -> str:
        """A share between 0 and 1 as percent: `41 %`."""
        return "" if share is None else f"{self.number(100 * share, digits)} %"

    def spread(self, ends: tuple[float, float]) -> str:
        """A range of shares, in one piece: `11–20 %`."""
        low, high = (self.number(100 * end, 0) for end in ends)
        return f"{low}–{high}\u00a0%"


ISO = Formats()
_WORDS = {"day": "{n} {b} {y}", "month": "{b} {y}"}
_KNOWN = {
    "en": Formats("en", **_WORDS, group=","),
    "en-us": Formats("en-US", day="{b} {n}, {y}", month="{b} {y}", group=","),
    "de": Formats("de", day="{d}.{m}.{y}", month="{m}.{y}", point=","),
    "fr": Formats("fr", day="{d}/{m}/{y}", month="{m}/{y}", point=","),
    "es": Formats("es", day="{d}/{m}/{y}", month="{m}/{y}", point=","),
    "it": Formats("it", day="{d}/{m}/{y}", month="{m}/{y}", point=","),
    "pt": Formats("pt", day="{d}/{m}/{y}", month="{m}/{y}", point=","),
    "nl": Formats("nl", day="{d}-{m}-{y}", month="{m}-{y}", point=","),
    "pl": Formats("pl", day="{d}.{m}.{y}", month="{m}.{y}", point=","),
    "da": Formats("da", day="{d}.{m}.{y}", month="{m}.{y}", point=","),
    "nb": Formats("nb", day="{d}.{m}.{y}", month="{m}.{y}", point=","),
    "fi": Formats("fi", day="{d}.{m}.{y}", month="{m}.{y}", point=","),
    "sv": Formats("sv", point=","),
}
