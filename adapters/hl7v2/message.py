"""A message, split as far as somebody asks: segments at once, fields at their first use, the rest on demand.

    message = parse(raw)
    message["PID"].text(5)                      first component of the first repetition, unescaped
    [name.text(2) for name in message["PID"].field(5)]
    message.get("OBX[2]-3.1")

Nothing, null and not there (HL7 v2.5.1 chapter 2, 2.5.3.5): `text` gives "" for all of them, so that no null is ever
taken for a value; `state` tells them apart, and `raw` gives `NULL` for a null. Groups are the reader's: segments stay
in the order in which they came, unknown ones (Z) among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final

from adapters.hl7v2.charsets import UNKNOWN, UNSAID, Charset, Undecodable, charset_of, declared_in, decode
from adapters.hl7v2.escapes import Delimiters, Unescaper, delimiters_of, unescaper_of
from adapters.hl7v2.places import Path, path
from models.errors import Malformed, TooLarge, Unreadable

NULL: Final = '""'
"""A field or component that is to be deleted; not the same as one that is empty, which says nothing."""

VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")
HEADERS = frozenset({"MSH", "FHS", "BHS"})
"""Segments whose first field is the separator itself, and whose second is never unescaped."""

MOST_SEGMENTS = 250_000
"""Of one message: each becomes an object, and 16 MB of them would be a gigabyte."""
MOST_REPETITIONS = 50_000
MOST_FIELDS = 2_000
"""Of one segment; what comes after them stays in the last one. The standard's longest has about a hundred."""

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"M\0", b"\0M", b"\0\0\0M")
_ENDS = re.compile(r"[\r\n]+")
_HIDDEN = re.compile(r"\n[A-Z][A-Z0-9]{2}\|")
_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
_HEAD = 8192


class State(Enum):
    """What stands at a place."""

    ABSENT = "absent"
    """The segment ends before it: no change, as for an empty one."""
    EMPTY = "empty"
    NULL = "null"
    """`""`: delete what you have."""
    VALUED = "valued"


class Repetition:
    """One repetition of a field."""

    __slots__ = ("field", "number", "raw", "segment")

    def __init__(self, segment: Segment, field: int, number: int, raw: str) -> None:
        self.segment, self.field, self.number, self.raw = segment, field, number, raw

    def text(self, component: int = 1, sub: int = 1) -> str:
        """A sub-component, unescaped; "" where there is nothing, or a null."""
        segment, raw = self.segment, self.raw
        if segment.plain:
            return segment._plain(raw, component, sub) if raw else ""
        if self._verbatim:
            return raw if component == sub == 1 else ""
        return segment._leaf(raw, component, sub)

    @property
    def whole(self) -> str:
        """All of it, unescaped: what is meant where senders of plain text (ST, TX, FT) leave `^` and `&` unescaped."""
        if self._verbatim:
            return self.raw
        return "" if self.raw == NULL else self.segment.message.unescape(self.raw)

    @property
    def _verbatim(self) -> bool:
        """MSH-1 and MSH-2 are the delimiters themselves."""
        return self.field <= 2 and self.segment.name in HEADERS

    def component(self, number: int) -> str:
        """A component as it was sent: still escaped, with its sub-components."""
        parts = self.raw.split(self.segment.message.delimiters.component, number)
        return parts[number - 1] if 0 < number <= len(parts) else ""

    @property
    def components(self) -> list[str]:
        """Each component's first sub-component, unescaped."""
        if self._verbatim:
            return [self.raw]
        return [self.segment._leaf(part, 1, 1) for part in self.raw.split(self.segment.message.delimiters.component)]

    def state(self, component: int = 0) -> State:
        """Of the repetition, or of one of its components."""
        if component > self.raw.count(self.segment.message.delimiters.component) + 1:
            return State.ABSENT
        return _state(self.component(component) if component else self.raw)

    def place(self, component: int = 0, sub: int = 0) -> Path:
        return Path(self.segment.name, self.segment.number, self.field, self.number, component, sub)

    def __bool__(self) -> bool:
        return bool(self.raw) and self.raw != NULL


