"""One case on one screen: facts and scores, sorted the way a board reads them. Pure.

Nothing is concluded here. A line is a recorded value with its date and origin; where two results of one day differ,
both are shown. What is not shown for lack of a rule stands on the timeline of the case page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

SECTIONS = ("diagnosis", "stage", "receptors", "genomics", "imaging", "treatment", "fitness")
APART = math.log(2)
"""Logits: two modalities disagree where one gives at least twice the odds of the other, each by its own calibration
(`Contribution.z`), for one endpoint and one model."""


@dataclass(frozen=True, slots=True)
class Line:
    """A recorded value."""

    label: str
    value: str
    date: str | None = None
    source: str = ""
    """`Type/id` of the document, in the sender's namespace."""
    landing: str = ""
    side: str | None = None
    unsure: bool = False
    """Preliminary: nobody vouches for it yet."""
    differs: bool = False
    """Another result of the same day says something else."""
    earlier: int = 0
    """Older results of the same question, not shown."""


@dataclass(frozen=True, slots=True)
class Section:
    key: str
    lines: tuple[Line, ...] = ()
    more: int = 0
    """Lines that did not fit."""

    @property
    def day(self) -> str | None:
        """The day of most of its lines: said once, and beside a line only where that has another."""
        days = Counter(line.date[:10] for line in self.lines if line.date)
        return days.most_common(1)[0][0] if days else None

    def by_side(self, sides: Sequence[str]) -> list[tuple[str, tuple[tuple[Line, ...], ...]]]:
        """(label, the lines of each side, then those of none) in the order of the labels."""
        labels = dict.fromkeys(line.label for line in self.lines)
        return [
            (
                label,
                tuple(tuple(x for x in self.lines if x.label == label and x.side == side) for side in (*sides, None)),
            )
            for label in labels
        ]


@dataclass(frozen=True, slots=True)
class Voice:
    """One modality in a score."""

    name: str
    z: float | None
    """Its own calibrated logit; None: it had nothing to say."""
    amount: float
    """What it adds to the fused logit."""
    absent: str | None = None

    @property
    def alone(self) -> float | None:
        """The risk that it would give alone."""
        return None if self.z is None else 1.0 / (1.0 + math.exp(-self.z))


@dataclass(frozen=True, slots=True)
class Apart:
    """Two modalities that disagree."""

    higher: str
    lower: str
    logits: float

    @property
    def times(self) -> float:
        """How many times the odds of the lower the higher gives."""
        return math.exp(self.logits)


@dataclass(frozen=True, slots=True)
class ScoreView:
    """The newest inference of one model about this person."""

    inference: str
    seq: int
    service: str
    model: str
    endpoint: str
    said: str
    """One sentence: the card's, where it had one."""
    at: str
    abstained: str | None
    probability: float | None
    interval: tuple[float, float] | None
    band: tuple[float, float] | None
    validated: bool
    voices: tuple[Voice, ...]
    missing: tuple[str, ...] = ()
    """Titles of inputs that were not known."""
    cautions: tuple[str, ...] = ()
    since: int = 0
    """Facts that the model reads and that came after it was scored."""

    @property
    def apart(self) -> tuple[Apart, ...]:
        return disagreements(self.voices)


@dataclass(frozen=True, slots=True)
class Note:
    """Words of a report or a note, as its author wrote them."""

    title: str
    words: str
    date: str | None
    source: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """Something that is open, as the key of a text and its values."""

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    number: int
    title: str
    note: str


@dataclass(frozen=True, slots=True)
class Summary:
    sections: Mapping[str, Section]
    notes: tuple[Note, ...]
    scores: tuple[ScoreView, ...]
    questions: tuple[Question, ...]
    pictures: tuple[Picture, ...] = ()
    withheld: int = 0
    """Facts that this viewer may not see."""
    sides: tuple[str, ...] = ()
    """More than one: tumours on both sides, and each line says which."""


def disagreements(voices: Sequence[Voice]) -> tuple[Apart, ...]:
    """Pairs of modalities whose calibrated logits lie at least `APART` from each other, the furthest first."""
    found = []
    for one, other in combinations([voice for voice in voices if voice.z is not None], 2):
        higher, lower = (one, other) if (one.z or 0.0) >= (other.z or 0.0) else (other, one)
        logits = (higher.z or 0.0) - (lower.z or 0.0)
        if logits >= APART:
            found.append(Apart(higher.name, lower.name, logits))
    return tuple(sorted(found, key=lambda each: -each.logits))


# ---- what is open ----------------------------------------------------------------------------------------------------


def open_questions(
    sections: Mapping[str, Section], scores: Sequence[ScoreView], *, withheld: int = 0, minuted: bool = False
) -> tuple[Question, ...]:
    """What the board should know that it does not know: by stated rules, each of them on the page beside its cause."""
    found = []
    lacking: dict[str, list[str]] = {}
    if not sections["diagnosis"].lines:
        found.append(Question("board.open.no_diagnosis"))
    for score in scores:
        model = score.model.partition("@")[0]
        if score.abstained is not None:
            found.append(Question("board.open.abstained", {"model": model, "why": score.abstained}))
        for voice in score.voices:
            if voice.z is None and voice.absent != score.abstained:
                values = {"model": model, "modality": voice.name, "why": voice.absent or "not known"}
                found.append(Question("board.open.modality", values))
        if score.missing:
            lacking.setdefault(", ".join(score.missing), []).append(model)
        for pair in score.apart:
            values = {"higher": pair.higher, "lower": pair.lower, "times": f"{pair.times:.1f}"}
            found.append(Question("board.open.apart", values))
        found += [Question("board.open.caution", {"caution": caution}) for caution in score.cautions]
        if score.since:
            found.append(Question("board.open.since", {"model": model, "count": score.since}))
        if not score.validated:
            found.append(Question("board.open.validated", {"model": model}))
    for inputs, models in lacking.items():
        found.append(Question("board.open.inputs", {"model": ", ".join(models), "inputs": inputs}))
    for section in sections.values():
        for line in section.lines:
            if line.differs:
                found.append(Question("board.open.differs", {"label": line.label}))
            elif line.unsure and section.key != "imaging":
                found.append(Question("board.open.unsure", {"label": line.label}))
    if not scores:
        found.append(Question("board.open.no_score"))
    if withheld:
        found.append(Question("board.open.left_out" if minuted else "board.open.withheld", {"count": withheld}))
    unique = {(each.key, tuple(sorted(each.values.items()))): each for each in found}
    return tuple(unique.values())
