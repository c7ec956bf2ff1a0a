"""A fusion head as its own small graph: see `models.fusion` for the equation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.fusion import head_shapes
from models.training.graph import Graph


@dataclass(frozen=True, slots=True)
class Row:
    """The head for one pattern of available modalities."""

    base: float
    weights: Mapping[str, float]
    half_width: float = math.nan
    """Half width, in logits, of the range if missing results arrive; NaN: none is published."""
    events: int | None = None
    """Events of the patients that this row was fitted on."""

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("weights of a head are not negative")


def build(modalities: Sequence[str], centres: Sequence[float], rows: Mapping[frozenset[str], Row]) -> bytes:
    """Inputs `z`, `avail` [N, K] (1 there, 0 missing); outputs `p`, `logit`, `b0`, `lo`, `hi` [N, 1], `contrib` [N, K].

    A pattern without a row gives NaN: nothing can be read from what was not validated.
    """
    k = len(modalities)
    patterns = [frozenset(m for bit, m in enumerate(modalities) if number >> bit & 1) for number in range(2**k)]
    none = Row(math.nan, {})
    table = [rows.get(pattern, none) for pattern in patterns]

    g = Graph("fusion_head")
    there = g("Greater", "avail", 0.5)
    kept = g("Where", there, "z", g.constant([list(centres)]))
    powers = g.constant([[float(2**bit) for bit in range(k)]])
    bits = g("Where", there, powers, 0.0)
    last = g.constant([1], index=True)
    pattern = g("Cast", g("ReduceSum", bits, last, keepdims=0), to=7)  # [N]
    weights = g("Gather", g.constant([[row.weights.get(m, 0.0) for m in modalities] for row in table]), pattern, axis=0)
    base = g("Gather", g.constant([[row.base] for row in table]), pattern, axis=0, out="b0")
    half = g("Gather", g.constant([[row.half_width] for row in table]), pattern, axis=0)
    g("Mul", weights, g("Sub", kept, g.constant([list(centres)])), out="contrib")

    logit = base
    for bit in range(k):
        part = g("Gather", "contrib", g.constant([bit], index=True), axis=1)
        logit = g("Add", logit, part, out="logit" if bit == k - 1 else None)
    g("Sigmoid", logit, out="p")
    g("Sigmoid", g("Sub", logit, half), out="lo")
    g("Sigmoid", g("Add", logit, half), out="hi")
    inputs, outputs = head_shapes(k)
    return g.model(
        {name: tuple(shape) for name, shape in inputs.items()},
        {name: tuple(shape) for name, shape in outputs.items()},
        "additive logit pooling by pattern of available modalities",
    )
