"""A multipart/related body (RFC 2046, 5.1; RFC 2387) as it comes: its parts piece by piece, of any length. Pure.

Held is at most a piece and the length of a boundary. A boundary that is not in the body, heads without an end and a
body that stops before its last boundary are refused; nothing of such a part is ever called whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from models.errors import Malformed

HEAD = 16 << 10
"""Bytes of the headers of one part; and of what may stand before the first boundary."""
_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_MOST_PADDING = 256
"""Blanks that may follow a boundary (RFC 2046, 5.1.1: transport padding)."""


@dataclass(frozen=True, slots=True)
class Begin:
    media_type: str
    """In lower case, without parameters; empty where none is stated."""


@dataclass(frozen=True, slots=True)
class Data:
    piece: bytes


class End(Enum):
    PART = auto()
    """The part that began is whole."""
    BODY = auto()
    """The last boundary came."""


Event = Begin | Data | End


class _At(Enum):
    PREAMBLE = auto()
    AFTER_BOUNDARY = auto()
    HEAD = auto()
    CONTENT = auto()
    DONE = auto()


def boundary_of(content_type: str) -> str:
    """Raises: Malformed (not multipart/related, no boundary, one that cannot be)."""
    if content_type.partition(";")[0].strip().lower() != "multipart/related":
        raise Malformed("not multipart/related", where="Content-Type")
    for name, quoted, plain in _PARAMETER.findall(content_type):
        if name.lower() == "boundary":
            found: str = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
            if _BOUNDARY.fullmatch(found):
                return found
            break
    raise Malformed("no boundary", where="Content-Type")


class Multipart:
    """`feed` each piece of the body, then `close`."""

    def __init__(self, boundary: str) -> None:
        self._mark = b"\r\n--" + boundary.encode("ascii")
        self._held = bytearray(b"\r\n")  # the first boundary may stand at the very beginning
        self._at = _At.PREAMBLE
        self._skip = 0
        """Bytes held that belong to the end of the head."""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Raises: Malformed."""
        self._held += piece
        while (made := self._step()) is not None:
            yield from made

    def close(self) -> None:
        """Raises: Malformed, where the body ended before its last boundary."""
        if self._at is not _At.DONE:
            raise Malformed("the body ends before its last boundary")

    def _step(self) -> list[Event] | None:
        """None: more bytes are needed."""
        match self._at:
            case _At.PREAMBLE:
                return self._preamble()
            case _At.AFTER_BOUNDARY:
                return self._after_boundary()
            case _At.HEAD:
                return self._head()
            case _At.CONTENT:
                return self._content()
            case _:
                self._held.clear()  # an epilogue means nothing
                return None

    def _preamble(self) -> list[Event] | None:
        found = self._held.find(self._mark)
        if found < 0:
            if len(self._held) > HEAD + len(self._mark):
                raise Malformed(f"no boundary in the first {HEAD} bytes")
            return None
        del self._held[: found + len(self._mark)]
        self._at = _At.AFTER_BOUNDARY
        return []

    def _after_boundary(self) -> list[Event] | None:
        if len(self._held) < 2:
            return None
        if self._held.startswith(b"--"):
            self._at = _At.DONE
            return [End.BODY]
        line = self._held.find(b"\r\n")
        if line < 0 and len(self._held) <= _MOST_PADDING:
            return None
        if line < 0 or self._held[:line].strip(b" \t"):
            raise Malformed("a boundary with something behind it")
        del self._held[:line]  # its end may be the empty line that ends a head without headers
        self._at = _At.HEAD
        return []

    def _head(self) -> list[Event] | None:
        end = self._held.find(b"\r\n\r\n")
        if end > HEAD or (end < 0 and len(self._held) > HEAD + 4):
            raise Malformed(f"headers of a part of more than {HEAD} bytes")
        if end < 0:
            return None
        head = bytes(self._held[:end])
        del self._held[: end + 2]  # a part without content: its boundary begins with the end of the empty line
        self._at = _At.CONTENT
        self._skip = 2
        return [Begin(_media_type(head))]

    def _content(self) -> list[Event] | None:
        found = self._held.find(self._mark)
        if found < 0:
            sure = len(self._held) - len(self._mark) + 1
            if sure <= self._skip:
                return None
            made = self._taken(sure)
            return [Data(made)] if made else []
        made = self._taken(found) if found >= self._skip else b""
        del self._held[: len(self._mark) if found >= self._skip else found + len(self._mark)]
        self._at = _At.AFTER_BOUNDARY
        return [Data(made), End.PART] if made else [End.PART]

    def _taken(self, upto: int) -> bytes:
        made = bytes(self._held[self._skip : upto])
        del self._held[:upto]
        self._skip = 0
        return made


def _media_type(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            return value.decode("latin-1").partition(";")[0].strip().lower()
    return ""
