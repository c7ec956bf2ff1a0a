"""Sends what was concluded to a FHIR server: one transaction Bundle a result (R4, http.html, transaction).

Its entries are PUTs to ids that we made: sent again, the same bytes leave the same resources (update as create, which
the receiver must allow for its client). A transaction is taken whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapters.peer import Door
from adapters.sink import Taken, Told
from models import strict
from models.errors import BadInput, PeerFailed

NAME = "fhir"
JSON = "application/fhir+json"
_ANSWER = 1 << 20
"""Bytes of an answer that are read."""
_CONTENT = frozenset({400, 409, 410, 412, 413, 415, 422})
"""Of an answer: this Bundle, sent again, is not taken either."""


class FhirServer:
    """`adapters.sink.Sink`. `headers`: of each request, asked anew each time (a token that was renewed counts)."""

    def __init__(self, url: str, door: Callable[[], Door], headers: Callable[[], Mapping[str, str]]) -> None:
        self._url, self._new_door, self._headers = url.rstrip("/"), door, headers
        self._door: Door | None = None

    async def deliver(self, message: bytes) -> Told:
        """One Bundle. Raises: PeerFailed (nobody knows), NotAllowed, Misconfigured."""
        if self._door is None:
            self._door = self._new_door()
        asked = {**self._headers(), "Accept": JSON, "Content-Type": JSON}
        async with self._door.ask("POST", self._url, headers=asked, content=message) as answer:
            status = answer.status
            said = await answer.body(_ANSWER) if status in (200, 201) else b""
        return _told(status, said)

    async def close(self) -> None:
        door, self._door = self._door, None
        if door is not None and (closing := getattr(door, "aclose", None)) is not None:
            await closing()


def _told(status: int, said: bytes) -> Told:
    if status in (200, 201):
        worst = max((int(each[:3]) for each in _statuses(said)), default=0)
        if not 200 <= worst < 300:
            raise PeerFailed("an answer that does not say that every entry was taken")
        return Told(Taken.YES, str(status))
    if 300 <= status < 400:
        raise PeerFailed("it redirects, which is not followed: a result is sent where the configuration says")
    return Told(Taken.NO if status in _CONTENT else Taken.LATER, f"{status % 1000:03d}")


def _statuses(said: bytes) -> list[str]:
    """`200 OK`, `201 Created` of each entry of a transaction-response. Raises: PeerFailed."""
    try:
        found: Any = strict.loads(said, what="the answer")
    except BadInput:
        raise PeerFailed("an answer that cannot be read") from None
    entries = found.get("entry") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise PeerFailed("an answer that is no transaction-response")
    states = [str((each.get("response") or {}).get("status", "")) for each in entries if isinstance(each, dict)]
    if len(states) != len(entries) or not all(len(each) >= 3 and each[:3].isdecimal() for each in states):
        raise PeerFailed("an answer that does not say what became of an entry")
    return states
