"""One JSON object, read piece by piece: the members of its `entry` come out as the bytes they are.

The decoder of the standard library says where a value ends, at the speed of C; what it built is thrown away. Only the
piece that is being read is in memory.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from models.errors import Malformed, TooLarge

_SPACE = " \t\r\n"
CHARACTERS = 1 << 16
"""Read at least this much at a time."""
_MARGIN = 16
"""Characters before the end of what was read in which an error may only mean that more is needed."""
_decode = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


class JsonStream:
    """Reads one JSON object from chunks of bytes. Each method is called at most once, in the order that they stand."""

    def __init__(self, chunk: Callable[[], Awaitable[bytes]], name: str, limit: int) -> None:
        self._chunk = chunk
        self._name = name
        self._limit = limit
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False
        self._read = 0
        self._kept: list[str] = []
        self._member = ""
        self._resource_type: Any = None
        self.bundle_type: Any = None
        """Bundle.type, once it was met."""

    @property
    def envelope(self) -> bytes:
        """The object without the members of `entry`; after `entries` has come to its end."""
        return "".join(self._kept).encode()

    async def is_bundle(self) -> bool:
        """Whether the object is a Bundle: by its resourceType, or, where `entry` stands before it, by the first entry.

        Reads up to `entry`, or to the end of the object.
        """
        async for name in self._members():
            if name == "entry" and await self._peek() == "[" and self._resource_type in (None, "Bundle"):
                if await self._first_is_of_bundle():
                    return True
            else:
                await self._value()
        if not isinstance(self._resource_type, str):
            raise self._wrong("an object without a resourceType is not a FHIR resource")
        return bool(self._resource_type == "Bundle")

    async def followed(self) -> bool:
        """Whether another object follows the one that was read; anything else than that or the end is refused."""
        mark = await self._peek(end=True)
        if mark not in ("", "{"):
            raise self._wrong("something follows the resource")
        return mark == "{"

    async def entries(self) -> AsyncIterator[bytes]:
        """The members of `entry`, each as its bytes; the rest is gathered in `envelope`."""
        seen = False
        async for name in self._members(keep=True):
            if name == "entry" and await self._peek() == "[":
                if seen:
                    raise self._wrong("the Bundle names `entry` twice")
                seen = True
                async for entry in self._entry_members():
                    yield entry
            else:
                await self._value(keep=True)
        if self._resource_type != "Bundle":
            raise self._wrong("entries of something that is not a Bundle")
        if await self._peek(end=True):
            raise self._wrong("something follows the Bundle")

    async def whole(self) -> bytes:
        """The bytes of the object."""
        await self._peek()
        _, text = await self._piece()
        if await self._peek(end=True):
            raise self._wrong("something follows the resource")
        return text.encode()

    # ---- inside ------------------------------------------------------------------------------------------------------

    async def _members(self, *, keep: bool = False) -> AsyncIterator[str]:
        """The names of the object's members; the caller reads each value before it asks for the next."""
        await self._expect("{", keep)
        if await self._peek() == "}":
            await self._expect("}", keep)
            return
        while True:
            if await self._peek() != '"':
                raise self._wrong("not JSON: a name is expected")
            name, raw = await self._piece()
            self._keep(raw, keep)
            await self._expect(":", keep)
            self._member = name
            yield name
            if await self._peek() == "}":
                await self._expect("}", keep)
                return
            await self._expect(",", keep)

    async def _value(self, *, keep: bool = False) -> None:
        await self._peek()
        value, raw = await self._piece()
        self._keep(raw, keep)
        if self._member == "resourceType":
            self._resource_type = value
        elif self._member == "type":
            self.bundle_type = value

    async def _entry_members(self) -> AsyncIterator[bytes]:
        await self._expect("[", True)
        if await self._peek() == "]":
            await self._expect("]", True)
            return
        while True:
            if await self._peek() != "{":
                raise self._wrong("an entry is not an object")
            _, raw = await self._piece()
            yield raw.encode()
            if await self._peek() == "]":
                await self._expect("]", True)
                return
            await self._expect(",", False)

    async def _first_is_of_bundle(self) -> bool:
        """A List has `entry` too, with `item` in each member; it is read to its end."""
        if self._resource_type == "Bundle":
            return True
        await self._expect("[", False)
        if await self._peek() != "{":
            return True
        entry, _ = await self._piece()
        if "item" not in entry:
            return True
        while await self._peek() == ",":
            await self._expect(",", False)
            await self._peek()
            await self._piece()
        await self._expect("]", False)
        return False

    def _keep(self, raw: str, keep: bool) -> None:
        if keep:
            self._kept.append(raw)

    async def _expect(self, mark: str, keep: bool) -> None:
        if await self._peek() != mark:
            raise self._wrong(f"not JSON: {mark} is expected")
        self._at += 1
        self._keep(mark, keep)

    async def _peek(self, *, end: bool = False) -> str:
        """The next character that is no space, without taking it; at the end nothing, where that is allowed."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(text):
                return text[at]
            if not await self._more(CHARACTERS):
                if end:
                    return ""
                raise self._wrong("the file ends in the middle of its JSON")

    async def _piece(self) -> tuple[Any, str]:
        """The value that begins here, and its text. Reads on, each time twice as much, until it is whole."""
        want = CHARACTERS
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _MARGIN
                if not cut:
                    raise self._wrong("not JSON") from None
            except RecursionError:
                raise self._wrong("JSON that is nested too deep") from None
            else:
                if end < len(self._text) or self._ended:
                    raw = self._text[self._at : end]
                    if len(raw) > self._limit:
                        raise self._too_large()
                    self._at = end
                    return value, raw
            if len(self._text) - self._at > self._limit:
                raise self._too_large()
            if not await self._more(want):
                raise self._wrong("the file ends in the middle of its JSON")
            want *= 2

    async def _more(self, want: int) -> bool:
        """Append at least `want` characters, as far as there are any; drop what was read."""
        if self._ended:
            return False
        self._read += self._at
        pieces, size = [self._text[self._at :]], 0
        self._at = 0
        while size < want and not self._ended:
            raw = await self._chunk()
            self._ended = not raw
            try:
                piece = self._utf8.decode(raw, final=not raw)
            except UnicodeDecodeError:
                raise self._wrong("not UTF-8") from None
            pieces.append(piece)
            size += len(piece)
        self._text = "".join(pieces)
        return size > 0 or self._ended

    def _wrong(self, what: str) -> Malformed:
        return Malformed(what, where=f"{self._name}, near character {self._read + self._at}")

    def _too_large(self) -> TooLarge:
        where = f"{self._name}, character {self._read + self._at}"
        return TooLarge(f"an entry or a resource is longer than {self._limit} characters", where=where)
