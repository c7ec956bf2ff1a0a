"""Similar patients, as nouns, and the port that gives them. Counts only: of nobody else anything is shown alone.

What would be told of fewer than `FEWEST` people is not told: it is None here, and the page says so in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from smart_app.banners import Banner
from smart_app.desk import Case

FEWEST = 11
"""A count below it is not shown (the rule for small cells of the US Centers for Medicare & Medicaid Services)."""
CHOICES = (25, 50, 100, 200)
USUAL = 50
_Z = 1.959963984540054
"""Of the normal distribution, for 95 %."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form says."""

    many: int = USUAL
    subtype: bool = False
    """Only those of the same subtype."""
    stage: bool = False

    @classmethod
    def of(cls, query: Mapping[str, Sequence[str]]) -> Asked:
        """Whatever is not a choice of the form counts as not said."""
        said = {name: values[-1] for name, values in query.items() if values}
        many = next((each for each in CHOICES if str(each) == said.get("many")), USUAL)
        return cls(many, said.get("subtype") == "1", said.get("stage") == "1")


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with a 95 % interval."""

    title: str
    of: int
    count: int | None
    """None: fewer than `FEWEST` on one of the two sides."""
    low: float | None = None
    high: float | None = None

    @classmethod
    def counted(cls, title: str, count: int, of: int) -> Share:
        """Both sides are held to the rule: who is not among them is a small group, too. Nobody at all is none."""
        if not may_be_told(count, of):
            return cls(title, of if of >= FEWEST else 0, None)
        low, high = wilson(count, of)
        return cls(title, of, count, low, high)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What this patient and the similar ones have in common, in one modality."""

    title: str
    own: int
    """Features that this patient has."""
    both: int | None
    """How many of the similar patients have the modality, too; None: not to be told."""
    median: int
    """Features that both have, in the median of these."""


@dataclass(frozen=True, slots=True)
class Found:
    many: int
    """How many the counts below are of."""
    compared: int
    """Among how many they were looked for."""
    distances: tuple[float, float, float]
    """Lower quarter, median, upper quarter, in standard deviations: never that of one patient alone."""
    overlaps: tuple[Overlap, ...]
    outcomes: tuple[Share, ...]
    """Empty where none landed for any of them."""
    quarters: tuple[float, float, float] | None = None
    """Of the model's estimates for them: lower quarter, median, upper quarter."""


@dataclass(frozen=True, slots=True)
class SimilarView:
    banner: Banner
    model: str | None = None
    """Title of the model whose inputs were compared; None: nothing was inferred for this patient."""
    at: str | None = None
    own: float | None = None
    """The estimate for this patient."""
    subtype: str | None = None
    """Of this patient, in words; None: not to be told from the model's inputs."""
    stage: str | None = None
    left: int = 0
    """Inferences that were not read yet: ask again."""
    silent: bool = False
    """No modality of this patient could speak: there is nothing to compare."""
    found: Found | None = None
    """None: fewer than `FEWEST` could be compared."""


class SimilarDesk(Protocol):
    async def similar(self, case: Case, asked: Asked) -> SimilarView:
        """Writes the access entry first. Errors: NotAllowed, NotFound, RecordUnavailable and its kinds."""
        ...


def may_be_told(count: int, of: int) -> bool:
    """Neither those who are counted nor the others are few, unless they are none."""
    return of >= FEWEST and all(each == 0 or each >= FEWEST for each in (count, of - count))


def wilson(count: int, of: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson, J Am Stat Assoc 1927; 22: 209), as shares."""
    share, z2 = count / of, _Z * _Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)
