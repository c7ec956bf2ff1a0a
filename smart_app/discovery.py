"""What an EHR says of its authorization server, at `{base}/.well-known/smart-configuration`, and whether we follow it.

SMART App Launch 2.2, Conformance. Real servers leave out what they do, so what is missing is told in the log, and
refuses nothing; what leads elsewhere than the registration names is refused: a code and a secret would follow it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from models import strict
from models.errors import BadInput, CdsError, PeerFailed
from smart_app.ports import Door

PATH = "/.well-known/smart-configuration"
FRESH, LASTS, AGAIN = 600.0, 86_400.0, 10.0
"""Seconds: it is asked again; what is known is used while the EHR does not answer; between two questions after a
failure."""
MAX_BYTES = 1 << 18
_WHERE = "the EHR's SMART configuration"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """An EHR's authorization server. Each URL is absolute, and on a host that the registration names."""

    authorization: str
    token: str
    issuer: str | None
    """Of its ID tokens, and of its answers (RFC 9207): never the FHIR base by rule."""
    jwks: str | None
    capabilities: frozenset[str]
    algorithms: tuple[str, ...] | None
    """What assertions may be signed by; None where it does not say."""
    states_issuer: bool
    """Its callbacks carry `iss` (RFC 9207, 3)."""
    odd: tuple[str, ...] = ()
    """What it should say and does not."""

    @property
    def takes_forms(self) -> bool:
        """It takes authorization requests by POST."""
        return "authorize-post" in self.capabilities

    @property
    def v1(self) -> bool:
        """It knows scopes of version 1 only."""
        return "permission-v1" in self.capabilities and "permission-v2" not in self.capabilities


def endpoints(document: Any, base: str, refuses: Callable[[str], str | None]) -> Endpoints:
    """Read the document of an EHR. Errors: PeerFailed, where an endpoint is missing or leads elsewhere."""
    if not isinstance(document, dict):
        raise PeerFailed(f"{_WHERE} is no object")
    urls = {name: _url(document, name, base, refuses) for name in ("authorization_endpoint", "token_endpoint")}
    for name, url in urls.items():
        if url is None:
            raise PeerFailed(f"{_WHERE} has no {name}")
    issuer = document.get("issuer")
    methods = _texts(document, "code_challenge_methods_supported") or ()
    odd = []
    if "S256" not in methods:
        odd.append("it does not say that it takes S256, which is sent all the same")
    if "plain" in methods:
        odd.append("it takes the challenge method plain, which is never sent")
    if not isinstance(issuer, str):
        odd.append("it names no issuer")
    for name in ("grant_types_supported", "capabilities"):
        if _texts(document, name) is None:
            odd.append(f"it has no {name}")
    return Endpoints(
        authorization=str(urls["authorization_endpoint"]),
        token=str(urls["token_endpoint"]),
        issuer=issuer if isinstance(issuer, str) else None,
        jwks=_url(document, "jwks_uri", base, refuses),
        capabilities=frozenset(_texts(document, "capabilities") or ()),
        algorithms=_texts(document, "token_endpoint_auth_signing_alg_values_supported"),
        states_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        odd=tuple(odd),
    )


def _url(document: Mapping[str, Any], name: str, base: str, refuses: Callable[[str], str | None]) -> str | None:
    """Absolute; a relative one stands below the FHIR base (SMART App Launch 2.2, Using Well-Known)."""
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > 2000:
        raise PeerFailed(f"{name} of {_WHERE} is not a URL")
    try:
        url = urljoin(base + "/", value)
    except ValueError:
        raise PeerFailed(f"{name} of {_WHERE} is not a URL") from None
    if reason := refuses(url):
        raise PeerFailed(f"{name} of {_WHERE} is refused: {reason}")
    return url


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = document.get(name)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else None


class Discovery:
    """One EHR's endpoints, asked once for all who want them now. One event loop."""

    def __init__(
        self,
        door: Door,
        base: str,
        told: Callable[[Endpoints], None] = lambda _: None,
        failed: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`told` hears of each document that was taken, `failed` why one was not: for the log."""
        self._door, self._base, self._told, self._tell_failure, self._clock = door, base, told, failed, clock
        self._known: Endpoints | None = None
        self._got = self._failed = float("-inf")
        self._lock = asyncio.Lock()

    async def endpoints(self) -> Endpoints:
        """Errors: PeerFailed, where nothing that is young enough is known."""
        async with self._lock:
            now = self._clock()
            if self._known is not None and now - self._got < FRESH:
                return self._known
            if now - self._failed >= AGAIN:
                try:
                    return await self._ask()
                except CdsError as error:
                    self._failed = self._clock()
                    self._tell_failure(error.what)
                    if self._known is None or now - self._got >= LASTS or not isinstance(error, PeerFailed):
                        raise
            if self._known is not None and now - self._got < LASTS:
                return self._known
            raise PeerFailed("the EHR did not say a moment ago where its authorization server is")

    async def _ask(self) -> Endpoints:
        raw = await self._door.get(self._base + PATH, {"Accept": "application/json"}, limit=MAX_BYTES)
        found = endpoints(_document(raw, _WHERE), self._base, self._door.refuses)
        self._known, self._got = found, self._clock()
        self._told(found)
        return found


def _document(raw: bytes, what: str) -> Any:
    try:
        return strict.loads(raw, what=what)
    except BadInput:
        raise PeerFailed(f"{what} cannot be read") from None
