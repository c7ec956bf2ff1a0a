"""What must hold of the HL7 v2 code for any bytes at all: one function for each part of it, bytes in, nothing out.

A target raises AssertionError where something does not hold, and anything else where the code lets out what it must
not: only `CdsError` may come of bad input. The first byte of an input chooses the target, the second its options, so
that one corpus, and one search for new paths, serves all of them.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from adapters.hl7v2 import acks, batch
from adapters.hl7v2.charsets import Undecodable, charset_of, decode
from adapters.hl7v2.columns import Columns
from adapters.hl7v2.escapes import STANDARD, Delimiters, delimiters_of, escape, unescaper_of
from adapters.hl7v2.feed import DEFAULT, Feed
from adapters.hl7v2.findings import kind_of
from adapters.hl7v2.frames import START, TRAILER, Dropped, Event, Frame, FrameDecoder, Oversize, Skipped, frame
from adapters.hl7v2.masking import MASK, masked
from adapters.hl7v2.message import NULL, Message, parse
from adapters.hl7v2.places import path
from adapters.hl7v2.structure import conformance
from adapters.hl7v2.times import Zones, moment, time_of_day, zone
from adapters.readers import hl7v2
from models.errors import BadInput, CdsError
from models.nouns import Part

NOW = "2026-03-01T09:00:00.000000Z"
ZURICH = zone("Europe/Zurich")
FEEDS = (DEFAULT, Feed("ward", zone="Europe/Zurich", accept_claims=True), Feed("lab", charset="8859/1"))
CHARSETS = (
    *("", "ASCII", "8859/1", "8859/5", "8859/15", "UNICODE UTF-8", "GB 18030-2000", "BIG-5", "KS X 1001", "ISO IR14"),
    *("~ISO IR87", "ASCII~ISO IR159", "UNICODE", "WINDOWS-1252", "ISO IR6", "nothing"),
)
LIMITS = (3, 16, 300, 1 << 20)
CAUSES = tuple(acks.Cause)
_FRAMING = re.compile(rb"[\x0b\x1c]")
_OURS = re.compile(r"[A-Za-z0-9 ,.:;'()/\[\]_-]*")


def must(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)


# ---- frames and deliveries -------------------------------------------------------------------------------------------


def cut(data: bytes, option: int) -> list[bytes]:
    """Pieces whose lengths follow from the data itself."""
    places, at = [0], 0
    while at < len(data):
        at += 1 + (data[at] ^ option) % 23
        places.append(min(at, len(data)))
    return [data[begin:end] for begin, end in pairwise(places)]


def told(chunks: Iterable[bytes], limit: int, lenient: bool) -> tuple[list[Event], int, int]:
    """What must not depend on the cut: messages in order, bytes passed over, frames begun in vain."""
    decoder, events = FrameDecoder(limit, lenient), list[Event]()
    for chunk in chunks:
        events += decoder.feed(chunk)
        assert decoder.kept <= max(limit + 1, 4096), "more in memory than one message"
    events += decoder.eof()
    assert not decoder.inside
    return (
        [event for event in events if isinstance(event, Frame | Oversize)],
        sum(event.count for event in events if isinstance(event, Skipped)),
        sum(event.count for event in events if isinstance(event, Dropped)),
    )


def frames(data: bytes, option: int) -> None:
    """F1-F6: any cut gives the same; nothing is glued; a whole frame after any junk is not lost."""
    limit, lenient = LIMITS[option & 3], bool(option & 4)
    whole = told([data], limit, lenient)
    assert told(cut(data, option), limit, lenient) == whole
    if len(data) < 500:
        assert told((data[at : at + 1] for at in range(len(data))), limit, lenient) == whole
    for event in whole[0]:
        if isinstance(event, Frame):
            assert START not in event.payload
            assert len(event.payload) <= limit
            assert TRAILER not in event.payload
            assert event.payload in data
        elif isinstance(event, Oversize):
            assert event.total > limit
            assert len(event.head) <= 4096
    assert len(whole[0]) <= data.count(START)
    after, _, _ = told([data, frame(b"MSH")], 1 << 20, lenient)
    assert after[-1] == Frame(b"MSH"), "a whole frame was lost"


def deliveries(data: bytes, option: int) -> None:
    """C11: the same messages however the bytes come; no message out of nothing."""
    limit = LIMITS[option & 3]
    whole = list(batch.split([data], max_message=limit))
    assert list(batch.split(cut(data, option), max_message=limit)) == whole
    messages = [item for item in whole if isinstance(item, batch.Entry)]
    assert [item.number for item in messages] == sorted({item.number for item in messages})
    assert sum(len(item.raw) for item in messages) <= len(data) + len(messages)
    for item in whole:
        if isinstance(item, batch.Entry):
            assert item.raw.rstrip(b"\r\n\0") in data
        else:
            assert _OURS.fullmatch(item.what + item.where), "a value in a note"
    batch.is_batch(data)


# ---- the message -----------------------------------------------------------------------------------------------------


def looked_through(message: Message) -> None:
    """Everything that a reader may ask."""
    columns = Columns("OBX", "1", "2", "3.1", "3.2.2", "5")
    assert list(columns.rows(message)) == [
        [segment.text(1), segment.text(2), segment.text(3), segment.text(3, 2, 2), segment.text(5)]
        for segment in message.all("OBX")
    ]
    for segment in message:
        assert path(str(segment.place())) == segment.place()
        for number in range(1, min(len(segment), 300) + 2):
            segment.state(number)
            assert segment.text(number) == segment.first(number).text()
            repetitions = segment.field(number)
            assert bool(repetitions) == bool(segment.raw(number))
            for repetition in repetitions[:200]:
                repetition.state(2)
                assert repetition.components[0] == repetition.text()
                assert len(repetition.whole) <= 2 * len(repetition.raw)
    message.get("PID-3[2].4.2")
    assert message.version
    assert message.trigger
    assert message.fragment in (None, "MSH-14", "DSC", "ADD")


def messages(data: bytes, option: int) -> None:
    """A message or bad input, with the place; nothing of the text is lost between the segments."""
    try:
        message = parse(data, CHARSETS[option >> 4] or None, undecodable=tuple(Undecodable)[option & 1])
    except BadInput as error:
        must(error.where and _OURS.fullmatch(error.what), "a complaint without a place, or with a value")
        return
    looked_through(message)


def escapes(data: bytes, option: int) -> None:
    """Undone once; written and read again, text is what it was; no few bytes become many."""
    delimiters = STANDARD
    if option & 1 and len(data) > 5:
        try:
            delimiters = delimiters_of(chr(data[0]), data[1:5].decode("latin-1"))
        except BadInput:
            delimiters = Delimiters("|", "$", "%", "!", "?")
    text = data.decode("utf-8", "replace")
    names = tuple(CHARSETS[(option >> 4) % 15].split("~"))
    unescape = unescaper_of(delimiters, charset_of(names))
    assert len(unescape(text)) <= 2 * len(text) + 16
    written = escape(text, delimiters)
    assert not re.search(r"[\x00-\x1f\x7f]", written)
    assert not set(written) & (set(delimiters[:5]) - {delimiters.escape})
    said = re.sub(r"[\x00-\x09\x0b-\x1f\x7f]", "", text)
    assert unescape(written) == said, "text that was written was not read"


def charsets(data: bytes, option: int) -> None:
    """Bytes become text by any declared set, or are refused with the place."""
    names = tuple(CHARSETS[option & 15].split("~"))
    try:
        text, notes = decode(data, charset_of(names), tuple(Undecodable)[option >> 4 & 1])
    except BadInput as error:
        must(error.where and error.where.startswith("MSH-18"), "a complaint without its place")
        return
    assert len(text) <= 2 * len(data)
    assert all(map(_OURS.fullmatch, notes))
    text.encode("utf-8", "strict")


def times(data: bytes, option: int) -> None:
    """A time is one that FHIR takes, no more precise than it was sent, or it is refused."""
    text = data.decode("latin-1")
    zones = Zones("+0100" if option & 1 else None, ZURICH if option & 2 else None)
    try:
        found = moment(text, "PID-7", zones, degree="YLDHMS"[option % 6] if option & 64 else "")
    except BadInput as error:
        must(_OURS.fullmatch(error.what), "a complaint with a value")
    else:
        assert re.fullmatch(
            r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d))?)?)?", found.text, re.ASCII
        )
        assert found.text.replace("-", "")[:4] == text.strip()[:4]
        assert (found.instant is not None) == found.zoned
        if "T" in found.text and not re.search(r":60(\.|[+-Z])", found.text):
            datetime.fromisoformat(re.sub(r"\.\d+", "", found.text))
    with contextlib.suppress(BadInput):
        assert re.fullmatch(r"\d\d:\d\d:\d\d(\.\d{1,9})?", time_of_day(text, "OBX-5"), re.ASCII)


ANSWERS = acks.Acknowledger(lambda: datetime(2026, 3, 1, 9, tzinfo=UTC))


def answers(data: bytes, option: int) -> None:
    """A3-A5: whatever came, an answer is one frame of whole segments that names it byte for byte."""
    header = acks.header_of(data, CHARSETS[option >> 4] or None)
    acks.plan(header)
    problem = acks.Problem(CAUSES[option % len(CAUSES)], path("OBX[4]-5[2].1") if option & 1 else None, "no number")
    code = tuple(acks.Code)[option % 6]
    answer = ANSWERS.answer(header, code, [problem] * (option % 3), text="not taken")
    assert not _FRAMING.search(answer), "an answer that breaks its frame"
    assert [line[:3] for line in answer.split(b"\r")[:2]] == [b"MSH", b"MSA"]
    assert all(line[:3] == b"ERR" for line in answer.split(b"\r")[2:-1])
    assert len(answer) < 4 * 4096 + 1000
    field = header.delimiters.field.encode()
    assert answer.split(b"\r")[1].split(field)[1:3] == [code.encode(), header.control_id]
    again = acks.header_of(answer, CHARSETS[option >> 4] or None)
    assert again.is_ack, "an answer that would be answered"


# ---- what reads it ---------------------------------------------------------------------------------------------------


def reader(data: bytes, option: int) -> None:
    """Statements, or `CdsError` with our words; pure; each resource has its type and id, and is JSON."""
    feed = FEEDS[option % len(FEEDS)]
    part = Part("0" * 32, 0, feed.namespace, hl7v2.MESSAGE, NOW, data)
    try:
        found = hl7v2.read(part, feed)
    except CdsError as error:
        must(isinstance(error, BadInput), "bad input that is called something else")
        must(_OURS.fullmatch(error.what), "a complaint with a value")
        return
    for statement in found:
        assert statement.resource_type
        assert 0 < len(statement.local_id) <= 64
        if statement.body is not None:
            assert statement.body["resourceType"] == statement.resource_type
            assert statement.body["id"] == statement.local_id
            json.dumps(statement.body, allow_nan=False, default=str).encode("utf-8", "strict")
    if option & 128:
        assert hl7v2.read(part, feed) == found, "the same bytes, another reading"


def masks(data: bytes, option: int) -> None:
    """Any place of any message can be shown masked; a name never is shown."""
    try:
        message = parse(data, undecodable=Undecodable.WARN)
    except BadInput:
        return
    for segment in message.segments[:60]:
        for number in range(1, min(len(segment), 60) + 1):
            for repetition in segment.field(number)[:5]:
                for component in range(1, min(repetition.raw.count(message.delimiters.component), 12) + 2):
                    shown = masked(repetition, component, 1 + option % 3, message.version)
                    if segment.name == "PID" and number == 5 and component < 7:
                        assert shown in ("", NULL, MASK), "a name is shown"


def conforming(data: bytes, option: int) -> None:
    """Findings name a place and a rule, never a value; there is an end to them."""
    try:
        found = conformance(data, 5.0, CHARSETS[option >> 4] or None)
    except BadInput:
        return
    assert len(found) <= 201
    for each in found:
        assert _OURS.fullmatch(each.rule)
        assert _OURS.fullmatch(each.place)
        assert all(map(_OURS.fullmatch, kind_of(each, "ORU_R01")))


TARGETS: Sequence[Callable[[bytes, int], None]] = (
    *(frames, deliveries, messages, escapes, charsets, times, answers, reader, masks, conforming),
    *(messages, reader, reader),
)
"""By the first byte, modulo; those with the most paths stand more than once."""


def run(data: bytes) -> str:
    """One input; the name of its target."""
    if len(data) < 2:
        return ""
    target = TARGETS[data[0] % len(TARGETS)]
    target(data[2:], data[1])
    return target.__name__


# ---- where to begin --------------------------------------------------------------------------------------------------

WORDS = (
    *("MSH|^~\\&|", "PID|1||", "PV1|1|I|", "ORC|RE|", "OBR|1||", "OBX|1|NM|", "OBX|1|ED|", "OBX|1|SN|", "NTE|1||"),
    *("SPM|1|", "TXA|1|", "RXA|0|1|", "SCH|", "MRG|", "AL1|1|", "DG1|1||", "PR1|1||", "NK1|1|", "IN1|1|", "AIS|1|"),
    *("ADT^A01", "ADT^A03", "ADT^A08", "ADT^A11", "ADT^A18", "ADT^A24", "ADT^A34", "ADT^A40", "ADT^A47", "ORU^R01"),
    *("ORM^O01", "OML^O21", "OMG^O19", "OMI^O23", "MDM^T02", "VXU^V04", "SIU^S12", "DFT^P03", "BAR^P01", "ACK^A01"),
    *(
        "\\F\\",
        "\\S\\",
        "\\T\\",
        "\\X41\\",
        "\\.br\\",
        "\\.sp9\\",
        "\\C2842\\",
        "\\M2442\\",
        "\\Z1\\",
        '""',
        "^^^",
        "~~",
    ),
    *("FHS|", "BHS|", "BTS|1\r", "FTS|1\r", "\x0bMSH|", "\x1c\r", "\x1b$B", "\x1b(B", "2.5.1", "2.8", "2.1", "|P|"),
    *(
        "UNICODE UTF-8",
        "8859/1",
        "GB 18030-2000",
        "~ISO IR87",
        "20260301120000+0100",
        "1965",
        "60",
        "|F|",
        "|W|",
        "|D|",
    ),
)
"""What a search by bytes would need years to find."""


def seeds(*folders: Path, longest: int = 3000) -> list[bytes]:
    """An input for each target out of each message of others, and a few that no message teaches."""
    made = []
    every = range(len(TARGETS) - 3)
    for file in sorted(each for folder in folders for each in folder.rglob("*.hl7")):
        raw = file.read_bytes()
        if len(raw) <= longest:
            lines = raw.replace(b"\r\n", b"\r").replace(b"\n", b"\r")
            made += [bytes([target, len(raw) & 255]) + (frame_of(lines) if target == 0 else lines) for target in every]
    for text in ("20260301", "20260301120000.1234+0100", "202603", "1200", "2026030112", "20261301"):
        made += [bytes([5, option]) + text.encode() for option in (0, 1, 2, 66)]
    made += [bytes([3, option]) + "".join(WORDS).encode() for option in range(0, 256, 16)]
    made += [bytes([4, option]) + "Grüße \x1b$B$3$s\x1b(B".encode() for option in range(16)]
    return made


def frame_of(raw: bytes) -> bytes:
    return frame(_FRAMING.sub(b"", raw) or b"x")


# ---- other inputs out of one -----------------------------------------------------------------------------------------


def rebuilt(raw: bytes, chance: random.Random) -> bytes:
    """An input with its lines and fields in other places: what a search by bytes seldom makes of a message."""
    lines = raw[2:].split(b"\r")
    for _ in range(chance.randint(1, 3)):
        at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                lines.insert(to, lines[at])
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines[at], lines[to] = lines[to], lines[at]
            case 3:
                lines.insert(to, chance.choice(WORDS).encode() + lines[at][4:])
            case _:
                lines[at] = _changed(lines[at], lines[to], chance)
    return raw[:2] + b"\r".join(lines)


def _changed(line: bytes, other: bytes, chance: random.Random) -> bytes:
    """A line with one of its fields (or components) replaced, repeated or emptied."""
    by = chance.choice((b"|", b"|", b"^", b"~"))
    fields = line.split(by)
    at = chance.randrange(len(fields))
    word = chance.choice(WORDS).encode()
    fields[at] = chance.choice((b"", b'""', word, chance.choice(other.split(by)), fields[at] + b"~" + fields[at]))
    return by.join(fields)
