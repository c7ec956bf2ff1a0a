"""JSON as the standard means it, and nothing else: the one parser behind every door and every reader.

RFC 8259 leaves room for surprises (which of two equal names wins, lone surrogates, NaN); a record of patients has none.
Decimals come back as `decimal.Decimal`, so that 2.50 stays 2.50 (FHIR R4, datatypes, decimal: precision matters).
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from models.errors import Malformed

MAX_DEPTH = 64
MAX_NUMBER = 40
"""Characters of one number: more than any measurement needs."""

_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_FOLD = bytes.maketrans(b"[]", b"{}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class _Repeated(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Repeated
    return members


def _constant(_: str) -> Any:
    raise ValueError


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_NUMBER:
        raise ValueError
    return Decimal(text)


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise ValueError
    return int(text)


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_integer, parse_constant=_constant, strict=True
)


def loads(raw: bytes, *, what: str = "the body") -> Any:
    """Parse one JSON text in UTF-8.

    Refuses: other encodings and a byte order mark, NaN and infinities, a name twice in one object, lone surrogates, the
    character NUL, numbers longer than 40 characters, nesting deeper than 64, anything after the value.

    Raises: Malformed, with the byte offset where one is known; the content is never quoted.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is not UTF-8", where=f"byte {error.start}") from None
    try:
        value, end = _decoder.raw_decode(text, len(text) - len(text.lstrip(" \t\r\n")))
    except _Repeated:
        raise Malformed(f"{what} names a member twice in one object") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"{what} is not JSON", where=f"character {error.pos}") from None
    except RecursionError:
        raise Malformed(f"{what} is nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, ArithmeticError):
        raise Malformed(f"{what} holds a number that JSON or this server does not allow") from None
    if text[end:].strip(" \t\r\n"):
        raise Malformed(f"{what} goes on after its JSON value", where=f"character {end}")
    if b"\\u" in raw:
        if b"\\u0000" in raw:
            raise Malformed(f"{what} holds the character NUL")
        if _SURROGATE.search(raw):
            try:
                json.dumps(value, ensure_ascii=False, default=str).encode()
            except UnicodeEncodeError:
                raise Malformed(f"{what} holds half of a surrogate pair") from None
    if _too_deep(raw):
        raise Malformed(f"{what} is nested deeper than {MAX_DEPTH} levels")
    return value


def _too_deep(raw: bytes) -> bool:
    """Peel the innermost pairs of brackets until none is left: as many rounds as the text is deep, each at C speed."""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", raw).translate(_FOLD, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"{}", b"")
        if not brackets:
            return False
    return True
