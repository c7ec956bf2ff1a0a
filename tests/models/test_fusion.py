"""The head: contributions that add up, masked slots that cannot leak, patterns that were not validated."""

from __future__ import annotations

import hashlib
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ContractMismatch, ModelFault
from models.fusion import Head, head_shapes
from models.runtime import Session
from models.training import head

NAMES = ("clinical", "genomic", "imaging")
CENTRES = (-1.1, 0.2, 0.3)
PATTERNS = [frozenset(c) for n in (1, 2, 3) for c in itertools.combinations(NAMES, n)]


def row(pattern: frozenset[str]) -> head.Row:
    weights = {name: 0.83 / (1 + NAMES.index(name)) for name in pattern}
    return head.Row(-1.0 + 0.1 * len(pattern), weights, 0.3 / len(pattern))


ROWS = {pattern: row(pattern) for pattern in PATTERNS}
Z = {"clinical": 0.4, "genomic": -2.0, "imaging": 7.25}
GARBAGE = (math.nan, math.inf, -math.inf, 1e308)
number = st.floats(-50, 50)


def make(folder: Path, patterns: list[frozenset[str]]) -> Head:
    body = build(folder, patterns)
    manifest: dict[str, Any] = {
        "file": "head.onnx",
        "modalities": list(NAMES),
        "patterns": [sorted(pattern) for pattern in patterns],
    }
    return Head(manifest, {"head.onnx": body}, folder)


def build(folder: Path, patterns: list[frozenset[str]]) -> str:
    """Write `head.onnx`; its digest."""
    body = head.build(NAMES, CENTRES, {pattern: ROWS[pattern] for pattern in patterns})
    (folder / "head.onnx").write_bytes(body)
    return hashlib.sha256(body).hexdigest()


def graph(folder: Path, patterns: list[frozenset[str]]) -> Session:
    inputs, outputs = head_shapes(len(NAMES))
    return Session(folder / "head.onnx", build(folder, patterns), inputs=inputs, outputs=outputs)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return graph(tmp_path_factory.mktemp("graph"), PATTERNS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Head:
    return make(tmp_path_factory.mktemp("head"), PATTERNS)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: "+".join(sorted(pattern)))
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_a_masked_slot_changes_no_bit(session: Session, pattern: frozenset[str], garbage: float) -> None:
    def run(filler: float) -> list[bytes]:
        z = np.array([[Z[name] if name in pattern else filler for name in NAMES]])
        avail = np.array([[float(name in pattern) for name in NAMES]])
        return [output.tobytes() for output in session.run({"z": z, "avail": avail})]

    assert run(garbage) == run(0.0)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: "+".join(sorted(pattern)))
def test_each_pattern_follows_its_equation(whole: Head, pattern: frozenset[str]) -> None:
    score = whole.fuse("m@1", {name: Z[name] if name in pattern else None for name in NAMES}, {}, {})
    row = ROWS[pattern]
    expected = row.base + sum(row.weights[n] * (Z[n] - CENTRES[NAMES.index(n)]) for n in NAMES if n in pattern)
    assert score.logit == pytest.approx(expected, abs=1e-12)
    assert score.probability == pytest.approx(1 / (1 + math.exp(-expected)), abs=1e-12)
    assert score.interval is not None
    low, high = score.interval
    assert low < (score.probability or 0) < high
    assert [c.amount for c in score.contributions if c.modality not in pattern] == [0.0] * (3 - len(pattern))


@given(z=st.tuples(number, number, number), there=st.sampled_from(PATTERNS))
def test_contributions_add_up_exactly(whole: Head, z: tuple[float, ...], there: frozenset[str]) -> None:
    values = {name: value if name in there else None for name, value in zip(NAMES, z, strict=True)}
    score = whole.fuse("m@1", values, {}, {})
    total = score.base
    for contribution in score.contributions:
        total += contribution.amount
    assert total == score.logit


@given(z=number, more=st.floats(0, 10))
def test_a_higher_modality_never_lowers_the_risk(whole: Head, z: float, more: float) -> None:
    low, high = (whole.fuse("m@1", {**Z, "genomic": value}, {}, {}).logit for value in (z, z + more))
    assert low is not None
    assert high is not None
    assert low <= high


