"""Code lists: no typing error in a code, no code that answers two questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from models import codes
from models.codes import LOINC, SCT, CodeSet, Key

VERHOEFF = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
    [3, 4, 0, 1, 2, 8, 9, 5, 6, 7], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
    [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3], [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
]  # fmt: skip
"""Multiplication of the dihedral group D5 (SNOMED CT Technical Implementation Guide, check-digit computation)."""
SPIN = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]

SETS = [member for member in vars(codes).values() if isinstance(member, CodeSet)]


def every_code() -> Iterator[Key]:
    for member in vars(codes).values():
        if isinstance(member, CodeSet):
            yield from member.codes
        elif isinstance(member, Mapping | frozenset):
            yield from (key for key in member if isinstance(key, tuple))


def snomed_checks(code: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed([int(c) for c in code])):
        for _ in range(place):
            digit = SPIN[digit]
        check = VERHOEFF[check][digit]
    return check == 0


def loinc_checks(code: str) -> bool:
    """Mod 10 of the LOINC manual; answer codes (LA) start the sum where the letters leave it."""
    number, _, check = code.removeprefix("LA").partition("-")
    doubled = sum(int(c) for c in str(int(number[::-1][::2][::-1]) * 2))
    rest = sum(int(c) for c in number[::-1][1::2])
    shift = (2 if len(number) % 2 else 5) if code.startswith("LA") else 0
    return (-(doubled + rest) + shift) % 10 == int(check)


def test_every_snomed_and_loinc_code_has_a_right_check_digit() -> None:
    found = set(every_code())
    assert len(found) > 200
    assert [code for system, code in sorted(found) if system == SCT and not snomed_checks(code)] == []
    assert [code for system, code in sorted(found) if system == LOINC and not loinc_checks(code)] == []


def test_no_code_asks_two_questions() -> None:
    for one, other in itertools.combinations(SETS, 2):
        assert not one.codes & other.codes, f"{one.name} and {other.name}"


def test_no_category_means_two_things() -> None:
    categories = (
        codes.PN_ZERO,
        codes.PN_POSITIVE,
        codes.AFTER_NEOADJUVANT,
        codes.M1,
        codes.M0,
        frozenset(codes.PT_SIZE),
    )
    for one, other in itertools.combinations(categories, 2):
        assert not one & other


def test_each_set_says_its_scope_and_its_source() -> None:
    for code_set in SETS:
        assert code_set.scope
        assert code_set.source
        assert code_set.codes
