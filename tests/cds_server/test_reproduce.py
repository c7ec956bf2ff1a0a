"""Scored again: bit for bit, within a stated epsilon, or not, and why; the models of then are never lost."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cds_server.__main__ import main
from cds_server.apart import EPSILON, apart
from cds_server.app import Parts, build
from cds_server.audit import audit
from cds_server.checkpoints import Checkpoints
from cds_server.decisions import INFERENCE
from cds_server.kept import needed
from cds_server.registry import Registry
from cds_server.reproduce import Recorded, Verdict, all_refs, attempt, load, reproduce
from cds_server.runtimes import changed, runtime_id, stated
from cds_server.sampled import audit_sample, drawn
from cds_server.settings import Settings
from cds_server.settings import load as settings_from
from cds_server.store.vault import object_ref
from models.canonical import canonical
from models.modalities import clinical
from models.shelf import SHIPPED, Shelf
from tests.cds_server.conftest import UNHURRIED
from tests.cds_server.test_registry import called

MODEL = "predict-breast"


def settings_of(data_dir: Path) -> Settings:
    url = f"sqlite:///{data_dir / 'cds.db'}"
    return settings_from({}, data_dir=data_dir, database_url=url, trust="open", deadline_ms=UNHURRIED)


@pytest.fixture(scope="module")
def inferred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an instance that answered seven calls."""
    data_dir = tmp_path_factory.mktemp("inferred") / "var"
    data_dir.mkdir(mode=0o700)
    called(build(settings_of(data_dir)))
    return data_dir


@pytest.fixture
def parts(inferred: Path, tmp_path: Path) -> Iterator[Parts]:
    """A copy of it, opened; the log of the copy must verify in the end."""
    data_dir = tmp_path / "copy"
    shutil.copytree(inferred, data_dir)
    built = build(settings_of(data_dir))
    yield built
    built.close()
    assert audit(data_dir, built.settings.database_url, deep=True).findings == ()


def elsewhere(parts: Parts, root: Path) -> Registry:
    """What a later program makes of the instance, which ships other models."""
    root.mkdir(exist_ok=True)
    return Registry(parts.store, Shelf((root,)), parts.registry.specs)


def of(parts: Parts, model: str = MODEL) -> Recorded:
    """An inference that spoke."""
    found = (load(parts.store, ref) for ref in all_refs(parts.store.reads))
    return next(each for each in found if each.model.startswith(f"{model}@") and b'"probability"' in each.judged)


def moved(recorded: Recorded, by: float) -> Recorded:
    """The same with a probability that is a little off."""
    judged = json.loads(recorded.judged)
    judged["score"]["probability"] += by
    return replace(recorded, judged=canonical(judged))


def test_a_runtime_is_compared_part_by_part() -> None:
    assert stated(runtime_id()).keys() == {"onnxruntime", "numpy", "python", "cds", "machine", "cpu"}
    assert changed(runtime_id(), runtime_id()) == ()
    now = "onnxruntime 2.0; numpy 2.3; machine Linux x86_64"
    assert changed("onnxruntime 1.9 Linux x86_64", now) == ("onnxruntime 1.9 then, 2.0 now",)
    assert changed("onnxruntime 2.0 Linux aarch64", now) == ("machine Linux aarch64 then, Linux x86_64 now",)


def test_outputs_are_held_apart_by_name_each_with_its_epsilon() -> None:
    then = {
        "score": {"logit": 400.0, "outputs": {"s": [0.5, 0.4]}, "model": "m"},
        "vectors": [{"modality": "a", "n": 1}],
    }
    now = {
        "score": {"logit": 400.0, "outputs": {"s": [0.5, 0.4 + 3e-10]}, "model": "m"},
        "vectors": [{"modality": "a", "n": 2}],
    }
    found = {each.output: each for each in apart(then, now)}
    assert found["score.logit"].epsilon == 400 * EPSILON
    assert found["score.outputs.s"].count == 2
    assert found["score.outputs.s"].within
    assert not found["vectors.a.n"].within
    (other,) = apart({"a": "x"}, {"a": "y"})
    assert math.isinf(other.distance)
    (gone,) = apart({"a": 1}, {})
    assert not gone.within
    (shorter,) = apart({"a": [1, 2]}, {"a": [1]})
    assert not shorter.within


def test_equal_names_every_output_and_its_epsilon(parts: Parts) -> None:
    assert reproduce(parts.registry, of(parts)).outputs == ()
    found = reproduce(parts.registry, of(parts), stated=True)
    assert (found.verdict, found.why, found.changed) == (Verdict.EQUAL, "equal, bit for bit", ())
    named = {each.output for each in found.outputs}
    assert {"score.probability", "score.logit", "score.outputs.survival_s"} <= named
    assert all(each.distance == 0.0 and each.epsilon > 0 for each in found.outputs)


def test_last_digits_may_differ_on_another_runtime_only(parts: Parts) -> None:
    near, far = moved(of(parts), 1e-12), moved(of(parts), 1e-4)
    assert reproduce(parts.registry, near).verdict is Verdict.DIFFERS
    other = "onnxruntime 0.1; numpy 0.1; machine Linux x86_64"
    within = reproduce(parts.registry, replace(near, runtime=other))
    assert within.verdict is Verdict.WITHIN
    assert within.held
    assert not within.equal
    assert within.why.startswith("within epsilon: score.probability by 1.0e-12 (epsilon 1e-09); onnxruntime 0.1 then")
    assert reproduce(parts.registry, replace(far, runtime=other)).verdict is Verdict.DIFFERS


