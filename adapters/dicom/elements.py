"""The elements of a DICOM Part 10 file (PS3.10 7.1, PS3.5 7), walked without trusting any length that stands in it.

pydicom builds an object for each element and reads what it is told to; an index of 20,000 instances wants a few dozen
elements of each, and a hostile file wants memory. So this walks the bytes, keeps the elements that were asked for as
they stand, and refuses what is over a limit. pydicom gives the dictionary; `test_dicom_elements.py` holds the two
against each other on every file that there is. What is wrong and harmless is read: group lengths that do not fit, an
explicit syntax written implicitly or the other way round, unknown VRs, elements out of order.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeVar

from pydicom._dicom_dict import DicomDictionary

from adapters.dicom.values import Dataset, Element, place
from models.errors import Malformed, TooLarge

PREAMBLE = 128
MAX_HEADER = 64 << 20
"""Bytes (inflated, for the deflated syntax) that are looked at before the pixels. More is refused."""
MAX_DEPTH = 32
MAX_ELEMENTS = 1_000_000

IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
"""Deflated Explicit VR Little Endian. Deflated image frames (1.2.8.1) deflate the frames only."""
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

T = TypeVar("T")

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS")
) | {b"ST", b"TM", b"UI", b"UL", b"US"}
_FRAGMENTS = frozenset((b"OB", b"OW", b"OV"))
_FIRST_READ = 1 << 16


class File(NamedTuple):
    """A Part 10 file, as far as it was asked for."""

    syntax: str
    """Transfer syntax UID, as (0002,0010) says it."""
    meta: Dataset
    data: Dataset
    pixels: int | None
    """Byte offset of the pixel element in the file (deflated: in what was inflated); None: there is none."""
    explicit: bool = True
    """Whether its VR stands there, as it was found."""


class _More(Exception):
    """The bytes at hand end before what is to be read does, and there are more."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end


def parse(
    source: bytes | BinaryIO,
    *,
    keep: frozenset[int] | None = None,
    inside: frozenset[int] | None = None,
    limit: int = MAX_HEADER,
) -> File:
    """The elements of a Part 10 file up to its pixels. `keep`: tags of the data set to keep; `inside`: those to keep in
    the items of its sequences; None: all. A stream is read from where it stands, and no further than needed.

    Raises: Malformed (no Part 10 file, truncated, nested deeper than 32, lengths that leave their sequence), TooLarge
    (over `limit` bytes or a million elements), with tag and byte offset.
    """
    window = _Window(source, limit)
    window.need(PREAMBLE + 4)
    if window.buf[PREAMBLE : PREAMBLE + 4] != b"DICM":
        raise Malformed("not a DICOM file: no DICM after the preamble", where=f"byte {PREAMBLE}")
    syntax, meta, start = _retried(window, _meta)
    if not syntax:
        raise Malformed("no transfer syntax", where="(0002,0010)")
    if syntax == DEFLATED:
        window, start = window.inflated(start), 0

    def data_set(window: _Window) -> File:
        walk = _Walk(window, syntax, start, inside)
        data = walk.top(start, keep)
        return File(syntax, meta, data, walk.pixels, walk.explicit)

    return _retried(window, data_set)


def inflated(source: BinaryIO, limit: int) -> bytes:
    """The data set of a file in the deflated syntax, as far as `limit` bytes. Raises: Malformed, TooLarge."""
    window = _Window(source, limit)
    window.need(PREAMBLE + 4)
    _, _, start = _retried(window, _meta)
    found = window.inflated(start)
    while not found.complete:
        if len(found.buf) >= limit:
            raise TooLarge(f"more than {limit} bytes when inflated")
        found.need(min(2 * len(found.buf) + 1, limit))
    return found.buf


def _retried(window: _Window, act: Callable[[_Window], T]) -> T:
    """Do it again with twice as many bytes until they suffice."""
    while True:
        try:
            return act(window)
        except _More as more:
            window.need(more.end)


def _meta(window: _Window) -> tuple[str, Dataset, int]:
    """Group 2, which is explicit little endian whatever follows. Its group length (0002,0000) is often wrong: the group
    ends where another begins."""
    walk = _Walk(window, "1.2.840.10008.1.2.1", PREAMBLE + 4, None)
    meta = walk.top(PREAMBLE + 4, None, group=2)
    return meta.text(0x00020010), meta, walk.end


# ---- the bytes -------------------------------------------------------------------------------------------------------


