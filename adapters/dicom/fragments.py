"""Encapsulated pixels (PS3.5 A.4): which fragments make which frame, read one frame at a time."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from adapters.dicom.values import Dataset
from models.errors import Malformed, TooLarge

MAX_FRAGMENTS = 2_000_000
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_BEGINNINGS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0c")
"""Of JPEG and JPEG-LS, of JPEG 2000, of JP2."""

Place = tuple[int, int]
"""Offset and length of a fragment in the stream."""


class Fragments:
    """The frames of one object, one after the other. `found`: how many were given so far."""

    def __init__(self, stream: BinaryIO, groups: list[list[Place]]) -> None:
        self._stream = stream
        self._groups = groups
        self.found = 0

    def __iter__(self) -> Iterator[bytes]:
        for group in self._groups:
            pieces = []
            for at, length in group:
                self._stream.seek(at)
                pieces.append(self._stream.read(length))
            self.found += 1
            yield b"".join(pieces)


def fragments_of(stream: BinaryIO, start: int, frames: int, data: Dataset) -> Fragments:
    """The frames of an encapsulated pixel element whose first item begins at `start`.

    One fragment a frame; or as the Extended (7FE0,0001) or Basic Offset Table says; or, without one, a frame begins
    where a code stream does. Raises: Malformed (no items, cut off, more or fewer frames than can be told apart).
    """
    end = stream.seek(0, io.SEEK_END)
    table, places = _walk(stream, start, end)
    if frames == 1:
        return Fragments(stream, [places])
    if len(places) == frames:
        return Fragments(stream, [[place] for place in places])
    element = data.elements.get(0x7FE00001)
    if element is not None and len(element.raw) == 8 * frames:
        table = list(struct.unpack(f"<{frames}Q", element.raw))
    if len(table) == frames:
        groups = _by_table(table, places)
    else:
        groups = []
        for place in places:
            stream.seek(place[0])
            if stream.read(4).startswith(_BEGINNINGS) or not groups:
                groups.append([])
            groups[-1].append(place)
    if len(groups) != frames:
        raise Malformed("the fragments do not make up the frames", where="(7FE0,0010)")
    return Fragments(stream, groups)


def _by_table(table: list[int], places: list[Place]) -> list[list[Place]]:
    """Offsets count from the first byte of the first fragment's item tag."""
    first = places[0][0] - 8
    begins = {offset + first + 8: number for number, offset in enumerate(table)}
    groups: list[list[Place]] = []
    for place in places:
        if place[0] in begins or not groups:
            groups.append([])
        groups[-1].append(place)
    return groups


def _walk(stream: BinaryIO, start: int, end: int) -> tuple[list[int], list[Place]]:
    """The Basic Offset Table, and where each fragment is. A file that ends without the delimiter has its fragments."""
    at = start
    table: list[int] | None = None
    places: list[Place] = []
    while at + 8 <= end:
        stream.seek(at)
        group, number, length = struct.unpack("<HHL", stream.read(8))
        tag = group << 16 | number
        if tag == _END:
            break
        if tag != _ITEM:
            raise Malformed("encapsulated pixels hold something else than fragments", where=f"byte {at}")
        if at + 8 + length > end:
            raise Malformed("a fragment goes beyond the end of the file", where=f"byte {at}")
        if table is None:
            table = list(struct.unpack(f"<{length // 4}L", stream.read(length // 4 * 4)))
        else:
            places.append((at + 8, length))
            if len(places) > MAX_FRAGMENTS:
                raise TooLarge(f"more than {MAX_FRAGMENTS} fragments", where="(7FE0,0010)")
        at += 8 + length
    if not places:
        raise Malformed("encapsulated pixels without a fragment", where="(7FE0,0010)")
    return table or [], places
