"""Which model a service uses, and whether it speaks: pins and switches are entries, seen by other processes at once."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server import registry as registry_module
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.registry import Registry
from cds_server.reproduce import all_refs, cards_of, load, reproduce
from cds_server.settings import Settings
from models.errors import DigestMismatch, KeysUnavailable, ModelFault, NotFound
from models.nouns import ModelVersion, Snapshot
from models.shelf import SHIPPED, Shelf
from tests.cds_server.stores import ACTOR
from tests.peers import ROOT

SERVICE = "breast-cancer-prognosis"


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    parts = build(settings)
    yield parts
    parts.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def hook(patient: str = "jenny-m") -> dict[str, Any]:
    return dict(json.loads((ROOT / f"fixtures/hooks/{patient}.patient-view.json").read_bytes()))


def client_of(parts: Parts) -> TestClient:
    """A caller on loopback; leaving it stops the application, which closes the parts."""
    return TestClient(create_app(parts), client=("127.0.0.1", 5000))


def kinds(parts: Parts) -> list[str]:
    return [json.loads(entry.body)["kind"] for entry in parts.store.reads.entries()]


def test_the_first_start_pins_and_the_second_does_not(parts: Parts, settings: Settings) -> None:
    assert kinds(parts) == ["pin"] * len(parts.registry.needed())
    assert parts.registry.pins()[SERVICE, "predict-breast"] == "3.2.0"
    again = build(settings)
    assert again.store.reads.head() == parts.store.reads.head()
    again.close()


def test_a_switch_is_an_entry_and_another_process_sees_it_within_a_second(parts: Parts, settings: Settings) -> None:
    other = build(settings)  # what `cds service stop` opens
    with client_of(parts) as client:
        assert client.post(f"/cds-services/{SERVICE}", json=hook()).json()["cards"]
        for state, cards in (("stopped", 0), ("started", 1)):
            seq = other.registry.switch(SERVICE, state, "a drill", ACTOR)
            entry = other.store.reads.entry(seq)
            assert entry is not None
            body = json.loads(entry.body)
            assert (body["kind"], body["actor"], body["detail"]) == (f"service-{state}", ACTOR, {"service": SERVICE})
            time.sleep(registry_module.FRESH * 2)
            answer = client.post(f"/cds-services/{SERVICE}", json=hook())
            assert (answer.status_code, len(answer.json()["cards"])) == (200, cards)
        calls = other.store.reads.query("SELECT outcome FROM call ORDER BY id")
        assert [row[0] for row in calls] == ["answered", "stopped", "answered"]
    other.close()
    with pytest.raises(NotFound):
        parts.registry.switch("no-such-service", "stopped", None, ACTOR)


def test_a_model_of_another_name_is_refused(parts: Parts) -> None:
    model = parts.registry.shelf.get("predict-breast", None)
    before = parts.store.reads.head()
    other = ModelVersion("khorana", model.version, model.manifest_digest, model.files, model.manifest)
    with pytest.raises(NotFound, match="written for the model predict-breast"):
        parts.registry.use(SERVICE, other, ACTOR)
    with pytest.raises(NotFound, match="no such service"):
        parts.registry.use("nothing", model, ACTOR)
    assert parts.store.reads.head() == before
    seq = parts.registry.use(SERVICE, model, ACTOR)
    entry = parts.store.reads.entry(seq)
    assert entry is not None
    assert json.loads(entry.body)["detail"] == {
        "service": SERVICE,
        "model": model.id,
        "digest": model.manifest_digest,
    }


@pytest.fixture
def own_shelf(parts: Parts, settings: Settings) -> Path:
    """The shipped model enrolled once more, as 3.2.1, in the data directory; its folder."""
    folder = settings.data_dir / "models" / "predict-breast" / "3.2.1"
    shutil.copytree(SHIPPED / "predict-breast" / "3.2.0", folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["version"] = "3.2.1"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_tampered_model_file_is_refused_and_the_server_lives(
    parts: Parts, settings: Settings, own_shelf: Path
) -> None:
    fresh = Registry(parts.store, Shelf((SHIPPED, *settings.model_roots)), parts.registry.specs)
    fresh.use(SERVICE, fresh.shelf.get("predict-breast", "3.2.1"), ACTOR)
    graph = min(own_shelf.glob("*.onnx"))
    graph.chmod(0o644)
    good = graph.read_bytes()
    graph.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    other = build(settings)
    with pytest.raises(DigestMismatch, match=graph.name):
        other.registry.scorer(SERVICE)
    with TestClient(create_app(other), client=("127.0.0.1", 5000)) as client:
        answer = client.post(f"/cds-services/{SERVICE}", json=hook())
        assert answer.status_code == 500
        assert answer.json()["resourceType"] == "OperationOutcome"
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        (row,) = parts.store.reads.query("SELECT outcome, status FROM call ORDER BY id DESC LIMIT 1")
        assert tuple(row) == ("failed", 500)
        graph.write_bytes(good)
        assert client.post(f"/cds-services/{SERVICE}", json=hook()).json()["cards"]


# ---- reproduce -------------------------------------------------------------------------------------------------------


def called(parts: Parts) -> None:
    with client_of(parts) as client:
        for path in sorted((ROOT / "fixtures/hooks").glob("*.patient-view.json")):
            assert client.post(f"/cds-services/{SERVICE}", json=json.loads(path.read_bytes())).status_code == 200


def test_every_inference_comes_out_the_same_bits(settings: Settings) -> None:
    called(build(settings))
    parts = build(settings)
    refs = all_refs(parts.store.reads)
    assert len(refs) == 8  # seven calls, one of a patient with genomic results
    for ref in refs:
        recorded = load(parts.store, ref)
        assert reproduce(parts.registry, recorded).why == "equal, bit for bit"
        shown = cards_of(parts.store, recorded.id)
        if shown:
            assert load(parts.store, shown[0]["card"]["uuid"]).ref == ref
        elif recorded.model.startswith("predict-breast@"):
            assert recorded.plain()["score"]["abstained"] == "no invasive breast cancer is recorded"
    with pytest.raises(NotFound):
        load(parts.store, "no-such-inference")
    parts.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_another_snapshot_score_or_model_is_noticed(settings: Settings) -> None:
    from dataclasses import replace

    called(build(settings))
    parts = build(settings)
    recorded = next(r for r in (load(parts.store, ref) for ref in all_refs(parts.store.reads)) if r.snapshot.facts)
    fewer = recorded.snapshot.but(facts=recorded.snapshot.facts[1:])
    assert isinstance(fewer, Snapshot)
    assert "does not come out" in reproduce(parts.registry, replace(recorded, snapshot=fewer)).why
    altered = replace(recorded, judged=recorded.judged.replace(b"1", b"2", 1))
    assert reproduce(parts.registry, altered).why.startswith("differs, on the same runtime: ")
    elsewhere = reproduce(parts.registry, replace(altered, runtime="onnxruntime 0 Other"))
    assert elsewhere.why.startswith("differs: ")
    assert elsewhere.changed[0].startswith("onnxruntime 0 then, ")
    assert "another one than then" in reproduce(parts.registry, replace(recorded, model_digest="0" * 64)).why
    gone = reproduce(parts.registry, replace(recorded, model="predict-breast@9.9.9"))
    assert not gone.equal
    assert gone.why.startswith("cannot: ")
    parts.close()


def test_a_snapshot_altered_in_the_database_does_not_open(settings: Settings) -> None:
    called(build(settings))
    parts = build(settings)
    ref = all_refs(parts.store.reads)[0]
    database = parts.store.database
    with database.engine.begin() as connection:
        if database.sqlite:
            connection.exec_driver_sql("DROP TRIGGER snapshot_no_update")
        else:
            connection.exec_driver_sql("DROP TRIGGER snapshot_insert_only ON snapshot")
            connection.exec_driver_sql("GRANT UPDATE ON snapshot TO CURRENT_USER")
        connection.exec_driver_sql(
            "UPDATE snapshot SET sealed = (SELECT sealed FROM inference LIMIT 1) "
            "WHERE id = (SELECT MIN(id) FROM snapshot)"
        )
    with pytest.raises(KeysUnavailable, match="was changed"):
        load(parts.store, ref)
    (finding,) = audit(settings.data_dir, settings.database_url).findings
    assert "of table snapshot was edited or added" in str(finding)
    parts.close()


def test_a_service_without_a_model_says_so(parts: Parts) -> None:
    with pytest.raises(ModelFault, match="no model version is pinned"):
        parts.registry.scorer("no-such-service")
