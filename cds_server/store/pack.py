"""How the bytes of a landing lie on disk: sealed part after sealed part, small packs in the row, large ones in a file.

    pack  = frame*
    frame = flags (1: last frame of its part) u8 | length u32 | AES-256-GCM cipher

A part is cut into frames of at most 1 MiB so that memory stays flat however long it is; its key is its own, the frame's
number is the nonce, and (part number, last) is authenticated with it, so frames cannot be dropped, swapped or reused.
A pack can be digested and copied without any key, and concatenating the opened parts gives what was received.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cds_server.store.engine import translated_os
from cds_server.store.entropy import new_key
from cds_server.store.ready import NO_KEYS
from cds_server.store.rooms import Room
from cds_server.store.segments import Appended, Segments
from cds_server.store.vault import Vault
from models.errors import KeysUnavailable, RecordUnavailable, TooLarge

FRAME = 1 << 20
INLINE = 1 << 16
"""Packs up to here stand in the landing's row."""
KEYS_HELD = 10_000
"""Keys of parts that wait in memory for the landing's own transaction."""
MANIFEST = 0xFFFFFFFF
"""The part number under which the key of a landing's manifest stands."""

PART, FIRST, LAST = b"p", bytes(4), MANIFEST.to_bytes(4)
"""How the key reference of a part begins, and how those of the first one and of the manifest end."""

HEAD = struct.Struct(">BI")
TAG = 16


def part_ref(landing: str, ordinal: int) -> bytes:
    """Key reference of one part."""
    return PART + bytes.fromhex(landing) + ordinal.to_bytes(4)


_NAMED: set[Path] = set()
"""Folders of blobs whose own names this process has seen to the disk."""


