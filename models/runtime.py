"""ONNX sessions. The only door to onnxruntime.

A file is read once, its SHA-256 is compared with the manifest's before a single byte is parsed, and the graph's inputs
and outputs are compared with the manifest's before a single number is scored. One thread, sequential: with one thread
and one row ONNX Runtime gives the same bits again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Since 1.29 it reports to its maker on Linux too, by default: an identifier and a queue in ~/.cache, a thread, uploads.
# It looks at this once, while it is loaded (microsoft/onnxruntime pull request 27379).
import onnxruntime

from models.errors import ContractMismatch, DigestMismatch, ModelFault

Array = npt.NDArray[np.float64]
Shape = Sequence[int | str]

VERSION: str = onnxruntime.__version__


class Session:
    """One verified graph, ready to run."""

    def __init__(
        self,
        path: Path,
        digest: str,
        *,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        single: bool = False,
    ) -> None:
        """Load `path`.

        `inputs` and `outputs` are name -> shape as the manifest states them; all are float64 (`single`: float32, for
        encoders of images), and free dimensions are named by text. Raises: DigestMismatch, ContractMismatch; ModelFault
        where the file is missing.
        """
        self.name = path.name
        body = read_verified(path, digest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = (
            single  # malloc is quicker for a few numbers; pictures are worth keeping room for
        )
        try:
            session = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  onnxruntime raises a dozen unrelated classes
            raise ContractMismatch(f"{self.name} is not a graph that can be run ({type(error).__name__})") from None
        _agree(self.name, "inputs", session.get_inputs(), inputs, single)
        _agree(self.name, "outputs", session.get_outputs(), outputs, single)
        self._run = session._sess.run  # past a wrapper that looks for missing inputs, which this refuses as well
        self._outputs = list(outputs)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs in the manifest's order. Raises: ModelFault where the graph refuses its inputs."""
        try:
            results: list[Array] = self._run(self._outputs, feeds, None)
        except Exception as error:  # noqa: BLE001  as above
            raise ModelFault(f"{self.name} could not be run on its inputs ({type(error).__name__})") from None
        return results


def read_verified(path: Path, digest: str) -> bytes:
    """The bytes of a model file, if they are the ones that the manifest names."""
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise ModelFault(f"model file {path.name} is missing", where=path.parent.name) from None
    except OSError as error:
        raise ModelFault(f"model file {path.name} cannot be read ({type(error).__name__})") from None
    if hashlib.sha256(body).hexdigest() != digest:
        raise DigestMismatch(f"model file {path.name} is not the one that its manifest names", where=path.parent.name)
    return body


def _agree(file: str, side: str, found: Sequence[Any], stated: Mapping[str, Shape], single: bool) -> None:
    kind = "tensor(float)" if single else "tensor(double)"
    actual = {value.name: (value.type, list(value.shape)) for value in found}
    expected = {name: (kind, list(shape)) for name, shape in stated.items()}
    if actual != expected:
        names = sorted(set(actual) ^ set(expected)) or sorted(n for n in actual if actual[n] != expected[n])
        raise ContractMismatch(f"{side} of {file} are not those of the manifest: {', '.join(names)}")
