"""Around every door: the request's id, one line in the log, and which pages may call.

    Requests   outermost: `X-Request-ID` in, out, and in every line that is logged meanwhile; one line a request
    Cors       answers browsers for the CDS Hooks doors, by an allow-list of origins (CDS Hooks 2.0.1, CORS)

Plain ASGI: both stand on the measured path.
"""

from __future__ import annotations

import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cds_server.logs import REQUEST_ID, log

HEADER = b"x-request-id"
DOORS = "/cds-services"
PREFLIGHT_SECONDS = 600
_GIVEN = re.compile(
    rb"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-7][0-9A-HJKMNP-TV-Z]{25}"
)
"""What we repeat of a client's id: 32 hex digits, a UUID, a ULID. Anything else could be a name or a record number, and
gets one of ours."""


class Requests:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = _name(scope)
        token = REQUEST_ID.set(name.decode())
        began, status = time.perf_counter(), 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, name)]
            await send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            ms = round((time.perf_counter() - began) * 1000, 1)
            service = scope.get("path_params", {}).get("service") if status != 404 else None
            log().info("request answered", method=scope["method"], status=status, ms=ms, service=service)
            REQUEST_ID.reset(token)


def _name(scope: Scope) -> bytes:
    given = [value for name, value in scope["headers"] if name == HEADER]
    return given[0] if len(given) == 1 and _GIVEN.fullmatch(given[0]) else secrets.token_hex(16).encode()


class Cors:
    """Fetch standard, CORS protocol: no credentials, no wildcard, no reflection of an origin that is not listed."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        self.app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(DOORS):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        allowed = origin if origin in self._origins else None
        if scope["method"] == "OPTIONS" and origin and b"access-control-request-method" in headers:
            await _preflight(allowed, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_answer_headers(allowed)]
            await send(message)

        await self.app(scope, receive, told)


async def _preflight(allowed: bytes | None, send: Send) -> None:
    headers = _answer_headers(allowed)
    if allowed:
        headers += [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
            (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
        ]
    await send({"type": "http.response.start", "status": 204 if allowed else 403, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _answer_headers(allowed: bytes | None) -> list[tuple[bytes, bytes]]:
    vary = [(b"vary", b"Origin")]  # a cache must not give one origin's answer to another
    if allowed is None:
        return vary
    exposed = b"X-Request-ID, CDS-Ledger-Seq, Retry-After"
    return [*vary, (b"access-control-allow-origin", allowed), (b"access-control-expose-headers", exposed)]
