"""`cds models enrol` as a site uses it: a vendor's folder in, a version on record, a fixture patient scored by it."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cds_server.settings import Settings
from cds_server.store.store import Store
from tests.cds_server.test_commands import FIXTURES, Cds, cds
from tests.models import third_party
from tests.models.test_enrolment import expected

__all__ = ["cds"]

TODAY = datetime.now(UTC).date()
AGE = TODAY.year - 1965
"""Of Jenny M, born on 1 January 1965."""
BLOOD = {
    "resourceType": "Observation",
    "id": "vendor-hb",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
    "subject": {"reference": "Patient/jenny-m"},
    "effectiveDateTime": TODAY.isoformat(),
    "valueQuantity": {"value": 9.5, "unit": "g/dL", "system": "http://unitsofmeasure.org", "code": "g/dL"},
}


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    Store.open(settings.data_dir, settings.database_url).close()
    return third_party.put(tmp_path / "vendor")


def enrolments(settings: Settings) -> list[dict[str, Any]]:
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        found = [json.loads(entry.body) for entry in store.reads.entries()]
        return [body["detail"] for body in found if body["kind"] == "enrol"]
    finally:
        store.close()


def test_a_vendors_model_runs_without_a_line_of_code(
    cds: Cds, folder: Path, settings: Settings, tmp_path: Path
) -> None:
    answer = cds.json("models", "enrol", folder)
    assert (answer["model"], answer["modalities"]) == ("acme-anaemia@1.0.0", ["declared"])
    assert cds.json("models", "verify")["acme-anaemia@1.0.0"] == []
    (entry,) = enrolments(settings)
    assert (entry["model"], entry["digest"]) == ("acme-anaemia@1.0.0", answer["digest"])

    rows = tmp_path / "rows.csv"
    rows.write_text("age,haemoglobin,platelets\n61,9.5,250\n40,13,310\n")
    cds("models", "run", "acme-anaemia", "--features", rows, "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as out:
        z = [float(row["z"]) for row in csv.DictReader(out)]
    assert z == pytest.approx([1.5 + 0.02 * 61 - 0.3 * 9.5 + 0.25, 1.5 + 0.02 * 40 - 0.3 * 13 + 0.31], abs=1e-12)


def test_a_fixture_patient_is_scored_beside_the_fused_risk(cds: Cds, folder: Path, tmp_path: Path) -> None:
    cds("models", "enrol", folder)
    blood = tmp_path / "blood.ndjson"
    blood.write_text(json.dumps(BLOOD) + "\n")
    cds("land", FIXTURES / "jenny-m.bundle.json", blood, "--namespace", "sandbox")
    cds("digest")
    answer = cds.json("score", "acme-anaemia@1.0.0", "--patient", "sandbox/jenny-m")
    assert answer["cards"] == []
    assert answer["score"]["probability"] == pytest.approx(expected(AGE, 9.5, 250), abs=1e-12)
    assert "probability" in cds("score", "acme-anaemia@1.0.0", "--patient", "sandbox/jenny-m")


def test_no_service_takes_an_enrolled_model_by_itself(cds: Cds, folder: Path) -> None:
    cds("models", "enrol", folder)
    cds("models", "use", "breast-cancer-prognosis", "acme-anaemia@1.0.0", code=1)
    assert "written for the model predict-breast" in cds.err
    cds("models", "enrol", folder, code=4)
    assert "never changed" in cds.err


def test_a_refused_folder_leaves_no_entry_and_no_file(cds: Cds, folder: Path, settings: Settings) -> None:
    (folder / "model.onnx").write_bytes(third_party.linear(intercept=0.0))
    cds("models", "enrol", folder, code=1)
    assert cds.err == "cds models: is not the file that the manifest names (at model.onnx)\n"
    cds("models", "enrol", folder / "none", code=1)
    assert not list(settings.model_roots[0].glob("**/*.onnx"))
    assert enrolments(settings) == []
