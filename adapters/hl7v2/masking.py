"""What of a message is hidden from whoever only needs to see its form.

Shown is what a rule lets through, nothing else: an element that no rule knows (of a Z-segment, of a later version,
after the last field) is hidden. The rules follow the identifiers of 45 CFR 164.514(b)(2) (safe harbor: names, places
below a state, dates, numbers of all kinds), and two more: free text may hold any of them, and people who care for the
patient have names too. Codes, states, units and measured numbers are shown: without the rest they name nobody.

A mask is for looking at a message among colleagues, and in a ticket. It does not make a file anonymous: senders put
names where a code belongs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from adapters.hl7v2.message import HEADERS, NULL, Repetition
from adapters.hl7v2.structure import components, field

MASK = "***"

NAME, NUMBER, PLACE = "a person's name", "a number that names somebody or something of theirs", "a place"
REACH, TEXT, DATA, WHOLE, UNKNOWN = (
    "a number or address to reach somebody",
    "free text",
    "a document",
    "a segment about a person",
    "nobody knows what it holds",
)
DATE = "a date: only its year is shown"


class Rule(NamedTuple):
    """Of a type: which components are shown, and why the others are not."""

    shown: frozenset[int]
    reason: str


def _rule(reason: str, *shown: int) -> Rule:
    return Rule(frozenset(shown), reason)


TYPES = {
    **dict.fromkeys(("XPN", "PN"), _rule(NAME, 7, 8)),
    **dict.fromkeys(("XCN", "CN", "CNN", "CN_SIMPLE", "PPN", "NDL", "CM_NDL"), _rule(NAME, 9, 10, 13)),
    "FN": _rule(NAME),
    **dict.fromkeys(("XAD", "AD", "SAD"), _rule(PLACE, 6, 7)),
    **dict.fromkeys(("PL", "CM_INTERNAL_LOCATION"), _rule(PLACE, 1, 4, 5, 6)),
    **dict.fromkeys(("XTN", "TN"), _rule(REACH, 2, 3)),
    **dict.fromkeys(("CX", "CK", "CK_ACCOUNT_NO", "CM_PAT_ID", "CM_PAT_ID_0192"), _rule(NUMBER, 4, 5, 6)),
    **dict.fromkeys(("EI", "CM_PLACER", "CM_FILLER"), _rule(NUMBER, 2, 3, 4)),
    **dict.fromkeys(("EIP", "CM_EIP", "PLN", "CM_LICENSE_NO", "DLN", "CM_GROUP_ID"), _rule(NUMBER)),
    **dict.fromkeys(("ED", "RP"), _rule(DATA, 2, 3, 4)),
    **dict.fromkeys(("LA1", "LA2", "CM_LA1"), _rule(PLACE, 1, 4, 5, 6)),
    "TM": _rule("a time"),
    "XON": _rule(PLACE, 2, 6, 7),
    **dict.fromkeys(("CE", "CNE"), _rule(TEXT, 1, 2, 3, 4, 5, 6, 7, 8)),
    "CWE": _rule(TEXT, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22),
}
"""The rules of types with components. One that does not stand here: as the types of its components."""

NUMERIC = frozenset({"SI", "NM", "SN", "CQ", "CQ_SIMPLE"})
"""Shown as far as what stands there is no word."""
SHOWN = frozenset({*NUMERIC, "ID", "IS", "HD", "VID", "MSG", "PT", "ERL", "CM_MSG"})
"""Types that are shown whole."""
DATES = frozenset({"DT", "DTM", "TS", "DR", "DR_SIMPLE"})
"""The year is shown, outside the segments about a person."""

PERSONS = {
    "PID": frozenset({1, 8, 30, 31, 32, 33, 34}),
    "PD1": frozenset({1, 2, 12}),
    "MRG": frozenset[int](),
    "NK1": frozenset({1, 3, 7}),
    "GT1": frozenset({1, 9, 10, 11}),
    "IN1": frozenset({1, 15, 17}),
    "IN2": frozenset[int](),
    "IN3": frozenset({1}),
    "ACC": frozenset[int](),
    "STF": frozenset[int](),
    "CTD": frozenset({1}),
    "PDA": frozenset[int](),
    "UB1": frozenset({1}),
    "UB2": frozenset({1}),
}
"""Segments about a person or who pays for them: what is shown besides the parts that their types let through (assigner
and type of an identifier, type of a name). PID: sex, death indicator, states of the identity; NK1: relationship, role;
GT1: type, relationship; IN1: plan type, relationship."""

OPEN = {
    "MSH": frozenset({3, 4, 5, 6, 7, 10, 13, 14, 19, 21}),
    "FHS": frozenset({3, 4, 5, 6, 7, 11, 12}),
    "BHS": frozenset({3, 4, 5, 6, 7, 11, 12}),
    "BTS": frozenset({1}),
    "FTS": frozenset({1}),
    "MSA": frozenset({2}),
    "SFT": frozenset({1, 2, 3, 4, 6}),
    "EVN": frozenset({2}),
    "OBX": frozenset({4, 7}),
}
"""Shown whatever their type: who sends, by which number, when, in which version; sub-ids and reference ranges. MSH-8
(security) is none of them: passwords have stood there."""

NAMING = frozenset({("PV1", 19), ("PV1", 50), ("RX1", 23), ("CER", 12)})
"""Numbers of visits, prescribers and certificates, which version 2.1 calls plain numbers and codes."""

_CODED = frozenset({"CE", "CWE", "CNE"})
_WORD = re.compile(r"[^\W\d_]")


def hidden(each: Repetition, component: int = 1, sub: int = 1, version: str = "2.5.1") -> str | None:
    """Why this sub-component is not to be shown (our words); None: it may be."""
    segment, number = each.segment, each.field
    name = segment.name
    if number <= 2 and name in HEADERS:
        return None
    if number in OPEN.get(name, ()):
        return None
    element = field(name, number, version)
    if element is None:
        return UNKNOWN
    kind = segment.text(2) if name == "OBX" and number == 5 else element.datatype
    if name in PERSONS and number not in PERSONS[name]:
        rule = TYPES.get(kind)
        return None if rule and kind not in _CODED and component in rule.shown else WHOLE
    if (name, number) in NAMING and kind not in TYPES:
        return NUMBER
    if kind in _CODED and component in (2, 5) and not each.text(component - 1):
        return TEXT
    if kind in _CODED and component == 1 and not (each.text(2) or each.text(3) or element.table):
        return TEXT
    if kind in NUMERIC and _WORD.search(each.text(component, sub)):
        return TEXT
    return _by_type(kind, component, sub, version)


@lru_cache(maxsize=4096)
def _by_type(kind: str, component: int, sub: int, version: str) -> str | None:
    if kind in DATES:
        return DATE
    if kind in SHOWN:
        return None
    if kind in TYPES:
        rule = TYPES[kind]
        return None if component in rule.shown else rule.reason
    parts = components(kind, version)
    if component > len(parts):
        return TEXT if kind in ("ST", "TX", "FT") else UNKNOWN
    inner = parts[component - 1].datatype
    return TEXT if inner in ("ST", "TX", "FT") else _by_type(inner, sub, 1, version)


def masked(each: Repetition, component: int = 1, sub: int = 1, version: str = "2.5.1") -> str:
    """The text of a sub-component as it may be shown; a mask for what is hidden; "" and null stay what they are."""
    raw = each.raw if each.field <= 2 and each.segment.name in HEADERS else each.component(component)
    text = each.text(component, sub)
    if not text:
        return NULL if raw == NULL and sub == 1 else ""
    reason = hidden(each, component, sub, version)
    if reason is None:
        return text
    if reason == DATE and each.segment.name not in PERSONS and text[:4].isdigit() and len(text) >= 4:
        return text[:4] + MASK
    return MASK
