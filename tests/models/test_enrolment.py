"""What a folder must be before its model is enrolled; each broken one is refused with what and where."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import sampled_from

from models import enrolment, shelving
from models.codes import LOINC
from models.errors import CdsError, Conflict, ContractMismatch, DigestMismatch, ModelFault
from models.modalities import declared
from models.nouns import Fact, Score, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models import third_party
from tests.models.records import NOW, demographics, fact


def enrolled(root: Path, folder: Path) -> Scorer:
    submission = enrolment.read(folder)
    enrolment.free(submission, Shelf([root]))
    staged = shelving.stage(root, submission.manifest, submission.files)
    try:
        enrolment.check(submission, staged.path, staged.manifest_digest)
        staged.place()
    finally:
        staged.drop()
    shelf = Shelf([root])
    model = shelf.get("acme-anaemia")
    return Scorer(model, shelf.path(model))


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    return enrolled(tmp_path / "shelf", third_party.put(tmp_path / "vendor"))


def blood(*, haemoglobin: str = "9.5", effective: str = "2018-05-20", **members: Any) -> Fact:
    return fact(LOINC, "718-7", number=haemoglobin, unit=members.pop("unit", "g/dL"), effective=effective, **members)


def asked(*facts: Fact, born: str = "1965-01-01", sex: str = "female", **context: Any) -> Snapshot:
    every = Snapshot.ordered([*demographics(born=born, sex=sex), *facts])
    return Snapshot("person-1", ("record-1",), NOW, NOW, "acme-anaemia@1.0.0", every, context)


def expected(age: float, haemoglobin: float, platelets: float) -> float:
    row = zip(third_party.WEIGHTS, (age, haemoglobin, platelets), strict=True)
    return 1 / (1 + math.exp(-(third_party.INTERCEPT + sum(weight * value for weight, value in row))))


def test_an_enrolled_model_scores_facts_as_the_vendor_would(scorer: Scorer) -> None:
    count = fact(LOINC, "777-3", number="310", unit="10*3/uL", effective="2018-05-20")
    score = scorer.score(asked(blood(), count))
    assert score.probability == pytest.approx(expected(53, 9.5, 310), abs=1e-15)
    assert score.contributions[0].modality == declared.NAME
    assert score.interval is None


def test_what_the_manifest_calls_unknown_is_taken_and_marked(scorer: Scorer) -> None:
    judgement = scorer.judge(asked(blood()))
    platelets = judgement.vector(declared.NAME).feature("platelets")
    assert (platelets.missing, platelets.value, platelets.note) == (True, 250.0, "the mean is taken")
    assert judgement.score.probability == pytest.approx(expected(53, 9.5, 250), abs=1e-15)


def test_what_if_inputs_follow_the_rules_of_the_manifest(scorer: Scorer) -> None:
    score = scorer.score(asked(blood(), what_if={"haemoglobin": 14}))
    assert score.probability == pytest.approx(expected(53, 14, 250), abs=1e-15)


@pytest.mark.parametrize(
    ("facts", "person", "why"),
    [
        ((), {}, "required and not usable: haemoglobin"),
        ((blood(effective="2017-01-01"),), {}, "required and not usable: haemoglobin"),
        ((blood(haemoglobin="95"),), {}, "required and not usable: haemoglobin"),
        ((blood(unit="mmol/L"),), {}, "required and not usable: haemoglobin"),
        ((blood(haemoglobin="NaN"),), {}, "required and not usable: haemoglobin"),
        ((blood(), blood(haemoglobin="11")), {}, "required and not usable: haemoglobin"),
        ((blood(),), {"born": "2010-01-01"}, "the model is for persons of 18 to 90 years"),
        ((blood(),), {"born": ""}, "no usable date of birth: the model is for persons of 18 to 90 years"),
        ((blood(),), {"sex": "male"}, "the model is for persons whose sex is recorded as female"),
    ],
)
def test_outside_what_the_manifest_states_it_abstains(
    scorer: Scorer, facts: tuple[Fact, ...], person: dict[str, str], why: str
) -> None:
    score = scorer.score(asked(*facts, **person))
    assert score.abstained == why
    assert score.probability is None


def test_what_the_vendor_wrote_is_kept(tmp_path: Path) -> None:
    folder = third_party.put(tmp_path / "vendor")
    enrolled(tmp_path / "shelf", folder)
    kept = tmp_path / "shelf" / "acme-anaemia" / "1.0.0"
    assert (kept / "manifest.submitted.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert json.loads((kept / "manifest.json").read_text())["modalities"][0]["encoder"] == declared.ENCODER
    assert Shelf([tmp_path / "shelf"]).verify() == {"acme-anaemia@1.0.0": []}


def test_a_version_is_enrolled_once(tmp_path: Path) -> None:
    folder = third_party.put(tmp_path / "vendor")
    enrolled(tmp_path / "shelf", folder)
    with pytest.raises(Conflict, match="exists already"):
        enrolled(tmp_path / "shelf", folder)


def changed(**members: Any) -> dict[str, Any]:
    return {**third_party.manifest(), **members}


def part(**members: Any) -> dict[str, Any]:
    return changed(modalities=[{**third_party.manifest()["modalities"][0], **members}])


def features(**members: Any) -> dict[str, Any]:
    first, second = third_party.manifest()["modalities"][0]["features"]
    return part(features=[{**first, **members}, second])


def codes(*tokens: str) -> dict[str, Any]:
    return features(codes={"codes": list(tokens), "scope": "", "source": ""})


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        (changed(name="predict-breast"), "shipped with the program"),
        (changed(name="../up"), "name and version are lower-case"),
        (changed(version="1/../../2"), "name and version are lower-case"),
        (changed(licence=None), "lacks licence"),
        (changed(modalities=[]), "names no modality"),
        (changed(files={"model.onnx": "0" * 64, "MODEL_CARD.md": "0" * 64}), "not the file that the manifest names"),
        (changed(files={"../manifest.json": "0" * 64}), "plain names"),
        (changed(files={"none.onnx": "0" * 64}), "missing or cannot be read"),
        (changed(files={}), "without a card"),
        (changed(rules=[]), "rules have none for column age"),
        (part(name="astrology"), "a modality that this program does not have"),
        (part(encoder="0" * 64), "is not the one here"),
        (part(file="other.onnx"), "not among the files"),
        (part(inputs={"y": ["N", 3]}), "inputs of model.onnx are not those of the manifest"),
        (part(inputs={"x": ["N", 4]}), "inputs of model.onnx are not those of the manifest"),
        (part(outputs={"z": ["N", 2]}), "outputs of model.onnx are not those of the manifest"),
        (part(columns=["age", "haemoglobin", "colour"]), "no feature is stated for column colour"),
        (part(columns=["age", "haemoglobin"]), "could not be run on its inputs"),
        (features(name="not a name"), "no name that can be a column's"),
        (features(name="platelets"), "two features have one name"),
        (features(plausible=None), "does not state a plausible range"),
        (features(plausible=[9, 3]), "does not state a plausible range"),
        (features(units=[]), "neither numbers"),
        (features(colour="red"), "a member that is not known"),
        (features(max_age_hours="long"), "max_age_hours is of another type"),
        (codes(), "names no codes"),
        (codes("718-7"), "not system|code"),
        (codes("http://loinc.example|718-7"), "a system that is not known here"),
    ],
)
def test_a_broken_folder_is_refused_and_leaves_nothing(tmp_path: Path, stated: dict[str, Any], why: str) -> None:
    folder = third_party.put(tmp_path / "vendor", stated)
    with pytest.raises((ModelFault, Conflict), match=why):
        enrolled(tmp_path / "shelf", folder)
    assert not list((tmp_path / "shelf").glob("*"))


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (lambda: b"no graph", "is not a graph that can be run"),
        (lambda: third_party.linear(output="y"), "outputs of model.onnx are not those of the manifest"),
        (lambda: third_party.linear(columns=2), "inputs of model.onnx are not those of the manifest"),
        (lambda: third_party.linear(intercept=math.nan), "gives no number"),
        (lambda: third_party.linear() + b"\x0a\x08location", "keeps data in another file"),
    ],
)
def test_a_graph_that_is_not_the_stated_one_is_refused(tmp_path: Path, graph: Callable[[], bytes], why: str) -> None:
    folder = third_party.put(tmp_path / "vendor", model_onnx=graph())
    with pytest.raises(ContractMismatch, match=why):
        enrolled(tmp_path / "shelf", folder)
    assert not list((tmp_path / "shelf").glob("*"))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = third_party.put(tmp_path / "vendor")
    (folder / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ContractMismatch, match=r"not a plain file \(at model.onnx\)"):
        enrolment.read(folder)


def test_a_changed_graph_is_found_at_the_next_start(tmp_path: Path) -> None:
    enrolled(tmp_path / "shelf", third_party.put(tmp_path / "vendor"))
    (tmp_path / "shelf" / "acme-anaemia" / "1.0.0" / "model.onnx").write_bytes(third_party.linear(intercept=0.0))
    shelf = Shelf([tmp_path / "shelf"])
    model = shelf.get("acme-anaemia")
    with pytest.raises(DigestMismatch):
        Scorer(model, shelf.path(model))


def test_a_site_may_use_its_own_codes_where_it_says_so(tmp_path: Path) -> None:
    own = "http://hospital.example/tests"
    first, second = third_party.manifest()["modalities"][0]["features"]
    first["codes"]["codes"] = [f"{own}|hb"]
    stated = part(features=[first, second], own_systems=[own])
    scorer = enrolled(tmp_path / "shelf", third_party.put(tmp_path / "vendor", stated))
    score: Score = scorer.score(asked(fact(own, "hb", number="12", unit="g/dL", effective="2018-05-20")))
    assert score.probability == pytest.approx(expected(53, 12, 250), abs=1e-15)


SHAPES: list[Any] = [
    None, True, 0, -1, 1e308, "", "x", [], {}, [None], [{}], {"a": 1}, "../x", 10**30, [1, 2, 3], ["a"], [[1]], "\0",
]  # fmt: skip


def whole() -> dict[str, Any]:
    """A manifest with every member that one may have."""
    stated = third_party.manifest()
    stated["modalities"][0] |= {
        "curves": {},
        "explain": {"kind": "additive", "reference": {"age": 50, "haemoglobin": 13}, "text": "means"},
        "guard": [{"name": "age", "range": [18, 90], "title": "Age"}],
    }
    return {**stated, "table": {"modality": "declared", "defaults": {}, "outputs": [["z", "z"]]}}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inside:
        yield (*at, key)
        yield from places(member, (*at, key))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(place=sampled_from(list(places(whole()))), value=sampled_from(SHAPES))
def test_whatever_stands_in_a_manifest_it_is_refused_or_it_works(place: tuple[Any, ...], value: Any) -> None:
    stated: Any = whole()
    member = stated
    for key in place[:-1]:
        member = member[key]
    member[place[-1]] = value
    with TemporaryDirectory() as name:
        try:
            scorer = enrolled(Path(name) / "shelf", third_party.put(Path(name) / "vendor", stated))
        except CdsError:
            return
        told = [scorer.score(asked(blood())), scorer.score(asked())]
    assert all((score.abstained is None) == (score.probability is not None) for score in told)


def test_two_declared_modalities_have_names_of_their_own_and_bring_a_head(tmp_path: Path) -> None:
    first = {**third_party.manifest()["modalities"][0], "name": "blood", "encoded_by": "declared"}
    other = {**first, "name": "marrow"}
    alone = third_party.put(tmp_path / "alone", changed(modalities=[first]))
    assert enrolled(tmp_path / "shelf", alone).score(asked(blood())).contributions[0].modality == "blood"
    both = third_party.put(tmp_path / "both", changed(modalities=[first, other]))
    with pytest.raises(ContractMismatch, match="brings its own head"):
        enrolment.read(both)
    with pytest.raises(ContractMismatch, match="clinical is the name of another modality here"):
        enrolment.read(third_party.put(tmp_path / "taken", changed(modalities=[{**first, "name": "clinical"}])))
