"""What the authorization server remembers: launches, requests, codes, tokens. In memory, bounded, each with an end.

A code and a refresh token are good once: whoever brings one a second time has stolen it, or was stolen from, and all
that came of it ends (RFC 6749, 4.1.2 and 10.4; RFC 9700, 4.14.2).
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cds_server.sandbox.users import User

MOST = 2000
"""Of each kind; the oldest goes."""
LAUNCH_SECONDS = 300
CODE_SECONDS = 60
TOKEN_SECONDS = 900
REFRESH_SECONDS = 12 * 3600

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """What a launch is about (SMART App Launch 2.2, Launch context)."""

    user: User
    patient: str | None = None
    encounter: str | None = None
    app_context: str | None = None
    """Of the card's link (CDS Hooks 2.0.1, Link)."""
    intent: str | None = None
    banner: bool = True
    """`need_patient_banner`."""
    style: bool = True
    """Whether `smart_style_url` is told."""
    fhir_context: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """An authorization request that was checked."""

    client: str
    redirect_uri: str
    state: str
    scopes: tuple[str, ...]
    challenge: str
    nonce: str | None = None


@dataclass(slots=True)
class Grant:
    """What a person allowed an app; every token of it ends with it."""

    client: str
    scopes: tuple[str, ...]
    context: Context
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    asked: Asked
    grant: Grant


@dataclass(frozen=True, slots=True)
class Token:
    """An access token's meaning; `scopes` may be fewer than the grant's (RFC 6749, 6)."""

    grant: Grant
    scopes: tuple[str, ...]
    issued: int
    expires: int


class Kept(Generic[T]):
    """Handles and what they stand for, for so many seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._held: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._spent: OrderedDict[str, T] = OrderedDict()

    def put(self, value: T) -> str:
        """A handle that nobody can guess."""
        handle = secrets.token_urlsafe(32)
        self._held[handle] = self._clock() + self._seconds, value
        _bound(self._held)
        return handle

    def get(self, handle: str) -> T | None:
        until, value = self._held.get(handle, (0.0, None))
        return value if self._clock() < until else None

    def spend(self, handle: str) -> T | None:
        """The same, once."""
        value = self.get(handle)
        self._held.pop(handle, None)
        if value is not None:
            self._spent[handle] = value
            _bound(self._spent)
        return value

    def spent(self, handle: str) -> T | None:
        """What a handle stood for that was spent before."""
        return self._spent.get(handle)


def _bound(held: OrderedDict[str, Any]) -> None:
    while len(held) > MOST:
        held.popitem(last=False)


class Grants:
    """All of it, on one clock (seconds since 1970)."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.launches: Kept[Context] = Kept(LAUNCH_SECONDS, clock)
        self.asked: Kept[Asked] = Kept(LAUNCH_SECONDS, clock)
        """Requests that wait for a person to choose a patient."""
        self.codes: Kept[Code] = Kept(CODE_SECONDS, clock)
        self.access: Kept[Token] = Kept(TOKEN_SECONDS, clock)
        self.refresh: Kept[Grant] = Kept(REFRESH_SECONDS, clock)

    def code(self, asked: Asked, context: Context) -> str:
        return self.codes.put(Code(asked, Grant(asked.client, asked.scopes, context)))

    def redeem(self, code: str) -> Code | None:
        """A code, once; a second time ends what came of the first."""
        if (before := self.codes.spent(code)) is not None:
            before.grant.ended = True
        return self.codes.spend(code)

    def renew(self, refresh_token: str) -> Grant | None:
        """The grant of a refresh token, once; a second time ends it."""
        if (before := self.refresh.spent(refresh_token)) is not None:
            before.ended = True
        grant = self.refresh.spend(refresh_token)
        return grant if grant is not None and not grant.ended else None

    def issue(self, grant: Grant, scopes: tuple[str, ...]) -> str:
        """A new access token."""
        now = int(self.clock())
        return self.access.put(Token(grant, scopes, now, now + TOKEN_SECONDS))

    def token(self, access_token: str) -> Token | None:
        """What an access token means; None: nothing (any more)."""
        token = self.access.get(access_token)
        return token if token is not None and not token.grant.ended else None

    def revoke(self, token: str, client: str) -> None:
        """End what a token of this client came from (RFC 7009); of others', nothing happens."""
        access = self.access.get(token)
        grant = access.grant if access is not None else self.refresh.get(token)
        if grant is not None and grant.client == client:
            grant.ended = True
