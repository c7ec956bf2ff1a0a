"""Staff sign in at a real provider over real HTTP, with two workers; and who else may look at metrics and ledger."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.peers.ehr_keys import signing_key
from tests.peers.identity_provider import CLIENT, SECRET, IdentityProvider
from tests.peers.server import Server, outcome_of

TOKEN = "an-operators-token-of-some-length"  # noqa: S105 (of these tests)
PROXIED = {"X-Forwarded-For": "203.0.113.7"}
"""What comes through a proxy on this machine does not come from this machine."""


@pytest.fixture
def hospital(
    servers: Callable[..., Server], identity_provider: IdentityProvider, tmp_path: Path
) -> Callable[..., Server]:
    """Starts servers with an identity provider and a token."""

    def make(allow: str = "cds-operators", workers: int = 1) -> Server:
        secret = tmp_path / "secret"
        secret.write_text(SECRET + "\n")
        os.chmod(secret, 0o600)
        config = tmp_path / "cds.toml"
        config.write_text(
            f'[staff]\nissuer = "{identity_provider.issuer}"\nclient_id = "{CLIENT}"\n'
            f'client_secret_file = "{secret}"\nallow = ["{allow}"]\n'
        )
        return servers(workers=workers, environment={"CDS_CONFIG": str(config), "CDS_OPS_TOKEN": TOKEN})

    return make


def browser(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, follow_redirects=True, trust_env=False, headers=PROXIED, timeout=30)


def test_staff_sign_in_look_and_sign_out(hospital: Callable[..., Server]) -> None:
    server = hospital(workers=2)
    with browser(server) as person:
        outcome_of(person.get("/metrics"), 401)
        outcome_of(person.get("/staff"), 401)
        shown = person.get("/staff/sign-in", params={"next": "/metrics"})
        assert shown.status_code == 200, shown.text
        assert "cds_ledger_entries" in shown.text
        who = {"subject": "dr-osei", "name": "dr-osei", "roles": []}  # an operator: metrics and ledger, and no patient
        assert [person.get("/staff").json() for _ in range(8)] == [who] * 8  # whichever worker
        assert person.get("/ledger/proof/1").status_code == 200
        cookie = next(iter(person.cookies.jar))
        assert person.post("/staff/sign-out").status_code == 204
        person.cookies.set(cookie.name, str(cookie.value))
        outcome_of(person.get("/metrics"), 401)  # a cookie that was kept is worth nothing
    with sqlite3.connect(server.data_dir / "cds.db") as database:
        entries = [
            json.loads(body)["kind"] for (body,) in database.execute("SELECT body FROM ledger_entry ORDER BY seq")
        ]
        assert database.execute("SELECT COUNT(*) FROM staff_session WHERE subject <> ''").fetchone() == (0,)
    assert [kind for kind in entries if kind.startswith("sign-")] == ["sign-in", "sign-out"]
    server.stop()
    kept = b"".join(path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file()) + server.told().encode()
    for secret in (str(cookie.value), SECRET, "not-kept-anywhere", TOKEN, "dr-osei"):
        assert secret.encode() not in kept


WRONG: tuple[dict[str, object], ...] = (
    {"nonce": "another"},
    {"nonce": None},
    {"aud": "another client"},
    {"iss": "https://else.example.org"},
    {"exp": 1_700_000_000},
    {"sub": None},
    {"azp": "another client"},
    {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
)


def test_an_id_token_that_is_not_for_this_sign_in_signs_nobody_in(
    hospital: Callable[..., Server], identity_provider: IdentityProvider
) -> None:
    server = hospital()
    for number, wrong in enumerate(WRONG, 1):
        identity_provider.claims = wrong
        with browser(server) as person:
            outcome_of(person.get("/staff/sign-in"), 401)
            outcome_of(person.get("/staff"), 401)
        assert server.told().count("staff: the ID token is refused") == number, wrong
    identity_provider.claims, identity_provider.key = {}, signing_key("RS256", "idp-1")  # as rotated: fetched again
    with browser(server) as person:
        outcome_of(person.get("/staff/sign-in"), 401)  # the old key of that id is known: no refetch for a bad signature


def test_who_is_signed_in_and_not_allowed_sees_nothing(hospital: Callable[..., Server]) -> None:
    server = hospital(allow="somebody-else")
    with browser(server) as person:
        assert "nothing here is open to you" in outcome_of(person.get("/staff/sign-in"), 403)
        outcome_of(person.get("/metrics"), 401)


def test_a_callback_that_this_browser_did_not_begin_is_refused(hospital: Callable[..., Server]) -> None:
    server = hospital()
    with browser(server) as attacker, browser(server) as victim:
        attacker.follow_redirects = False
        back = attacker.get(attacker.get("/staff/sign-in").headers["location"]).headers["location"]
        outcome_of(victim.get(back), 401)  # no cookie of a sign-in
        victim.follow_redirects = False
        victim.get("/staff/sign-in")
        outcome_of(victim.get(back), 401)  # another one's state
        forged = back.replace("/staff/callback?", "/staff/callback?x=1&")
        attacker.cookies.clear()
        attacker.cookies.set("cds-sign-in", "AAAA" * 40)
        outcome_of(attacker.get(forged), 401)


def test_metrics_and_ledger_need_loopback_or_the_token(hospital: Callable[..., Server]) -> None:
    server = hospital()
    for path in ("/metrics", "/ledger/proof/1"):
        assert server.http.get(path).status_code == 200
        refusals = [
            server.http.get(path, headers=PROXIED),
            server.http.get(path, headers={"Host": "cds.example.org"}),
            server.http.get(path, headers={**PROXIED, "Authorization": f"Bearer {TOKEN}x"}),
            server.http.get(path, headers={**PROXIED, "Authorization": f"Basic {TOKEN}"}),
        ]
        assert {outcome_of(refusal, 401) for refusal in refusals} == {"authentication is required"}, path
        assert server.http.get(path, headers={**PROXIED, "Authorization": f"Bearer {TOKEN}"}).status_code == 200
