"""Acknowledgements against rows A1 to A5 and A8 of what a receiver owes, and against hl7apy's tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message as Structure
from hl7apy.parser import parse_segment
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.acks import Acknowledger, Cause, Code, Header, Plan, Problem, When, header_of, plan
from adapters.hl7v2.frames import Frame, FrameDecoder, Oversize, frame
from adapters.hl7v2.message import parse as parsed
from adapters.hl7v2.places import path

NOW = datetime(2026, 3, 1, 10, 15, tzinfo=UTC)
PROBLEMS = (
    Problem(Cause.REQUIRED, path("PID-3.1"), "no identifier | at all"),
    Problem(Cause.EVENT, path("MSH-9")),
    Problem(Cause.INTERNAL, severity="W"),
)
VERSIONS = ("2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")


def message(**given: str) -> bytes:
    """An ORU by the names of its header's fields."""
    fields = {
        "delimiters": "|^~\\&",
        "from_": "LAB|HOSP",
        "to": "CDS|OTHER",
        "at": "20260301091530+0100",
        "type": "ORU^R01^ORU_R01",
        "id": "MSG1",
        "processing": "P",
        "version": "2.5.1",
        "accept": "",
        "application": "",
        "charset": "",
        **given,
    }
    line = (
        "MSH{delimiters}|{from_}|{to}|{at}||{type}|{id}|{processing}|{version}|||{accept}|{application}||{charset}"
    ).format(**fields)
    return line.encode() + b"\rPID|1||123\r"


def answer(raw: bytes, code: Code = Code.AA, problems: tuple[Problem, ...] = (), text: str = "") -> bytes:
    return Acknowledger(lambda: NOW).answer(header_of(raw), code, problems, text=text)


# ---- A1: which answers -----------------------------------------------------------------------------------------------


def test_the_original_mode_wants_one_answer_always() -> None:
    """A1: MSH-15 and MSH-16 empty."""
    assert plan(header_of(message())) == Plan(False, When.NEVER, When.ALWAYS)


@pytest.mark.parametrize(
    ("accept", "application", "wanted"),
    [
        ("AL", "NE", Plan(True, When.ALWAYS, When.NEVER)),
        ("NE", "AL", Plan(True, When.NEVER, When.ALWAYS)),
        ("ER", "SU", Plan(True, When.ON_ERROR, When.ON_SUCCESS)),
        ("AL", "", Plan(True, When.ALWAYS, When.NEVER)),
        ("", "ER", Plan(True, When.NEVER, When.ON_ERROR)),
        ("??", "NE", Plan(True, When.ALWAYS, When.NEVER)),
        ("NE", "NE", Plan(True, When.NEVER, When.NEVER)),
    ],
)
def test_the_enhanced_mode_wants_what_it_says(accept: str, application: str, wanted: Plan) -> None:
    """A1: either one valued; a code of no table is answered rather than not."""
    assert plan(header_of(message(accept=accept, application=application))) == wanted


def test_a_condition_is_due_by_the_outcome() -> None:
    """A1: table 0155."""
    due = {when: (when.due(True), when.due(False)) for when in When}
    assert due == {
        When.ALWAYS: (True, True),
        When.NEVER: (False, False),
        When.ON_ERROR: (False, True),
        When.ON_SUCCESS: (True, False),
    }


@pytest.mark.parametrize("kind", ["ACK", "ACK^R01^ACK", "MCF"])
def test_an_acknowledgement_is_not_acknowledged(kind: str) -> None:
    """A8: or two systems would talk for ever."""
    wanted = plan(header_of(message(type=kind, accept="AL", application="AL")))
    assert (wanted.accept, wanted.application) == (When.NEVER, When.NEVER)


# ---- A3: echo and errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|ID-\xff\\T\\^x|P|2.5\r",
        b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|ID-\xff\\T\\^x",
        b"\xef\xbb\xbf\r\n MSH|^~\\&|A|B|C|D|2026||ADT^A01|ID-\xff\\T\\^x|P|9.9|" + b"x" * 100_000,
        b"MSH|^^^^|A|B|C|D|2026||ADT^A01|ID-\xff\\T\\^x|P|2.5\r",
        b"junk before MSH|^~\\&|A|B|C|D|2026||ADT^A01|ID-\xff\\T\\^x|P\nPID|",
    ],
)
def test_the_control_id_is_echoed_byte_for_byte_even_if_nothing_can_be_parsed(raw: bytes) -> None:
    """A3: MSA-2, from the first 4 KiB of whatever came."""
    assert b"\rMSA|AE|ID-\xff\\T\\^x\r" in answer(raw, Code.AE)


