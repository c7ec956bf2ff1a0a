"""What an archive has of a study, less what is stored: what to ask for next, and when to stop (D9). Pure.

    everything is missing            the study at once
    series are missing, or some of   series by series
    still                            images, in lists, ever shorter: one that cannot be sent fails its whole request,
                                     so in the end each is asked for by itself
    still                            partial, with the list

Counts of responses and "final success" decide nothing here. Unheard of series that come later make the study incomplete
again by the same rule: expected less stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.dicom.peers import Level
from adapters.dicom.query import Query, batches

LADDER = (0, 0, 64, 8, 1)
"""Images to a request, by round; 0: not by image yet (the study, then series)."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the archive said that it has of one study. `series`: Series Instance UID -> SOP Instance UIDs."""

    study: str
    series: Mapping[str, frozenset[str]]
    patient: str = ""
    """Patient ID: the unique key above, at the patient root."""
    stated: int | None = None
    """NumberOfStudyRelatedInstances, as a check: many archives have it from a cache."""
    classes: frozenset[str] = frozenset()
    """SOP Class UIDs, so that a C-GET negotiates for these."""
    unaskable: int = 0
    """Instances whose UID cannot be asked for, or that were listed twice under other series."""

    @property
    def count(self) -> int:
        return sum(len(each) for each in self.series.values())

    def uids(self) -> frozenset[str]:
        return frozenset().union(*self.series.values())

    @property
    def contradicts(self) -> bool:
        """Whether the archive's own count is another than what it lists."""
        return self.stated is not None and self.stated != self.count + self.unaskable


@dataclass(frozen=True, slots=True)
class Limits:
    """How often and how long."""

    rounds: int = 8
    """Of requests for one study. The ladder has five rungs; what is above repeats its last."""
    first_pause: float = 2.0
    longest_pause: float = 300.0
    """Seconds between two rounds; each is twice the one before, but none is made while there is progress."""
    singles: int = 2000
    """Requests of one round at most: what is missing beyond is asked for in the next."""
    barren: int = 16
    """Requests of one round in a row that brought nothing: then the round ends, the next begins behind them. Where a
    storage is down that saves a request for each image, each time; a few objects that cannot be sent do not end it."""
    listed: int = 10_000
    """Missing UIDs that a partial result keeps."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What is missing of a study."""

    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Series -> SOP Instance UIDs, in order."""

    @property
    def count(self) -> int:
        return sum(len(each) for each in self.missing.values())

    def __bool__(self) -> bool:
        return bool(self.missing)


def gap(expected: Expected, held: Collection[str]) -> Gap:
    """Expected less stored."""
    lacking = {series: tuple(sorted(uids - set(held))) for series, uids in sorted(expected.series.items())}
    return Gap({series: uids for series, uids in lacking.items() if uids})


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the reconciliation of one study stands; durable with the job."""

    round: int = 0
    """Rounds of requests that were made."""
    held_first: int = 0
    """Stored when the job came to the study: then something new is a study that grew."""
    missing: int = -1
    """After the round before; -1: there was none."""
    late_series: int = 0
    """Series of which nothing was stored, in a study of which something was."""

    def plain(self) -> dict[str, int]:
        return {"round": self.round, "held_first": self.held_first, "missing": self.missing, "late": self.late_series}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Progress:
        names = ("round", "held_first", "missing", "late")
        return cls(*(int(plain[name]) for name in names))


def begun(expected: Expected, held: Collection[str]) -> Progress:
    """At the first look at a study: what is stored of it, and which series are new to us."""
    known = set(held)
    late = sum(not uids & known for uids in expected.series.values()) if known else 0
    return Progress(0, len(known & expected.uids()), -1, late)


@dataclass(frozen=True, slots=True)
class Round:
    """The requests of one round, in order."""

    level: Level
    size: int
    """Images to a request; 0 above that level."""

    def requests(self, expected: Expected, lacking: Gap, limits: Limits, *, skip: int = 0) -> Iterator[Query]:
        """`skip`: requests that others were made before; those come last."""
        found = list(self._requests(expected, lacking))
        at = skip % len(found) if found else 0
        yield from (found[at:] + found[:at])[: limits.singles]

    def _requests(self, expected: Expected, lacking: Gap) -> Iterator[Query]:
        above: dict[str, str | tuple[str, ...]] = {"StudyInstanceUID": expected.study}
        if expected.patient:
            above["PatientID"] = expected.patient
        if self.level is Level.STUDY:
            yield Query(Level.STUDY, above)
            return
        for series, uids in lacking.missing.items():
            keys = {**above, "SeriesInstanceUID": series}
            if self.level is Level.SERIES:
                parts: list[dict[str, str | tuple[str, ...]]] = [keys]
            else:
                lists = batches(uids, self.size)
                parts = [{**keys, "SOPInstanceUID": each if len(each) > 1 else each[0]} for each in lists]
            yield from (Query(self.level, each) for each in parts)


def next_round(
    expected: Expected,
    lacking: Gap,
    progress: Progress,
    limits: Limits,
    *,
    start_at: str = "study",
    uid_lists: bool = True,
) -> Round | None:
    """What to ask for next; None: enough was asked (partial, where something is lacking)."""
    if not lacking or progress.round >= limits.rounds:
        return None
    rung = min(progress.round + {"study": 0, "series": 1, "image": 2}[start_at], len(LADDER) - 1)
    if rung == 0 and lacking.count * 2 < expected.count:
        rung = 1  # most of it is here: not all of it once more
    if rung == 1 and all(len(uids) * 2 < len(expected.series[series]) for series, uids in lacking.missing.items()):
        rung = 2
    size = LADDER[rung] if uid_lists else min(LADDER[rung], 1)
    return Round((Level.STUDY, Level.SERIES)[rung] if rung < 2 else Level.IMAGE, size)


def pause(progress: Progress, lacking: Gap, limits: Limits) -> float:
    """Seconds before the next round: none at first, and none while something came."""
    if progress.round == 0 or progress.missing < 0 or lacking.count < progress.missing:
        return 0.0
    return float(min(limits.first_pause * 2 ** min(progress.round - 1, 30), limits.longest_pause))


def result(expected: Expected, lacking: Gap, progress: Progress, limits: Limits) -> dict[str, Any]:
    """What became of a study, to be sealed with the job: counts, and UIDs of what is missing (never for a log)."""
    listed = [uid for uids in lacking.missing.values() for uid in uids][: limits.listed]
    return {
        "study": expected.study,
        "expected": expected.count,
        "stored": expected.count - lacking.count,
        "held_first": progress.held_first,
        "rounds": progress.round,
        "late_series": progress.late_series,
        "stated": expected.stated,
        "unaskable": expected.unaskable,
        "series": {
            uid: [len(sops), len(lacking.missing.get(uid, ()))] for uid, sops in sorted(expected.series.items())
        },
        "missing": listed,
        "complete": bool(expected.count) and not lacking and not expected.unaskable,
    }
