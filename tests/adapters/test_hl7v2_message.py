"""The splitter against rows C4 to C9 and C11 of what a receiver owes, and against hl7apy on the messages of others."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import hl7apy.core
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from adapters.hl7v2.columns import Columns
from adapters.hl7v2.escapes import escape
from adapters.hl7v2.message import NULL, Message, State, parse
from adapters.hl7v2.places import path
from models.errors import BadInput, Malformed, Unreadable

HEAD = "MSH|^~\\&|LAB|HOSP|CDS|HOSP|20260301||ORU^R01^ORU_R01|1|P|2.5.1"


def given(*lines: str, end: str = "\r") -> Message:
    return parse((end.join((HEAD, *lines)) + end).encode())


# ---- asking ----------------------------------------------------------------------------------------------------------


def test_places_are_counted_as_the_standard_counts() -> None:
    """MSH-1 is the separator itself; what is not there is nothing."""
    message = given("PID|1||17^^^HOSP&1.2.3&ISO^MR~18^^^CITY||Doe^Jane&Maria")
    header, person = message["MSH"], message["PID"]
    assert [header.text(number) for number in (1, 2, 3, 9, 12, 40)] == ["|", "^~\\&", "LAB", "ORU", "2.5.1", ""]
    assert [person.text(3), person.text(3, 4), person.text(3, 4, 2), person.text(3, 9)] == ["17", "HOSP", "1.2.3", ""]
    assert [each.text(4) for each in person.field(3)] == ["HOSP", "CITY"]
    assert person.field(3)[0].components == ["17", "", "", "HOSP", "MR"]
    assert person.field(3)[0].component(4) == "HOSP&1.2.3&ISO"
    assert person.first(5).whole == "Doe^Jane&Maria"
    assert person.first(6).text() == ""
    assert (len(person), person.raw(3)) == (5, "17^^^HOSP&1.2.3&ISO^MR~18^^^CITY")
    asked = ("PID-3.4.3", "PID-3[2].1", "PID-3[3]", "PID-5.2", "MSH-9.2", "ZZZ-1", "PID[2]-3", "PID-3")
    assert list(map(message.get, asked)) == ["ISO", "18", "", "Jane", "R01", "", "", "17"]
    assert message.get(path("PID-5.2.2")) == "Maria"


def test_segments_stay_in_order_with_unknown_ones_among_them() -> None:
    """C8: Z-segments are segments; groups are the reader's."""
    message = given("PID|1", "OBR|1", "OBX|1", "ZDS|1.2.3^X^Y", "OBX|2", "OBR|2", "OBX|1")
    assert [segment.name for segment in message] == ["MSH", "PID", "OBR", "OBX", "ZDS", "OBX", "OBR", "OBX"]
    assert [segment.number for segment in message.all("OBX")] == [1, 2, 3]
    assert message["ZDS"].text(1) == "1.2.3"
    assert ("ZDS" in message, "ZPI" in message, message.find("ZPI"), message.all("ZPI")) == (True, False, None, [])
    with pytest.raises(Unreadable) as caught:
        message["PV1"]
    assert caught.value.where == "PV1"


def test_a_place_is_written_as_it_is_read() -> None:
    message = given("OBX|1", "OBX|2||a~b^c")
    second = message.all("OBX")[1]
    assert str(second.place(3)) == "OBX[2]-3"
    assert str(second.field(3)[1].place(2)) == "OBX[2]-3[2].2"
    assert str(message["MSH"].place(9, 1, 2)) == "MSH-9.2"
    assert message.get(second.field(3)[1].place(2)) == "c"
    assert second.pointer == "/OBX/1"
    for text in ("PID", "PID-3", "PID-3.4.2", "OBX[4]-5[2].1.3"):
        assert str(path(text)) == text
    for text in ("", "pid-3", "PID-3.", "PID.3", "PID-1-2"):
        with pytest.raises(ValueError, match="not a path"):
            path(text)


