"""Pixels: as pydicom has them in every syntax with a codec; bombs and lies are refused before memory is taken."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from adapters.dicom import pixels
from adapters.dicom.codestreams import size_of
from adapters.dicom.pixels import frames
from models.errors import BadInput, Malformed, TooLarge, Unreadable
from tests.adapters.dicom_codecs_page import PAGE, rewritten
from tests.adapters.dicom_samples import dataset, package_files, with_pixels, written

WITHOUT_DELIMITER = "emri_small_jpeg_2k_lossless_too_short.dcm"
"""All of its frames are there; pydicom gives none, for the sequence is not closed."""
NOT_DECODED = {
    "JPEG-lossy.dcm",
    "JPGExtended.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "MR_truncated.dcm",
    "badVR.dcm",
    "nested_priv_SQ.dcm",
    "meta_missing_tsyntax.dcm",
}
"""12-bit JPEG (no permissive codec), another size inside, truncation, no image; pydicom fails on them, too."""


def of_packages() -> list[Path]:
    return [path for path in package_files() if path.name not in NOT_DECODED and path.stat().st_size < 1_000_000]


@pytest.mark.parametrize("path", of_packages(), ids=lambda path: path.name)
def test_pixels_are_those_of_pydicom(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pydicom.dcmread(path)
        if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(theirs.dir()):
            if path.name == WITHOUT_DELIMITER:
                assert sum(1 for _ in frames(path.read_bytes())) == 10
                return
            with pytest.raises(Malformed):
                list(frames(path.read_bytes()))
            return
        expected = theirs.pixel_array
    with path.open("rb") as stream:
        found = [(index, frame.copy()) for index, frame in frames(stream)]
    assert [index for index, _ in found] == list(range(int(theirs.get("NumberOfFrames") or 1)))
    mine = np.stack([frame for _, frame in found]) if len(found) > 1 else found[0][1]
    assert mine.dtype == expected.dtype.newbyteorder("=")
    assert np.array_equal(mine, expected)


def test_the_table_of_the_page_is_what_was_measured() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page)


def test_a_codec_under_gpl_is_never_loaded() -> None:
    assert not {name for name in sys.modules if name.split(".")[0] in ("libjpeg", "pylibjpeg")}
    assert {name for row in pixels.CODECS.values() for name in row} <= {
        *("openjpeg", "rle", "pydicom", "pillow", "gdcm", "pyjpegls")
    }


# ---- values ----------------------------------------------------------------------------------------------------------


def test_bits_that_are_not_stored_are_no_value() -> None:
    """An overlay in the high bits (PS3.5 8.1.1), and a sign that is not extended."""
    raw = with_pixels(np.array([[0xF001, 0x0FFF]], "<u2"))
    assert next(frames(raw))[1].tolist() == [[1, 0xFFF]]
    signed = with_pixels(np.array([[0x0FFF, 0x07FF]], "<u2"), PixelRepresentation=1)
    assert next(frames(signed))[1].tolist() == [[-1, 2047]]
    shifted = with_pixels(np.array([[0x0010, 0x1230]], "<u2"), BitsStored=12, HighBit=15)
    assert next(frames(shifted))[1].tolist() == [[1, 0x123]]


def test_one_frame_at_a_time_is_in_memory() -> None:
    many = np.zeros((60, 256, 256), "<u2")
    raw = with_pixels(many, NumberOfFrames=60)
    stream = io.BytesIO(raw)
    tracemalloc.start()
    assert sum(1 for _ in frames(stream)) == 60
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


# ---- lies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "error", "what"),
    [
        ({"Rows": 65535, "Columns": 65535}, TooLarge, "a frame of more than"),
        ({"Rows": 65535, "Columns": 4}, Malformed, "fewer pixels"),
        ({"NumberOfFrames": 2_000_000_000}, Malformed, "fewer pixels"),
        ({"NumberOfFrames": -1}, Unreadable, "number of frames"),
        ({"Rows": 0}, Unreadable, "rows or columns"),
        ({"Rows": None}, Unreadable, "rows and columns"),
        ({"SamplesPerPixel": 200}, Unreadable, "samples"),
        ({"BitsAllocated": 12}, Unreadable, "bits allocated"),
        ({"BitsStored": 17}, Unreadable, "bits stored"),
        ({"HighBit": 3}, Unreadable, "high bit"),
        ({"PixelData": None}, Malformed, "no pixels"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(elements: Any, error: type[BadInput], what: str) -> None:
    made = dataset(**{"PixelData": b"\0" * 32, **elements})
    if "PixelData" in made:
        made["PixelData"].VR = "OW"
    raw = written(made)
    tracemalloc.start()
    with pytest.raises(error, match=what):
        list(frames(raw, limit=1 << 30))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def compressed(payload: bytes, syntax: str, **elements: Any) -> bytes:
    made = dataset(**{"PixelData": encapsulate([payload]), "BitsStored": 16, "HighBit": 15, **elements})
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return written(made, syntax)


def j2k(rows: int, columns: int) -> bytes:
    """The beginning of a JPEG 2000 code stream that claims this size."""
    siz = struct.pack(">HHLLLLLLLLH", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1)
    return b"\xff\x4f\xff\x51" + siz + b"\x0f\x01\x01\xff\xd9"


def jpeg(rows: int, columns: int) -> bytes:
    return b"\xff\xd8\xff\xe0\0\4ab\xff\xc0\0\x0b\x08" + struct.pack(">HH", rows, columns) + b"\1\1\x11\0\xff\xd9"


@pytest.mark.parametrize(
    ("raw", "error", "what"),
    [
        (compressed(j2k(60_000, 60_000), JPEG2000Lossless), Unreadable, "of another size"),
        (compressed(jpeg(60_000, 60_000), JPEGBaseline8Bit), Unreadable, "of another size"),
        (compressed(j2k(4, 4), JPEG2000Lossless), Unreadable, "cannot be decoded"),
        (compressed(b"nothing of this kind", JPEG2000Lossless), Unreadable, "no code stream"),
        (compressed(b"\1\0\0\0" + b"\0" * 60, RLELossless, Rows=4000, Columns=4000), Malformed, "fewer bytes"),
        (compressed(b"\0" * 64, RLELossless), Unreadable, "cannot be decoded"),
        (compressed(b"\0" * 64, "1.2.840.10008.1.2.4.103"), Unreadable, "no codec here"),
        (compressed(j2k(4, 4), JPEG2000Lossless, NumberOfFrames=7), Malformed, "do not make up the frames"),
    ],
)
def test_a_code_stream_is_measured_before_it_is_decoded(raw: bytes, error: type[BadInput], what: str) -> None:
    with pytest.raises(error, match=what):
        list(frames(raw))


def test_an_unreadable_frame_names_its_syntax_and_number() -> None:
    with pytest.raises(Unreadable) as refused:
        list(frames(compressed(j2k(4, 4), JPEG2000Lossless)))
    assert refused.value.where == "transfer syntax 1.2.840.10008.1.2.4.90, frame 0"


def deflated(raw: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(raw) + packer.flush()


def test_deflated_frames_and_a_frame_that_inflates_to_more() -> None:
    values = np.arange(16, dtype="<u2").reshape(4, 4)
    raw = compressed(deflated(values.tobytes()), pixels.DEFLATED_FRAMES)
    assert np.array_equal(next(frames(raw))[1], values)
    with pytest.raises(Malformed, match="another number of pixels"):
        list(frames(compressed(deflated(bytes(64 << 20)), pixels.DEFLATED_FRAMES)))
    with pytest.raises(Unreadable, match="cannot be inflated"):
        list(frames(compressed(b"\xff" * 40, pixels.DEFLATED_FRAMES)))


def test_sizes_of_code_streams() -> None:
    assert size_of(j2k(3, 5)) == (3, 5, 1)
    assert size_of(jpeg(7, 9)) == (7, 9, 1)
    assert size_of(b"\xff\xd8" + b"\xff\xe0\0\2" * 9000) is None
    assert size_of(b"") is size_of(b"\xff\xd8") is size_of(b"\xff\x4f") is None
