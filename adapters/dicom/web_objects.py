"""Objects that come by WADO-RS: each part of the body goes into the intake as it comes, byte for byte as it was sent.

A part is an object that was asked for, or it is nothing: who it says it is stands in its first bytes, and is compared
with what the archive had listed before anything is made durable.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime

from adapters.dicom import part10
from adapters.dicom.identity import IdentitySearch, plausible, unpadded
from adapters.dicom.multipart import Begin, Data, End, Multipart
from adapters.dicom.receiving import KEEP, LOOK_AGAIN, Storing, key_of
from adapters.source import Arrival, Intake, Staged
from models.errors import BadInput, DiskFull, Malformed
from models.nouns import LandingMeta, instant

MOST_META = 64 << 10
"""Bytes of a file meta group; one has two hundred."""
_LEAST = 144
"""Preamble, DICM, and the length of the file meta group (PS3.10, 7.1)."""
_ELEMENT = struct.Struct("<HH2sH")
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})


class Taking:
    """Takes the parts of one answer. `wanted`: SOP Instance UIDs that were listed; no other is kept."""

    def __init__(self, storing: Storing, intake: Intake, wanted: Collection[str], most: int) -> None:
        self._storing, self._intake, self._wanted, self._most = storing, intake, wanted, most
        self.arrived = 0
        self.refused: Counter[str] = Counter()
        """Why parts were not kept, in our words."""

    async def parts(self, chunks: AsyncIterator[bytes], boundary: str) -> None:
        """All of a body. Raises: Malformed (it is cut off, or has no such boundary), DiskFull, and what the store
        raises; what was whole before is kept."""
        stream, part = Multipart(boundary), None
        try:
            async for chunk in chunks:
                for event in stream.feed(chunk):
                    match event:
                        case Begin(media_type):
                            part = self._begin(media_type)
                        case Data(piece) if part is not None:
                            await part.write(piece)
                        case End.PART if part is not None:
                            await self._end(part)
                            part = None
            stream.close()
        finally:
            if part is not None:
                await part.abandon()

    async def single(self, chunks: AsyncIterator[bytes]) -> None:
        """A body that is one object, without parts."""
        part = self._begin(part10.MEDIA_TYPE)
        try:
            async for chunk in chunks:
                await part.write(chunk)
            await self._end(part)
        finally:
            await part.abandon()

    def _begin(self, media_type: str) -> _Object:
        return _Object(self._storing, self._intake, self._wanted, self._most, media_type)

    async def _end(self, part: _Object) -> None:
        if await part.end():
            self.arrived += 1
        else:
            self.refused[part.refusal] += 1


class _Object:
    def __init__(self, storing: Storing, intake: Intake, wanted: Collection[str], most: int, media_type: str) -> None:
        self._storing, self._intake, self._wanted, self._most = storing, intake, wanted, most
        self._staged: Staged | None = None
        self._head = bytearray()
        """What came before it said who it is: at most a mebibyte (`IdentitySearch`)."""
        self._search: IdentitySearch | None = None
        self._fed = self._seen = self._looked = 0
        self._uid = b""
        self.refusal = "" if media_type in ("", part10.MEDIA_TYPE) else "a part of another media type"

    async def write(self, piece: bytes) -> None:
        """Raises: Malformed (over the limit), DiskFull, and what the store raises; all else only refuses the object."""
        if self.refusal:
            return
        self._seen += len(piece)
        if self._seen > self._most:
            raise Malformed("an object over the limit")  # the rest of the answer would be no better
        if self._seen - self._looked > LOOK_AGAIN:
            self._looked = self._seen
            if self._storing.full:
                raise DiskFull("the disk is nearly full")
        if self._staged is not None:
            await self._staged.write(piece)
            return
        self._head += piece
        await self._look(last=False)

    async def _look(self, *, last: bool) -> None:
        """Who it says it is; once that is known and was asked for, what is held goes on its way."""
        try:
            uid = self._said(last)
            if uid and (not plausible(uid) or uid.decode("ascii", "replace") not in self._wanted):
                raise Malformed("an object that was not asked for")
        except BadInput as error:
            await self._refuse(error.what)
            return
        if not uid:
            return
        if self._storing.full:
            raise DiskFull("the disk is nearly full")
        now, said = instant(datetime.now(UTC)), {"retrieved_by": "WADO-RS"}
        meta = LandingMeta(self._storing.source, self._storing.namespace, part10.MEDIA_TYPE, now, said)
        self._uid, self._staged = uid, self._intake.stage(meta)
        await self._staged.write(bytes(self._head))
        self._head.clear()

    def _said(self, last: bool) -> bytes:
        """SOP Instance UID; empty: more is needed. Raises: Malformed."""
        if self._search is None:
            start = part10.data_set_at(bytes(self._head[:_LEAST])) if len(self._head) >= _LEAST else 0
            if start > MOST_META:
                raise Malformed("a file meta group of no such length")
            if not start or len(self._head) < start:
                if last:
                    raise Malformed("no Part 10 file")
                return b""
            self._search, self._fed = IdentitySearch(_syntax(bytes(self._head[_LEAST:start]))), start
        found = self._search.feed(bytes(self._head[self._fed :]), last=last)
        self._fed = len(self._head)
        return found.sop_instance if found is not None else b""

    async def end(self) -> bool:
        """Whether it is durable. Raises: what the store raises."""
        if not self.refusal and self._staged is None:
            await self._look(last=True)
        if self._staged is None:
            return False
        key = key_of(self._storing.source, self._uid)
        beside = {"conflict": "the same SOP Instance UID, other bytes"} if self._storing.on_conflict == KEEP else None
        receipt = await self._staged.commit(key, beside=beside)
        self._staged = None
        counts = self._storing.counts
        if receipt.arrival is Arrival.CONFLICT:
            counts["conflicts"] += 1
            self.refusal = "this SOP Instance UID was used for other bytes"
            return False
        counts["duplicates" if receipt.arrival is Arrival.DUPLICATE else "stored"] += 1
        return True

    async def _refuse(self, why: str) -> None:
        self.refusal = why
        self._head.clear()
        await self.abandon()

    async def abandon(self) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            await staged.abandon()


def _syntax(group: bytes) -> str:
    """Transfer Syntax UID (0002,0010) of a file meta group, which is Explicit VR Little Endian. Raises: Malformed."""
    at = 0
    while at + 8 <= len(group):
        number, element, vr, length = _ELEMENT.unpack_from(group, at)
        at += 8
        if vr in _LONG:
            if at + 4 > len(group):
                break
            length = int.from_bytes(group[at : at + 4], "little")
            at += 4
        if number != 2:
            break
        if element == 0x0010:
            return unpadded(group[at : at + length]).decode("ascii", "replace")[:64]
        at += length
    raise Malformed("no transfer syntax", where="(0002,0010)")
