"""JSON as the standard means it, and nothing else: the one parser behind every door and every reader.

RFC 8259 leaves room for surprises (which of two equal names wins, lone surrogates, NaN); a record of patients has none.
Decimals come back as `decimal.Decimal`, so that 2.50 stays 2.50 (FHIR R4, datatypes, decimal: precision matters).

msgspec does the syntax. What it lets pass is found by looking at the whole text at once, each time in C. Without what
is escaped, a text has quotes only around its strings, so a bracket or a digit too many can be counted; and a member
that was named twice is missing, with its quotes, where the value is written again.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec

from models.errors import Malformed

MAX_DEPTH = 64
MAX_NUMBER = 40
"""Characters of one number: more than any measurement needs."""

_LONG_NUMBER = re.compile(rb"[0-9.eE+-]{%d}" % (MAX_NUMBER + 1))
_STEP = 4
_AS_ZERO = bytes.maketrans(b"0123456789.eE+-", b"0" * 15)
_LONG_ZERO = b"0" * ((MAX_NUMBER + 1) // _STEP)
"""What a number that is too long leaves, at the least, where only every fourth byte is looked at."""
_FOLD = bytes.maketrans(b"[]", b"{}")
_NEITHER = bytes(set(range(256)) - set(b'[]{}"'))
"""Bytes that are neither a bracket nor a quote."""
_PLACE = re.compile(r"\(byte (\d+)\)")

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


def loads(raw: bytes, *, what: str = "the body") -> Any:
    """Parse one JSON text in UTF-8.

    Refuses: other encodings and a byte order mark, NaN and infinities, a name twice in one object, lone surrogates, the
    character NUL, numbers longer than 40 characters, nesting deeper than 64, anything after the value.

    Raises: Malformed, with the byte offset where one is known; the content is never quoted.
    """
    bare = _bare(raw)
    if _too_deep(bare):
        raise Malformed(f"{what} is nested deeper than {MAX_DEPTH} levels")
    if _LONG_ZERO in bare[::_STEP].translate(_AS_ZERO) and _LONG_NUMBER.search(_outside(bare)):
        raise Malformed(f"{what} holds a number longer than {MAX_NUMBER} characters")
    try:
        value = _decode(raw)
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is not UTF-8", where=f"byte {error.start}") from None
    except msgspec.DecodeError as error:
        raise Malformed(f"{what} is not JSON", where=_place(raw, str(error))) from None
    except (RecursionError, ArithmeticError):
        raise Malformed(f"{what} holds a number that this server does not take, or is nested too deeply") from None
    if b"\\u0000" in raw and _holds_nul(value):
        raise Malformed(f"{what} holds the character NUL")
    again = _encode(value)
    if again != raw and _bare(again).count(b'"') != bare.count(b'"'):
        raise Malformed(f"{what} names a member twice in one object")
    return value


def _bare(raw: bytes) -> bytes:
    """The text without what is escaped by a backslash alone: each quote that is left begins or ends a string.

    Pairs of backslashes go first, so that none of them is taken for the one before a quote.
    """
    return raw if b"\\" not in raw else raw.replace(b"\\\\", b"").replace(b'\\"', b"")


def _outside(bare: bytes) -> bytes:
    """The text without its strings: they are every second piece between quotes."""
    return b"".join(bare.split(b'"')[::2])


def _place(raw: bytes, message: str) -> str:
    found = _PLACE.search(message)
    return f"byte {found[1]}" if found else f"byte {len(raw)}"


def _too_deep(bare: bytes) -> bool:
    """Peel the innermost pairs of brackets until too few are left to be too deep: a few rounds, each at C speed.

    Two quotes side by side are a string without brackets, or the end of one and the begin of the next: without them,
    what is inside of a string stays there. What is left over where brackets do not match is the decoder's to refuse.
    """
    brackets = _outside(bare.translate(_FOLD, _NEITHER).replace(b'""', b""))
    for peeled in range(MAX_DEPTH):
        if len(brackets) <= 2 * (MAX_DEPTH - peeled):
            return False
        rest = brackets.replace(b"{}", b"")
        if len(rest) == len(brackets):
            return len(rest) > 2 * MAX_DEPTH
        brackets = rest
    return bool(brackets)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(member) for key, member in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