@pytest.mark.parametrize("raw", [b"", b"MSH", b"MSH|", b"PID|1", b"MSH\r|^~\\&|", b"\0" * 9000 + b"MSH|^~\\&|"])
def test_even_nothing_gets_an_answer(raw: bytes) -> None:
    """A3: a refusal without a control id, because there is none."""
    head, rest = answer(raw, Code.AR).split(b"||ACK|")
    assert head == b"MSH|^~\\&|||||20260301101500+0000"
    assert rest[20:] == b"|P|2.5\rMSA|AR|\r"


def test_a_message_that_was_too_long_is_refused_by_its_id() -> None:
    """A3, F5: the head of it is all that was kept, and enough."""
    raw = message(id="LONG-1") + b"OBX|1|ED|||" + b"x" * 50_000
    (event,) = FrameDecoder(max_message=20_000).feed(frame(raw))
    assert isinstance(event, Oversize)
    refused = answer(event.head, Code.AR, (Problem(Cause.LENGTH),))
    assert refused.endswith(b"\rMSA|AR|LONG-1\rERR|||104^Value too long^HL70357|E\r")


def test_half_a_character_is_not_taken_for_a_delimiter() -> None:
    """A3, C3: in GB 18030 the second byte of a character may be 0x7C."""
    name = "\u4e85".encode("gb18030")
    assert b"|" in name
    raw = b"MSH|^~\\&|" + name * 3 + b"|B|C|D|2026||ADT^A01|77|P|2.5|||||"
    declared = header_of(raw + b"|GB 18030-2000\r")
    assert (declared.control_id, declared.sending) == (b"77", (name * 3, b"B"))
    assert header_of(raw, "GB 18030-2000").control_id == b"77"
    assert parsed(raw + b"|GB 18030-2000\r")["MSH"].text(3) == "\u4e85" * 3
    assert parsed(raw, "GB 18030-2000")["MSH"].text(10) == "77"


def test_text_is_said_until_2_6() -> None:
    """A3: MSA-3 was withdrawn in 2.7."""
    assert answer(message(version="2.6"), Code.AE, text="not | now").endswith(b"\rMSA|AE|MSG1|not \\F\\ now\r")
    assert answer(message(version="2.7"), Code.AE, text="not now").endswith(b"\rMSA|AE|MSG1\r")


def test_problems_before_2_5_stand_in_err_1() -> None:
    """A3: ELD, repeating."""
    assert answer(message(version="2.4"), Code.AE, PROBLEMS).split(b"\r")[2] == (
        b"ERR|PID^1^3^101&Required field missing&HL70357~MSH^1^9^201&Unsupported event code&HL70357"
        b"~^^^207&Application internal error&HL70357"
    )


