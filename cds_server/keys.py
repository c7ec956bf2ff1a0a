"""Our keys: made, published, chosen to sign with, retired.

The private half stands in the key store and nowhere else: not in the database, not in its backup, in no print. The
public half is a row, each act an entry of the log. A set stands at `/.well-known/jwks.json`; a registration with
somebody's authorization server may have a set of its own, with one type of key in it, because some servers fail on a
set that mixes RSA and EC. SMART App Launch 2.2, Asymmetric Authentication; RFC 7515, 7517, 7638.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.requests import Request
from starlette.responses import Response

from cds_server import wire
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import Conflict, KeysUnavailable, Misconfigured, NotFound
from models.nouns import JSON, instant

ALGORITHMS = ("RS384", "ES384")
"""The two that every SMART server has to take; the preferred one first."""
RSA_BITS = 3072
OVERLAP = timedelta(hours=24)
"""A new key is published so long before it signs: peers keep a key set they fetched."""
FRESH = 1.0
"""Seconds that the sets are kept before the store is asked again: the door is open to everybody."""
MAX_AGE = 300
"""Seconds that a peer may keep a set (SMART App Launch 2.2 wants Cache-Control)."""
PATH = "/.well-known/jwks.json"
PATH_OF_ONE = "/.well-known/jwks/{registration}.json"
_PUBLIC = {"RS384": ("kty", "n", "e"), "ES384": ("kty", "crv", "x", "y")}
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
"""Of a registration."""
_ROWS = (
    "SELECT k.kid, k.alg, k.registration, k.jwk, k.at, s.at FROM signing_key k "
    "LEFT JOIN signing_key_state s ON s.kid = k.kid ORDER BY k.id"
)


@dataclass(frozen=True, slots=True)
class OurKey:
    kid: str
    alg: str
    registration: str | None
    """None: of the general set."""
    jwk: JSON
    """As it is published: no private member."""
    made_at: datetime
    retired_at: datetime | None

    @property
    def live(self) -> bool:
        return self.retired_at is None


def signing(keys: Sequence[OurKey], registration: str | None, alg: str, now: datetime) -> OurKey | None:
    """Which of these, oldest first, signs: the youngest that every peer can know by now, else the oldest.

    So a new key waits out the overlap while an old one is there, and signs at once where it is the only one.
    """
    able = [key for key in keys if key.live and key.registration == registration and key.alg == alg]
    known = [key for key in able if key.made_at + OVERLAP <= now]
    return known[-1] if known else next(iter(able), None)


class Keys:
    """The keys of one instance. Other processes make and retire them too (`cds keys`): nothing is kept for long."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: tuple[OurKey, ...] = ()
        self._asked = float("-inf")

    def all(self) -> tuple[OurKey, ...]:
        """Oldest first, the retired ones too."""
        if time.monotonic() - self._asked >= FRESH:
            self._known = tuple(_key(row) for row in self._store.reads.query(_ROWS))
            self._asked = time.monotonic()
        return self._known

    def published(self, registration: str | None) -> JSON:
        """The key set (RFC 7517, 5). Errors: NotFound, where the registration never had a key."""
        of_it = [key for key in self.all() if key.registration == registration]
        if registration is not None and not of_it:
            raise NotFound("there is no such registration")
        return {"keys": [key.jwk for key in of_it if key.live]}

    def new(self, registration: str | None, actor: str, alg: str | None = None) -> OurKey:
        """A new key pair; durable, in the key store and in the log, when this returns.

        `alg` None: what the registration's other keys are for, else RS384. Errors: Misconfigured (a name that cannot
        stand in a URL, another algorithm), Conflict (a registration's set would mix two types of key).
        """
        if registration is not None and not NAME.fullmatch(registration):
            raise Misconfigured("a registration's name is 1 to 64 letters, digits, - and _", where="--for")
        if alg is None:
            live = [key.alg for key in self.all() if key.live and key.registration == registration]
            alg = live[-1] if live and registration is not None else ALGORITHMS[0]
        if alg not in ALGORITHMS:
            raise Misconfigured(f"keys are for {' or '.join(ALGORITHMS)}", where="--alg")
        pair = RSAKey.generate_key(RSA_BITS) if alg == "RS384" else ECKey.generate_key("P-384")
        kid = pair.thumbprint()
        public = pair.as_dict(private=False)
        bare = {name: public[name] for name in _PUBLIC[alg]}
        jwk = {**bare, "kid": kid, "alg": alg, "use": "sig", "key_ops": ["verify"]}
        private = json.dumps(pair.as_dict(private=True)).encode()

        def act(tx: Tx) -> str:
            if registration is not None and any(
                key.live and key.registration == registration and key.alg != alg for key in map(_key, tx.read(_ROWS))
            ):
                raise Conflict("this registration has keys of another type; retire them, or name another registration")
            tx.fresh_keys[_ref(kid)] = private
            tx.add("signing_key", kid=kid, alg=alg, registration=registration, jwk=json.dumps(jwk), at=tx.now)
            tx.entry("keys-new", actor, {"kid": kid, "alg": alg, "registration": registration})
            return tx.now

        made_at = self._store.writer.submit(act).result()
        self._asked = float("-inf")
        return OurKey(kid, alg, registration, jwk, datetime.fromisoformat(made_at), None)

    def retire(self, kid: str, actor: str) -> int:
        """From now on it neither signs nor is published; gives the entry's number. Errors: NotFound, Conflict."""

        def act(tx: Tx) -> int:
            key = next((key for key in map(_key, tx.read(_ROWS)) if key.kid == kid), None)
            if key is None:
                raise NotFound("we have no key of that id", where="KID")
            if not key.live:
                raise Conflict("this key was retired before", where="KID")
            tx.add("signing_key_state", kid=kid, state="retired", at=tx.now)
            return tx.entry("keys-retire", actor, {"kid": kid, "alg": key.alg, "registration": key.registration}).seq

        seq = self._store.writer.submit(act).result()
        self._asked = float("-inf")
        return seq

    def private(self, kid: str) -> bytes:
        """The private JWK. Errors: KeysUnavailable."""
        found = self._store.vault.key(_ref(kid))
        if found is None:
            raise KeysUnavailable("the private half of a signing key is gone: was the key store lost?")
        return found


