"""Deliveries of many messages (row C11): batches, plain files, captured feeds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.hl7v2.batch import Entry, Item, Oddity, is_batch, split
from adapters.hl7v2.frames import frame
from adapters.hl7v2.message import parse


def message(number: int, end: str = "\r") -> bytes:
    lines = (f"MSH|^~\\&|A|B|C|D|2026||ADT^A01|{number}|P|2.5", f"PID|1||{number}", "")
    return end.join(lines).encode()


def fine(items: list[Item]) -> list[str]:
    """Control ids of the messages."""
    return [parse(item.raw)["MSH"].text(10) for item in items if isinstance(item, Entry)]


def odd(items: list[Item]) -> list[tuple[str, str]]:
    return [(item.what, item.where) for item in items if isinstance(item, Oddity)]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


BATCH = (
    b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + message(1) + message(2) + b"BTS|2\rBHS|^~\\&|A\r" + message(3) + b"BTS|1|x\rFTS|2\r"
)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_batch_is_its_messages_however_it_is_cut(end: str, size: int) -> None:
    """C11, C5: FHS, BHS, BTS, FTS with counts that are right, in any line ends and any reads."""
    data = BATCH.replace(b"\r", end.encode())
    items = list(split(pieces(data, size)))
    assert fine(items) == ["1", "2", "3"]
    assert odd(items) == []
    assert [item.number for item in items if isinstance(item, Entry)] == [1, 2, 3]
    assert [len(parse(item.raw)) for item in items if isinstance(item, Entry)] == [2, 2, 2]


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_plain_messages_in_a_row_are_told_apart(size: int) -> None:
    """C11: no envelope, blank lines between, a byte order mark before the first and before another."""
    bom = b"\xef\xbb\xbf"
    items = list(split(pieces(bom + message(1) + b"\r\n\n" + message(2, "\n") + bom + message(3, "\r\n"), size)))
    assert (fine(items), odd(items)) == (["1", "2", "3"], [])


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_captured_feed_is_taken_out_of_its_frames(size: int) -> None:
    """C11: MLLP frames in a file, one of which holds a batch; what is no frame is told."""
    data = b"\r\n" + frame(message(1)) + b"\n" + frame(BATCH) + b"\x0bMSH|half" + frame(message(9))
    items = list(split(pieces(data, size)))
    assert fine(items) == ["1", "1", "2", "3", "9"]
    assert odd(items) == [("a second start byte before a trailer: 1 left out", "after message 4")]


@pytest.mark.parametrize(
    ("trailer", "told"),
    [
        (b"BTS|3\rFTS|1\r", [("another count than there is", "BTS[1]-1")]),
        (b"BTS|2\rFTS|7\r", [("another count than there is", "FTS[1]-1")]),
        (b"BTS|two\rFTS\r", [("a count that is no number", "BTS[1]-1")]),
        (b"BTS\rFTS\r", []),
        (b"", [("a header without its trailer: the delivery may have been cut off", name) for name in ("FHS", "BHS")]),
        (b"BTS|2\rBTS|0\rFTS|1\r", [("a trailer without its header", "BTS[2]")]),
    ],
)
def test_counts_that_do_not_agree_are_told_and_lose_nothing(trailer: bytes, told: list[tuple[str, str]]) -> None:
    """C11: BTS-1 and FTS-1."""
    items = list(split([b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + message(1) + message(2) + trailer]))
    assert fine(items) == ["1", "2"]
    assert odd(items) == told


def test_messages_straight_in_a_file_may_be_counted_as_one_batch_or_singly() -> None:
    """C11: FTS-1 counts batches, and there is none."""
    for count in (b"1", b"2"):
        assert odd(list(split([b"FHS|^~\\&|A\r" + message(1) + message(2) + b"FTS|" + count + b"\r"]))) == []


def test_one_bad_message_does_not_fail_the_rest() -> None:
    """C11: it comes out like the others, for whoever refuses it."""
    items = list(split([b"BHS|^~\\&|A\r" + message(1) + b"MSH|||||\rPID|1\r" + message(3) + b"BTS|3\r"]))
    assert [item.raw[:9] for item in items if isinstance(item, Entry)] == [b"MSH|^~\\&|", b"MSH|||||\r", b"MSH|^~\\&|"]
    assert odd(items) == []


def test_a_message_over_the_limit_is_left_out_and_told() -> None:
    """C11: whether its lines are many or one is long; the counts hold."""
    long_line = b"MSH|^~\\&|A\rOBX|1|ED|||" + b"x" * 200_000 + b"\rOBX|2\r"
    many_lines = b"MSH|^~\\&|A\r" + b"OBX|1|TX|||more\r" * 100
    data = b"BHS|^~\\&\r" + message(1) + long_line + message(2) + many_lines + message(3) + b"BTS|5\r"
    for size in (13, 1000, len(data)):
        items = list(split(pieces(data, size), max_message=500))
        assert fine(items) == ["1", "2", "3"]
        over = "a message over the limit: left out"
        assert odd(items) == [(over, "message 2"), (over, "message 4")]
    assert odd(list(split([frame(message(1)) + frame(b"MSH|" + b"x" * 600)], max_message=500))) == [(over, "message 2")]


def test_a_delivery_without_a_message_says_so() -> None:
    """C11: an empty file is not a success."""
    assert odd(list(split([]))) == [("no message at all", "the delivery")]
    assert odd(list(split([b"hello\r", b"world"]))) == [
        ("lines that belong to no message", "after message 0"),
        ("no message at all", "the delivery"),
    ]


def test_a_line_feed_inside_a_message_does_not_end_it() -> None:
    """C5: text of many lines stays in its message, even where a line begins with the letters of a header."""
    raw = b"MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5\rOBX|1|TX|||one\nMSHA\nBTS two\nthree\r"
    assert list(split([raw])) == [Entry(raw, 1)]


def test_a_long_delivery_is_a_stream() -> None:
    """C11: 50,000 messages, one at a time."""
    tracemalloc.start()
    try:
        chunk = b"".join(map(message, range(100)))
        count = sum(isinstance(item, Entry) for item in split(chunk for _ in range(500)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert peak < 1 << 20


def test_a_batch_is_known_by_its_start() -> None:
    starts = (b"\xef\xbb\xbf\r\nFHS|", b"BHS|", message(1), b"")
    assert list(map(is_batch, starts)) == [True, True, False, False]


def test_every_file_of_others_is_one_message(peer_data: Path) -> None:
    """The two projects' files, read in place: 143 files, each comes back whole."""
    files = sorted((peer_data / "hl7").glob("*/*.hl7"))
    assert len(files) == 143
    for file in files:
        raw = file.read_bytes()
        (item,) = split(pieces(raw, 700))
        assert isinstance(item, Entry), file.name
        assert item.raw.strip() == raw.removeprefix(b"\xef\xbb\xbf").strip()
