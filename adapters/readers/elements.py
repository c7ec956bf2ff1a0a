"""The FHIR datatypes that facts are taken from, read with care: a wrong type is Unreadable, at its JSON pointer.

Nothing here quotes what it read. An object is a dict and a list a list, as `models.strict.loads` gives them: asking for
the abstract Mapping at every element was a twentieth of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from adapters.terminology.codings import ABSENT, UNCODED, in_index_order
from adapters.terminology.units import measured, plain
from models.canonical import Noun
from models.errors import Unreadable
from models.nouns import Coding

_NO_VALUE = frozenset((
    "resourceType", "id", "meta", "text", "identifier", "status", "category", "code", "subject", "focus", "encounter",
    "effectiveDateTime", "issued", "performer", "interpretation", "note", "bodySite", "method", "specimen",
    "referenceRange", "component",
))  # fmt: skip
"""Elements that an Observation often has and that are no value[x]: one look-up tells, without reading the name."""
_COMPARATORS = frozenset(("<", "<=", ">=", ">"))
_NO_ANSWER = (ABSENT, UNCODED)
"""Code systems of what stands where an answer would, and is none."""
_ABSENT_EXTENSION = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


class Value(Noun, frozen=True):
    """A value as a Fact carries it: at most one of number, coded, text."""

    number: str | None = None
    unit: str | None = None
    comparator: str | None = None
    coded: tuple[Coding, ...] = ()
    text: str | None = None
    original: str | None = None
    problem: str | None = None
    absent: str | None = None


NOTHING = Value()


def text(parent: Mapping[str, Any], name: str, at: str) -> str | None:
    """A string, code, date or uri; empty text is no text."""
    member = parent.get(name)
    if member is None or type(member) is str:
        return member or None
    raise Unreadable("text is expected", where=f"{at}/{name}")


def member(parent: Mapping[str, Any], name: str, at: str) -> Mapping[str, Any] | None:
    """An object."""
    found = parent.get(name)
    if found is None or isinstance(found, dict):
        return found
    raise Unreadable("an object is expected", where=f"{at}/{name}")


def members(parent: Mapping[str, Any], name: str, at: str) -> list[Mapping[str, Any]]:
    """A list of objects."""
    found = parent.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Unreadable("a list is expected", where=f"{at}/{name}")
    for index, one in enumerate(found):
        if not isinstance(one, dict):
            raise Unreadable("an object is expected", where=f"{at}/{name}/{index}")
    return found


def codings(concept: Mapping[str, Any] | None, at: str) -> tuple[Coding, ...]:
    """The codings of a CodeableConcept, index coding first; those without a code are left out.

    A concept with words only becomes the null flavor UNC (un-encoded) with the words as display, so that nobody's free
    text ever serves as a code.
    """
    if concept is None:
        return ()
    found = []
    for index, one in enumerate(members(concept, "coding", at)):
        code, system, display = one.get("code"), one.get("system"), one.get("display")
        if not (type(code) is type(system) is str and (display is None or type(display) is str)):
            here = f"{at}/coding/{index}"
            code, system, display = text(one, "code", here), text(one, "system", here) or "", text(one, "display", here)
        if code:
            found.append(Coding(system, code, display))
    if found:
        return in_index_order(found)
    words = text(concept, "text", at)
    return (Coding(UNCODED, "UNC", words),) if words else ()


def codings_of(parent: Mapping[str, Any], name: str, at: str) -> tuple[Coding, ...]:
    """The codings of a member that is a CodeableConcept."""
    found = parent.get(name)
    if found is None:
        return ()
    if not isinstance(found, dict):
        raise Unreadable("an object is expected", where=f"{at}/{name}")
    row = found.get("coding")
    if type(row) is list and len(row) == 1 and type(only := row[0]) is dict:  # nearly every one there is
        code, system, display = only.get("code"), only.get("system"), only.get("display")
        if code and type(code) is str and type(system) is str and (display is None or type(display) is str):
            return (Coding(system, code, display),)
    return codings(found, f"{at}/{name}")


def all_codings(parent: Mapping[str, Any], name: str, at: str) -> tuple[Coding, ...]:
    """The codings of a list of CodeableConcepts, in one row."""
    row: list[Coding] = []
    for index, concept in enumerate(members(parent, name, at)):
        row += codings(concept, f"{at}/{name}/{index}")
    return tuple(dict.fromkeys(row))


def reference(parent: Mapping[str, Any], name: str, at: str) -> str | None:
    """`Type/id` of a Reference, without its version; other references as they stand."""
    found = member(parent, name, at)
    if found is None:
        return None
    literal = text(found, "reference", f"{at}/{name}")
    return literal.split("/_history/")[0] if literal else None


def references(parent: Mapping[str, Any], name: str, at: str) -> tuple[str, ...]:
    """`Type/id` of each Reference of a list that has a literal one, without its version."""
    found = parent.get(name)
    if found is None:
        return ()
    if type(found) is list and len(found) == 1 and type(only := found[0]) is dict:  # nearly every one there is
        literal = only.get("reference")
        if type(literal) is str and literal:
            return (literal.split("/_history/")[0],)
    row = []
    for index, one in enumerate(members(parent, name, at)):
        if literal := text(one, "reference", f"{at}/{name}/{index}"):
            row.append(literal.split("/_history/")[0])
    return tuple(row)


def times(parent: Mapping[str, Any], prefix: str, at: str) -> tuple[str | None, str | None]:
    """Start and end of `prefix`DateTime, `prefix`Instant or `prefix`Period; of an age or a text: none."""
    moment = parent.get(prefix + "DateTime")
    if type(moment) is str:
        return moment or None, None
    for suffix in ("DateTime", "Instant"):
        if prefix + suffix in parent:
            return text(parent, prefix + suffix, at), None
    return period(parent, prefix + "Period", at)


def period(parent: Mapping[str, Any], name: str, at: str) -> tuple[str | None, str | None]:
    found = member(parent, name, at)
    if found is None:
        return None, None
    return text(found, "start", f"{at}/{name}"), text(found, "end", f"{at}/{name}")


def value(parent: Mapping[str, Any], what: Coding, at: str) -> Value:
    """value[x] of an Observation or of one of its components; `what` is the index coding that it is a value of.

    Quantity and integer give a number in the canonical unit, CodeableConcept codings, string, time, boolean (`true`,
    `false`) and dateTime text. Range, Ratio, Period and SampledData are not one number: they give their text, with a
    problem. A reason why there is no value is read from dataAbsentReason, from the data-absent-reason extension of a
    primitive, and from a CodeableConcept that carries one as if it were an answer (mCODE's example of pM does).
    """
    name = None
    for key in parent:
        if key not in _NO_VALUE and key.startswith("value"):
            if name is not None:
                raise Unreadable("more than one value", where=f"{at}/{key}")
            name = key
    if name is None:
        return _absent(parent, at)
    if name == "valueQuantity":
        return quantity(member(parent, name, at) or {}, what, f"{at}/{name}")
    if name == "valueCodeableConcept":
        return _concept(parent, name, at)
    if name == "valueInteger":
        return _integer(parent[name], what, f"{at}/{name}")
    if name in ("valueString", "valueTime", "valueDateTime"):
        words = text(parent, name, at)
        return Value(text=words, original=words) if words else _absent(parent, at)
    if name == "valueBoolean":
        if type(parent[name]) is not bool:
            raise Unreadable("true or false is expected", where=f"{at}/{name}")
        return Value(text="true" if parent[name] else "false", original="true" if parent[name] else "false")
    return _several(member(parent, name, at) or {}, name, f"{at}/{name}")


def quantity(found: Mapping[str, Any], what: Coding, at: str) -> Value:
    """A Quantity in the canonical unit of `what`; `original` is what stood there."""
    amount = found.get("value")
    if amount is None:
        return NOTHING
    if type(amount) is not Decimal and type(amount) is not int:
        raise Unreadable("a number is expected", where=f"{at}/value")
    code, unit, system, comparator = found.get("code"), found.get("unit"), found.get("system"), None
    if not (type(code) is type(unit) is type(system) is str):
        code, unit, system = text(found, "code", at), text(found, "unit", at), text(found, "system", at)
    original = f"{amount} {unit or code or ''}".rstrip()
    if "comparator" in found and (comparator := text(found, "comparator", at)) is not None:
        if comparator not in _COMPARATORS:
            raise Unreadable("a comparator that FHIR does not have", where=f"{at}/comparator")
        original = comparator + original
    result = measured(amount, code=code, system=system, text=unit, what=what.token)
    return Value(result.number, result.unit, comparator, (), None, original, result.problem)


def _integer(amount: Any, what: Coding, at: str) -> Value:
    if type(amount) is not int:
        raise Unreadable("a whole number is expected", where=at)
    result = measured(amount, code="1", system=None, text=None, what=what.token)
    return Value(result.number, result.unit, original=str(amount), problem=result.problem)


def _concept(parent: Mapping[str, Any], name: str, at: str) -> Value:
    found = codings_of(parent, name, at)
    concept = parent[name] or {}
    words = text(concept, "text", f"{at}/{name}") if "text" in concept else None
    if len(found) == 1 and found[0].system not in _NO_ANSWER:
        return Value(None, None, None, found, None, words or found[0].display or None)
    original = words or next((coding.display for coding in found if coding.display), None)
    answers = tuple(coding for coding in found if coding.system not in _NO_ANSWER)
    if answers:
        return Value(coded=answers, original=original)
    absent = next((coding.code for coding in found if coding.system == ABSENT), None)
    return Value(text=words if absent is None else None, original=original, absent=absent)


def _absent(parent: Mapping[str, Any], at: str) -> Value:
    reasons = codings_of(parent, "dataAbsentReason", at)
    if reasons:
        return Value(absent=reasons[0].code, original=reasons[0].display if reasons[0].code == "UNC" else None)
    for key in parent:
        if key.startswith("_value"):
            for extension in members(member(parent, key, at) or {}, "extension", f"{at}/{key}"):
                if extension.get("url") == _ABSENT_EXTENSION:
                    return Value(absent=text(extension, "valueCode", f"{at}/{key}"))
    return NOTHING


def _several(found: Mapping[str, Any], name: str, at: str) -> Value:
    """What is not one number, as text."""
    match name:
        case "valueRange":
            words = " - ".join(_amount(found, end, at) for end in ("low", "high"))
        case "valueRatio":
            words = " : ".join(_amount(found, part, at) for part in ("numerator", "denominator"))
        case "valuePeriod":
            words = " - ".join(text(found, end, at) or "" for end in ("start", "end"))
        case "valueSampledData":
            return Value(problem="sampled data stay in the resource")
        case _:
            return Value(problem="a kind of value that R4 observations do not have")
    return Value(text=words, original=words, problem=f"a {name[5:].lower()} is not one number")


def _amount(found: Mapping[str, Any], name: str, at: str) -> str:
    one = member(found, name, at)
    if one is None or one.get("value") is None:
        return ""
    amount = one["value"]
    if type(amount) is not Decimal and type(amount) is not int:
        raise Unreadable("a number is expected", where=f"{at}/{name}/value")
    at = f"{at}/{name}"
    unit = text(one, "unit", at) or text(one, "code", at) or ""
    return f"{text(one, 'comparator', at) or ''}{amount} {unit}".rstrip()


def age(found: Mapping[str, Any] | None, at: str) -> str | None:
    """An Age as text: `69 a`."""
    if found is None or found.get("value") is None:
        return None
    amount = found["value"]
    if type(amount) is not Decimal and type(amount) is not int:
        raise Unreadable("a number is expected", where=f"{at}/value")
    unit = text(found, "code", at) or text(found, "unit", at)
    return f"{plain(amount)} {unit}" if unit and abs(Decimal(amount).adjusted()) < 6 else None
