"""What quality control says of a series or region: a code, a sentence, the place, and whether it forbids features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Weight(StrEnum):
    NOTE = "note"
    CAUTION = "caution"
    REFUSAL = "refusal"


class Verdict(StrEnum):
    USABLE = "usable"
    CAUTIONS = "usable-with-cautions"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. Its words never carry a value of the images."""

    code: str
    sentence: str
    where: str = ""
    """The tag behind it: `(0020,0032)`."""
    weight: Weight = Weight.CAUTION

    @property
    def words(self) -> str:
        return f"{self.sentence} {self.where}".rstrip()


def verdict(findings: Sequence[Finding]) -> Verdict:
    weights = {finding.weight for finding in findings}
    if Weight.REFUSAL in weights:
        return Verdict.REFUSED
    return Verdict.CAUTIONS if Weight.CAUTION in weights else Verdict.USABLE


def refused(code: str, sentence: str, where: str = "") -> Finding:
    return Finding(code, sentence, where, Weight.REFUSAL)
