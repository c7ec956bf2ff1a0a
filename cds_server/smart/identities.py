"""Who signed an ID token: the keys of the issuer that the launch settled on, and of nobody else.

OpenID Connect Core 1.0, 3.1.3.7 and 10.1; SMART App Launch 2.2, Steps for using an ID token. What its claims say is
checked by `smart_app.launch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cds_server.smart.ehr_door import EhrDoor
from cds_server.trust.keysets import FetchedKeys
from cds_server.trust.published import PUBLISHED
from cds_server.trust.tokens import SigningKey, Untrusted, check_signature, take_apart
from models import strict
from models.errors import BadInput, PeerFailed, Unauthenticated

ALGORITHMS = frozenset({"RS256", "RS384", "ES256", "ES384"})
"""Never `none`, never one that is symmetric: an EHR's key set is public."""
PATIENCE = 5.0
_LIMIT = 1 << 18
_MOST = 8
"""Key sets that are kept of one EHR: its discovery names one, and another after a change."""


class Identities:
    """Checks the ID tokens of one EHR. One event loop."""

    def __init__(self, door: EhrDoor, *, published_keys: bool = False) -> None:
        """`published_keys`: keys that everybody can sign with are taken (a sandbox's)."""
        self._door = door
        self._published = published_keys
        self._sets: dict[str, FetchedKeys] = {}
        self._jwks_of: dict[str, str] = {}

    async def claims(self, issuer: str | None, jwks: str | None, token: str) -> tuple[Mapping[str, Any], str]:
        """The claims, and `alg`. Errors: Unauthenticated, PeerFailed (the issuer does not tell its keys)."""
        if issuer is None:
            raise Unauthenticated(cause="app: the EHR names no issuer of ID tokens")
        try:
            presented = take_apart(token, typ=False, kid=False)
            if presented.algorithm not in ALGORITHMS:
                raise Untrusted("alg is none of RS256, RS384, ES256, ES384")
            keys = self._keys(jwks or await self._stated(issuer))
            key = await _key(keys, presented.kid, presented.algorithm)
            if key is None:
                raise Untrusted("no key of the issuer's set is meant by it")
            if key.thumbprint in PUBLISHED and not self._published:
                raise Untrusted("its key is one that is printed with its private half")
            check_signature(presented, key)
        except Untrusted as error:
            raise Unauthenticated(cause=f"app: ID token: {error}") from None
        return presented.claims, presented.algorithm

    def _keys(self, url: str) -> FetchedKeys:
        if url not in self._sets:
            if len(self._sets) >= _MOST:
                self._sets.clear()
            self._sets[url] = FetchedKeys(url, self._door)
        return self._sets[url]

    async def _stated(self, issuer: str) -> str:
        """Where an issuer's keys are, by its own description (OpenID Connect Discovery 1.0, 4)."""
        if issuer not in self._jwks_of:
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            if self._door.refuses(url) is not None:
                raise PeerFailed("the EHR names an issuer on a host that its registration does not list")
            raw = await self._door.get(url, {"Accept": "application/json"}, limit=_LIMIT)
            try:
                stated = strict.loads(raw, what="the issuer's description")
            except BadInput:
                stated = None
            named = stated.get("jwks_uri") if isinstance(stated, dict) and stated.get("issuer") == issuer else None
            if not isinstance(named, str) or self._door.refuses(named) is not None:
                raise PeerFailed("the issuer describes another one, or keys on a host that is not listed")
            if len(self._jwks_of) >= _MOST:
                self._jwks_of.clear()
            self._jwks_of[issuer] = named
        return self._jwks_of[issuer]


async def _key(keys: FetchedKeys, kid: str, algorithm: str) -> SigningKey | None:
    return await (keys.key(kid, PATIENCE) if kid else keys.only(algorithm, PATIENCE))
