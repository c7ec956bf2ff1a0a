"""HL7 v2 messages as people read them in a terminal: fields by name, escapes undone, what is about a person masked."""

from __future__ import annotations

import difflib
import gzip
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from adapters.hl7v2.batch import Entry, Oddity, split
from adapters.hl7v2.masking import MASK, hidden, masked
from adapters.hl7v2.message import HEADERS, Message, Repetition, Segment
from adapters.hl7v2.structure import components, field, segment_title

LONGEST = 2000
"""Characters of a value that a terminal is given; `--json` has all of them."""
MOST_PARTS = 400
"""Components and sub-components of one field that are told apart; more is no field of the standard."""
_CHUNK = 1 << 20
_TITLE = 36
_PLACE = 12


class Line(NamedTuple):
    """One repetition of a field that holds something."""

    place: str
    title: str
    datatype: str
    value: str
    """As it may be shown, delimiters between its parts, escapes undone."""
    masked: bool
    """Something of it is hidden."""
    sent: str
    """As it was sent: for comparing, never for showing."""


class Block(NamedTuple):
    """One segment."""

    name: str
    place: str
    title: str
    lines: tuple[Line, ...]


# ---- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def opened(name: str) -> Iterator[Iterator[Entry | Oddity]]:
    """The messages of a file (`-`: the standard input), plain or gzip, as a stream. Raises OSError."""
    if name == "-":
        yield split(_chunks(sys.stdin.buffer))
        return
    with Path(name).open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield split(_chunks(cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw))


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


# ---- what is shown ---------------------------------------------------------------------------------------------------


def blocks(message: Message, *, unmask: bool = False) -> list[Block]:
    """The segments of a message with the fields that hold something, Z-segments too."""
    version = message.version
    found = []
    for segment in message:
        lines = [
            _line(each, version, unmask)
            for number in range(1, len(segment) + 1)
            for each in segment.field(number)
            if each.raw
        ]
        found.append(Block(segment.name, str(segment.place()), segment_title(segment.name), tuple(lines)))
    return found


def _line(each: Repetition, version: str, unmask: bool) -> Line:
    segment = each.segment
    element = field(segment.name, each.field, version)
    kind = element.datatype if element else ""
    if segment.name == "OBX" and each.field == 5:
        kind = segment.text(2)
    value, hides = _value(each, version, unmask)
    return Line(str(each.place()), element.title if element else "", kind, value, hides, each.raw)


def _value(each: Repetition, version: str, unmask: bool) -> tuple[str, bool]:
    if each.field <= 2 and each.segment.name in HEADERS:
        return each.raw, False
    delimiters = each.segment.message.delimiters
    if each.raw.count(delimiters.component) + each.raw.count(delimiters.sub) > MOST_PARTS:
        return (each.whole, False) if unmask else (MASK, True)
    shown, hides = [], False
    for component, part in enumerate(each.raw.split(delimiters.component), 1):
        subs = []
        for sub in range(1, part.count(delimiters.sub) + 2):
            text = each.text(component, sub) if unmask else masked(each, component, sub, version)
            if not text and part == '""':
                text = part
            hides = hides or (not unmask and bool(each.text(component, sub)) and _hides(each, component, sub, version))
            subs.append(text)
        shown.append(delimiters.sub.join(subs))
    return delimiters.component.join(shown), hides


def _hides(each: Repetition, component: int, sub: int, version: str) -> bool:
    return hidden(each, component, sub, version) is not None


