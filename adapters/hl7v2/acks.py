"""Acknowledgements (HL7 v2 chapter 2, 2.9 and 2.15): which are due, and their bytes.

Everything that an answer echoes is taken from the message's bytes as they stand, so that an answer can be given to a
message that cannot be parsed. What is echoed is still escaped in the sender's own delimiters; bytes that would break
the frame or the segment are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from adapters.hl7v2.charsets import SPLITTING, charset_of, declared_in
from adapters.hl7v2.escapes import STANDARD, Delimiters, delimiters_of, escape
from adapters.hl7v2.places import Path
from adapters.hl7v2.times import stamp
from models.errors import BadInput

HEAD = 4096
"""Bytes in which MSH is looked for."""

_NEVER = bytes(range(0x20)) + b"\x7f"
"""Left out of what is echoed: 0x0B and 0x1C end a frame, CR a segment, and no header needs another control."""
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Code(StrEnum):
    """MSA-1, table 0008. A: of the application (and of the original mode); C: of acceptance, in the enhanced mode."""

    AA = "AA"
    AE = "AE"
    AR = "AR"
    CA = "CA"
    CE = "CE"
    CR = "CR"

    @property
    def positive(self) -> bool:
        return self in (Code.AA, Code.CA)


class When(StrEnum):
    """MSH-15 and MSH-16, table 0155."""

    ALWAYS = "AL"
    NEVER = "NE"
    ON_ERROR = "ER"
    ON_SUCCESS = "SU"

    def due(self, success: bool) -> bool:
        return self is When.ALWAYS or self is (When.ON_SUCCESS if success else When.ON_ERROR)


class Cause(StrEnum):
    """ERR-3, table 0357: the causes that we name."""

    SEQUENCE = "100"
    REQUIRED = "101"
    TYPE = "102"
    TABLE = "103"
    LENGTH = "104"
    MESSAGE_TYPE = "200"
    EVENT = "201"
    PROCESSING_ID = "202"
    VERSION = "203"
    UNKNOWN_KEY = "204"
    DUPLICATE_KEY = "205"
    LOCKED = "206"
    INTERNAL = "207"


_TEXTS = {
    Cause.SEQUENCE: "Segment sequence error",
    Cause.REQUIRED: "Required field missing",
    Cause.TYPE: "Data type error",
    Cause.TABLE: "Table value not found",
    Cause.LENGTH: "Value too long",
    Cause.MESSAGE_TYPE: "Unsupported message type",
    Cause.EVENT: "Unsupported event code",
    Cause.PROCESSING_ID: "Unsupported processing id",
    Cause.VERSION: "Unsupported version id",
    Cause.UNKNOWN_KEY: "Unknown key identifier",
    Cause.DUPLICATE_KEY: "Duplicate key identifier",
    Cause.LOCKED: "Application record locked",
    Cause.INTERNAL: "Application internal error",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One ERR segment. Its words are ours: what is wrong and where, never a value."""

    cause: Cause
    place: Path | None = None
    text: str = ""
    severity: str = "E"
    """E, W or I (table 0516)."""


class Header(NamedTuple):
    """What an answer needs of a message, byte for byte as it was sent; "" for what is missing."""

    delimiters: Delimiters
    sending: tuple[bytes, bytes]
    """MSH-3, MSH-4."""
    receiving: tuple[bytes, bytes]
    """MSH-5, MSH-6."""
    at: bytes
    type: bytes
    event: bytes
    control_id: bytes
    processing_id: bytes
    version: bytes
    accept: bytes
    application: bytes
    charset: bytes

    @property
    def is_ack(self) -> bool:
        """It answers something (MSH-9 ACK, or MCF, a delayed one): an answer to it would be answered for ever."""
        return self.type in (b"ACK", b"MCF")

    @property
    def enhanced(self) -> bool:
        """MSH-15 or MSH-16 is valued (2.9.2)."""
        return bool(self.accept or self.application)

    @property
    def before_2_5(self) -> bool:
        """ERR has only ERR-1. A version that is not stated counts as an old one."""
        return _version(self.version) < (2, 5)


class Plan(NamedTuple):
    """Which answers a message wants."""

    enhanced: bool
    accept: When
    """Of the enhanced mode; never in the original one."""
    application: When
    """Of the enhanced mode; always in the original one, where it is the only answer."""


NO_ANSWER = Plan(False, When.NEVER, When.NEVER)


def header_of(raw: bytes, charset: str | None = None) -> Header:
    """The header of whatever came, as far as it can be made out in its first 4 KiB. Never raises.

    `charset`: the source's, for messages that declare none.
    """
    start = raw.find(b"MSH", 0, HEAD)
    if start < 0:
        return _NOTHING
    end = start + HEAD
    for byte in (b"\r", b"\n"):
        if (at := raw.find(byte, start, end)) >= 0:
            end = at
    line = raw[start:end]
    if len(line) < 5:
        return _NOTHING
    separator = line[3:4]
    fields = line.split(separator)
    if not line.isascii():
        fields = _split_as_text(line, fields, charset) or fields
    try:
        delimiters = delimiters_of(separator.decode("ascii"), fields[1].decode("ascii"))
    except (BadInput, UnicodeDecodeError):
        delimiters = STANDARD
        if separator != b"|":
            fields = [field.replace(b"|", b"\\F\\") for field in fields]
    if len(fields) < 18:
        fields += [b""] * (18 - len(fields))
    if _CONTROL.search(line):
        fields = [field.translate(None, _NEVER) for field in fields]
    of = delimiters.component.encode()
    kind, event, *_ = (*fields[8].split(of), b"")
    return Header(
        delimiters,
        (fields[2], fields[3]),
        (fields[4], fields[5]),
        fields[6],
        kind,
        event,
        fields[9],
        fields[10],
        fields[11],
        fields[14],
        fields[15],
        fields[17],
    )


