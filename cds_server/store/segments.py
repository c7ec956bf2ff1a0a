"""Sealed bytes of many landings in one file: to be durable they wait for one sync of data, and for no new name.

    blobs/seg/NAME = pack* zero*        a landing's `pack_file` says NAME, offset and length

A file of its own costs a landing an inode, two names and two writes of the file system's journal. A segment is written
full of zeros and synced ahead, in a thread; what is appended to it takes their place, so that fdatasync has nothing to
write but these bytes: neither size nor blocks of the file change (fdatasync(2)). They go past the page cache where the
file system can (O_DIRECT): it takes one copy less, and a sync that has no pages to look for is six times as fast.
A pack of more than `rooms.LONGEST` waits for its own bytes anyway, and gets a file of its own.
Each process appends to segments of its own. Where none is ready the landing gets a file of its own, as large ones do.

A crash leaves bytes that nothing refers to. The zeros behind a segment that its process could not close are cut off by
the next process that makes one.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cds_server.store.engine import translated_os
from cds_server.store.entropy import new_ref
from cds_server.store.rooms import Room, Rooms, in_blocks
from models.errors import CdsError, RecordUnavailable

FOLDER = "seg"
SIZE = 32 << 20
_STEP = 4 << 20
"""Bytes of zeros between two syncs: whoever commits meanwhile waits behind no more than these."""
_LEFT = 16
"""Zeros that are left behind the last byte that is none: a seal may end with some."""
_MARK = "open-"
"""In staging, of each segment that may end in zeros."""
_ZEROS = memoryview(mmap.mmap(-1, _STEP, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ))
"""Never written to: they are one page of the kernel's, again and again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sealed bytes of a landing lie: the value of its `pack_file`."""

    file: str
    """Below the folder of blobs."""
    offset: int = 0
    length: int | None = None
    """None: the whole file."""

    @classmethod
    def of(cls, pack_file: str) -> Place:
        """Raises RecordUnavailable where it is no place."""
        file, *rest = pack_file.split(":")
        if not rest:
            return cls(file)
        if len(rest) != 2 or not all(each.isascii() and each.isdecimal() for each in rest):
            raise RecordUnavailable("the row of a landing does not say where its sealed bytes lie", where="pack_file")
        return cls(file, int(rest[0]), int(rest[1]))

    def __str__(self) -> str:
        return self.file if self.length is None else f"{self.file}:{self.offset}:{self.length}"

    def open(self, blobs: Path) -> BinaryIO:
        """These bytes as a file of their own; the caller closes it. Raises OSError."""
        file = open(blobs / self.file, "rb")  # noqa: SIM115 (the caller closes it)
        return file if self.length is None else io.BufferedReader(_Span(file, self.offset, self.length))