class _Window:
    """As much of the source as was needed so far."""

    def __init__(self, source: bytes | BinaryIO, limit: int) -> None:
        self._limit = limit
        self._stream: Callable[[int], bytes] | None = None
        self.buf = b""
        if isinstance(source, bytes | bytearray | memoryview):
            self.buf = bytes(source)
        else:
            self._stream = source.read
            self._read(_FIRST_READ)

    @property
    def complete(self) -> bool:
        return self._stream is None

    def need(self, end: int) -> None:
        """Have the bytes up to `end`, or all there are."""
        if len(self.buf) < end and self._stream is not None:
            if end > self._limit:
                raise TooLarge(f"more than {self._limit} bytes before the pixels")
            self._read(min(max(end, 2 * len(self.buf)), self._limit) - len(self.buf))

    def _read(self, size: int) -> None:
        pieces = [self.buf]
        while size > 0 and self._stream is not None:
            piece = self._stream(size)
            if not piece:
                self._stream = None
            pieces.append(piece)
            size -= len(piece)
        self.buf = b"".join(pieces)

    def inflated(self, start: int) -> _Window:
        """What is deflated from `start` on (PS3.5 A.5: a raw deflate stream)."""
        return _Window(_Inflater(self.buf[start:], self._stream), self._limit)  # type: ignore[arg-type]


class _Inflater:
    """A stream of what was deflated; never more at a time than was asked for."""

    def __init__(self, head: bytes, more: Callable[[int], bytes] | None) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._waiting = head
        self._more = more

    def read(self, size: int) -> bytes:
        try:
            while not self._inflate.eof:
                if not self._waiting and self._more is not None:
                    self._waiting = self._more(_FIRST_READ)
                if not self._waiting:
                    return self._inflate.decompress(b"", size)
                found = self._inflate.decompress(self._waiting, size)
                self._waiting = self._inflate.unconsumed_tail
                if found:
                    return found
        except zlib.error:
            raise Malformed("what the deflated transfer syntax holds cannot be inflated") from None
        return b""


# ---- the walk --------------------------------------------------------------------------------------------------------


def _of(tag: int) -> str:
    """The tag, if the dictionary has it: in damaged files a tag may be four letters of somebody's name."""
    return place(tag) if tag in DicomDictionary else "(a private or unknown element)"