class Segment:
    """One segment. Its fields are split when the first of them is asked for."""

    __slots__ = ("_fields", "line", "message", "name", "number", "plain")

    def __init__(self, message: Message, name: str, number: int, line: str) -> None:
        self.message = message
        self.name = name
        self.number = number
        """The how-manieth of its name, from 1."""
        self.line = line
        self._fields: list[str] | None = None
        self.plain = False
        """No repetition, sub-component or escape stands in it. Known once it is split."""

    @property
    def fields(self) -> list[str]:
        """As they were sent, still escaped; `fields[3]` is field 3, `fields[0]` the segment's name."""
        return self._fields or self._split()

    def _split(self) -> list[str]:
        line, delimiters = self.line, self.message.delimiters
        fields = line.split(delimiters.field, MOST_FIELDS)
        if self.name in HEADERS:
            fields.insert(1, delimiters.field)
        else:
            self.plain = not (delimiters.repetition in line or delimiters.sub in line or delimiters.escape in line)
        self._fields = fields
        return fields

    def __len__(self) -> int:
        """The number of the last field that was sent, empty or not."""
        return len(self.fields) - 1

    def text(self, field: int, component: int = 1, sub: int = 1) -> str:
        """A sub-component of the first repetition, unescaped; "" where there is nothing, or a null."""
        fields = self._fields or self._split()
        try:
            value = fields[field]
        except IndexError:
            return ""
        if not value:
            return ""
        if not self.plain:
            if field <= 2 and self.name in HEADERS:
                return value if component == sub == 1 else ""
            delimiters = self.message.delimiters
            if delimiters.repetition in value:
                value = value[: value.index(delimiters.repetition)]
            return self._leaf(value, component, sub)
        return self._plain(value, component, sub)

    def _plain(self, value: str, component: int, sub: int) -> str:
        """Of a repetition in which there is nothing but components."""
        separator = self.message.component
        if separator in value:
            parts = value.split(separator, component)
            value = parts[component - 1] if component <= len(parts) else ""
        elif component != 1:
            return ""
        return "" if sub != 1 or value == NULL else value

    def _leaf(self, value: str, component: int, sub: int) -> str:
        delimiters = self.message.delimiters
        if delimiters.component in value:
            parts = value.split(delimiters.component, component)
            value = parts[component - 1] if component <= len(parts) else ""
        elif component != 1:
            return ""
        if delimiters.sub in value:
            parts = value.split(delimiters.sub, sub)
            value = parts[sub - 1] if sub <= len(parts) else ""
        elif sub != 1:
            return ""
        if value == NULL:
            return ""
        return self.message.unescape(value) if delimiters.escape in value else value

    def raw(self, field: int) -> str:
        """A field as it was sent, with its repetitions and escapes; "" where there is nothing, `NULL` for a null."""
        fields = self.fields
        return fields[field] if field < len(fields) else ""

    def field(self, number: int) -> list[Repetition]:
        """The repetitions of a field, empty ones too (their position may mean something); none for an empty field.

        Raises: TooLarge (more than 50,000 of them).
        """
        value = self.raw(number)
        if not value:
            return []
        if self.plain or (number <= 2 and self.name in HEADERS):
            return [Repetition(self, number, 1, value)]
        parts = value.split(self.message.delimiters.repetition, MOST_REPETITIONS)
        if len(parts) > MOST_REPETITIONS:
            raise TooLarge("a field with more repetitions than anybody needs", where=str(self.place(number)))
        return [Repetition(self, number, index, part) for index, part in enumerate(parts, 1)]

    def first(self, number: int) -> Repetition:
        """The first repetition of a field; an empty one where there is none."""
        value = self.raw(number)
        if not self.plain and not (number <= 2 and self.name in HEADERS):
            value = value.split(self.message.delimiters.repetition, 1)[0]
        return Repetition(self, number, 1, value)

    def state(self, field: int) -> State:
        return State.ABSENT if field > len(self) else _state(self.raw(field))

    def place(self, field: int = 0, repetition: int = 0, component: int = 0, sub: int = 0) -> Path:
        """Where it is, for an error or an ERR segment."""
        return Path(self.name, self.number, field, repetition, component, sub)

    @property
    def pointer(self) -> str:
        """`/OBX/3`: the fourth OBX, in the form of a JSON pointer."""
        return f"/{self.name}/{self.number - 1}"


