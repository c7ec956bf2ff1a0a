"""The MLLP decoder against rows F1 to F6 of what a receiver owes (framing and transport)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.frames import HEAD, Dropped, Event, Frame, FrameDecoder, Oversize, Skipped, Why, frame
from models.errors import Malformed

A, B, C = b"MSH|^~\\&|A", b"MSH|^~\\&|B", b"MSH|^~\\&|C"


def fed(decoder: FrameDecoder, *chunks: bytes) -> list[Event]:
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def payloads(events: Iterable[Event]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, Frame)]


def skipped(events: Iterable[Event]) -> int:
    return sum(event.count for event in events if isinstance(event, Skipped))


def dropped(events: Iterable[Event]) -> int:
    return sum(event.count for event in events if isinstance(event, Dropped))


# ---- F1 --------------------------------------------------------------------------------------------------------------


def test_many_frames_in_one_read_come_out_in_order() -> None:
    """F1: a merge of frames."""
    assert FrameDecoder().feed(frame(A) + frame(B) + frame(C)) == [Frame(A), Frame(B), Frame(C)]


def test_one_byte_per_read_gives_the_same_frames() -> None:
    """F1: a split into single bytes."""
    stream = frame(A) + frame(B)
    assert fed(FrameDecoder(), *(stream[at : at + 1] for at in range(len(stream)))) == [Frame(A), Frame(B)]


def test_a_frame_may_be_cut_anywhere() -> None:
    """F1: each cut of two frames into two reads, between the bytes of the trailer among them."""
    stream = frame(A) + frame(B)
    for cut in range(len(stream) + 1):
        assert payloads(fed(FrameDecoder(), stream[:cut], stream[cut:])) == [A, B]


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\x0b", b"").replace(b"\x1c", b"")), max_size=6))
def test_what_is_framed_comes_out(messages: list[bytes]) -> None:
    """F1: the round trip of anything but nothing."""
    stream = b"".join(map(frame, messages))
    assert payloads(FrameDecoder().feed(stream)) == [message for message in messages if message]


def test_bytes_of_the_frame_cannot_be_framed() -> None:
    for spoilt, at in ((b"MSH\x0b", 3), (b"MS\x1cH", 2)):
        with pytest.raises(Malformed) as caught:
            frame(spoilt)
        assert caught.value.where == f"byte {at}"


# ---- F2 --------------------------------------------------------------------------------------------------------------


def test_bytes_between_frames_are_skipped_and_counted() -> None:
    """F2: line ends, NUL, spaces and keep-alives before, between and after frames."""
    decoder = FrameDecoder()
    assert decoder.feed(b"\r\n" + frame(A) + b"\0 \r\n" + frame(B) + b"\n") == [Frame(A), Frame(B), Skipped(7)]
    assert decoder.feed(b"\0") == [Skipped(1)]
    assert not decoder.inside


def test_an_empty_frame_is_no_message() -> None:
    """F2: some senders keep a line alive with a frame around nothing."""
    assert FrameDecoder().feed(b"\x0b\x1c\r" + frame(A)) == [Frame(A), Skipped(2)]


# ---- F3 --------------------------------------------------------------------------------------------------------------


def test_an_end_byte_without_cr_is_data() -> None:
    """F3: 0x1C inside a message, strict and lenient, in one read and cut after it."""
    for lenient in (False, True):
        assert FrameDecoder(lenient_trailer=lenient).feed(b"\x0bab\x1ccd\x1c\r") == [Frame(b"ab\x1ccd")]
        assert fed(FrameDecoder(lenient_trailer=lenient), b"\x0bab\x1c", b"cd\x1c\r") == [Frame(b"ab\x1ccd")]


def test_a_lenient_source_may_leave_the_cr_out() -> None:
    """F3: a silence, the next start byte or the end of the connection completes the frame."""
    decoder = FrameDecoder(lenient_trailer=True)
    assert decoder.feed(b"\x0b" + A + b"\x1c") == []
    assert decoder.awaits_cr
    assert decoder.idle() == [Frame(A)]
    assert decoder.idle() == []
    assert decoder.feed(b"\x0b" + A + b"\x1c\x0b" + B + b"\x1c") == [Frame(A)]
    assert decoder.feed(b"\x0b" + C + b"\x1c") == [Frame(B)]
    assert decoder.eof() == [Frame(C)]


def test_a_strict_source_may_not() -> None:
    """F3: silence completes nothing, and a start byte after 0x1C is a second start (F4)."""
    decoder = FrameDecoder()
    assert decoder.feed(b"\x0b" + A + b"\x1c") == []
    assert decoder.idle() == []
    assert decoder.feed(frame(B)) == [Dropped(Why.SECOND_START, A + b"\x1c"), Frame(B)]


def test_a_silence_inside_a_message_completes_nothing() -> None:
    """F3: only what lacks the CR alone is complete."""
    decoder = FrameDecoder(lenient_trailer=True)
    decoder.feed(b"\x0bMSH|")
    assert decoder.idle() == []
    assert decoder.feed(b"x\x1c\r") == [Frame(b"MSH|x")]


def test_a_cr_that_comes_after_the_silence_is_skipped() -> None:
    """F3: the message was taken already; it is not taken twice."""
    decoder = FrameDecoder(lenient_trailer=True)
    decoder.feed(b"\x0b" + A + b"\x1c")
    assert decoder.idle() == [Frame(A)]
    assert decoder.feed(b"\r" + frame(B)) == [Frame(B), Skipped(1)]


# ---- F4 --------------------------------------------------------------------------------------------------------------


def test_a_second_start_drops_the_partial_and_begins_again() -> None:
    """F4: two messages are never glued, wherever the reads are cut."""
    stream = b"\x0bMSH|half" + frame(B)
    assert FrameDecoder().feed(stream) == [Dropped(Why.SECOND_START, b"MSH|half"), Frame(B)]
    for cut in range(len(stream)):
        events = fed(FrameDecoder(), stream[:cut], stream[cut:])
        assert events == [Dropped(Why.SECOND_START, b"MSH|half"), Frame(B)]


def test_a_flood_of_start_bytes_is_one_event_a_read() -> None:
    """F4: eight million start bytes cost neither memory nor events; the message after them is whole."""
    decoder = FrameDecoder()
    events = fed(decoder, *[b"\x0b" * 65536] * 128)
    assert len(events) <= 128
    assert dropped(events) == 128 * 65536 - 1
    assert decoder.kept == 0
    assert decoder.feed(A + b"\x1c\r") == [Frame(A)]


def test_the_head_of_a_dropped_frame_is_bounded() -> None:
    """F4: what is kept for the log is at most 4 KiB."""
    (event,) = fed(FrameDecoder(), b"\x0b" + b"x" * 3000, b"y" * 9000 + b"\x0b")
    assert event == Dropped(Why.SECOND_START, b"x" * 3000 + b"y" * (HEAD - 3000))


# ---- F5 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9, 10, 11, 12, 30])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_too_long_is_told_after_the_trailer_and_the_next_is_taken(size: int, step: int) -> None:
    """F5: exactly the limit is fine; one more byte is not; the connection lives on."""
    long = b"0123456789" * 3
    stream = frame(long[:size]) + frame(b"ok")
    decoder = FrameDecoder(max_message=10)
    events = fed(decoder, *(stream[at : at + step] for at in range(0, len(stream), step)))
    first = Frame(long[:size]) if size <= 10 else Oversize(long[:size], size)
    assert events == [first, Frame(b"ok")]


def test_while_too_much_comes_nothing_is_kept() -> None:
    """F5: 64 MB into a limit of one: the memory stays below the limit and one chunk."""
    decoder = FrameDecoder(max_message=1 << 20)
    tracemalloc.start()
    try:
        assert decoder.feed(b"\x0bMSH|^~\\&|A" + b"z" * 100) == []
        for _ in range(1024):
            assert decoder.feed(b"x" * 65536) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (1 << 20) * 1.5
    assert decoder.kept == HEAD
    (event,) = decoder.feed(b"\x1c\r")
    assert isinstance(event, Oversize)
    assert event.head.startswith(A)
    assert event.total == 110 + 1024 * 65536


def test_a_long_frame_that_never_ends_is_dropped_by_the_next_start() -> None:
    """F5 and F4: too long and unfinished is no message, so there is nothing to answer."""
    decoder = FrameDecoder(max_message=4)
    assert decoder.feed(b"\x0babcdefgh" + frame(b"ok")) == [Dropped(Why.SECOND_START, b"abcdefgh"), Frame(b"ok")]


def test_sixteen_megabytes_in_pieces_are_one_message() -> None:
    """F5: the default limit; kept once, not twice, when it is whole."""
    decoder = FrameDecoder()
    piece = b"0123456789abcdef" * 4096
    tracemalloc.start()
    try:
        decoder.feed(b"\x0b")
        for _ in range(256):
            assert decoder.feed(piece) == []
        (event,) = decoder.feed(b"\x1c\r")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(event, Frame)
    assert len(event.payload) == 16 << 20
    assert event.payload[:65536] == piece == event.payload[-65536:]
    assert peak < 40 << 20


# ---- F6 --------------------------------------------------------------------------------------------------------------


def test_an_end_inside_a_frame_drops_it() -> None:
    """F6: no message, no acknowledgement; an end between frames is nothing."""
    decoder = FrameDecoder()
    assert decoder.feed(frame(A) + b"\x0bMSH|half") == [Frame(A)]
    assert decoder.eof() == [Dropped(Why.ENDED, b"MSH|half")]
    assert decoder.eof() == []
    assert FrameDecoder().eof() == []


def test_a_whole_message_without_trailer_is_still_dropped() -> None:
    """F6: a strict source that ends the line after 0x1C has not finished its frame."""
    decoder = FrameDecoder()
    decoder.feed(b"\x0b" + A + b"\x1c")
    assert decoder.eof() == [Dropped(Why.ENDED, A + b"\x1c")]


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_junk_between_frames_is_not_kept() -> None:
    """24 million bytes that belong to no frame leave nothing behind."""
    decoder = FrameDecoder()
    assert skipped(fed(decoder, *[b"\r\n\0 junk" * 8192] * 366)) == 366 * 65536
    assert decoder.kept == 0
    assert decoder.feed(frame(A)) == [Frame(A)]


class Counted(bytes):
    """Bytes that count how far they were searched: a decoder that looks again and again is found out."""

    looked = 0

    def find(self, wanted: bytes, at: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        found = super().find(wanted, at, len(self) if end is None else end)
        Counted.looked += (found if found >= 0 else len(self) if end is None else end) - at
        return found


def test_each_gap_is_looked_at_once() -> None:
    """Ten thousand tiny frames in one read: the search for the next start never begins at the front again."""
    Counted.looked = 0
    stream = Counted((frame(b"x") + b"\n") * 10_000)
    events = FrameDecoder().feed(stream)
    assert len(payloads(events)) == 10_000
    assert Counted.looked <= len(stream)
