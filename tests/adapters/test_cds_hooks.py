"""What a hook request's prefetch states, and what its context does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.readers import cds_hooks
from models import strict
from models.errors import Unreadable
from models.nouns import Part

PATIENT = {"resourceType": "Patient", "id": "p1"}
OBSERVATION = {"resourceType": "Observation", "id": "o1"}
OUTCOME = {"resourceType": "OperationOutcome", "issue": []}


def read(prefetch: Any) -> list[tuple[str, str]]:
    found = cds_hooks.read_request({"hook": "patient-view", "prefetch": prefetch})
    return [(f"{s.resource_type}/{s.local_id}", s.pointer) for s in found]


def searchset(*resources: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": each} for each in resources]}


@pytest.mark.parametrize(
    ("prefetch", "expected"),
    [
        (None, []),
        ({}, []),
        ({"patient": None}, []),
        ({"patient": OUTCOME}, []),
        ({"patient": PATIENT}, [("Patient/p1", "/prefetch/patient")]),
        ({"o": searchset()}, []),
        ({"o": {"resourceType": "Bundle", "type": "searchset", "total": 0}}, []),
        ({"o": searchset(OUTCOME, OBSERVATION)}, [("Observation/o1", "/prefetch/o/entry/1/resource")]),
        ({"a/b~c": PATIENT}, [("Patient/p1", "/prefetch/a~1b~0c")]),
        ({"a": PATIENT, "b": PATIENT}, [("Patient/p1", "/prefetch/a")]),
        (
            {"a": PATIENT, "b": {**PATIENT, "gender": "female"}},
            [("Patient/p1", "/prefetch/a"), ("Patient/p1", "/prefetch/b")],
        ),
    ],
)
def test_prefetch(prefetch: Any, expected: list[tuple[str, str]]) -> None:
    assert read(prefetch) == expected


@pytest.mark.parametrize(
    ("prefetch", "where"),
    [
        ([], "/prefetch"),
        ({"a": "text"}, "/prefetch/a"),
        ({"a": [PATIENT]}, "/prefetch/a"),
        ({"a": {}}, "/prefetch/a/resourceType"),
        ({"a": searchset({"resourceType": "Observation"})}, "/prefetch/a/entry/0/resource/id"),
        ({"a": {"resourceType": "Bundle", "entry": "x"}}, "/prefetch/a/entry"),
    ],
)
def test_what_cannot_be_read_names_the_place(prefetch: Any, where: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        read(prefetch)
    assert refusal.value.where == where


def test_drafts_are_never_statements() -> None:
    body = {
        "context": {"draftOrders": searchset({"resourceType": "MedicationRequest", "id": "d1"})},
        "prefetch": {"patient": PATIENT},
    }
    part = Part("0" * 32, 0, "n", cds_hooks.REQUEST, "2026-11-21T10:00:00.000000Z", json.dumps(body).encode())
    assert [s.local_id for s in cds_hooks.read(part)] == ["p1"]


def test_requests_written_by_others(peer_data: Path) -> None:
    """Bodies of the Inferno CRD test kit: each is read, or refused with a place."""
    read_in_full, refused = 0, []
    for path in sorted((peer_data / "cds-hooks").glob("*_hook_request.json")):
        try:
            cds_hooks.read_request(strict.loads(path.read_bytes()))
            read_in_full += 1
        except Unreadable as refusal:
            refused.append(str(refusal.where))
    assert read_in_full >= 6
    assert all(where.startswith("/prefetch/") for where in refused)
