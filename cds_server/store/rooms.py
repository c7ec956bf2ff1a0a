"""Memory in which a pack is sealed, and from which it is written past the page cache: each begins at a page.

A sealed object of 212 kB is made where it is written from. Each copy of it besides costs more than its own time: what
lies in the processor's cache is pushed out by it, the interpreter's own data first.
"""

from __future__ import annotations

import mmap
import threading

LONGEST = 2 << 20
"""Bytes of a pack that is appended to a segment."""
BLOCK = 4096
"""What begins and ends at a multiple of it can be written past the page cache (open(2), O_DIRECT)."""
_FREE = 4
"""Rooms that are kept when nobody needs them: the last one given back is the first one taken."""


class Room:
    """Room for one pack of at most `LONGEST` bytes."""

    __slots__ = ("_all", "length")

    def __init__(self) -> None:
        self._all = memoryview(mmap.mmap(-1, LONGEST, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self.length = 0
        """Bytes of it that are used."""

    def more(self, length: int) -> memoryview | None:
        """The next `length` bytes, to be written to; None where there are not so many."""
        start, end = self.length, self.length + length
        if end > LONGEST:
            return None
        self.length = end
        return self._all[start:end]

    def blocks(self) -> memoryview:
        """All that is used, and zeros up to the end of its last block."""
        end = in_blocks(self.length)
        self._all[self.length : end] = bytes(end - self.length)
        return self._all[:end]


class Rooms:
    """Gives them out and takes them back. One that is not given back is lost, and that is all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Room] = []

    def take(self) -> Room:
        with self._lock:
            room = self._free.pop() if self._free else Room()
        room.length = 0
        return room

    def give_back(self, room: Room) -> None:
        with self._lock:
            if len(self._free) < _FREE:
                self._free.append(room)


def in_blocks(length: int) -> int:
    """Bytes of the blocks that so many take."""
    return -(-length // BLOCK) * BLOCK
