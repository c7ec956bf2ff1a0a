"""Subtype and stage of a breast tumour, from the very numbers that a model read: what a pool may be filtered by.

subtype   HER2 positive; ER positive, HER2 negative; ER negative, HER2 negative
stage     I to III by size and number of positive nodes alone, as the anatomical groups of the AJCC have them (7th
          edition, breast): T1 to 20 mm, T2 to 50, T3 above; N1 1 to 3, N2 4 to 9, N3 from 10. What grows into skin or
          chest wall (T4) is not in these numbers; metastatic disease no model here speaks for.

Where one of the numbers was not observed there is no group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.nouns import FeatureVector

SUBTYPE, STAGE = "subtype", "stage"
HER2_POSITIVE, LUMINAL, NEGATIVE = "her2", "er", "neither"
STAGES = ("I", "II", "III")
_T = (20.0, 50.0)
_N = (0.0, 3.0, 9.0)
_GROUP = ((0, 1, 2), (1, 1, 2), (1, 2, 2))
"""By T1 to T3, then N0 to N2: index of the stage. N3 is stage III."""


def groups_of(vectors: Sequence[FeatureVector]) -> Mapping[str, str]:
    """SUBTYPE and STAGE, those of them that can be told."""
    seen = {
        feature.name: feature.value
        for vector in vectors
        if vector.absent is None
        for feature in vector.features
        if not feature.missing
    }
    found = {}
    er, her2, size, nodes = (seen.get(name) for name in ("er", "her2", "size", "nodes"))
    if her2 == 1.0:
        found[SUBTYPE] = HER2_POSITIVE
    elif her2 == 0.0 and er in (0.0, 1.0):
        found[SUBTYPE] = LUMINAL if er else NEGATIVE
    if size is not None and nodes is not None:
        t, n = sum(size > limit for limit in _T), sum(nodes > limit for limit in _N)
        found[STAGE] = STAGES[2 if n == 3 else _GROUP[t][n]]
    return found
