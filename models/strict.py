"""JSON as the standard means it, and nothing else: the one parser behind every door and every reader.

RFC 8259 leaves room for surprises (which of two equal names wins, lone surrogates, NaN); a record of patients has none.
Decimals come back as `decimal.Decimal`, so that 2.50 stays 2.50 (FHIR R4, datatypes, decimal: precision matters).

msgspec does the syntax; what it lets pass is found on the text without its strings: there, a colon stands for a member,
a bracket for a level, and nothing else does.
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

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9.eE+-]{%d}" % (MAX_NUMBER + 1))
_FOLD = bytes.maketrans(b"[]", b"{}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PLACE = re.compile(r"\(byte (\d+)\)")

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder().encode


def loads(raw: bytes, *, what: str = "the body") -> Any:
    """Parse one JSON text in UTF-8.

    Refuses: other encodings and a byte order mark, NaN and infinities, a name twice in one object, lone surrogates, the
    character NUL, numbers longer than 40 characters, nesting deeper than 64, anything after the value.

    Raises: Malformed, with the byte offset where one is known; the content is never quoted.
    """
    outside = _outside(raw)
    if _too_deep(outside):
        raise Malformed(f"{what} is nested deeper than {MAX_DEPTH} levels")
    if _LONG_NUMBER.search(outside):
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
    if outside.count(b":") != _members(raw, value):
        raise Malformed(f"{what} names a member twice in one object")
    return value


def _outside(raw: bytes) -> bytes:
    """The text without its strings; where nothing is escaped, they are every second piece between quotes."""
    if b"\\" not in raw:
        pieces = raw.split(b'"')
        if len(pieces) % 2:
            return b"".join(pieces[::2])
    return _STRING.sub(b"", raw)


def _place(raw: bytes, message: str) -> str:
    found = _PLACE.search(message)
    return f"byte {found[1]}" if found else f"byte {len(raw)}"


def _too_deep(outside: bytes) -> bool:
    """Peel the innermost pairs of brackets until none is left: as many rounds as the text is deep, each at C speed.

    What is left over where brackets do not match is the decoder's to refuse.
    """
    if outside.count(b"{") + outside.count(b"[") <= MAX_DEPTH:
        return False
    brackets = outside.translate(_FOLD, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        peeled = brackets.replace(b"{}", b"")
        if len(peeled) == len(brackets):
            return len(brackets) > 2 * MAX_DEPTH
        brackets = peeled
    return bool(brackets)


def _members(raw: bytes, value: Any) -> int:
    """How many members all objects in a value have together.

    Where nothing in the text is escaped, a quote and a colon stand side by side in its compact form after the name of a
    member only: C code writes it, and C code counts.
    """
    if b"\\" not in raw:
        return _encode(value).count(b'":')
    count = 0
    stack = [value]
    while stack:
        top = stack.pop()
        if type(top) is dict:
            count += len(top)
            stack += top.values()
        elif type(top) is list:
            stack += top
    return count


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(member) for key, member in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
