"""MLLP frames: 0x0B, the message, 0x1C 0x0D (HL7 transport specification MLLP release 1, 2.3.1).

A stream has no packets: any split and any merge of the same bytes gives the same frames. Every byte is looked at a
fixed number of times, whatever a sender does, and at most one message is kept.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from enum import StrEnum

from models.errors import Malformed

START = b"\x0b"
END = b"\x1c"
TRAILER = b"\x1c\r"
MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes. Documents travel as base64 in OBX-5: megabytes are usual."""
HEAD = 4096
"""Bytes of a message that are kept when the rest is not: MSH with its control id stands there."""

_FIRST_END = {False: re.compile(rb"\x1c\r"), True: re.compile(rb"\x1c[\r\x0b]")}


class Why(StrEnum):
    """Why what a sender began was thrown away."""

    SECOND_START = "a second start byte before a trailer"
    ENDED = "the connection ended inside a frame"


@dataclass(frozen=True, slots=True)
class Frame:
    """What stood between a start byte and a trailer; at least one byte."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """Bytes outside frames: line ends, keep-alives, junk. A frame around nothing counts as two, and is no message."""

    count: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Frames that were begun and not finished: never a message, never acknowledged."""

    why: Why
    head: bytes
    """The first bytes of the (first) one, for the log of whoever may read it."""
    count: int = 1
    """How many start bytes came too early, one after the other: a flood of them is one event."""


@dataclass(frozen=True, slots=True)
class Oversize:
    """A whole frame that was too long to keep. The connection lives on: say no, by the control id in the head."""

    head: bytes
    total: int


Event = Frame | Skipped | Dropped | Oversize


class FrameDecoder:
    """Bytes of one connection in, events out, in order.

    `lenient_trailer`: the sender leaves the CR of the trailer out: 0x1C ends a frame when a start byte follows, when
    the line then is silent (`idle`), or when the connection ends. Otherwise 0x1C without CR is data.

    Within one `feed`, skipped bytes are counted together and told last; frames that were begun in vain one after the
    other are one `Dropped`.
    """

    __slots__ = ("_head", "_inside", "_kept", "_lenient", "_max", "_seen", "_skipped", "_tail")

    def __init__(self, max_message: int = MAX_MESSAGE, lenient_trailer: bool = False) -> None:
        self._max = max_message
        self._lenient = lenient_trailer
        self._skipped = 0
        self._begin(inside=False)

    def _begin(self, *, inside: bool) -> None:
        self._inside = inside
        self._kept: io.BytesIO | None = io.BytesIO() if inside else None
        """What came of this frame before the present chunk; None: outside, or the frame is too long already."""
        self._head = b""
        self._seen = 0
        """Bytes of this frame so far, kept or not, 0x1C at the end included."""
        self._tail = False
        """The last byte so far is 0x1C."""

    @property
    def inside(self) -> bool:
        """A frame was begun: an end now would lose it."""
        return self._inside

    @property
    def awaits_cr(self) -> bool:
        """All but the last byte of a frame is here: only then `idle` may complete it."""
        return self._inside and self._tail

    @property
    def kept(self) -> int:
        """Bytes in memory."""
        return self._kept.tell() if self._kept is not None else len(self._head)

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete."""
        events: list[Event] = []
        at, size = 0, len(data)
        while at < size:
            at = self._within(data, at, events) if self._inside else self._between(data, at)
        if self._skipped:
            events.append(Skipped(self._skipped))
            self._skipped = 0
        return events

    def idle(self) -> list[Event]:
        """The line was silent for a while: a frame that lacks only the CR of its trailer is complete (lenient)."""
        events: list[Event] = []
        if self._lenient and self.awaits_cr:
            self._complete(events, cut=1)
        return events

    def eof(self) -> list[Event]:
        """The connection ended, or stopped for too long: what was begun is dropped."""
        events = self.idle()
        if self._inside:
            events.append(Dropped(Why.ENDED, self._first_bytes()))
            self._begin(inside=False)
        return events

    def _between(self, data: bytes, at: int) -> int:
        start = data.find(START, at)
        if start < 0:
            self._skipped += len(data) - at
            return len(data)
        self._skipped += start - at
        self._begin(inside=True)
        return start + 1

    def _within(self, data: bytes, at: int, events: list[Event]) -> int:
        """Look at the rest of the chunk up to the next trailer. Gives how far it came: always further."""
        if self._tail and at == 0 and (data[0] == 0x0D or (self._lenient and data[0] == 0x0B)):
            self._complete(events, cut=1)
            return 1 if data[0] == 0x0D else 0
        found = _FIRST_END[self._lenient].search(data, at)
        stop = found.start() if found else len(data)
        again = data.rfind(START, at, stop)
        if again >= 0:
            self._drop(data, at, stop, events)
            at = again + 1
        if found is None:
            self._keep(data, at, stop)
            return stop
        if self._seen == 0 and stop - at <= self._max:
            self._emit(data[at:stop], events)
        else:
            self._keep(data, at, stop)
            self._complete(events, cut=0)
        self._begin(inside=False)
        return stop + 2 if data[stop + 1] == 0x0D else stop + 1

    def _keep(self, data: bytes, at: int, stop: int) -> None:
        if stop == at:
            return
        self._tail = data[stop - 1] == 0x1C
        self._seen += stop - at
        if self._kept is None and len(self._head) == HEAD:
            return
        if self._kept is None or self._seen - self._tail > self._max:
            self._head = (self._first_bytes() + data[at : min(stop, at + HEAD)])[:HEAD]
            self._kept = None
        else:
            self._kept.write(memoryview(data)[at:stop])

    def _complete(self, events: list[Event], cut: int) -> None:
        """The frame is over; `cut`: its last byte is the 0x1C of the trailer."""
        if self._kept is None:
            events.append(Oversize(self._head[: self._seen - cut], self._seen - cut))
        else:
            if cut:
                self._kept.truncate(self._seen - cut)
            self._emit(self._kept.getvalue(), events)
        self._begin(inside=False)

    def _emit(self, payload: bytes, events: list[Event]) -> None:
        if not payload:
            self._skipped += 2
        elif len(payload) > self._max:
            events.append(Oversize(payload[:HEAD], len(payload)))
        else:
            events.append(Frame(payload))

    def _drop(self, data: bytes, at: int, stop: int, events: list[Event]) -> None:
        """Start bytes in [at, stop): all but the last begin nothing that ever ends."""
        first = data.find(START, at, stop)
        head = (self._first_bytes() + data[at : min(first, at + HEAD)])[:HEAD]
        events.append(Dropped(Why.SECOND_START, head, data.count(START, at, stop)))
        self._begin(inside=True)

    def _first_bytes(self) -> bytes:
        return self._head if self._kept is None else bytes(self._kept.getbuffer()[:HEAD])


def frame(payload: bytes) -> bytes:
    """A message in its frame. Raises: Malformed with the offset, for a byte of the frame inside the message."""
    for byte in (START, END):
        if (at := payload.find(byte)) >= 0:
            raise Malformed("a byte of the frame inside the message", where=f"byte {at}")
    return START + payload + TRAILER
