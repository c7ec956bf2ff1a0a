"""The inputs of one model for many patients, in memory, and the nearest to one of them. Exact: everybody is measured.

The rule, whole. A feature is standardised by the mean and the standard deviation of those of the pool who have it; one
that does not vary in the pool does not count. Two patients are compared by the modalities that both have, in these by
the features that both have, and only where the same encoder made both. The distance in a modality is the root of the
mean squared difference of its shared features, the whole distance the root of the mean of the squares of these: each
shared modality counts the same. Whoever shares less than half of this patient's features is not compared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.nouns import FeatureVector

Floats = NDArray[np.float32]
Chosen = NDArray[np.bool_]
_FIRST = 256
"""Members that there is room for at first."""
_ASIDE = 16
"""Columns besides: rows that lie a power of two apart in memory would drive each other out of the cache."""
_GROWN = 0.01
"""The share by which a pool changes before its means and deviations are taken anew."""
_SPARE = 4
"""Candidates by the quick sum, for each that is wanted; these are measured again in double precision."""


@dataclass(frozen=True, slots=True)
class Member:
    """What of one inference stands in the pool."""

    inference: int
    record: int
    vectors: tuple[FeatureVector, ...]
    probability: float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    """What it may be filtered by: name -> group, such as `stage` -> `II`."""


@dataclass(frozen=True, slots=True)
class Near:
    """One neighbour."""

    row: int
    inference: int
    record: int
    distance: float
    """In standard deviations."""
    shared: Mapping[str, int]
    """Modality -> features that both have."""
    probability: float | None


Key = tuple[str, str, tuple[str, ...]]
"""Modality, digest of its encoder, names of its features: within one, numbers mean the same."""


class _Block:
    """One modality's features of those who have it, a member a column; a member who has lost it keeps an empty one."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.used = 0
        self.rows = np.zeros(_FIRST, np.int32)
        """Of the pool, by column."""
        self.raw = np.full((width, _FIRST + _ASIDE), np.nan, np.float32)
        self.mean = np.zeros(width)
        self.spread = np.zeros(width)
        self.held = np.zeros((2 * width, _FIRST + _ASIDE), np.float32)
        """The standardised features (0 where there is none), and below them their presence: a vector times this matrix
        is the sum for everybody in one pass over memory, which is what the time goes into."""
        self.norm = np.zeros(_FIRST, np.float32)
        """Sum of squares, by column."""
        self.count = np.zeros(_FIRST, np.float32)
        """Features that vary and are there, by column."""
        self._column: dict[int, int] = {}

    def put(self, row: int, values: NDArray[np.float64] | None) -> None:
        """None: the member does not have the modality."""
        column = self._column.get(row)
        if column is None:
            if values is None:
                return
            column = self._column[row] = self.used
            self.used += 1
            if column == len(self.rows):
                self._grow()
            self.rows[column] = row
        self.raw[:, column] = np.nan if values is None else values
        self._hold(slice(column, column + 1))

    def settle(self) -> None:
        """Take means and deviations anew, and standardise everybody by them."""
        raw = self.raw[:, : self.used].astype(np.float64)
        there = ~np.isnan(raw)
        count = np.maximum(there.sum(axis=1), 1)
        self.mean = np.where(there, raw, 0).sum(axis=1) / count
        spread = np.sqrt(np.where(there, (raw - self.mean[:, None]) ** 2, 0).sum(axis=1) / count)
        self.spread = np.where(spread > 1e-9 * np.maximum(np.abs(self.mean), 1), spread, 0.0)
        self._hold(slice(0, self.used))

    def standard(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """In standard deviations, a feature a row; NaN where there is no value, or the feature does not vary."""
        shape = (self.width, *(1 for _ in raw.shape[1:]))
        mean, spread = self.mean.reshape(shape), self.spread.reshape(shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: NDArray[np.float64] = np.where(spread > 0, (raw - mean) / spread, np.nan)
        return found

    def quick(self, own: NDArray[np.float64]) -> tuple[Floats, Floats]:
        """By column: squared differences summed, and of how many features. `own`: standardised, NaN for none."""
        there = ~np.isnan(own)
        weights = np.concatenate((-2 * np.where(there, own, 0), np.where(there, own, 0) ** 2)).astype(np.float32)
        squares: Floats = np.einsum("k,kn->n", weights, self.held[:, : self.used])  # BLAS would wake a second thread
        squares += self.norm[: self.used]
        count = self.count[: self.used].copy()
        for feature in np.flatnonzero(~there & (self.spread > 0)):  # which the norm and the count have too many
            squares -= self.held[feature, : self.used] ** 2
            count -= self.held[self.width + feature, : self.used]
        return np.maximum(squares, 0, out=squares), count

    def of_rows(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """The standardised features of these rows of the pool, a feature a row; NaN for whoever has none."""
        columns = [self._column.get(int(row), -1) for row in rows]
        raw = self.raw[:, columns].astype(np.float64)
        raw[:, np.array(columns) < 0] = np.nan
        return self.standard(raw)

    def _hold(self, columns: slice) -> None:
        standard = self.standard(self.raw[:, columns].astype(np.float64))
        there = ~np.isnan(standard)
        self.held[: self.width, columns] = np.where(there, standard, 0.0)
        self.held[self.width :, columns] = there
        self.norm[columns] = (self.held[: self.width, columns] ** 2).sum(axis=0)
        self.count[columns] = there.sum(axis=0)

    def _grow(self) -> None:
        more = 2 * len(self.rows)
        for name in ("rows", "norm", "count"):
            setattr(self, name, np.resize(getattr(self, name), more))
        for name, empty in (("raw", np.nan), ("held", 0.0)):
            old = getattr(self, name)
            grown = np.full((len(old), more + _ASIDE), empty, np.float32)
            grown[:, : old.shape[1]] = old
            setattr(self, name, grown)


class Pool:
    """Members of one model. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: dict[Key, _Block] = {}
        self._rows: dict[int, int] = {}
        """Record -> row."""
        self._records = np.zeros(_FIRST, np.int64)
        self._inferences = np.zeros(_FIRST, np.int64)
        self._probability = np.full(_FIRST, np.nan)
        self._groups: dict[str, NDArray[np.int16]] = {}
        self._named: dict[str, list[str]] = {}
        self._changed = 0

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, members: Sequence[Member]) -> None:
        """Each takes the place of an older inference of its record."""
        with self._lock:
            for each in members:
                self._put(each)

    def newest(self, record: int) -> int | None:
        """The inference of this record that stands here."""
        row = self._rows.get(record)
        return None if row is None else int(self._inferences[row])

    def groups(self, name: str) -> Mapping[str, int]:
        """How many are in each group."""
        with self._lock:
            if name not in self._groups:
                return {}
            counts = np.bincount(self._groups[name][: len(self._rows)] + 1, minlength=len(self._named[name]) + 1)
            return {group: int(counts[number + 1]) for number, group in enumerate(self._named[name])}

    def nearest(
        self,
        vectors: Sequence[FeatureVector],
        most: int,
        groups: Mapping[str, str],
        takes: Callable[[Near], bool] = lambda _: True,
    ) -> tuple[list[Near], int]:
        """The `most` nearest that `takes` takes, the nearest first, and how many could be compared at all.

        `groups`: only of these groups. `takes` is asked in order of distance, and no more often than is needed.
        """
        with self._lock:
            rows = len(self._rows)
            if self._changed > _GROWN * rows:
                for block in self._blocks.values():
                    block.settle()
                self._changed = 0
            asked = self._asked(vectors)
            if not rows or not asked:
                return [], 0
            squared = self._quick(asked, rows)
            for name, group in groups.items():
                numbers, named = self._groups.get(name), self._named.get(name, [])
                among = numbers[:rows] == named.index(group) if numbers is not None and group in named else False
                squared[~np.broadcast_to(among, rows)] = np.inf
            compared = int(np.isfinite(squared).sum())
            found: list[Near] = []
            done, wanted = 0, _SPARE * most
            while len(found) < most and done < compared:
                wanted = min(wanted, compared)
                order = np.argpartition(squared, wanted - 1)[:wanted] if wanted < rows else np.arange(rows)
                near = self._measured(asked, order[np.isfinite(squared[order])])
                found = []
                for each in near:
                    if len(found) < most and takes(each):
                        found.append(each)
                done, wanted = wanted, wanted * 4
            return found, compared

    # -- sums ----------------------------------------------------------------------------------------------------------

    def _asked(self, vectors: Sequence[FeatureVector]) -> dict[Key, NDArray[np.float64]]:
        """The patient's own features, as they stand, of those modalities that anybody of the pool has."""
        found = {}
        for vector in vectors:
            if vector.absent is not None:
                continue
            key = _key(vector)
            block = self._blocks.get(key)
            if block is not None and not np.isnan(block.standard(_values(vector))).all():
                found[key] = _values(vector)
        return found

    def _quick(self, asked: Mapping[Key, NDArray[np.float64]], rows: int) -> Floats:
        """Squared distance of everybody in single precision; infinite where too little is shared."""
        total, modalities, shared = (np.zeros(rows, np.float32) for _ in range(3))
        needed = 0
        for key, values in asked.items():
            block = self._blocks[key]
            own = block.standard(values)
            needed += int((~np.isnan(own)).sum())
            squares, count = block.quick(own)
            squares /= np.maximum(count, 1)
            at = block.rows[: block.used]
            total[at] += squares
            modalities[at] += count > 0
            shared[at] += count
        total /= np.maximum(modalities, 1)
        total[(shared == 0) | (2 * shared < needed)] = np.inf
        return total

    def _measured(self, asked: Mapping[Key, NDArray[np.float64]], rows: NDArray[np.intp]) -> list[Near]:
        """The same in double precision, the nearest first; of as many, the older row."""
        total, modalities = np.zeros(len(rows)), np.zeros(len(rows))
        counts: dict[str, NDArray[np.int64]] = {}
        for key, values in asked.items():
            block = self._blocks[key]
            apart = block.of_rows(rows) - block.standard(values)[:, None]
            there = ~np.isnan(apart)
            count = there.sum(axis=0)
            total += (np.where(there, apart, 0) ** 2).sum(axis=0) / np.maximum(count, 1)
            modalities += count > 0
            counts[key[0]] = counts.get(key[0], 0) + count
        distance = np.sqrt(total / np.maximum(modalities, 1))
        return [
            Near(
                int(rows[at]),
                int(self._inferences[rows[at]]),
                int(self._records[rows[at]]),
                float(distance[at]),
                {name: int(count[at]) for name, count in counts.items()},
                None if np.isnan(self._probability[rows[at]]) else float(self._probability[rows[at]]),
            )
            for at in np.lexsort((rows, distance))
        ]

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _put(self, member: Member) -> None:
        row = self._rows.get(member.record)
        if row is None:
            row = self._rows[member.record] = len(self._rows)
            self._grow(row + 1)
        elif self._inferences[row] > member.inference:
            return
        self._changed += 1
        self._records[row], self._inferences[row] = member.record, member.inference
        self._probability[row] = np.nan if member.probability is None else member.probability
        given = {_key(vector): vector for vector in member.vectors if vector.absent is None and vector.features}
        for key in given:
            if key not in self._blocks:
                self._blocks[key] = _Block(len(key[2]))
        for key, block in self._blocks.items():
            block.put(row, _values(given[key]) if key in given else None)
        for name in {*self._groups, *member.groups}:
            self._group(name, row, member.groups.get(name))

    def _group(self, name: str, row: int, group: str | None) -> None:
        if name not in self._groups:
            self._groups[name], self._named[name] = np.full(len(self._records), -1, np.int16), []
        named = self._named[name]
        if group is not None and group not in named:
            named.append(group)
        self._groups[name][row] = -1 if group is None else named.index(group)

    def _grow(self, rows: int) -> None:
        if rows <= len(self._records):
            return
        more = 2 * len(self._records)
        self._records, self._inferences = np.resize(self._records, more), np.resize(self._inferences, more)
        self._probability = np.resize(self._probability, more)
        for name, numbers in self._groups.items():
            grown = np.full(more, -1, np.int16)
            grown[: len(numbers)] = numbers
            self._groups[name] = grown


def _key(vector: FeatureVector) -> Key:
    return vector.modality, vector.encoder, tuple(feature.name for feature in vector.features)


def _values(vector: FeatureVector) -> NDArray[np.float64]:
    """What was observed, as exact as it is held; a number that stands for "unknown" is none."""
    observed = [np.nan if each.missing else each.value for each in vector.features]
    return np.array(observed, np.float32).astype(np.float64)
