"""An EHR of our own over real sockets: FHIR server and authorization server, polite until it is told to be something
else. What a polite one never does (SMART App Launch 2.2 and what its peers report) is one attribute each.

It keeps what it was asked, and checks its clients as strictly as the standard lets it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import Key, KeySet

from tests.peers.ehr_keys import public_set, signing_key, token

CLIENT, SECRET = "cds app/1", "a secret: with / signs"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class HostileEhr:
    """`None` in an override takes a member out."""

    key: Key = field(default_factory=lambda: signing_key("RS256", "ehr-1"))
    """Signs its ID tokens."""
    method: str = "symmetric"
    """How its client must prove itself."""
    client_keys: Callable[[], Mapping[str, Any]] | None = None
    """The client's key set, of an asymmetric one."""
    configuration: dict[str, Any] = field(default_factory=dict)
    """Over its SMART configuration."""
    raw_configuration: bytes | None = None
    configuration_status: int = 200
    move_configuration_to: str | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    """Over its token answers."""
    refreshed: dict[str, Any] = field(default_factory=dict)
    """Over its answers to a refresh."""
    token_status: int = 200
    refuse_refresh: str | None = None
    """Error code of each refresh."""
    slow_refresh: float = 0.0
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    """Over the ID token's header."""
    sign_with: Key | None = None
    """Another key than the published one."""
    back: dict[str, Any] = field(default_factory=dict)
    """Over the parameters of the callback."""
    patient: str = "pat-1"
    patients: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Its Patients; any other id is answered with one of that id."""
    practitioner: dict[str, Any] | None = None
    fhir_status: dict[str, int] = field(default_factory=dict)
    """Path -> what it answers instead."""
    style: bytes = b"{}"
    chart: str = ""
    """A page of its own, at `/chart`."""
    unauthorized: set[str] = field(default_factory=set)
    """Access tokens that it takes no more."""
    asked: list[Asked] = field(default_factory=list)
    granted: list[dict[str, str]] = field(default_factory=list)
    """Authorization requests, in order."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshes: dict[str, bool] = field(default_factory=dict)
    """Refresh token -> whether it is good: each is good once."""
    assertions: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    """What a client did that the standard forbids."""
    server: ThreadingHTTPServer | None = None

    @property
    def root(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def base(self) -> str:
        return f"{self.root}/fhir"

    def reset(self) -> None:
        """As it was made, but for its keys and its socket."""
        fresh = HostileEhr(key=self.key)
        for name in self.__slots__:
            if name not in ("server", "key"):
                setattr(self, name, getattr(fresh, name))

    # -- what it says --------------------------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        said = {
            "issuer": self.root,
            "jwks_uri": f"{self.root}/jwks",
            "authorization_endpoint": f"{self.root}/authorize",
            "token_endpoint": f"{self.root}/token",
            "grant_types_supported": ["authorization_code"],
            "capabilities": ["launch-ehr", "launch-standalone", "sso-openid-connect", "permission-v2"],
            "code_challenge_methods_supported": ["S256"],
        }
        return _over(said, self.configuration)

    def authorize(self, url: str) -> str:
        """Where it sends the browser back to, for an authorization request."""
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        asked = dict(pairs)
        if len(asked) != len(pairs):
            self.problems.append("a parameter twice")
        self.granted.append(asked)
        code = secrets.token_urlsafe(12)
        self.codes[code] = asked
        back = _over({"code": code, "state": asked.get("state", "")}, self.back)
        return f"{asked['redirect_uri']}?{urlencode(back, doseq=True)}"

    def exchange(self, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        if (problem := self._client(form, headers)) is not None:
            self.problems.append(problem)
            return 401, {"error": "invalid_client", "error_description": "<script>alert(1)</script>"}
        if self.token_status != 200:
            return self.token_status, {"error": "invalid_request"}
        if form.get("grant_type") == "refresh_token":
            return self._refresh(form)
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None:
            self.problems.append("a code that is unknown, or was used")
            return 400, {"error": "invalid_grant"}
        hashed = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(hashed).decode().rstrip("=") != asked.get("code_challenge"):
            self.problems.append("code_verifier is not the challenge's")
            return 400, {"error": "invalid_grant"}
        if form.get("redirect_uri") != asked["redirect_uri"]:
            self.problems.append("redirect_uri is another")
            return 400, {"error": "invalid_grant"}
        return 200, _over({**self._tokens(), "id_token": self._id_token(asked)}, self.answer)

    def _refresh(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        time.sleep(self.slow_refresh)
        given = form.get("refresh_token", "")
        if self.refuse_refresh is not None:
            return 400, {"error": self.refuse_refresh}
        if not self.refreshes.get(given):
            self.problems.append("a refresh token that is unknown, or was used")
            return 400, {"error": "invalid_grant"}
        self.refreshes[given] = False
        return 200, _over(self._tokens(), self.refreshed)

    def _tokens(self) -> dict[str, Any]:
        refresh = f"refresh-{secrets.token_urlsafe(12)}"
        self.refreshes[refresh] = True
        return {
            "access_token": f"access-{secrets.token_urlsafe(12)}",
            "refresh_token": refresh,
            "token_type": "bearer",
            "expires_in": 3600,
            "scope": "launch openid fhirUser online_access patient/Patient.r user/Practitioner.r",
            "patient": self.patient,
        }

    def _id_token(self, asked: Mapping[str, str]) -> str:
        said = {
            "iss": self.root,
            "sub": "dr-osei",
            "nonce": asked.get("nonce"),
            "fhirUser": "Practitioner/dr-osei",
            "exp": int(time.time()) + 300,
            "jti": None,
            **self.claims,
        }
        return token(self.sign_with or self.key, said.pop("aud", CLIENT), header={"typ": None, **self.header}, **said)

    def _client(self, form: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
        """What is wrong with a client's proof of itself (SMART App Launch 2.2, Client Authentication)."""
        basic = headers.get("authorization")
        if self.method == "public":
            return None if basic is None and form.get("client_id") == CLIENT else "not a public client"
        if "client_id" in form:
            return "a confidential client names itself in the form"
        if self.method == "symmetric":
            wanted = base64.b64encode(f"{quote(CLIENT, safe='')}:{quote(SECRET, safe='')}".encode()).decode()
            return None if basic == f"Basic {wanted}" else "not Basic with id and secret"
        if basic is not None or form.get("client_assertion_type") != (
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        ):
            return "no assertion"
        assert self.client_keys is not None
        keys = KeySet.import_key_set(self.client_keys())  # type: ignore[arg-type]
        try:
            said = jwt.decode(form["client_assertion"], keys, algorithms=["RS384", "ES384"])
        except Exception as error:  # noqa: BLE001
            return f"an assertion that does not verify: {type(error).__name__}"
        told, header, now = said.claims, said.header, time.time()
        right = told["iss"] == told["sub"] == CLIENT and told["aud"] == f"{self.root}/token"
        if not right or header.get("typ") != "JWT" or "kid" not in header or "jku" in header:
            return "an assertion of another client, for another server, or without kid and typ"
        if not now < told["exp"] <= now + 300 or told["jti"] in self.assertions:
            return "an assertion that is too long, or was used"
        self.assertions.add(told["jti"])
        return None

    def fhir(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        access = headers.get("authorization", "").removeprefix("Bearer ")
        if not access.startswith("access-") or access in self.unauthorized:
            return 401, {}
        if path in self.fhir_status:
            return self.fhir_status[path], {}
        kind, _, local = path.partition("/")
        if kind == "Practitioner":
            named = {
                "resourceType": kind,
                "id": local,
                "name": [{"family": "Osei", "given": ["Ama"], "prefix": ["Dr"]}],
            }
            return 200, self.practitioner or named
        if kind != "Patient":
            return 404, {}
        resource = {"resourceType": "Patient", "id": local, "birthDate": "1960-05-01", "gender": "female"}
        return 200, self.patients.get(local, resource)

    def paths(self, start: str = "") -> list[str]:
        """Paths that were asked for, in order."""
        return [each.path for each in self.asked if each.path.startswith(start)]


def _over(said: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**said, **changes}.items() if value is not None}


@contextmanager
def running(state: HostileEhr) -> Iterator[HostileEhr]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.asked.append(Asked("GET", path, headers))
            if path == "/fhir/.well-known/smart-configuration":
                if state.move_configuration_to is not None:
                    self.send_response(302)
                    self.send_header("Location", state.move_configuration_to)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                raw = state.raw_configuration
                self._give(state.configuration_status, raw if raw is not None else _json(state.described()))
            elif path == "/.well-known/openid-configuration":
                self._give(200, _json({"issuer": state.root, "jwks_uri": f"{state.root}/jwks"}))
            elif path == "/jwks":
                self._give(200, public_set(state.key))
            elif path == "/style.json":
                self._give(200, state.style)
            elif path == "/authorize":
                self.send_response(302)
                self.send_header("Location", state.authorize(f"{state.root}{self.path}"))
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path == "/chart":
                self._give(200, state.chart.encode(), "text/html")
            elif path.startswith("/fhir/"):
                status, body = state.fhir(path.removeprefix("/fhir/"), headers)
                self._give(status, _json(body), "application/fhir+json")
            else:
                self._give(404, b"{}")

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            form = {name: values[0] for name, values in parse_qs(raw).items()}
            state.asked.append(Asked("POST", urlsplit(self.path).path, headers, form))
            if self.path == "/authorize":
                self.send_response(303)
                self.send_header("Location", state.authorize(f"{state.root}/authorize?{raw}"))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if headers.get("content-type") != "application/x-www-form-urlencoded":
                state.problems.append("a token request that is no form")
            status, body = state.exchange(form, headers)
            self._give(status, _json(body))

        def _give(self, status: int, body: bytes, media_type: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    state.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.server.daemon_threads = True
    threading.Thread(target=state.server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        state.server.shutdown()
        state.server.server_close()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
