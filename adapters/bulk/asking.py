"""One export's exchanges with its server: when the token goes along, and where to.

The token is shown to the origin of the FHIR base, to origins that the operator names, and nowhere else; of files, only
where the manifest says that they require it (Bulk Data 2.0.0, 2.5.5: requiresAccessToken). A redirect to another origin
goes without it, as the storage behind a server refuses two kinds of credentials, and must not learn ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from adapters.peer import Clock, Door, Reply
from models.errors import NotAllowed, PeerFailed

REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"https": 443, "http": 80}


class Tokens(Protocol):
    """SMART Backend Services; `adapters.backend_services.BackendServices`."""

    async def token(self) -> str:
        """One that is good for some time yet."""

    async def renewed(self, after: str) -> str:
        """Another one than `after`."""


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454, 4). Raises ValueError for what is no URL."""
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme.lower(), 0)


@dataclass(frozen=True, slots=True)
class Asker:
    door: Door
    tokens: Tokens | None
    """None: the server wants none."""
    base: str
    token_origins: frozenset[tuple[str, str, int]]
    """Besides that of the base."""
    clock: Clock
    bare_400_means_login: bool = False
    """A 400 without a body that says what is wrong may mean that the token ran out (see profiles)."""

    def trusted(self, url: str) -> bool:
        """Whether the token may go there."""
        try:
            return origin(url) == origin(self.base) or origin(url) in self.token_origins
        except ValueError:
            return False

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        token: bool = True,
        elsewhere: bool = False,
    ) -> AsyncIterator[Reply]:
        """The answer, after one new token where the first was not taken, and after redirects: of files to wherever the
        door lets us (`elsewhere`), of everything else within the origin that was asked.

        Errors: NotAllowed, PeerFailed.
        """
        shown = await self.tokens.token() if self._shows(url, token) and self.tokens else None
        async with self._followed(method, url, headers, content, shown, elsewhere) as reply:
            if shown is None or not self._wants_login(reply):
                yield reply
                return
        if self.tokens is None:
            raise PeerFailed("the server asks for a token")
        again = await self.tokens.renewed(shown)
        async with self._followed(method, url, headers, content, again, elsewhere) as reply:
            yield reply

    def _shows(self, url: str, token: bool) -> bool:
        return token and self.tokens is not None and self.trusted(url)

    def _wants_login(self, reply: Reply) -> bool:
        if reply.status == 401:
            return True
        told = "json" in reply.headers.get("content-type", "")
        return reply.status == 400 and self.bare_400_means_login and not told

    @asynccontextmanager
    async def _followed(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        token: str | None,
        elsewhere: bool,
    ) -> AsyncIterator[Reply]:
        at = url
        for _ in range(REDIRECTS + 1):
            sent = dict(headers)
            if token is not None and self.trusted(at):
                sent["Authorization"] = f"Bearer {token}"
            async with self.door.ask(method, at, headers=sent, content=content) as reply:
                location = reply.headers.get("location")
                if reply.status not in _MOVED or location is None:
                    yield reply
                    return
            try:
                to = urljoin(at, location)
            except ValueError:
                raise NotAllowed("the server sends us on to what is no URL") from None
            if not elsewhere and not self._same(at, to):
                raise NotAllowed("the server sends us on to another origin: only files may lie elsewhere")
            if method != "GET":
                raise PeerFailed("the server sends on what is not a GET")
            at = to
        raise PeerFailed(f"the server sends us on more than {REDIRECTS} times")

    @staticmethod
    def _same(one: str, other: str) -> bool:
        try:
            return origin(one) == origin(other)
        except ValueError:
            return False
