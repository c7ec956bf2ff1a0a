"""Many messages in one delivery (HL7 v2 chapter 2, 2.10.3): a file with FHS and BHS, plain messages in a row, or a
captured feed in its MLLP frames. As a stream: no more than one message is in memory.

One message that is bad, or too long, does not fail the others; counts that do not agree (BTS-1, FTS-1) are told and
lose nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from adapters.hl7v2.frames import MAX_MESSAGE, START, Dropped, Frame, FrameDecoder, Oversize

_BLANK = b"\r\n\t \0"
_END = re.compile(rb"[\r\n]")
_MARK = re.compile(rb"(MSH|[FB]HS|[FB]TS)(?:[!-/:-@\[-`{-~\r\n]|$)")
"""A line of the envelope, or the first of a message: its name, and a separator or nothing."""
_BOM = b"\xef\xbb\xbf"
_LONGEST_TRAILER = 65536
"""Bytes of a BTS or FTS that are looked at; the rest is a comment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of the delivery: its bytes as they stand there, with one CR for the line ends after the last."""

    raw: bytes
    number: int
    """From 1."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something about the delivery that somebody should know, in our words."""

    what: str
    where: str
    """`message 3`, `BTS[2]-1`, ..."""


Item = Entry | Oddity


def split(chunks: Iterable[bytes], *, max_message: int = MAX_MESSAGE) -> Iterator[Item]:
    """The messages of a delivery, in order, with what is odd about it between them.

    Whether its bytes are framed is decided by the first one that is not blank. A frame may itself hold a batch.
    """
    batch = _Batch(max_message)
    rest = iter(chunks)
    head = b""
    for chunk in rest:
        head = (head + chunk).removeprefix(_BOM).lstrip(_BLANK)
        if len(head) >= len(_BOM):
            break
    if head.startswith(START):
        decoder = FrameDecoder(max_message, lenient_trailer=True)
        for chunk in _after(head, rest):
            yield from batch.framed(decoder.feed(chunk))
        yield from batch.framed(decoder.eof())
    else:
        for chunk in _after(head, rest):
            yield from batch.feed(chunk)
        yield from batch.flush()
    yield from batch.end()


def is_batch(payload: bytes) -> bool:
    """Whether this frame or file holds a batch (FHS or BHS at its start), not one message."""
    return payload.removeprefix(_BOM).lstrip(_BLANK)[:3] in (b"FHS", b"BHS")


def _after(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


class _Batch:
    """The lines of a delivery so far. One object for each delivery."""

    def __init__(self, max_message: int) -> None:
        self._max = max_message
        self._line = bytearray()
        """The last line, as far as it came."""
        self._message: bytearray | None = None
        self._too_long = False
        self._messages = 0
        self._in_batch = 0
        self._batches = 0
        self._trailers = {b"BTS": 0, b"FTS": 0}
        self._open: list[bytes] = []
        """BHS and FHS that wait for their trailer."""
        self._stray = False

    # ---- bytes

    def feed(self, data: bytes) -> Iterator[Item]:
        """Take bytes: a line is looked at when it is whole, and then once."""
        at = 0
        for end in _END.finditer(data):
            if self._line:
                yield from self._grow(data[at : end.end()])
                yield from self._whole(bytes(self._line))
                self._line.clear()
            else:
                yield from self._whole(data[at : end.end()])
            at = end.end()
        yield from self._grow(data[at:])

    def _grow(self, piece: bytes) -> Iterator[Item]:
        """A line that is too long to keep: its message is given up, its beginning tells what it was."""
        if len(self._line) + len(piece) <= self._max + _LONGEST_TRAILER:
            self._line += piece
        else:
            yield from self._whole((bytes(self._line[:4]) + piece[:4])[:4])
            self._line[:] = b" "
            self._too_long = self._message is not None

    def flush(self) -> Iterator[Item]:
        """The bytes have ended: so has the last line, and the last message."""
        if self._line:
            yield from self._whole(bytes(self._line))
            self._line.clear()
        yield from self._finish()

    # ---- frames

    def framed(self, events: Iterable[object]) -> Iterator[Item]:
        for event in events:
            match event:
                case Frame(payload):
                    yield from self.feed(payload)
                    yield from self.flush()
                case Oversize():
                    self._messages += 1
                    self._in_batch += 1
                    yield Oddity("a message over the limit: left out", f"message {self._messages}")
                case Dropped(why, _, count):
                    yield Oddity(f"{why}: {count} left out", f"after message {self._messages}")

    # ---- lines

    def _whole(self, line: bytes) -> Iterator[Item]:
        found = _MARK.match(line, len(_BOM)) if line.startswith(_BOM) else None
        if found:  # files were put together with their byte order marks
            line = line.removeprefix(_BOM)
        else:
            found = _MARK.match(line)
        mark = found[1] if found else b""
        if mark == b"MSH":
            yield from self._finish()
            self._message = bytearray()
        elif mark:
            yield from self._finish()
            yield from self._around(mark, line)
            return
        if self._message is None:
            if line.strip(_BLANK) and not self._stray:
                self._stray = True
                yield Oddity("lines that belong to no message", f"after message {self._messages}")
            return
        if len(self._message) + len(line) > self._max:
            self._too_long = True
            self._message.clear()
        if not self._too_long:
            self._message += line

    def _finish(self) -> Iterator[Item]:
        if self._message is None:
            return
        self._messages += 1
        self._in_batch += 1
        if self._too_long:
            yield Oddity("a message over the limit: left out", f"message {self._messages}")
        else:
            yield Entry(bytes(self._message).rstrip(b"\r\n\0") + b"\r", self._messages)
        self._message, self._too_long, self._stray = None, False, False

    def _around(self, mark: bytes, line: bytes) -> Iterator[Item]:
        """A header or a trailer of the batch or the file."""
        if mark in (b"FHS", b"BHS"):
            if mark in self._open:
                yield Oddity("a header before the trailer of the one before it", self._before(mark))
            self._open = [header for header in self._open if header != mark and mark != b"FHS"] + [mark]
            self._batches = 0 if mark == b"FHS" else self._batches + 1
            self._in_batch = 0
            return
        self._trailers[mark] += 1
        where = f"{mark.decode()}[{self._trailers[mark]}]"
        header = mark[:1] + b"HS"
        if header not in self._open:
            yield Oddity("a trailer without its header", where)
        else:
            self._open.remove(header)
        counted = self._in_batch if mark == b"BTS" else self._batches
        stated = line[4:_LONGEST_TRAILER].split(line[3:4], 1)[0].strip() if len(line) > 4 else b""
        right = {counted}
        if mark == b"FTS" and not self._batches:
            right |= {1, self._in_batch}  # messages straight in the file: senders count them as one batch, or singly
        if stated and not (stated.isdigit() and len(stated) < 10):
            yield Oddity("a count that is no number", f"{where}-1")
        elif stated and int(stated) not in right:
            yield Oddity("another count than there is", f"{where}-1")
        self._in_batch = 0

    def _before(self, mark: bytes) -> str:
        return f"{mark.decode()} after message {self._messages}"

    def end(self) -> Iterator[Item]:
        for header in self._open:
            yield Oddity("a header without its trailer: the delivery may have been cut off", header.decode())
        if not self._messages:
            yield Oddity("no message at all", "the delivery")
