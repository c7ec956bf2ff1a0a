"""The way out to a vendor's server: which hosts may be asked, what their names may lead to, how their bodies unpack.

A bulk server names URLs of its own choosing: of its status, of its files, of the next page. Each is held against what
the operator wrote down before anything is sent, and so is the address that its name leads to, before a connection is
made. `cds_server.http.vendor_door` builds the door; here is nothing that talks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from models.errors import Misconfigured, NotAllowed, PeerFailed

GROWTH, GRACE = 500, 1 << 20
"""A gzip body may unpack to 500 times what came, and a MiB. zlib reaches 1,032 on zeros; one and the same resource over
and over packs 260 times, resources that differ in their ids alone 80 times (measured)."""
STEP = 1 << 18
"""Bytes that are unpacked at once, between two looks of the event loop at everything else."""
BODY_SECONDS = 300
"""For a body that is read whole."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"https": 443, "http": 80}
_FOREIGN = re.compile(r"[\s\\<>\"^`{}#\x00-\x1f\x7f]")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\Z")
_ALMOST_AN_ADDRESS = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\Z")
"""A last label that is a number: some resolvers read 127.1, 0x7f.1 and 2130706433 as addresses (inet_aton)."""
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


# ---- which URL -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where an absolute URL leads."""

    scheme: str
    host: str
    """In lower case; an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query, as a request line has them."""

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def place(url: str) -> Place:
    """Errors: NotAllowed, for what is no absolute http(s) URL, or what two programs may read differently (RFC 3986)."""
    if not url.isascii() or _FOREIGN.search(url):
        raise NotAllowed("the URL has a fragment or signs that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotAllowed("the URL cannot be read") from None
    if parts.scheme not in _PORTS:
        raise NotAllowed("the URL is not one of http or https")
    if "@" in parts.netloc:
        raise NotAllowed("the URL names a user")
    host = (parts.hostname or "").lower()
    if port == 0 or parts.netloc.endswith(":") or not _is_host(host):
        raise NotAllowed("the URL names no host that can be asked")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, host, port or _PORTS[parts.scheme], target)


def _is_host(host: str) -> bool:
    if _literal(host) is not None:
        return "%" not in host
    return bool(_NAME.match(host)) and not _ALMOST_AN_ADDRESS.search(host)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One entry of the list: a host, or with `wild` whatever stands below it."""

    host: str
    port: int | None
    """None: the scheme's own."""
    wild: bool = False

    def covers(self, at: Place) -> bool:
        named = at.host.endswith("." + self.host) if self.wild else at.host == self.host
        return named and at.port == (self.port or _PORTS[at.scheme])


def _pattern(entry: str, *, setting: str, wild_too: bool) -> _Pattern:
    wild = entry.startswith("*.")
    try:
        at = place(f"https://{entry[2:] if wild else entry}")
        stated = urlsplit(f"//{entry}").port
    except (NotAllowed, ValueError):
        at, stated = None, None
    if at is None or at.target != "/" or entry.endswith("/") or "?" in entry:
        raise Misconfigured(f"{setting}: an entry is a host, a host with a port, or *. and a domain")
    if wild and (not wild_too or "." not in at.host or _literal(at.host) is not None):
        raise Misconfigured(f"{setting}: a pattern is *. and a domain of at least two labels, where patterns are taken")
    return _Pattern(at.host, stated, wild)


@dataclass(frozen=True, slots=True)
class HostRules:
    """Whom one source may ask. Checked at birth: Misconfigured, also where the base itself would be refused.

    A private address (RFC 1918, 4193, 6598) is reached with `private_network` only, a loopback one only where the base
    itself is loopback; neither by a name that only a pattern covers. Link-local (where clouds keep their keys),
    multicast, unspecified and reserved addresses, and those that hide an IPv4 address, are never reached.
    """

    base: str
    """The server's URL; its own host and port are always on the list."""
    hosts: tuple[str, ...] = ()
    """Who else: `files.example.org`, `files.example.org:8443`, `*.storage.example.org`. No port: the scheme's own."""
    plain_http: tuple[str, ...] = ()
    """Hosts that may be asked without TLS; loopback always may."""
    private_network: bool = False

    def __post_init__(self) -> None:
        _ = self._patterns(), self._plain()
        if reason := self.refuses(self.base):
            raise Misconfigured(f"the base URL: {reason}")

    def refuses(self, url: str) -> str | None:
        """Why this URL is not asked, in our words; None where it is. No name is looked up."""
        try:
            at = place(url)
        except NotAllowed as error:
            return error.what
        if not any(each.covers(at) for each in self._patterns()):
            return "the URL is not on a host that the configuration names"
        literal = _literal(at.host)
        if literal is not None and not self.may_reach(at.host, literal):
            return "the URL names an address that the configuration does not let this server reach"
        if at.scheme == "http" and not _is_loopback(at.host) and not self._may_be_plain(at):
            return "the URL is without TLS, and plain_http does not name its host"
        return None

    def may_reach(self, host: str, address: Address) -> bool:
        """Whether a host that is on the list may be talked to at this address."""
        kind = _kind(address)
        if kind == "public":
            return True
        if not any(each.host == host for each in self._patterns() if not each.wild):
            return False
        return self.private_network if kind == "private" else kind == "loopback" and _is_loopback(self._base().host)

    def _patterns(self) -> list[_Pattern]:
        at = self._base()
        return [
            _Pattern(at.host, at.port),
            *(_pattern(each, setting="hosts", wild_too=True) for each in self.hosts),
        ]

    def _plain(self) -> list[_Pattern]:
        return [_pattern(each, setting="plain_http", wild_too=False) for each in self.plain_http]

    def _may_be_plain(self, at: Place) -> bool:
        return any(each.host == at.host and each.port in (None, at.port) for each in self._plain())

    def _base(self) -> Place:
        try:
            return place(self.base)
        except NotAllowed as error:
            raise Misconfigured(f"the base URL: {error.what}") from None


