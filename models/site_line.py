"""A site's recalibration line at work: logit p' = intercept + slope * logit p (see `models.recalibration`).

The line goes over the base, each contribution, and the logits of the ends of each range; so what stands on a card still
adds up exactly, in the fixed order. With intercept 0 and slope 1 there is no line at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.errors import ContractMismatch
from models.nouns import JSON
from models.score import Score


@dataclass(frozen=True, slots=True)
class SiteLine:
    intercept: float
    slope: float

    def applied(self, score: Score) -> Score:
        """The score at this site; an abstention stays one."""
        if score.logit is None:
            return score
        parts = tuple(part.but(amount=self.slope * part.amount) for part in score.contributions)
        base = self.intercept + self.slope * score.base
        logit = base
        for part in parts:
            logit += part.amount
        return score.but(
            logit=logit,
            probability=_sigmoid(logit),
            base=base,
            contributions=parts,
            interval=self._range(score.interval),
            band=self._range(score.band),
            moves=tuple(move.but(half_width=self.slope * move.half_width) for move in score.moves),
        )

    def _range(self, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if ends is None else (self._moved(ends[0]), self._moved(ends[1]))

    def _moved(self, p: float) -> float:
        """The line over one end of a range. 0 and 1 (a logit beyond 36) stay what they are."""
        if not 0.0 < p < 1.0:
            return p
        return _sigmoid(self.intercept + self.slope * (math.log(p) - math.log1p(-p)))


def line_of(head: JSON) -> SiteLine | None:
    """The line of a manifest's `head` member. Raises: ContractMismatch where it is not a rising line."""
    stated = head.get("recalibration")
    if stated is None:
        return None
    try:
        line = SiteLine(float(stated["intercept"]), float(stated["slope"]))
    except (KeyError, TypeError, ValueError):
        line = SiteLine(math.nan, math.nan)
    if not (math.isfinite(line.intercept) and 0.0 < line.slope < math.inf):
        raise ContractMismatch("the recalibration of the head is not an intercept and a slope above 0")
    return line


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))
