"""An EHR's signature: a key of each recommended algorithm, its public key set, and tokens signed ahead of the load.

Every call has a token of its own (the server remembers `jti`). They are signed before the clock starts: what a client's
signature costs is not what is measured.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

ISSUER = "https://ehr.bench.example.org"
LIFETIME = 840
"""Seconds: under the fifteen minutes that a server takes."""


def make_keys(folder: Path) -> Path:
    """A key of each algorithm in `folder`, as `ALGORITHM.pem`; gives the file of the public key set."""
    rs, es = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())
    for name, key in (("RS384", rs), ("ES384", es)):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.pem").write_bytes(pem)
    n, point = rs.public_key().public_numbers(), es.public_key().public_numbers()
    keys = [
        {"kty": "RSA", "kid": "RS384", "alg": "RS384", "use": "sig", "n": _number(n.n), "e": _number(n.e)},
        {"kty": "EC", "crv": "P-384", "kid": "ES384", "alg": "ES384", "use": "sig"}
        | {"x": _number(point.x, 48), "y": _number(point.y, 48)},
    ]
    public = folder / "jwks.json"
    public.write_text(json.dumps({"keys": keys}))
    return public


def tokens(pem: Path, audience: str, count: int) -> list[bytes]:
    """`count` tokens, all of one length."""
    algorithm, sign = pem.stem, _signer(pem)
    header = _part({"alg": algorithm, "kid": algorithm, "typ": "JWT"})
    issued = int(time.time())
    claims: dict[str, Any] = {"iss": ISSUER, "aud": audience, "iat": issued, "exp": issued + LIFETIME}
    made = []
    for _ in range(count):
        signed = header + b"." + _part({**claims, "jti": secrets.token_hex(16)})
        made.append(signed + b"." + _b64(sign(signed)))
    return made


def _signer(pem: Path) -> Callable[[bytes], bytes]:
    key = load_pem_private_key(pem.read_bytes(), None)
    if isinstance(key, rsa.RSAPrivateKey):
        return lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA384())
    assert isinstance(key, ec.EllipticCurvePrivateKey)

    def sign(text: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")

    return sign


def _part(members: dict[str, Any]) -> bytes:
    return _b64(json.dumps(members, separators=(",", ":")).encode())


def _number(value: int, size: int | None = None) -> str:
    return _b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big")).decode()


def _b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
