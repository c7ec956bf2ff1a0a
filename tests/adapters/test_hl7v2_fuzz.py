"""Whatever comes: the decoder and the splitter neither crash nor hang nor lose, and their cost grows with the length.

Half a minute of processor time; `tests/soak/test_fuzz_hl7v2.py` is the other half, with all that stands behind them.
Cost is counted in lines of our own code that run, never timed: a second more on a slow machine says nothing, a cost
that grows fourfold when the input doubles does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.hl7v2 import acks, batch
from adapters.hl7v2.columns import Columns
from adapters.hl7v2.escapes import escape
from adapters.hl7v2.frames import Dropped, Event, Frame, FrameDecoder, Oversize, Skipped, frame
from adapters.hl7v2.message import MOST_REPETITIONS, Message, Undecodable, parse
from models.errors import BadInput, TooLarge

FRAMING = st.lists(
    st.one_of(
        st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"\x1c\x0b", b"\n", b"MSH|", b"\x0bMSH|1\x1c\r"]),
        st.binary(max_size=12),
    ),
    max_size=40,
).map(b"".join)
PIECES = st.sampled_from(
    [
        *(
            "MSH|^~\\&|",
            "MSH",
            "|",
            "^",
            "~",
            "\\",
            "&",
            "#",
            "\r",
            "\n",
            "\r\n",
            '""',
            "PID|",
            "OBX|1|NM|",
            "ZDS",
            "DSC|1",
        ),
        *("\\F\\", "\\X41", "\\X", "\\.br\\", "\\.sp99\\", "\\C2842\\", "\\M2442\\", "\\E\\", "FHS|", "BHS|", "BTS|1"),
        *("8859/1", "UNICODE UTF-8", "GB 18030-2000", "~ISO IR87", "\x1b$B", "\x1b(B", "2.5.1", "20260301", "é", "\0"),
    ]
).map(str.encode)
BODY = st.lists(st.one_of(PIECES, st.binary(max_size=6)), max_size=60).map(b"".join)
HEADED = st.builds(
    lambda delimiters, charset, body: (
        b"MSH" + delimiters + b"|A|B|C|D|2026||ORU^R01|1|P|2.5||||||" + charset + b"\r" + body
    ),
    st.one_of(st.just(b"|^~\\&"), st.binary(min_size=5, max_size=6)),
    st.sampled_from([b"", b"8859/1", b"UNICODE UTF-8", b"GB 18030-2000", b"~ISO IR87", b"BIG-5", b"x"]),
    BODY,
)


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    places = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


def summary(events: list[Event]) -> tuple[list[Event], int, int]:
    """What must not depend on how the bytes came: messages in order, and two sums."""
    whole = [event for event in events if isinstance(event, Frame | Oversize)]
    return (
        whole,
        sum(event.count for event in events if isinstance(event, Skipped)),
        sum(event.count for event in events if isinstance(event, Dropped)),
    )


def decoded(chunks: Iterable[bytes], limit: int, lenient: bool) -> list[Event]:
    decoder = FrameDecoder(limit, lenient)
    events = []
    for chunk in chunks:
        events += decoder.feed(chunk)
        assert decoder.kept <= max(limit + 1, 4096)
    return events + decoder.eof()


@settings(max_examples=1500)
@given(FRAMING, st.lists(st.integers(0, 10_000), max_size=8), st.sampled_from([3, 10, 1000]), st.booleans())
def test_any_split_gives_the_same_frames(data: bytes, at: list[int], limit: int, lenient: bool) -> None:
    whole = summary(decoded([data], limit, lenient))
    assert summary(decoded(cut(data, at), limit, lenient)) == whole
    assert summary(decoded((data[place : place + 1] for place in range(len(data))), limit, lenient)) == whole


@settings(max_examples=300)
@given(FRAMING)
def test_no_frame_holds_another(data: bytes) -> None:
    """F4: a start byte inside would be two messages glued."""
    for event in decoded([data], 1000, lenient=False):
        if isinstance(event, Frame):
            assert b"\x0b" not in event.payload
            assert b"\x1c\r" not in event.payload
            assert event.payload in data


@settings(max_examples=400)
@given(FRAMING, st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4))
def test_after_any_junk_whole_frames_are_not_lost(junk: bytes, messages: list[bytes]) -> None:
    clean = [message.translate(None, b"\x0b\x1c") or b"x" for message in messages]
    events = decoded([junk, *map(frame, clean)], 1 << 20, lenient=False)
    assert [event.payload for event in events if isinstance(event, Frame)][-len(clean) :] == clean


def looked_through(message: Message) -> None:
    """Everything that a reader may ask."""
    columns = Columns("OBX", "1", "2", "3.1", "3.2.2", "5")
    assert list(columns.rows(message)) == [
        [segment.text(1), segment.text(2), segment.text(3), segment.text(3, 2, 2), segment.text(5)]
        for segment in message.all("OBX")
    ]
    for segment in message:
        for number in range(1, len(segment) + 2):
            segment.state(number)
            assert segment.text(number) == segment.first(number).text()
            for repetition in segment.field(number):
                repetition.state(2)
                assert repetition.components[0] == repetition.text()
                assert len(repetition.whole) <= 2 * len(repetition.raw)
    message.get("PID-3[2].4.2")
    assert message.version
    assert message.trigger
    assert message.fragment in (None, "MSH-14", "DSC", "ADD")


@settings(max_examples=2000)
@given(st.one_of(st.binary(max_size=200), BODY, HEADED), st.sampled_from(Undecodable))
def test_any_bytes_are_a_message_or_bad_input(raw: bytes, policy: Undecodable) -> None:
    try:
        message = parse(raw, undecodable=policy)
    except BadInput as error:
        if not error.where:
            raise
        return
    looked_through(message)


@settings(max_examples=500)
@given(st.one_of(BODY, HEADED), st.lists(st.integers(0, 10_000), max_size=6))
def test_any_delivery_is_split_the_same_in_any_cut(raw: bytes, at: list[int]) -> None:
    whole = list(batch.split([raw], max_message=300))
    assert list(batch.split(cut(raw, at), max_message=300)) == whole
    for item in whole:
        if isinstance(item, batch.Entry):
            assert item.raw.rstrip(b"\r") in raw
            acks.plan(acks.header_of(item.raw))


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@settings(max_examples=500)
@given(st.lists(st.lists(st.lists(TEXT, min_size=1, max_size=3), min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_was_written_is_read(field: list[list[list[str]]]) -> None:
    """Repetitions of components of sub-components: escaped, sent, split, unescaped."""
    sent = "~".join("^".join("&".join(map(escape, component)) for component in repetition) for repetition in field)
    message = parse(f"MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5||||||UNICODE UTF-8\rPID|1||{sent}|\r".encode())
    segment = message["PID"]
    for number, repetition in enumerate(field, 1):
        for component, subs in enumerate(repetition, 1):
            for sub, text in enumerate(subs, 1):
                expected = "" if text == '""' else text
                assert message.get(f"PID-3[{number}].{component}.{sub}") == expected
    assert segment.raw(3) == sent


@settings(max_examples=500)
@given(st.data())
def test_spoilt_messages_of_others_do_no_harm(peer_data: Path, data: st.DataObject) -> None:
    """Real messages with some bytes changed, cut out or doubled."""
    files = sorted((peer_data / "hl7").glob("*/*.hl7"))
    raw = bytearray(data.draw(st.sampled_from(files)).read_bytes()[:5000])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["change", "cut", "double"])):
            case "change":
                raw[at] = data.draw(st.one_of(st.sampled_from(b"\x0b\x1c\r\n|^~\\&\x1b\0\xff"), st.integers(0, 255)))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 50))]
                raw += b"\r"
            case "double":
                raw[at:at] = raw[at : at + 50]
    acks.header_of(bytes(raw))
    try:
        message = parse(bytes(raw), undecodable=Undecodable.WARN)
    except BadInput:
        return
    looked_through(message)


# ---- cost ------------------------------------------------------------------------------------------------------------


def steps(act: Callable[[], Any]) -> int:
    """Lines of the package that run."""
    count = 0

    def lines(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return lines

    def calls(frame: FrameType, event: str, argument: Any) -> Any:
        return lines if "hl7v2" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(calls)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def read_all(raw: bytes) -> None:
    message = parse(raw)
    for segment in message:
        for number in range(len(segment) + 1):
            for repetition in segment.field(number):
                repetition.text()


HEADER = b"MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5\r"
COSTS: dict[str, tuple[Callable[[bytes], Any], bytes, bytes]] = {
    "start bytes": (lambda data: decoded([data], 1 << 20, lenient=False), b"", b"\x0b"),
    "starts and letters": (lambda data: decoded([data], 1 << 20, lenient=True), b"", b"\x0bA"),
    "end bytes": (lambda data: decoded([data], 1 << 20, lenient=True), b"\x0b", b"\x1cA"),
    "tiny frames": (lambda data: decoded([data], 1 << 20, lenient=False), b"", b"\x0bA\x1c\r"),
    "tiny lenient frames": (lambda data: decoded([data], 1 << 20, lenient=True), b"", b"\x0bA\x1c"),
    "one byte a read": (lambda data: decoded((b"%c" % byte for byte in data), 1 << 20, lenient=False), b"\x0b", b"x"),
    "segments": (read_all, HEADER, b"OBX|1\r"),
    "blank lines": (read_all, HEADER, b"\r\n"),
    "fields": (read_all, HEADER + b"OBX", b"|a"),
    "repetitions": (read_all, HEADER + b"OBX|", b"a~"),
    "escapes": (read_all, HEADER + b"OBX|", b"\\T\\"),
    "broken escapes": (read_all, HEADER + b"OBX|", b"\\X41"),
    "broken charset escapes": (read_all, HEADER + b"OBX|", b"\\M2442"),
    "strays": (read_all, HEADER, b"?\r"),
    "lines of a file": (lambda data: list(batch.split([data])), HEADER, b"OBX|1\n"),
    "messages of a file": (lambda data: list(batch.split([data])), b"BHS|\r", HEADER),
}


@pytest.mark.parametrize("case", COSTS)
def test_the_cost_grows_with_the_length(case: str) -> None:
    """Twice the input, at most a little more than twice the lines that run; a flood of one kind at a time."""
    act, start, flood = COSTS[case]
    short, long = (steps(lambda times=times: act(start + flood * times)) for times in (500, 1000))  # type: ignore[misc]
    assert long <= 2.2 * short + 200


FLOODS = (
    *("\\X", "\\X41", "\\M2442", "\\C2842\\", "\\.sp", "\\.sp-1", "^", "&", "~", "|", "^&"),
    *("\xff", "\x1b$B", "\x1b(B", "\r", "\n"),
)


@pytest.mark.parametrize("flood", FLOODS, ids=repr)
@pytest.mark.parametrize("charset", ["", "ASCII", "GB 18030-2000", "~ISO IR87", "KS X 1001"])
def test_nothing_is_tried_again_and_again(flood: str, charset: str) -> None:
    """What runs inside `re` and the codecs has no lines: half a megabyte of each ends, or the suite's guard stops."""
    head = HEADER[:-1] + b"||||||" + charset.encode() + b"\r"
    body = flood.encode("latin-1") * (500_000 // len(flood))
    try:
        message = parse(head + b"OBX|1|" + body + b"\r", undecodable=Undecodable.WARN)
        for segment in message.segments[:10]:
            assert segment.first(2).components[0] == segment.text(2)
            assert len(segment.field(2)) <= MOST_REPETITIONS
    except TooLarge:
        assert flood in "~\r\n"


@pytest.mark.parametrize("flood", [b"x", b"\n", b"MSH|\n", b"BTS|1\r", b"\x0b", b"\x0bx", b"\x0b\x1c\r", b"\x1c"])
def test_no_delivery_is_looked_through_again_and_again(flood: bytes) -> None:
    """Two megabytes in one piece, of one kind, end."""
    data = flood * (2_000_000 // len(flood))
    for start in (b"", b"MSH|^~\\&|\r", b"\x0b"):
        assert list(batch.split([start + data], max_message=100_000))[-1]
        FrameDecoder(100_000, lenient_trailer=True).feed(start + data)


def test_too_many_segments_are_refused_before_they_are_made() -> None:
    """Sixteen megabytes of the shortest segments would be a gigabyte of objects."""
    with pytest.raises(TooLarge):
        parse(HEADER + b"Z\r" * 300_000)
    assert len(parse(HEADER + b"NTE\r" * 200_000)) == 200_001


def test_a_header_of_nothing_but_headers_is_answered() -> None:
    acks.header_of(b"MSH" * 1_000_000)
    acks.header_of(b"MSH|" * 1_000_000)
