"""Sends DICOM objects to an archive by STOW-RS (PS3.18, 10.5): one object a request, the archive's word on each object.

The client libraries of Python encode an object anew before they send it; what was remembered must go out as it is, so
the request is made here, and asked through the door that every request to somebody else's server goes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

from adapters.dicom.headers import header_of
from adapters.dicom.part10 import MEDIA_TYPE
from adapters.dicom.statuses import told_of
from adapters.peer import Door
from adapters.sink import Taken, Told
from models import strict
from models.errors import BadInput, PeerFailed

NAME = "dicomweb"
_ANSWER = 1 << 20
"""Bytes of an answer that are read; of one object it has hundreds."""
_FAILED, _STORED, _UID, _REASON = "00081198", "00081199", "00081155", "00081197"
"""Failed SOP Sequence, Referenced SOP Sequence, Referenced SOP Instance UID, Failure Reason (PS3.18 I.2)."""
_CONTENT = frozenset({400, 406, 409, 410, 413, 415, 422})
"""Of an answer that says no more: this request, sent again, is not taken either."""


class Stow:
    """`adapters.sink.Sink`. `headers`: of each request, asked anew each time (a token that was renewed counts)."""

    def __init__(self, url: str, door: Callable[[], Door], headers: Callable[[], Mapping[str, str]]) -> None:
        self._url, self._new_door, self._headers = url.rstrip("/"), door, headers
        self._door: Door | None = None

    async def deliver(self, message: bytes) -> Told:
        """One Part 10 file. Raises: PeerFailed (nobody knows), NotAllowed, Misconfigured, BadInput (no file)."""
        uid = header_of(message).sop_uid
        kind, content = multipart(message)
        if self._door is None:
            self._door = self._new_door()
        asked = {**self._headers(), "Accept": "application/dicom+json", "Content-Type": kind}
        async with self._door.ask("POST", f"{self._url}/studies", headers=asked, content=content) as answer:
            status, media = answer.status, answer.headers.get("content-type", "")
            said = b""
            if status in (200, 202, 409) and media.partition(";")[0].strip().lower().endswith("json"):
                said = await answer.body(_ANSWER)
        return _told(status, said, uid)

    async def close(self) -> None:
        door, self._door = self._door, None
        if door is not None and (closing := getattr(door, "aclose", None)) is not None:
            await closing()


def multipart(file: bytes) -> tuple[str, bytes]:
    """Content-Type and body of multipart/related with one part (PS3.18 8.6.1.2.1; RFC 2387)."""
    boundary = uuid4().hex
    while boundary.encode() in file:
        boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(file)}\r\n\r\n".encode()
    body = b"".join((head, file, f"\r\n--{boundary}--\r\n".encode()))
    return f'multipart/related; type="{MEDIA_TYPE}"; boundary={boundary}', body


def _told(status: int, said: bytes, uid: str) -> Told:
    """200: all stored; 202: some, or with changes; 409: none; what it says of this very object counts before that."""
    failed, stored = _answer(said)
    if uid in failed:
        return told_of(failed[uid])
    if status in (200, 202) and (uid in stored or (status == 200 and not failed and not stored)):
        return Told(Taken.YES, str(status))
    if status in (200, 202):
        raise PeerFailed("an answer that does not say whether it stored the object")
    if status in (401, 403, 407):
        return Told(Taken.LATER, str(status))
    if 300 <= status < 400:
        raise PeerFailed("it redirects, which is not followed: an object is sent where the configuration says")
    return Told(Taken.NO if status in _CONTENT else Taken.LATER, f"{status % 1000:03d}")


def _answer(said: bytes) -> tuple[dict[str, int], set[str]]:
    """Failed UIDs with their reasons, and stored ones, of a Store Instances Response. Raises PeerFailed."""
    if not said:
        return {}, set()
    try:
        found = strict.loads(said, what="the answer")
    except BadInput:
        raise PeerFailed("an answer that cannot be read") from None
    rows = found if isinstance(found, list) else [found]
    failed = {uid: reason for row in rows for uid, reason in _rows(row, _FAILED)}
    return failed, {uid for row in rows for uid, _ in _rows(row, _STORED)}


def _rows(of: Any, sequence: str) -> Iterator[tuple[str, int]]:
    for row in _values(of, sequence):
        uid, reason = next(_values(row, _UID), None), next(_values(row, _REASON), None)
        if isinstance(uid, str):
            yield uid, int(reason) if isinstance(reason, int) and 0 <= reason <= 0xFFFF else 0x0110


def _values(of: Any, tag: str) -> Iterator[Any]:
    element = of.get(tag) if isinstance(of, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    yield from values if isinstance(values, list) else ()
