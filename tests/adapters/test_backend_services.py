"""SMART Backend Services against a door that plays the server: what is sent, what is believed, when it is renewed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from adapters.backend_services import (
    ASSERTION_TYPE,
    MAX_ANSWER,
    RESTRICTED,
    BackendServices,
    TokenRefused,
    discover,
    missing,
    scopes_for,
)
from models.errors import Misconfigured, PeerFailed

BASE = "https://fhir.example.org/r4/tenant"
TOKEN_URL = "https://auth.example.org/token"  # noqa: S105 (a place)
SECRET = "words of the server that nobody may see"  # noqa: S105


@dataclass(slots=True)
class Said:
    """An answer (`adapters.peer.Reply`)."""

    status: int
    raw: bytes
    url: str = TOKEN_URL
    headers: Mapping[str, str] = field(default_factory=dict)

    async def body(self, limit: int) -> bytes:
        if len(self.raw) > limit:
            raise PeerFailed("over the limit")
        return self.raw

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.raw


Answer = Callable[[int], Said]


class Played:
    """A server that answers by a function of how often it was asked; keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    @asynccontextmanager
    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> AsyncIterator[Said]:
        self.asked.append((method, url, headers or {}, content or b""))
        await asyncio.sleep(0)
        yield self.answer(len(self.asked))

    def refuses(self, url: str) -> str | None:
        return None

    @property
    def forms(self) -> list[dict[str, list[str]]]:
        return [parse_qs(content.decode("ascii"), strict_parsing=True) for _, _, _, content in self.asked]

    @property
    def claims(self) -> list[dict[str, Any]]:
        return [json.loads(form["client_assertion"][0].partition(":")[2]) for form in self.forms]


@dataclass(slots=True)
class Signs:
    """Writes the claims down behind the algorithm, where a real one would sign them."""

    has: Sequence[str] = ("RS384", "ES384")

    def algorithms(self) -> Sequence[str]:
        return self.has

    def sign(self, claims: Mapping[str, Any], algorithm: str) -> str:
        return f"{algorithm}:{json.dumps(dict(claims))}"


@dataclass(slots=True)
class Watch:
    at: datetime = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def granting(**changes: Any) -> Answer:
    """Tokens t1, t2, …; a change to None leaves a member out."""

    def answer(count: int) -> Said:
        told = {"access_token": f"t{count}", "token_type": "bearer", "expires_in": 300, **changes}
        return Said(200, json.dumps({name: value for name, value in told.items() if value is not None}).encode())

    return answer


def services(answer: Answer, **more: Any) -> tuple[BackendServices, Played, Watch]:
    door, watch = Played(answer), Watch()
    signer = more.pop("signer", Signs())
    stated = {"token_url": TOKEN_URL, "client_id": "cds & co", "scopes": ("system/Patient.rs", "system/Observation.rs")}
    return BackendServices(door, signer, watch, **{**stated, **more}), door, watch


# ---- what is sent ----------------------------------------------------------------------------------------------------


def test_the_request_is_what_the_standard_asks_for() -> None:
    client, door, watch = services(granting())
    assert asyncio.run(client.token()) == "t1"
    ((method, url, headers, content),) = door.asked
    assert (method, url) == ("POST", TOKEN_URL)
    assert headers == {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    (form,) = door.forms
    assert {name: form[name] for name in ("grant_type", "scope", "client_assertion_type")} == {
        "grant_type": ["client_credentials"],
        "scope": ["system/Patient.rs system/Observation.rs"],
        "client_assertion_type": [ASSERTION_TYPE],
    }
    assert set(form) == {"grant_type", "scope", "client_assertion_type", "client_assertion"}
    assert b"%25" not in content  # encoded once
    (claims,) = door.claims
    now = int(watch.at.timestamp())
    assert claims.pop("jti")
    assert claims == {"iss": "cds & co", "sub": "cds & co", "aud": TOKEN_URL, "iat": now, "exp": now + 240}


def test_each_request_has_its_own_jti_and_time() -> None:
    client, door, watch = services(granting())

    async def run() -> None:
        for _ in range(3):
            await client.renewed(await client.token())
            watch.at += timedelta(seconds=1)

    asyncio.run(run())
    assert len({claims["jti"] for claims in door.claims}) == len(door.claims) == 4
    assert [claims["iat"] for claims in door.claims] == sorted(claims["iat"] for claims in door.claims)
    assert all(claims["exp"] - claims["iat"] <= 300 for claims in door.claims)


@pytest.mark.parametrize(
    ("stated", "ours", "used"),
    [
        (None, ("RS384", "ES384"), "RS384"),
        ((), ("ES384",), "ES384"),
        (("ES384",), ("RS384", "ES384"), "ES384"),
        (("ES384", "RS384"), ("RS384", "ES384"), "RS384"),
        (("RS256",), ("ES384",), "ES384"),  # understated: every server has to take it
    ],
)
def test_the_algorithm_is_one_that_both_have(stated: Sequence[str] | None, ours: Sequence[str], used: str) -> None:
    client, door, _ = services(granting(), algorithms=stated, signer=Signs(ours))
    asyncio.run(client.token())
    assert door.forms[0]["client_assertion"][0].startswith(f"{used}:")


def test_another_audience_by_configuration_and_no_key_at_all() -> None:
    client, door, _ = services(granting(), audience="https://auth.example.org")
    asyncio.run(client.token())
    assert door.claims[0]["aud"] == "https://auth.example.org"
    client, door, _ = services(granting(), signer=Signs(()))
    with pytest.raises(Misconfigured, match="no key"):
        asyncio.run(client.token())
    assert door.asked == []


# ---- when it is renewed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "kept", "renewed"),
    [(300, 269, 271), (None, 269, 271), ("300", 269, 271), ("soon", 269, 271), (-5, 269, 271), (True, 269, 271),
     (20, 9, 11), (59.5, 29, 30), (10**30, 86_369, 86_371)],
)  # fmt: skip
def test_a_token_is_renewed_ahead_of_its_end(told: Any, kept: int, renewed: int) -> None:
    client, _, watch = services(granting(expires_in=told))
    began = watch.at

    async def run() -> list[str]:
        said = [await client.token()]
        for seconds in (kept, renewed):
            watch.at = began + timedelta(seconds=seconds)
            said.append(await client.token())
        return said

    assert asyncio.run(run()) == ["t1", "t1", "t2"]