def _is_loopback(host: str) -> bool:
    literal = _literal(host)
    return host == "localhost" or (literal is not None and _kind(literal) == "loopback")


def _kind(address: Address) -> str:
    """public, private, loopback or never."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:  # how an IPv6-only network reaches an IPv4 address (RFC 6052)
            return _kind(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped or address.sixtofour or address.teredo or address.is_site_local:
            return "never"
    if address.is_loopback:
        return "loopback"
    if address.is_multicast or address.is_unspecified or address.is_link_local or address.is_reserved:
        return "never"
    if any(address in network for network in _PRIVATE if network.version == address.version):
        return "private"
    return "public" if address.is_global else "never"


# ---- one exchange ----------------------------------------------------------------------------------------------------


class Answer(Protocol):
    """What came, as `cds_server.http` hands it over."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]: ...

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it came over the wire. Errors: PeerFailed."""


Send = Callable[[str, Place, Mapping[str, str], bytes | None], AbstractAsyncContextManager[Answer]]


class VendorDoor:
    """`adapters.peer.Door` under an operator's rules. Connections are kept and used again; one event loop each."""

    def __init__(self, rules: HostRules, send: Send, close: Callable[[], Awaitable[None]]) -> None:
        self._rules = rules
        self._send = send
        self.aclose = close

    def refuses(self, url: str) -> str | None:
        return self._rules.refuses(url)

    @asynccontextmanager
    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> AsyncIterator[VendorReply]:
        """Errors: NotAllowed, where the rules refuse the URL or what its name leads to; PeerFailed."""
        if reason := self.refuses(url):
            raise NotAllowed(reason)
        at = place(url)
        ours = {"host": at.netloc, "accept-encoding": "gzip, identity", "user-agent": "cds-server"}
        if content is not None or method in ("POST", "PUT", "PATCH"):  # RFC 9110, 8.6: said even where it is 0
            ours["content-length"] = str(len(content or b""))
        asked = {name.lower(): value for name, value in (headers or {}).items()}
        packed = asked.get("accept-encoding")  # who asks for objects that pack well, and may be honest, wants none
        asked |= ours if packed is None else {**ours, "accept-encoding": packed}
        async with self._send(method, at, asked, content) as answer:
            yield VendorReply(url, answer)


class VendorReply:
    """`adapters.peer.Reply`."""

    def __init__(self, url: str, answer: Answer) -> None:
        self._answer = answer
        self.url = url
        self.status = answer.status
        self.headers: Mapping[str, str] = _joined(answer.headers)

    async def body(self, limit: int) -> bytes:
        whole = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS), aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    whole += chunk
                    if len(whole) > limit:
                        raise PeerFailed("answered with a body over the limit")
        except TimeoutError:
            raise PeerFailed("answered too slowly") from None
        return bytes(whole)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        coding = self.headers.get("content-encoding", "").strip().lower() or "identity"
        if coding not in ("identity", "gzip", "x-gzip"):
            raise PeerFailed("answered in a content coding that was not asked for")
        pieces = self._answer.pieces()
        async with aclosing(pieces if coding == "identity" else unpacked(pieces)) as plain:
            async for piece in plain:
                yield piece


def _joined(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


async def unpacked(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """gzip (RFC 1952, one member or several) in steps of at most 256 KiB.

    Errors: PeerFailed, for a damaged or unfinished body, and for one that grows past `GROWTH` times itself.
    """
    packed = grown = 0
    member = zlib.decompressobj(wbits=31)
    async for piece in pieces:
        packed += len(piece)
        while True:
            if member.eof and piece:
                member = zlib.decompressobj(wbits=31)
            try:
                plain = member.decompress(piece, STEP)
            except zlib.error:
                raise PeerFailed("answered with damaged gzip") from None
            piece = member.unused_data if member.eof else member.unconsumed_tail
            grown += len(plain)
            if grown > GROWTH * packed + GRACE:
                raise PeerFailed("answered with gzip that grows beyond any honest packing")
            if plain:
                yield plain
                await asyncio.sleep(0)
            if not piece and (member.eof or len(plain) < STEP):  # what is held back comes out without more input
                break
    if packed and not member.eof:
        raise PeerFailed("answered with gzip that ends before its end")
