"""Our keys: where each half stands, which one signs, what is published, and what the log says of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey, import_key
from starlette.testclient import TestClient

from adapters.peer import Signer
from cds_server import keys as keys_module
from cds_server.app import build, create_app
from cds_server.copies import backup
from cds_server.keys import OVERLAP, Keys, KeySigner, OurKey, signing
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import Conflict, KeysUnavailable, Misconfigured, NotFound
from tests.cds_server.stores import ACTOR
from tests.cds_server.test_commands import Cds, cds

__all__ = ["cds"]

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "FRESH", 0.0)


def key(kid: str, hours: float, alg: str = "ES384", of: str | None = None, *, retired: bool = False) -> OurKey:
    """A key that was made so many hours ago."""
    made_at = NOW - timedelta(hours=hours)
    return OurKey(kid, alg, of, {}, made_at, NOW if retired else None)


# ---- which one signs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ([], None),
        ([key("only", 0)], "only"),
        ([key("old", 90), key("new", 1)], "old"),
        ([key("old", 90), key("new", 24)], "new"),
        ([key("oldest", 900), key("old", 90), key("new", 23.9)], "old"),
        ([key("first", 2), key("second", 1)], "first"),
        ([key("old", 90, retired=True), key("new", 1)], "new"),
        ([key("old", 90), key("new", 48, retired=True)], "old"),
        ([key("old", 90, retired=True)], None),
        ([key("rsa", 90, "RS384"), key("ec", 1)], "ec"),
        ([key("theirs", 90, of="epic"), key("ours", 1)], "ours"),
    ],
)
def test_the_youngest_that_peers_can_know_signs(keys: list[OurKey], chosen: str | None) -> None:
    found = signing(keys, None, "ES384", NOW)
    assert (found.kid if found else None) == chosen


def test_a_new_key_takes_over_when_the_overlap_has_passed(store: Store) -> None:
    keys = Keys(store)
    first, second = keys.new(None, ACTOR, "ES384"), keys.new(None, ACTOR, "ES384")
    for later, kid in ((timedelta(0), first.kid), (OVERLAP + timedelta(minutes=1), second.kid)):
        signer = KeySigner(store, now=lambda later=later: datetime.now(UTC) + later)  # type: ignore[misc]
        assert header_of(signer.sign({}, "ES384"))["kid"] == kid


# ---- signing ---------------------------------------------------------------------------------------------------------


def header_of(token: str) -> dict[str, Any]:
    first = token.partition(".")[0]
    return dict(json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))))


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
def test_what_is_signed_can_be_checked_with_the_published_set(store: Store, alg: str) -> None:
    keys, claims = Keys(store), {"iss": "cds", "jti": "1", "exp": 2_000_000_000}
    made = keys.new("epic", ACTOR, alg)
    signer: Signer = KeySigner(store, "epic")
    assert signer.algorithms() == (alg,)
    token = signer.sign(claims, alg)
    assert header_of(token) == {"alg": alg, "kid": made.kid, "typ": "JWT"}
    published = json.loads(json.dumps(keys.published("epic")))
    assert jwt.decode(token, KeySet.import_key_set(published), algorithms=[alg]).claims == claims
    (public,) = published["keys"]
    assert import_key(public).thumbprint() == made.kid
    keys.retire(made.kid, ACTOR)
    assert signer.algorithms() == ()
    with pytest.raises(Misconfigured, match="cds keys new --for epic"):
        signer.sign(claims, alg)


def test_a_private_half_that_is_gone_is_said(store: Store) -> None:
    with pytest.raises(KeysUnavailable, match="private half"):
        Keys(store).private("unknown")


# ---- where each half stands ------------------------------------------------------------------------------------------


def test_the_private_half_stands_in_the_key_store_only(sqlite_settings: Settings, tmp_path: Path) -> None:
    store = Store.open(sqlite_settings.data_dir, sqlite_settings.database_url)
    keys = Keys(store)
    secrets: list[bytes] = []
    for alg in ("RS384", "ES384"):
        held = json.loads(keys.private(keys.new(None, ACTOR, alg).kid))
        secrets.append(held["d"].encode())
    assert RSAKey.import_key(json.loads(keys.private(keys.all()[0].kid))).raw_value.key_size == 3072
    store.close()
    backup(sqlite_settings, tmp_path / "copy")
    for folder in (sqlite_settings.data_dir, tmp_path / "copy"):
        holding = {path.name for path in folder.rglob("*") if path.is_file() and _holds(path, secrets)}
        assert holding == {"keys.db"}


def _holds(path: Path, secrets: list[bytes]) -> bool:
    raw = path.read_bytes()
    return any(secret in raw for secret in secrets)


# ---- acts ------------------------------------------------------------------------------------------------------------


def test_each_act_is_an_entry(store: Store) -> None:
    keys = Keys(store)
    made = keys.new("epic", ACTOR)
    assert made.alg == "RS384"
    seq = keys.retire(made.kid, ACTOR)
    entries = [json.loads(entry.body) for entry in store.reads.entries()]
    detail = {"kid": made.kid, "alg": "RS384", "registration": "epic"}
    assert [(entry["kind"], entry["actor"], entry["detail"]) for entry in entries] == [
        ("keys-new", ACTOR, detail),
        ("keys-retire", ACTOR, detail),
    ]
    assert seq == 2
    with pytest.raises(Conflict, match="retired before"):
        keys.retire(made.kid, ACTOR)
    with pytest.raises(NotFound):
        keys.retire("no such key", ACTOR)
    assert store.reads.head()[0] == 2


def test_a_registrations_set_has_one_type_of_key(store: Store) -> None:
    keys = Keys(store)
    first = keys.new("epic", ACTOR, "ES384")
    assert keys.new("epic", ACTOR).alg == "ES384"
    with pytest.raises(Conflict, match="another type"):
        keys.new("epic", ACTOR, "RS384")
    keys.new("oracle", ACTOR, "RS384")
    for each in keys.all():
        if each.registration == "epic":
            keys.retire(each.kid, ACTOR)
    assert keys.new("epic", ACTOR, "RS384").alg == "RS384"
    assert {each["kty"] for each in keys.published("epic")["keys"]} == {"RSA"}
    assert keys.published(None) == {"keys": []}
    assert not keys.all()[0].live
    assert keys.all()[0].kid == first.kid


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "-a", "ä", "x" * 65, "a\n"])
def test_a_name_that_cannot_stand_in_a_url_is_refused(store: Store, name: str) -> None:
    with pytest.raises(Misconfigured, match="registration's name"):
        Keys(store).new(name, ACTOR, "ES384")
    with pytest.raises(Misconfigured, match="RS384 or ES384"):
        Keys(store).new(None, ACTOR, "RS256")
    assert store.reads.head()[0] == 0


# ---- the door --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(settings: Settings) -> Iterator[tuple[TestClient, Keys]]:
    parts = build(settings)
    with TestClient(create_app(parts), client=("203.0.113.9", 5000)) as client:
        yield client, Keys(parts.store)


def test_the_sets_are_for_everybody_and_hold_public_members_only(served: tuple[TestClient, Keys]) -> None:
    client, keys = served
    answer = client.get("/.well-known/jwks.json")
    assert (answer.status_code, answer.json()) == (200, {"keys": []})
    made = [keys.new(None, ACTOR, alg) for alg in ("RS384", "ES384")]
    of_epic = keys.new("epic", ACTOR, "ES384")
    answer = client.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "max-age=300, public"
    assert answer.headers["content-type"].startswith("application/json")
    assert [set(each) for each in answer.json()["keys"]] == [
        {"kty", "n", "e", "kid", "alg", "use", "key_ops"},
        {"kty", "crv", "x", "y", "kid", "alg", "use", "key_ops"},
    ]
    assert [each["kid"] for each in answer.json()["keys"]] == [each.kid for each in made]
    assert all((each["use"], each["key_ops"]) == ("sig", ["verify"]) for each in answer.json()["keys"])
    answer = client.get("/.well-known/jwks/epic.json")
    assert [each["kid"] for each in answer.json()["keys"]] == [of_epic.kid]
    assert answer.headers["cache-control"] == "max-age=300, public"
    assert not PRIVATE & {name for each in answer.json()["keys"] for name in each}
    keys.retire(of_epic.kid, ACTOR)
    answer = client.get("/.well-known/jwks/epic.json")
    assert (answer.status_code, answer.json()) == (200, {"keys": []})  # nothing is trusted any more, and peers see it


def test_an_unknown_registration_is_404_and_nothing_is_echoed(served: tuple[TestClient, Keys]) -> None:
    client, _ = served
    for path in ("nobody.json", "..%2f..%2fkeys.db.json", "nobody"):
        answer = client.get(f"/.well-known/jwks/{path}")
        assert answer.status_code == 404
        assert answer.json()["resourceType"] == "OperationOutcome"
        assert "nobody" not in answer.text
    assert client.post("/.well-known/jwks.json").status_code == 405


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_makes_lists_and_retires(cds: Cds) -> None:
    assert cds.json("keys", "new", "--alg", "ES384", "--for", "epic")["state"] == "signs"
    made = cds.json("keys", "new", "--for", "epic")
    assert (made["alg"], made["state"]) == ("ES384", "published")
    assert made["jwks"] == "http://127.0.0.1:8000/.well-known/jwks/epic.json"
    first, second = cds.json("keys", "list")
    assert [first["state"], second["state"]] == ["signs", "published"]
    assert not PRIVATE & set(second)
    cds("keys", "retire", first["kid"])
    assert [each["state"] for each in cds.json("keys", "list")] == ["retired", "signs"]
    assert second["kid"] in cds("keys", "list")
    cds("keys", "retire", first["kid"], code=4)
    cds("keys", "retire", "nothing", code=1)
    cds("keys", "new", "--for", "a/b", code=2)
    assert cds.err == "cds keys: a registration's name is 1 to 64 letters, digits, - and _ (at --for)\n"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_list_wants_an_instance(cds: Cds, data_dir: Path) -> None:
    (data_dir / "cds.db").unlink(missing_ok=True)
    cds("keys", "list", code=2)
    assert "there is no instance" in cds.err