class KeySigner:
    """Signs with the keys of one registration, or of the general set; `adapters.peer.Signer`."""

    def __init__(
        self, store: Store, registration: str | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._keys = Keys(store)
        self._registration = registration
        self._now = now
        self._opened: tuple[str, RSAKey | ECKey] | None = None

    def algorithms(self) -> Sequence[str]:
        held = {key.alg for key in self._keys.all() if key.live and key.registration == self._registration}
        return tuple(each for each in ALGORITHMS if each in held)

    def sign(self, claims: Mapping[str, Any], algorithm: str) -> str:
        key = signing(self._keys.all(), self._registration, algorithm, self._now())
        if key is None:
            meant = f" --for {self._registration}" if self._registration else ""
            raise Misconfigured(f"there is no key to sign with: cds keys new{meant}")
        header = {"alg": key.alg, "kid": key.kid, "typ": "JWT"}
        return jwt.encode(header, dict(claims), self._open(key), algorithms=[key.alg])

    def _open(self, key: OurKey) -> RSAKey | ECKey:
        """Taken apart once: reading an RSA key costs forty times the signature."""
        if self._opened is None or self._opened[0] != key.kid:
            held = json.loads(self._keys.private(key.kid))
            self._opened = key.kid, RSAKey.import_key(held) if key.alg == "RS384" else ECKey.import_key(held)
        return self._opened[1]


def _ref(kid: str) -> bytes:
    """Where the private half stands in the key store."""
    return b"k" + kid.encode("ascii")


def _key(row: Any) -> OurKey:
    kid, alg, registration, jwk, made_at, retired_at = row
    retired = datetime.fromisoformat(retired_at) if retired_at else None
    return OurKey(kid, alg, registration, json.loads(jwk), datetime.fromisoformat(made_at), retired)


def told(key: OurKey, keys: Sequence[OurKey], now: datetime) -> JSON:
    """One key for a list: what it is and whether it signs."""
    chosen = signing(keys, key.registration, key.alg, now)
    state = "retired" if not key.live else "signs" if chosen is not None and chosen.kid == key.kid else "published"
    return {
        "kid": key.kid,
        "alg": key.alg,
        "registration": key.registration,
        "state": state,
        "made_at": instant(key.made_at),
        "retired_at": instant(key.retired_at) if key.retired_at else None,
    }


def path_of(registration: str | None) -> str:
    """Where a set is published."""
    return PATH if registration is None else PATH_OF_ONE.format(registration=registration)


def router(keys: Keys) -> APIRouter:
    """The public key sets, for everybody."""

    async def of_all(_: Request) -> Response:
        return _set(keys.published(None))

    async def of_one(request: Request) -> Response:
        return _set(keys.published(request.path_params["registration"]))

    api = APIRouter(redirect_slashes=False)
    api.add_route(PATH, of_all, methods=["GET"])
    api.add_route(PATH_OF_ONE, of_one, methods=["GET"])
    return api


def _set(published: JSON) -> Response:
    answer = wire.json_response(published)
    answer.headers["Cache-Control"] = f"max-age={MAX_AGE}, public"
    return answer