def _state(value: str) -> State:
    if not value:
        return State.EMPTY
    return State.NULL if value == NULL else State.VALUED


class Message:
    """One message: its segments in the order in which they came. Made by `parse`."""

    __slots__ = ("_named", "charset", "component", "delimiters", "segments", "strays", "unescape", "warnings")

    def __init__(self, delimiters: Delimiters, charset: Charset, warnings: list[str]) -> None:
        self.delimiters = delimiters
        self.component = delimiters.component
        self.charset = charset
        self.unescape: Unescaper = unescaper_of(delimiters, charset)
        self.segments: list[Segment] = []
        self.strays: list[tuple[str, str]] = []
        """Lines that are no segments: (the segment they follow, the line). Kept for whoever looks, read by nobody."""
        self.warnings = warnings
        """What was odd, in our words, never with a value."""
        self._named: dict[str, list[Segment]] = {}

    def _add(self, line: str) -> None:
        name = line[:3]
        if line[3:4] not in (self.delimiters.field, "") or not _names_segment(name):
            after = str(self.segments[-1].place()) if self.segments else ""
            self.strays.append((after, line))
            return
        same = self._named.get(name)
        if same is None:
            same = self._named[name] = []
        segment = Segment(self, name, len(same) + 1, line)
        same.append(segment)
        self.segments.append(segment)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def __contains__(self, name: str) -> bool:
        return name in self._named

    def __getitem__(self, name: str) -> Segment:
        """The first segment of a name. Raises: Unreadable (there is none)."""
        try:
            return self._named[name][0]
        except KeyError:
            raise Unreadable("a segment that is needed is not there", where=name) from None

    def find(self, name: str) -> Segment | None:
        """The first segment of a name, or None."""
        named = self._named.get(name)
        return named[0] if named else None

    def all(self, name: str) -> list[Segment]:
        return self._named.get(name, [])

    def get(self, where: str | Path) -> str:
        """The text at a path, unescaped: the first component and repetition where none is named; "" for nothing."""
        to = path(where) if isinstance(where, str) else where
        named = self._named.get(to.segment)
        if named is None or not 0 < to.number <= len(named):
            return ""
        segment = named[to.number - 1]
        if to.repetition > 1:
            found = segment.field(to.field)
            return found[to.repetition - 1].text(to.component or 1, to.sub or 1) if to.repetition <= len(found) else ""
        return segment.text(to.field, to.component or 1, to.sub or 1)

    @property
    def version(self) -> str:
        """MSH-12, or the nearest lower one that is known (2.7.1 -> 2.7, 2.9 -> 2.8.2); none stated: the lowest."""
        return nearest(self.segments[0].text(12))

    @property
    def trigger(self) -> tuple[str, str]:
        """Message type and event of MSH-9; the event of EVN-1 where MSH-9 has none (2.1, 2.2)."""
        head = self.segments[0]
        return head.text(9), head.text(9, 2) or self.get("EVN-1")

    @property
    def fragment(self) -> str | None:
        """Why this is only a part of a message (chapter 2, 2.10.2: DSC, ADD, MSH-14), as a path; None: it is whole.

        Fragments are refused: putting them together would need parts that nobody has acknowledged as a message yet.
        """
        if self.segments[0].text(14):
            return "MSH-14"
        return next((name for name in ("DSC", "ADD") if name in self), None)


