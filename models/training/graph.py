"""A few words over onnx.helper, so that a graph reads as its equations: all values are float64, but for indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class Graph:
    """Collects nodes and constants; names are counted, so the same calls give the same bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[TensorProto] = []

    def constant(self, value: npt.ArrayLike, *, index: bool = False) -> str:
        """A float64 (or int64) constant; equal constants are stored once."""
        array = np.asarray(value, dtype="<i8" if index else "<f8")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"k{len(self._constants)}"
            self._constants[key] = name
            self._initializers.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def _operand(self, value: str | float) -> str:
        return value if isinstance(value, str) else self.constant(value)

    def __call__(self, op: str, *inputs: str | float, out: str | None = None, **attributes: int) -> str:
        """One node with one output; plain numbers become constants."""
        name = out or f"v{len(self._nodes)}"
        operands = [self._operand(item) for item in inputs]
        self._nodes.append(helper.make_node(op, operands, [name], None, None, None, None, **attributes))
        return name

    def total(self, *terms: str | float) -> str:
        """The terms added from left to right."""
        sum_ = self._operand(terms[0])
        for term in terms[1:]:
            sum_ = self("Add", sum_, term)
        return sum_

    def columns(self, source: str, names: Sequence[str]) -> dict[str, str]:
        """The columns of [N, F] as [N, 1] each."""
        sizes = self.constant([1] * len(names), index=True)
        outputs = [f"c_{name}" for name in names]
        self._nodes.append(helper.make_node("Split", [source, sizes], outputs, axis=1))
        return dict(zip(names, outputs, strict=True))

    def model(
        self,
        inputs: dict[str, tuple[str | int, ...]],
        outputs: dict[str, tuple[str | int, ...]],
        documentation: str,
    ) -> bytes:
        """The checked ModelProto as bytes. Inputs and outputs: name -> shape, all float64."""

        def values(members: dict[str, tuple[str | int, ...]]) -> list[ValueInfoProto]:
            return [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name, shape in members.items()]

        graph = helper.make_graph(
            self._nodes, self.name, values(inputs), values(outputs), self._initializers, doc_string=documentation
        )
        model: ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="cds-server models.training",
        )
        checker.check_model(model, full_check=True)
        body: bytes = model.SerializeToString(deterministic=True)
        return body