class PackWriter:
    """Seals parts as they come. Stays in memory up to 64 kB, then moves to a file in `staging`."""

    def __init__(
        self,
        vault: Vault,
        landing: str,
        staging: Path,
        ready: Mapping[bytes, bytes] = NO_KEYS,
        segments: Segments | None = None,
    ) -> None:
        """`ready`: keys of its parts and its manifest that are on disk already. `segments`: as long as it fits into a
        room (`store.rooms`) it stays there, to be appended to one of them (`append`)."""
        self._vault = vault
        self.ready = ready
        self.landing = landing
        self._staging = staging
        self._file: BinaryIO | None = None
        self._segments = segments
        self._room: Room | None = None
        self._appended: Appended | None = None
        self._frames: list[memoryview] = []
        """Those that are in memory."""
        self._held = 0
        """Bytes of them."""
        self._digest = hashlib.sha256()
        self._content = vault.index_stream()
        self._buffer = bytearray()
        self._cipher: AESGCM | None = None
        self._frame = 0
        self.keys: dict[bytes, bytes] = {}
        """Those that are not on disk yet."""
        self.parts = 0
        self.size = 0

    def write(self, chunk: bytes) -> None:
        if not chunk:  # a part without bytes is not a part
            return
        if self._cipher is None:
            if self.parts >= MANIFEST:
                raise TooLarge("a landing has at most 4,294,967,294 parts")
            ref = part_ref(self.landing, self.parts)
            key = self.ready.get(ref)
            if key is None:
                key = self.keys[ref] = new_key()
            self._cipher, self._frame = AESGCM(key), 0
        self._content.update(chunk)
        self.size += len(chunk)
        self._buffer += chunk
        while len(self._buffer) > FRAME:
            with memoryview(self._buffer)[:FRAME] as full:
                self._emit(self._cipher, full, last=False)
            del self._buffer[:FRAME]

    def end_part(self) -> None:
        if self._cipher is None:
            return
        self._emit(self._cipher, self._buffer, last=True)
        self._buffer.clear()
        self._content.update(b"\0part")
        self._cipher = None
        self.parts += 1
        if len(self.keys) >= KEYS_HELD:
            self._vault.keys.put(self.keys.items())  # before the row that needs them: one too many does no harm
            self.keys.clear()

    def _emit(self, cipher: AESGCM, payload: bytearray | memoryview, *, last: bool) -> None:
        length = len(payload) + TAG
        frame = self._place(HEAD.size + length)
        HEAD.pack_into(frame, 0, last, length)
        cipher.encrypt_into(self._frame.to_bytes(12), payload, _bound(self.parts, last), frame[HEAD.size :])
        self._frame += 1
        self._digest.update(frame)
        if self._file is not None:
            try:
                self._file.write(frame)
            except OSError as error:
                raise translated_os(error) from None

    def _place(self, length: int) -> memoryview:
        """Where the next frame is made: in the room of a pack for a segment, else by itself. What does not stay in
        memory any more is in the file."""
        if self._file is None:
            frame = None
            if self._segments is not None:
                self._room = self._room or self._segments.rooms.take()
                frame = self._room.more(length)
            elif self._held + length <= INLINE:
                frame = memoryview(bytearray(length))
            if frame is not None:
                self._frames.append(frame)
                self._held += length
                return frame
            try:
                self._spilt()
            except OSError as error:
                raise translated_os(error) from None
        return memoryview(bytearray(length))

    def _spilt(self) -> BinaryIO:
        """The file in staging; what was in memory is in it."""
        if self._file is None:
            self._file = open(self._staging / self.landing, "xb", buffering=1 << 20)  # noqa: SIM115 (settle or abandon closes it)
            self._file.writelines(self._frames)
            self._give_room_back()
        return self._file

    def _give_room_back(self) -> None:
        self._frames.clear()
        if self._segments is not None and self._room is not None:
            self._segments.rooms.give_back(self._room)
        self._room = None

    @property
    def content(self) -> bytes:
        """Keyed digest of all parts and where each ends."""
        return self._content.digest()

    @property
    def digest(self) -> bytes:
        return self._digest.digest()

    @property
    def in_memory(self) -> bool:
        return self._file is None and self._held <= INLINE

    def settle(self, blobs: Path) -> tuple[bytes | None, str | None]:
        """Make it durable: (bytes for the row, None), or (None, file name) after fsync and rename.

        Raises: RecordUnavailable and its kinds, as `write` does.
        """
        if self.in_memory:
            inline = b"".join(self._frames)
            self._give_room_back()
            return inline, None
        folder = blobs / self.landing[:2]
        try:
            self._file = self._spilt()
            self._file.flush()
            folder.mkdir(exist_ok=True)
            os.rename(self._staging / self.landing, folder / self.landing)
            os.fsync(self._file.fileno())  # after the rename, so that one write of the journal holds both
            self._file.close()
            _sync(folder)
            if folder not in _NAMED:
                _sync(blobs)
                _NAMED.add(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                (folder / self.landing).unlink(missing_ok=True)
            raise translated_os(error) from None
        return None, f"{self.landing[:2]}/{self.landing}"

    def append(self) -> Appended | None:
        """Into a segment, instead of `settle`; durable once that is synced. None where it is not for one, or none is
        ready. Raises as `settle` does.
        """
        if self._segments is None or self._room is None:
            return None
        self._appended = self._segments.append(self._room)
        if self._appended is not None:
            self._frames.clear()
            self._room = None
        return self._appended

    def withdraw(self, blobs: Path) -> None:
        """Of a pack that was settled and stands in no row."""
        if self._appended is not None:
            self._appended.give_back()
        elif self._file is not None:
            (blobs / self.landing[:2] / self.landing).unlink(missing_ok=True)

    def forget_keys(self, keys: Mapping[bytes, bytes]) -> None:
        """Of a pack that was not kept, and is never tried again: its keys are for nothing, and `keys`, too."""
        self._vault.ready.spent({**self.ready, **keys})

    def abandon(self) -> None:
        self._give_room_back()
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk refuses what is still buffered, too
                self._file.close()
            (self._staging / self.landing).unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_parts(
    vault: Vault, landing: str, pack: BinaryIO, *, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """(ordinal, bytes) of the parts `[start, stop)`, in order; others are skipped without opening them.

    Raises: KeysUnavailable naming the part when its key is gone or its bytes were changed; RecordUnavailable when the
    pack ends inside a frame.
    """
    for ordinal, body in read_left(vault, landing, pack, start=start, stop=stop):
        if body is None:
            raise vault.without("the key of a part", part_ref(landing, ordinal), f"part {ordinal}")
        yield ordinal, body


def read_left(
    vault: Vault, landing: str, pack: BinaryIO, *, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, bytes | None]]:
    """The same, with None for a part whose key was destroyed. Raises as `read_parts` does, of a key that was lost."""
    ordinal, frame, body = 0, 0, bytearray()
    key: bytes | None = None
    while head := pack.read(HEAD.size):
        if len(head) < HEAD.size:
            raise RecordUnavailable("the sealed bytes of a landing are cut off", where=f"part {ordinal}")
        last, length = HEAD.unpack(head)
        if last > 1 or length > FRAME + TAG:
            raise KeysUnavailable("the sealed bytes of a part were changed", where=f"part {ordinal}")
        if ordinal < start:
            pack.seek(length, os.SEEK_CUR)
        else:
            if frame == 0:
                key = vault.key(part_ref(landing, ordinal))
            sealed = pack.read(length)
            if len(sealed) < length:
                raise RecordUnavailable("the sealed bytes of a landing are cut off", where=f"part {ordinal}")
            if key is not None:
                body += open_frame(key, sealed, ordinal, frame, last=bool(last))
            elif not vault.keys.destroyed(part_ref(landing, ordinal)):
                raise vault.without("the key of a part", part_ref(landing, ordinal), f"part {ordinal}")
        frame += 1
        if last:
            if ordinal >= start:
                yield ordinal, bytes(body) if key is not None else None
            ordinal, frame, body = ordinal + 1, 0, bytearray()
            if stop is not None and ordinal >= stop:
                return


def open_frame(key: bytes, sealed: bytes, ordinal: int, number: int, *, last: bool) -> bytes:
    """One frame of a part. Raises KeysUnavailable where it was changed, or stands in another's place."""
    try:
        return AESGCM(key).decrypt(number.to_bytes(12), sealed, _bound(ordinal, last))
    except InvalidTag:
        raise KeysUnavailable("the sealed bytes of a part were changed", where=f"part {ordinal}") from None


def _bound(ordinal: int, last: bool) -> bytes:
    return ordinal.to_bytes(4) + bytes([last])
