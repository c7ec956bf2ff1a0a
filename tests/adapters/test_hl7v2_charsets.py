"""Character sets of a message (row C3): declared, undeclared, wrongly declared, switched by escapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.charsets import (
    NOT_AS_DECLARED,
    ONLY_UNICODE,
    REALLY_1252,
    SPLITTING,
    UNDECLARED,
    UNKNOWN,
    UNSAID,
    charset_of,
    decode,
)
from adapters.hl7v2.message import Message, Undecodable, parse
from models.errors import Unreadable


def message(name: str | bytes, declared: str = "", charset: str | None = None, warn: bool = False) -> Message:
    raw = name if isinstance(name, bytes) else name.encode()
    head = f"MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5||||||{declared}".encode()
    policy = Undecodable.WARN if warn else Undecodable.REFUSE
    return parse(head + b"\rPID|1||7||" + raw + b"^x|end\r", charset, undecodable=policy)


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("ASCII", "ascii", "Muller"),
        ("8859/1", "latin-1", "Müller"),
        ("8859/2", "iso8859-2", "Dvořák"),
        ("8859/5", "iso8859-5", "Иванов"),
        ("8859/7", "iso8859-7", "Παππάς"),
        ("8859/8", "iso8859-8", "כהן"),
        ("8859/15", "iso8859-15", "Bœuf€"),
        ("ISO-8859-15", "iso8859-15", "Bœuf€"),
        ("UNICODE UTF-8", "utf-8", "Łukasz 山"),
        ("utf8", "utf-8", "Łukasz 山"),
        ("GB 18030-2000", "gb18030", "丂乗亅张"),
        ("BIG-5", "big5", "許功蓋"),
        ("KS X 1001", "euc_kr", "김철수"),
        ("ISO IR14", "shift_jis", "ﾔﾏﾀﾞ"),
        ("~ISO IR87", "iso2022_jp", "山田^太郎".replace("^", " ")),
        ("ISO IR6~ISO IR87~ISO IR159", "iso2022_jp_ext", "山田 ㍻鷗".replace("㍻", "")),
        ("8859/1~ISO IR87", "iso2022_jp", "山田"),
    ],
)
def test_a_declared_set_is_read(declared: str, codec: str, name: str) -> None:
    """C3: table 0211, and the spellings of it that senders use."""
    read = message(name.encode(codec), declared)
    assert (read.get("PID-5"), read.get("PID-5.2"), read.get("PID-6")) == (name, "x", "end")
    assert read.warnings == []


def test_bytes_that_look_like_delimiters_inside_a_character_divide_nothing() -> None:
    """C3: second bytes 0x5C, 0x5E, 0x7C, 0x7E of GB 18030 and Big5."""
    for declared, codec in (("GB 18030-2000", "gb18030"), ("BIG-5", "big5")):
        hidden = [
            bytes((first, second)).decode(codec)
            for second in b"\\^|~"
            for first in range(0xB0, 0xC0)
            if _reads(bytes((first, second)), codec)
        ]
        assert hidden
        assert message("".join(hidden).encode(codec), declared).get("PID-5") == "".join(hidden)


def _reads(raw: bytes, codec: str) -> bool:
    try:
        return len(raw.decode(codec)) == 1
    except UnicodeDecodeError:
        return False


def test_a_set_is_left_and_entered_again() -> None:
    """C3: ISO 2022 escapes around each component, over a base of Latin-1."""
    raw = "山田".encode("iso2022_jp") + b"^" + "太郎".encode("iso2022_jp") + b"^M\xfcller"
    read = message(raw, "8859/1~ISO IR87")
    assert [read.get(f"PID-5.{number}") for number in (1, 2, 3)] == ["山田", "太郎", "Müller"]


@pytest.mark.parametrize(
    ("raw", "name", "warned"),
    [
        (b"Doe", "Doe", []),
        ("Müller".encode(), "Müller", []),
        (b"M\xfcller \x96", "Müller –", [UNDECLARED]),
        (b"\x81", "\ufffd", [UNDECLARED]),
    ],
)
def test_nothing_declared_is_utf_8_then_cp1252_with_a_warning(raw: bytes, name: str, warned: list[str]) -> None:
    """C3: most senders declare nothing."""
    read = message(raw)
    assert (read.get("PID-5"), read.warnings) == (name, warned)


def test_the_sources_own_set_stands_in_for_none_and_not_for_one() -> None:
    """C3: per-source default."""
    assert message("Иванов".encode("iso8859-5"), charset="8859/5").get("PID-5") == "Иванов"
    assert message("Müller", "UNICODE UTF-8", charset="8859/5").get("PID-5") == "Müller"
    assert message("Müller", '""', charset="UNICODE UTF-8").get("PID-5") == "Müller"


@pytest.mark.parametrize("declared", ["UNICODE UTF-8", "ASCII", "KS X 1001", "~ISO IR87"])
def test_bytes_that_do_not_fit_are_refused_or_warned_of(declared: str) -> None:
    """C3: AE or a warning, per source; never half a decision. The rest of the message stays right."""
    bad = b"\xff\xfc" if declared != "~ISO IR87" else b"\x1b$B\xff\xfc\x1b(B"
    with pytest.raises(Unreadable) as caught:
        message(bad, declared)
    assert str(caught.value.where).startswith("MSH-18")
    read = message(bad, declared, warn=True)
    assert read.warnings == [NOT_AS_DECLARED]
    assert "ÿü" in read.get("PID-5")
    assert read.get("PID-6") == "end"


def test_ascii_that_is_utf_8_is_read_as_such() -> None:
    """C3: with a warning, where the source's policy allows it."""
    read = message("Müller", "ASCII", warn=True)
    assert (read.get("PID-5"), len(read.warnings)) == ("Müller", 1)


