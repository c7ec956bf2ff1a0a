"""Escape sequences of HL7 v2 text (chapter 2, 2.7): undone once, after the splitting; written when we send.

What the standard does not define, or leaves to the sender (`\\Zxx\\`), stays as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from adapters.hl7v2.charsets import Charset, switching
from models.errors import Malformed

MOST_LINES = 10
"""Lines or spaces that one `\\.spN\\` may make. More would let a few bytes fill the memory; no report needs more."""


class Delimiters(NamedTuple):
    """The characters of MSH-1 and MSH-2, each message's own."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    sub: str = "&"
    truncation: str = "#"
    """Since 2.7; the default where MSH-2 has four characters."""

    @property
    def encoding(self) -> str:
        return self.component + self.repetition + self.escape + self.sub


STANDARD = Delimiters()


@lru_cache(maxsize=256)
def delimiters_of(field: str, encoding: str) -> Delimiters:
    """Of MSH-1 and MSH-2. Raises: Malformed (missing, twice the same, a letter, digit, space or quotation mark)."""
    if len(encoding) not in (4, 5):
        raise Malformed("not four or five encoding characters", where="MSH-2")
    if not _may_divide(field):
        raise Malformed("a field separator that cannot be one", where="MSH-1")
    if len({field, *encoding}) != 1 + len(encoding) or not all(map(_may_divide, encoding)):
        raise Malformed("encoding characters that cannot be told apart", where="MSH-2")
    return Delimiters(field, *tuple(encoding))


def _may_divide(character: str) -> bool:
    return len(character) == 1 and "!" <= character <= "~" and not character.isalnum() and character != '"'


class Unescaper:
    """Undoes the escapes of one message; made once for each pair of delimiters and character set."""

    __slots__ = ("_charset", "_escape", "_known", "_plain")

    def __init__(self, delimiters: Delimiters, charset: Charset) -> None:
        e = re.escape(delimiters.escape)
        self._escape = delimiters.escape
        self._charset = charset
        self._plain: Mapping[str, str] = {
            "F": delimiters.field,
            "S": delimiters.component,
            "T": delimiters.sub,
            "R": delimiters.repetition,
            "E": delimiters.escape,
            "P": delimiters.truncation,
            "H": "",  # begin and end of highlighting
            "N": "",
            ".br": "\n",
            ".ce": "\n",  # the next line is centred
            ".fi": "",  # wrapping on and off, indents: layout, not content
            ".nf": "",
        }
        self._known = re.compile(
            rf"(?P<bytes>(?:{e}X(?:[0-9A-Fa-f]{{2}})+{e})+)"
            rf"|{e}(?P<plain>[FSTREPHN]|\.(?:br|ce|fi|nf)){e}"
            rf"|{e}\.(?P<layout>sp|sk|in|ti) ?\+?(?P<count>-?[0-9]{{0,4}}){e}"
            rf"|(?P<switch>{e}(?:C[0-9A-Fa-f]{{4}}|M[0-9A-Fa-f]{{4}}(?:[0-9A-Fa-f]{{2}})?){e}[^{e}]*"
            rf"(?:{e}C[0-9A-Fa-f]{{4}}{e})?)"
        )
        """All in one pass, from left to right: in `\\E\\C2842\\E\\` nothing is switched, `\\C2842\\` was the text."""

    def __call__(self, text: str) -> str:
        """The text that was meant. What is no sequence of the standard stays, with its escape characters."""
        if self._escape not in text:
            return text
        return self._known.sub(self._meant, text)

    def _meant(self, found: re.Match[str]) -> str:
        if (plain := found["plain"]) is not None:
            return self._plain[plain]
        if found["switch"] is not None:
            return self._switched(found[0])
        if (layout := found["layout"]) is not None:
            if layout in ("in", "ti"):
                return ""
            count = int(found["count"]) if found["count"].strip("-") else 1
            return ("\n" if layout == "sp" else " ") * max(0, min(count, MOST_LINES))
        raw = bytes.fromhex(re.sub(r"[^0-9A-Fa-f]", "", found["bytes"]))
        try:
            return raw.decode(self._charset.codec)
        except UnicodeDecodeError:
            return raw.decode("cp1252", "hl7v2_as_cp1252")

    def _switched(self, sent: str) -> str:
        """`\\Mxxyyzz\\` (or `\\Cxxyy\\`) names the rest of an ISO 2022 escape sequence; text in that set follows it."""
        pieces = sent.split(self._escape)  # "", "M2442", text[, "C2842", ""]
        raw = b"\x1b" + bytes.fromhex(pieces[1][1:])
        try:
            return switching(raw + pieces[2].encode("ascii"), "ascii").lstrip("\x1b")
        except UnicodeError:
            return sent


@lru_cache(maxsize=64)
def unescaper_of(delimiters: Delimiters, charset: Charset) -> Unescaper:
    return Unescaper(delimiters, charset)


def escape(text: str, delimiters: Delimiters = STANDARD) -> str:
    """Text for one leaf: delimiters as escape sequences, ends of lines as `\\.br\\`, control characters left out."""
    return text.translate(_escapes(delimiters))


@lru_cache(maxsize=64)
def _escapes(delimiters: Delimiters) -> dict[int, str | None]:
    e = delimiters.escape
    table: dict[int, str | None] = dict.fromkeys((*range(0x20), 0x7F), None)
    table[ord("\n")] = f"{e}.br{e}"
    for letter, character in zip("FSRET", delimiters[:5], strict=True):
        table[ord(character)] = f"{e}{letter}{e}"
    return table
