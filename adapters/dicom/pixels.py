"""The pixels of an object, one frame at a time, by codecs under permissive licences only.

Which codec reads which transfer syntax is one table, so that a package with another licence is never taken up because
somebody happened to install it (pylibjpeg-libjpeg is GPL). What is refused is refused before anything is allocated:
sizes over the limit, payloads too short for what they claim, code streams that are larger inside than outside.

The codecs are C libraries that other people wrote: whoever decodes images of strangers does it in a process of its own.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import decode, get_parameters
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID
from rle.utils import decode_frame  # type: ignore[attr-defined]

from adapters.dicom.codestreams import size_of
from adapters.dicom.elements import BIG_ENDIAN, DEFLATED, File, inflated, parse
from adapters.dicom.fragments import Fragments, fragments_of
from adapters.dicom.headers import ImageOf, image_of
from models.errors import Malformed, TooLarge, Unreadable

LIMIT = 1 << 30
"""Bytes of one decoded frame."""
MAX_SIDE = 1 << 17

NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN, DEFLATED})
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_JPEG, _JPEG_LS, _J2K = "1.2.840.10008.1.2.4.", ("80", "81"), ("90", "91", "201", "202", "203")
CODECS: dict[str, tuple[str, ...]] = {
    "1.2.840.10008.1.2.5": ("rle", "pydicom"),
    _JPEG + "50": ("pillow", "gdcm"),
    _JPEG + "51": ("gdcm", "pillow"),
    _JPEG + "57": ("gdcm",),
    _JPEG + "70": ("gdcm",),
    **{_JPEG + number: ("pyjpegls",) for number in _JPEG_LS},
    **{_JPEG + number: ("openjpeg", "gdcm") for number in _J2K},
}
"""Transfer syntax -> who may decode it, best first: `openjpeg` is pylibjpeg-openjpeg (MIT over BSD), `rle`
pylibjpeg-rle (MIT), asked directly; the others are pydicom's names of its plug-ins: itself (MIT), pyjpegls (MIT over
BSD), Pillow (MIT-CMU), GDCM (BSD, its wheel Apache-2.0)."""

_KEEP = frozenset({
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00280103, 0x7FE00001, 0x7FE00002, 0x00020010,
})  # fmt: skip
_FLOATS = {0x7FE00008: "f4", 0x7FE00009: "f8"}
_RLE_RATIO = 64
"""A run of 128 bytes takes two (PS3.5 G.3.1)."""

Array = NDArray[Any]


class _Layout(NamedTuple):
    image: ImageOf
    tag: int
    length: int | None
    """Bytes of the native pixel data; None: encapsulated."""
    start: int
    """Where the value begins."""
    order: str
    words: bool = False
    """Bytes stand in words of two that are big endian (OW, PS3.5 8.1.2): the first is the second."""


def frames(source: bytes | BinaryIO, *, limit: int = LIMIT) -> Iterator[tuple[int, Array]]:
    """Index from 0 and pixels of each frame: (rows, columns), or (rows, columns, 3) as RGB for colour images. Stored
    values, as the header says them (bits stored, high bit, sign); nothing is rescaled. A palette's indices stay
    indices. A stream must be seekable; one frame is held at a time.

    Raises: Malformed (no Part 10 file, no pixels, fewer bytes than the header claims), TooLarge (a frame of more than
    `limit` bytes), Unreadable (a header that describes no image, a syntax that no codec here decodes, a frame that its
    codec refuses), with the transfer syntax and the frame.
    """
    stream: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
    start = stream.seek(0)
    file = parse(stream, keep=_KEEP)
    stream.seek(start)
    if file.syntax == DEFLATED:
        stream = io.BytesIO(inflated(stream, 2 * limit))
    layout = _layout(file, stream)
    size = _checked(layout.image, layout, limit)
    if layout.length is not None:
        yield from _native(layout, size, stream)
    elif file.syntax in CODECS or file.syntax == DEFLATED_FRAMES:
        yield from _encapsulated(file, layout, size, stream)
    else:
        raise Unreadable("no codec here decodes this transfer syntax", where=f"transfer syntax {file.syntax[:64]}")


def _layout(file: File, stream: BinaryIO) -> _Layout:
    if file.pixels is None:
        raise Malformed("no pixels", where="(7FE0,0010)")
    image = image_of(file.data)
    if image is None:
        raise Unreadable("pixels without rows and columns", where="(0028,0010)")
    stream.seek(file.pixels)
    head = stream.read(12)
    byte_order = "big" if file.syntax == BIG_ENDIAN else "little"

    def number(at: int, size: int) -> int:
        return int.from_bytes(head[at : at + size], "big" if byte_order == "big" else "little")

    tag = number(0, 2) << 16 | number(2, 2)
    if len(head) < 12:
        raise Malformed("the file is cut off at its pixels", where="(7FE0,0010)")
    long = file.explicit and head[4:6].isalpha()
    length, begin = (number(8, 4), 12) if long else (number(4, 4), 8)
    encapsulated = length == 0xFFFFFFFF
    if file.syntax in NATIVE and encapsulated:
        raise Malformed("encapsulated pixels in a syntax without encapsulation", where="(7FE0,0010)")
    if not encapsulated and file.syntax not in NATIVE:
        raise Malformed("pixels of a compressed syntax that are not encapsulated", where="(7FE0,0010)")
    order = ">" if byte_order == "big" else "<"
    words = order == ">" and head[4:6] == b"OW" and image.bits_allocated <= 8
    return _Layout(image, tag, None if encapsulated else length, file.pixels + begin, order, words)


def _checked(image: ImageOf, layout: _Layout, limit: int) -> int:
    """Bytes of one decoded frame. Raises: Unreadable, TooLarge."""
    if not (0 < image.rows <= MAX_SIDE and 0 < image.columns <= MAX_SIDE):
        raise Unreadable("rows or columns that no image has", where="(0028,0010)")
    if image.frames < 1:
        raise Unreadable("a number of frames that no image has", where="(0028,0008)")
    if image.samples not in (1, 3, 4):
        raise Unreadable("samples per pixel that no image has", where="(0028,0002)")
    bits = image.bits_allocated
    if layout.tag in _FLOATS:
        bits = 32 if layout.tag == 0x7FE00008 else 64
    elif bits not in (1, 8, 16, 32, 64):
        raise Unreadable("bits allocated that are not read here", where="(0028,0100)")
    elif not 0 < image.bits_stored <= bits:
        raise Unreadable("bits stored that do not fit", where="(0028,0101)")
    elif bits > 1 and not image.bits_stored - 1 <= image.high_bit < bits:
        raise Unreadable("a high bit that does not fit", where="(0028,0102)")
    size = image.rows * image.columns * image.samples * max(bits // 8, 1)
    if size > limit:
        raise TooLarge(f"a frame of more than {limit} bytes", where="(0028,0010)")
    return size


# ---- native ----------------------------------------------------------------------------------------------------------


def _native(layout: _Layout, size: int, stream: BinaryIO) -> Iterator[tuple[int, Array]]:
    image, length = layout.image, layout.length or 0
    pixels = image.rows * image.columns
    halved = image.photometric == "YBR_FULL_422" and image.samples == 3
    bits = (pixels * 2 * 8 if halved else size * 8) if image.bits_allocated != 1 else pixels * image.samples
    stored = min(length, stream.seek(0, io.SEEK_END) - layout.start)
    if (bits * image.frames + 7) // 8 > stored:
        raise Malformed("fewer pixels than the header claims", where="(7FE0,0010)")
    for index in range(image.frames):
        first = bits * index
        raw = _bytes(layout, stream, first // 8, (first % 8 + bits + 7) // 8)
        if image.bits_allocated == 1:
            flat = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[first % 8 :][:bits]
            yield index, flat.reshape(image.rows, image.columns) if image.samples == 1 else flat
            continue
        if layout.tag in _FLOATS:
            yield index, np.frombuffer(raw, layout.order + _FLOATS[layout.tag]).reshape(image.rows, image.columns)
            continue
        flat = np.frombuffer(raw, f"{layout.order}u{image.bits_allocated // 8}")
        yield index, _colour(_signed(_shaped(flat, image, halved), image), image)


def _bytes(layout: _Layout, stream: BinaryIO, begin: int, size: int) -> bytes:
    if not layout.words:
        stream.seek(layout.start + begin)
        return stream.read(size)
    stream.seek(layout.start + begin - begin % 2)
    pairs = stream.read((begin % 2 + size + 1) // 2 * 2)
    turned = np.frombuffer(pairs.ljust(len(pairs) + len(pairs) % 2, b"\0"), ">u2").astype("<u2").tobytes()
    return turned[begin % 2 : begin % 2 + size]


def _shaped(flat: Array, image: ImageOf, halved: bool) -> Array:
    rows, columns = image.rows, image.columns
    if image.samples == 1:
        return flat.reshape(rows, columns)
    if halved:  # Y Y Cb Cr for two pixels (PS3.3 C.7.6.3.1.2)
        pairs = flat.reshape(-1, 4)
        both = np.empty((len(pairs), 2, 3), flat.dtype)
        both[:, :, 0], both[:, :, 1], both[:, :, 2] = pairs[:, :2], pairs[:, 2:3], pairs[:, 3:4]
        return both.reshape(rows, columns, 3)
    if image.planar == 1:
        return flat.reshape(image.samples, rows, columns).transpose(1, 2, 0)
    return flat.reshape(rows, columns, image.samples)


def _signed(pixels: Array, image: ImageOf) -> Array:
    """The bits that are stored, at their place, with their sign: the others may hold an overlay (PS3.5 8.1.1)."""
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    kind = np.dtype(f"{'i' if image.signed else 'u'}{native.dtype.itemsize}")
    unused = image.bits_allocated - image.bits_stored
    if unused == 0:
        return native.view(kind)
    left = image.bits_allocated - 1 - image.high_bit
    placed: Array = (native << native.dtype.type(left)).view(kind) >> kind.type(unused)
    return placed


def _colour(pixels: Array, image: ImageOf) -> Array:
    if image.samples != 3 or not image.photometric.startswith("YBR_FULL") or image.bits_allocated != 8:
        return pixels
    converted: Array = convert_color_space(pixels, "YBR_FULL", "RGB")
    return converted


# ---- encapsulated ----------------------------------------------------------------------------------------------------


def _encapsulated(file: File, layout: _Layout, size: int, stream: BinaryIO) -> Iterator[tuple[int, Array]]:
    image = layout.image
    fragments: Fragments = fragments_of(stream, layout.start, image.frames, file.data)
    for index, payload in enumerate(fragments):
        where = f"transfer syntax {file.syntax}, frame {index}"
        if file.syntax.endswith(".1.2.5") and len(payload) * _RLE_RATIO < size:
            raise Malformed("fewer bytes than a frame of this size can have", where=where)
        if file.syntax == DEFLATED_FRAMES:
            yield index, _inflated_frame(payload, image, size, where)
            continue
        inside = size_of(payload)
        if inside is not None and inside != (image.rows, image.columns, image.samples):
            raise Unreadable("the code stream is of another size than the header says", where=where)
        if inside is None and not file.syntax.endswith(".1.2.5"):
            raise Unreadable("no code stream of this syntax", where=where)
        yield index, _decoded(file.syntax, payload, image, where)
    if fragments.found < image.frames:
        raise Malformed("fewer frames than the header claims", where="(0028,0008)")


def _inflated_frame(payload: bytes, image: ImageOf, size: int, where: str) -> Array:
    try:
        raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload, size + 1)
    except zlib.error:
        raise Unreadable("a frame cannot be inflated", where=where) from None
    if image.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[: image.rows * image.columns]
        if bits.size != image.rows * image.columns:
            raise Malformed("fewer pixels than the header claims", where=where)
        return bits.reshape(image.rows, image.columns)
    if len(raw) != size:
        raise Malformed("another number of pixels than the header claims", where=where)
    flat = np.frombuffer(raw, f"<u{image.bits_allocated // 8}")
    return _colour(_signed(_shaped(flat, image, False), image), image)


def _decoded(syntax: str, payload: bytes, image: ImageOf, where: str) -> Array:
    """By the first of the table's codecs that can."""
    for name in CODECS[syntax]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = _OWN[name](payload, image) if name in _OWN else _by_pydicom(name, syntax, payload, image)
        except Exception:  # noqa: BLE001, S112 (a codec raises what it likes; the next one may be able)
            continue
        if found.shape[:2] == (image.rows, image.columns):
            return found
    raise Unreadable("a frame cannot be decoded", where=where)