def test_columns_say_the_same_as_single_questions() -> None:
    """The cheap form, on plain segments and on those with escapes, repetitions, sub-components and nulls."""
    places = ("1", "2", "3", "3.1", "3.2", "3.3.2", "4", "5", "5.2", "6.1.2", "9")
    columns = Columns("OBX", *places)
    message = given("OBX|1|NM|A^B^C|x", 'OBX|2||A\\T\\^B^C&D~E|""|1^""', "OBX|3|^a|&b~c|\\F\\|d^e^f|g&h", "OBX")
    assert list(columns.rows(message)) == [
        [message.get(f"OBX[{number}]-{place}") for place in places] for number in (1, 2, 3, 4)
    ]
    assert columns.of(message.all("OBX")[1])[2:6] == ["A&", "A&", "B", "D"]
    assert list(Columns("MSH", "1", "2", "3").rows(message)) == [["|", "^~\\&", "LAB"]]


# ---- C7: nothing, null, not there ------------------------------------------------------------------------------------


def test_nothing_null_and_not_there_can_be_told_apart() -> None:
    """C7: none of them is ever taken for a value."""
    person = given('PID|1||""||^""|""~x|v')["PID"]
    states = [person.state(number) for number in (3, 4, 6, 7, 8)]
    assert states == [State.NULL, State.EMPTY, State.VALUED, State.VALUED, State.ABSENT]
    assert [person.text(3), person.text(4), person.text(8)] == ["", "", ""]
    assert (person.raw(3), person.raw(4)) == (NULL, "")
    assert [person.first(5).state(component) for component in (1, 2, 3)] == [State.EMPTY, State.NULL, State.ABSENT]
    assert person.text(5, 2) == ""
    assert [bool(each) for each in person.field(6)] == [False, True]
    assert person.first(3).whole == ""


# ---- C4: delimiters --------------------------------------------------------------------------------------------------


def test_each_message_has_its_own_delimiters() -> None:
    """C4: others than the usual, and a fifth since 2.7."""
    message = parse(b"MSH$%*!@#$LAB$$$$2026$$ADT%A01$1$P$2.7\rPID$1$$a%b@c*d$!F!!S!!T!!R!!E!!P!$|^~\\&\r")
    assert [message.get(place) for place in ("PID-3.2.2", "PID-3[2]", "PID-4", "PID-5")] == [
        "c",
        "d",
        "$%@*!#",
        "|^~\\&",
    ]


