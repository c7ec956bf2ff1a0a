"""One file of an export on its way into a delivery: split into lines, counted, hashed and held against its manifest.

A manifest may lie (a server of the standard's own makers stated the type Condition and 8 lines for a file of none), so
each line is looked at as it passes. Nothing is left out for being bad: such a line is a part like any other, and what
reads it later quarantines it by its number.

Memory: a line up to `HOLD` bytes is held to be parsed, a longer one goes on in pieces, whatever the file's size.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from adapters.peer import Reply
from adapters.source import Staged
from models.errors import TooLarge

MOST_LINE = 64 << 20
"""Bytes of one line; `adapters.sources.files` takes no longer one from a disk."""
HOLD = 1 << 20
HEAD = 1 << 16
"""Bytes of a longer line in which its type is looked for."""
MOST_BLANK = 1000
BOM = b"\xef\xbb\xbf"

SEVERITIES = ("fatal", "error", "warning", "information", "success")
"""FHIR issue-severity; `success` came with R5."""
_IMPLIED = {"error": "OperationOutcome", "deleted": "Bundle"}
"""Bulk Data Access 2.0.0, Complete Status: what error and deleted files hold, whatever their entry says or does not."""
_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*)"|[{}\[\]:,]|[^\s"{}\[\]:,]+|"')


@dataclass(frozen=True, slots=True)
class Received:
    """What came. `lines`, `wrong_type` and `malformed` count parts: lines that are not blank."""

    lines: int
    bytes: int
    """Unpacked, line ends and all."""
    sha256: str
    """Of these bytes, in hex."""
    blank_lines: tuple[int, ...]
    """Numbers of the lines that were skipped, counted from 1; see `line_of`."""
    wrong_type: int
    malformed: int
    """Not one JSON object."""
    severities: Mapping[str, int]
    """Issues of an error file's OperationOutcomes; `unknown` for a severity that FHIR does not have."""
    problems: tuple[str, ...]
    """Where the file is not what its manifest says, or not what any file of an export is."""
    notes: tuple[str, ...]
    """What the format does not allow and does no harm."""

    @property
    def blank(self) -> int:
        return len(self.blank_lines)


async def receive(
    reply: Reply,
    staged: Staged,
    *,
    type: str | None = None,
    count: int | None = None,
    size: int | None = None,
    kind: str = "output",
    most_line: int = MOST_LINE,
) -> Received:
    """Write each line that is not blank as one part, without its line end (LF or CRLF). Neither commits nor abandons.

    `type`, `count`, `size` (bytes): what the manifest says, None where it says nothing. `kind`: `output`, `error` (its
    issues are counted by severity, their texts are not looked at) or `deleted`.

    Errors: TooLarge (a line over `most_line` bytes, more than 1,000 blank lines), PeerFailed (of the reply: cut off).
    """
    lines = _Lines(staged, type or _IMPLIED.get(kind), kind, most_line)
    digest, came = hashlib.sha256(), 0
    opening: bytes | None = b""
    async for chunk in reply.chunks():
        digest.update(chunk)
        came += len(chunk)
        if opening is not None:
            opening += chunk
            if len(opening) < len(BOM):
                continue
            chunk, opening = lines.begin(opening), None
        await lines.add(chunk)
        await asyncio.sleep(0)  # chunks that are there already come without a wait
    await lines.add(lines.begin(opening) if opening else b"")
    await lines.end()
    packed = reply.headers.get("content-encoding", "identity").strip().lower() != "identity"
    problems, notes = [], lines.notes()
    if count is not None and count != lines.parts:
        problems.append(f"{_so_many(lines.parts, 'line')} where the manifest says {count}")
    if size is not None and size != came:  # of a packed file it may be the size of either form
        (notes if packed else problems).append(f"{came} bytes where the manifest says {size}")
    return Received(
        lines=lines.parts,
        bytes=came,
        sha256=digest.hexdigest(),
        blank_lines=tuple(lines.blank),
        wrong_type=lines.wrong_type,
        malformed=lines.malformed,
        severities=dict(lines.severities),
        problems=(*problems, *lines.problems()),
        notes=tuple(notes),
    )


def line_of(part: int, blank_lines: Sequence[int]) -> int:
    """The line of its file, counted from 1, that a part (0 is the first, as `Part.ordinal`) came from."""
    before = [number - skipped for skipped, number in enumerate(blank_lines, 1)]  # parts before each blank line
    return part + 1 + bisect_right(before, part)


