"""Which EHR is calling: by its signature, or, where the configuration opens the doors on loopback, anybody.

A client's JWT is checked in the order of the best practices of CDS Hooks: the issuer is registered; this door is its
audience; it lives now and not too long; the tenant is registered; a key on record signed it; it was not used before.
Whatever fails, the answer is one and the same 401; the cause stands in the log only, and the token nowhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from starlette.requests import Request

from adapters.fhir_read import same
from cds_server import http
from cds_server.configured import loopback
from cds_server.ehrs import Ehr
from cds_server.hooks.context import HookRequest
from cds_server.hooks.routes import Caller
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.trust.keysets import FetchedKeys, FileKeys, KeySource
from cds_server.trust.published import PUBLISHED
from cds_server.trust.replay import TokenUse, spend
from cds_server.trust.tokens import Presented, Untrusted, check_claims, check_signature, take_apart
from models.errors import Misconfigured, NotAllowed, Unauthenticated

SANDBOX = "sandbox"
"""Namespace of callers that nobody configured."""
_FEEDBACK = "/feedback"


class Trust:
    """Tells who calls. Checked again at the door: an open server that is reached from elsewhere lets nobody in."""

    def __init__(self, settings: Settings, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._open = settings.trust == "open"
        self._store = store
        self._clock = clock
        self._base = settings.public_url
        self._patience = settings.deadline_ms / 2000
        """Seconds that a call waits for an issuer's keys: half of what it has."""
        ehr = settings.ehrs[0] if len(settings.ehrs) == 1 else None
        self._anybody = Caller(namespace=ehr.namespace if ehr else SANDBOX, ehr=ehr.namespace if ehr else None)
        self._issuers: dict[str, list[Ehr]] = {}
        for each in settings.ehrs:
            if each.issuer is not None and each.signs:
                self._issuers.setdefault(each.issuer, []).append(each)
        self._ehrs = {each.namespace: each for each in settings.ehrs}
        urls = {url for each in settings.ehrs for url in (each.jwks_url, *each.jku) if url}
        self._door = http.Outbound(urls, verify=http.authorities(settings.ca_file)) if urls else None
        self._fetched = {url: FetchedKeys(url, self._door) for url in urls} if self._door else {}
        self._files = {each.namespace: _file(each, settings.origin) for each in settings.ehrs if each.jwks}

    def start(self) -> None:
        """Fetch every key set beside the first calls. On the event loop that will serve."""
        if not self._open:
            for keys in self._fetched.values():
                keys.refresh()

    async def aclose(self) -> None:
        if self._door is not None:
            await self._door.aclose()

    async def admit(self, request: Request) -> Caller:
        """The caller. Raises Unauthenticated, alike for every cause."""
        if self._open:
            if request.client is None or not loopback(request.client.host):
                raise Unauthenticated(cause="not on loopback")
            return self._anybody
        try:
            caller = await self._signed(request)
        except Untrusted as error:
            raise Unauthenticated(cause=str(error)) from None
        if request.method == "GET":  # no act of this request will write
            await self._store.writer.write(lambda tx: spend(tx, caller.token))
        return caller

    def check(self, request: HookRequest, caller: Caller) -> None:
        """Whether this EHR may name that FHIR server. Errors: NotAllowed."""
        if self._open or request.fhir_server is None:
            return
        allowed = self._ehrs[caller.namespace].allowed_fhir
        if request.fhir_server not in allowed and not any(same(request.fhir_server, base) for base in allowed):
            raise NotAllowed("the FHIR server is not one that is registered for this EHR", where="fhirServer")

    # -- a signed call -------------------------------------------------------------------------------------------------

    async def _signed(self, request: Request) -> Caller:
        presented = take_apart(_bearer(request))
        ehr = self._registered(presented)
        now = self._clock()
        jti = check_claims(presented.claims, ehr, self._audiences(ehr, request.scope["path"]), now)
        if presented.algorithm not in ehr.algorithms:
            raise Untrusted("alg is not registered")
        key = await self._keys(ehr, presented).key(presented.kid, self._patience)
        if key is None:
            raise Untrusted("kid is not in the key set")
        if key.thumbprint in PUBLISHED and not ehr.published_keys:
            raise Untrusted("the key is published: anybody can sign with it")
        check_signature(presented, key)
        digest = self._store.vault.index("jti", str(ehr.issuer), jti)[:16]
        until = math.ceil(presented.claims["exp"]) + ehr.skew + 1
        return Caller(namespace=ehr.namespace, ehr=ehr.namespace, token=TokenUse(digest, until))

    def _registered(self, presented: Presented) -> Ehr:
        """The EHR of `iss`; where several share it, the one of the tenant."""
        issuer, tenant = presented.claims.get("iss"), presented.claims.get("tenant")
        sharing = self._issuers.get(issuer, []) if isinstance(issuer, str) else []
        if len(sharing) > 1:
            sharing = [each for each in sharing if tenant in each.tenants]
        if not sharing:
            raise Untrusted("iss is not registered")
        return sharing[0]

    def _audiences(self, ehr: Ehr, path: str) -> list[str]:
        """URLs of this door. For feedback, where the specification is silent, the service's own URL is one, too."""
        paths = (path, path.removesuffix(_FEEDBACK)) if path.endswith(_FEEDBACK) else (path,)
        return [base + each for base in (self._base, *ehr.audiences) for each in paths]

    def _keys(self, ehr: Ehr, presented: Presented) -> KeySource:
        """`jku` chooses among the registered URLs; it can't add one."""
        url = presented.jku or ehr.jwks_url
        if presented.jku is not None and url != ehr.jwks_url and url not in ehr.jku:
            raise Untrusted("jku is not registered")
        if ehr.namespace in self._files:
            return self._files[ehr.namespace]
        if url is None:
            raise Untrusted("the token names no jku, and no key set is registered")
        return self._fetched[url]


def _bearer(request: Request) -> str:
    """RFC 6750, 2.1: one header, its scheme in any case."""
    given = request.headers.getlist("authorization")
    if len(given) != 1:
        raise Untrusted("no token" if not given else "several tokens")
    scheme, _, token = given[0].partition(" ")
    if scheme.lower() != "bearer":
        raise Untrusted("not a Bearer token")
    return token.strip()


def _file(ehr: Ehr, origin: str) -> FileKeys:
    keys = FileKeys(ehr.jwks)  # type: ignore[arg-type]
    try:
        keys.read()
    except (OSError, Untrusted):
        raise Misconfigured(f"jwks of the [[ehr]] {ehr.namespace} in {origin} names no file with a key set") from None
    return keys
