"""Findings of many messages brought to what they have in common: an event, a place without its numbers, a code.

Nothing of it can hold a value: events and names of segments are those of HL7's tables, else a word of ours; so a
sender cannot make more of them than the tables have, whatever it writes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from adapters.hl7v2.message import VERSIONS, Message
from adapters.hl7v2.places import path
from adapters.hl7v2.structure import USUAL, Finding, codes, fields

OTHER = "other"
NOBODYS = "a segment of no version"
WHOLE = "the message"

CODES = {
    "required, and empty": "empty",
    "withdrawn in ": "withdrawn",
    "does not repeat": "repeated",
    "more than 200 findings": "cut-short",
    "more than ": "repeated",
    "fields after ": "further-fields",
    "components after ": "further-components",
    "not a code of ": "table",
    "not at this place in ": "order",
    "not checked to the end": "cut-short",
    "not a": "form",
    "a segment that ": "segment",
    "required in ": "missing",
    "no structure of ": "no-structure",
    "more segments out of place": "cut-short",
}
"""How a rule of `structure` begins -> a word to count and filter by; the first that fits."""
_ORDERED = frozenset({"order", "missing"})


@lru_cache(maxsize=4096)
def code_of(rule: str) -> str:
    """The word for a rule of ours. Raises: ValueError (a rule that stands in no row of `CODES`)."""
    long_first = sorted(CODES, key=len, reverse=True)
    for begin in long_first:
        if rule.startswith(begin):
            return CODES[begin]
    raise ValueError("a rule without a code")


def known_event(message: Message) -> str:
    """`ORU^R01`, or `ORU`; `other` for what tables 0076 and 0003 do not list in any version."""
    kind, event = (part.strip() for part in message.trigger)
    if kind not in _listed("0076") or (event and event not in _listed("0003")):
        return OTHER
    return f"{kind}^{event}" if event else kind


@lru_cache(maxsize=8)
def _listed(table: str) -> frozenset[str]:
    return frozenset(each for version in VERSIONS for each in codes(table, version) if each.isalnum())


def place_of(finding: Finding, structure: str = "") -> str:
    """`PID-8` for `PID[2]-8[3]`; `ORU_R01/OBX` for a segment that is missing, or not at its place."""
    if finding.place == WHOLE:
        return WHOLE
    at = path(finding.place)
    if not _known(at.segment):
        return NOBODYS
    if at.field:
        return str(at._replace(number=1, repetition=0))
    found = code_of(finding.rule)
    ordered = structure and (found in _ORDERED or (found == "segment" and re.search(r"that [A-Z]", finding.rule)))
    return f"{structure}/{at.segment}" if ordered else at.segment


@lru_cache(maxsize=4096)
def _known(segment: str) -> bool:
    return any(fields(segment, version) for version in (USUAL, *VERSIONS))


def kind_of(finding: Finding, structure: str = "") -> tuple[str, str, str]:
    """Place, code and rule of a finding."""
    return place_of(finding, structure), code_of(finding.rule), finding.rule
