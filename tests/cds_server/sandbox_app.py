"""An app at the sandbox: what a SMART client sends, without a browser. `whole_launch` is the polite way through."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc.jwk import Key
from starlette.testclient import TestClient

from cds_server.sandbox.app import OWN_URL
from cds_server.trust.tokens import SigningKey, read_keys
from tests.peers.ehr_keys import public_set, signing_key, token

FIXTURES = Path(__file__).parents[2] / "fixtures"
CDS = "http://127.0.0.1:8000"
CALLBACK, LAUNCH = f"{CDS}/app/callback", f"{CDS}/app/launch"
FHIR, TOKEN_URL, ISSUER = f"{OWN_URL}/fhir", f"{OWN_URL}/auth/token", f"{OWN_URL}/auth"
SECRET = "a secret: with / signs"  # noqa: S105 - for the tests only
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
EVERYTHING = "openid fhirUser launch online_access patient/*.rs"


class HeldKeys:
    """A client's key set, without a fetch."""

    def __init__(self, key: Key) -> None:
        self.key_pair = key
        self._read = read_keys(public_set(key))

    async def key(self, kid: str, patience: float) -> SigningKey | None:
        return self._read.get(kid)


@dataclass(slots=True)
class AnApp:
    """A client that is registered at the sandbox."""

    browser: TestClient
    client_id: str = "cds-server-public"
    key: Key = field(default_factory=lambda: signing_key("ES384", "app-1"))

    def authorize(self, method: str = "GET", **changes: Any) -> httpx.Response:
        """An authorization request; a change to None leaves a parameter out."""
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": CALLBACK,
            "scope": EVERYTHING,
            "state": "s" * 40,
            "aud": FHIR,
            "nonce": "n-1",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **changes,
        }
        sent = {name: value for name, value in asked.items() if value is not None}
        how = {"params": sent} if method == "GET" else {"data": sent}
        return self.browser.request(method, "/auth/authorize", follow_redirects=False, **how)

    def launch(self, path: str = "/cases/jenny-m/launch") -> str:
        """The handle that the EHR launches with."""
        answer = self.browser.get(path, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        asked = parse_qs(urlsplit(answer.headers["location"]).query)
        assert asked["iss"] == [FHIR]
        return asked["launch"][0]

    def token(self, auth: tuple[str, str] | None = None, **form: str) -> httpx.Response:
        return self.browser.post("/auth/token", data=form, auth=auth)

    def redeem(self, code: str, auth: tuple[str, str] | None = None, **changes: Any) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            "client_id": self.client_id,
            **changes,
        }
        return self.token(auth, **{name: value for name, value in form.items() if value is not None})

    def assertion(self, **changes: Any) -> dict[str, str]:
        """A client's proof by its key."""
        said = {"iss": "cds-server", "sub": "cds-server", "iat": None, **changes}
        signed = token(
            changes.pop("by", self.key), said.pop("aud", TOKEN_URL), **{k: v for k, v in said.items() if k != "by"}
        )
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        return {"client_assertion_type": kind, "client_assertion": signed}

    def whole_launch(self, path: str = "/cases/jenny-m/launch", scope: str = EVERYTHING) -> dict[str, Any]:
        answer = self.redeem(said(self.authorize(launch=self.launch(path), scope=scope))["code"])
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def said(answer: httpx.Response) -> dict[str, str]:
    """What the authorization server sent the browser back with."""
    assert answer.status_code == 303, answer.text
    at = urlsplit(answer.headers["location"])
    assert f"{at.scheme}://{at.netloc}{at.path}" == CALLBACK
    return {name: values[0] for name, values in parse_qs(at.query).items()}
