"""The sandbox's own key, made at its start, and what it signs with it: id_tokens (OpenID Connect Core, 2)."""

from __future__ import annotations

from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from models.nouns import JSON

RSA_BITS = 2048
ALGORITHM = "RS256"
"""The one that a SMART server has to sign with (2.2, Scopes and Launch Context, id_token)."""
ID_TOKEN_SECONDS = 300


class Issuer:
    """Signs with one RSA key. Nothing that it signed is good after the process: the key is kept nowhere."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._key = RSAKey.generate_key(RSA_BITS)
        self._kid = self._key.thumbprint()

    def jwks(self) -> JSON:
        public = self._key.as_dict(private=False)
        bare = {name: public[name] for name in ("kty", "n", "e")}
        return {"keys": [{**bare, "kid": self._kid, "alg": ALGORITHM, "use": "sig"}]}

    def id_token(self, client: str, subject: str, now: float, **claims: Any) -> str:
        """A signed token about `subject` for `client`; a claim of None is left out."""
        said = {"iss": self.url, "sub": subject, "aud": client, "iat": int(now), "exp": int(now) + ID_TOKEN_SECONDS}
        said |= {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": ALGORITHM, "kid": self._kid, "typ": "JWT"}, said, self._key, algorithms=[ALGORITHM])
