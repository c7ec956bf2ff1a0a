"""An issuer's keys, where they come from, and how fresh they are.

A set that is fetched is asked again every ten minutes beside the calls, and once more, bounded, when a token names a
key that is not there: so a rotation needs nobody, and a flood of invented key ids cannot make us a flood for the
issuer. A key that was taken back is gone with the next fetch; where the issuer does not answer, known keys last a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cds_server.logs import log
from cds_server.trust.tokens import SigningKey, Untrusted, read_keys
from models.errors import CdsError

FRESH = 600.0
"""Seconds after which a set is asked again."""
LASTS = 86_400.0
"""Seconds that known keys are believed while the issuer does not answer."""
FETCH_SECONDS = 3.0
MAX_BYTES = 1 << 18
BURST, REFILL = 3, 20.0
"""Refetches for unknown key ids: three at once, then one in twenty seconds."""


class Door(Protocol):
    """`http.Outbound`."""

    async def get(self, url: str, headers: Mapping[str, str], *, limit: int) -> bytes: ...


@dataclass(slots=True)
class FileKeys:
    """Keys that were agreed out of band (CDS Hooks 2.0.1: where the token has no `jku`). Read again when changed."""

    path: Path
    keys: dict[str, SigningKey] = field(default_factory=dict)
    _stamp: tuple[int, int] | None = None

    def read(self) -> None:
        """Errors: Untrusted, OSError."""
        status = self.path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self.keys = read_keys(self.path.read_bytes())
            self._stamp = stamp

    async def key(self, kid: str, patience: float) -> SigningKey | None:
        """The key of that id."""
        with contextlib.suppress(OSError, Untrusted):  # an unreadable new file leaves what was read before
            self.read()
        return self.keys.get(kid)


class FetchedKeys:
    """The keys that one configured URL gives. One event loop."""

    def __init__(self, url: str, door: Door, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self.keys: dict[str, SigningKey] = {}
        self._door = door
        self._clock = clock
        self._got = float("-inf")
        self._tried = float("-inf")
        self._tokens, self._filled = float(BURST), clock()
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str, patience: float) -> SigningKey | None:
        """The key of that id; asks the issuer where it must, and waits for it at most `patience` seconds."""
        age = self._clock() - self._got
        if age > LASTS:
            self.keys = {}
        found = self.keys.get(kid)
        if found is not None:
            if age > FRESH and self._clock() - self._tried > REFILL:
                self.refresh()
            return found
        if self._fetching is None and not self._may_ask():
            return None
        await asyncio.wait([self.refresh()], timeout=patience)
        return self.keys.get(kid)

    async def only(self, algorithm: str, patience: float) -> SigningKey | None:
        """The one key that this algorithm may be of, for a token that names none; None where there are several.

        Asks the issuer as `key` does, but not for a key set that is fresh: the token names nothing that it may lack.
        """
        if self._clock() - self._got > FRESH and (self._fetching is not None or self._may_ask()):
            await asyncio.wait([self.refresh()], timeout=patience)
        if self._clock() - self._got > LASTS:
            self.keys = {}
        fits = [key for key in self.keys.values() if algorithm in key.algorithms]
        return fits[0] if len(fits) == 1 else None

    def refresh(self) -> asyncio.Task[None]:
        """Ask the issuer, once for all who want it now."""
        if self._fetching is None:
            self._tried = self._clock()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _may_ask(self) -> bool:
        now = self._clock()
        self._tokens, self._filled = min(BURST, self._tokens + (now - self._filled) / REFILL), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                raw = await self._door.get(self.url, {"Accept": "application/json"}, limit=MAX_BYTES)
            self.keys = read_keys(raw)
        except (CdsError, Untrusted, TimeoutError) as error:
            what = error.what if isinstance(error, CdsError) else str(error) or "no answer in time"
            log().warning("key set not fetched", what=what)
        else:
            self._got = self._clock()
            log().info("key set fetched", count=len(self.keys))


KeySource = FileKeys | FetchedKeys
