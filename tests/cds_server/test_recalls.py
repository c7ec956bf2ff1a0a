"""Truth over time: whoever was shown a card that rests on what was corrected since, somebody hears of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from starlette.testclient import TestClient

from adapters.readers.fhir import ENTRY
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.recalls import CORRECTED, RECALL, Recaller
from cds_server.settings import Settings
from tests.cds_server.stores import JOINING, land_parts, learn
from tests.cds_server.test_decisions import SERVICE, hook

BOTH = [RECALL, CORRECTED]
"""The prognosis, whose card was shown, and the recurrence that was judged beside it and has no card of its own."""
WITHDRAWN = b'{"request": {"method": "DELETE", "url": "Observation/%s"}}'


def observation(prefix: str) -> dict[str, Any]:
    """One of those that the call brings."""
    entries = hook(2.5)["prefetch"]["observations"]["entry"]
    return next(copy.deepcopy(e["resource"]) for e in entries if e["resource"]["id"].startswith(prefix))


def size(cm: float, **more: Any) -> dict[str, Any]:
    """The tumour's size, as a correction of the laboratory would bring it."""
    changed = observation("tumor-size")
    for component in (changed, *changed.get("component", [])):
        if "valueQuantity" in component and component["code"]["coding"][0]["code"] == "33728-7":
            component["valueQuantity"]["value"] = cm
    return {**changed, **more}


@pytest.fixture
def called(settings: Settings) -> Any:
    """A server that has answered a call about Jenny M, and digested what it brought."""
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        assert client.post(SERVICE, json=hook(2.5)).json()["cards"]
        digest_backlog(parts.store, JOINING, "system")
        assert look(parts) == []
        yield parts
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def look(parts: Parts) -> list[str]:
    """What the recaller finds now, and everything that it found before."""
    recaller = Recaller(parts.store, parts.registry)
    while recaller.some():
        pass
    return [row[0] for row in parts.store.reads.query("SELECT reason FROM flag ORDER BY id")]


def test_a_corrected_size_recalls_the_card(called: Parts) -> None:
    learn(called.store, size(4.5), namespace="sandbox")
    assert look(called) == BOTH
    (inference,) = called.store.reads.query("SELECT inference_id FROM flag ORDER BY id")[0]
    assert called.store.reads.one("SELECT service FROM inference WHERE id = ?", (inference,)) == (
        "breast-cancer-prognosis",
    )


def test_the_same_value_in_another_version_is_no_correction(called: Parts) -> None:
    learn(called.store, size(2.5, note=[{"text": "typed again"}]), namespace="sandbox")
    assert look(called) == []


def test_a_correction_that_changes_no_card_is_told_and_recalls_nothing(called: Parts) -> None:
    """Twenty-five millimetres and a hundredth: the survival in whole percents is the same."""
    learn(called.store, size(2.501), namespace="sandbox")
    assert look(called) == [CORRECTED, CORRECTED]


def test_a_result_that_is_withdrawn_recalls_the_card(called: Parts) -> None:
    land_parts(called.store, [WITHDRAWN % size(2.5)["id"].encode()], namespace="sandbox", media_type=ENTRY)
    digest_backlog(called.store, JOINING, "system")
    assert look(called) == BOTH


def test_a_result_that_was_entered_in_error_recalls_the_card(called: Parts) -> None:
    learn(called.store, size(2.5, status="entered-in-error"), namespace="sandbox")
    assert look(called) == BOTH


def test_each_inference_is_flagged_once_and_a_restart_goes_on_where_it_was(called: Parts) -> None:
    for cm in (4.5, 5.5, 6.5):
        learn(called.store, size(cm), namespace="sandbox")
        assert look(called) == BOTH


def test_another_patients_correction_flags_nobody(called: Parts) -> None:
    other = size(4.5, id="somebody-elses", subject={"reference": "Patient/other"})
    learn(called.store, {"resourceType": "Patient", "id": "other"}, other, namespace="sandbox")
    learn(called.store, {**other, "status": "amended"}, namespace="sandbox")
    assert look(called) == []


def test_what_was_corrected_before_the_call_flags_nothing(settings: Settings) -> None:
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        learn(parts.store, size(6.5), namespace="sandbox")
        learn(parts.store, size(2.5), namespace="sandbox")
        assert client.post(SERVICE, json=hook(2.5)).json()["cards"]
        digest_backlog(parts.store, JOINING, "system")
        assert look(parts) == []