def test_many_tasks_ask_once() -> None:
    client, door, _ = services(granting())

    async def run() -> tuple[set[str], set[str], str]:
        first = set(await asyncio.gather(*(client.token() for _ in range(20))))
        second = set(await asyncio.gather(*(client.renewed("t1") for _ in range(20))))
        return first, second, await client.renewed("t1")

    assert asyncio.run(run()) == ({"t1"}, {"t2"}, "t2")
    assert len(door.asked) == 2


def test_a_failure_is_not_kept() -> None:
    client, _, _ = services(lambda count: Said(503, b"") if count == 2 else granting()(count))

    async def run() -> tuple[str, str]:
        first = await client.token()
        with pytest.raises(PeerFailed, match="answered 503"):
            await client.renewed(first)
        return first, await client.token()

    assert asyncio.run(run()) == ("t1", "t3")


# ---- what is believed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "granted"),
    [
        (None, ("system/Patient.rs", "system/Observation.rs")),
        ("", ()),
        ("system/Patient.rs  openid", ("system/Patient.rs", "openid")),
        ("system/Observation.rs?code=http://loinc.org|1-2", ("system/Observation.rs?code=http://loinc.org|1-2",)),
    ],
)
def test_what_was_granted_is_told(told: str | None, granted: tuple[str, ...]) -> None:
    client, _, _ = services(granting(scope=told))
    assert client.granted == ("system/Patient.rs", "system/Observation.rs")
    asyncio.run(client.token())
    assert client.granted == granted


@pytest.mark.parametrize("kind", ["Bearer", "BEARER", "bearer"])
def test_the_type_of_a_token_has_no_case(kind: str) -> None:
    assert asyncio.run(services(granting(token_type=kind))[0].token()) == "t1"


@pytest.mark.parametrize(
    "changes",
    [
        {"token_type": "mac"},
        {"token_type": None},
        {"access_token": None},
        {"access_token": ""},
        {"access_token": "a\r\nX-Other: b"},
        {"access_token": "a b"},
        {"access_token": "ключ"},
        {"access_token": ["t"]},
        {"scope": ["system/Patient.rs"]},
    ],
)
def test_an_answer_that_cannot_be_used_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PeerFailed) as refused:
        asyncio.run(services(granting(**changes))[0].token())
    assert "X-Other" not in str(refused.value)
    assert not isinstance(refused.value, TokenRefused)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"not json", b'{"access_token":1,"access_token":2}', b"x" * (MAX_ANSWER + 1)]
)
def test_an_answer_that_cannot_be_read_is_refused(raw: bytes) -> None:
    with pytest.raises(PeerFailed):
        asyncio.run(services(lambda _: Said(200, raw))[0].token())


@pytest.mark.parametrize(
    ("status", "error", "told", "retry"),
    [
        (400, "invalid_scope", "no token: invalid_scope", False),
        (401, "invalid_client", "no token: invalid_client", False),
        (400, SECRET, "no token: answered 400", False),
        (403, None, "no token: answered 403", False),
        (429, "invalid_client", "no token: answered 429", True),
        (302, "invalid_client", "no token: answered 302", True),
        (500, "invalid_client", "no token: answered 500", True),
        (503, None, "no token: answered 503", True),
    ],
)
def test_a_refusal_says_its_code_and_never_the_servers_words(
    status: int, error: str | None, told: str, retry: bool
) -> None:
    body = json.dumps({"error": error, "error_description": SECRET}).encode() if error else SECRET.encode()
    with pytest.raises(PeerFailed) as refused:
        asyncio.run(services(lambda _: Said(status, body))[0].token())
    assert refused.value.what == told
    assert refused.value.retry is retry
    assert SECRET not in str(refused.value)


