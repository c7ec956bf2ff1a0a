"""Ports towards somebody else's HTTP server. `cds_server` builds what stands behind them and hands it in.

Door     one exchange after the other; says which URLs it would not ask
Signer   signs for us, with keys that nobody here sees
Clock    what time it is, and waiting
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol


class Reply(Protocol):
    """An answer whose head came; its body is read once, by `body` or by `chunks`."""

    @property
    def status(self) -> int: ...

    @property
    def url(self) -> str:
        """Where it came from."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; a repeated one joined by a comma."""

    async def body(self, limit: int) -> bytes:
        """All of it, unpacked. Errors: PeerFailed (over `limit` bytes, cut off, a coding that is not taken)."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Piece by piece, unpacked (identity or gzip), memory bounded. Errors: PeerFailed (cut off, damaged gzip, a
        body that grows beyond any honest packing)."""


class Door(Protocol):
    def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        """One exchange. Redirects are not followed, cookies are not kept, nothing is retried.

        Errors: NotAllowed (this URL is refused: nothing was sent), PeerFailed (no answer, in our words).
        """

    def refuses(self, url: str) -> str | None:
        """Why this URL would not be asked; None where it would. No look-up of names, no request."""


class Signer(Protocol):
    def algorithms(self) -> Sequence[str]:
        """What there is a key for, the preferred one first: RS384, ES384."""

    def sign(self, claims: Mapping[str, Any], algorithm: str) -> str:
        """A compact JWS (RFC 7515) of these claims; its header has `alg`, `kid` and `typ`: JWT.

        Errors: Misconfigured (no key for that algorithm).
        """


class Clock(Protocol):
    def now(self) -> datetime:
        """With zone."""

    async def sleep(self, seconds: float) -> None: ...