def test_latin_1_with_the_bytes_of_windows_is_that() -> None:
    """C3: 0x80 to 0x9F are controls in 8859/1, and quotation marks and dashes in cp1252."""
    read = message(b"O\x92Brien", "8859/1")
    assert (read.get("PID-5"), read.warnings) == ("O\u2019Brien", [REALLY_1252])


@pytest.mark.parametrize("declared", ["KLINGON", "CNS 11643-1992", "8859/12", "UNICODE UTF-16", "UNICODE UTF-32"])
def test_a_set_that_is_not_supported_is_refused_or_warned_of(declared: str) -> None:
    """C3: UTF-16 and UTF-32 are full of the frame's own bytes."""
    with pytest.raises(Unreadable) as caught:
        message("Müller", declared)
    assert caught.value.where == "MSH-18"
    read = message("Müller", declared, warn=True)
    assert (read.get("PID-5"), read.warnings) == ("Müller", [UNKNOWN])


def test_unicode_without_an_encoding_is_utf_8() -> None:
    read = message("Müller", "UNICODE")
    assert (read.get("PID-5"), read.warnings) == ("Müller", [ONLY_UNICODE])


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_bytes_of_utf_16_and_utf_32_are_named(codec: str) -> None:
    """C3: not "no MSH", which would send people looking elsewhere."""
    with pytest.raises(Unreadable, match="UTF-16 and UTF-32"):
        parse("MSH|^~\\&|A|B\r".encode(codec))


@given(st.binary(max_size=200), st.sampled_from(["", "ASCII", "8859/1", "~ISO IR87", "GB 18030-2000", "KS X 1001"]))
def test_any_bytes_become_text_where_the_policy_is_to_warn(raw: bytes, declared: str) -> None:
    text, _ = decode(raw, charset_of(tuple(declared.split("~"))), Undecodable.WARN)
    assert isinstance(text, str)
    text.encode()  # no lone surrogates


def test_sets_that_split_characters_are_known() -> None:
    """The header is looked at more closely where these are declared: whatever needs it is in the list."""
    assert UNSAID.codec not in SPLITTING
    for name in ("GB 18030-2000", "BIG-5", "ISO IR14"):
        assert charset_of((name,)).codec in SPLITTING
    for name in ("ASCII", "8859/1", "UNICODE UTF-8", "KS X 1001", "ISO IR87"):
        codec = charset_of((name,)).codec
        assert codec not in SPLITTING
        for first in range(0x80, 0x100):
            for second in b"|^~\\&":
                assert not _reads(bytes((first, second)), codec)
