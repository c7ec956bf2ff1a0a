"""Inferences as FHIR from a real instance: valid, on record as an export, without a name where none is wanted."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.readers.validation import validate
from cds_server.__main__ import main
from cds_server.app import build
from cds_server.checkpoints import Checkpoints
from cds_server.ledger.verifier import leaf_hash, open_checkpoint, parse_proof, verify_inclusion
from cds_server.reproduce import all_refs, load
from tests.cds_server.test_registry import called
from tests.cds_server.test_reproduce import settings_of


@pytest.fixture(scope="module")
def inferred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("inferred") / "var"
    data_dir.mkdir(mode=0o700)
    called(build(settings_of(data_dir)))
    return data_dir


@pytest.fixture
def cds(inferred: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("CDS_DATA_DIR", str(inferred))
    monkeypatch.setenv("CDS_TRUST", "open")

    def run(*words: str | Path, code: int = 0) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        return capsys.readouterr().out

    return run


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_inference_is_exported_and_valid(cds: Any, tmp_path: Path, inferred: Path) -> None:
    told = cds("ledger", "export", "--format", "fhir-inferences", "--out", tmp_path / "all.ndjson")
    found = lines(tmp_path / "all.ndjson")
    assert [problem for each in found for problem in validate(each)] == []
    kinds = [each["resourceType"] for each in found]
    assert f"{kinds.count('Provenance')} Provenance" in told
    assert kinds.count("RiskAssessment") + kinds.count("GuidanceResponse") == kinds.count("Provenance") == 8
    assert 0 < kinds.count("Observation") <= kinds.count("RiskAssessment")
    assert {"reference": "Patient/jenny-m"} in [each.get("subject") for each in found]
    cds("ledger", "export", "--format", "fhir-inferences", "--out", tmp_path / "all.ndjson", code=2)
    parts = build(settings_of(inferred))
    try:
        act, records = parts.store.reads.query(
            "SELECT a.act, COUNT(r.id) FROM access a JOIN access_record r ON r.access_id = a.id "
            "GROUP BY a.id, a.act ORDER BY a.id DESC LIMIT 1"
        )[0]
        assert (act, records) == ("export", 7)
        keys = Checkpoints(parts.store).signing_keys()
        for each in found:
            if each["resourceType"] == "Provenance":
                proof = parse_proof(base64.b64decode(each["signature"][0]["data"]))
                head = open_checkpoint(proof.note, keys)
                assert proof.body is not None
                verify_inclusion(leaf_hash(proof.body), proof.place, head.size, head.root, proof.hashes)
                assert json.loads(proof.body)["detail"]["inference"] in each["target"][0]["reference"]
    finally:
        parts.close()


def test_pseudonyms_name_nobody(cds: Any, tmp_path: Path) -> None:
    cds("ledger", "export", "--format", "fhir-inferences", "--pseudonymous", "--out", tmp_path / "some.ndjson")
    text = (tmp_path / "some.ndjson").read_text(encoding="utf-8")
    assert [problem for each in lines(tmp_path / "some.ndjson") for problem in validate(each)] == []
    assert "Patient/" not in text
    assert "jenny" not in text
    assert "Estimated" not in text
    assert "urn:cds-server:record" in text
    cds("ledger", "export", "--format", "fhir-inferences", "--since", "2999-01-01", "--out", tmp_path / "none.ndjson")
    assert lines(tmp_path / "none.ndjson") == []


def test_one_is_printed_as_a_bundle(cds: Any, inferred: Path) -> None:
    parts = build(settings_of(inferred))
    ref = next(r for r in all_refs(parts.store.reads) if b'"probability"' in load(parts.store, r).judged)
    parts.close()
    bundle = json.loads(cds("inference", ref, "--fhir"))
    assert validate(bundle) == []
    risk, *_, provenance = (each["resource"] for each in bundle["entry"])
    assert risk["id"] == ref
    assert provenance["target"][0]["reference"] == f"RiskAssessment/{ref}"
    assert risk["prediction"][0]["probabilityDecimal"] <= 100
    assert any(each["reference"].startswith("Observation/") for each in risk["basis"])
    assert risk["note"][0]["text"].startswith("Estimated 10-year survival")
