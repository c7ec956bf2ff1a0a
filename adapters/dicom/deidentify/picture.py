"""The pixel element of the copy: the same bytes, without what hides beside the picture; or the picture, blanked.

Copied in pieces of a megabyte: native bytes beyond the last frame become zero, and so do the bits of an overlay that
stands in unused ones (PS3.5 8.1.2); comments and application segments of JPEG and JPEG 2000 streams are overwritten
in place, so that no length changes. What follows the pixels (signatures, padding) is not copied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.dicom.deidentify.risks import Plan
from adapters.dicom.elements import IMPLICIT
from adapters.dicom.pixels import frames
from models.errors import Malformed, TooLarge

PIECE = 1 << 20
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_COLOUR = (b"JFIF", b"ICC_PROFILE", b"Adobe", b"mrfx", b"SPIFF")


class Writable(Protocol):
    def write(self, piece: bytes, /) -> int: ...


def copied(source: BinaryIO, at: int, out: Writable, syntax: str, expected: int, overlay_bits: int) -> int:
    """Write the pixel element that begins at `at`; gives how many bytes were overwritten.

    `expected`: bytes of native pixels; `overlay_bits`: the mask of bits to clear in 16-bit words. Errors: Malformed.
    """
    source.seek(at)
    head = source.read(12)
    if len(head) < 12:
        raise Malformed("the file is cut off at its pixels", where="(7FE0,0010)")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    length = struct.unpack("<L", head[8:12] if explicit else head[4:8])[0]
    vr = head[4:6] if explicit else b"OW"
    source.seek(at + (12 if explicit else 8))
    out.write(
        head[:4] + (struct.pack("<L", length) if syntax == IMPLICIT else vr + b"\0\0" + struct.pack("<L", length))
    )
    if length == 0xFFFFFFFF:
        return _encapsulated(source, out)
    return _native(source, out, length, expected, overlay_bits)


def _native(source: BinaryIO, out: Writable, length: int, expected: int, bits: int) -> int:
    done = changed = 0
    while done < length:
        piece = source.read(min(PIECE, length - done))
        if not piece:
            raise Malformed("fewer pixels than their length says", where="(7FE0,0010)")
        inside = max(0, min(len(piece), expected - done)) if expected else len(piece)
        if any(piece[inside:]):
            changed += len(piece) - inside
            piece = piece[:inside] + bytes(len(piece) - inside)
        if bits:
            words = np.frombuffer(piece[: len(piece) // 2 * 2], "<u2") & np.uint16(~bits & 0xFFFF)
            piece = words.astype("<u2").tobytes() + piece[len(piece) // 2 * 2 :]
        out.write(piece)
        done += len(piece)
    return changed


def _encapsulated(source: BinaryIO, out: Writable) -> int:
    changed, first = 0, True
    while True:
        head = source.read(8)
        if len(head) < 8:
            break
        group, number, length = struct.unpack("<HHL", head)
        if (group << 16 | number) == _END:
            break
        if (group << 16 | number) != _ITEM or length == 0xFFFFFFFF:
            raise Malformed("encapsulated pixels hold something else than fragments", where="(7FE0,0010)")
        out.write(head)
        left = length
        beginning = True
        while left:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise Malformed("a fragment goes beyond the end of the file", where="(7FE0,0010)")
            left -= len(piece)
            if beginning and not first:
                piece, count = without_comments(piece)
                changed += count
            beginning = False
            out.write(piece)
        first = False
    out.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
    return changed


def without_comments(stream: bytes) -> tuple[bytes, int]:
    """A code stream whose comments and application data are zeros, and how many bytes that were.

    JPEG and JPEG-LS (ITU-T T.81 B.2.4): COM and APPn but those a decoder needs for colour; JPEG 2000 (T.800 A.9.2):
    COM. Up to the first scan or tile.
    """
    made = bytearray(stream)
    changed = 0
    if stream[:2] == b"\xff\xd8":
        last = (0xDA, 0xD9)
    elif stream[:4] == b"\xff\x4f\xff\x51":
        last = (0x90, 0xD9)
    else:
        return stream, 0
    at = 2
    while at + 4 <= len(made) and made[at] == 0xFF and made[at + 1] not in last:
        marker, length = made[at + 1], int.from_bytes(made[at + 2 : at + 4], "big")
        begin, end = at + 4, at + 2 + length
        if stream[1] == 0x4F:
            begin = begin + 2 if marker == 0x64 else end  # after Rcom: what kind of comment it is
        elif marker != 0xFE:
            needed = bytes(made[begin : begin + 16]).startswith(_COLOUR)
            begin = end if needed or not 0xE0 <= marker <= 0xEF else begin
        end = min(end, len(made))
        if begin < end and any(made[begin:end]):
            changed += end - begin
            made[begin:end] = bytes(end - begin)
        at += 2 + max(length, 2)
    return bytes(made), changed


class Decoded:
    """Frames as they are stored anew, in Explicit VR Little Endian. `inverted`: bits stored, where 0 is white."""

    def __init__(self, source: BinaryIO, plan: Plan | None, inverted: int, limit: int) -> None:
        self._frames = frames(source, limit=limit)
        self._plan = plan
        self._black = (1 << inverted) - 1 if inverted else 0

    def write(self, out: Writable, count: int, bits: int) -> None:
        """The pixel element, its length known beforehand. Errors: as `frames`, TooLarge."""
        if bits == 1:
            flat = np.concatenate([frame.ravel() for _, frame in self._frames]).astype(np.uint8)
            self._element(out, iter([np.packbits(flat, bitorder="little")]), (flat.size + 7) // 8)
            return
        first = next(self._frames)[1]
        self._element(out, self._each(first), first.nbytes * count)

    def _each(self, first: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
        yield self._blanked(first)
        for _, frame in self._frames:
            yield self._blanked(frame)

    def _blanked(self, frame: NDArray[np.generic]) -> NDArray[np.generic]:
        plan = self._plan
        if plan is None:
            return frame
        made = frame.copy()
        black = self._black
        if not plan.keep:
            for x, y, width, height in plan.boxes:
                made[y : y + height, x : x + width] = black
            return made
        kept = np.zeros(made.shape[:2], bool)
        for x, y, width, height in plan.boxes:
            kept[y : y + height, x : x + width] = True
        made[~kept] = black
        return made

    def _element(self, out: Writable, pieces: Iterator[NDArray[np.generic]], size: int) -> None:
        padded = size + size % 2
        if padded >= 0xFFFFFFFF:
            raise TooLarge("more than 4 GiB of pixels that are not compressed", where="(7FE0,0010)")
        out.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, padded))
        written = 0
        for piece in pieces:
            raw = piece.astype(piece.dtype.newbyteorder("<")).tobytes()
            written += len(raw)
            out.write(raw)
        if written != size:
            raise Malformed("the frames are of different sizes", where="(7FE0,0010)")
        out.write(bytes(padded - size))
