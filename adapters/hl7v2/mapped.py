"""Runs the mapping: rows of segments.toml and datatypes.toml, compiled once, applied to segments.

A row takes a field (each repetition of it, where the target is a list), gives it to a converter, and puts what comes
out at its element. What a row cannot say is a function: the converters in `adapters.hl7v2.values`, and the modules for
groups of segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.hl7v2.message import Repetition, Segment
from adapters.hl7v2.vocabulary import expand, load
from models.errors import Misconfigured

if TYPE_CHECKING:
    from adapters.hl7v2.reading import Reading

Resource = dict[str, Any]


class Odd:
    """What a converter gives for a value that is there and cannot be said in FHIR: a time that is none."""


ODD = Odd()
_COMPARED = 32
"""Members of a list that a new one is compared with: fields may repeat tens of thousands of times."""
_UNSAYABLE = {
    "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "error"}]
}


@dataclass(slots=True)
class Cells:
    """Components of a repetition, or sub-components of one of its components, counted from 1."""

    repetition: Repetition
    inside: int = 0

    def text(self, number: int = 1, sub: int = 1) -> str:
        """Unescaped, without white space around it; "" for nothing and for a null."""
        if not self.inside:
            return self.repetition.text(number, sub).strip()
        return self.repetition.text(self.inside, number).strip() if sub == 1 else ""

    def below(self, number: int) -> Cells:
        """The sub-components of a component; of a sub-component there is nothing below but itself."""
        return self if self.inside else Cells(self.repetition, number)

    @property
    def count(self) -> int:
        """Components that were sent; inside of one, an upper bound."""
        repetition = self.repetition
        delimiters = repetition.segment.message.delimiters
        return repetition.raw.count(delimiters.sub if self.inside else delimiters.component) + 1

    @property
    def where(self) -> str:
        return str(self.repetition.place(self.inside))


Converter = Callable[[Cells, "Rule", "Reading"], Any]


@dataclass(frozen=True, slots=True)
class Condition:
    field: int
    component: int
    test: str
    values: frozenset[str]

    def holds(self, segment: Segment) -> bool:
        found = segment.text(self.field, self.component).strip()
        match self.test:
            case "present":
                return bool(found)
            case "absent":
                return not found
            case "in":
                return found in self.values
            case _:
                return found not in self.values


@dataclass(frozen=True, slots=True)
class Rule:
    """One row, compiled."""

    at: int
    below: int
    convert: Converter | None
    path: tuple[str, ...]
    many: bool
    put: str
    put_many: bool
    constants: Mapping[str, Any]
    value: Any
    when: tuple[Condition, ...]
    unless: str
    row: Mapping[str, Any]
    """The row as it stands, for what only its converter asks (vocabulary, table, unit, ...)."""

    def get(self, name: str) -> str:
        found = self.row.get(name, "")
        return found if isinstance(found, str) else ""


_converters: dict[str, Converter] = {}


def converter(name: str) -> Callable[[Converter], Converter]:
    """Make a function known to the mapping under a name."""

    def known(function: Converter) -> Converter:
        _converters[name] = function
        return function

    return known


def apply(name: str, segment: Segment, resource: Resource, reading: Reading) -> Resource:
    """Run the map of a segment over one, into a resource that may have elements already."""
    fields = segment.fields
    count, plain = len(fields), segment.plain
    for rule in _segment_map(name):
        convert, at = rule.convert, rule.at
        if convert is None:
            if not (rule.unless and _has(resource, rule.unless)) and all(each.holds(segment) for each in rule.when):
                _set(resource, rule, rule.value)
            continue
        if at >= count or not fields[at]:
            continue
        if rule.when and not all(each.holds(segment) for each in rule.when):
            continue
        if rule.unless and _has(resource, rule.unless):
            continue
        for repetition in (Repetition(segment, at, 1, fields[at]),) if plain else segment.field(at):
            if not repetition:
                continue
            cells = Cells(repetition)
            value = convert(cells.below(rule.below) if rule.below else cells, rule, reading)
            if value is None:
                continue
            _set(resource, rule, value)
            if not rule.many:
                break
    return resource


def datatype(name: str, cells: Cells, reading: Reading) -> Resource | None:
    """Run the map of a datatype; None where nothing came of it."""
    made: Resource = {}
    for rule in _datatype_map(name):
        if rule.convert is None:
            continue
        inner = _inner(cells, rule.at, rule.below)
        value = rule.convert(inner, rule, reading) if inner is not None else None
        if value is not None:
            _set(made, rule, value)
    return made or None


@dataclass(slots=True)
class _Sub(Cells):
    """One sub-component, as if it were a component."""

    only: int = 0

    def text(self, number: int = 1, sub: int = 1) -> str:
        return self.repetition.text(self.inside, self.only).strip() if number == sub == 1 else ""

    def below(self, number: int) -> Cells:
        return self


def _inner(cells: Cells, number: int, sub: int) -> Cells | None:
    """What a row of a datatype means by its place: 0 the whole, else a component, or a sub-component of one."""
    if not number:
        return cells
    if cells.inside:
        return _Sub(cells.repetition, cells.inside, number) if sub <= 1 else None
    return _Sub(cells.repetition, number, sub) if sub else Cells(cells.repetition, number)


def _set(target: Resource, rule: Rule, value: Any) -> None:
    node = target
    for name in rule.path[:-1]:
        if name.endswith("[]"):  # of a list in the middle of a path the last one is meant
            row = node.setdefault(name[:-2], [])
            if not row:
                row.append({})
            node = row[-1]
        else:
            node = node.setdefault(name, {})
    last = rule.path[-1]
    if value is ODD:
        if not rule.put and not rule.many:
            node[f"_{last}"] = _UNSAYABLE
        return
    if rule.put:
        value = {**rule.constants, rule.put: [value] if rule.put_many else value}
    elif rule.constants and isinstance(value, dict):
        value = {**rule.constants, **value}
    if rule.many:
        row = node.setdefault(last, [])
        if len(row) >= _COMPARED or value not in row:
            row.append(value)
    else:
        node[last] = value


def _has(resource: Resource, what: str) -> bool:
    if what in ("PLAC", "FILL"):
        return any(
            coding.get("code") == what
            for identifier in resource.get("identifier", ())
            for coding in identifier.get("type", {}).get("coding", ())
        )
    return what in resource


# ---- compiling -------------------------------------------------------------------------------------------------------


def _compiled(row: Mapping[str, Any]) -> Rule:
    at, _, below = str(row.get("at", "0")).partition(".")
    convert: Converter | None = None
    if "as" in row:
        name = row["as"]
        convert = _converters.get(name)
        if convert is None and name in _DATATYPES:
            convert = _by_datatype(name)
        if convert is None:
            raise Misconfigured(f"the mapping names the converter {name}, which it does not have")
    path = row["to"].split(".")
    many = path[-1].endswith("[]")
    path[-1] = path[-1].removesuffix("[]")
    put = str(row.get("put", ""))
    return Rule(
        at=int(at),
        below=int(below or 0),
        convert=convert,
        path=tuple(path),
        many=many,
        put=put.removesuffix("[]"),
        put_many=put.endswith("[]"),
        constants=expand(row.get("with", {})),
        value=expand(row.get("value")),
        when=tuple(_condition(text) for text in row.get("when", ())),
        unless=str(row.get("unless", "")),
        row=row,
    )


def _by_datatype(name: str) -> Converter:
    def convert(cells: Cells, rule: Rule, reading: Reading) -> Any:
        return datatype(name, cells, reading)

    return convert


def _condition(text: str) -> Condition:
    """`45 absent`, `2 = P`, `2 not P`, `3.3 in A B`, `19 not in CA OB`."""
    at, test, *values = text.split()
    field, _, component = at.partition(".")
    test = {"=": "in"}.get(test, test)
    if values[:1] == ["in"]:
        values = values[1:]
    return Condition(int(field), int(component or 1), test, frozenset(values))


_SEGMENTS = load("segments")
_DATATYPES = load("datatypes")
_compiled_maps: dict[str, tuple[Rule, ...]] = {}


def rows(name: str) -> list[Mapping[str, Any]]:
    """The rows of a segment's map, as they stand in segments.toml."""
    found: list[Mapping[str, Any]] = _SEGMENTS[name]["rules"]
    return found


def _segment_map(name: str) -> tuple[Rule, ...]:
    return _map(name, _SEGMENTS)


def _datatype_map(name: str) -> tuple[Rule, ...]:
    return _map(name, _DATATYPES)


def _map(name: str, tables: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Compiled at the first use: the converters are known by then."""
    found = _compiled_maps.get(name)
    if found is None:
        if name not in tables:
            raise Misconfigured(f"the mapping has no map {name}")
        found = _compiled_maps[name] = tuple(map(_compiled, tables[name]["rules"]))
    return found
