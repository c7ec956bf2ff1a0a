"""The walk over elements finds what pydicom finds, in files of every syntax, and stays within its limits."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest

from adapters.dicom.elements import MAX_DEPTH, parse
from adapters.dicom.values import Dataset
from models.errors import BadInput, Malformed, TooLarge
from tests.adapters.dicom_samples import dataset, file, package_files, written

DAMAGED = {"DICOMDIR-nooffset", "meta_missing_tsyntax.dcm", "rtplan_truncated.dcm"}
"""pydicom's own examples of what is wrong with files."""
PIXELS = 0x7FE00000


@pytest.mark.parametrize("path", package_files(), ids=lambda path: path.name)
def test_it_finds_the_elements_that_pydicom_finds(path: Path) -> None:
    raw = path.read_bytes()
    try:
        found = parse(raw)
    except BadInput:
        assert path.name in DAMAGED
        return
    assert path.name not in DAMAGED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pydicom.dcmread(io.BytesIO(raw), stop_before_pixels=True)
        assert _tags(found.data) == _theirs(theirs)
        for tag, element in found.data.elements.items():
            if element.vr == "SQ" and tag < PIXELS:
                items = theirs[tag].value
                assert [_tags(item) for item in element.items] == list(map(_theirs, items))
    assert parse(io.BytesIO(raw)).data.elements.keys() == found.data.elements.keys()


def _theirs(data: pydicom.Dataset) -> set[int]:
    return {tag for tag in map(int, data.keys()) if tag < PIXELS}


def _tags(data: Dataset) -> set[int]:
    return {tag for tag in data.elements if tag < PIXELS}


class Counted(io.BytesIO):
    """A stream that knows how much was read of it, and gives little at a time."""

    read_so_far = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(min(size or 0, 1000) if size and size > 0 else size)
        self.read_so_far += len(found)
        return found


def test_a_stream_is_read_no_further_than_the_pixels_need() -> None:
    made = dataset(PixelData=b"\0" * 5_000_000)
    made["PixelData"].VR = "OW"
    stream = Counted(written(made))
    assert parse(stream).data.text(0x00100020) == "4711"
    assert stream.read_so_far < 200_000


def test_a_long_element_before_the_pixels_is_not_copied_where_nobody_asked_for_it() -> None:
    made = dataset()
    made.add_new(0x00091001, "OB", b"\1" * 8_000_000)
    raw = written(made)
    tracemalloc.start()
    parse(raw, keep=frozenset({0x00100020}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def sequences(depth: int) -> bytes:
    """A file whose private sequences are nested so deep, of undefined length."""
    opened = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * depth
    return file() + opened + closed


def test_sequences_may_be_nested_but_not_without_end() -> None:
    assert 0x00091010 in parse(sequences(MAX_DEPTH)).data
    with pytest.raises(Malformed, match=r"nested deeper.*\(a private or unknown element\), byte"):
        parse(sequences(MAX_DEPTH + 1))
    with pytest.raises(Malformed):
        parse(sequences(200_000), keep=frozenset())


def test_more_elements_than_any_object_has_are_refused() -> None:
    one = struct.pack("<HH2sH", 0x0009, 0x1001, b"CS", 0)
    with pytest.raises(TooLarge, match="elements"):
        parse(file() + one * 1_000_001, keep=frozenset())


def test_a_file_that_is_too_long_before_its_pixels_is_refused() -> None:
    made = dataset()
    made.add_new(0x00091001, "OB", b"\1" * 300_000)
    with pytest.raises(TooLarge, match="before the pixels"):
        parse(io.BytesIO(written(made)), limit=200_000)


def test_a_deflated_bomb_is_inflated_to_the_limit_only() -> None:
    head = written(dataset(), "1.2.840.10008.1.2.1")
    meta = parse(head)
    assert meta.syntax == "1.2.840.10008.1.2.1"
    bomb = struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 1 << 30) + b"\0" * (64 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(bomb) + packer.flush()
    deflated = written(dataset(), "1.2.840.10008.1.2.1.99")
    start = len(deflated) - len(_deflated_body(deflated))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        parse(deflated[:start] + body, limit=4 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40_000_000


def _deflated_body(raw: bytes) -> bytes:
    """What stands behind the meta information, whose group length pydicom wrote."""
    length = struct.unpack("<L", raw[140:144])[0]
    return raw[144 + length :]


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "goes beyond|no DICM|not a DICOM"),
        (b"\0" * 128 + b"DICN", "no DICM"),
        (b"MSH|^~\\&|" * 30, "no DICM"),
        (b"\0" * 128 + b"DICM", "no transfer syntax"),
        (file()[:-3], "cut off inside an element"),
        (file(StationName="CT01")[:-1], "beyond the end of the file"),
        (file() + b"\xfe\xff\x00\xe0\0\0\0\0", "outside a sequence"),
        (file() + b"\x09\x00\x10\x10SQ\0\0\x20\0\0\0\xfe\xff\x00\xe0\x30\0\0\0" + b"\0" * 64, "beyond what holds it"),
        (file() + b"\x09\x00\x10\x10OB\0\0\xff\xff\xff\xff\x08\0\x05\0\0\0\0\0", "without its items"),
        (file() + b"\x09\x00\x10\x10OB\0\0\xfe\xff\xff\x7f", "beyond the end of the file"),
    ],
)
def test_what_is_damaged_is_malformed_with_its_place(raw: bytes, what: str) -> None:
    with pytest.raises(Malformed, match=what):
        parse(raw)


def test_a_refusal_quotes_no_bytes_as_if_they_were_a_tag() -> None:
    with pytest.raises(Malformed) as refused:
        parse(file() + b"DoeJOB\0\0\xff\xff\xff\x7f")
    assert refused.value.where == f"(a private or unknown element), byte {len(file()) + 12}"


def test_harmless_mistakes_are_read() -> None:
    """Group lengths that do not fit, an unknown VR, elements out of order, an implicit data set called explicit."""
    good = file()
    wrong_length = good[:140] + struct.pack("<L", 7) + good[144:]
    assert parse(wrong_length).data.text(0x00100020) == "4711"
    unknown = good + struct.pack("<HH2sHL", 0x0009, 0x1001, b"ZZ", 0, 4) + b"abcd"
    assert parse(unknown).data.elements[0x00091001].raw == b"abcd"
    late = good + struct.pack("<HH2sH", 0x0008, 0x1010, b"SH", 4) + b"CT01"
    assert parse(late).data.text(0x00081010) == "CT01"
    implicit = written(dataset(), "1.2.840.10008.1.2").replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0"[:18], 1)
    assert parse(implicit).data.text(0x00100020) == "4711"
