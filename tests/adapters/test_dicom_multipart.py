"""Parts of a body that comes in pieces of any size; and bodies that are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dicom.multipart import HEAD, Begin, Data, End, Multipart, boundary_of
from models.errors import Malformed


def body(*parts: bytes, boundary: bytes = b"b", head: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n%b\r\n" % (boundary, head, each) for each in parts) + b"--" + boundary + b"--"


def read(raw: bytes, size: int, boundary: str = "b") -> list[bytes]:
    """The whole parts."""
    stream, found, ended = Multipart(boundary), list[bytes](), False
    part: bytearray | None = None
    for at in range(0, len(raw), size):
        for event in stream.feed(raw[at : at + size]):
            match event:
                case Begin():
                    assert part is None
                    part = bytearray()
                case Data(piece):
                    assert part is not None
                    assert piece
                    part += piece
                case End.PART:
                    assert part is not None
                    found.append(bytes(part))
                    part = None
                case _:
                    ended = True
    stream.close()
    assert ended
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.text("\r\n-b\x00x", max_size=24).map(str.encode).filter(lambda each: b"\r\n--b" not in b"\r\n" + each),
        max_size=4,
    ),
    st.integers(1, 40),
)
def test_the_parts_come_out_as_they_went_in(parts: list[bytes], size: int) -> None:
    assert read(b"preamble\r\n" + body(*parts) + b"\r\nepilogue", size) == parts


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_head_without_headers_padding_and_an_empty_part(size: int) -> None:
    raw = b"--b \t\r\n\r\nabc\r\n--b\r\n\r\n\r\n--b\r\nA: 1\r\n\r\n\r\n--b--"
    assert read(raw, size) == [b"abc", b"", b""]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "before its last boundary"),
        (body(b"abc")[:-2], "before its last boundary"),
        (body(b"abc")[:-9], "before its last boundary"),
        (b"--b\r\nContent-Type: application/dicom\r\n\r\nabc", "before its last boundary"),
        (body(b"abc", boundary=b"other") + bytes(2 * HEAD), "no boundary in the first"),
        (b"--bee\r\n\r\nabc\r\n--bee--", "something behind it"),
        (b"--b\r\n" + b"A: 1\r\n" * HEAD, "headers of a part"),
        (b"--b" + b" " * HEAD, "something behind it"),
    ],
)
def test_what_is_no_body_is_refused(raw: bytes, why: str) -> None:
    for size in (1, 7, len(raw) or 1):
        with pytest.raises(Malformed, match=why):
            read(raw, size)


def test_an_endless_part_is_never_held() -> None:
    stream = Multipart("b")
    list(stream.feed(b"--b\r\n\r\n"))
    for _ in range(100):
        assert sum(len(each.piece) for each in stream.feed(bytes(1 << 16)) if isinstance(each, Data)) > 1 << 15
        assert len(stream._held) < 16


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', "abc"),
        ('Multipart/Related;boundary="a b:c";type=application/dicom', "a b:c"),
        ('multipart/related; start="a;boundary=x"; BOUNDARY="-\\-"', "--"),
    ],
)
def test_the_boundary_is_found_however_it_is_written(content_type: str, boundary: str) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/html", "multipart/related", "multipart/related; boundary=", "application/dicom; boundary=abc"),
        *('multipart/related; boundary="' + "a" * 71 + '"', 'multipart/related; boundary="a\r\nb"'),
    ],
)
def test_without_a_boundary_there_are_no_parts(content_type: str) -> None:
    with pytest.raises(Malformed):
        boundary_of(content_type)
