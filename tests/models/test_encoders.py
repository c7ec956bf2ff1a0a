"""A site's own image encoder: found by its digest, held to its manifest, run on tiles of a region."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from adapters.imaging.regions import Region
from adapters.imaging.tiles import Tiling, embedding, tiles_of, tiling_of
from adapters.imaging.volume import Grid, Volume
from models.encoders import load
from models.errors import ContractMismatch, DigestMismatch, ModelFault

SIDE, LENGTH = 8, 3
TILING = {"size": SIDE, "stride": SIDE, "low": 0, "high": 100, "mean": 0.5, "deviation": 0.25, "batch": 4}


def graph(kind: int = TensorProto.FLOAT) -> bytes:
    """A convolution with three fixed kernels and the mean over the tile: small, but what a real encoder does."""
    real = np.float32 if kind == TensorProto.FLOAT else np.float64
    kernels = np.random.default_rng(1).normal(size=(LENGTH, 1, 3, 3)).astype(real)
    made = helper.make_graph(
        [
            helper.make_node("Conv", ["tiles", "kernels"], ["seen"], pads=[1, 1, 1, 1]),
            helper.make_node("ReduceMean", ["seen", "axes"], ["vectors"], keepdims=0),
        ],
        "encoder",
        [helper.make_tensor_value_info("tiles", kind, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("vectors", kind, ["batch", LENGTH])],
        [numpy_helper.from_array(kernels, "kernels"), numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


BODY = graph()


def manifest(folder: Path, **changes: Any) -> Path:
    (folder / "encoder.onnx").write_bytes(BODY)
    made = {
        "name": "small", "version": "1.0", "graph": "encoder.onnx", "sha256": hashlib.sha256(BODY).hexdigest(),
        "input": "tiles", "output": "vectors", "length": LENGTH, "precision": "float", "tiling": TILING, **changes,
    }  # fmt: skip
    path = folder / "manifest.json"
    path.write_text(json.dumps(made))
    return path


@pytest.fixture(scope="module")
def region() -> Region:
    mask = np.zeros((3, 20, 20), bool)
    mask[:, 2:18, 2:18] = True
    mask[:, 3:10, 3:10] = False
    mask[:, 2, 2] = False
    return Region("r", "a region", mask, (1, 4, 5))


@pytest.fixture(scope="module")
def volume() -> Volume:
    values = np.random.default_rng(2).uniform(-20, 120, (5, 30, 28)).astype(np.float32)
    grid = Grid(values.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    return Volume(grid, values, "arbitrary", ())


def test_an_embedding_is_the_mean_vector_of_the_tiles(tmp_path: Path, volume: Volume, region: Region) -> None:
    encoder = load(manifest(tmp_path))
    assert (encoder.name, encoder.version, encoder.length) == ("small", "1.0", LENGTH)
    vector = embedding(volume, region, encoder)
    assert vector is not None
    every = np.concatenate([encoder.run(batch) for batch in tiles_of(volume, region, tiling_of(encoder.tiling))])
    assert vector == pytest.approx(every.mean(axis=0), rel=1e-12)
    kernels = np.random.default_rng(1).normal(size=(LENGTH, 1, 3, 3)).astype(np.float32)
    (first, *_), *_ = tiles_of(volume, region, tiling_of(encoder.tiling))
    padded = np.pad(first[0], 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    assert every[0] == pytest.approx([float((windows * k[0]).sum(axis=(2, 3)).mean()) for k in kernels], abs=1e-5)
    assert np.array_equal(vector, embedding(volume, region, load(manifest(tmp_path))))


def test_tiles_cover_the_region_and_nothing_else(volume: Volume, region: Region) -> None:
    batches = list(tiles_of(volume, region, Tiling(8, 8, 0, 100, 0.5, 0.25, batch=4)))
    assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)
    assert sum(map(len, batches)) == 3 * 9, "nine tiles a slice hold a voxel of it"
    tile = batches[0][0, 0]
    cut = np.clip(volume.values[1, 4:12, 5:13], 0, 100) / 100
    assert tile == pytest.approx((cut - 0.5) / 0.25, abs=1e-6)
    last = batches[-1][-1, 0]
    assert np.all(last[:, 7:] == pytest.approx(-2.0)), "beyond the image is the lowest value"


def test_many_tiles_are_thinned_evenly(volume: Volume) -> None:
    whole = Region("w", "all", np.ones(volume.grid.shape, bool), (0, 0, 0))
    made = list(tiles_of(volume, whole, Tiling(1, 1, 0, 100, batch=256)))
    assert sum(map(len, made)) == 4096


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sha256": "0" * 64}, DigestMismatch),
        ({"graph": "gone.onnx"}, ModelFault),
        ({"graph": "../encoder.onnx"}, ContractMismatch),
        ({"length": 4}, ContractMismatch),
        ({"length": 0}, ContractMismatch),
        ({"precision": "double"}, ContractMismatch),
        ({"input": "pixels"}, ContractMismatch),
        ({"tiling": {**TILING, "size": 16}}, ContractMismatch),
        ({"tiling": None}, ContractMismatch),
        ({"name": ""}, ContractMismatch),
    ],
)
def test_what_is_not_as_declared_is_not_run(tmp_path: Path, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        load(manifest(tmp_path, **changes))


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(ModelFault):
        load(path)
    for body in ("{", "[]"):
        path.write_text(body)
        with pytest.raises(ContractMismatch):
            load(path)


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"size": 8},
        {**TILING, "stride": 0},
        {**TILING, "low": 100},
        {**TILING, "deviation": 0},
        {**TILING, "size": "x"},
        {**TILING, "colour": 1},
        {**TILING, "size": 1 << 20},
    ],
)
def test_a_tiling_that_cannot_be(declared: dict[str, Any]) -> None:
    with pytest.raises(ContractMismatch):
        tiling_of(declared)


def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path, volume: Volume, region: Region) -> None:
    encoder = load(manifest(tmp_path))

    class Broken:
        name, version, digest, length, tiling = "b", "1", encoder.digest, LENGTH, encoder.tiling

        def run(self, tiles: np.ndarray) -> np.ndarray:
            return np.full((len(tiles), LENGTH), np.nan)

    with pytest.raises(ContractMismatch):
        embedding(volume, region, Broken())
