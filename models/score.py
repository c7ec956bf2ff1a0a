"""What a model said about one snapshot, or why it said nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from models.canonical import Noun, whole


class Contribution(Noun, frozen=True):
    modality: str
    z: float | None
    """The modality's own calibrated logit; None when it is not available."""
    amount: float
    """What it adds to the fused logit; exactly 0.0 when not available."""

    def plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"modality": self.modality, "amount": self.amount}
        return plain if self.z is None else {**plain, "z": self.z}


class Move(Noun, frozen=True):
    """How far one missing modality would move the answer if it arrived."""

    modality: str
    half_width: float
    """Logits: nine of ten moves in validation were smaller."""

    def plain(self) -> dict[str, Any]:
        return {"modality": self.modality, "half_width": self.half_width}


class Score(Noun, frozen=True):
    """What the model said, or why it said nothing.

    A model that publishes no probability (points, descriptions) speaks by its outputs alone.
    base + sum of contribution amounts (in this order, float64) == logit, exactly.
    """

    model: str
    abstained: str | None
    logit: float | None = None
    probability: float | None = None
    base: float = 0.0
    contributions: tuple[Contribution, ...] = ()
    interval: tuple[float, float] | None = None
    """`range if missing results arrive`, on the probability scale; None where none is published or validated."""
    interval_kind: str | None = None
    outputs: Mapping[str, Any] = {}
    """Further outputs of a modality's graph, by name: lists of binary64 (PREDICT: survival per scenario and year)."""
    band: tuple[float, float] | None = None
    """Parameter uncertainty of the head on the probability scale: another question than `interval`, never merged."""
    moves: tuple[Move, ...] = ()
    """One for each missing modality that the head knows, the one that would move the answer most first."""
    validated: bool = True
    """False: too few events stand behind this pattern of modalities."""

    def __post_init__(self) -> None:
        if self.abstained is None:
            if self.logit is None and self.probability is None and self.outputs:
                return
            if self.logit is None or self.probability is None:
                raise ValueError("a score that did not abstain has a logit and a probability, or outputs alone")
            total = self.base
            for contribution in self.contributions:
                total += contribution.amount
            if total != self.logit:
                raise ValueError("contributions do not add up to the logit")
        elif self.logit is not None or self.probability is not None:
            raise ValueError("an abstention has no number")

    def range_after(self, move: Move) -> tuple[float, float]:
        """On the probability scale: where the answer may stand once that modality is there."""
        if self.logit is None:
            raise ValueError("an abstention has no range")
        low, high = self.logit - move.half_width, self.logit + move.half_width
        return 1.0 / (1.0 + math.exp(-low)), 1.0 / (1.0 + math.exp(-high))

    def plain(self) -> dict[str, Any]:
        """The JSON object that is sealed; what is absent does not appear."""
        plain: dict[str, Any] = {"model": self.model, "base": whole(self.base)}
        if self.abstained is not None:
            plain["abstained"] = self.abstained
        elif self.logit is not None:
            plain["logit"], plain["probability"] = self.logit, self.probability
        if self.contributions:
            plain["contributions"] = [contribution.plain() for contribution in self.contributions]
        if self.interval is not None:
            plain["interval"], plain["interval_kind"] = list(self.interval), self.interval_kind
        if self.outputs:
            plain["outputs"] = dict(self.outputs)
        if self.band is not None:
            plain["band"] = list(self.band)
        if self.moves:
            plain["moves"] = [move.plain() for move in self.moves]
        if not self.validated:
            plain["validated"] = False
        return plain
