"""Late fusion: additive pooling of calibrated logits, with weights for each pattern of available modalities.

    logit p = b[A] + sum over k in A of w[A, k] * (z[k] - mu[k]),   w >= 0,   A = which modalities are there

(pattern submodels: Fletcher Mercaldo and Blume 2018, Biostatistics, kxy040). The sum is the graph's, in the fixed
order of the manifest; it is added up again here, so the contributions of a Score add up to its logit, bit for bit.
What stands in the slot of a missing modality never reaches the sum: the graph selects, it does not multiply by zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.errors import ContractMismatch, ModelFault
from models.nouns import JSON
from models.runtime import Array, Session
from models.score import Contribution, Move, Score
from models.site_line import line_of

INTERVAL_KIND = "range if missing results arrive"

Shapes = dict[str, list[int | str]]


def head_shapes(k: int, *, band: bool = False) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of a head for K modalities: name -> shape. `band`: with its parameter uncertainty."""
    row: list[int | str] = ["N", k]
    one: list[int | str] = ["N", 1]
    outputs = {"p": one, "logit": one, "b0": one, "contrib": row, "lo": one, "hi": one}
    if band:
        outputs |= {"band_lo": one, "band_hi": one}
    return {"z": row, "avail": row}, outputs


class Head:
    """A fusion head and the patterns it was fitted for."""

    def __init__(self, manifest: JSON, files: Mapping[str, str], directory: Path) -> None:
        """`manifest` is the `head` member: `file`, `modalities`, `patterns` (lists of modality names).

        It may also have `not_validated` (some of the patterns), `moves` (objects `there`, `missing`, `half_width`),
        `outputs` (with `band_lo`, `band_hi` where the graph has them) and `recalibration`.
        """
        self.modalities: tuple[str, ...] = tuple(manifest["modalities"])
        known = set(self.modalities)
        self.patterns = frozenset(frozenset(pattern) for pattern in manifest["patterns"])
        if any(not pattern <= known or not pattern for pattern in self.patterns):
            raise ContractMismatch("the head names a pattern of modalities that it does not have")
        self._available = {
            pattern: np.array([[float(name in pattern) for name in self.modalities]]) for pattern in self.patterns
        }
        """Pattern -> the graph's input `avail`, one row."""
        self._not_validated = frozenset(frozenset(pattern) for pattern in manifest.get("not_validated", ()))
        self._moves = _moves(manifest)
        self._line = line_of(manifest)
        inputs, outputs = head_shapes(len(self.modalities), band="band_lo" in manifest.get("outputs", ()))
        self._session = Session(directory / manifest["file"], files[manifest["file"]], inputs=inputs, outputs=outputs)

    def fuse(self, model: str, z: Mapping[str, float | None], reasons: Mapping[str, str], outputs: JSON) -> Score:
        """The score of the modalities that are there (`z` is not None), or an abstention that says why there is none.

        `reasons` says why a modality is absent. Raises: ModelFault where a modality that is there gives no number.
        """
        there = frozenset([name for name in self.modalities if z.get(name) is not None])
        available = self._available.get(there)
        if available is None:
            return abstain(model, self._why(there, reasons), outputs)
        values = []
        for name in self.modalities:
            value = z.get(name)
            if value is not None and not math.isfinite(value):
                raise ModelFault(f"modality {name} gave no number")
            values.append(math.nan if value is None else value)
        fused = self._session.run({"z": np.array([values]), "avail": available})
        score = self._score(model, z, there, fused, outputs)
        return score if self._line is None else self._line.applied(score)

    def _score(
        self, model: str, z: Mapping[str, float | None], there: frozenset[str], fused: list[Array], outputs: JSON
    ) -> Score:
        logit, base = fused[1].item(), fused[2].item()
        amounts = zip(self.modalities, fused[3][0].tolist(), strict=True)
        parts = tuple([Contribution(name, z.get(name), amount if name in there else 0.0) for name, amount in amounts])
        total = base
        for part in parts:
            total += part.amount
        if not math.isfinite(total) or total != logit:
            raise ModelFault("the contributions of the head do not add up to its logit")
        interval, band = _range(fused[4:6]), _range(fused[6:8])
        kind = None if interval is None else INTERVAL_KIND
        probability = fused[0].item()
        return Score(
            model, None, total, probability, base, parts, interval, kind, outputs, band,
            self._moves.get(there, ()), there not in self._not_validated,
        )  # fmt: skip

    def _why(self, there: frozenset[str], reasons: Mapping[str, str]) -> str:
        absent = list(dict.fromkeys(reasons[name] for name in self.modalities if name in reasons))
        if not there:
            return "; ".join(absent) or "no modality is available"
        names = " and ".join(name for name in self.modalities if name in there)
        why = f"the model is not validated for {names} alone"
        return f"{why}: {'; '.join(absent)}" if absent else why


def _range(ends: list[Array]) -> tuple[float, float] | None:
    """Both ends, or None where the head publishes none."""
    if not ends:
        return None
    low, high = ends[0].item(), ends[1].item()
    return None if math.isnan(low) else (low, high)


def _moves(manifest: JSON) -> dict[frozenset[str], tuple[Move, ...]]:
    """Pattern -> the moves of what is missing from it, the largest first."""
    found: dict[frozenset[str], list[Move]] = {}
    for move in manifest.get("moves", ()):
        found.setdefault(frozenset(move["there"]), []).append(Move(move["missing"], move["half_width"]))
    return {there: tuple(sorted(moves, key=lambda move: -move.half_width)) for there, moves in found.items()}


def abstain(model: str, reason: str, outputs: JSON | None = None) -> Score:
    """A score that says nothing, and why."""
    return Score(model, reason, outputs=outputs or {})
