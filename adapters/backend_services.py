"""SMART Backend Services: a token for a machine that nobody signs in at.

SMART App Launch 2.2, Backend Services and Asymmetric Authentication; RFC 6749, 4.4; RFC 7523, 2.2. Each request is
signed anew. The token stands in memory only, and is renewed before it ends and once when the server no longer takes it.
No message carries the token, the assertion or the server's own words.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from adapters.peer import Clock, Door, Signer
from models import strict
from models.errors import BadInput, Misconfigured, PeerFailed

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 240
"""SMART allows 300; a minute is left for clocks that differ."""
RENEW_SECONDS = 30
"""So long before its end a token is renewed, or in the second half of its life where that is shorter."""
ASSUMED_SECONDS = 300
"""Life of a token whose server does not say."""
LONGEST_SECONDS = 86_400
MAX_ANSWER = 64 * 1024
MAX_CONFIGURATION = 1024 * 1024
MAX_REDIRECTS = 3
_CODES = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
"""RFC 6749, 5.2. Any other code is the server's own text, and stays out of our messages."""
_TOKEN = re.compile(r"[!-~]+")
_WAIT = frozenset((408, 425, 429))
"""4xx that mean later, not no."""


class TokenRefused(PeerFailed):
    """The server understood and said no: asking again changes nothing before somebody changes a registration."""

    retry = False

    def __init__(self, what: str, *, said: str | None = None) -> None:
        super().__init__(what, where="the token endpoint")
        self.said = said
        """Its error code, where that is one of RFC 6749, 5.2."""


class BackendServices:
    """The token of one client at one server. One event loop."""

    def __init__(
        self,
        door: Door,
        signer: Signer,
        clock: Clock,
        *,
        token_url: str,
        client_id: str,
        scopes: tuple[str, ...],
        audience: str | None = None,
        algorithms: Sequence[str] | None = None,
    ) -> None:
        """`audience`: for servers that want another `aud` than the token URL (FAPI 2.0: the issuer). `algorithms`: what
        the server states (`token_endpoint_auth_signing_alg_values_supported`), None where it states nothing.
        """
        self._door, self._signer, self._clock = door, signer, clock
        self._token_url, self._client_id, self._scopes = token_url, client_id, scopes
        self._audience = audience or token_url
        self._algorithms = algorithms
        self._token: str | None = None
        self._renew_at: datetime | None = None
        self._granted: tuple[str, ...] | None = None
        self._lock = asyncio.Lock()

    @property
    def granted(self) -> tuple[str, ...]:
        """Scopes of the token; before the first one, those that will be asked for (RFC 6749, 5.1)."""
        return self._scopes if self._granted is None else self._granted

    async def token(self) -> str:
        """A token that is good for a while yet. Errors: PeerFailed (TokenRefused: not before something is changed),
        Misconfigured (no key), NotAllowed (the door refuses the token URL).
        """
        found = self._held()
        if found is None:
            async with self._lock:
                found = self._held() or await self._ask()
        return found

    async def renewed(self, after: str) -> str:
        """Another token than `after`, which the server did not take (401); asked for once, however many noticed."""
        async with self._lock:
            found = self._held()
            return found if found is not None and found != after else await self._ask()

    def _held(self) -> str | None:
        return self._token if self._renew_at is not None and self._clock.now() < self._renew_at else None

    async def _ask(self) -> str:
        self._token = self._renew_at = None
        asked_at = self._clock.now()
        answer = await self._exchange(self._form(asked_at))
        token = _access_token(answer)
        life = _lifetime(answer.get("expires_in"))
        self._granted = _granted(answer.get("scope"), self._scopes)
        self._renew_at = asked_at + timedelta(seconds=life - min(RENEW_SECONDS, life / 2))
        self._token = token
        return token

    def _form(self, now: datetime) -> bytes:
        issued = int(now.timestamp())
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._audience,  # text, not a list: some servers compare it as it stands (smart-dev-sandbox#45)
            "iat": issued,
            "exp": issued + ASSERTION_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        form = {
            "grant_type": "client_credentials",
            "scope": " ".join(self._scopes),
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self._signer.sign(claims, self._algorithm()),
        }
        return urlencode(form).encode("ascii")

    def _algorithm(self) -> str:
        """The preferred one of those that both have. A server that states only others gets ours all the same: it has
        to take RS384 and ES384 (SMART App Launch 2.2), and what servers state of this is often not so.
        """
        ours = self._signer.algorithms()
        if not ours:
            raise Misconfigured("there is no key to sign with")
        return next((each for each in ours if each in (self._algorithms or ours)), ours[0])

    async def _exchange(self, form: bytes) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        async with self._door.ask("POST", self._token_url, headers=headers, content=form) as reply:
            status = reply.status
            body = await reply.body(MAX_ANSWER) if status < 300 or 400 <= status < 500 else b""
        if status == 200:
            return _object(body, "the token endpoint's answer")
        if 400 <= status < 500 and status not in _WAIT:
            code = _error_code(body)
            raise TokenRefused(f"no token: {code}" if code else f"no token: answered {status}", said=code)
        raise PeerFailed(f"no token: answered {status}", where="the token endpoint")