def test_pattern_that_was_not_validated_abstains_and_is_nan_in_the_graph(tmp_path: Path) -> None:
    clinical_only = make(tmp_path, [frozenset({"clinical"})])
    score = clinical_only.fuse("m@1", {"genomic": 1.0}, {"clinical": "no tumour"}, {})
    assert score.abstained == "the model is not validated for genomic alone: no tumour"
    alone = graph(tmp_path, [frozenset({"clinical"})])
    p = alone.run({"z": np.zeros((1, 3)), "avail": np.array([[0.0, 1.0, 0.0]])})[0]
    assert math.isnan(p.item())


def test_nothing_available_abstains_with_the_reasons(whole: Head) -> None:
    assert (
        whole.fuse("m@1", {}, {"genomic": "no panel", "clinical": "no tumour"}, {}).abstained == "no tumour; no panel"
    )
    assert whole.fuse("m@1", {}, {}, {}).abstained == "no modality is available"


def test_modality_without_a_number_is_a_fault(whole: Head) -> None:
    with pytest.raises(ModelFault, match="modality genomic gave no number"):
        whole.fuse("m@1", {**Z, "genomic": math.nan}, {}, {})


def test_weights_are_not_negative() -> None:
    with pytest.raises(ValueError, match="not negative"):
        head.Row(0.0, {"clinical": -0.1})


def test_head_with_a_pattern_of_strangers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractMismatch, match="pattern"):
        Head({"file": "h", "modalities": ["clinical"], "patterns": [["genomic"]]}, {"h": ""}, tmp_path)


COVARIANCE = ((0.01, 0.002), (0.002, 0.04))
LONE = head.Row(-1.0, {"genomic": 0.5}, 0.4, 40, {"clinical": 0.9, "imaging": 0.2}, COVARIANCE)


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> Head:
    """A head with one pattern, that publishes a band, moves, and too few events."""
    folder = tmp_path_factory.mktemp("banded")
    rows = {frozenset({"genomic"}): LONE}
    body = head.build(NAMES, CENTRES, rows)
    (folder / "head.onnx").write_bytes(body)
    manifest = {"file": "head.onnx", **head.stated(NAMES, rows, 50)}
    return Head(manifest, {"head.onnx": hashlib.sha256(body).hexdigest()}, folder)


def test_band_is_that_of_the_covariance(banded: Head) -> None:
    z = 1.7
    away = z - CENTRES[1]
    logit = -1.0 + 0.5 * away
    half = head.TWO_SIDED_95 * math.sqrt(0.01 + 2 * away * 0.002 + away**2 * 0.04)
    band = banded.fuse("m@1", {"genomic": z}, {}, {}).band
    assert band == (
        pytest.approx(1 / (1 + math.exp(half - logit)), abs=1e-12),
        pytest.approx(1 / (1 + math.exp(-half - logit)), abs=1e-12),
    )


def test_too_few_events_are_marked_and_moves_are_ordered(banded: Head) -> None:
    score = banded.fuse("m@1", {"genomic": 1.0}, {}, {})
    assert not score.validated
    assert [(move.modality, move.half_width) for move in score.moves] == [("clinical", 0.9), ("imaging", 0.2)]
    assert score.interval != score.band


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_a_masked_slot_does_not_reach_the_band(garbage: float, tmp_path: Path) -> None:
    (tmp_path / "head.onnx").write_bytes(body := head.build(NAMES, CENTRES, {frozenset({"genomic"}): LONE}))
    inputs, outputs = head_shapes(3, band=True)
    lone = Session(tmp_path / "head.onnx", hashlib.sha256(body).hexdigest(), inputs=inputs, outputs=outputs)
    avail = np.array([[0.0, 1.0, 0.0]])
    clean, dirty = (
        [each.tobytes() for each in lone.run({"z": np.array([[filler, 1.7, filler]]), "avail": avail})]
        for filler in (0.0, garbage)
    )
    assert clean == dirty


def test_head_without_a_band_publishes_none(whole: Head) -> None:
    score = whole.fuse("m@1", Z, {}, {})
    assert score.band is None
    assert score.validated
    assert score.moves == ()


def test_covariance_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="one line and column"):
        head.Row(0.0, {"clinical": 0.1}, covariance=((0.1,),))
