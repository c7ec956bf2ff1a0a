"""One EHR's hosts over HTTP: its FHIR server, its authorization server, its style sheets; and no others.

Connections are made to addresses that were checked against the registration, certificates are always checked, no
redirect is followed, no cookie is kept, and every wait has an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

from cds_server.http import JSON_TYPES, vendor_door
from cds_server.vendor_door import HostRules
from models import strict
from models.errors import BadInput, PeerFailed
from smart_app.granted import Refused
from smart_app.registered import Registered

SECONDS = 10.0
"""For one exchange, its name looked up and its body read."""
MAX_TOKEN_ANSWER = 256 * 1024
_CODES = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
"""RFC 6749, 5.2. Any other code is the server's own text, and stays out of our messages."""
_LATER = frozenset((408, 425, 429))


class Answered(PeerFailed):
    """It answered, and not with what was asked for."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered {status}")
        self.answered = status


class EhrDoor:
    """`smart_app.ports.Door`, and the token endpoint. One event loop."""

    def __init__(self, app: Registered, *, verify: ssl.SSLContext | bool = True) -> None:
        self._door = vendor_door(
            HostRules(app.base, hosts=app.hosts, private_network=app.private_network), verify=verify
        )
        self._styles = vendor_door(
            HostRules(app.base, hosts=app.style_hosts, private_network=app.private_network), verify=verify
        )

    async def aclose(self) -> None:
        await self._door.aclose()
        await self._styles.aclose()

    def refuses(self, url: str) -> str | None:
        return self._door.refuses(url)

    async def get(self, url: str, headers: Mapping[str, str], *, limit: int) -> bytes:
        """Errors: NotAllowed (nothing was sent), Answered (another status than 200), PeerFailed."""
        async with _in_time(), self._door.ask("GET", url, headers=headers) as reply:
            if reply.status != 200:
                raise Answered(reply.status)
            _check_json(reply.headers)
            return await reply.body(limit)

    async def style(self, url: str) -> Any:
        """A style document, asked without any token; None for anything else than JSON. Errors: as `get`."""
        async with _in_time(), self._styles.ask("GET", url, headers={"Accept": "application/json"}) as reply:
            if reply.status != 200:
                raise Answered(reply.status)
            raw = await reply.body(64 * 1024)
        try:
            return strict.loads(raw, what="the style")
        except BadInput:
            return None

    async def tokens(self, url: str, form: Mapping[str, str], authorization: str | None) -> Mapping[str, Any]:
        """What the token endpoint answers to a form. Errors: Refused (it said no), PeerFailed, NotAllowed."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        async with (
            _in_time(),
            self._door.ask("POST", url, headers=headers, content=urlencode(form).encode("ascii")) as reply,
        ):
            status = reply.status
            body = await reply.body(MAX_TOKEN_ANSWER) if status == 200 or 400 <= status < 500 else b""
        if status == 200:
            return _object(body)
        if 400 <= status < 500 and status not in _LATER:
            said = _code(body)
            raise Refused(f"no token: {said}" if said else f"no token: answered {status}", said=said)
        raise Answered(status)


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SECONDS):
            yield
    except TimeoutError:
        raise PeerFailed("it did not answer in time") from None


def _check_json(headers: Mapping[str, str]) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() not in JSON_TYPES:
        raise PeerFailed("answered with another media type than JSON")


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = strict.loads(body, what="the token endpoint's answer")
    except BadInput:
        answer = None
    if not isinstance(answer, dict):
        raise PeerFailed("the token endpoint's answer cannot be read")
    return answer


def _code(body: bytes) -> str | None:
    try:
        code = _object(body).get("error")
    except PeerFailed:
        return None
    return code if isinstance(code, str) and code in _CODES else None
