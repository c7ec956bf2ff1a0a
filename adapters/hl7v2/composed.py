"""Composes what we send: a result as ORU^R01^ORU_R01 of version 2.5.1 (chapter 7, 7.3.1). Pure.

    MSH   who sends it to whom, UTF-8 (MSH-18)
    PID   whom it is about, by the identifiers of the receiver's own namespace
    OBR   which score (OBR-4), under which number of ours (OBR-3), final or corrected (OBR-25)
    NTE   the sentence that a person reads
    OBX   one for each number, or the reason why there is none

A correction carries OBR-3, OBX-3 and OBX-4 of what it corrects: that is what a receiver finds the earlier result by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum

from adapters.hl7v2.escapes import STANDARD, escape
from adapters.hl7v2.message import NULL
from adapters.hl7v2.times import stamp

VERSION = "2.5.1"
CHARSET = "UNICODE UTF-8"
LOCAL = "99CDS"
"""Table 0396: 99zzz is a system of the sender's own."""
MOST_ID = 20
"""Characters of MSH-10 (2.14.9.10)."""
_NUMBER = Context(prec=9)
"""Digits of a number: with point and sign within the 16 characters of NM. The record has all of them."""


class Status(StrEnum):
    """Of the whole result."""

    FINAL = "F"
    CORRECTED = "C"
    WITHDRAWN = "W"
    """It was wrong, and nothing comes in its place: OBX-11 W (table 0085), and C in OBR-25, whose table 0123 has no
    such code."""


@dataclass(frozen=True, slots=True)
class Assigner:
    """An assigning authority (HD): a name, an id with its type, or both."""

    name: str = ""
    universal_id: str = ""
    kind: str = ""

    @property
    def parts(self) -> tuple[str, str, str]:
        return (self.name, self.universal_id, self.kind)


@dataclass(frozen=True, slots=True)
class Identifier:
    """One CX of PID-3."""

    value: str
    assigner: Assigner
    kind: str = ""
    """Table 0203: MR, PI; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class Whom:
    """A patient as the receiver knows them. `identifiers`: at least one."""

    identifiers: tuple[Identifier, ...]
    family: str = ""
    given: tuple[str, ...] = ()
    birth_date: str = ""
    """As FHIR writes it: `1960`, `1960-02`, `1960-02-29`."""
    sex: str = ""
    """Table 0001: F, M, O, U; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class Code:
    code: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """One OBX: a number, a range, or a text."""

    of: Code
    number: float | None = None
    between: tuple[float, float] | None = None
    text: str | None = None
    unit: str = ""
    """UCUM; empty: none is stated."""
    sub: str = ""
    """OBX-4: which member of an output that has several."""


