"""The file that holds a received object: a preamble, `DICM`, the file meta group (PS3.10 7.1), then the data set.

The data set's bytes are those of the wire. The meta group is written by one rule from the object's own UIDs and the
transfer syntax, and names neither a peer nor a time nor our release: the same object is always the same file.
"""

from __future__ import annotations

import struct

from models.errors import Malformed

MEDIA_TYPE = "application/dicom"
"""Of a part that is a Part 10 file (RFC 3240)."""
IMPLEMENTATION = "2.25.138590618959418774801405096443153794148"
"""Implementation Class UID: ours, made of a random UUID (PS3.5 B.2)."""
_PREAMBLE = bytes(128) + b"DICM"
_LENGTH = struct.Struct("<HH2sHL")


def head(sop_class: bytes, sop_instance: bytes, syntax: bytes) -> bytes:
    """All that comes before the data set."""
    group = _element(1, b"OB", b"\0\1") + b"".join(
        _element(number, b"UI", uid)
        for number, uid in ((2, sop_class), (3, sop_instance), (0x10, syntax), (0x12, IMPLEMENTATION.encode()))
    )
    return _PREAMBLE + _LENGTH.pack(2, 0, b"UL", 4, len(group)) + group


def data_set_at(file: bytes) -> int:
    """Where the data set begins in a file that `head` began. Raises Malformed."""
    if file[128:132] != b"DICM" or len(file) < 144:
        raise Malformed("no Part 10 file", where="byte 128")
    group, element, vr, _, length = _LENGTH.unpack(file[132:144])
    if (group, element, vr) != (2, 0, b"UL"):
        raise Malformed("no file meta group", where="byte 132")
    return 144 + int(length)


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    length = struct.pack("<HL", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH2s", 2, number, vr) + length + value
