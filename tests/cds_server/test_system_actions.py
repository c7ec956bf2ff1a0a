"""System actions: only of a service that opted in, on record with everything else, and never an empty member."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server import app
from cds_server.audit import audit
from cds_server.hooks.cards import Action, ActionType
from cds_server.hooks.routes import INFERENCES
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.reproduce import load, system_actions_of
from cds_server.services import all_services
from cds_server.settings import Settings
from models.nouns import Judgement
from tests.cds_server.played import request
from tests.cds_server.wire_checks import check_response

SIGNING = "breast-cancer-prognosis-order-sign"
PLACE = "/cds-services/" + SIGNING


def annotate(judgement: Judgement, guide: CardGuide) -> tuple[Action, ...]:
    if judgement.score.abstained is not None:
        return ()
    note = {"text": f"Seen by inference {guide.inference}"}
    order = {"resourceType": "ServiceRequest", "id": "draft-1", "status": "draft", "intent": "order", "note": [note]}
    return (Action(ActionType.UPDATE, "Annotate the draft", resource=order),)


@pytest.mark.requirement("cds-hooks_2.0", "75")
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_system_actions_leave_with_the_answer_and_stand_in_the_record(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opted_in(**more: Any) -> tuple[ServiceSpec, ...]:
        return tuple(
            replace(spec, system_actions=annotate) if spec.id == SIGNING else spec for spec in all_services(**more)
        )

    monkeypatch.setattr(app, "all_services", opted_in)
    parts = app.build(settings)
    with TestClient(app.create_app(parts), client=("127.0.0.1", 5000)) as client:
        told = client.post(PLACE, json=request("jenny-m.order-sign")).json()
        assert check_response(told) == []
        (action,) = told["systemActions"]
        item = told["extension"][INFERENCES]["items"][0]
        assert action["resource"]["note"][0]["text"].endswith(item["id"])
        assert system_actions_of(parts.store, load(parts.store, item["id"]).id) == [action]
        entry = parts.store.reads.entry(item["seq"])
        assert entry is not None
        assert len(json.loads(entry.body)["detail"]["system_actions"]) == 1
        silent = client.post(PLACE, json=request("tomas-v.order-sign")).json()
        assert "systemActions" not in silent
        assert (
            "systemActions"
            not in client.post("/cds-services/breast-cancer-prognosis", json=request("jenny-m.patient-view")).json()
        )
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()
