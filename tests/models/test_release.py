"""What every release carries: a card that answers every question, and a bill of what it was built with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from models.errors import Misconfigured
from models.nouns import ModelVersion
from models.shelf import Shelf
from models.training import attributes, sbom, sources
from models.training.attributes import HTI1, UNAVAILABLE, UNKNOWN

MODELS = Shelf().all()


@pytest.fixture(params=MODELS, ids=[model.id for model in MODELS])
def model(request: pytest.FixtureRequest) -> ModelVersion:
    found: ModelVersion = request.param
    return found


@pytest.fixture
def card(model: ModelVersion) -> str:
    return (Shelf().path(model) / "MODEL_CARD.md").read_text()


@pytest.fixture
def bill(model: ModelVersion) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Shelf().path(model) / sbom.NAME).read_text())
    return found


def test_there_are_31_attributes_in_nine_paragraphs() -> None:
    assert len(HTI1) == len({attribute.key for attribute in HTI1}) == 31
    paragraphs = [attribute.clause[1] for attribute in HTI1]
    assert [paragraphs.count(str(number)) for number in range(1, 10)] == [4, 4, 2, 4, 2, 4, 5, 4, 2]


def test_each_attribute_is_answered_or_said_to_be_open(model: ModelVersion, card: str) -> None:
    for attribute, answer in attributes.hti1(model.manifest):
        assert answer.strip()
        assert answer != UNAVAILABLE or attribute.may_be_open
        assert attribute.asks in card
    table = card.split("## HTI-1 source attributes")[1].split("\n## ")[0]
    assert len([line for line in table.splitlines() if line.startswith("| ") and "| (" in line]) == 31
    assert UNKNOWN in card


def test_each_field_of_the_applied_model_card_is_there(card: str) -> None:
    table = card.split("## CHAI applied model card")[1]
    for section, fields in attributes.CHAI:
        for field, _ in fields:
            assert f"| {section} | {field} | " in table


def test_no_answer_is_given_to_a_question_that_nobody_asks(model: ModelVersion) -> None:
    asked = {attribute.key for attribute in HTI1} | {key for _, fields in attributes.CHAI for _, key in fields}
    assert set(model.manifest.get("card", {})) <= asked


def test_manifest_says_how_it_was_made(model: ModelVersion, card: str) -> None:
    training = model.manifest["training"]
    assert training["threads"] == 1
    assert all(len(digest) == 64 for digest in (*training["sources"].values(), *training["data"].values()))
    for name, version in training["libraries"].items():
        assert f"{name} {version}" in card
    for name, seed in training["seeds"].items():
        assert f"{name} {seed}" in card
    for text in model.manifest.get("attributions", ()):
        assert text in card
    for metric in model.manifest.get("metrics", ()):
        assert metric["what"] in card


def test_bill_names_libraries_with_the_hashes_of_the_lock(model: ModelVersion, bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]
    by_name = {part["name"]: part for part in bill["components"] if part["type"] == "library"}
    assert set(model.manifest["training"]["libraries"]) <= set(by_name)
    for name, part in by_name.items():
        pin = sbom.locked()[name][part["version"]]
        assert part["purl"] == f"pkg:pypi/{name}@{part['version']}"
        assert [each["content"] for each in part["hashes"]] == list(pin.hashes)
        assert pin.hashes
    refs = [part["bom-ref"] for part in bill["components"]]
    assert len(set(refs)) == len(refs)
    assert bill["dependencies"][0]["dependsOn"] == refs


def test_bill_names_the_files_of_the_model(model: ModelVersion, bill: dict[str, Any]) -> None:
    stated = {part["name"]: part["hashes"][0]["content"] for part in bill["metadata"]["component"]["components"]}
    assert stated == {name: digest for name, digest in model.files.items() if name not in ("MODEL_CARD.md", sbom.NAME)}
    for name, digest in stated.items():
        assert hashlib.sha256((Shelf().path(model) / name).read_bytes()).hexdigest() == digest


def test_needs_of_a_library_are_in_the_bill() -> None:
    names = {pin.name for pin in sbom._closure(("scikit-learn",))}
    assert {"scikit-learn", "scipy", "joblib", "threadpoolctl", "numpy"} <= names
    assert "pytest" not in names


def test_a_library_that_is_not_locked_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="pytest is not in the lock"):
        sbom.versions(["pytest"])
    empty = tmp_path / "lock.txt"
    empty.write_text("# nothing\n")
    with pytest.raises(Misconfigured, match="pins nothing"):
        sbom.locked(empty)


def test_libraries_are_read_from_the_imports() -> None:
    assert "scikit-learn" in sources.libraries("models.training.nuclear_morphometry")
    assert "survset" in sources.libraries("models.training.nuclear_morphometry")
    assert "scikit-learn" not in sources.libraries("models.training.release_cgm_summary")
