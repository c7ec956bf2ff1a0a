"""A token, claim by claim and key by key: the specification's own, and every way in which one is not good enough."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import Key, RSAKey

from cds_server.ehrs import Ehr
from cds_server.hooks.trust import Trust
from cds_server.http import Outbound
from cds_server.settings import load
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from cds_server.trust import keysets
from cds_server.trust.keysets import FetchedKeys
from cds_server.trust.published import PUBLISHED
from cds_server.trust.replay import TokenUse, spend
from cds_server.trust.tokens import Untrusted, check_claims, check_signature, read_keys, take_apart
from models.errors import CdsError, Misconfigured, Unauthenticated
from tests.cds_server.conftest import OpenStore
from tests.cds_server.stores import stop_row
from tests.peers.ehr_keys import ISSUER, KeyServer, public_set, signing_key, token

DOOR = "https://cds.example.org/cds-services/some-service"
NOW = 1_800_000_000

GOLDEN = (
    "eyJhbGciOiJFUzM4NCIsInR5cCI6IkpXVCIsImtpZCI6ImV4YW1wbGUta2lkIiwiamt1IjoiaHR0cHM6Ly9maGlyLWVoci5leGFtcGxlLmNvbS9qd2tf"
    "dXJpIn0.eyJpc3MiOiJodHRwczovL2ZoaXItZWhyLmV4YW1wbGUuY29tLyIsInN1YiI6ImNsaWVudF9pZCIsImF1ZCI6Imh0dHBzOi8vY2RzLmV4YW1w"
    "bGUub3JnL2Nkcy1zZXJ2aWNlcy9zb21lLXNlcnZpY2UiLCJleHAiOjE0MjI1Njg4NjAsImlhdCI6MTMxMTI4MDk3MCwianRpIjoiZWUyMmIwMjEtZTFi"
    "Ny00NjExLWJhNWItOGVlYzZhMzNhYzFlIiwidGVuYW50IjoiMmRkZDZjM2EtOGU5YS00NGM2LWEzMDUtNTIxMTFhZDMwMmEyIn0.CUFPkplnWd6YGIvz"
    "oHolWCQBDsCL8QtTWKGg_QFpS169WrqDGzktRi-_we6-6rVzbjerU27ZKww_SW0-b9RTz-dPJNcqsueMio8r6EqXUXhbLm_ch3XFSbDlGHDl_tqo"
)
"""CDS Hooks 2.0.1, JWT Signing Algorithm, Example: the complete JWT."""
GOLDEN_KEYS = {
    "keys": [
        {
            "kty": "EC",
            "use": "sig",
            "crv": "P-384",
            "kid": "example-kid",
            "alg": "ES384",
            "x": "46SDH7Znh821wblCBglA61sNE9ZrHYKKt3qRtRTmSXyOI_FIGBLWrWa0GPUkDCEk",
            "y": "XMcRuuoGW7CXjQdy-F5i3FeBE0x9hPLdeFdSoDd3ELmx404tLX0VRRcqzAsPhXcI",
        }
    ]
}
GOLDEN_EHR = Ehr(
    "golden",
    issuer="https://fhir-ehr.example.com/",
    tenants=("2ddd6c3a-8e9a-44c6-a305-52111ad302a2",),
    lifetime=1 << 30,
)
"""Its example lives for three and a half years: no configuration allows that."""


@pytest.mark.requirement("cds-hooks_2.0", "181", "182", "184", "185", "187", "189", "190", "191", "192", "193", "205")
def test_the_token_that_the_specification_prints() -> None:
    presented = take_apart(GOLDEN)
    assert (presented.algorithm, presented.kid, presented.jku) == (
        "ES384",
        "example-kid",
        "https://fhir-ehr.example.com/jwk_uri",
    )
    key = read_keys(json.dumps(GOLDEN_KEYS).encode())[presented.kid]
    check_signature(presented, key)
    jti = check_claims(presented.claims, GOLDEN_EHR, [DOOR], 1_400_000_000)
    assert jti == "ee22b021-e1b7-4611-ba5b-8eec6a33ac1e"
    with pytest.raises(Untrusted, match="exp has passed"):
        check_claims(presented.claims, GOLDEN_EHR, [DOOR], time.time())
    with pytest.raises(Untrusted, match="exp is too far from iat"):
        check_claims(presented.claims, Ehr("golden", issuer=GOLDEN_EHR.issuer), [DOOR], 1_400_000_000)
    assert key.thumbprint in PUBLISHED  # whoever reads the page can sign with it
    spoiled = take_apart(GOLDEN[:-4] + ("AAAA" if GOLDEN[-4:] != "AAAA" else "BBBB"))
    with pytest.raises(Untrusted, match="signature"):
        check_signature(spoiled, key)


GOOD = {"iss": ISSUER, "aud": DOOR, "iat": NOW, "exp": NOW + 900, "jti": "one"}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, None),
        ({"aud": [DOOR, "https://else"]}, None),
        ({"iat": NOW - 900, "exp": NOW - 59}, None),  # within the skew
        ({"iat": NOW + 60, "exp": NOW + 400}, None),
        ({"nbf": NOW - 300, "sub": "someone"}, None),  # Epic's
        ({"iat": NOW + 0.5}, None),
        ({"tenant": "east"}, None),
        ({"aud": None}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": [DOOR.encode().hex()]}, "aud"),
        ({"aud": DOOR + "/"}, "aud"),
        ({"aud": {"x": DOOR}}, "aud"),
        ({"exp": NOW - 60}, "exp has passed"),
        ({"exp": None}, "exp is missing"),
        ({"exp": str(NOW + 60)}, "exp is missing"),
        ({"exp": True}, "exp is missing"),
        ({"exp": 1 << 60}, "exp is missing"),
        ({"iat": None}, "iat is missing"),
        ({"iat": NOW + 61, "exp": NOW + 400}, "iat lies in the future"),
        ({"exp": NOW + 901}, "exp is too far"),
        ({"iat": NOW + 10, "exp": NOW + 10}, "exp is too far"),
        ({"nbf": NOW + 61}, "nbf lies in the future"),
        ({"jti": None}, "jti is missing"),
        ({"jti": ""}, "jti is missing"),
        ({"jti": 7}, "jti is missing"),
        ({"jti": "x" * 513}, "jti is missing"),
    ],
    ids=str,
)
@pytest.mark.requirement("cds-hooks_2.0", "189", "190", "191", "192")
def test_claims(changes: dict[str, Any], cause: str | None) -> None:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    ehr = Ehr("north", issuer=ISSUER)
    if cause is None:
        assert check_claims(claims, ehr, [DOOR], NOW) == "one"
        return
    with pytest.raises(Untrusted, match=cause):
        check_claims(claims, ehr, [DOOR], NOW)


@pytest.mark.requirement("cds-hooks_2.0", "193", "194")
def test_a_tenant_is_looked_at_where_tenants_are_registered() -> None:
    ehr = Ehr("north", issuer=ISSUER, tenants=("east",))
    assert check_claims({**GOOD, "tenant": "east"}, ehr, [DOOR], NOW) == "one"
    for claims in ({**GOOD, "tenant": "west"}, {**GOOD, "tenant": ["east"]}, GOOD):
        with pytest.raises(Untrusted, match="tenant"):
            check_claims(claims, ehr, [DOOR], NOW)


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "a.b",
        "a.b.c.d",
        f"{encoded({'alg': 'ES384'})}.{encoded({})}.AAAA",
        f"{encoded(b'no json')}.{encoded({})}.AAAA",
        f"{encoded([])}.{encoded({})}.AAAA",
        f"{encoded({'alg': 'ES384', 'kid': 'k'})}.{encoded({})}.AAAA",
        f"{encoded({'alg': 'ES384', 'kid': 'k', 'typ': 'JWE'})}.{encoded({})}.AAAA",
        f"{encoded({'alg': 'ES384', 'kid': 'k', 'typ': 'JWT', 'jku': 1})}.{encoded({})}.AAAA",
        f"{encoded({'alg': 'ES384', 'kid': 'k', 'typ': 'JWT', 'crit': ['b64'], 'b64': False})}.{encoded({})}.AAAA",
        encoded(b'{"alg":"none","alg":"ES384","kid":"k","typ":"JWT"}') + f".{encoded({})}.AAAA",
        f"{encoded({'alg': 'ES384', 'kid': 'k', 'typ': 'JWT'})}.{encoded({})}.",
        f"{encoded({'alg': 'ES384', 'kid': 'k', 'typ': 'JWT'})}.{encoded({})}.AA+/",
        "a" * 9000 + ".b.c",
    ],
)
def test_what_is_no_token(broken: str) -> None:
    with pytest.raises(Untrusted):
        take_apart(broken)


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS384"])
@pytest.mark.requirement("cds-hooks_2.0", "200", "207")
def test_each_algorithm_with_its_key_and_with_no_other(algorithm: str) -> None:
    key, other = signing_key(algorithm, "k"), signing_key("ES384" if algorithm != "ES384" else "RS384", "k")
    presented = take_apart(token(key, DOOR))
    check_signature(presented, read_keys(public_set(key))["k"])
    with pytest.raises(Untrusted, match="alg"):
        check_signature(presented, read_keys(public_set(other))["k"])


@pytest.mark.requirement("cds-hooks_2.0", "201", "203")
def test_neither_none_nor_a_shared_secret_can_sign(tmp_path: Path) -> None:
    """The public key as an HMAC secret is the oldest trick (RFC 8725, 2.1)."""
    key = signing_key("RS384", "k")
    public = read_keys(public_set(key))["k"]
    header = {"alg": "HS384", "kid": "k", "typ": "JWT"}
    signed = f"{encoded(header)}.{encoded(GOOD)}"
    forged = f"{signed}.{encoded(hmac.digest(key.as_pem(private=False), signed.encode(), 'sha384'))}"
    unsigned = f"{encoded({**header, 'alg': 'none'})}.{encoded(GOOD)}.AAAA"
    for each in (forged, unsigned):
        with pytest.raises(Untrusted, match="alg"):
            check_signature(take_apart(each), public)
    for name in ("none", "HS256", "HS384", "ES256K"):
        config = tmp_path / "cds.toml"
        config.write_text(f'[[ehr]]\nnamespace = "a"\nissuer = "x"\njwks = "k"\nalgorithms = ["{name}"]\n')
        with pytest.raises(Misconfigured, match="algorithms"):
            load({"CDS_CONFIG": str(config)})


@pytest.mark.requirement("cds-hooks_2.0", "183")
@pytest.mark.filterwarnings("ignore:Key size:UserWarning", "ignore::joserfc.errors.SecurityWarning")
def test_which_keys_of_a_set_are_used() -> None:
    good, twice = signing_key("ES384", "good"), signing_key("ES384", "twice")
    public = good.as_dict(private=False)
    weak = RSAKey.generate_key(1024, parameters={"kid": "weak"})
    listed: list[Any] = [
        public,
        twice.as_dict(private=False),
        signing_key("ES384", "twice").as_dict(private=False),
        {**public, "kid": "for-encryption", "use": "enc"},
        {**public, "kid": "for-signing-only", "key_ops": ["sign"]},
        {**public, "kid": None},
        {name: value for name, value in public.items() if name != "kid"},
        {**public, "kid": "other-alg", "alg": "ES256"},
        {**public, "kid": "no-point", "x": "AAAA"},
        {**good.as_dict(private=True), "kid": "with-its-private-part"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"},
        weak.as_dict(private=False),
        "no key",
    ]
    assert list(read_keys(json.dumps({"keys": listed}).encode())) == ["good"]
    for broken in (b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}'):
        with pytest.raises(Untrusted):
            read_keys(broken)


# ---- fetched keys, over real HTTP ------------------------------------------------------------------------------------


def fetching(
    server: KeyServer, use: Callable[[FetchedKeys], Awaitable[None]], path: str = "/jwks", **more: Any
) -> None:
    async def run() -> None:
        door = Outbound([server.base])
        try:
            await use(FetchedKeys(server.base + path, door, **more))
        finally:
            await door.aclose()

    asyncio.run(run())


def test_all_who_wait_share_one_fetch(key_server: KeyServer) -> None:
    key_server.body = public_set(signing_key("ES384", "k"))

    async def use(keys: FetchedKeys) -> None:
        found = await asyncio.gather(*(keys.key("k", 5) for _ in range(50)))
        assert all(found)
        assert key_server.asked == ["/jwks"]

    fetching(key_server, use)


def test_invented_key_ids_are_asked_for_three_times_and_then_one_in_twenty_seconds(key_server: KeyServer) -> None:
    key_server.body = public_set(signing_key("ES384", "k"))
    clock = [1000.0]

    async def use(keys: FetchedKeys) -> None:
        for number in range(30):
            assert await keys.key(f"invented-{number}", 5) is None
        assert len(key_server.asked) == keysets.BURST
        clock[0] += keysets.REFILL
        for number in range(30):
            assert await keys.key(f"invented-{number}", 5) is None
        assert len(key_server.asked) == keysets.BURST + 1
        assert await keys.key("k", 5) is not None

    fetching(key_server, use, clock=lambda: clock[0])


def test_a_set_is_asked_again_beside_the_calls_and_outlives_an_issuer_that_is_away(key_server: KeyServer) -> None:
    key_server.body = public_set(signing_key("ES384", "k"))
    clock = [1000.0]

    async def use(keys: FetchedKeys) -> None:
        assert await keys.key("k", 5) is not None
        clock[0] += keysets.FRESH + 1
        key_server.status = 503
        assert await keys.key("k", 5) is not None  # at once; the fetch runs beside it
        await keys.refresh()
        assert await keys.key("k", 5) is not None
        key_server.status, key_server.body = 200, public_set(signing_key("ES384", "next"))
        clock[0] += keysets.REFILL + 1
        await keys.key("k", 5)
        await keys.refresh()
        assert await keys.key("k", 5) is None  # taken back
        assert await keys.key("next", 5) is not None
        key_server.status = 503
        clock[0] += keysets.LASTS + 1
        assert await keys.key("next", 5) is None

    fetching(key_server, use, clock=lambda: clock[0])


@pytest.mark.parametrize("how", ["moved", "big", "broken", "away"])
def test_a_hostile_key_server_gives_no_key(key_server: KeyServer, how: str) -> None:
    key_server.body = public_set(signing_key("ES384", "k"))
    if how == "big":
        key_server.body += b" " * keysets.MAX_BYTES
    if how == "broken":
        key_server.body = b"<html>"
    if how == "away":
        key_server.status = 404

    async def use(keys: FetchedKeys) -> None:
        assert await keys.key("k", 5) is None
        assert len(key_server.asked) == 1  # a redirect is not followed

    fetching(key_server, use, path="/moved" if how == "moved" else "/jwks")


def test_nobody_waits_longer_than_patience(key_server: KeyServer) -> None:
    key_server.body = public_set(signing_key("ES384", "k"))
    key_server.slow = 1.0

    async def use(keys: FetchedKeys) -> None:
        assert await keys.key("k", 0.05) is None
        await keys.refresh()  # which was under way all the time
        assert await keys.key("k", 0) is not None
        assert len(key_server.asked) == 1

    fetching(key_server, use)


# ---- the door --------------------------------------------------------------------------------------------------------


class Asked:
    """As much of a request as trust looks at."""

    def __init__(self, bearer: str | None, path: str = "/cds-services/some-service", *more: str) -> None:
        from starlette.datastructures import Headers

        given = [] if bearer is None else [bearer, *more]
        self.headers = Headers(raw=[(b"authorization", each.encode()) for each in given])
        self.scope = {"path": path}
        self.method = "POST"


@pytest.fixture
def admitted(store: Store, tmp_path: Path) -> Callable[..., str]:
    """Gives the namespace of a caller, or the cause of a refusal, under one configuration."""

    def admit(ehrs: str, request: Asked) -> str:
        config = tmp_path / "cds.toml"
        config.write_text(f'public_url = "https://cds.example.org"\n{ehrs}')

        async def run() -> str:
            trust = Trust(load({"CDS_CONFIG": str(config)}), store)
            try:
                return (await trust.admit(request)).namespace  # type: ignore[arg-type]
            except Unauthenticated as error:
                return str(error.cause) if str(error) == "authentication is required" else f"told: {error}"
            finally:
                await trust.aclose()

        return asyncio.run(run())

    return admit


@pytest.fixture(scope="module")
def key() -> Key:
    return signing_key("ES384", "k")


def of_file(tmp_path: Path, *keys: Key, namespace: str = "north", more: str = "") -> str:
    path = tmp_path / f"{namespace}.json"
    path.write_bytes(public_set(*keys))
    return f'[[ehr]]\nnamespace = "{namespace}"\nissuer = "{ISSUER}"\njwks = "{path}"\n{more}'


@pytest.mark.requirement("cds-hooks_2.0", "195", "199", "203")
def test_what_is_not_registered_is_not_believed(admitted: Callable[..., str], tmp_path: Path, key: Key) -> None:
    ehrs = of_file(tmp_path, key, more='jku = ["https://ehr.example.org/jwks"]\n')
    good = token(key, DOOR)
    cases = {
        f"Bearer {good}": "north",
        f"bearer {good}": "north",
        f"Bearer {token(key, DOOR, header={'jku': 'https://ehr.example.org/jwks'})}": "north",
        f"Bearer {token(key, DOOR, header={'jku': 'http://169.254.169.254/jwks'})}": "jku is not registered",
        f"Bearer {token(key, DOOR, header={'jku': 'https://ehr.example.org/jwks/'})}": "jku is not registered",
        f"Bearer {token(key, DOOR, iss=ISSUER + '/')}": "iss is not registered",
        f"Bearer {token(key, DOOR, iss=[ISSUER])}": "iss is not registered",
        f"Bearer {token(signing_key('ES256', 'k'), DOOR)}": "alg is not registered",
        f"Bearer {token(signing_key('ES384', 'else'), DOOR)}": "kid is not in the key set",
        f"Basic {good}": "not a Bearer token",
        "Bearer": "not a compact JWS",
    }
    assert {given: admitted(ehrs, Asked(given)) for given in cases} == cases
    assert admitted(ehrs, Asked(None)) == "no token"
    assert admitted(ehrs, Asked(f"Bearer {good}", "/cds-services/some-service", f"Bearer {good}")) == "several tokens"
    assert admitted("", Asked(f"Bearer {good}")) == "iss is not registered"


def test_an_audience_of_its_own_is_registered_by_its_base(
    admitted: Callable[..., str], tmp_path: Path, key: Key
) -> None:
    ehrs = of_file(tmp_path, key, more='audiences = ["https://old.example.org/cds/"]\n')
    path = "/cds-services/some-service"
    assert admitted(ehrs, Asked(f"Bearer {token(key, 'https://old.example.org/cds' + path)}")) == "north"
    assert admitted(ehrs, Asked(f"Bearer {token(key, 'https://old.example.org' + path)}")) == "aud is another endpoint"


def test_ehrs_of_one_issuer_are_told_apart_by_tenant(admitted: Callable[..., str], tmp_path: Path, key: Key) -> None:
    ehrs = of_file(tmp_path, key, more='tenants = ["n1", "n2"]\n')
    ehrs += of_file(tmp_path, key, namespace="south", more='tenants = ["s1"]\n')
    said = {tenant: admitted(ehrs, Asked(f"Bearer {token(key, DOOR, tenant=tenant)}")) for tenant in ("n2", "s1", "x")}
    assert said == {"n2": "north", "s1": "south", "x": "iss is not registered"}


def test_a_published_key_is_believed_only_where_the_configuration_says_so(
    admitted: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signing_key("ES384", "k")
    monkeypatch.setattr("cds_server.hooks.trust.PUBLISHED", {key.thumbprint(): "this test"})
    bearer = f"Bearer {token(key, DOOR)}"
    assert "published" in admitted(of_file(tmp_path, key), Asked(bearer))
    assert admitted(of_file(tmp_path, key, more="published_keys = true\n"), Asked(bearer)) == "north"


def test_a_key_file_that_is_rotated_is_read_again(store: Store, tmp_path: Path, key: Key) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(f'public_url = "https://cds.example.org"\n{of_file(tmp_path, key)}')
    trust = Trust(load({"CDS_CONFIG": str(config)}), store)
    fresh = signing_key("RS384", "fresh-and-longer")

    async def run() -> None:
        assert (await trust.admit(Asked(f"Bearer {token(key, DOOR)}"))).namespace == "north"  # type: ignore[arg-type]
        (tmp_path / "north.json").write_bytes(public_set(fresh))
        assert (await trust.admit(Asked(f"Bearer {token(fresh, DOOR)}"))).ehr == "north"  # type: ignore[arg-type]
        with pytest.raises(Unauthenticated):
            await trust.admit(Asked(f"Bearer {token(key, DOOR)}"))  # type: ignore[arg-type]

    asyncio.run(run())
    (tmp_path / "north.json").write_text("{}")
    with pytest.raises(Misconfigured, match=r"jwks of the \[\[ehr\]\] north"):
        Trust(load({"CDS_CONFIG": str(config)}), store)


# ---- a token is good once --------------------------------------------------------------------------------------------


def test_a_token_is_spent_once_whoever_writes(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    use = TokenUse(b"d" * 16, until=int(time.time()) + 60, call=b"\x01first..")
    again = TokenUse(use.digest, until=use.until + 300, call=b"\x01second.")

    def act(tx: Tx, spent: TokenUse) -> int:
        spend(tx, spent)
        return stop_row(tx)

    def fails(tx: Tx) -> None:
        spend(tx, use)
        raise CdsError("the disk is full, say")

    with pytest.raises(CdsError):
        first.writer.submit(fails).result()
    assert first.writer.submit(lambda tx: act(tx, use)).result() == 1  # what was rolled back spent nothing
    assert second.writer.submit(lambda tx: act(tx, use)).result() == 2  # a second act of the same request
    for store in (first, second):
        with pytest.raises(Unauthenticated) as refused:
            store.writer.submit(lambda tx: act(tx, again)).result()
        assert refused.value.cause == "the token was used before"
    assert len(list(first.reads.entries())) == 2  # the refused acts left nothing


def test_what_has_expired_is_swept(store: Store) -> None:
    now = int(time.time())
    for number in range(5):
        old = TokenUse(bytes([number]) * 16, until=now - 1, call=b"\x01" * 8)
        store.writer.submit(lambda tx, old=old: spend(tx, old)).result()
    store.writer.submit(lambda tx: spend(tx, TokenUse(b"x" * 16, until=now + 60, call=bytes(8)))).result()
    assert [bytes(row[0]) for row in store.reads.query("SELECT digest FROM token_seen")] == [b"x" * 16]
