"""What an object says it is, its file head, its command: without a socket."""

from __future__ import annotations

import hashlib
import struct
import zlib
from io import BytesIO

import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from adapters.dicom import part10
from adapters.dicom.commands import command_of
from adapters.dicom.identity import DEPTH, LIMIT, Identity, IdentitySearch, plausible
from models.errors import Malformed
from tests.adapters.dicom_senders import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    SMALL,
)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("step", [1, 5, 4096])
def test_the_two_uids_are_found_in_every_encoding(syntax: str, step: int) -> None:
    dataset = pydicom.dcmread(SMALL, stop_before_pixels=True)
    dataset.remove_private_tags()
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == IMPLICIT, syntax != BIG_ENDIAN
    write_dataset(file, dataset)
    body = file.getvalue()
    if syntax == DEFLATED:
        squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = squeezed.compress(body) + squeezed.flush()
    search = IdentitySearch(syntax)
    for at in range(0, len(body), step):
        if search.feed(body[at : at + step]) is not None:
            break
    found = search.found or search.feed(b"", last=True)
    assert found == Identity(CT.encode(), str(dataset.SOPInstanceUID).encode())


def test_a_search_holds_no_more_than_its_limit() -> None:
    search = IdentitySearch(EXPLICIT)
    piece = struct.pack("<HH2sHL", 8, 1, b"UN", 0, 2**31) + bytes(LIMIT // 16)
    for _ in range(15):
        assert search.feed(piece) is None
    with pytest.raises(Malformed, match="too far behind"):
        search.feed(piece)
    assert len(search._head) <= LIMIT + 1
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    squeezed = bomb.compress(bytes(64 << 20)) + bomb.flush()
    with pytest.raises(Malformed):
        IdentitySearch(DEFLATED).feed(squeezed, last=True)
    assert DEPTH < 100


@pytest.mark.parametrize("uid", [b"1.2.840", b"0", b"a" * 64, b"2.25.1", b"AF-3_x"])
def test_a_plausible_uid(uid: bytes) -> None:
    assert plausible(uid)


@pytest.mark.parametrize("uid", [b"", b"1" * 65, b"1/2", b"..\\x", b"1 2", b"1\n", b"\xff", b"1.2\0"])
def test_an_implausible_uid(uid: bytes) -> None:
    assert not plausible(uid)


def test_the_head_of_a_file_is_the_same_for_the_same_object_and_is_read_by_pydicom() -> None:
    head = part10.head(CT.encode(), b"1.2.3", EXPLICIT.encode())
    assert head == part10.head(CT.encode(), b"1.2.3", EXPLICIT.encode())
    assert hashlib.sha256(head).hexdigest() == hashlib.sha256(head[: part10.data_set_at(head)]).hexdigest()
    meta = pydicom.dcmread(BytesIO(head)).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == EXPLICIT
    assert pydicom.uid.UID(part10.IMPLEMENTATION).is_valid
    for cut in (b"", head[:131], head[:143], b"x" * 200):
        with pytest.raises(Malformed):
            part10.data_set_at(cut)


def test_a_command_that_cannot_be_read_says_where_and_no_value() -> None:
    for raw in (b"SECRET", struct.pack("<HHL", 8, 0, 0), struct.pack("<HHL", 0, 0x100, 99), b""):
        with pytest.raises(Malformed) as found:
            command_of(raw)
        assert "SECRET" not in str(found.value)
