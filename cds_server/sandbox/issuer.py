"""The sandbox's own keys, made at its start, and what it signs with them.

id_tokens for apps (OpenID Connect Core, 2), and its calls of CDS services (CDS Hooks 2.0.1, Trusting CDS Clients).
"""

from __future__ import annotations

import uuid
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from models.nouns import JSON

RSA_BITS = 2048
ALGORITHM = "RS256"
"""The one that a SMART server has to sign with (2.2, Scopes and Launch Context, id_token)."""
CALL_ALGORITHM = "ES384"
"""One of the two that CDS Hooks recommends."""
TOKEN_SECONDS = 300


class Issuer:
    """Signs. Nothing that it signed is good after the process: its keys are kept nowhere."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._key = RSAKey.generate_key(RSA_BITS)
        self._kid = self._key.thumbprint()
        self._call_key = ECKey.generate_key("P-384")
        self._call_kid = self._call_key.thumbprint()

    def jwks(self) -> JSON:
        told = (
            (self._key, self._kid, ALGORITHM, ("kty", "n", "e")),
            (self._call_key, self._call_kid, CALL_ALGORITHM, ("kty", "crv", "x", "y")),
        )
        return {
            "keys": [
                {name: key.as_dict(private=False)[name] for name in bare} | {"kid": kid, "alg": alg, "use": "sig"}
                for key, kid, alg, bare in told
            ]
        }

    def call_token(self, url: str, now: float) -> str:
        """Who calls the CDS service at this URL: good once, for five minutes."""
        said = {"iss": self.url, "aud": url, "iat": int(now), "exp": int(now) + TOKEN_SECONDS, "jti": str(uuid.uuid4())}
        header = {"alg": CALL_ALGORITHM, "kid": self._call_kid, "typ": "JWT"}
        return jwt.encode(header, said, self._call_key, algorithms=[CALL_ALGORITHM])

    def id_token(self, client: str, subject: str, now: float, **claims: Any) -> str:
        """A signed token about `subject` for `client`; a claim of None is left out."""
        said = {"iss": self.url, "sub": subject, "aud": client, "iat": int(now), "exp": int(now) + TOKEN_SECONDS}
        said |= {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": ALGORITHM, "kid": self._kid, "typ": "JWT"}, said, self._key, algorithms=[ALGORITHM])