def _object(body: bytes, what: str) -> Mapping[str, Any]:
    try:
        answer = strict.loads(body, what=what)
    except BadInput:
        raise PeerFailed(f"{what} cannot be read") from None
    if not isinstance(answer, dict):
        raise PeerFailed(f"{what} is no object")
    return answer


def _access_token(answer: Mapping[str, Any]) -> str:
    kind, token = answer.get("token_type"), answer.get("access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise PeerFailed("token_type is not Bearer", where="the token endpoint")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise PeerFailed("access_token is missing, or cannot stand in a header", where="the token endpoint")
    return token


def _lifetime(told: Any) -> float:
    """Seconds. Some servers write the number as text."""
    if isinstance(told, str) and told.isascii() and told.isdecimal() and len(told) < 10:
        told = int(told)
    if isinstance(told, bool) or not isinstance(told, (int, Decimal)) or told <= 0:
        return ASSUMED_SECONDS
    return float(min(told, LONGEST_SECONDS))


def _granted(told: Any, asked: tuple[str, ...]) -> tuple[str, ...]:
    """RFC 6749, 5.1: absent means as asked. Apart by single blanks only: a v2 scope may hold a query with a URL."""
    if told is None:
        return asked
    if not isinstance(told, str):
        raise PeerFailed("scope is not text", where="the token endpoint")
    return tuple(each for each in told.split(" ") if each)


def _error_code(body: bytes) -> str | None:
    """The server's error code where it is one that the standard knows; never its description."""
    try:
        code = _object(body, "the refusal").get("error")
    except PeerFailed:
        return None
    return code if isinstance(code, str) and code in _CODES else None


# ---- scopes ----------------------------------------------------------------------------------------------------------

RESTRICTED = " (restricted)"
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_SCOPE = re.compile(r"(system|user|patient)/(\*|[A-Z][A-Za-z]*)\.(read|write|\*|c?r?u?d?s?)(\?.*)?", re.DOTALL)


def scopes_for(types: Sequence[str], *, v2: bool) -> tuple[str, ...]:
    """What reading these types needs; no types: all (SMART App Launch 2.2, Scopes; v1 in 1.0)."""
    letters = "rs" if v2 else "read"
    return tuple(f"system/{each}.{letters}" for each in dict.fromkeys(types or ("*",)))


def missing(requested: Sequence[str], granted: Sequence[str]) -> tuple[str, ...]:
    """Which of our scopes the granted ones do not cover, together, in whatever version each is written.

    One that is covered only where a granted scope has a query (`?category=…`) is given with RESTRICTED at its end: the
    server would leave resources out without saying so. A scope for all types is covered by such a one only.
    """
    given = [each for each in map(_parsed, granted) if each is not None]
    lacking = []
    for scope in requested:
        if scope in granted:
            continue
        wanted = _parsed(scope)
        if wanted is None:
            lacking.append(scope)
            continue
        who, kind, letters, _ = wanted
        fits = [each for each in given if each[0] == who and each[1] in ("*", kind)]
        if letters <= _together(each for each in fits if not each[3]):
            continue
        lacking.append(scope + RESTRICTED if letters <= _together(fits) else scope)
    return tuple(lacking)


_Parsed = tuple[str, str, frozenset[str], bool]
"""Whose, type, letters of `cruds`, whether a query narrows it."""


def _parsed(scope: str) -> _Parsed | None:
    """None for what is no clinical scope; `.dus` is none: letters have one order (SMART App Launch 2.0, Scopes)."""
    found = _SCOPE.fullmatch(scope)
    if found is None or not found[3]:
        return None
    return found[1], found[2], frozenset(_V1.get(found[3], found[3])), found[4] is not None


def _together(scopes: Iterable[_Parsed]) -> frozenset[str]:
    return frozenset().union(*(each[2] for each in scopes))


# ---- discovery -------------------------------------------------------------------------------------------------------


async def discover(door: Door, base: str) -> Mapping[str, Any]:
    """What a FHIR server says of its authorization: the JSON object, unread.

    SMART App Launch 2.2, Conformance: the path is appended to the base also where the base has a path. A redirect is
    followed on the same origin only: whoever answers here names the server that gets our assertions.

    Errors: PeerFailed, NotAllowed.
    """
    where = "the server's SMART configuration"
    url = f"{base.rstrip('/')}/.well-known/smart-configuration"
    for _ in range(MAX_REDIRECTS + 1):
        async with door.ask("GET", url, headers={"Accept": "application/json"}) as reply:
            if reply.status == 200:
                return _object(await reply.body(MAX_CONFIGURATION), where)
            if reply.status not in (301, 302, 303, 307, 308):
                raise PeerFailed(f"answered {reply.status}", where=where)
            url = _followed(url, reply.headers.get("location", ""))
    raise PeerFailed("redirects without an end", where=where)


def _followed(url: str, location: str) -> str:
    try:
        to = urljoin(url, location)
        if location and _origin(urlsplit(to)) == _origin(urlsplit(url)):
            return to
    except ValueError:
        pass
    raise PeerFailed("redirects to another place: not followed", where="the server's SMART configuration")


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
