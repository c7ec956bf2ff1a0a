"""Reading on demand from somebody else's FHIR server, between real processes: `cds serve` here, sekmet-fhir there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers.fhir_server import TOKEN, FhirPeer
from tests.peers.server import Server, hook, of_inference, outcome_of

PATIENT = "jenny-m"


@pytest.fixture
def chart(fhir_peer: FhirPeer) -> FhirPeer:
    """The peer holds what the client of this patient's call would have sent."""
    for value in hook("jenny-m.patient-view")["prefetch"].values():
        for resource in [entry["resource"] for entry in value["entry"]] if "entry" in value else [value]:
            fhir_peer.put(resource)
    return fhir_peer


@pytest.fixture
def reading(servers: Callable[..., Server], chart: FhirPeer, tmp_path: Path) -> Server:
    config = tmp_path / "cds.toml"
    config.write_text(f'[[ehr]]\nnamespace = "sandbox"\nfhir_base = "{chart.base}"\n')
    server: Server = servers(environment={"CDS_CONFIG": str(config)})
    return server


def call(chart: FhirPeer, token: str = TOKEN, **prefetch: Any) -> dict[str, Any]:
    """A call of a client that sends only what is named here."""
    granted = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "patient/*.read",
        "subject": "cds",
    }
    members: dict[str, Any] = {"prefetch": prefetch} if prefetch else {}
    body = hook("jenny-m.patient-view", fhirServer=chart.base, fhirAuthorization=granted)
    del body["prefetch"]
    return body | members


@pytest.mark.requirement("cds-hooks_2.0", "34", "61", "63")
def test_without_any_prefetch_the_card_is_the_same(reading: Server, chart: FhirPeer) -> None:
    sent = reading.call(hook("jenny-m.patient-view")).json()["cards"][0]
    answer = reading.call(call(chart))
    read = answer.json()["cards"][0]
    assert read["summary"] == sent["summary"]
    assert read["summary"].startswith("Estimated 10-year survival")
    assert reading.cds("inference", of_own(answer), "--reproduce").returncode == 0
    everything = [path.read_bytes() for path in reading.data_dir.rglob("*") if path.is_file()]
    assert everything
    assert not any(TOKEN.encode() in kept for kept in everything)
    assert TOKEN not in reading.told()
    assert TOKEN not in reading.http.get("/metrics").text


def of_own(answer: Any) -> str:
    items = answer.json()["extension"]["org.cds-server.inferences"]["items"]
    return str(items[0]["id"] if len(items) > 1 else of_inference(answer)["id"])


@pytest.mark.requirement("cds-hooks_2.0", "48")
def test_pages_of_the_peer_are_followed(reading: Server, chart: FhirPeer) -> None:
    """The client sends the first four observations and leaves the rest to us, as a client may."""
    first = chart.search(f"Observation?patient={PATIENT}&_count=4")
    assert any(link["relation"] == "next" for link in first["link"])
    sent = reading.call(hook("jenny-m.patient-view")).json()["cards"][0]
    card = reading.call(call(chart, observations=first)).json()["cards"][0]
    assert card["summary"] == sent["summary"]
    assert "page" not in card["detail"]


@pytest.mark.requirement("cds-hooks_2.0", "54")
def test_a_token_that_the_peer_does_not_take(reading: Server, chart: FhirPeer) -> None:
    told = outcome_of(reading.call(call(chart, token="tok-of-yesterday-01")), 412)  # noqa: S106
    assert "patient (did not come: the FHIR server answered 401)" in told
    assert "observations (did not come: the FHIR server answered 401)" in told
    assert "yesterday" not in told + reading.told()
