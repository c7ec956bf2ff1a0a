"""The door to onnxruntime: nothing is loaded that the manifest does not name, nothing is run that it does not state."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.errors import ContractMismatch, DigestMismatch, ModelFault
from models.fusion import head_shapes
from models.runtime import Session
from models.training import head

INPUTS, OUTPUTS = head_shapes(1)
BODY = head.build(["clinical"], [0.0], {frozenset({"clinical"}): head.Row(0.0, {"clinical": 1.0})})
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "head.onnx"
    path.write_bytes(BODY)
    return path


def test_right_file_runs(file: Path) -> None:
    session = Session(file, DIGEST, inputs=INPUTS, outputs=OUTPUTS)
    p, logit, *_ = session.run({"z": np.array([[0.0]]), "avail": np.array([[1.0]])})
    assert (p.item(), logit.item()) == (0.5, 0.0)


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"\0", b"", bytes([BODY[0] ^ 1]) + BODY[1:]])
def test_truncated_or_changed_file_is_refused_before_it_is_parsed(file: Path, body: bytes) -> None:
    file.write_bytes(body)
    with pytest.raises(DigestMismatch, match=r"head\.onnx is not the one that its manifest names"):
        Session(file, DIGEST, inputs=INPUTS, outputs=OUTPUTS)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFault, match=r"model file gone\.onnx is missing"):
        Session(tmp_path / "gone.onnx", DIGEST, inputs=INPUTS, outputs=OUTPUTS)


def test_bytes_that_are_no_graph_are_refused(file: Path) -> None:
    file.write_bytes(b"not a graph")
    with pytest.raises(ContractMismatch, match="not a graph that can be run"):
        Session(file, hashlib.sha256(b"not a graph").hexdigest(), inputs=INPUTS, outputs=OUTPUTS)


def test_inputs_and_outputs_are_those_of_the_manifest(file: Path) -> None:
    with pytest.raises(ContractMismatch, match=r"inputs of head\.onnx .*: x"):
        Session(file, DIGEST, inputs={**INPUTS, "x": ["N", 1]}, outputs=OUTPUTS)
    with pytest.raises(ContractMismatch, match=r"outputs of head\.onnx .*: contrib"):
        Session(file, DIGEST, inputs=INPUTS, outputs={**OUTPUTS, "contrib": ["N", 2]})


def test_wrong_feed_is_a_fault_of_the_model(file: Path) -> None:
    session = Session(file, DIGEST, inputs=INPUTS, outputs=OUTPUTS)
    with pytest.raises(ModelFault, match="could not be run"):
        session.run({"z": np.array([[0.0, 1.0]]), "avail": np.array([[1.0]])})


def test_nouns_and_shelf_do_not_load_the_runtime() -> None:
    program = "import sys, models.nouns, models.shelf; sys.exit('onnxruntime' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_scoring_does_not_load_what_training_needs() -> None:
    program = (
        "import sys, models.scoring, models.table; sys.exit('onnx' in sys.modules or 'models.training' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_runtime_tells_its_maker_nothing(tmp_path: Path) -> None:
    """Telemetry is on by default: a file that names this machine, a queue, and uploads."""
    work = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import models.runtime, onnxruntime; "
        "onnxruntime.InferenceSession(open(sys.argv[2], 'rb').read(), providers=['CPUExecutionProvider']); "
        "places = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
        "if os.path.lexists(f'/proc/self/fd/{n}')]; "
        "assert not any('onnxruntime' in place for place in places), places"
    )
    (tmp_path / "head.onnx").write_bytes(BODY)
    home = tmp_path / "home"
    home.mkdir()
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", work, str(root), str(tmp_path / "head.onnx")],
        env={"HOME": str(home), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
