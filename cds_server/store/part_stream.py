"""One sealed part as a file that can be read and sought in: an object of gigabytes is opened frame by frame."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import BinaryIO

from cds_server.store.pack import FRAME, HEAD, TAG, open_frame, part_ref
from cds_server.store.vault import Vault
from models.errors import KeysUnavailable, RecordUnavailable

HELD = 4
"""Opened frames that are kept: a reader goes forth and back near its place."""


class PartStream(io.RawIOBase):
    """Reads part `ordinal` of a pack. Holds at most `HELD` MiB, whatever the size of the part.

    Raises, at birth: KeysUnavailable where the part's key is gone; RecordUnavailable where the pack ends before the
    part does. While reading: KeysUnavailable where a frame was changed.
    """

    def __init__(self, vault: Vault, landing: str, pack: BinaryIO, ordinal: int) -> None:
        super().__init__()
        key = vault.key(part_ref(landing, ordinal))
        if key is None:
            pack.close()
            raise vault.without("the key of a part", part_ref(landing, ordinal), f"part {ordinal}")
        self._key, self._pack, self._ordinal = key, pack, ordinal
        try:
            self._frames = self._found()
        except BaseException:
            pack.close()
            raise
        self._opened: OrderedDict[int, bytes] = OrderedDict()
        self._at = 0
        self.size = sum(length - TAG for _, length in self._frames)

    def _found(self) -> list[tuple[int, int]]:
        """(place, sealed length) of each frame of the part, by the heads alone."""
        ordinal, frames = 0, []
        place = self._pack.tell()
        end = self._pack.seek(0, os.SEEK_END)
        while place + HEAD.size <= end:
            self._pack.seek(place)
            last, length = HEAD.unpack(self._pack.read(HEAD.size))
            if last > 1 or not TAG <= length <= FRAME + TAG:
                raise KeysUnavailable("the sealed bytes of a part were changed", where=f"part {ordinal}")
            place += HEAD.size
            if ordinal == self._ordinal:
                frames.append((place, length))
            place += length
            if last:
                if ordinal == self._ordinal and place <= end:
                    return frames
                ordinal += 1
        raise RecordUnavailable("the sealed bytes of a landing are cut off", where=f"part {self._ordinal}")

    def _frame(self, number: int) -> bytes:
        known = self._opened.get(number)
        if known is None:
            place, length = self._frames[number]
            self._pack.seek(place)
            last = number == len(self._frames) - 1
            known = open_frame(self._key, self._pack.read(length), self._ordinal, number, last=last)
            self._opened[number] = known
            if len(self._opened) > HELD:
                self._opened.popitem(last=False)
        return known

    # -- what a file does ----------------------------------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        done = 0
        while done < len(view) and self._at < self.size:
            number, inside = divmod(self._at, FRAME)  # all frames but the last are full
            piece = self._frame(number)[inside : inside + len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._at += len(piece)
        return done

    def close(self) -> None:
        if not self.closed:
            self._pack.close()
            self._opened.clear()
        super().close()
