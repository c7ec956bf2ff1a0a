"""Whatever comes, header and reader answer with a result or a refusal. About 20 seconds; the soak script goes on."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dicom.headers import header_of
from adapters.readers.dicom import read
from models.errors import Malformed, TooLarge, Unreadable
from models.nouns import Part
from tests.adapters.dicom_reports import objects
from tests.adapters.dicom_samples import mutated, package_files, small

REFUSALS = (Malformed, Unreadable, TooLarge)
NOW = "2026-01-01T00:00:00.000000Z"


def taken(raw: bytes) -> bool:
    """Whether it is read. Any other exception than a refusal is a finding."""
    try:
        header = header_of(raw)
    except REFUSALS:
        header = None
    try:
        read(Part("0" * 32, 0, "fuzz", "application/dicom", NOW, raw))
    except REFUSALS:
        return False
    assert header is not None
    return True


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [path.read_bytes() for path in small(package_files(), 8_000)]


def test_changed_objects(images: list[bytes]) -> None:
    chance, stating, read_ = random.Random(20261121), objects(), 0
    for _ in range(8_000):
        read_ += taken(mutated(chance.choice(images if chance.random() < 0.4 else stating), chance))
    assert 500 < read_ < 6_000


def test_every_cut_of_a_report() -> None:
    """No cut of it is read as the whole: what says the number is the last thing in it."""
    whole = objects()[0]
    for end in range(0, len(whole), 7):
        taken(whole[:end])


ELEMENT = st.builds(
    lambda tag, vr, length, value: tag + vr + length + value,
    st.one_of(
        st.sampled_from([b"\x08\0\x16\0", b"\x10\0\x20\0", b"\xfe\xff\0\xe0", b"\xfe\xff\xdd\xe0"]),
        st.binary(min_size=4, max_size=4),
    ),
    st.sampled_from([b"UI", b"SQ", b"UN", b"OB", b"PN", b"DS", b"\0\0", b"ZZ"]),
    st.sampled_from([b"\0\0", b"\4\0", b"\0\0\xff\xff\xff\xff", b"\0\0\x08\0\0\0", b"\xff\xff"]),
    st.binary(max_size=24),
)


@settings(max_examples=600)
@given(
    st.sampled_from([b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"]),
    st.lists(ELEMENT, max_size=20).map(b"".join),
)
def test_elements_that_nobody_would_write(syntax: bytes, body: bytes) -> None:
    head = b"\0" * 128 + b"DICM\2\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    taken(head + body)


@settings(max_examples=500)
@given(st.binary(max_size=400))
def test_bytes(raw: bytes) -> None:
    taken(raw)
    taken(b"\0" * 128 + b"DICM" + raw)
