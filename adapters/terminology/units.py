"""Numbers in one unit per kind of measurement, by UCUM, in exact arithmetic.

The only door to ucumvert and pint. They answer once per pair of units, in fractions; after that a conversion is one
dictionary look-up and one multiplication.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from models.canonical import Noun

UCUM = "http://unitsofmeasure.org"
MAX_EXPONENT = 30
"""Powers of ten beyond which a number measures nothing, and would only fill memory when written out."""

_ANNOTATION = re.compile(r"\{[^{}]*\}")
MAX_UNIT = 64
"""Characters of a unit: more is no unit, and nothing longer from outside is kept in a cache."""
_ARBITRARY = frozenset({"[pH]"})
"""Units of UCUM that pint has no definition for; they convert to nothing else."""
_EXACT = Context(prec=80)
_ONE = Decimal(1)
"""Of a conversion that leaves the number alone: most do, and are told by this very object."""
_ROUNDED = Context(prec=15)
"""Digits kept where the result has no finite decimal form (Fahrenheit, thirds)."""

_table: dict[str, Any] = json.loads(Path(__file__).with_name("canonical_units.json").read_text("utf-8"))
_by_code: dict[str, str] = _table["by_code"]
_by_dimension: dict[str, str] = _table["by_dimension"]
_spellings: dict[str, str] = {key: unit for key, unit in _table["spellings"].items() if key != "scope"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """How numbers in one unit become numbers in the canonical one: value * factor + offset."""

    unit: str | None
    """UCUM; None for a pure count."""
    factor: Fraction
    offset: Fraction
    decimal_factor: Decimal | None
    """The factor, where it has a finite decimal form and there is no offset; None: go through fractions."""
    problem: str | None = None

    @property
    def same(self) -> bool:
        return self.factor == 1 and not self.offset


class Measured(Noun, frozen=True):
    """A number in canonical form, or why there is none."""

    number: str | None
    unit: str | None
    problem: str | None = None


def measured(value: Decimal | int, *, code: str | None, system: str | None, text: str | None, what: str) -> Measured:
    """A FHIR quantity in the canonical unit of what it measures.

    `code` and `system` are Quantity.code and Quantity.system, `text` is Quantity.unit, `what` is the index coding
    (`system|code`) of the observation. The number is plain decimal text without trailing zeros: 2.5 cm is `25`, `mm`.
    A unit that is unknown, missing where one is needed, or of another dimension gives a problem and no number.
    """
    exact = value if type(value) is Decimal else Decimal(value)
    if not exact.is_finite() or abs(exact.adjusted()) > MAX_EXPONENT:
        return Measured(None, None, "the number is out of any measurable range")
    if len(code or "") > MAX_UNIT or len(text or "") > MAX_UNIT or len(system or "") > MAX_UNIT:
        return Measured(None, None, "the unit is not one of UCUM")
    conversion = conversion_of(code, system, text, what if what in _by_code else "")
    if conversion.problem is not None:
        return Measured(None, None, conversion.problem)
    return Measured(_apply(conversion, exact), conversion.unit)


def plain(value: Decimal | int) -> str:
    """Decimal text without exponent and without trailing zeros: `2.50` and `25e-1` are `2.5`."""
    exact = value if type(value) is Decimal else Decimal(value)
    return format(exact.normalize(_EXACT), "f") if exact else "0"


def _apply(conversion: Conversion, value: Decimal) -> str:
    factor = conversion.decimal_factor
    if factor is not None:
        return plain(value if factor is _ONE else _EXACT.multiply(value, factor))
    result = Fraction(value) * conversion.factor + conversion.offset
    finite = _finite(result)
    return plain(finite if finite is not None else _ROUNDED.divide(Decimal(result.numerator), result.denominator))


def _finite(number: Fraction) -> Decimal | None:
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return _EXACT.divide(Decimal(number.numerator), number.denominator) if rest == 1 else None


@lru_cache(maxsize=8192)
def conversion_of(code: str | None, system: str | None, text: str | None, what: str) -> Conversion:
    """How a quantity with this unit is converted for this measurement (empty: one that is not in the table)."""
    target = _by_code.get(what)
    if code and system in (UCUM, None, ""):
        unit = _spellings.get(code, code)
    else:
        unit = _spellings.get(text or "", "")
        if not unit and (code or text):
            return _refused("the unit is not one of UCUM")
    if not unit:
        if target is not None and target != "1":
            return _refused(f"no unit is given where {target} is expected")
        return _conversion(None, Fraction(1), Fraction(0))
    if unit == target:
        return _conversion(unit, Fraction(1), Fraction(0))
    source = _parsed(unit)
    if source is None:
        return _refused("the unit is not one of UCUM")
    return _between(unit, source, target) or _refused(f"the unit does not convert to {target}")


def prepare() -> None:
    """Load the UCUM library now (about a third of a second) instead of at the first unit that needs it."""
    _registry()


def _refused(problem: str) -> Conversion:
    return Conversion(None, Fraction(1), Fraction(0), None, problem)


def _conversion(unit: str | None, factor: Fraction, offset: Fraction) -> Conversion:
    shown = None if unit is None or _bare(unit) == "1" else unit
    finite = _finite(factor) if not offset else None
    return Conversion(shown, factor, offset, _ONE if finite == _ONE else finite)


def _bare(unit: str) -> str:
    """UCUM without annotations; one that stands alone counts as 1 (UCUM 2.1, section 12)."""

    def ones(match: re.Match[str]) -> str:
        before = unit[match.start() - 1] if match.start() else "/"
        return "1" if before in "/.(" else ""

    return _ANNOTATION.sub(ones, unit)


def _between(unit: str, source: _Unit, target: str | None) -> Conversion | None:
    """None: the two are of different dimensions, or the scale is not linear."""
    if target is None:
        target = _by_dimension.get(source.dimension, unit)
    if target == unit:
        return _conversion(unit, Fraction(1), Fraction(0))
    goal = _parsed(target)
    if "{" in target or goal is None or source.dimension != goal.dimension:
        return None  # an annotation carries meaning that UCUM does not check: mL/min is not mL/min/{1.73_m2}
    quantity = _registry().Quantity
    zero, one, two = (quantity(n * source.scale, source.units).to(goal.units).magnitude / goal.scale for n in range(3))
    if two - one != one - zero:
        return None
    return _conversion(target, Fraction(one - zero), Fraction(zero))


@dataclass(frozen=True, slots=True)
class _Unit:
    units: Any
    scale: Fraction
    dimension: str


@lru_cache(maxsize=4096)
def _parsed(unit: str) -> _Unit | None:
    """What UCUM makes of a code; None if it is not one."""
    if not unit.isascii() or any(mark.isspace() for mark in unit):
        return None
    bare = _bare(unit)
    if bare == "1":
        return _Unit(_registry().dimensionless, Fraction(1), "")
    try:
        quantity = _registry().from_ucum(bare)
        return _Unit(quantity.units, Fraction(quantity.magnitude), _dimension(sorted(quantity.dimensionality.items())))
    except Exception:  # noqa: BLE001 - lark and pint raise many kinds for a text that is no unit, and share no parent
        return _Unit(None, Fraction(1), bare) if bare in _ARBITRARY else None


def _dimension(powers: list[tuple[str, Any]]) -> str:
    over = [_power(name, power) for name, power in powers if power > 0]
    under = [_power(name, -power) for name, power in powers if power < 0]
    return " / ".join([" * ".join(over) or "1", *under]) if under else " * ".join(over)


def _power(name: str, power: Any) -> str:
    return name if power == 1 else f"{name} ** {power}"


@cache
def _registry() -> Any:
    import pint  # a third of a second: `cds --help` must not pay for it
    from pint.facets.plain.registry import RegistryCache
    from ucumvert import PintUcumRegistry

    class Registry(PintUcumRegistry):  # type: ignore[misc]
        def _after_init(self) -> None:
            # Else ucumvert makes a second registry for what it parses: one of floats.
            pint.set_application_registry(self)  # type: ignore[no-untyped-call]
            super()._after_init()

        def _build_cache(self, loaded_files: Any = None) -> None:
            """Empty: filled as units are asked for, instead of for all of them, twice."""
            self._cache = RegistryCache()

    return Registry(non_int_type=Fraction)
