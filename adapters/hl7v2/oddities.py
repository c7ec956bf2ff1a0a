"""What is odd about a message that is read nevertheless, by codes: for counting, and never with a value."""

from __future__ import annotations

import re
from functools import lru_cache

from adapters.hl7v2 import charsets
from adapters.hl7v2.message import Message

NUMBER_AS_TEXT = "number-as-text"
"""OBX-2 says a number, and OBX-5 is none (`<5`, `1,2`): kept as text."""
UNKNOWN_ESCAPE = "escape-unknown"
"""An escape sequence that the standard does not define: kept as it was sent."""
_CODES = {
    charsets.UNDECLARED: "charset-not-declared",
    charsets.NOT_AS_DECLARED: "charset-not-as-declared",
    charsets.UNKNOWN: "charset-unknown",
    charsets.REALLY_1252: "charset-really-cp1252",
    charsets.ONLY_UNICODE: "charset-unicode-alone",
    charsets.REALLY_UTF_8: "charset-really-utf-8",
    "a line feed before what looks like a segment: kept as data of the segment before": "line-feed-in-data",
    "no version is stated": "version-not-stated",
    "a version that is not known: the one below": "version-unknown",
    "lines that are no segments": "stray-lines",
}
CODES = frozenset({*_CODES.values(), NUMBER_AS_TEXT, UNKNOWN_ESCAPE, "other"})


def codes_of(message: Message) -> list[str]:
    """The codes of what `parse` warned of, each once, and of escape sequences that nobody defined."""
    found = dict.fromkeys(_CODES.get(warning, "other") for warning in message.warnings)
    escape = message.delimiters.escape
    if any(escape in segment.line and _strange(segment.line, escape) for segment in message.segments[1:]):
        found[UNKNOWN_ESCAPE] = None
    return list(found)


def _strange(line: str, escape: str) -> bool:
    known, any_at_all = _sequences(escape)
    return any_at_all.search(known.sub("", line)) is not None


@lru_cache(maxsize=64)
def _sequences(escape: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    e = re.escape(escape)
    known = (
        r"[FSTREPHN]|X(?:[0-9A-Fa-f]{2})+|C[0-9A-Fa-f]{4}|M[0-9A-Fa-f]{4}(?:[0-9A-Fa-f]{2})?"
        r"|\.(?:br|ce|fi|nf|(?:sp|sk|in|ti) ?[+-]?[0-9]{0,4})"
    )
    return re.compile(f"{e}(?:{known}){e}"), re.compile(f"{e}[A-Za-z.][A-Za-z0-9.]{{0,20}}{e}")
