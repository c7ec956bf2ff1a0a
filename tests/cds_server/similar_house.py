"""A house with fifteen women who differ in the size of the tumour, and its page of similar patients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.testclient import TestClient

from cds_server import wire
from cds_server.app import Parts, build, create_app
from cds_server.backlog import digest_backlog
from cds_server.settings import Settings, load
from cds_server.similar.wiring import SimilarPatients
from smart_app import rendering
from tests.cds_server.case_app import ANNA, NAMESPACE, PROGNOSIS, GivenSessions, fixture
from tests.cds_server.stores import land


def hook(number: int) -> dict[str, Any]:
    """One of many women who differ in the size of the tumour."""
    text = (
        json.dumps(fixture("maria-k.patient-view")).replace("maria-k", f"pat-{number}").replace("MRN", f"MRN{number}-")
    )
    body: dict[str, Any] = json.loads(text)
    for entry in body["prefetch"]["observations"]["entry"]:
        told = entry["resource"]
        if told["id"].endswith("tumor-size"):
            told["component"][0]["valueQuantity"]["value"] = 13 + 3 * number  # from the thirteenth on above 50 mm
        if told["id"].endswith("her2"):
            del told["dataAbsentReason"]
            told["valueCodeableConcept"] = {"coding": [{"system": "http://loinc.org", "code": "LA6577-6"}]}
    body["hookInstance"] = f"00000000-0000-4000-8000-{number:012}"
    return body


class House:
    def __init__(self, settings: Settings) -> None:
        self.parts: Parts = build(settings)
        self.server = TestClient(create_app(self.parts), client=("127.0.0.1", 5000))
        self.server.__enter__()
        self.sessions = GivenSessions()
        self.patients = SimilarPatients(
            self.parts.store,
            settings,
            self.parts.registry,
            self.parts.decisions,
            self.parts.access,
            self.sessions,
        )
        self.app = app = Starlette(routes=[*self.patients.routes(), *rendering.routes()])
        wire.install(app)
        self.client = TestClient(app)
        for number in range(1, 16):
            assert self.server.post(PROGNOSIS, json=hook(number)).status_code == 200

    def page(self, patient: str = "pat-1", query: str = "", **viewer: Any) -> Any:
        case = self.sessions.open(self.parts, patient, replace(ANNA, **viewer))
        return self.client.get(f"/app/{case.id}/similar{query}")

    def land(self, *resources: dict[str, Any]) -> None:
        land(self.parts.store, *resources, namespace=NAMESPACE)
        digest_backlog(self.parts.store, frozenset(), "user:test")

    def close(self) -> None:
        self.patients.close()
        self.server.__exit__(None, None, None)


def deceased(number: int, dead: bool) -> dict[str, Any]:
    patient: dict[str, Any] = {**hook(number)["prefetch"]["patient"], "deceasedBoolean": dead}
    return patient


def made(folder: Path) -> House:
    config = folder / "cds.toml"
    config.write_text("")
    url = f"sqlite:///{folder / 'cds.db'}"
    return House(load({"CDS_CONFIG": str(config)}, data_dir=folder, database_url=url, trust="open", deadline_ms=30_000))