def test_a_model_that_the_program_ships_no_more_is_scored_from_its_copy(parts: Parts, tmp_path: Path) -> None:
    later = elsewhere(parts, tmp_path / "shipped")
    assert {attempt(parts.store, later, ref).verdict for ref in all_refs(parts.store.reads)} == {Verdict.EQUAL}
    assert all(each.wrong is None for each in needed(parts.store, later.shelf))
    assert sum(each.inferences for each in needed(parts.store, later.shelf)) == 8


def test_another_model_of_the_same_name_is_not_taken_for_it(parts: Parts, tmp_path: Path) -> None:
    recorded, root = of(parts), tmp_path / "shipped"
    name, _, version = recorded.model.partition("@")
    shutil.copytree(SHIPPED / name / version, root / name / version)
    manifest = root / name / version / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    later = elsewhere(parts, root)
    assert later.scorer_of(name, version).model.manifest_digest != recorded.model_digest
    assert reproduce(later, recorded).verdict is Verdict.EQUAL


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_copy_that_is_lost_is_told_by_name(parts: Parts, tmp_path: Path, damage: str) -> None:
    recorded = of(parts)
    name, _, version = recorded.model.partition("@")
    copy = parts.store.data_dir / "models/.kept" / recorded.model_digest
    if damage == "gone":
        shutil.rmtree(copy)
    else:
        (copy / name / version / "clinical.onnx").write_bytes(b"another graph")
    later = elsewhere(parts, tmp_path / "shipped")
    found = attempt(parts.store, later, recorded.ref)
    assert found.verdict is Verdict.CANNOT
    assert found.why.startswith("cannot: no model of this name and version is on the shelf, and ")
    lost = {each.model: each.wrong for each in needed(parts.store, later.shelf)}
    assert lost[recorded.model] in ("no copy of it was kept", "the copy of it that was kept is damaged")
    assert needed(parts.store, parts.registry.shelf)[0].wrong is None  # the program still ships it
    parts.registry.scorer("breast-cancer-prognosis")  # and it is copied anew before it is used again
    assert attempt(parts.store, later, recorded.ref).verdict is Verdict.EQUAL


def test_a_copy_that_cannot_be_made_costs_no_card(tmp_path: Path) -> None:
    """Nothing can be written beside the store: the shelf still has the model, and doctor tells."""
    data_dir = tmp_path / "var"
    data_dir.mkdir(mode=0o700)
    (data_dir / "models").write_text("not a folder")
    built = build(settings_of(data_dir))
    try:
        assert built.registry.scorer("breast-cancer-prognosis").model.name == MODEL
    finally:
        built.close()


def test_a_changed_encoder_is_told_and_the_stored_features_are_scored(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clinical, "ENCODER", "0" * 64)
    found = reproduce(parts.registry, of(parts))
    assert found.verdict is Verdict.FEATURES
    assert not found.held
    assert "the encoder of modality clinical is not the one that the model was made with" in found.why
    assert found.why.endswith("scored from its stored features: the same numbers")
    assert reproduce(parts.registry, moved(of(parts), 1e-3)).verdict is Verdict.DIFFERS
    recurrence = of(parts, "breast-cancer-recurrence")
    assert reproduce(parts.registry, recurrence).verdict is Verdict.FEATURES


def test_an_erased_inference_says_so(parts: Parts) -> None:
    recorded = of(parts)
    parts.store.vault.keys.destroy([object_ref(INFERENCE, recorded.ref)])
    assert attempt(parts.store, parts.registry, recorded.ref).verdict is Verdict.ERASED


def test_a_sample_is_drawn_by_its_seed_and_is_on_record(parts: Parts) -> None:
    checkpoints = Checkpoints(parts.store)
    checkpoints.make()
    found = audit_sample(parts.store, parts.registry, checkpoints, 5, "2026", None, "user:auditor")
    assert (found.of, len(found.results), found.counts["equal"], found.ok) == (8, 5, 5, True)
    assert list(found.results) == drawn(parts.store, 5, "2026")[0] != drawn(parts.store, 5, "2027")[0]
    entry = parts.store.reads.entry(parts.store.reads.head()[0])
    assert entry is not None
    body = json.loads(entry.body)
    assert (body["kind"], body["actor"]) == ("audit", "user:auditor")
    assert body["detail"] == {"seed": "2026", "sample": 5, "of": 8, "found": {"equal": 5}}
    assert drawn(parts.store, 5, "2026", "9999-01-01T00:00:00.000000Z") == ([], 0)
    parts.store.vault.keys.destroy([object_ref(INFERENCE, next(iter(found.results)))])
    again = audit_sample(parts.store, parts.registry, checkpoints, 8, "2026", None, "user:auditor")
    assert (again.counts["erased"], again.counts["equal"], again.ok) == (1, 7, True)


def test_the_commands(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CDS_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("CDS_TRUST", "open")
    cds: Callable[..., Any] = lambda *words: (main(list(words)), capsys.readouterr().out)  # noqa: E731
    ref = of(parts).ref
    code, out = cds("inference", ref, "--reproduce")
    assert (code, out) == (0, f"{ref}: equal, bit for bit\n")
    code, out = cds("ledger", "audit", "--sample", "3", "--seed", "x", "--since", "2020-01-01")
    assert code == 0
    assert out == "3 of 8 inferences since 2020-01-01T00:00:00.000000Z, seed x: 3 equal bit for bit\n"
    assert main(["ledger", "audit", "--sample", "0"]) == 2
    parts.store.vault.keys.destroy([object_ref(INFERENCE, ref)])
    code, out = cds("inference", ref, "--reproduce", "--json")
    assert (code, json.loads(out)[ref]["verdict"]) == (1, "erased")
    code, out = cds("doctor", "--json")
    checks = {each["check"]: each for each in json.loads(out)}
    assert checks["past models"]["what"].endswith("made 8 inferences, all at hand")
