"""PS3.15 Annex E as data: which action an attribute has, under the Basic Profile and the options that are chosen.

`confidentiality.tsv` is Table E.1-1 (edition 2026c), `safe_private.tsv` Table E.3.10-1, `types.json` the types of those
attributes whose action depends on them, `profiles.json` the sets of options that have a name here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from models.errors import Misconfigured

EDITION = "2026c"
OPTIONS = {
    "clean-pixel-data": ("113101", "Clean Pixel Data Option"),
    "clean-graphics": ("113103", "Clean Graphics Option"),
    "clean-structured-content": ("113104", "Clean Structured Content Option"),
    "clean-descriptors": ("113105", "Clean Descriptors Option"),
    "full-dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    "device-identity": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "safe-private": ("113111", "Retain Safe Private Option"),
    "institution-identity": ("113112", "Retain Institution Identity Option"),
}
"""Name here -> code and meaning in CID 7050. `clean-pixel-data` is not asked for: it is said of an object whose pixels
were blanked."""
BASIC = ("113100", "Basic Application Confidentiality Profile")
_CHOSEN = frozenset(OPTIONS) - {"clean-pixel-data"}
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    options: frozenset[str]
    coarse: bool = False
    """Times of day that are kept lose their minutes."""

    def __contains__(self, option: str) -> bool:
        return option in self.options

    def action(self, tag: int) -> str:
        """D, Z, X, U, K, C, a choice as `X/Z/D` or `X/Z/U*`; empty: the table does not name it.

        Where one option keeps what another cleans, it is cleaned.
        """
        row = _table().get(tag)
        if row is None:
            return ""
        said = {row[1][OPTIONS[option][0]] for option in self.options if OPTIONS[option][0] in row[1]}
        return "C" if "C" in said else "K" if "K" in said else row[0]

    @property
    def codes(self) -> list[tuple[str, str]]:
        return [BASIC, *sorted(OPTIONS[option] for option in self.options)]


def profiles() -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> what it is for, its options."""
    held = json.loads((_HERE / "profiles.json").read_text(encoding="utf-8"))
    return {name: (each["told"], frozenset(each["options"])) for name, each in held.items()}


def profile(name: str, more: Iterable[str] = (), *, coarse: bool = False) -> Profile:
    """A profile by its name, with more options. Raises: Misconfigured (no such name or option, or two options that
    exclude each other)."""
    known = profiles()
    if name not in known:
        raise Misconfigured(f"there is no such profile; there are {', '.join(known)}", where="--profile")
    options = known[name][1] | set(more)
    if unknown := options - _CHOSEN:
        raise Misconfigured(f"{len(unknown)} options are unknown; there are {', '.join(sorted(_CHOSEN))}")
    if {"full-dates", "modified-dates"} <= options:
        raise Misconfigured("full dates and modified dates exclude each other (PS3.15 E.3.6)", where="--option")
    return Profile(name, options, coarse)


def resolved(action: str, tag: int, sop_class: str, *, top: bool) -> str:
    """One action of a choice: X of what is optional, Z of type 2, D of type 1 (PS3.15 E.1.1). Where the type is not
    known (inside sequences, classes without a stated IOD) the one that keeps the object valid: a dummy, else empty."""
    if "/" not in action:
        return action
    choices = action.split("/")
    if "U*" in choices:
        return "U*"
    found = _types().get(tag) if top else None
    kind = None if found is None else found.get(sop_class, found["usual"])
    if kind == "3" and "X" in choices:
        return "X"
    if kind is not None and kind[0] in "23" and "Z" in choices:
        return "Z"
    return choices[-1]


@cache
def _table() -> dict[int, tuple[str, dict[str, str]]]:
    lines = _rows("confidentiality.tsv")
    header = next(lines)
    found = {}
    for line in lines:
        cells = dict(zip(header, line, strict=True))
        if "x" in cells["tag"]:  # repeating groups: walked by their numbers
            continue
        options = {code: cells[code] for code in header[3:] if cells[code] != "-"}
        found[int(cells["tag"], 16)] = (cells["basic"], options)
    return found


@cache
def safe_private() -> frozenset[tuple[int, int, str]]:
    """Group, element within its block, creator."""
    lines = _rows("safe_private.tsv")
    next(lines)
    return frozenset((int(line[0], 16), int(line[1][2:], 16), line[2]) for line in lines)


@cache
def _types() -> dict[int, dict[str, str]]:
    held = json.loads((_HERE / "types.json").read_text(encoding="utf-8"))
    found: dict[int, dict[str, str]] = {}
    for tag, each in held.items():
        if tag != "source":
            classes = {uid: kind for kind, uids in each.items() if kind != "usual" for uid in uids}
            found[int(tag, 16)] = {"usual": each["usual"], **classes}
    return found


def _rows(name: str) -> Iterator[list[str]]:
    for line in (_HERE / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.split("\t")