@pytest.mark.parametrize(
    "start",
    [
        *("MSH", "MSH|", "MSH||", "MSH|^~\\|", "MSH|^~|", "MSH|^^\\&|", "MSH|^~\\|&|", "MSH|^~\\&##|", "MSH|^~\\\\&|"),
        *("MSHA^~\\&A", "MSH ^~\\& ", 'MSH|^~"&|', "MSH|^~\\é|", "MSH\r|^~\\&"),
    ],
)
def test_delimiters_that_cannot_be_told_apart_are_refused(start: str) -> None:
    """C4: missing, doubled, letters, spaces."""
    with pytest.raises(Malformed) as caught:
        parse(f"{start}A|B\rPID|1\r".encode())
    assert caught.value.where in ("MSH-1", "MSH-2")


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"PID|1\r", b"FHS|^~\\&|\r", b"{}", b"msh|^~\\&|"])
def test_what_begins_with_no_msh_is_no_message(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(raw)


def test_two_messages_are_not_one() -> None:
    """C4: the second may have other delimiters, and another patient."""
    with pytest.raises(Malformed) as caught:
        given("PID|1", HEAD)
    assert caught.value.where == "MSH[2]"


# ---- C5: ends of segments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r", "\n\n", "\r\n\r\n"])
def test_segments_end_with_cr_crlf_or_lf_and_blank_lines_are_nothing(end: str) -> None:
    """C5."""
    message = given("PID|1||7", "NTE|1||x", end=end)
    assert [segment.name for segment in message] == ["MSH", "PID", "NTE"]
    assert (message["PID"].text(3), message.get("NTE-3"), message.warnings) == ("7", "x", [])


def test_a_line_feed_inside_a_message_of_cr_is_data() -> None:
    """C5: also before what looks like a segment, which is told."""
    message = given("OBX|1|TX|||line one\nline two", "OBX|2|TX|||a\nPID|1")
    assert message.get("OBX-5") == "line one\nline two"
    assert "PID" not in message
    assert message.warnings == ["a line feed before what looks like a segment: kept as data of the segment before"]


def test_a_line_that_is_no_segment_is_kept_aside() -> None:
    """C5: in a message of line feeds, text of many lines breaks; nothing of it is lost without a word."""
    message = given("OBX|1|TX|||line one", "line two", "# comment", "obx|2", "OBX|3", end="\n")
    assert [segment.name for segment in message] == ["MSH", "OBX", "OBX"]
    assert message.strays == [("OBX", "line two"), ("OBX", "# comment"), ("OBX", "obx|2")]
    assert message.warnings == ["lines that are no segments"]


def test_white_space_and_a_byte_order_mark_before_msh_are_passed_over() -> None:
    """C3, C5."""
    assert parse(b"\xef\xbb\xbf" + HEAD.encode()).get("MSH-10") == "1"
    assert parse(b"\r\n " + HEAD.encode()).get("MSH-10") == "1"


# ---- C6: escapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("\\F\\\\S\\\\T\\\\R\\\\E\\\\P\\", "|^&~\\#"),
        ("\\E\\T\\", "\\T\\"),
        ("\\E\\C2842\\E\\", "\\C2842\\"),
        ("\\E\\M2442\\E\\;3ED", "\\M2442\\;3ED"),
        ("\\X41\\\\X0D0A\\", "A\r\n"),
        ("\\XC3\\\\XA9\\", "é"),
        ("\\XC7\\", "Ç"),
        ("\\X4\\\\Xzz\\", "\\X4\\\\Xzz\\"),
        ("\\H\\bold\\N\\", "bold"),
        ("a\\.br\\b\\.ce\\c", "a\nb\nc"),
        ("a\\.sp2\\b\\.sp\\c\\.sp+1\\d", "a\n\nb\nc\nd"),
        ("a\\.sk3\\b\\.in4\\\\.ti-2\\\\.fi\\\\.nf\\c", "a   bc"),
        ("\\.sp9999\\", "\n" * 10),
        ("\\Zq1\\ \\foo\\ \\", "\\Zq1\\ \\foo\\ \\"),
        ("C:\\temp\\T\\x", "C:\\temp&x"),
        ("\\M2442\\;3ED\\C2842\\!", "山田!"),
        ("\\M2442\\é\\C2842\\", "\\M2442\\é\\C2842\\"),
    ],
)
def test_escapes_are_undone_once(sent: str, meant: str) -> None:
    """C6: all sequences of the standard; what it does not know stays as it was sent."""
    assert given(f"NTE|1||{sent}").get("NTE-3") == meant


def test_escapes_are_undone_after_the_splitting() -> None:
    """C6: an escaped delimiter divides nothing."""
    message = given("PID|1||a\\S\\b^c\\R\\d~e\\T\\f&g")
    assert message["PID"].field(3)[0].components == ["a^b", "c~d"]
    assert message.get("PID-3[2]") == "e&f"


def test_what_is_escaped_comes_back() -> None:
    """C6: the way out and in."""
    text = "a|b^c&d~e\\f\ng#é"
    assert given(f"NTE|1||{escape(text)}").get("NTE-3") == text
    assert escape("a\rb\x0b\x1c\x00c\x7f") == "abc"


# ---- C9, C11 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "read", "warned"),
    [
        *(("2.1", "2.1", False), ("2.5.1", "2.5.1", False), ("2.8.2", "2.8.2", False)),
        *(("2.7.1", "2.7", True), ("2.9", "2.8.2", True), ("2.5.9", "2.5.1", True), ("2.10", "2.8.2", True)),
        *(("", "2.1", True), ("3", "2.1", True), ("2.0", "2.1", True), ("x", "2.1", True)),
    ],
)
def test_an_unknown_version_is_read_as_the_one_below(stated: str, read: str, warned: bool) -> None:
    """C9."""
    message = parse(f"MSH|^~\\&|A||||2026||ADT^A01|1|P|{stated}^USA\r".encode())
    assert message.version == read
    assert bool(message.warnings) is warned


