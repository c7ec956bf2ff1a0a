"""A small OpenID Connect provider of our own, over real HTTP: it signs in whom it is told, and checks its client."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc.jwk import Key

from tests.peers.ehr_keys import public_set, signing_key, token

CLIENT, SECRET = "cds at the hospital", "a secret: with / signs"


@dataclass(slots=True)
class IdentityProvider:
    key: Key = field(default_factory=lambda: signing_key("RS256", "idp-1"))
    claims: dict[str, Any] = field(default_factory=dict)
    """Stand over what the ID token says; None leaves one out."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None

    @property
    def issuer(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def described(self) -> dict[str, str]:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        return {"issuer": self.issuer, **{name: f"{self.issuer}/{path}" for name, path in names.items()}}

    def authorize(self, asked: dict[str, str]) -> str:
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.issuer})}"

    def exchange(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """Tokens, for the client that began, once, with the verifier of its challenge (RFC 7636)."""
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return None
        hashed = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(hashed).decode().rstrip("=") != asked["code_challenge"]:
            return None
        who = f"{urlencode({'': CLIENT})[1:].replace('+', '%20')}:{urlencode({'': SECRET})[1:].replace('+', '%20')}"
        if authorization != "Basic " + base64.b64encode(who.encode()).decode():
            return None
        said = {
            "iss": self.issuer,
            "sub": "dr-osei",
            "groups": ["cds-operators"],
            "nonce": asked["nonce"],
            "exp": int(time.time()) + 60,
            "jti": None,
            **self.claims,
        }
        return {
            "access_token": "not-kept-anywhere",
            "token_type": "Bearer",
            "id_token": token(self.key, said.pop("aud", CLIENT), header={"typ": None}, **said),
        }


@pytest.fixture
def identity_provider() -> Iterator[IdentityProvider]:
    state = IdentityProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", state.authorize({k: v[0] for k, v in parse_qs(parts.query).items()}))
                self.end_headers()
                return
            known = {
                "/.well-known/openid-configuration": json.dumps(state.described()).encode(),
                "/jwks": public_set(state.key),
            }
            self.give(known.get(parts.path))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            given = state.exchange({k: v[0] for k, v in form.items()}, self.headers.get("Authorization", ""))
            self.give(json.dumps(given).encode() if given else None)

        def give(self, body: bytes | None) -> None:
            self.send_response(200 if body else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    state.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=state.server.serve_forever, daemon=True).start()
    yield state
    state.server.shutdown()
    state.server.server_close()
