"""An EHR that signs: its key pairs, its tokens, and the HTTP server that gives its key set."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, Key, RSAKey

ISSUER = "https://ehr.example.org"


def signing_key(algorithm: str, kid: str) -> Key:
    parameters = {"kid": kid, "alg": algorithm, "use": "sig"}
    if algorithm.startswith("ES"):
        curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm]
        return ECKey.generate_key(curve, parameters=parameters)  # type: ignore[arg-type]
    return RSAKey.generate_key(2048, parameters=parameters)  # type: ignore[arg-type]


def public_set(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def claims(audience: Any, **changes: Any) -> dict[str, Any]:
    """As CDS Hooks asks for; a change to None leaves the claim out."""
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": audience, "iat": now, "exp": now + 300, "jti": str(uuid.uuid4()), **changes}
    return {name: value for name, value in whole.items() if value is not None}


def token(key: Key, audience: Any, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A signed token; `header` stands over `alg`, `kid` and `typ`."""
    named = {"alg": key.alg, "kid": key.kid, "typ": "JWT", **(header or {})}
    named = {name: value for name, value in named.items() if value is not None}
    body = json.dumps(claims(audience, **changes)).encode()
    registry = jws.JWSRegistry(algorithms=[str(named.get("alg"))], strict_check_header=False)
    return jws.serialize_compact(named, body, key, registry=registry)


@dataclass(slots=True)
class KeyServer:
    """`/jwks` gives what `body` holds; other paths misbehave in the way that they are named for."""

    body: bytes = b""
    status: int = 200
    slow: float = 0.0
    """Seconds before it answers."""
    asked: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    @property
    def base(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.base}/jwks"


@pytest.fixture
def key_servers() -> Iterator[Callable[[], KeyServer]]:
    """Makes key servers; each ends with its test."""
    made: list[KeyServer] = []

    def make() -> KeyServer:
        state = KeyServer()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state.asked.append(self.path)
                time.sleep(state.slow)
                moved = self.path == "/moved"
                self.send_response(302 if moved else state.status)
                if moved:
                    self.send_header("Location", state.url)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(state.body)))
                self.end_headers()
                self.wfile.write(state.body)

            def log_message(self, *_: object) -> None:
                pass

        state.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=state.server.serve_forever, daemon=True).start()
        made.append(state)
        return state

    yield make
    for state in made:
        assert state.server is not None
        state.server.shutdown()
        state.server.server_close()


@pytest.fixture
def key_server(key_servers: Callable[[], KeyServer]) -> KeyServer:
    return key_servers()
