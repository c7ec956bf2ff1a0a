"""A sealed part read as a file: the same bytes at every place, a few frames at a time, and changed ones refused."""

from __future__ import annotations

import io
import os
import random

import pytest

from cds_server.store.pack import FRAME, PackWriter
from cds_server.store.part_stream import HELD, PartStream
from cds_server.store.store import Store
from models.errors import KeysUnavailable, RecordUnavailable
from tests.cds_server.stores import land_parts

LANDING = "ab" * 16
LENGTHS = (1, FRAME, FRAME + 1, 3 * FRAME, 70_000)


def packed(store: Store) -> tuple[bytes, list[bytes]]:
    """A pack of parts of awkward lengths, and what was put in."""
    writer = PackWriter(store.vault, LANDING, store.data_dir / "staging")
    parts = [random.Random(length).randbytes(length) for length in LENGTHS]
    for part in parts:
        writer.write(part)
        writer.end_part()
    _, file = writer.settle(store.data_dir / "blobs")
    store.vault.keys.put(writer.keys.items())
    assert file is not None
    return (store.data_dir / "blobs" / file).read_bytes(), parts


def test_any_place_of_any_part_reads_as_it_was_written(store: Store) -> None:
    pack, parts = packed(store)
    rng = random.Random(7)
    for ordinal, body in enumerate(parts):
        with PartStream(store.vault, LANDING, io.BytesIO(pack), ordinal) as stream:
            assert stream.size == len(body)
            assert stream.read() == body
            assert stream.read(1) == b""
            for _ in range(20):
                start, length = rng.randrange(len(body) + 2), rng.choice((0, 1, 128, FRAME, 2 * FRAME))
                assert stream.seek(start) == start
                assert stream.read(length) == body[start : start + length]
            assert stream.seek(-1, os.SEEK_END) == len(body) - 1
            assert stream.read() == body[-1:]
            assert len(stream._opened) <= HELD


def test_what_was_changed_cut_off_or_lost_is_refused_by_its_place(store: Store) -> None:
    pack, _ = packed(store)
    broken = bytearray(pack)
    broken[-5] ^= 1
    with PartStream(store.vault, LANDING, io.BytesIO(broken), 4) as stream, pytest.raises(KeysUnavailable) as changed:
        stream.read()
    assert changed.value.where == "part 4"
    with pytest.raises(RecordUnavailable):
        PartStream(store.vault, LANDING, io.BytesIO(pack[:-1]), 4)
    with pytest.raises(RecordUnavailable):
        PartStream(store.vault, LANDING, io.BytesIO(pack), 5).read()
    with pytest.raises(KeysUnavailable):
        PartStream(store.vault, "cd" * 16, io.BytesIO(pack), 0)


def test_a_landings_part_opens_as_a_file_wherever_it_lies(store: Store) -> None:
    for body in (b"small enough for its row", random.Random(1).randbytes(200_000)):
        landing = store.reads.landing_by_ref(land_parts(store, [b"another", body]).landing)
        assert landing is not None
        with store.stream(landing, 1) as stream:
            assert stream.read() == body
