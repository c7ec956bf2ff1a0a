"""`cds conformance` against `cds serve`, two programs, as an integration team would run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cds_server.hooks.published import HOOKS
from tests.peers.server import Server
from tests.peers.tls import in_front_of

WITHOUT_DEADLINE = {"CDS_DEADLINE_MS": "60000"}
"""A loaded test machine is no reason for a partial answer."""


@pytest.mark.requirement("cds-hooks_2.0", "2", "168")
def test_our_server_passes_behind_tls(servers: Callable[..., Server], tmp_path: Path) -> None:
    """Every check, over HTTPS, of every service and every published hook."""
    server = servers(environment=WITHOUT_DEADLINE)
    with in_front_of(server.port, tmp_path) as front:
        report = server.ask("conformance", front.url, "--ca", front.authority)
    failed = [each for each in report["results"] if each["result"] == "failed"]
    assert (report["ok"], failed) == (True, [])
    called = {
        each["about"].partition("(")[2].rstrip(")") for each in report["results"] if each["check"].endswith(".01")
    }
    assert set(HOOKS) <= called
    (tls,) = (each for each in report["results"] if each["check"] == "1.01")
    assert tls["result"] == "passed"
    assert {each["check"] for each in report["results"] if each["result"] == "warned"} <= {"1.06", "4.11"}


def test_the_bodies_of_the_suite_are_answered(servers: Callable[..., Server], peer_data: Path) -> None:
    """As they are, where a service needs no data; with prefetch answered, by every service."""
    server = servers(environment=WITHOUT_DEADLINE)
    options = ("--requests", peer_data / "cds-hooks", "--suite")
    bare = server.ask("conformance", server.url, *options, "--service", "conformance")
    assert (bare["ok"], bare["counts"]["failed"]) == (True, 0)
    assert server.ask("conformance", server.url, *options, "--prefetch")["ok"]
    lacking = server.ask("conformance", server.url, *options, code=1)
    failed = {
        (each["about"].partition(" ")[0], each["what"]) for each in lacking["results"] if each["result"] == "failed"
    }
    assert failed == {
        ("breast-cancer-prognosis-order-sign", "status 412"),
        ("deterioration-news2-encounter-start", "status 412"),
        ("vte-risk-chemotherapy-order-select", "status 412"),
        ("vte-risk-chemotherapy-order-sign", "status 412"),
    }


def test_the_conformance_service_can_be_switched_off(servers: Callable[..., Server], peer_data: Path) -> None:
    server = servers(environment={"CDS_CONFORMANCE": "false"})
    listed = server.http.get("/cds-services").json()["services"]
    assert "conformance" not in {service["id"] for service in listed}
    body = json.loads((peer_data / "cds-hooks" / "encounter_discharge_hook_request.json").read_bytes())
    assert server.call(body, "conformance").status_code == 404


def test_it_is_refused_where_an_ehr_is_real(servers: Callable[..., Server], tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(
        '[[ehr]]\nnamespace = "a"\nissuer = "https://ehr.example"\njwks_url = "https://ehr.example/jwks"\n'
    )
    environment = {"CDS_CONFIG": str(config), "CDS_TRUST": "jwt", "CDS_CONFORMANCE": "true"}
    server = servers(start=False, environment=environment, sound=False)
    done = server.cds("serve", "--port", "0", code=2)
    assert "it is refused unless trust is 'open' or every [[ehr]] is one for tests" in done.stderr
