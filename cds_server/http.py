"""Builds every HTTP client: one door out, one library, no redirects followed, every wait bounded.

What leaves for a peer during a call goes through `Outbound`: only to URLs below those that the configuration names,
whatever a request or a peer's answer says.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpcore
import httpx

from adapters.fhir_read import below
from cds_server.vendor_door import HostRules, Place, VendorDoor
from models.errors import Misconfigured, NotAllowed, PeerFailed

TIMEOUT = httpx.Timeout(10.0, connect=3.0)
POOL = httpx.Limits(max_connections=128, max_keepalive_connections=64, keepalive_expiry=30.0)
VENDOR_TIMEOUT = {"connect": 5.0, "read": 60.0, "write": 60.0, "pool": 60.0}
HEAD_SECONDS = 120
"""Until the head of a vendor's answer is there: a byte a minute is no answer."""
MOST_ADDRESSES = 4
"""Of one name that are tried."""
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


def post_now(
    url: str,
    body: bytes,
    *,
    seconds: float,
    limit: int,
    verify: ssl.SSLContext | bool = True,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str, bytes]:
    """Status, media type and body of an answer, within these seconds in all. Errors: PeerFailed."""
    end = time.monotonic() + seconds
    try:
        with (
            blocking_client(timeout=httpx.Timeout(seconds), verify=verify) as once,
            once.stream(
                "POST", url, content=body, headers={"Accept-Encoding": "identity", **(headers or {})}
            ) as answer,
        ):
            given = b""
            for chunk in answer.iter_raw():
                given += chunk
                if len(given) > limit:
                    raise PeerFailed("answered with a body over the limit")
                if time.monotonic() > end:
                    raise PeerFailed("it did not finish its answer")
            return answer.status_code, answer.headers.get("content-type", ""), given
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


# ---- the door to vendors ---------------------------------------------------------------------------------------------

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]


def vendor_door(
    hosts: HostRules,
    *,
    verify: ssl.SSLContext | bool = True,
    proxy: str | None = None,
    look_up: LookUp | None = None,
) -> VendorDoor:
    """The door of one source. `look_up` stands in for the system's resolver.

    `proxy`: `http://host:port`, with a name and a password where it wants them; the environment is not asked. Names are
    looked up by the proxy then; what the URL itself says is checked as ever. Certificates are always checked: by
    `verify` where it is a context, else by the public authorities.

    It stands on httpcore, which is under httpx: there a connection can be made to the very address that was checked
    (a second look-up could give another one), no cookie is kept, and no URL is written to a log.

    Errors: Misconfigured (the proxy's URL cannot be read; it is not printed).
    """
    context = verify if isinstance(verify, ssl.SSLContext) else httpx.create_ssl_context(trust_env=False)
    pool = httpcore.AsyncConnectionPool(
        ssl_context=context,
        proxy=_proxy(proxy) if proxy else None,
        max_connections=16,
        max_keepalive_connections=8,
        keepalive_expiry=30.0,
        network_backend=None if proxy else _Checked(hosts, look_up or _look_up),
    )

    @contextlib.asynccontextmanager
    async def send(
        method: str, at: Place, headers: Mapping[str, str], content: bytes | None
    ) -> AsyncIterator[_VendorAnswer]:
        with _in_our_words():
            url = httpcore.URL(scheme=at.scheme, host=at.host, port=at.port, target=at.target)
            request = httpcore.Request(
                method, url, headers=list(headers.items()), content=content, extensions={"timeout": VENDOR_TIMEOUT}
            )
            async with asyncio.timeout(HEAD_SECONDS):
                answer = await pool.handle_async_request(request)
        try:
            yield _VendorAnswer(answer)
        finally:
            with contextlib.suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                await answer.aclose()

    return VendorDoor(hosts, send, pool.aclose)


def _proxy(url: str) -> httpcore.Proxy:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
        raise Misconfigured("proxy: its URL is http://host:port")
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return httpcore.Proxy(httpcore.URL(scheme=parts.scheme, host=host, port=port, target="/"), auth=auth)


class _VendorAnswer:
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = answer.headers

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        with _in_our_words():
            async for piece in self._answer.aiter_stream():
                yield piece


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to an address that the rules allow, and to no other that the name may lead to a moment later."""

    def __init__(self, rules: HostRules, look_up: LookUp) -> None:
        self._rules = rules
        self._look_up = look_up
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the signature is httpcore's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = (await self._look_up(host, port))[:MOST_ADDRESSES]
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name") from None
        except OSError:
            raise httpcore.ConnectError("the name") from None
        if not all(self._rules.may_reach(host, ipaddress.ip_address(each)) for each in addresses):
            raise NotAllowed("the URL's host leads to an address that the configuration does not let this server reach")
        failed: Exception = httpcore.ConnectError("the name")
        for address in addresses:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _look_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except (httpcore.ConnectTimeout, httpcore.ConnectError) as error:
        raise PeerFailed(_why_no_connection(error)) from None
    except httpcore.PoolTimeout:
        raise PeerFailed("too many exchanges with it at once") from None
    except (httpcore.TimeoutException, TimeoutError):
        raise PeerFailed("it stopped answering") from None
    except httpcore.ProxyError:
        raise PeerFailed("the proxy refused to connect to it") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
        raise PeerFailed("the exchange was broken off") from None
    except httpcore.UnsupportedProtocol:
        raise PeerFailed("it cannot be asked") from None


def _why_no_connection(error: BaseException | None) -> str:
    timed_out = isinstance(error, httpcore.ConnectTimeout)
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return "its certificate is not one that is believed here"
        if isinstance(error, ssl.SSLError):
            return "no TLS connection could be agreed on"
        error = error.__cause__ or error.__context__
    return "no connection in time" if timed_out else "no connection"
