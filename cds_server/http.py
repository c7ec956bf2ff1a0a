"""Builds every HTTP client: one door out, one library, no redirects followed, every wait bounded.

What leaves for a peer during a call goes through `Outbound`: only to URLs below those that the configuration names,
whatever a request or a peer's answer says.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from adapters.fhir_read import below
from models.errors import NotAllowed, PeerFailed

TIMEOUT = httpx.Timeout(10.0, connect=3.0)
POOL = httpx.Limits(max_connections=128, max_keepalive_connections=64, keepalive_expiry=30.0)
JSON_TYPES = ("application/fhir+json", "application/json", "application/jwk-set+json")


def client(
    base_url: str = "", *, timeout: httpx.Timeout = TIMEOUT, verify: ssl.SSLContext | bool = True
) -> httpx.AsyncClient:
    """An asynchronous client. It takes no proxy and no credentials from the environment."""
    return httpx.AsyncClient(
        base_url=base_url, timeout=timeout, follow_redirects=False, trust_env=False, limits=POOL, verify=verify
    )


def blocking_client(
    base_url: str = "", *, timeout: httpx.Timeout = TIMEOUT, verify: ssl.SSLContext | bool = True
) -> httpx.Client:
    """The same for commands."""
    return httpx.Client(base_url=base_url, timeout=timeout, follow_redirects=False, trust_env=False, verify=verify)


def fetch_now(url: str, *, seconds: float, limit: int, verify: ssl.SSLContext | bool = True) -> tuple[bytes, str]:
    """The body of a 200 answer, for commands, and what its server says the time is. Errors: PeerFailed."""
    try:
        with (
            blocking_client(timeout=httpx.Timeout(seconds), verify=verify) as once,
            once.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise PeerFailed(f"answered {answer.status_code}")
            body = b""
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > limit:
                    raise PeerFailed("answered with a body over the limit")
            return body, answer.headers.get("date", "")
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        raise PeerFailed(f"no answer: {type(error).__name__}") from None


def authorities(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Whom to believe about a peer's name: the public authorities, or those of a file (a hospital's own)."""
    return ssl.create_default_context(cafile=str(ca_file)) if ca_file else True


class Outbound:
    """Bodies of peers, by GET, through one pool of connections; the door of `adapters.fhir_read`.

    Nothing is opened before the first request. One object serves one event loop.
    """

    def __init__(self, allowed: Iterable[str], *, verify: ssl.SSLContext | bool = True) -> None:
        self._allowed = tuple(allowed)
        self._verify = verify
        self._client: httpx.AsyncClient | None = None

    async def get(self, url: str, headers: Mapping[str, str], *, limit: int) -> bytes:
        """The body of a 200 answer in JSON, of at most `limit` bytes.

        No compression is asked for and none is taken: what a body unpacks to cannot be bounded before it is unpacked.

        Errors: NotAllowed for a URL that no configured one covers (nothing was sent); PeerFailed, in our words.
        """
        return await self._send("GET", url, headers, limit)

    async def post_form(self, url: str, form: Mapping[str, str], client: tuple[str, str], *, limit: int) -> bytes:
        """The same for a form that a client of an OAuth server sends, with its id and secret (RFC 6749, 2.3.1)."""
        return await self._send("POST", url, {}, limit, data=form, auth=tuple(quote(each, safe="") for each in client))

    def allows(self, url: str) -> bool:
        return any(below(url, base) for base in self._allowed)

    async def _send(self, method: str, url: str, headers: Mapping[str, str], limit: int, **more: Any) -> bytes:
        if not self.allows(url):
            raise NotAllowed("this server asks only servers that its configuration names")
        asked = {**headers, "Accept-Encoding": "identity"}
        try:
            async with self._open().stream(method, url, headers=asked, **more) as answer:
                _check(answer, limit)
                return await _bounded(answer, limit)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise PeerFailed(f"no answer: {type(error).__name__}") from None

    async def aclose(self) -> None:
        if self._client is not None:
            opened, self._client = self._client, None
            await opened.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = client(verify=self._verify)
        return self._client


def _check(answer: httpx.Response, limit: int) -> None:
    if answer.status_code != 200:
        raise PeerFailed(f"answered {answer.status_code}")
    if answer.headers.get("content-type", "").partition(";")[0].strip().lower() not in JSON_TYPES:
        raise PeerFailed("answered with another media type than JSON")
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise PeerFailed("answered with a compressed body")
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise PeerFailed("answered with a body over the limit")


async def _bounded(answer: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise PeerFailed("answered with a body over the limit")
    await asyncio.sleep(0)  # a long body that came at once must not keep the loop
    return bytes(body)