class _Span(io.RawIOBase):
    """`length` bytes of a file, from `start` on."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        super().__init__()
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._length)[whence])
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        wanted = min(len(view), max(0, self._length - self._at))
        done = os.preadv(self._file.fileno(), [view[:wanted]], self._start + self._at) if wanted else 0
        self._at += done
        return done

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Segment:
    """One file, its zeros on disk, that this process alone appends to."""

    def __init__(self, blobs: Path, staging: Path, rooms: Rooms) -> None:
        """Takes as long as writing and syncing it does. Raises OSError."""
        name = new_ref()
        self.name = f"{FOLDER}/{name}"
        self._path, self._mark = blobs / FOLDER / name, staging / f"{_MARK}{name}"
        self._lock, self._syncing = threading.Lock(), threading.Lock()
        self.end = 0
        self._appended = self._synced = 0
        """How many; those of them that are on disk."""
        self._waiting: list[tuple[int, Room]] = []
        """Where to write what, with the next sync."""
        self._rooms = rooms
        self._freed: dict[int, int] = {}
        """End -> start of what was given back, but lies before something that is kept."""
        self._failed: OSError | None = None
        self._retired = False
        self._file = _created(self._path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._mark.touch(0o600)
            for start in range(0, SIZE, _STEP):
                _pwrite(self._file, _ZEROS[: min(_STEP, SIZE - start)], start)
                os.fdatasync(self._file)
            for folder in (self._path.parent, blobs):
                _sync_folder(folder)
        except OSError:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            self._mark.unlink(missing_ok=True)
            raise

    def append(self, room: Room) -> Appended | None:
        """None where it does not fit. Written by the next sync, which gives the room back."""
        with self._lock:
            start, end = self.end, self.end + in_blocks(room.length)
            if self._retired or self._failed is not None or end > SIZE:
                return None
            self._waiting.append((start, room))
            self.end = end
            self._appended += 1
            return Appended(self, Place(self.name, start, room.length), self._appended)

    def sync(self, number: int) -> None:
        """Append `number` is on disk when this returns, and whatever else was appended before it began.

        After a failure the kernel forgets what it could not write: nothing of this segment is believed any more.
        """
        with self._syncing:
            if self._synced >= number:
                return
            if self._failed is not None:
                raise self._failed
            try:
                self._write_out()
            except OSError as error:
                self._failed = error
                raise

    def _write_out(self) -> None:
        """All that waits, whole blocks of it; the caller has `_syncing`. Raises OSError."""
        with self._lock:
            appended, waiting, self._waiting = self._appended, self._waiting, []
        for start, room in waiting:
            _pwrite(self._file, room.blocks(), start)
            self._rooms.give_back(room)
        os.fdatasync(self._file)
        self._synced = appended

    def give_back(self, start: int, end: int) -> None:
        with self._lock:
            self._freed[start + in_blocks(end - start)] = start
            while self.end in self._freed:
                self.end = self._freed.pop(self.end)

    def retire(self) -> None:
        """No more appends: synced, and cut to what it holds."""
        with self._lock:
            self._retired = True
        with self._syncing:
            try:
                if self._failed is None:
                    self._write_out()
                os.ftruncate(self._file, self.end)
            except OSError as error:
                self._failed = error
                return  # the mark stays
            finally:
                os.close(self._file)
            if not self.end:
                self._path.unlink(missing_ok=True)
            self._mark.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Appended:
    """Bytes in a segment. Not durable until `sync` returns."""

    _segment: _Segment
    place: Place
    _number: int

    def sync(self) -> None:
        """On disk; one sync serves all who wait for one. Raises: RecordUnavailable and its kinds."""
        try:
            self._segment.sync(self._number)
        except OSError as error:
            raise translated_os(error) from None

    def give_back(self) -> None:
        """Nothing refers to these bytes and nothing will: their place may be used again."""
        self._segment.give_back(self.place.offset, self.place.offset + (self.place.length or 0))


class Segments:
    """The segments that this process appends to: one in use, the next one ready."""

    def __init__(self, blobs: Path, staging: Path) -> None:
        self._blobs, self._staging = blobs, staging
        self.rooms = Rooms()
        """Whence the room of a pack is taken that is to be appended."""
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "cds-segments")
        self._current: _Segment | None = None
        self._next: _Segment | None = None
        self._making = self._closed = False

    def make_ready(self) -> None:
        """See to it that there is one, soon. Returns at once."""
        with self._lock:
            self._make()

    def wait(self) -> None:
        """Until what is being made is made."""
        self._thread.submit(int).result()

    def append(self, room: Room) -> Appended | None:
        """What stands in a room, which is the segment's from here on. None where no segment is ready."""
        with self._lock:
            found = self._current.append(room) if self._current is not None else None
            if found is None:
                if self._current is not None:
                    self._thread.submit(self._current.retire)
                self._current, self._next = self._next, None
                found = self._current.append(room) if self._current is not None else None
            if self._current is None or self._current.end > SIZE // 2:
                self._make()
            return found

    def _make(self) -> None:
        if self._next is None and not self._making and not self._closed:
            self._making = True
            self._thread.submit(self._made)

    def _made(self) -> None:
        made = None
        try:
            (self._blobs / FOLDER).mkdir(mode=0o700, exist_ok=True)
            _trim(self._blobs, self._staging)
            made = _Segment(self._blobs, self._staging, self.rooms)
        except (OSError, CdsError):  # a landing with a file of its own is told what is wrong with the disk
            pass
        with self._lock:
            self._next, self._making = made, False

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._thread.shutdown(wait=True)
        for each in (self._current, self._next):
            if each is not None:
                each.retire()
        self._current = self._next = None


def _trim(blobs: Path, staging: Path) -> None:
    """Cut off the zeros behind segments whose process ended without a word."""
    for mark in staging.glob(f"{_MARK}*"):
        path = blobs / FOLDER / mark.name.removeprefix(_MARK)
        with contextlib.suppress(OSError):  # BlockingIOError: its process lives
            with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end = _end(file)
                file.truncate(end)
                if not end:
                    path.unlink()
            mark.unlink()


def _end(file: BinaryIO) -> int:
    """Where its zeros begin, and a few of them."""
    size = at = file.seek(0, os.SEEK_END)
    while at:
        start = max(0, at - _STEP)
        file.seek(start)
        found = file.read(at - start).rstrip(b"\0")
        if found:
            return min(size, start + len(found) + _LEFT)
        at = start
    return 0


def _created(path: Path) -> int:
    """A new file whose writes go past the page cache, where that can be. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    with contextlib.suppress(OSError):
        return os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o600)
    path.unlink(missing_ok=True)  # some file systems make the file and refuse the flag
    return os.open(path, flags, 0o600)


def _pwrite(file: int, view: memoryview, at: int) -> None:
    while view:
        done = os.pwrite(file, view, at)
        view, at = view[done:], at + done


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
