"""Signed calls as an EHR makes them: a real key server, real tokens, `cds serve` with two workers, restarts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import Key

from tests.peers.ehr_keys import ISSUER, KeyServer, public_set, signing_key, token
from tests.peers.server import PATIENT_VIEW, Server, hook, outcome_of, override
from tests.peers.test_background import until

pytestmark = [pytest.mark.requirement("cds-hooks_2.0", "176", "177")]

PUBLIC = "https://cds.example.org"
DOOR = f"/cds-services/{PATIENT_VIEW}"


@pytest.fixture(scope="module")
def key() -> Key:
    return signing_key("ES384", "2026/a+b=")  # Epic's key ids are base64


@pytest.fixture
def signed(servers: Callable[..., Server], key_server: KeyServer, key: Key, tmp_path: Path) -> Callable[..., Server]:
    """Starts servers that know one EHR by its key server."""

    def make(more: str = "", workers: int = 1) -> Server:
        key_server.body = public_set(key)
        config = tmp_path / "cds.toml"
        config.write_text(
            f'trust = "jwt"\npublic_url = "{PUBLIC}"\n'
            f'[[ehr]]\nnamespace = "north"\nissuer = "{ISSUER}"\njwks_url = "{key_server.url}"\n'
            f'fhir_base = "https://fhir.ehr.example.org/r4"\n{more}'
        )
        return servers(workers=workers, environment={"CDS_CONFIG": str(config), "CDS_TRUST": "jwt"})

    return make


def call(server: Server, bearer: str, **members: Any) -> httpx.Response:
    body = hook("aisha-t.patient-view", **members)
    body.pop("fhirServer", None)
    body.pop("fhirAuthorization", None)
    body |= members
    with httpx.Client(trust_env=False, timeout=30) as fresh:  # a connection of its own: another worker may get it
        return fresh.post(f"{server.url}{DOOR}", json=body, headers={"Authorization": f"Bearer {bearer}"})


def discover(server: Server, bearer: str) -> httpx.Response:
    return server.http.get("/cds-services", headers={"Authorization": f"Bearer {bearer}"})


def bare(answer: httpx.Response) -> bytes:
    """A 401 without anything that tells one cause from another; gives its body."""
    assert outcome_of(answer, 401) == "authentication is required"
    assert answer.headers["www-authenticate"] == "Bearer"
    return answer.content


@pytest.mark.requirement("cds-hooks_2.0", "178", "198")
def test_each_door_takes_a_token_for_it_and_no_other(signed: Callable[..., Server], key: Key) -> None:
    server = signed()
    assert discover(server, token(key, f"{PUBLIC}/cds-services")).status_code == 200
    answer = call(server, token(key, [f"{PUBLIC}{DOOR}", "https://else.example.org"]))
    (card, *_) = answer.json()["cards"]
    for audience in (f"{PUBLIC}{DOOR}/feedback", f"{PUBLIC}{DOOR}"):
        given = server.http.post(
            f"{DOOR}/feedback",
            json={"feedback": [override(card)]},
            headers={"Authorization": f"Bearer {token(key, audience)}"},
        )
        assert given.status_code == 200, given.text
    bodies = {
        bare(call(server, token(key, f"{PUBLIC}/cds-services"))),
        bare(call(server, token(key, f"{server.url}{DOOR}"))),  # the Host header never is the audience
        bare(discover(server, token(key, f"{PUBLIC}{DOOR}"))),
        bare(server.http.get("/cds-services")),
        bare(server.http.post("/cds-services/no-such-service")),
        bare(call(server, token(key, f"{PUBLIC}{DOOR}", iss="https://else.example.org"))),
        bare(call(server, token(signing_key("ES384", str(key.kid)), f"{PUBLIC}{DOOR}"))),
    }
    assert len(bodies) == 1
    assert "aud is another endpoint" in server.told()
    assert "the signature is not of this key" in server.told()


def test_a_token_is_good_once_across_workers_and_restarts(signed: Callable[..., Server], key: Key) -> None:
    server = signed(workers=2)
    used = token(key, f"{PUBLIC}{DOOR}")
    with ThreadPoolExecutor(12) as clients:
        answers = [each.result() for each in [clients.submit(call, server, used) for _ in range(12)]]
    assert sorted(answer.status_code for answer in answers) == [200, *[401] * 11]
    seen = token(key, f"{PUBLIC}/cds-services")
    assert [discover(server, seen).status_code for _ in range(3)] == [200, 401, 401]
    again = token(key, f"{PUBLIC}{DOOR}", jti="the-same")
    assert call(server, again).status_code == 200
    assert call(server, token(key, f"{PUBLIC}{DOOR}", jti="the-same", tenant="x")).status_code == 401
    server.kill()
    server.start()
    bare(call(server, used))
    bare(discover(server, seen))
    assert call(server, token(key, f"{PUBLIC}{DOOR}")).status_code == 200
    assert "the token was used before" in server.told()
    with sqlite3.connect(server.data_dir / "cds.db") as database:
        answered = database.execute("SELECT count(*) FROM call WHERE outcome <> 'refused'").fetchone()[0]
        landed = database.execute("SELECT count(*) FROM landing").fetchone()[0]
    assert (answered, landed) == (3, 3)  # a replay leaves nothing


def test_a_key_is_rotated_without_a_restart_and_a_flood_of_key_ids_is_not_passed_on(
    signed: Callable[..., Server], key: Key, key_server: KeyServer
) -> None:
    server = signed()
    assert call(server, token(key, f"{PUBLIC}{DOOR}")).status_code == 200
    fresh = signing_key("RS384", "next")
    key_server.body = public_set(fresh)
    assert call(server, token(fresh, f"{PUBLIC}{DOOR}")).status_code == 200
    bare(call(server, token(key, f"{PUBLIC}{DOOR}")))  # taken back with the rotation
    for number in range(20):
        bare(discover(server, token(key, f"{PUBLIC}/cds-services", header={"kid": f"invented-{number}"})))
    assert 2 <= len(key_server.asked) <= 6
    assert call(server, token(fresh, f"{PUBLIC}{DOOR}")).status_code == 200


def test_no_token_nor_its_parts_are_kept(signed: Callable[..., Server], key: Key) -> None:
    server = signed()
    used = token(key, f"{PUBLIC}{DOOR}", jti="a-nonce-to-look-for")
    assert call(server, used).status_code == 200
    bare(call(server, used))
    server.stop()
    kept = b"".join(path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file()) + server.told().encode()
    for part in (*used.split("."), "a-nonce-to-look-for"):
        assert part.encode() not in kept


def test_an_ehr_names_only_its_own_fhir_servers(signed: Callable[..., Server], key: Key) -> None:
    server = signed('fhir_servers = ["https://fhir2.ehr.example.org/r4"]\n')
    for allowed in ("https://fhir.ehr.example.org/r4/", "https://fhir2.ehr.example.org/r4"):
        assert call(server, token(key, f"{PUBLIC}{DOOR}"), fhirServer=allowed).status_code == 200
    for other in (
        "https://fhir.ehr.example.org",
        "http://169.254.169.254/latest",
        "https://fhir.ehr.example.org.evil/r4",
    ):
        said = outcome_of(call(server, token(key, f"{PUBLIC}{DOOR}"), fhirServer=other), 403)
        assert "not one that is registered" in said
        assert other not in said


def test_a_request_has_an_id_in_and_out_and_in_the_log(signed: Callable[..., Server], key: Key) -> None:
    server = signed()
    given = server.http.get("/cds-services", headers={"X-Request-ID": "0190f3c2-5b1e-7c3a-9d42-8f60c1d2e3f4"})
    assert given.headers["x-request-id"] == "0190f3c2-5b1e-7c3a-9d42-8f60c1d2e3f4"
    for claimed in ("Jane Doe, born 1965", "Jane.Doe", "MRN-12345678", "1234567890"):
        own = server.http.get("/healthz", headers={"X-Request-ID": claimed})
        assert len(own.headers["x-request-id"]) == 32
    until(lambda: own.headers["x-request-id"] in server.told())  # the line follows the answer
    told = [line for line in server.told().splitlines() if "0190f3c2-5b1e-7c3a-9d42-8f60c1d2e3f4" in line]
    assert any('"event": "caller not believed"' in line for line in told)
    assert any('"event": "request answered"' in line and '"status": 401' in line for line in told)
    assert "Jane" not in server.told()
    assert "12345678" not in server.told()
