"""What each input of a modality did to its logit, and where that input came from.

The graph itself is asked: it is run again with one input at its reference value and the others as they are. The
difference is that input's amount. Where the equation is additive, the amounts and the logit at all references add up to
the modality's logit (within `TOLERANCE`, float64; checked each time, a manifest is not believed). Where it is not
(PREDICT: age, size, grade and the receptors act together over the years), each amount answers one question only, "what
if this were the reference", they do not add up, and nothing here pretends it.

References stand in the modality's part of the manifest: `explain` = {`kind`: `additive` or `what-if`, `reference`:
column -> number, `text`}. They lie within the manifest's rules. A modality without them is not explained, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import BadInput, ContractMismatch, ModelFault
from models.inputs import checked
from models.nouns import JSON, FeatureVector, Judgement, ModelVersion, Provenance
from models.runtime import Session

ADDITIVE, WHAT_IF = "additive", "what-if"
TOLERANCE = 1e-9
"""Logits: how far base and amounts of an additive modality may be from its logit."""
NO_BAND = "no band of uncertainty is published for this model, so none is drawn"


@dataclass(frozen=True, slots=True)
class Part:
    """One input: what it is, what it did, and the facts behind it."""

    feature: str
    """Column of the graph."""
    label: str
    """The value as people read it."""
    missing: bool
    amount: float
    """Logits: how much more the modality says than with the reference value."""
    reference: float
    facts: tuple[str, ...]
    sources: tuple[Provenance, ...]
    """Landing, part and pointer of each fact, in the order of `facts`."""

    def plain(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "label": self.label,
            "missing": self.missing,
            "amount": self.amount,
            "reference": self.reference,
            "facts": list(self.facts),
            "sources": [source.plain() for source in self.sources],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """One modality's logit, taken apart."""

    modality: str
    kind: str
    """`additive`: base + amounts = z. `what-if`: each amount alone, not to be added."""
    z: float
    base: float | None
    """The logit with every input at its reference; None for `what-if`."""
    parts: tuple[Part, ...]
    """The largest amount first."""
    text: str
    """What the references are."""

    def points(self, part: Part) -> float:
        """Percentage points of the modality's own risk that this input alone adds to that with the reference value."""
        return 100.0 * (_sigmoid(self.z) - _sigmoid(self.z - part.amount))

    def plain(self) -> dict[str, Any]:
        plain = {
            "modality": self.modality,
            "kind": self.kind,
            "z": self.z,
            "parts": [part.plain() for part in self.parts],
            "text": self.text,
        }
        return plain if self.base is None else {**plain, "base": self.base}


@dataclass(frozen=True, slots=True)
class _Voice:
    session: Session
    z: int
    columns: tuple[str, ...]
    reference: Mapping[str, float]
    kind: str
    text: str


class Explainer:
    """One model version, loaded and verified; safe to share between threads."""

    def __init__(self, model: ModelVersion, directory: Path) -> None:
        """Raises: DigestMismatch, ContractMismatch (also where a reference breaks the manifest's rules)."""
        self.model = model
        self._voices = {
            part["name"]: _voice(part, model, directory)
            for part in model.manifest["modalities"]
            if "explain" in part and "z" in part["outputs"]
        }

    def explain(self, judgement: Judgement) -> tuple[Explanation, ...]:
        """One explanation for each modality that spoke and states its references.

        Raises: ModelFault where a modality that calls itself additive is not.
        """
        if judgement.model.id != self.model.id:
            raise ContractMismatch("the judgement is another model's", where=self.model.id)
        origins = {fact.id: fact.source for fact in judgement.snapshot.facts}
        return tuple(
            _explained(self._voices[vector.modality], vector, origins)
            for vector in judgement.vectors
            if vector.absent is None and vector.modality in self._voices
        )


def why_no_band(model: ModelVersion) -> str | None:
    """Why a score of this model has no band of uncertainty; None where its head publishes one."""
    head: JSON = model.manifest["head"]
    return None if "band_lo" in head.get("outputs", {}) else str(head.get("no_band", NO_BAND))


def _voice(part: JSON, model: ModelVersion, directory: Path) -> _Voice:
    stated: JSON = part["explain"]
    rules = {rule["name"]: rule for rule in part.get("rules", model.manifest["rules"])}
    if stated["kind"] not in (ADDITIVE, WHAT_IF):
        raise ContractMismatch("explain is neither additive nor what-if", where=model.id)
    for column, value in stated["reference"].items():
        if column not in part["columns"]:
            raise ContractMismatch("explain names a column that the graph does not have", where=model.id)
        if column in rules:
            try:
                checked(rules[column], value, where="explain")
            except BadInput as error:
                raise ContractMismatch(f"explain: {error.what}", where=model.id) from None
    session = Session(
        directory / part["file"], model.files[part["file"]], inputs=part["inputs"], outputs=part["outputs"]
    )
    return _Voice(
        session,
        list(part["outputs"]).index("z"),
        tuple(part["columns"]),
        {column: float(value) for column, value in stated["reference"].items()},
        stated["kind"],
        stated["text"],
    )


def _explained(voice: _Voice, vector: FeatureVector, origins: Mapping[str, Provenance]) -> Explanation:
    values = [feature.value for feature in vector.features]
    at = {column: voice.columns.index(column) for column in voice.reference}
    rows = [values, [voice.reference.get(c, v) for c, v in zip(voice.columns, values, strict=True)]]
    for column, position in at.items():
        rows.append([*values[:position], voice.reference[column], *values[position + 1 :]])
    z, base, *without = [_alone(voice, row) for row in rows]
    parts = []
    for (column, position), other in zip(at.items(), without, strict=True):
        feature = vector.features[position]
        sources = tuple(origins[fact] for fact in feature.facts)
        parts.append(
            Part(column, feature.label, feature.missing, z - other, voice.reference[column], feature.facts, sources)
        )
    if voice.kind == ADDITIVE and not abs(base + sum(part.amount for part in parts) - z) <= TOLERANCE:
        raise ModelFault(f"modality {vector.modality} calls itself additive, and its amounts do not add up")
    ordered = tuple(sorted(parts, key=lambda part: -abs(part.amount)))
    return Explanation(vector.modality, voice.kind, z, base if voice.kind == ADDITIVE else None, ordered, voice.text)


def _alone(voice: _Voice, row: list[float]) -> float:
    """One row at a time, as at serving: a batch may give other last bits."""
    return float(voice.session.run({"x": np.array([row])})[voice.z].item())


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))
