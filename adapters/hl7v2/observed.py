"""OBX-5 by OBX-2: what was observed, as Observation.value[x].

IG: OBX[Observation], rows of OBX-5, and the datatype maps they name. Nothing is dropped and nothing guessed: what is
not of the type that it claims is kept as text, with its unit, as it was sent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from adapters.hl7v2.mapped import Cells
from adapters.hl7v2.message import Repetition, Segment
from adapters.hl7v2.oddities import NUMBER_AS_TEXT
from adapters.hl7v2.reading import Reading, Resource
from adapters.hl7v2.times import time_of_day
from adapters.hl7v2.values import mapped_concept, number_of, unit_of
from models.errors import Unreadable

ATTACHMENT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment"
"""R4 has no attachment among value[x]: R5's, as the guide names it. What is no base64 is kept as text."""
_RANGE = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*-\s*([+-]?\d+(?:\.\d+)?)\s*")
_BOUND = re.compile(r"\s*(<=?|>=?)\s*([+-]?\d+(?:\.\d+)?)\s*")
_TYPES = {
    "AP": "application", "APPLICATION": "application", "TEXT": "text", "TX": "text", "IM": "image", "IMAGE": "image",
    "AU": "audio", "AUDIO": "audio", "VIDEO": "video", "MULTIPART": "multipart",
}  # fmt: skip
_SUBTYPES = {
    "PDF": "application/pdf", "RTF": "text/rtf", "HTML": "text/html", "HTM": "text/html", "XML": "application/xml",
    "JPEG": "image/jpeg", "JPG": "image/jpeg", "PNG": "image/png", "TIFF": "image/tiff", "TIF": "image/tiff",
    "GIF": "image/gif", "DICOM": "application/dicom", "PLAIN": "text/plain", "TXT": "text/plain",
    "X-HL7-CDA-LEVEL-ONE": "application/xml",
}  # fmt: skip
_SUBTYPE = re.compile(r"[a-z0-9][a-z0-9.+\-]{0,60}")

TEXTUAL = frozenset({"ST", "TX", "FT"})
_NUMERIC = frozenset({"NM", "SN", "CQ"})


def value_of(obx: Segment, reading: Reading) -> Resource:
    """The elements that say the value; empty where there is none."""
    repetitions = [repetition for repetition in obx.field(5) if repetition]
    if not repetitions:
        return {}
    kind = obx.text(2).strip()
    if len(repetitions) > 1 and kind not in TEXTUAL:  # value[x] is one: several are kept as text
        return _text(repetitions, obx)
    made = _BY_TYPE.get(kind, _nothing)(repetitions[0], obx, reading)
    if not made and kind in _NUMERIC:
        reading.odd[NUMBER_AS_TEXT] = None
    return made or _text(repetitions, obx)


