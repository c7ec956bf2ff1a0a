"""The one way a noun becomes bytes, and the one way bytes become a digest.

Canonical form is RFC 8785 (JSON Canonicalization Scheme). Nouns carry decimals as text (a FHIR decimal keeps its
precision) and binary64 values as JSON numbers, so the same noun always gives the same bytes, on any machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import msgspec
import rfc8785

_MAX_SAFE = 2**53 - 1
_encode = msgspec.json.Encoder(order="sorted").encode
_pack = msgspec.msgpack.Encoder().encode

T = TypeVar("T")


class Noun(msgspec.Struct, frozen=True, omit_defaults=True):
    """A frozen record. A field with its default does not appear in its plain form: absence has one spelling."""

    def plain(self) -> dict[str, Any]:
        """The JSON object that stands for it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def but(self, **changes: Any) -> Self:
        """The same with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class _Rare(Exception):
    """A value whose spelling only the reference implementation should decide."""


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value.

    Text, whole numbers, booleans, null, containers with ASCII keys, and binary64 values between 1e-4 and 1e15 come out
    of msgspec byte for byte as RFC 8785 asks (there, its shortest decimal and ECMAScript's agree; a whole value loses
    its `.0` first). Any other value takes the reference implementation.
    `tests/models/test_canonical.py` holds the two against each other.

    Raises: ValueError for NaN, infinities, lone surrogates and integers beyond 2**53 - 1.
    """
    try:
        return _encode(value if _plain(value) else _respelled(value))
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate has no canonical form") from None
    except _Rare:
        return rfc8785.dumps(value)


def _plain(value: Any) -> bool:
    """Whether the C encoder's spelling is canonical as it is. Raises _Rare where even respelling would not help.

    Text and common numbers are looked at where they stand, in their container: this runs once per member of every noun.
    """
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str or not key.isascii():
                raise _Rare
        members = value.values()
    elif kind is list or kind is tuple:
        members = value
    else:
        return _plain_scalar(value)
    plain = True
    for member in members:
        kind = type(member)
        if kind is str or kind is bool:
            continue
        if kind is float and 1e-4 <= member < 1e15:
            if member.is_integer():
                plain = False
        elif not (kind is int and -_MAX_SAFE <= member <= _MAX_SAFE) and not _plain(member):
            plain = False
    return plain


def _plain_scalar(value: Any) -> bool:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is float:
        if 1e-4 <= value < 1e15 or -1e15 < value <= -1e-4:
            return not value.is_integer()
        if value == 0.0:
            return False
        raise _Rare
    if kind is int and -_MAX_SAFE <= value <= _MAX_SAFE:
        return True
    raise _Rare


def _respelled(value: Any) -> Any:
    """The same value with whole binary64 numbers as integers."""
    kind = type(value)
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {key: _respelled(member) for key, member in value.items()}
    if kind is list or kind is tuple:
        return [_respelled(member) for member in value]
    return value


def spell(value: Any) -> bytes:
    """RFC 8785 bytes of what holds text, whole numbers, booleans and null only, under ASCII names, by its types.

    Nobody looks for other numbers in it: for the many small nouns that hold none (facts), and containers of them.
    """
    return _encode(value)


def spelled(value: Any) -> Any:
    """A member of what is given to `spell` that may hold any number."""
    return msgspec.Raw(canonical(value))


def number_spelled(number: float) -> Any:
    """A binary64 member of what is given to `spell`. Raises: ValueError for NaN and infinities."""
    if type(number) is float:
        if 1e-4 <= number < 1e15:
            return int(number) if number.is_integer() else number
        if number == 0.0:
            return 0
    return spelled(number)


def curves_spelled(curves: Mapping[str, Sequence[float]]) -> Any:
    """Named lists of binary64 numbers, as a member of what is given to `spell`. Raises: as `canonical`.

    They are written first and looked at then, as text: without an exponent, `null` (NaN) and `.0`, every number in it
    is spelled as RFC 8785 asks.
    """
    if not curves:
        return {}
    text = _encode(list(curves.values()))
    if b"e" in text or b"n" in text or b".0," in text or b".0]" in text or not "".join(curves).isascii():
        return spelled(curves)
    rows = text[2:-2].split(b"],[")
    return {name: msgspec.Raw(b"[" + row + b"]") for name, row in zip(curves, rows, strict=True)}


def from_plain(kind: type[T], plain: Any) -> T:
    """The noun that a plain form stands for. Raises: ValueError where it does not stand for one."""
    return msgspec.convert(plain, kind)


def reader_of(kind: type[T]) -> Callable[[bytes], T]:
    """A parser of JSON bytes that we wrote ourselves. Raises: ValueError, as `from_plain`."""
    return msgspec.json.Decoder(kind).decode


def packed(value: Any) -> bytes:
    """Nouns and containers of them as bytes from one of our processes to another: MessagePack, for `unpacker_of`."""
    return _pack(value)


def unpacker_of(kind: Any) -> Callable[[bytes], Any]:
    """A parser of what `packed` wrote."""
    return msgspec.msgpack.Decoder(kind).decode


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, lower-case hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def whole(number: float) -> float:
    """The same number, as an integer where RFC 8785 spells it as one: 53.0 is `53` and -0.0 is `0`."""
    return int(number) if number.is_integer() and -_MAX_SAFE <= number <= _MAX_SAFE else number


def without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object without its empty members: absence has one spelling."""
    return {
        key: member
        for key, member in members.items()
        if member or (member is not None and member != () and member != [])
    }