def _by_openjpeg(payload: bytes, image: ImageOf) -> Array:
    """Its values have the precision and sign of the code stream; where the header says another sign, the header is
    right (PS3.5 8.2.4 has the stream's bits; writers forget its flag)."""
    found: Array = decode(payload)
    bits = int(get_parameters(payload)["precision"])
    container = image.bits_allocated
    if bits > container or image.samples != 1:
        return _colour(found, image) if found.dtype.itemsize * 8 == container else _misfit()
    unsigned = found.astype(f"u{container // 8}") & np.array((1 << bits) - 1, f"u{container // 8}")
    return _signed(unsigned, image.but(bits_stored=bits, high_bit=bits - 1))


def _misfit() -> Array:
    raise ValueError("a code stream that does not fit its header")


def _by_rle(payload: bytes, image: ImageOf) -> Array:
    raw = decode_frame(payload, image.rows * image.columns, image.bits_allocated, "<")
    flat = np.frombuffer(bytes(raw), f"<u{image.bits_allocated // 8}")
    return _colour(_signed(_shaped(flat, image.but(planar=1), False), image), image)


_OWN: dict[str, Callable[[bytes, ImageOf], Array]] = {"openjpeg": _by_openjpeg, "rle": _by_rle}


def _by_pydicom(name: str, syntax: str, payload: bytes, image: ImageOf) -> Array:
    options: dict[str, Any] = {
        "rows": image.rows,
        "columns": image.columns,
        "samples_per_pixel": image.samples,
        "photometric_interpretation": image.photometric,
        "bits_allocated": image.bits_allocated,
        "bits_stored": image.bits_stored,
        "pixel_representation": int(image.signed),
        "planar_configuration": image.planar,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    source = encapsulate([payload], has_bot=False)
    found: Array = get_decoder(UID(syntax)).as_array(source, index=0, decoding_plugin=name, **options)[0]
    return found
