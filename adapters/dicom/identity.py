"""Who an object says it is: SOP Class UID and SOP Instance UID, from the first bytes of a data set.

Nothing else is understood, nothing is decoded, and no more is held than it takes to come to (0008,0018): a receiver
compares the two with what the command said (PS3.4 B.2.3) while the rest of the object still travels.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from models.errors import Malformed

IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95"})
"""Deflated Explicit VR Little Endian, and JPIP Referenced Deflate: the whole data set is deflated (PS3.5 A.5)."""
LIMIT = 1 << 20
"""Bytes in which the two stand, or never: nothing long comes before them."""
FIRST = 256
DEPTH = 64
"""Of sequences of undefined length before the two (Language Code Sequence, (0008,0006)): real ones have one."""

_CLASS, _INSTANCE = (0x0008, 0x0016), (0x0008, 0x0018)
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations with a length of four bytes (PS3.5 7.1.2)."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_UID = re.compile(rb"[0-9A-Za-z._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Identity:
    sop_class: bytes
    sop_instance: bytes


def plausible(uid: bytes) -> bool:
    """Whether it may stand for a UID: 1 to 64 characters (PS3.5 9.1) that mean nothing to a file system or a log.

    Letters are let through: archives hold objects with hexadecimal UIDs, and losing one would not mend it.
    """
    return _UID.fullmatch(uid) is not None


def unpadded(value: bytes) -> bytes:
    """Without the padding to even length: NUL (PS3.5 6.2), or the blanks that some write."""
    return value.rstrip(b"\0 ")


class IdentitySearch:
    """Fed with a data set from its beginning, in pieces of any size, until `found` or until it raises."""

    def __init__(self, syntax: str) -> None:
        self._inflate = zlib.decompressobj(-15) if syntax in DEFLATED else None
        self._implicit = syntax == IMPLICIT
        self._order = ">" if syntax == BIG_ENDIAN else "<"
        self._head = bytearray()
        self._next = FIRST
        self.found: Identity | None = None

    def feed(self, data: bytes, *, last: bool = False) -> Identity | None:
        """None: more is needed. Raises Malformed where the two cannot be found; never with a value in its text."""
        if self.found is not None:
            return self.found
        if self._inflate is not None:
            try:
                data = self._inflate.decompress(data, LIMIT)
            except zlib.error:
                raise Malformed("the data set is not deflated, as its transfer syntax says") from None
        rest = memoryview(data)
        while self.found is None:
            wanted = min(self._next, LIMIT + 1) - len(self._head)
            self._head += rest[:wanted]
            rest = rest[wanted:]
            over = last and not rest
            if len(self._head) < min(self._next, LIMIT + 1) and not over:
                return None
            self._next = 2 * len(self._head)  # so that a byte at a time costs no more than everything at once
            self.found = self._walk(bytes(self._head))
            if self.found is None and (over or len(self._head) > LIMIT):
                raise Malformed("the data set ends before (0008,0018)" if over else "(0008,0018) stands too far behind")
        self._head.clear()
        return self.found

    def _walk(self, head: bytes) -> Identity | None:
        """One pass from the beginning. None where the bytes end first."""
        tags, shorts = struct.Struct(self._order + "HH"), struct.Struct(self._order + "H")
        longs = struct.Struct(self._order + "L")
        seen: dict[tuple[int, int], bytes] = {}
        at, depth = 0, 0
        unknown = 0
        """Depth at which a UN of undefined length began: inside, everything is implicit (PS3.5 6.2.2)."""
        while at + 8 <= len(head):
            tag = tags.unpack_from(head, at)
            where = f"byte {at}"
            if tag[0] == 0xFFFE:
                if not depth:
                    raise Malformed("an item outside a sequence", where=where)
                length = longs.unpack_from(head, at + 4)[0]
                at += 8
                if tag[1] == _ITEM:
                    if length == _UNDEFINED:
                        depth += 1
                    else:
                        at += length
                elif tag[1] in (_ITEM_END, _SEQUENCE_END):
                    depth -= 1
                    unknown = 0 if depth < unknown else unknown
                else:
                    raise Malformed("neither an item nor its end", where=where)
            else:
                if not depth and tag[0] > 0x0008:
                    raise Malformed("the data set has no (0008,0016) and (0008,0018)")
                if self._implicit or unknown:
                    length, start, vr = longs.unpack_from(head, at + 4)[0], at + 8, b""
                else:
                    vr = head[at + 4 : at + 6]
                    if not (vr.isalpha() and vr.isupper()):
                        raise Malformed("no value representation where one must stand", where=where)
                    if vr in _LONG:
                        if at + 12 > len(head):
                            return None
                        length, start = longs.unpack_from(head, at + 8)[0], at + 12
                    else:
                        length, start = shorts.unpack_from(head, at + 6)[0], at + 8
                at = start
                if length == _UNDEFINED:
                    if vr not in (b"SQ", b"UN", b""):
                        raise Malformed("a value of undefined length that is no sequence", where=where)
                    depth += 1
                    unknown = depth if vr == b"UN" and not unknown else unknown
                else:
                    at += length
                    if not depth and tag in (_CLASS, _INSTANCE):
                        if at > len(head):
                            return None
                        seen[tag] = unpadded(head[start:at])
                        if len(seen) == 2:
                            return Identity(seen[_CLASS], seen[_INSTANCE])
            if depth > DEPTH:
                raise Malformed("sequences too deep to come to (0008,0018)", where=where)
        return None
