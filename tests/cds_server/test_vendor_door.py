"""The door to vendors: what it sends and to whom it connects, and what it makes of their bodies."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import ssl
import threading
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from cds_server import vendor_door as module
from cds_server.http import authorities, vendor_door
from cds_server.vendor_door import GRACE, GROWTH, STEP, HostRules, VendorDoor, VendorReply, unpacked
from models.errors import Misconfigured, NotAllowed, PeerFailed
from tests.peers.tls import in_front_of

BASE = "https://ehr.example.org/fhir"
T = TypeVar("T")


# ---- a server that answers as a test says ----------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Sends bytes of the test's choosing, whatever is asked; remembers the heads."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sends: Callable[[Handler], None] = Handler.ok
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.sends(self)

    do_GET = do_POST = do_DELETE = do_any

    def answer(self, body: bytes, *headers: tuple[str, str], status: int = 200, announced: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or announced is not None

    def ok(self) -> None:
        self.answer(b"fine")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def through(door: VendorDoor, use: Callable[[VendorDoor], Awaitable[T]]) -> T:
    async def run() -> T:
        try:
            return await use(door)
        finally:
            await door.aclose()

    return asyncio.run(run())


def get(door: VendorDoor, url: str, *, limit: int = 1 << 30, **asked: Any) -> tuple[VendorReply, bytes]:
    async def use(door: VendorDoor) -> tuple[VendorReply, bytes]:
        async with door.ask(asked.pop("method", "GET"), url, **asked) as reply:
            return reply, await reply.body(limit)

    return through(door, use)


def to(server: Server, **settings: Any) -> VendorDoor:
    return vendor_door(HostRules(server.url, **settings))


def test_an_exchange(server: Server) -> None:
    server.sends = lambda on: on.answer(b"{}", ("X-One", "1"), ("x-one", "2"), status=202)
    url = f"{server.url}/fhir/$export?_type=Patient;v=1"
    reply, body = get(to(server), url, method="POST", headers={"Accept": "a/b", "Host": "evil"}, content=b"asked")
    assert (reply.status, reply.url, body, reply.headers["x-one"]) == (202, url, b"{}", "1, 2")
    [(method, path, headers, sent)] = server.asked
    assert (method, path, sent) == ("POST", "/fhir/$export?_type=Patient;v=1", b"asked")
    assert headers == {
        "host": f"127.0.0.1:{server.server_port}",
        "accept": "a/b",
        "accept-encoding": "gzip, identity",
        "user-agent": "cds-server",
        "content-length": "5",
    }


def test_nothing_is_followed_and_nothing_is_kept_but_the_connection(server: Server) -> None:
    server.sends = lambda on: on.answer(b"", ("Location", "/there"), ("Set-Cookie", "a=b; Path=/"), status=307)

    async def twice(door: VendorDoor) -> list[int]:
        statuses = []
        for method in ("GET", "POST"):
            async with door.ask(method, server.url) as reply:
                statuses.append(reply.status)
                await reply.body(0)
        return statuses

    assert through(to(server), twice) == [307, 307]
    assert [(path, headers.get("cookie")) for _, path, headers, _ in server.asked] == [("/", None)] * 2
    assert server.asked[1][2]["content-length"] == "0"
    assert server.connections == 1


def test_what_is_refused_is_never_sent(server: Server) -> None:
    with pytest.raises(NotAllowed, match="not on a host that the configuration names"):
        get(to(server), f"http://localhost:{server.server_port}/")
    assert server.asked == []
    assert server.connections == 0


def resolver(*answers: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    given = iter(answers)

    async def look_up(host: str, port: int) -> Sequence[str]:
        return next(given)

    return look_up


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(server: Server) -> None:
    rules = HostRules(server.url, hosts=(f"ehr.example.org:{server.server_port}",), plain_http=("ehr.example.org",))
    door = vendor_door(rules, look_up=resolver(["127.0.0.1"]))  # a second question would find no answer left
    assert get(door, f"http://ehr.example.org:{server.server_port}/")[1] == b"fine"
    assert server.asked[0][2]["host"] == f"ehr.example.org:{server.server_port}"


@pytest.mark.parametrize("addresses", [["10.0.0.5"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"], ["::ffff:8.8.8.8"]])
def test_a_name_that_leads_inside_is_refused_before_a_connection(addresses: list[str]) -> None:
    with pytest.raises(NotAllowed, match="host leads to an address"):
        get(vendor_door(HostRules(BASE), look_up=resolver(addresses)), BASE)


def test_the_system_s_resolver_is_asked(server: Server) -> None:
    url = f"http://localhost:{server.server_port}/"
    assert get(vendor_door(HostRules(url)), url)[1] == b"fine"
    inside = HostRules(BASE, hosts=(f"localhost:{server.server_port}",))
    with pytest.raises(NotAllowed, match="host leads to an address"):
        get(vendor_door(inside), url)
    assert len(server.asked) == 1


def test_a_name_that_does_not_exist_or_is_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("ehr.example.org")

    async def forever(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(3600)
        return []

    monkeypatch.setitem(vendor_door.__globals__["VENDOR_TIMEOUT"], "connect", 0.01)
    for look_up, reason in (
        (unknown, "no connection"),
        (resolver([]), "no connection"),
        (forever, "no connection in time"),
    ):
        with pytest.raises(PeerFailed) as failed:
            get(vendor_door(HostRules(BASE), look_up=look_up), BASE)
        assert failed.value.what == reason


def test_the_next_address_is_tried_where_one_does_not_answer(server: Server) -> None:
    url = f"http://localhost:{server.server_port}/"
    assert get(vendor_door(HostRules(url), look_up=resolver(["::1", "127.0.0.1"])), url)[1] == b"fine"


# ---- TLS, proxies ----------------------------------------------------------------------------------------------------


def test_a_bundle_says_whom_to_believe(server: Server, tmp_path: Path) -> None:
    with in_front_of(server.server_port, tmp_path) as front:
        rules = HostRules(front.url)
        assert get(vendor_door(rules, verify=authorities(front.authority)), front.url)[1] == b"fine"
        for unbelieving in (True, False):
            with pytest.raises(PeerFailed, match=r"^its certificate is not one that is believed here$"):
                get(vendor_door(rules, verify=unbelieving), front.url)
        other = HostRules(front.url, hosts=(front.url.replace("https://127.0.0.1", "ehr.example.org"),))
        with pytest.raises(PeerFailed, match=r"^its certificate"):  # of another name
            get(
                vendor_door(other, verify=authorities(front.authority), look_up=resolver(["127.0.0.1"])),
                front.url.replace("127.0.0.1", "ehr.example.org"),
            )
    assert len(server.asked) == 1


def test_a_proxy_is_the_operator_s_and_looks_names_up_itself(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    rules = HostRules("http://ehr.example.org/fhir", hosts=("10.0.0.5",), plain_http=("ehr.example.org",))
    through_it = f"http://us%65r:pa%40ss@127.0.0.1:{server.server_port}"
    door = vendor_door(rules, proxy=through_it, look_up=resolver())
    assert get(door, "http://ehr.example.org/fhir/metadata?a=b")[1] == b"fine"
    [(_, path, headers, _)] = server.asked
    assert path == "http://ehr.example.org:80/fhir/metadata?a=b"
    assert headers["proxy-authorization"] == "Basic dXNlcjpwYUBzcw=="
    with pytest.raises(NotAllowed):
        get(vendor_door(rules, proxy=through_it), "https://10.0.0.5/")
    assert get(to(server), server.url)[1] == b"fine"  # past the environment's


def test_a_proxy_that_refuses(server: Server) -> None:
    """http.server knows no CONNECT, and answers 501."""
    with pytest.raises(PeerFailed, match=r"^the proxy refused to connect to it$"):
        get(vendor_door(HostRules(BASE), proxy=server.url), BASE)


@pytest.mark.parametrize(
    "url", ["secret", "http://secret", "socks5://secret:1", "http://u:secret@h:x", "http://h:1/secret"]
)
def test_a_proxy_that_cannot_be_read_is_not_printed(url: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        vendor_door(HostRules(BASE), proxy=url)
    assert "secret" not in str(wrong.value)


def test_nothing_of_a_url_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    get(to(server), f"{server.url}/file?signature=hidden", headers={"Authorization": "Bearer hidden"})
    assert "hidden" not in caplog.text


def test_respx_stands_in_for_a_vendor() -> None:
    with respx.mock:
        route = respx.get(f"{BASE}/metadata", params={"a": "b"}).respond(200, json={"a": 1}, headers={"Date": "now"})
        reply, body = get(vendor_door(HostRules(BASE)), f"{BASE}/metadata?a=b", headers={"Authorization": "Bearer t"})
    assert (reply.status, reply.headers["date"], body) == (200, "now", b'{"a":1}')
    assert route.calls[0].request.headers["authorization"] == "Bearer t"


# ---- bodies ----------------------------------------------------------------------------------------------------------

FILE = b"".join(b'{"resourceType":"Patient","id":"%d"}\n' % number for number in range(50_000))


def sends(body: bytes, coding: str | None = "gzip", **more: Any) -> Callable[[Handler], None]:
    headers = [("Content-Encoding", coding)] if coding is not None else []
    return lambda on: on.answer(body, *headers, **more)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (FILE, None),
        (FILE, "identity"),
        (gzip.compress(FILE), "gzip"),
        (gzip.compress(FILE), " X-GZIP "),
        (gzip.compress(FILE[:999]) + gzip.compress(b"") + gzip.compress(FILE[999:]), "gzip"),
    ],
)
def test_a_body_comes_unpacked(server: Server, body: bytes, coding: str | None) -> None:
    server.sends = sends(body, coding)
    assert get(to(server), server.url)[1] == FILE


def test_an_empty_body_is_packed_into_nothing(server: Server) -> None:
    server.sends = sends(b"")
    assert get(to(server), server.url)[1] == b""


@pytest.mark.parametrize(
    ("sending", "reason"),
    [
        (sends(FILE, None, announced=len(FILE) + 1), "the exchange was broken off"),
        (sends(gzip.compress(FILE), announced=10**7), "the exchange was broken off"),
        (sends(gzip.compress(FILE)[:-9]), "answered with gzip that ends before its end"),
        (sends(gzip.compress(FILE)[:-8] + b"\0" * 8), "answered with damaged gzip"),
        (sends(FILE), "answered with damaged gzip"),
        (sends(gzip.compress(FILE) + b"more"), "answered with damaged gzip"),
        (sends(zlib.compress(FILE), "deflate"), "answered in a content coding that was not asked for"),
        (
            sends(gzip.compress(gzip.compress(FILE)), "gzip, gzip"),
            "answered in a content coding that was not asked for",
        ),
        (sends(gzip.compress(b"\0" * 10**8)), "answered with gzip that grows beyond any honest packing"),
        (lambda on: on.wfile.write(b"hello\r\n\r\n"), "the exchange was broken off"),
        (lambda on: setattr(on, "close_connection", True), "the exchange was broken off"),
    ],
)
def test_what_is_no_whole_body_is_the_vendor_s_failure(
    server: Server, sending: Callable[[Handler], None], reason: str
) -> None:
    server.sends = sending
    with pytest.raises(PeerFailed) as failed:
        get(to(server), f"{server.url}/?secret")
    assert failed.value.what == reason


def test_a_body_has_a_limit(server: Server) -> None:
    server.sends = sends(gzip.compress(FILE))
    assert len(get(to(server), server.url, limit=len(FILE))[1]) == len(FILE)
    with pytest.raises(PeerFailed, match="over the limit"):
        get(to(server), server.url, limit=len(FILE) - 1)


def test_a_server_that_stops_in_the_middle(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def half(on: Handler) -> None:
        on.send_response(200)
        on.send_header("Content-Length", "100")
        on.end_headers()
        on.wfile.write(b"half")
        on.wfile.flush()
        stop.wait(20)

    monkeypatch.setitem(vendor_door.__globals__["VENDOR_TIMEOUT"], "read", 0.05)
    server.sends = half
    with pytest.raises(PeerFailed, match=r"^it stopped answering$"):
        get(to(server), server.url)
    stop.set()


def test_a_head_or_a_body_that_trickles_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def trickle(on: Handler) -> None:
        if on.path == "/body":
            on.send_response(200)
            on.end_headers()
        while not stop.wait(0.01):
            on.wfile.write(b"H" if on.path == "/head" else b"x")

    server.sends = trickle
    monkeypatch.setitem(vendor_door.__globals__, "HEAD_SECONDS", 0.1)
    with pytest.raises(PeerFailed, match=r"^it stopped answering$"):
        get(to(server), f"{server.url}/head")
    monkeypatch.setitem(vendor_door.__globals__, "HEAD_SECONDS", 60)
    monkeypatch.setattr(module, "BODY_SECONDS", 0.1)
    with pytest.raises(PeerFailed, match=r"^answered too slowly$"):
        get(to(server), f"{server.url}/body")
    stop.set()


async def _in_steps(packed: bytes, step: int) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(packed), step):
        yield packed[at : at + step]


def test_unpacking_holds_one_step_at_a_time_and_tells_a_bomb_early() -> None:
    async def run(packed: bytes) -> tuple[int, int]:
        whole = longest = 0
        try:
            async for piece in unpacked(_in_steps(packed, 1 << 16)):
                whole, longest = whole + len(piece), max(longest, len(piece))
        except PeerFailed:
            return whole, longest
        return whole, longest

    packed = gzip.compress(b"\0" * (64 << 20))
    whole, longest = asyncio.run(run(packed))
    assert whole <= GROWTH * len(packed) + GRACE
    assert longest <= STEP
    assert asyncio.run(run(gzip.compress(b'{"resourceType":"Patient"}\n' * 2_000_000)))[0] == 27 * 2_000_000


@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 50))
def test_unpacking_does_not_care_where_pieces_end(members: list[bytes], step: int) -> None:
    async def run() -> bytes:
        return b"".join([piece async for piece in unpacked(_in_steps(b"".join(map(gzip.compress, members)), step))])

    assert asyncio.run(run()) == b"".join(members)


def test_what_packs_badly_comes_through() -> None:
    noise = os.urandom(3 << 20)

    async def run() -> bytes:
        return b"".join([piece async for piece in unpacked(_in_steps(gzip.compress(noise), 1 << 16))])

    assert asyncio.run(run()) == noise


def test_the_context_given_is_the_one_used() -> None:
    """A hospital's own bundle replaces the public authorities."""
    assert isinstance(authorities(None), bool)
    assert vendor_door(HostRules(BASE), verify=ssl.create_default_context()).refuses(BASE) is None