def _nothing(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    return None


def _text(repetitions: list[Repetition], obx: Segment) -> Resource:
    """As it was sent: repetitions on lines of their own; a unit, where there is one, behind."""
    words = "\n".join(repetition.whole.strip() for repetition in repetitions if repetition.whole.strip())
    unit = obx.text(6).strip() if obx.text(2).strip() not in TEXTUAL else ""
    return {"valueString": f"{words} {unit}".rstrip()} if words else {}


def _number(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """NM[Quantity]. `<5`, `1,2` and `5%` are no NM: text."""
    amount = number_of(repetition.text().strip())
    if amount is None or repetition.raw.count(obx.message.delimiters.component):
        return None
    return {"valueQuantity": {"value": amount, **unit_of(Cells(obx.first(6)), reading)}}


def _structured(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """SN: comparator, number, separator, number."""
    comparator, first, separator, second = (repetition.text(at).strip() for at in (1, 2, 3, 4))
    low, high = number_of(first), number_of(second)
    unit = unit_of(Cells(obx.first(6)), reading)
    if comparator == "<>" or separator == "+" or comparator not in ("", "=", "<", "<=", ">", ">="):
        return None
    if separator in (":", "/") and low is not None and high is not None:
        numerator: Resource = {"value": low}
        if comparator not in ("", "="):
            numerator["comparator"] = comparator
        return {"valueRatio": {"numerator": numerator, "denominator": {"value": high}}}
    if separator == "-" and low is not None and high is not None and comparator in ("", "="):
        return {"valueRange": {"low": {"value": low, **unit}, "high": {"value": high, **unit}}}
    if separator or second or low is None:
        return None
    quantity: Resource = {"value": low, **unit}
    if comparator not in ("", "="):
        quantity["comparator"] = comparator
    return {"valueQuantity": quantity}


def _amount(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """CQ[Quantity]: it has its unit itself."""
    amount = number_of(repetition.text().strip())
    if amount is None:
        return None
    unit = repetition.text(2).strip()
    own = {"unit": unit} if unit else unit_of(Cells(obx.first(6)), reading)
    return {"valueQuantity": {"value": amount, **own}}


def _concept(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    made = mapped_concept(Cells(repetition), reading)
    return {"valueCodeableConcept": made} if made else None


def _when(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """DT, DTM, TS."""
    made = reading.date_time_or_none(repetition.text().strip(), str(repetition.place()))
    return {"valueDateTime": made} if made else None


def _time(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """TM. An offset is nothing that FHIR's time could have: then it is text."""
    text = repetition.text().strip()
    if "+" in text or "-" in text:
        return None
    try:
        return {"valueTime": time_of_day(text, str(repetition.place()))}
    except Unreadable:
        return None


def _period(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """DR[Period]."""
    row = {
        name: made
        for at, name in ((1, "start"), (2, "end"))
        if (made := reading.date_time_or_none(repetition.text(at).strip(), str(repetition.place(at))))
    }
    sent = sum(bool(repetition.text(at)) for at in (1, 2))
    return {"valuePeriod": row} if row and len(row) == sent else None


def _range(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """NR[Range]."""
    unit = unit_of(Cells(obx.first(6)), reading)
    sent = [(name, repetition.text(at).strip()) for at, name in ((1, "low"), (2, "high"))]
    row = {name: {"value": made, **unit} for name, text in sent if (made := number_of(text)) is not None}
    return {"valueRange": row} if row and len(row) == sum(bool(text) for _, text in sent) else None


def _array(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    """NA[SampledData]: one row of numbers. The interval between them is not in the message, and said to be unknown."""
    numbers = [text.strip() for text in repetition.components]
    if not all(number_of(text) is not None for text in numbers):
        return None
    unknown = {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
    }
    unit = unit_of(Cells(obx.first(6)), reading)
    sampled = {"origin": {"value": 0, **unit}, "_period": unknown, "dimensions": 1, "data": " ".join(numbers)}
    return {"valueSampledData": sampled}


def _attached(repetition: Repetition, obx: Segment, reading: Reading) -> Resource | None:
    made = attachment(repetition)
    return {"extension": [{"url": ATTACHMENT, "valueAttachment": made}]} if made else None


_BY_TYPE: dict[str, Callable[[Repetition, Segment, Reading], Resource | None]] = {
    "NM": _number, "SI": _number, "SN": _structured, "CQ": _amount, "CE": _concept, "CWE": _concept, "CNE": _concept,
    "CF": _concept, "IS": _concept, "ID": _concept, "DT": _when, "DTM": _when, "TS": _when, "TM": _time, "DR": _period,
    "NR": _range, "NA": _array, "ED": _attached, "RP": _attached,
}  # fmt: skip
"""ST, TX, FT, VR and whatever else has no entry: text."""


# ---- attachments -----------------------------------------------------------------------------------------------------


def attachment(repetition: Repetition) -> Resource | None:
    """ED[Attachment], RP[Attachment]; None for what is not what it says, which then is text."""
    kind = repetition.segment.text(2).strip()
    made: Resource = {}
    if content := media_type(repetition.text(3 if kind == "RP" else 2), repetition.text(4 if kind == "RP" else 3)):
        made["contentType"] = content
    if kind == "RP":
        pointer = repetition.text(1).strip()
        if not pointer or any(character.isspace() for character in pointer):
            return None
        return {**made, "url": pointer}
    sent, encoding = repetition.component(5), repetition.text(4).strip().upper()
    data = _decoded(sent, repetition.text(5), encoding)
    return {**made, "data": data} if data else None


def _decoded(sent: str, plain: str, encoding: str) -> str | None:
    """Base64 of an ED's data. Encoding (table 0299): A is text, Hex is hex, Base64 is itself."""
    if encoding in ("A", ""):
        return base64.b64encode(plain.encode()).decode() if plain else None
    try:
        if encoding == "HEX":
            return base64.b64encode(bytes.fromhex(plain)).decode() or None
        packed = "".join((plain if "\\" in sent else sent).split())
        base64.b64decode(packed, validate=True)
        return packed or None
    except (ValueError, binascii.Error):
        return None


def media_type(kind: str, subtype: str) -> str | None:
    """The media type of ED.2 and ED.3 (tables 0191 and 0291); None where they do not say one."""
    kind, subtype = kind.strip(), subtype.strip()
    for word in (subtype, kind):
        if known := _SUBTYPES.get(word.upper()):
            return known
    main = _TYPES.get(kind.upper())
    return f"{main}/{subtype.lower()}" if main and _SUBTYPE.fullmatch(subtype.lower()) else None


# ---- ranges ----------------------------------------------------------------------------------------------------------


def reference_range(obx: Segment, reading: Reading) -> Resource | None:
    """OBX-7 as it was sent, and as numbers where it is `a-b`, `<a` or `>a`."""
    words = obx.first(7).whole.strip()
    if not words:
        return None
    made: dict[str, Any] = {"text": words}
    unit = unit_of(Cells(obx.first(6)), reading)
    if both := _RANGE.fullmatch(words):
        low, high = number_of(both[1]), number_of(both[2])
        if low is not None and high is not None and low <= high:
            made["low"], made["high"] = {"value": low, **unit}, {"value": high, **unit}
    elif (bound := _BOUND.fullmatch(words)) and (end := number_of(bound[2])) is not None:
        made["high" if bound[1].startswith("<") else "low"] = {"value": end, **unit}
    return made
