"""A fusion head as its own small graph: see `models.fusion` for the equation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.fusion import head_shapes
from models.training.graph import Graph

TWO_SIDED_95 = 1.959963985
"""Standard normal quantile of the band."""
Covariance = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """The head for one pattern of available modalities."""

    base: float
    weights: Mapping[str, float]
    half_width: float = math.nan
    """Half width, in logits, of the range if missing results arrive; NaN: none is published."""
    events: int | None = None
    """Events of the patients that this row was fitted on."""
    moves: Mapping[str, float] = field(default_factory=dict)
    """Missing modality -> half width, in logits, of the move if it alone arrived."""
    covariance: Covariance = ()
    """Of the base and the weights, in the order of `weights`: parameter uncertainty. Empty: no band is published."""

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("weights of a head are not negative")
        if self.covariance and [len(line) for line in self.covariance] != [len(self.weights) + 1] * (
            len(self.weights) + 1
        ):
            raise ValueError("the covariance of a head has one line and column for the base and for each weight")


def build(modalities: Sequence[str], centres: Sequence[float], rows: Mapping[frozenset[str], Row]) -> bytes:
    """Inputs `z`, `avail` [N, K] (1 there, 0 missing); outputs `p`, `logit`, `b0`, `lo`, `hi` [N, 1], `contrib` [N, K].

    Where a row has a covariance, also `band_lo`, `band_hi` [N, 1]: the 95 % band of the head's own parameters.
    A pattern without a row gives NaN: nothing can be read from what was not validated.
    """
    k = len(modalities)
    patterns = [frozenset(m for bit, m in enumerate(modalities) if number >> bit & 1) for number in range(2**k)]
    none = Row(math.nan, {})
    table = [rows.get(pattern, none) for pattern in patterns]
    band = any(row.covariance for row in table)

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
    away = g("Sub", kept, g.constant([list(centres)]))  # 0 where a modality is missing
    g("Mul", weights, away, out="contrib")

    logit = base
    for bit in range(k):
        part = g("Gather", "contrib", g.constant([bit], index=True), axis=1)
        logit = g("Add", logit, part, out="logit" if bit == k - 1 else None)
    g("Sigmoid", logit, out="p")
    g("Sigmoid", g("Sub", logit, half), out="lo")
    g("Sigmoid", g("Add", logit, half), out="hi")
    if band:
        _band(g, modalities, table, pattern, away)
    inputs, outputs = head_shapes(k, band=band)
    return g.model(
        {name: tuple(shape) for name, shape in inputs.items()},
        {name: tuple(shape) for name, shape in outputs.items()},
        "additive logit pooling by pattern of available modalities",
    )


def _band(g: Graph, modalities: Sequence[str], table: Sequence[Row], pattern: str, away: str) -> None:
    """logit -+ 1.96 sqrt(d' C d), where d = (1, z - mu)."""
    size = len(modalities) + 1
    flat = g("Gather", g.constant([_spread(row, modalities) for row in table]), pattern, axis=0)
    covariance = g("Reshape", flat, g.constant([-1, size, size], index=True))
    one = g("Cast", g("Equal", "b0", "b0"), to=11)  # [N, 1]; 0 where there is no row, and the logit is NaN anyway
    row = g("Unsqueeze", g("Concat", one, away, axis=1), g.constant([1], index=True))  # [N, 1, K + 1]
    product = g("Mul", g("MatMul", row, covariance), row)
    variance = g("ReduceSum", product, g.constant([2], index=True), keepdims=0)  # [N, 1]
    half = g("Mul", g("Sqrt", g("Max", variance, 0.0)), TWO_SIDED_95)
    g("Sigmoid", g("Sub", "logit", half), out="band_lo")
    g("Sigmoid", g("Add", "logit", half), out="band_hi")


def _spread(row: Row, modalities: Sequence[str]) -> list[float]:
    """The covariance with a line and a column of zeros for each modality that the row doesn't weigh."""
    places: dict[str | None, int] = {None: 0, **{name: at for at, name in enumerate(row.weights, start=1)}}
    size = len(modalities) + 1
    if not row.covariance:
        return [math.nan] * size**2
    order = [places.get(name) for name in (None, *modalities)]
    return [0.0 if i is None or j is None else row.covariance[i][j] for i in order for j in order]


def stated(modalities: Sequence[str], rows: Mapping[frozenset[str], Row], fewest_events: int) -> dict[str, object]:
    """What the manifest's `head` member says of the rows: patterns, events, which are not validated, the moves.

    A pattern with fewer than `fewest_events` events behind it gives a number that is marked.
    """

    def named(pattern: frozenset[str]) -> list[str]:
        return [name for name in modalities if name in pattern]

    k = len(modalities)
    inputs, outputs = head_shapes(k, band=any(row.covariance for row in rows.values()))
    return {
        "modalities": list(modalities),
        "inputs": inputs,
        "outputs": outputs,
        "patterns": [named(pattern) for pattern in rows],
        "events": [row.events for row in rows.values()],
        "fewest_events": fewest_events,
        "not_validated": [
            named(pattern) for pattern, row in rows.items() if row.events is not None and row.events < fewest_events
        ],
        "half_widths": [None if math.isnan(row.half_width) else row.half_width for row in rows.values()],
        "moves": [
            {"there": named(pattern), "missing": name, "half_width": width}
            for pattern, row in rows.items()
            for name, width in row.moves.items()
        ],
    }
