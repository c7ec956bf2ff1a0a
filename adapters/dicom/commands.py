"""DIMSE command sets (PS3.7 6.3 and 9.3) of a storage door: C-STORE and C-ECHO asked, and what is answered.

Always Implicit VR Little Endian. Read here and not by pydicom: one of each comes with every object, and a data set of
some ten elements costs as much as all the rest of a small object's way.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from adapters.dicom.identity import unpadded
from models.errors import Malformed

MAX_COMMAND = 1 << 14
"""Bytes; a real one has about two hundred."""
STORE, ECHO, CANCEL = 0x0001, 0x0030, 0x0FFF
RESPONSE = 0x8000
NO_DATA_SET = 0x0101
UNRECOGNISED = 0x0211
"""Status: an operation that this door does not have (PS3.7 C.5.22)."""
_ELEMENT = struct.Struct("<HHL")


@dataclass(frozen=True, slots=True)
class Command:
    field: int
    message_id: int
    data_set: bool
    """Whether one follows."""
    sop_class: bytes = b""
    """Affected, or requested, SOP Class UID: as it stands there, without padding."""
    sop_instance: bytes = b""
    move_originator: str | None = None
    move_message_id: int | None = None


def command_of(encoded: bytes) -> Command:
    """Raises Malformed, with the byte where it stands."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        if at + 8 > len(encoded):
            raise Malformed("a command set that ends in the middle of an element", where=f"byte {at}")
        group, element, length = _ELEMENT.unpack_from(encoded, at)
        if group != 0 or at + 8 + length > len(encoded):
            raise Malformed("an element that cannot stand in a command set", where=f"byte {at}")
        found[element] = encoded[at + 8 : at + 8 + length]
        at += 8 + length
    field, kind = _short(found, 0x0100), _short(found, 0x0800)
    message = _short(found, 0x0120 if field == CANCEL or (field or 0) & RESPONSE else 0x0110)
    if field is None or kind is None or message is None:
        raise Malformed("a command set without its field, message id or data set type")
    originator = found.get(0x1030)
    return Command(
        field,
        message,
        kind != NO_DATA_SET,
        unpadded(found.get(0x0002) or found.get(0x0003) or b""),
        unpadded(found.get(0x1000) or found.get(0x1001) or b""),
        originator.decode("ascii", "replace").strip(" \0")[:16] if originator is not None else None,
        _short(found, 0x1031),
    )


def answer(command: Command, status: int, comment: str = "") -> bytes:
    """The response. `comment`: our own words, at most 64 characters (an LO)."""
    elements = []
    if 0 < len(command.sop_class) <= 64:
        elements.append(_element(0x0002, _even(command.sop_class, b"\0")))
    elements += [
        _element(0x0100, struct.pack("<H", command.field | RESPONSE)),
        _element(0x0120, struct.pack("<H", command.message_id)),
        _element(0x0800, struct.pack("<H", NO_DATA_SET)),
        _element(0x0900, struct.pack("<H", status)),
    ]
    if comment:
        elements.append(_element(0x0902, _even(comment.encode("ascii", "replace")[:64], b" ")))
    if 0 < len(command.sop_instance) <= 64:
        elements.append(_element(0x1000, _even(command.sop_instance, b"\0")))
    body = b"".join(elements)
    return _element(0x0000, struct.pack("<L", len(body))) + body


def _short(found: dict[int, bytes], element: int) -> int | None:
    value = found.get(element)
    if value is None:
        return None
    if len(value) != 2:
        raise Malformed("a number of the command set that is not of two bytes", where=f"(0000,{element:04X})")
    return int(struct.unpack("<H", value)[0])


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)