def test_problems_since_2_5_are_segments_with_place_cause_and_severity() -> None:
    """A3: ERR-2, ERR-3 (table 0357), ERR-4, ERR-8."""
    assert answer(message(), Code.AE, PROBLEMS).split(b"\r")[2:] == [
        b"ERR||PID^1^3^1^1|101^Required field missing^HL70357|E||||no identifier \\F\\ at all",
        b"ERR||MSH^1^9^1|201^Unsupported event code^HL70357|E",
        b"ERR|||207^Application internal error^HL70357|W",
        b"",
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("problems", [(), PROBLEMS], ids=["fine", "refused"])
def test_an_answer_is_valid_by_hl7apys_tables(version: str, problems: tuple[Problem, ...]) -> None:
    """A3, A4: each version's ACK, strictly. Built segment by segment, as MSH-9 names no structure before 2.3.1."""
    raw = answer(message(version=version), Code.AE if problems else Code.AA, problems, text="no")
    strict: dict[str, Any] = {"version": version, "validation_level": VALIDATION_LEVEL.STRICT}
    acknowledgement = Structure("ACK", **strict)
    acknowledgement.children = []
    for line in raw.decode().rstrip("\r").split("\r"):
        acknowledgement.add(parse_segment(line, **strict))
    assert acknowledgement.validate()
    assert acknowledgement.msa.msa_2.value == "MSG1"
    assert acknowledgement.msh.msh_12.to_er7() == version


def test_every_message_of_others_is_answered_by_its_id(peer_data: Path) -> None:
    """A3, A4: 143 files; what the splitter reads of an answer is what stands in the message."""
    files = sorted((peer_data / "hl7").glob("*/*.hl7"))
    assert len(files) == 143
    for file in files:
        raw = file.read_bytes()
        sent = raw[raw.index(b"MSH") :].split(b"\n")[0].rstrip(b"\r").split(b"|")
        back = parsed(answer(raw, Code.AE, PROBLEMS))
        assert back.warnings == [], file.name
        assert back["MSA"].raw(2).encode() == sent[9], file.name
        header = [back["MSH"].raw(number).encode() for number in (3, 4, 5, 6, 12)]
        assert header == [*sent[4:6], *sent[2:4], sent[11]], file.name


# ---- A4: the header --------------------------------------------------------------------------------------------------


def test_the_header_is_turned_round() -> None:
    """A4: 3/4 and 5/6 swapped, our time with its zone, our id, the sender's mode, version and character set."""
    raw = answer(message(processing="T^A", charset="UNICODE UTF-8"))
    back = parsed(raw)["MSH"]
    assert [back.raw(number) for number in range(3, 10)] == [
        *("CDS", "OTHER", "LAB", "HOSP", "20260301101500+0000", "", "ACK^R01^ACK"),
    ]
    assert (back.raw(11), back.raw(12), back.raw(18)) == ("T^A", "2.5.1", "UNICODE UTF-8")


@pytest.mark.parametrize(("version", "kind"), [("2.1", "ACK"), ("2.3", "ACK^R01"), ("2.3.1", "ACK^R01^ACK")])
def test_the_type_is_that_of_the_version(version: str, kind: str) -> None:
    """A4: MSH-9 had one component in 2.1, two until 2.3."""
    assert parsed(answer(message(version=version)))["MSH"].raw(9) == kind


def test_the_senders_delimiters_are_used() -> None:
    """A4: C4, also for what we say ourselves."""
    raw = b"MSH$%*!@$LAB$HOSP$CDS$OTHER$2026$$ORU%R01$7$P$2.5.1\r"
    assert answer(raw, Code.AE, (Problem(Cause.TABLE, path("PID-8"), "5 $"),)).split(b"\r")[1:3] == [
        b"MSA$AE$7",
        b"ERR$$PID%1%8%1$103%Table value not found%HL70357$E$$$$5 !F!",
    ]


def test_every_answer_has_an_id_of_its_own() -> None:
    """A4: over one object, and over two of them, as after a restart; at most the 20 characters of MSH-10."""
    header = header_of(message())
    makers = [Acknowledger(lambda: NOW) for _ in range(2)]
    ids = {parsed(maker.answer(header, Code.AA))["MSH"].text(10) for maker in makers for _ in range(500)}
    assert len(ids) == 1000
    assert {len(own) for own in ids} == {20}


# ---- A5: nothing breaks out ------------------------------------------------------------------------------------------


def test_what_is_echoed_cannot_break_the_frame() -> None:
    """A5: 0x0B, 0x1C and CR in a header are left out of its answer."""
    raw = b"MSH|^~\\&|L\x0bAB|H\x1cOSP|CDS|OTHER|2026||ORU^R01^X\x1c|MS\x0bG\x001|P\x1c|2.5\x0b.1\r"
    out = answer(raw)
    assert FrameDecoder().feed(frame(out)) == [Frame(out)]
    assert out.count(b"\r") == 2
    assert out.endswith(b"\rMSA|AA|MSG1\r")


@given(st.binary(max_size=300), st.sampled_from([b"", b"MSH", b"MSH|^~\\&|", b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|"]))
def test_any_bytes_get_an_answer_of_two_segments(noise: bytes, start: bytes) -> None:
    """A5: whatever is echoed, the answer stays what we meant."""
    header = header_of(start + noise)
    assert isinstance(header, Header)
    plan(header)
    out = answer(start + noise, Code.AE, (Problem(Cause.TYPE, path("PID-7"), "a day that is none"),))
    assert FrameDecoder().feed(frame(out)) == [Frame(out)]
    field = header.delimiters.field.encode()
    segments = out.rstrip(b"\r").split(b"\r")
    assert [segment.split(field)[0] for segment in segments] == [b"MSH", b"MSA", b"ERR"]
    assert segments[1].split(field) == [b"MSA", b"AE", header.control_id]