def _split_as_text(line: bytes, fields: list[bytes], charset: str | None) -> list[bytes] | None:
    """Fields where bytes of a delimiter may be halves of characters; None: no such set, bytes are right."""
    name = declared_in([field.decode("latin-1") for field in fields]) or charset or ""
    try:
        codec = charset_of((name,)).codec
        if codec not in SPLITTING:
            return None
        return [field.encode(codec) for field in line.decode(codec).split(chr(line[3]))]
    except (BadInput, UnicodeError):
        return None


_NOTHING = Header(STANDARD, (b"", b""), (b"", b""), *([b""] * 9))


def plan(header: Header) -> Plan:
    """Which answers are due.

    Original mode (MSH-15 and 16 empty): one, always, of the application. Enhanced: as MSH-15 and MSH-16 say; one of
    them that is empty counts as NE, and one that is no code of table 0155 as AL: an answer too many does less harm
    than none. A message that is itself an acknowledgement gets none.
    """
    if header.is_ack:
        return NO_ANSWER
    if not header.enhanced:
        return Plan(False, When.NEVER, When.ALWAYS)
    return Plan(True, _when(header.accept), _when(header.application))


@lru_cache(maxsize=64)
def _when(code: bytes) -> When:
    if not code or code == b'""':
        return When.NEVER
    try:
        return When(code.decode("ascii"))
    except ValueError:
        return When.ALWAYS


class Acknowledger:
    """Writes answers, each with a control id of its own.

    `now` gives moments with a zone. Ids (MSH-10, at most 20 characters) are unique over processes and restarts: eight
    random characters of this object, and a counter.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._prefix = os.urandom(4).hex().upper()
        self._numbers = count(1)
        self._stamped: tuple[int, bytes] = (-1, b"")

    def answer(self, header: Header, code: Code, problems: Sequence[Problem] = (), *, text: str = "") -> bytes:
        """The bytes of one acknowledgement, without its frame; whether it is due, `plan` says.

        `text`: MSA-3, in our words; left out from 2.7 on, where the field was withdrawn. ERR: one a problem from 2.5 on
        (ERR-2 place, ERR-3 cause, ERR-4 severity, ERR-8 text); before it one in all, with ERR-1 repeating.
        """
        field, component, repetition, escaping, sub, _ = header.delimiters
        f = field.encode()
        out = [
            b"MSH" + f + f"{component}{repetition}{escaping}{sub}".encode(),
            *header.receiving,
            *header.sending,
            self._stamp(),
            b"",
            _message_type(header.version, header.event, component.encode()),
            f"{self._prefix}{next(self._numbers):012d}".encode(),
            header.processing_id or b"P",
            header.version or b"2.5",
        ]
        if header.charset:
            out += [b"", b"", b"", b"", b"", header.charset]
        answer = f.join(out) + b"\rMSA" + f + code.encode() + f + header.control_id
        if text and _version(header.version) < (2, 7):
            answer += f + escape(text[:80], header.delimiters).encode("ascii", "replace")
        if problems:
            answer += _errors(header, problems)
        return answer + b"\r"

    def _stamp(self) -> bytes:
        at = self._now()
        second = int(at.timestamp())
        if second != self._stamped[0]:
            self._stamped = (second, stamp(at).encode())
        return self._stamped[1]


@lru_cache(maxsize=1024)
def _message_type(version: bytes, event: bytes, component: bytes) -> bytes:
    """`ACK^A01^ACK`; without the structure before 2.3.1, and without the event in 2.1 (MSH-9 of each version)."""
    numbers = _version(version)
    if not event or numbers < (2, 2):
        return b"ACK"
    return component.join((b"ACK", event) if numbers < (2, 3, 1) else (b"ACK", event, b"ACK"))


@lru_cache(maxsize=256)
def _version(version: bytes) -> tuple[int, ...]:
    """`2.5.1` as numbers; what cannot be read is old."""
    found = re.match(rb"2(?:\.[0-9]{1,3}){1,3}", version)
    return tuple(map(int, found[0].split(b"."))) if found else (2, 3, 1)


def _errors(header: Header, problems: Sequence[Problem]) -> bytes:
    field, component, repetition, _, sub, _ = header.delimiters
    if header.before_2_5:
        named = _version(header.version) >= (2, 2)  # 2.1 has no sub-components there
        each = (
            component.join(
                [
                    *_located(problem.place)[:3],
                    sub.join((problem.cause, _TEXTS[problem.cause], "HL70357")) if named else problem.cause,
                ]
            )
            for problem in problems
        )
        return f"\rERR{field}{repetition.join(each)}".encode()
    lines = []
    for problem in problems:
        place = component.join(_located(problem.place)).rstrip(component)
        cause = component.join((problem.cause, _TEXTS[problem.cause], "HL70357"))
        line = f"\rERR{field}{field}{place}{field}{cause}{field}{problem.severity}"
        if problem.text:
            line += field * 4 + escape(problem.text[:250], header.delimiters)
        lines.append(line)
    return "".join(lines).encode("ascii", "replace")


def _located(place: Path | None) -> tuple[str, ...]:
    """ERL (2.A.28): segment, which of its name, field, repetition, component, sub-component."""
    if place is None:
        return ("", "", "")
    field = (str(place.field), str(place.repetition or 1)) if place.field else ("", "")
    below = (str(part) if part else "" for part in (place.component, place.sub))
    return (place.segment, str(place.number), *field, *below)
