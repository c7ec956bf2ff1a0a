"""The case pages over a real store, and a session that is given: what A's launches prove is theirs to test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from cds_server import wire
from cds_server.app import Parts, create_app
from cds_server.checkpoints import Checkpoints
from cds_server.desk.wiring import case_routes
from models.errors import NotFound, Unauthenticated
from smart_app import rendering
from smart_app.desk import Case, Door, Role, Viewer
from tests.peers import ROOT

PROGNOSIS = "/cds-services/breast-cancer-prognosis"
NAMESPACE = "sandbox"
CLINICIAN = frozenset({Role.CLINICIAN})
ANNA = Viewer("https://ehr.example/Practitioner/anna", "Dr. Anna Weber", CLINICIAN, Door.SMART_APP, NAMESPACE)
BEN = replace(ANNA, subject="https://ehr.example/Practitioner/ben", name="Dr. Ben Okafor")


class GivenSessions:
    """Sessions that a test opened: launch id -> case."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}

    async def case(self, request: Request) -> Case:
        case = self.cases.get(request.path_params["launch_id"])
        if case is None:
            raise NotFound("no such launch")
        if request.headers.get("x-test-gone"):
            raise Unauthenticated(cause="a test says so")
        return case

    def open(self, parts: Parts, patient: str, viewer: Viewer = ANNA, namespace: str = NAMESPACE, **more: Any) -> Case:
        record = parts.store.reads.record(namespace, patient)
        assert record is not None
        name = f"{len(self.cases) + 1:032x}"
        case = Case(name, viewer, record.ref, csrf=f"token-{name}", **more)
        self.cases[name] = case
        return case


def case_app(parts: Parts, sessions: GivenSessions) -> Starlette:
    checkpoints = Checkpoints(parts.store, parts.settings.public_url)
    kept = (parts.store, parts.settings, parts.registry, parts.decisions, parts.access, checkpoints)
    app = Starlette(routes=[*rendering.routes(), *case_routes(*kept, sessions, parts.metrics.acted)])
    wire.install(app)
    return app


def fixture(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((ROOT / f"fixtures/hooks/{name}.json").read_bytes())
    return body


def call(parts: Parts, service: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One hook call as an EHR makes it; gives the answer. The parts stay open: no lifespan is run."""
    answer = TestClient(create_app(parts), client=("127.0.0.1", 5000)).post(service, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def sized(name: str, cm: float) -> dict[str, Any]:
    """The fixture's request, with another size of the tumour."""
    body: dict[str, Any] = json.loads(json.dumps(fixture(name)).replace('"value": 2.5', f'"value": {cm}'))
    return body
