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
from models.nouns import JSON, Contribution, Score
from models.runtime import Session

INTERVAL_KIND = "range if missing results arrive"


def head_shapes(k: int) -> tuple[dict[str, list[int | str]], dict[str, list[int | str]]]:
    """Inputs and outputs of a head for K modalities: name -> shape."""
    row: list[int | str] = ["N", k]
    one: list[int | str] = ["N", 1]
    return {"z": row, "avail": row}, {"p": one, "logit": one, "b0": one, "contrib": row, "lo": one, "hi": one}


class Head:
    """A fusion head and the patterns it was validated for."""

    def __init__(self, manifest: JSON, files: Mapping[str, str], directory: Path) -> None:
        """`manifest` is the `head` member: `file`, `modalities`, `patterns` (lists of modality names)."""
        self.modalities: tuple[str, ...] = tuple(manifest["modalities"])
        known = set(self.modalities)
        self.patterns = frozenset(frozenset(pattern) for pattern in manifest["patterns"])
        if any(not pattern <= known or not pattern for pattern in self.patterns):
            raise ContractMismatch("the head names a pattern of modalities that it does not have")
        self._available = {
            pattern: np.array([[float(name in pattern) for name in self.modalities]]) for pattern in self.patterns
        }
        """Pattern -> the graph's input `avail`, one row."""
        inputs, outputs = head_shapes(len(self.modalities))
        self._session = Session(directory / manifest["file"], files[manifest["file"]], inputs=inputs, outputs=outputs)

    def fuse(self, model: str, z: Mapping[str, float | None], reasons: Mapping[str, str], outputs: JSON) -> Score:
        """The score of the modalities that are there (`z` is not None), or an abstention that says why there is none.

        `reasons` says why a modality is absent. Raises: ModelFault where a modality that is there gives no number.
        """
        there = frozenset([name for name in self.modalities if z.get(name) is not None])
        if there not in self._available:
            return abstain(model, self._why(there, reasons), outputs)
        values = []
        for name in self.modalities:
            value = z.get(name)
            if value is not None and not math.isfinite(value):
                raise ModelFault(f"modality {name} gave no number")
            values.append(math.nan if value is None else value)
        p, logit, base, contrib, low, high = self._session.run(
            {"z": np.array([values]), "avail": self._available[there]}
        )
        return self._score(model, z, (p.item(), logit.item(), base.item()), contrib[0].tolist(), (low, high), outputs)

    def _score(
        self,
        model: str,
        z: Mapping[str, float | None],
        pooled: tuple[float, float, float],
        amounts: list[float],
        band: tuple[np.ndarray, np.ndarray],
        outputs: JSON,
    ) -> Score:
        probability, logit, base = pooled
        parts = tuple(
            Contribution(name, z.get(name), amount if z.get(name) is not None else 0.0)
            for name, amount in zip(self.modalities, amounts, strict=True)
        )
        total = base
        for part in parts:
            total += part.amount
        if not math.isfinite(total) or total != logit:
            raise ModelFault("the contributions of the head do not add up to its logit")
        low, high = band[0].item(), band[1].item()
        interval = None if math.isnan(low) else (low, high)
        kind = None if interval is None else INTERVAL_KIND
        return Score(model, None, total, probability, base, parts, interval, kind, outputs)

    def _why(self, there: frozenset[str], reasons: Mapping[str, str]) -> str:
        absent = [reasons[name] for name in self.modalities if name in reasons]
        if not there:
            return "; ".join(absent) or "no modality is available"
        names = " and ".join(name for name in self.modalities if name in there)
        why = f"the model is not validated for {names} alone"
        return f"{why}: {'; '.join(absent)}" if absent else why


def abstain(model: str, reason: str, outputs: JSON | None = None) -> Score:
    """A score that says nothing, and why."""
    return Score(model, reason, outputs=outputs or {})