class _Walk:
    """One walk over the bytes at hand."""

    def __init__(self, window: _Window, syntax: str, start: int, inside: frozenset[int] | None) -> None:
        self.buf = window.buf
        self.complete = window.complete
        self.inside = inside
        self.count = 0
        self.end = start
        self.pixels: int | None = None
        order = ">" if syntax == BIG_ENDIAN else "<"
        self.little = order == "<"
        self.tag_and_vr = struct.Struct(order + "HH2sH").unpack_from
        self.tag_and_length = struct.Struct(order + "HHL").unpack_from
        self.length = struct.Struct(order + "L").unpack_from
        self.explicit = syntax != IMPLICIT
        vr = self.buf[start + 4 : start + 6]
        if len(vr) == 2:  # what stands there wins over what the syntax claims
            self.explicit = vr in _SHORT or vr in _LONG or (self.explicit and vr.isalpha() and vr.isupper())

    def top(self, pos: int, keep: frozenset[int] | None, group: int | None = None) -> Dataset:
        """The data set itself, to its pixels or its end; or the elements of one group only."""
        data = Dataset(self.little)
        found = data.elements
        while True:
            left = len(self.buf) - pos
            if left < 8:
                if not self.complete:
                    raise _More(pos + 12)
                if left and any(self.buf[pos:]):
                    raise Malformed("the file is cut off inside an element", where=f"byte {pos}")
                break
            begin = pos
            tag, vr, length, pos = self.head(pos, None)
            if group is not None and tag >> 16 != group:
                pos = begin
                break
            if tag in PIXELS:
                self.pixels = pos = begin
                break
            if tag >> 16 == 0xFFFE:
                raise Malformed("an item outside a sequence", where=f"byte {begin}")
            wanted = keep is None or tag in keep
            element, pos = self.value(tag, vr, length, pos, None, 0, wanted)
            if element is not None:
                found.setdefault(tag, element)
        self.end = pos
        return data

    def head(self, pos: int, end: int | None) -> tuple[int, bytes, int, int]:
        """Tag, VR, declared length, and where the value begins."""
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise TooLarge(f"more than {MAX_ELEMENTS} elements")
        self.reach(pos, 8, end, 0)
        if self.explicit:
            group, number, vr, length = self.tag_and_vr(self.buf, pos)
            tag = group << 16 | number
            if vr in _SHORT:
                return tag, vr, length, pos + 8
            if group == 0xFFFE:
                return tag, b"", self.length(self.buf, pos + 4)[0], pos + 8
            if vr in _LONG or (vr.isalpha() and vr.isupper()):  # PS3.5 6.2: an unknown VR has the long form
                self.reach(pos, 12, end, tag)
                return tag, vr, self.length(self.buf, pos + 8)[0], pos + 12
        group, number, length = self.tag_and_length(self.buf, pos)
        tag = group << 16 | number
        entry = DicomDictionary.get(tag)
        return tag, entry[0][:2].encode() if entry else b"UN", length, pos + 8

    def reach(self, pos: int, size: int, end: int | None, tag: int) -> None:
        """Check that `size` bytes are there, in what they belong to."""
        if end is not None and pos + size > end:
            raise Malformed("an element goes beyond what holds it", where=f"{_of(tag)}, byte {pos}")
        if pos + size > len(self.buf):
            if not self.complete:
                raise _More(pos + size)
            raise Malformed("an element goes beyond the end of the file", where=f"{_of(tag)}, byte {pos}")

    def value(
        self, tag: int, vr: bytes, length: int, pos: int, end: int | None, depth: int, wanted: bool
    ) -> tuple[Element | None, int]:
        """The value, and where the next element begins."""
        if length == _UNDEFINED:
            if vr in _FRAGMENTS:
                return None, self.fragments(pos, end, tag)
            return self.sequence(tag, pos, end, None, depth, wanted, implicit=vr == b"UN")
        self.reach(pos, length, end, tag)
        after = pos + length
        if not wanted:
            return None, after
        if vr == b"SQ":
            return self.sequence(tag, pos, after, after, depth, wanted)
        if vr == b"UN" and length and (entry := DicomDictionary.get(tag)) is not None:
            if entry[0] == "SQ":  # PS3.5 6.2.2: implicit little endian, whatever is around it
                return self.sequence(tag, pos, after, after, depth, wanted, implicit=True)
            vr = entry[0][:2].encode()
        return Element(vr.decode("latin-1"), self.buf[pos:after]), after

    def fragments(self, pos: int, end: int | None, tag: int) -> int:
        """Skip encapsulated data (PS3.5 A.4)."""
        while True:
            self.reach(pos, 8, end, tag)
            group, number, length = self.tag_and_length(self.buf, pos)
            here = group << 16 | number
            pos += 8
            if here == _SEQUENCE_END:
                return pos
            if here != _ITEM or length == _UNDEFINED:
                raise Malformed("encapsulated data without its items", where=f"{_of(tag)}, byte {pos - 8}")
            self.reach(pos, length, end, tag)
            pos += length

    def sequence(
        self,
        tag: int,
        pos: int,
        end: int | None,
        stop: int | None,
        depth: int,
        wanted: bool,
        *,
        implicit: bool = False,
    ) -> tuple[Element | None, int]:
        """The items of a sequence: to `stop`, or to its delimiter. `end`: where what holds it ends."""
        if depth >= MAX_DEPTH:
            raise Malformed(f"sequences are nested deeper than {MAX_DEPTH}", where=f"{_of(tag)}, byte {pos}")
        before = self.explicit
        self.explicit = before and not implicit
        items: list[Dataset] = []
        while stop is None or pos < stop:
            if stop is not None and stop - pos < 8 and not any(self.buf[pos:stop]):
                break
            self.reach(pos, 8, end, tag)
            group, number, length = self.tag_and_length(self.buf, pos)
            here = group << 16 | number
            if here == _SEQUENCE_END and stop is None:
                pos += 8
                break
            if here == _SEQUENCE_END:
                pos += 8
                continue
            if here != _ITEM:
                raise Malformed("a sequence holds something else than items", where=f"{_of(tag)}, byte {pos}")
            item, pos = self.item(tag, pos + 8, length, end, depth, wanted)
            if wanted:
                items.append(item)
        self.explicit = before
        return (Element("SQ", b"", tuple(items)) if wanted else None), (pos if stop is None else stop)

    def item(self, of: int, pos: int, length: int, end: int | None, depth: int, wanted: bool) -> tuple[Dataset, int]:
        data = Dataset(self.little)
        stop: int | None = None
        if length != _UNDEFINED:
            self.reach(pos, length, end, of)
            end = stop = pos + length
            if not wanted:
                return data, stop
        found, inside = data.elements, self.inside
        before = self.explicit
        vr = self.buf[pos + 4 : pos + 6]
        if before and vr not in _SHORT and vr not in _LONG and not (vr.isalpha() and vr.isupper()):
            self.explicit = stop is None and self.buf[pos : pos + 2] in (b"\xfe\xff", b"\xff\xfe")
        while stop is None or pos < stop:
            begin = pos
            tag, vr, length, pos = self.head(pos, end)
            if tag == _ITEM_END:
                if stop is None:
                    break
                continue
            if tag >> 16 == 0xFFFE:
                raise Malformed("an item is not closed", where=f"{_of(of)}, byte {begin}")
            keep = wanted and (inside is None or tag in inside)
            element, pos = self.value(tag, vr, length, pos, end, depth + 1, keep)
            if element is not None:
                found.setdefault(tag, element)
        self.explicit = before
        return data, (pos if stop is None else stop)