def _so_many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class _Lines:
    """Lines of a file as they come together from chunks."""

    def __init__(self, staged: Staged, type: str | None, kind: str, most_line: int) -> None:
        self._staged = staged
        self._type = type
        self._kind = kind
        self._most = most_line
        self._number = 1
        self._held: list[bytes] = []
        """Of the line under way: what was not written yet."""
        self._length = 0
        self._held_length = 0
        self._head = b""
        """Of a line that is longer than `HOLD`: its beginning."""
        self._last = b""
        """Of such a line: the last byte that is no white space."""
        self._bom = False
        self.parts = self.wrong_type = self.malformed = 0
        self.severities: Counter[str] = Counter()
        self.blank: list[int] = []

    def begin(self, opening: bytes) -> bytes:
        """The file's first bytes, without a byte order mark (RFC 8259, 8.1: not allowed, may be ignored)."""
        self._bom = opening.startswith(BOM)
        return opening.removeprefix(BOM)

    async def add(self, chunk: bytes) -> None:
        first, *more = chunk.split(b"\n")
        await self._grow(first)
        for following in more:
            await self._end_line()
            self._number += 1
            if following:
                await self._grow(following)

    async def end(self) -> None:
        """The file is over; its last line may have no end, and nothing after the last end is not a line."""
        if self._length:
            await self._end_line()

    async def _grow(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length > self._most:
            raise TooLarge(f"a line is longer than {self._most} bytes", where=f"line {self._number}")
        self._held.append(piece)
        self._held_length += len(piece)
        if self._held_length > HOLD:
            await self._pass_on()

    async def _pass_on(self) -> None:
        """Write what is held, but for its last byte: it may be half of a line end."""
        held = b"".join(self._held)
        self._head = self._head or held[:HEAD]
        self._last = held[:-1].rstrip()[-1:] or self._last
        await self._staged.write(held[:-1])
        self._held, self._held_length = [held[-1:]], 1

    async def _end_line(self) -> None:
        rest = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        rest = rest[:-1] if rest.endswith(b"\r") else rest
        if self._head:
            self._check_long(rest.rstrip()[-1:] or self._last)
        elif not rest or rest.isspace():
            self.blank.append(self._number)
            if len(self.blank) > MOST_BLANK:
                raise TooLarge(f"more than {MOST_BLANK} blank lines", where=f"line {self._number}")
            self._start()
            return
        else:
            self._check(rest)
        if rest:
            await self._staged.write(rest)
        await self._staged.end_part()
        self.parts += 1
        self._start()

    def _start(self) -> None:
        self._held = []
        self._length = self._held_length = 0
        self._head = self._last = b""

    # -- what a line is ------------------------------------------------------------------------------------------------

    def _check(self, line: bytes) -> None:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            self.malformed += 1
            return
        kind = value.get("resourceType")
        if not isinstance(kind, str) or kind != (self._type or kind):
            self.wrong_type += 1
        elif self._kind == "error":
            issues = value.get("issue")
            for issue in issues if isinstance(issues, list) else ():
                severity = issue.get("severity") if isinstance(issue, dict) else None
                self.severities[severity if severity in SEVERITIES else "unknown"] += 1

    def _check_long(self, last: bytes) -> None:
        """Of a line that is not held as a whole, its ends: whether it is JSON in between is for its reader to find."""
        if not self._head.lstrip().startswith(b"{") or last != b"}":
            self.malformed += 1
            return
        found = _type_in(self._head)
        if found is not None and self._type is not None and found != self._type.encode():
            self.wrong_type += 1

    def problems(self) -> list[str]:
        found = []
        if self.wrong_type:
            of_another = f"of another type than {self._type}" if self._type else "without a resource type"
            found.append(f"{_so_many(self.wrong_type, 'line')} {of_another}")
        if self.malformed:
            found.append(f"{_so_many(self.malformed, 'line')} not one JSON object")
        return found

    def notes(self) -> list[str]:
        found = ["a byte order mark at its beginning"] if self._bom else []
        return found + ([f"{_so_many(len(self.blank), 'blank line')}, skipped"] if self.blank else [])


def _type_in(head: bytes) -> bytes | None:
    """`resourceType` of the outermost object, where it stands in this beginning of it."""
    depth, name, before = 0, b"", b""
    for token in _TOKEN.finditer(head):
        text = token[0]
        if text == b'"':  # a text that the beginning cuts off: what follows is inside of it
            return None
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif depth == 1 and token[1] is not None:
            if before == b":" and name == b"resourceType":
                return token[1]
            name = token[1]
        before = text
    return None