# ---- scopes ----------------------------------------------------------------------------------------------------------


def test_scopes_by_version_and_type() -> None:
    assert scopes_for(["Patient", "Observation", "Patient"], v2=True) == ("system/Patient.rs", "system/Observation.rs")
    assert scopes_for(["Patient"], v2=False) == ("system/Patient.read",)
    assert scopes_for([], v2=True) == ("system/*.rs",)
    assert scopes_for((), v2=False) == ("system/*.read",)


NARROW = "system/Observation.rs?category=http://example.org/cat|laboratory"


@pytest.mark.parametrize(
    ("requested", "granted", "lacking"),
    [
        ("system/Patient.rs", "system/Patient.rs", ""),
        ("system/Patient.rs", "system/*.read", ""),
        ("system/Patient.read", "system/*.rs", ""),
        ("system/Patient.rs", "system/*.cruds", ""),
        ("system/Patient.rs", "system/*.*", ""),
        ("system/Patient.rs", "system/Patient.r", "system/Patient.rs"),
        ("system/Patient.rs", "system/Patient.r system/*.s", ""),  # split, wide: together they do
        ("system/Patient.rs", "system/Patient.write", "system/Patient.rs"),
        ("system/Patient.rs", "system/Patient.sr", "system/Patient.rs"),  # letters out of order are no scope
        ("system/Patient.rs", "system/Patient.", "system/Patient.rs"),
        ("system/Patient.rs", "user/Patient.rs patient/*.rs openid", "system/Patient.rs"),
        ("system/Patient.rs system/Observation.rs", "system/Patient.rs", "system/Observation.rs"),
        ("system/*.rs", "system/Patient.rs system/Observation.rs", "system/*.rs"),
        ("system/*.rs", "system/*.read", ""),
        ("system/Observation.rs", NARROW, "system/Observation.rs" + RESTRICTED),
        ("system/Observation.rs", f"system/Observation.r {NARROW}", "system/Observation.rs" + RESTRICTED),
        ("system/Observation.rs", f"{NARROW} system/Observation.read", ""),
        (NARROW, NARROW, ""),
        (NARROW, "system/Observation.rs", ""),
        ("launch/patient", "system/*.*", "launch/patient"),
        ("system/Patient.rs", "", "system/Patient.rs"),
    ],
)
def test_what_is_missing_is_found_in_both_versions(requested: str, granted: str, lacking: str) -> None:
    assert missing(requested.split(), granted.split()) == ((lacking,) if lacking else ())


# ---- discovery -------------------------------------------------------------------------------------------------------


def moved(*to: str) -> Answer:
    def answer(count: int) -> Said:
        if count > len(to):
            return Said(200, b'{"token_endpoint":"https://auth.example.org/token"}')
        return Said(307, b"", headers={"location": to[count - 1]})

    return answer


@pytest.mark.parametrize("base", [BASE, BASE + "/"])
def test_discovery_asks_below_the_base(base: str) -> None:
    door = Played(moved())
    assert asyncio.run(discover(door, base)) == {"token_endpoint": TOKEN_URL}
    ((method, url, headers, content),) = door.asked
    assert (method, url, content) == ("GET", f"{BASE}/.well-known/smart-configuration", b"")
    assert headers == {"Accept": "application/json"}


def test_discovery_follows_a_redirect_on_the_same_origin_only() -> None:
    door = Played(moved("/smart", "https://FHIR.example.org:443/smart/"))
    assert asyncio.run(discover(door, BASE))
    assert [url for _, url, _, _ in door.asked][1] == "https://fhir.example.org/smart"
    for elsewhere in ("https://other.example.org/", "http://fhir.example.org/", "//x", "https://fhir.example.org:8443/",
                      "", "https://[", "https://fhir.example.org:port/"):  # fmt: skip
        door = Played(moved(elsewhere))
        with pytest.raises(PeerFailed, match="another place"):
            asyncio.run(discover(door, BASE))
        assert len(door.asked) == 1
    with pytest.raises(PeerFailed, match="without an end"):
        asyncio.run(discover(Played(moved(*["/again"] * 9)), BASE))


@pytest.mark.parametrize(
    "said", [Said(404, b"{}"), Said(200, b"[]"), Said(200, b"<html>"), Said(200, b" " * (1 << 21))]
)
def test_what_is_no_configuration_is_refused(said: Said) -> None:
    with pytest.raises(PeerFailed):
        asyncio.run(discover(Played(lambda _: said), BASE))
