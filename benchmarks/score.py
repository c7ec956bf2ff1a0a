"""One score of the fused recurrence model, all three modalities there, features ready, one thread.

What is timed is everything between the encoded features and the Score: three graphs, the head, the sum.
Beside it: the same with the features encoded from the snapshot's facts, and scikit-learn doing the two regressions.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks import _bench
from models.modalities import mutation
from models.nouns import FeatureVector, ModelVersion, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models.genomics import TP53, read, region, subtype, variant
from tests.models.records import jenny

GOAL = 200.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="scores")
    args = parser.parse_args()
    model = Shelf().get("breast-cancer-recurrence")
    scorer = Scorer(model, Shelf().path(model))
    snapshot = _snapshot(model)
    vectors = scorer.judge(snapshot).vectors
    assert all(vector.absent is None for vector in vectors), "a modality is not there"
    ready, slowest = _percentiles(lambda: scorer.fuse(vectors), args.count)
    whole, _ = _percentiles(lambda: scorer.judge(snapshot), args.count // 4)
    theirs, _ = _percentiles(_scikit_learn(vectors), args.count // 20)
    print(f"p99 {slowest:.0f} us   {_bench.machine()}")
    met = _bench.figure(
        "one fused score, features ready: median",
        ready,
        "us",
        against=f"scikit-learn, two of the three modalities alone: {theirs:.0f} us",
        ratio=ready / theirs,
        goal=f"< {GOAL:g}",
        ok=ready < GOAL,
    )
    _bench.figure(
        "one fused score, encoded from its facts: median",
        whole,
        "us",
        against=f"features ready: {ready:.0f} us",
        ratio=whole / ready,
        goal="none: printed",
        ok=True,
    )
    return 0 if met else 1


def _snapshot(model: ModelVersion) -> Snapshot:
    genes = [mutation.GENES[gene["name"]] for gene in model.manifest["modalities"][2]["genes"]]
    return jenny(also=read(subtype("LumB"), region(genes), variant(TP53)))


def _percentiles(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Median and 99th percentile, in microseconds."""
    for _ in range(max(20, count // 20)):
        call()
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - began)
    return float(np.median(times)) / 1000, float(np.percentile(times, 99)) / 1000


def _scikit_learn(vectors: tuple[FeatureVector, ...]) -> Callable[[], object]:
    """Two regressions of the same sizes; which coefficients they have does not matter to the clock."""
    generator = np.random.default_rng(0)
    fitted = []
    for vector in vectors[1:]:
        x = generator.random((200, len(vector.features)))
        row = np.array([[feature.value for feature in vector.features]])
        fitted.append((LogisticRegression().fit(x, generator.random(200) < 0.5), row))
    return lambda: [model.decision_function(row) for model, row in fitted]


if __name__ == "__main__":
    sys.exit(main())
