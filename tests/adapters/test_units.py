"""Numbers arrive in any unit and leave in one, exactly."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.terminology import units
from adapters.terminology.units import UCUM, Measured, measured, plain

LOINC = "http://loinc.org|"
SIZE, WEIGHT, HEIGHT, FEVER = "33728-7", "29463-7", "8302-2", "8310-5"


@pytest.mark.parametrize(
    ("value", "unit", "what", "number", "canonical"),
    [
        ("2.5", "cm", SIZE, "25", "mm"),
        ("2.50", "mm", SIZE, "2.5", "mm"),
        ("0.1", "cm", SIZE, "1", "mm"),
        ("900", "cm", SIZE, "9000", "mm"),
        ("1", "[in_i]", SIZE, "25.4", "mm"),
        ("3", "m", "unlisted", "3000", "mm"),
        ("155.0", "[lb_av]", WEIGHT, "70.30681735", "kg"),
        ("61500", "g", WEIGHT, "61.5", "kg"),
        ("65", "[in_i]", HEIGHT, "165.1", "cm"),
        ("1.68", "m", HEIGHT, "168", "cm"),
        ("98.6", "[degF]", FEVER, "37", "Cel"),
        ("100", "[degF]", FEVER, "37.7777777777778", "Cel"),
        ("310.15", "K", FEVER, "37", "Cel"),
        ("3", "10*9/L", "777-3", "3", "10*3/uL"),
        ("3", "K/uL", "777-3", "3", "10*3/uL"),
        ("250000", "/uL", "777-3", "250", "10*3/uL"),
        ("140", "g/L", "718-7", "14", "g/dL"),
        ("0.6", "mg/dL", "1988-5", "6", "mg/L"),
        ("140", "meq/L", "2951-2", "140", "mmol/L"),
        ("0.25", "1", "85330-9", "25", "%"),
        ("60", "%", "85330-9", "60", "%"),
        ("3", "{nodes}", "21893-3", "3", None),
        ("45", "{score}", "unlisted", "45", None),
        ("60", "mL/min/{1.73_m2}", "33914-3", "60", "mL/min/{1.73_m2}"),
        ("7.4", "pH", "unlisted", "7.4", "[pH]"),
        ("5", "pg", "unlisted", "5", "pg"),
        ("3", "IU/L", "unlisted", "3", "[IU]/L"),
    ],
)
def test_converts(value: str, unit: str, what: str, number: str, canonical: str | None) -> None:
    found = measured(Decimal(value), code=unit, system=UCUM, text=None, what=LOINC + what)
    assert found == Measured(number, canonical)


@pytest.mark.parametrize(
    ("value", "code", "system", "text", "what", "problem"),
    [
        ("2", "furlong", UCUM, None, SIZE, "the unit is not one of UCUM"),
        ("2", None, None, "fingerbreadths", SIZE, "the unit is not one of UCUM"),
        ("2", "kg", UCUM, "kg", SIZE, "the unit does not convert to mm"),
        ("2", None, None, None, SIZE, "no unit is given where mm is expected"),
        ("88", "umol/L", UCUM, None, "2160-0", "the unit does not convert to mg/dL"),
        ("60", "mL/min", UCUM, None, "33914-3", "the unit does not convert to mL/min/{1.73_m2}"),
        ("2", "258672001", "http://snomed.info/sct", "furlong", SIZE, "the unit is not one of UCUM"),
        ("1e30000000", "cm", UCUM, None, SIZE, "the number is out of any measurable range"),
        ("1e-999", "cm", UCUM, None, SIZE, "the number is out of any measurable range"),
        ("1", "c" * 100_000, UCUM, None, SIZE, "the unit is not one of UCUM"),
        ("1", "(" * 60, UCUM, None, SIZE, "the unit is not one of UCUM"),
        ("1", "mm\ncm", UCUM, None, SIZE, "the unit is not one of UCUM"),
    ],
)
def test_says_why_not(
    value: str, code: str | None, system: str | None, text: str | None, what: str, problem: str
) -> None:
    found = measured(Decimal(value), code=code, system=system, text=text, what=LOINC + what)
    assert found == Measured(None, None, problem)


def test_a_unit_in_words_counts_only_if_it_is_listed() -> None:
    assert measured(18, code=None, system=None, text="millimeters", what=LOINC + SIZE) == Measured("18", "mm")
    in_words = measured(18, code="258673006", system="http://snomed.info/sct", text="mm", what=LOINC + SIZE)
    assert in_words == Measured("18", "mm")
    assert measured(4, code=None, system=None, text=None, what=LOINC + "unlisted") == Measured("4", None)


def test_every_unit_of_the_table_is_ucum() -> None:
    table = {*units._by_code.values(), *units._by_dimension.values(), *units._spellings.values()}
    assert {unit for unit in table if units._parsed(unit) is None} == set()


def test_what_is_parsed_is_exact_too() -> None:
    """A centi-phot, as one writes it by mistake for a count an hour, once ended in an AssertionError."""
    for unit in ("cph", "m[H2O]", "[in_i'Hg]", "10*3/uL"):
        parsed = units._parsed(unit)
        assert parsed is not None
        assert parsed.units._REGISTRY is units._registry()


@given(st.decimals(min_value=Decimal("0.001"), max_value=Decimal("1e6"), places=6))
def test_there_and_back_is_exact(size: Decimal) -> None:
    found = measured(size, code="cm", system=UCUM, text=None, what=LOINC + SIZE)
    assert found.number is not None
    assert Decimal(found.number) == size * 10
    assert "E" not in found.number


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20))
def test_plain_text_keeps_the_value(number: Decimal) -> None:
    if abs(number.adjusted()) <= units.MAX_EXPONENT and len(number.as_tuple().digits) <= 80:  # beyond, it is rounded
        assert Decimal(plain(number)) == number
        assert plain(Decimal(plain(number))) == plain(number)


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_unit_text_breaks_it(code: str, text: str) -> None:
    found = measured(Decimal("1.5"), code=code, system=UCUM, text=text, what=LOINC + SIZE)
    assert (found.number is None) == (found.problem is not None)