def printable(text: str) -> str:
    """Text that cannot command a terminal: control characters by their number, but for ends of lines."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"
    return "".join(
        each
        if each.isprintable() or each == "\n"
        else f"\\x{ord(each):02x}"
        if ord(each) < 256
        else f"\\u{ord(each):04x}"
        for each in text
    )


def heading(message: Message, number: int) -> str:
    """`message 2: ORU^R01, version 2.5.1, 24 segments`."""
    kind = "^".join(part for part in message.trigger if part) or "no type"
    stated = message["MSH"].text(12) or "none stated"
    return printable(f"message {number}: {kind}, version {stated}, {len(message)} segments")


def plain(message: Message, number: int, *, unmask: bool) -> dict[str, Any]:
    """The same for programs: every value whole, with the names of its components."""
    version = message.version
    return {
        "message": number,
        "type": "^".join(part for part in message.trigger if part),
        "version": message["MSH"].text(12),
        "read_as": version,
        "warnings": message.warnings,
        "segments": [
            {
                "segment": block.name,
                "place": block.place,
                "title": block.title,
                "fields": [
                    {
                        **{name: part for name, part in line._asdict().items() if name != "sent"},
                        "components": [each.title for each in components(line.datatype, version)],
                    }
                    for line in block.lines
                ],
            }
            for block in blocks(message, unmask=unmask)
        ],
    }


# ---- a difference ----------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """What one message says at a place, and the other. None: it says nothing there."""

    place: str
    title: str
    before: str | None
    after: str | None


_TOLD_APART_BY = {
    "OBX": ((3, 1), (4, 1)),
    "OBR": ((4, 1),),
    "DG1": ((3, 1),),
    "AL1": ((3, 1),),
    "IAM": ((3, 1),),
    "PR1": ((3, 1),),
    "RXA": ((5, 1),),
    "NK1": ((3, 1),),
    "IN1": ((2, 1),),
}
"""Fields by which segments of one name are told apart: so that a result in the middle moves no other."""


def difference(before: Message, after: Message, *, unmask: bool = False) -> list[Change]:
    """What differs, by fields. Segments are paired by their names and what they are about, in order; a field whose
    masked values look alike is told nevertheless. Places are those of the message that has the segment, the later one
    first."""
    olds, news = blocks(before, unmask=unmask), blocks(after, unmask=unmask)
    changes: list[Change] = []
    matcher = difflib.SequenceMatcher(None, _keys(before), _keys(after), autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            for old, new in zip(olds[a:b], news[c:d], strict=True):
                changes += _between(old, new)
            continue
        for old in olds[a:b]:
            changes.append(Change(old.place, old.title, " | ".join(line.value for line in old.lines), None))
        for new in news[c:d]:
            changes.append(Change(new.place, new.title, None, " | ".join(line.value for line in new.lines)))
    return changes


def _keys(message: Message) -> list[tuple[str, ...]]:
    return [_key(segment) for segment in message]


def _key(segment: Segment) -> tuple[str, ...]:
    return (segment.name, *(segment.text(*at) for at in _TOLD_APART_BY.get(segment.name, ())))


def _between(old: Block, new: Block) -> Iterator[Change]:
    before = {line.place.removeprefix(old.place): line for line in old.lines}
    after = {line.place.removeprefix(new.place): line for line in new.lines}
    for at in sorted({*before, *after}, key=_in_order):
        one, other = before.get(at), after.get(at)
        if one and other and one.sent == other.sent:
            continue
        known = other or one
        assert known is not None  # noqa: S101 (at is of one of the two)
        yield Change(new.place + at, known.title, one.value if one else None, other.value if other else None)


def _in_order(at: str) -> tuple[int, int]:
    field_number, _, repetition = at.lstrip("-").partition("[")
    return int(field_number), int(repetition.rstrip("]") or 1)


# ---- on the terminal -------------------------------------------------------------------------------------------------


def shown(message: Message, number: int, *, unmask: bool) -> None:
    """Print a message: coloured on a terminal, plain text elsewhere."""
    found = blocks(message, unmask=unmask)
    head = heading(message, number)
    notes = [*message.warnings, *([f"{len(message.strays)} lines that are no segments"] if message.strays else [])]
    rows = [(block, [(line.place, line.title, line.value, line.masked) for line in block.lines]) for block in found]
    if not sys.stdout.isatty():
        _say(head)
        for note in notes:
            _say(f"  note: {note}")
        for block, lines in rows:
            _say(f"{block.place}  {block.title}".rstrip())
            for place, title, value, _ in lines:
                _say(_padded(place, title, value))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(head, style="bold reverse"))
    for note in notes:
        console.print(Text(f"note: {note}", style="yellow"))
    for block, lines in rows:
        console.print(Text.assemble((block.place, "bold cyan"), "  ", (block.title, "bold")))
        table = Table.grid(padding=(0, 1))
        table.add_column(width=_PLACE, no_wrap=True)
        table.add_column(width=_TITLE)
        table.add_column(overflow="fold")
        for place, title, value, hides in lines:
            text = Text(printable(value))
            if hides:
                text.highlight_words([MASK], "dim magenta")
            table.add_row(Text(f"  {place}", style="cyan"), Text(title, style="green"), text)
        console.print(table)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _padded(place: str, title: str, value: str) -> str:
    indent = " " * (2 + _PLACE + 1 + _TITLE + 1)
    return f"  {place:{_PLACE}} {title:{_TITLE}} " + printable(value).replace("\n", f"\n{indent}")


def changed(changes: Iterable[Change]) -> None:
    """Print a difference: `-` before, `+` after."""
    lines = []
    for change in changes:
        lines.append(("", f"{change.place}  {change.title}".rstrip()))
        alike = change.before is not None and change.before == change.after
        if change.before is not None:
            lines.append(("red", f"  - {printable(change.before)}"))
        if change.after is not None:
            lines.append(("green", f"  + {printable(change.after)}" + ("  (differs behind the mask)" if alike else "")))
    if not sys.stdout.isatty():
        _say("\n".join(text for _, text in lines))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for style, text in lines:
        console.print(Text(text, style=style or "bold"))