@dataclass(frozen=True, slots=True)
class Result:
    number: str
    """OBR-3: ours, and the same in each correction."""
    service: Code
    method: Code
    """Model and version."""
    observed: datetime
    issued: datetime
    values: tuple[Value, ...]
    sentences: tuple[str, ...] = ()
    status: Status = Status.FINAL


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a receiver wants to see in each message."""

    sending: tuple[str, str]
    """MSH-3 and MSH-4."""
    receiving: tuple[str, str]
    """MSH-5 and MSH-6."""
    processing: str = "P"
    """MSH-11, table 0103."""
    system: str = LOCAL
    """Name of our codes."""
    units: str = "UCUM"


def compose(envelope: Envelope, control_id: str, at: datetime, whom: Whom, result: Result) -> bytes:
    """The message's bytes, without a frame; the same arguments give the same bytes.

    Raises: ValueError (a control id that is no such thing, nobody named, no value): faults of ours.
    """
    if not 0 < len(control_id) <= MOST_ID or not control_id.isalnum():
        raise ValueError("a control id is 1 to 20 letters and digits")
    if not whom.identifiers or not result.values:
        raise ValueError("a result is about somebody, and says something")
    lines = [
        _header(envelope, control_id, at),
        _patient(whom),
        _request(envelope, result),
        *_notes(result),
        *(_observation(envelope, result, place, value) for place, value in enumerate(result.values, 1)),
    ]
    return "".join(f"{line}\r" for line in lines).encode("utf-8", "replace")


# ---- segments --------------------------------------------------------------------------------------------------------


def _header(envelope: Envelope, control_id: str, at: datetime) -> str:
    fields = {
        3: _text(envelope.sending[0]),
        4: _text(envelope.sending[1]),
        5: _text(envelope.receiving[0]),
        6: _text(envelope.receiving[1]),
        7: stamp(at),
        9: "ORU^R01^ORU_R01",
        10: control_id,
        11: envelope.processing,
        12: VERSION,
        18: CHARSET,
    }
    return "MSH|^~\\&|" + _joined(fields, first=3)


def _patient(whom: Whom) -> str:
    return _segment(
        "PID",
        {
            1: "1",
            3: "~".join(map(_cx, whom.identifiers)),
            5: _name(whom),
            7: whom.birth_date.replace("-", ""),
            8: whom.sex,
        },
    )


def _request(envelope: Envelope, result: Result) -> str:
    corrected = result.status is not Status.FINAL
    return _segment(
        "OBR",
        {
            1: "1",
            3: _components(result.number, envelope.sending[0]),
            4: _coded(result.service, envelope.system),
            7: stamp(result.observed),
            22: stamp(result.issued),
            25: "C" if corrected else "F",
        },
    )


def _notes(result: Result) -> Iterator[str]:
    for place, sentence in enumerate(result.sentences, 1):
        yield _segment("NTE", {1: str(place), 2: "L", 3: _text(sentence)})


def _observation(envelope: Envelope, result: Result, place: int, value: Value) -> str:
    if value.number is not None:
        kind, said = "NM", number(value.number)
    elif value.between is not None:
        low, high = map(number, value.between)
        kind, said = "SN", f"^{low}^-^{high}"
    else:
        kind, said = "ST", _text(" ".join((value.text or "").split()))
    return _segment(
        "OBX",
        {
            1: str(place),
            2: kind,
            3: _coded(value.of, envelope.system),
            4: _text(value.sub),
            5: said,
            6: _components(value.unit, "", envelope.units) if value.unit else "",
            11: result.status.value,
            14: stamp(result.observed),
            17: _coded(result.method, envelope.system),
        },
    )


# ---- fields ----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """As NM writes it: digits and a point, no exponent, nine significant digits (2.A.46)."""
    said = format(_NUMBER.create_decimal(Decimal(repr(value))), "f")
    return said.rstrip("0").rstrip(".") if "." in said else said


def _cx(identifier: Identifier) -> str:
    assigner = "&".join(map(_text, identifier.assigner.parts)).rstrip("&")
    return "^".join((_text(identifier.value), "", "", assigner, _text(identifier.kind))).rstrip("^")


def _name(whom: Whom) -> str:
    """XPN. A name that nobody told us is not left out, for the field is required: it is unspecified (table 0200, U)."""
    if not (whom.family or whom.given):
        return "^^^^^^U"
    return _components(whom.family, whom.given[0] if whom.given else "", " ".join(whom.given[1:]))


def _coded(code: Code, system: str) -> str:
    return _components(code.code, code.title, system)


def _components(*parts: str) -> str:
    return "^".join(map(_text, parts)).rstrip("^")


def _text(text: str) -> str:
    """One leaf. Two quotation marks alone would be the order to delete what the receiver has."""
    return "" if text == NULL else escape(text, STANDARD)


def _segment(name: str, fields: Mapping[int, str]) -> str:
    return f"{name}|{_joined(fields)}"


def _joined(fields: Mapping[int, str], *, first: int = 1) -> str:
    sent: Sequence[str] = [fields.get(place, "") for place in range(first, max(fields) + 1)]
    return "|".join(sent).rstrip("|")
