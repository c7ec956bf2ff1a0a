"""Expression modality: the intrinsic subtype (PAM50 and claudin-low) of the chosen breast cancer, as six flags.

The subtype is one coded result. Its code list stands in `expression.json`, with its scope: no public example carries
one. A code that is not on the list is no answer, and the reader is told. Whose result it is, and for whom the model
holds, is asked as for the clinical modality (`models.tumour`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from models import codes, features, tumour
from models.canonical import digest
from models.codes import CodeSet, Key
from models.features import Definition, Picked, pick
from models.nouns import JSON, Feature, FeatureVector, Snapshot
from models.strict import loads

NAME = "expression"

SUBTYPES = ("LumA", "LumB", "Her2", "Basal", "Normal", "claudin-low")
TITLES = {
    "LumA": "luminal A",
    "LumB": "luminal B",
    "Her2": "HER2-enriched",
    "Basal": "basal-like",
    "Normal": "normal-like",
    "claudin-low": "claudin-low",
}
_ROOM = Path(__file__).parent.parent
_SOURCES = ("codes.py", "features.py", "modalities/expression.json", "modalities/expression.py", "tumour.py")
_SETS: dict[str, Any] = loads(Path(__file__).with_suffix(".json").read_bytes(), what="expression.json")


def _code_set(name: str) -> CodeSet:
    stated = _SETS[name]
    return CodeSet(stated["name"], stated["scope"], stated["source"], codes.keys(*stated["codes"].items()))


_ANSWERS = _code_set("answers")
SUBTYPE = Definition(
    "subtype", "Intrinsic subtype by gene expression", _code_set("question"),
    {key: float(SUBTYPES.index(key[1])) if key[1] in SUBTYPES else None for key in _ANSWERS.codes},
    window_days=365, words={float(at): TITLES[name] for at, name in enumerate(SUBTYPES)},
)  # fmt: skip
DEFINITIONS: list[dict[str, Any]] = [SUBTYPE.plain()]
ENCODER = digest(
    {
        "sources": {name: hashlib.sha256((_ROOM / name).read_bytes()).hexdigest() for name in _SOURCES},
        "features": DEFINITIONS,
    }
)
_SLOT: dict[Key, str] = {key: asked.name for asked in (*tumour.ASKED, SUBTYPE.codes) for key in asked.codes}
_WANTED = frozenset(f"{system}|{code}" for system, code in _SLOT)


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _WANTED


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """Six flags in the manifest's column order, one of them 1; absent where no usable subtype of this tumour is known.

    `snapshot.context` may carry `focus` (`Condition/id`, the chosen tumour).
    """
    slots = tumour.by_question(snapshot.facts, _SLOT)
    whose = tumour.chosen(slots, snapshot.context.get("focus"))
    if isinstance(whose, str):
        return _absent(whose)
    outside = tumour.outside_population(slots, whose)
    if outside:
        return _absent(outside)
    facts = [fact for fact in slots.get(SUBTYPE.codes.name, ()) if tumour.speaks_of(whose, fact)]
    day = features.calendar(whose.fact.effective)
    found = pick(SUBTYPE, facts, snapshot.clinical_time[:10], day.ordinal if day else None, whose.reference)
    if found.value is None:
        return _absent("; ".join(filter(None, ("no expression subtype is known", found.note))))
    return FeatureVector(NAME, ENCODER, tuple(_flag(name, found) for name in manifest["columns"]))


def _flag(name: str, found: Picked) -> Feature:
    there = found.value == SUBTYPES.index(name)
    return Feature(
        name, float(there), False, found.facts, TITLES[name] if there else f"not {TITLES[name]}", found.effective,
        found.note if there else None,
    )  # fmt: skip


def _absent(reason: str) -> FeatureVector:
    return FeatureVector(NAME, ENCODER, (), reason)
