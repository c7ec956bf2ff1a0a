"""Character sets of HL7 v2 (MSH-18, table 0211) and how bytes become text by them.

A whole message is decoded before it is split: in GB 18030, Big5 and Shift JIS the second byte of a character may be
that of `|`, `^`, `~` or `\\`, and a split on bytes would cut the character.

Table 0211 names no Windows code pages, but senders that leave MSH-18 empty, or say 8859/1, often write cp1252: where
UTF-8 does not fit, that is what is tried, with a warning.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from models.errors import Unreadable

WHERE = "MSH-18"

UNDECLARED = "no character set is declared and the bytes are not UTF-8: read as cp1252"
NOT_AS_DECLARED = "bytes that the declared character set does not have: read as cp1252"
UNKNOWN = "a character set that table 0211 does not name, or that cannot be read: read as UTF-8 or cp1252"
REALLY_1252 = "8859/1 is declared, but the bytes are those of cp1252"
REALLY_UTF_8 = "ASCII is declared, but the bytes are UTF-8"
ONLY_UNICODE = "UNICODE says no encoding: read as UTF-8"

_CODECS = {
    "ASCII": "ascii",
    "USASCII": "ascii",
    "ISOIR6": "ascii",
    **{f"{prefix}8859{part}": f"iso8859-{part}" for part in (*range(1, 12), *range(13, 16)) for prefix in ("", "ISO")},
    "UNICODE": "utf-8",
    "UNICODEUTF8": "utf-8",
    "UTF8": "utf-8",
    "GB180302000": "gb18030",
    "GB18030": "gb18030",
    "BIG5": "big5",
    "KSX1001": "euc_kr",
    "WINDOWS1252": "cp1252",
    "CP1252": "cp1252",
    "ISOIR14": "shift_jis",  # JIS X 0201: its single bytes are those of Shift JIS
    "ISOIR87": "ascii",  # JIS X 0208 and 0212 come after an escape sequence of ISO 2022; outside it is ASCII
    "ISOIR159": "ascii",
}
_SWITCHING = frozenset({"ISOIR14", "ISOIR87", "ISOIR159", "KSX1001"})
"""Sets that a message may switch to by ISO 2022 escapes (MSH-20), when MSH-18 names them."""
_NOT_OVER_MLLP = frozenset({"UNICODEUTF16", "UNICODEUTF32", "UTF16", "UTF32", "UTF16LE", "UTF16BE"})

_ESCAPE = re.compile(rb"(\x1b(?:\$\([A-DO-Q]|\$[@AB]|\([BIJ]))")
_BACK_TO_BASE = b"\x1b(B"
_TO_JP_2 = (b"\x1b$A", b"\x1b$(C")
_C1 = re.compile(rb"[\x80-\x9f]")


SPLITTING = frozenset({"gb18030", "big5", "shift_jis"})
"""Codecs in which the second byte of a character may be that of a delimiter."""
_MOVED = 6
"""How many such halves before MSH-18 are looked past."""


class Undecodable(StrEnum):
    """What to do with bytes that the declared set does not have (per source)."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Charset:
    """How the bytes of one message become text."""

    codec: str
    switches: bool = False
    """ISO 2022 escape sequences in the bytes change the set."""
    declared: bool = True
    warning: str | None = None


UNSAID = Charset("utf-8", declared=False)


@lru_cache(maxsize=256)
def charset_of(names: tuple[str, ...]) -> Charset:
    """The character set that the repetitions of MSH-18 name: the first holds, others come by escapes (2.15.9.18).

    No name at all: UTF-8, as not declared. Names are taken without regard to case, spaces, dashes and slashes, because
    senders write `ISO-8859-1` and `UTF-8` where the table has `8859/1` and `UNICODE UTF-8`.

    Raises: Unreadable (not in the table, or UTF-16/32, which cannot stand between MLLP's bytes).
    """
    keys = [_key(name) for name in names]
    if not any(keys):
        return UNSAID
    for key in keys:
        if key in _NOT_OVER_MLLP:
            raise Unreadable("UTF-16 and UTF-32 cannot be sent over MLLP", where=WHERE)
        if key and key not in _CODECS:
            raise Unreadable("a character set that is not supported", where=WHERE)
    codec = _CODECS[keys[0]] if keys[0] else "ascii"
    warning = ONLY_UNICODE if keys[0] == "UNICODE" else None
    return Charset(codec, switches=not _SWITCHING.isdisjoint(keys), warning=warning)


def declared_in(header: Sequence[str]) -> str:
    """MSH-18 of a header that was split by bytes, before it could be decoded; "" where it has none.

    Halves of characters that look like delimiters move the fields to the right: where that is possible, a name of such
    a set is looked for there.
    """
    if len(header) < 18:
        return ""
    if not all(map(str.isascii, header)):
        for name in header[17 : 18 + _MOVED]:
            if _CODECS.get(_key(name)) in SPLITTING:
                return name
    return header[17]


def _key(name: str) -> str:
    return re.sub(r"[\s/_.-]", "", name).upper()


def decode(raw: bytes, charset: Charset, undecodable: Undecodable) -> tuple[str, tuple[str, ...]]:
    """Text of a whole message, and what was odd about it (our own words).

    Raises: Unreadable with the byte offset, where a declared set does not fit and the source's policy is to refuse.
    """
    told = (charset.warning,) if charset.warning else ()
    if charset.switches and b"\x1b" in raw:
        try:
            return switching(raw, charset.codec), told
        except UnicodeDecodeError:
            return _otherwise(raw, charset, undecodable, told, None)
    if charset.codec == "iso8859-1" and not raw.isascii() and _C1.search(raw):
        return raw.decode("cp1252", "hl7v2_as_cp1252"), (*told, REALLY_1252)
    try:
        return raw.decode(charset.codec), told
    except UnicodeDecodeError as error:
        return _otherwise(raw, charset, undecodable, told, error.start)


def _otherwise(
    raw: bytes, charset: Charset, undecodable: Undecodable, told: tuple[str, ...], at: int | None
) -> tuple[str, tuple[str, ...]]:
    if not charset.declared:
        return raw.decode("cp1252", "hl7v2_as_cp1252"), (*told, UNDECLARED)
    if undecodable is Undecodable.REFUSE:
        where = WHERE if at is None else f"{WHERE}, byte {at}"
        raise Unreadable("bytes that the declared character set does not have", where=where)
    if charset.codec == "ascii" and at is not None:
        try:
            return raw.decode("utf-8"), (*told, REALLY_UTF_8)
        except UnicodeDecodeError:
            pass
    return raw.decode(charset.codec, "hl7v2_as_cp1252"), (*told, NOT_AS_DECLARED)


def switching(raw: bytes, base: str) -> str:
    """Text of bytes in which ISO 2022 escape sequences change the set; outside them `base` holds."""
    runs = _ESCAPE.split(raw)
    text = [runs[0].decode(base)]
    for escape, run in zip(runs[1::2], runs[2::2], strict=True):
        if escape == _BACK_TO_BASE:
            text.append(run.decode(base))
        else:
            text.append((escape + run).decode("iso2022_jp_2" if escape in _TO_JP_2 else "iso2022_jp_ext"))
    return "".join(text)


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Only the bytes that do not fit are read as cp1252 (the five that it lacks as U+FFFD); the rest stays right."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("hl7v2_as_cp1252", _as_cp1252)