@lru_cache(maxsize=256)
def nearest(version: str) -> str:
    """The highest known version that is not above this one; what cannot be read counts as the lowest."""
    if version in VERSIONS:
        return version
    wanted = re.match(r"2(?:\.[0-9]{1,3}){1,3}", version)
    if not wanted:
        return VERSIONS[0]
    as_numbers = _numbers(wanted[0])
    return max((known for known in VERSIONS if _numbers(known) <= as_numbers), key=_numbers, default=VERSIONS[0])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@lru_cache(maxsize=1024)
def _names_segment(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def parse(raw: bytes, charset: str | None = None, *, undecodable: Undecodable = Undecodable.REFUSE) -> Message:
    """Split one message into segments.

    `charset`: the source's, for messages that declare none; without it UTF-8, then cp1252 with a warning.
    Segments end with CR; where the first one ends with LF, LF ends them all (and CR too). LF in a message of CR is
    data. Blank lines, a byte order mark and white space before MSH are passed over.

    Raises: Malformed (no MSH, delimiters that cannot be told apart, a second MSH), Unreadable (a character set that is
    not supported or does not fit, where `undecodable` says refuse), TooLarge (more than 250,000 segments).
    """
    if raw.startswith(_BOM):
        raw = raw[3:]
    if not raw.startswith(b"MSH"):
        raw = raw.lstrip(b"\r\n\t ")
        if not raw.startswith(b"MSH"):
            if raw.startswith(_UTF_16):
                raise Unreadable("UTF-16 and UTF-32 cannot be sent over MLLP", where="byte 0")
            raise Malformed("no MSH segment at the start", where="byte 0")
    warnings: list[str] = []
    kind = _charset(raw, charset, undecodable, warnings)
    text, told = decode(raw, kind, undecodable)
    warnings.extend(told)
    end = _ENDS.search(text)
    head = text[: end.start()] if end else text
    delimiters = delimiters_of(head[3:4], head[4:].split(head[3:4], 1)[0] if len(head) > 3 else "")
    message = Message(delimiters, kind, warnings)
    add = message._add
    if text.count("\r") + text.count("\n") > MOST_SEGMENTS:
        raise TooLarge("more segments than anybody needs", where="the message")
    if end and end[0][0] == "\n":
        for line in text.replace("\r", "\n").split("\n"):
            if line:
                add(line)
    elif "\n" in text:
        for line in text.split("\r"):
            if line := line.lstrip("\n"):
                if _HIDDEN.search(line):
                    warnings.append("a line feed before what looks like a segment: kept as data of the segment before")
                add(line)
    else:
        for line in text.split("\r"):
            if line:
                add(line)
    _look_twice(message)
    return message


def _look_twice(message: Message) -> None:
    """Warn of what is read nevertheless."""
    stated = message.segments[0].text(12)
    if stated not in VERSIONS:
        message.warnings.append("no version is stated" if not stated else "a version that is not known: the one below")
    if message.strays:
        message.warnings.append("lines that are no segments")
    if len(message.all("MSH")) > 1:
        raise Malformed("more than one message", where="MSH[2]")


def _charset(raw: bytes, default: str | None, undecodable: Undecodable, warnings: list[str]) -> Charset:
    """What MSH-18 declares, by the bytes of the first segment; else the source's default."""
    end = min((at for at in (raw.find(b"\r", 0, _HEAD), raw.find(b"\n", 0, _HEAD)) if at >= 0), default=_HEAD)
    fields = raw[:end].decode("latin-1").split(raw[3:4].decode("latin-1") or "|")
    declared = declared_in(fields)
    names: tuple[str, ...] = ()
    if declared and declared != NULL:
        names = tuple(declared.split(fields[1][1:2] or "~"))
    elif default:
        names = (default,)
    try:
        return charset_of(names)
    except Unreadable:
        if undecodable is Undecodable.REFUSE:
            raise
        warnings.append(UNKNOWN)
        return UNSAID