def test_the_trigger_may_stand_in_evn() -> None:
    """C9: MSH-9 had one component in 2.1."""
    assert given().trigger == ("ORU", "R01")
    assert parse(b"MSH|^~\\&|A||||2026||ADT|1|P|2.1\rEVN|A03|2026\r").trigger == ("ADT", "A03")


def test_a_fragment_is_known_by_its_signs() -> None:
    """C11: DSC, ADD and MSH-14 are refused, with the place that says why."""
    assert given("PID|1").fragment is None
    assert given("OBX|1", "DSC|77|F").fragment == "DSC"
    assert given("ADD|rest").fragment == "ADD"
    assert parse((HEAD + "||77\rPID|1\r").encode()).fragment == "MSH-14"


# ---- beside another parser -------------------------------------------------------------------------------------------


def as_hl7apy_would(leaves: list[str]) -> list[str]:
    """Its own changes: white space at the ends goes, and numbers are written anew (`001` as `1`)."""
    stripped = (leaf.strip() for leaf in leaves)
    return [leaf.lstrip("0") or "0" if leaf.isdigit() else leaf for leaf in stripped if leaf]


def leaves_of(message: Message, value: str) -> list[str]:
    d = message.delimiters
    return [
        leaf
        for repetition in value.split(d.repetition)
        for component in repetition.split(d.component)
        for leaf in component.split(d.sub)
    ]


def leaves_of_theirs(field: Any, delimiters: dict[str, str]) -> list[str]:
    return [leaf.to_er7(delimiters) for component in field.children for leaf in component.children]


@pytest.fixture
def hl7apy_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks up the module of a version and a data type's kind two million times here: a third of its time."""
    monkeypatch.setattr(hl7apy.core, "load_library", functools.cache(hl7apy.core.load_library))
    monkeypatch.setattr(hl7apy.core, "is_base_datatype", functools.cache(hl7apy.core.is_base_datatype))


@pytest.mark.usefixtures("hl7apy_remembers")
def test_hl7apy_reads_the_same_in_the_messages_of_others(peer_data: Path) -> None:
    """Wherever hl7apy reads a message at all: the same segments in order, the same leaves in order, and in each field
    that its tables know, the same. 58,000 leaves; not compared: positions inside fields that its version withdrew."""
    seen: Counter[str] = Counter()
    for file in sorted((peer_data / "hl7").glob("*/*.hl7")):
        raw = file.read_bytes()
        try:
            ours = parse(raw)
        except BadInput as error:
            seen[f"refused at {error.where}"] += 1
            continue
        text = raw.decode("utf-8-sig").replace("\r\n", "\r").replace("\n", "\r").strip("\r")
        try:
            theirs = parse_message(text, find_groups=False, validation_level=VALIDATION_LEVEL.TOLERANT)
        except HL7apyException:
            seen["not read by hl7apy"] += 1
            continue
        assert [segment.name for segment in ours] == [segment.name for segment in theirs.children], file.name
        seen["messages"] += 1
        delimiters = theirs.encoding_chars  # once a message: each leaf would go up to its header for them
        for mine, other in zip(ours.segments[1:], theirs.children[1:], strict=True):
            where = f"{file.name} {mine.place()}"
            expected = [leaf for value in mine.fields[1:] for leaf in leaves_of(ours, value)]
            found = [leaf for field in other.children for leaf in leaves_of_theirs(field, delimiters)]
            assert as_hl7apy_would(found) == as_hl7apy_would(expected), where
            seen["leaves"] += len(as_hl7apy_would(expected))
            by_number: dict[int, list[str]] = {}
            for field in other.children:
                if field.name and field.name.rpartition("_")[2].isdigit():
                    by_number.setdefault(int(field.name.rpartition("_")[2]), []).extend(
                        leaves_of_theirs(field, delimiters)
                    )
            for place, values in by_number.items():
                assert as_hl7apy_would(values) == as_hl7apy_would(leaves_of(ours, mine.raw(place))), where
                seen["fields"] += 1
    assert seen["messages"] == 138
    assert seen["not read by hl7apy"] == 3  # it does not know PRT in their version
    assert seen["refused at MSH-2"] == 2  # it escapes its own escape character
    assert seen["leaves"] > 58_000
    assert seen["fields"] > 20_000
