"""An inference as it was recorded, in nouns again: what the model said then, never what it would say now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cds_server.registry import Registry
from cds_server.reproduce import Recorded
from models.errors import CdsError
from models.explain import Explainer, Explanation
from models.nouns import Contribution, Feature, FeatureVector, Judgement, ModelVersion, Score
from models.score import Move


@dataclass(frozen=True, slots=True)
class Then:
    """A recorded judgement with the very model version that made it."""

    recorded: Recorded
    judgement: Judgement
    directory: Path | None
    """Of the model version; None: it is gone, and its manifest is empty here."""
    gone: str | None = None
    """Why, in our words."""


class Judged:
    """Opens what was recorded; keeps the models' explainers, which never change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._explainers: dict[str, Explainer] = {}
        self._versions: dict[str, tuple[ModelVersion, Path]] = {}

    def of(self, recorded: Recorded) -> Then:
        name, _, version = recorded.model.partition("@")
        plain = orjson.loads(recorded.judged)
        vectors = tuple(_vector(each) for each in plain["vectors"])
        directory, gone = None, None
        try:
            model, directory = self._version(name, version, recorded.model_digest)
        except CdsError as error:
            gone = error.what
            model = ModelVersion(name, version, {"modalities": [], "head": {}}, recorded.model_digest, {})
        judgement = Judgement(recorded.snapshot, vectors, model, _score(plain["score"]))
        return Then(recorded, judgement, directory, gone)

    def _version(self, name: str, version: str, digest: str) -> tuple[ModelVersion, Path]:
        """A version under its digest never changes: it is read once. Errors: ModelFault, where it is gone."""
        found = self._versions.get(digest)
        if found is None:
            found = self._versions[digest] = self._registry.version_then(name, version, digest)
        return found

    def explained(self, then: Then) -> Mapping[str, Explanation]:
        """Modality -> what each of its inputs did; empty where the model is gone, or states no references."""
        if then.directory is None:
            return {}
        digest = then.judgement.model.manifest_digest
        try:
            explainer = self._explainers.get(digest)
            if explainer is None:
                explainer = self._explainers[digest] = Explainer(then.judgement.model, then.directory)
            return {each.modality: each for each in explainer.explain(then.judgement)}
        except CdsError:
            return {}


def _vector(plain: Mapping[str, Any]) -> FeatureVector:
    return FeatureVector(
        plain["modality"],
        plain["encoder"],
        tuple(_feature(each) for each in plain.get("features", ())),
        plain.get("absent"),
        tuple(plain.get("cautions", ())),
    )


def _feature(plain: Mapping[str, Any]) -> Feature:
    value = plain.get("value")
    return Feature(
        plain["name"],
        math.nan if value is None else float(value),
        plain["missing"],
        tuple(plain.get("facts", ())),
        plain.get("label", ""),
        plain.get("effective"),
        plain.get("note"),
    )


def _score(plain: Mapping[str, Any]) -> Score:
    """As it was sealed; whole numbers were spelled without a point."""

    def number(name: str) -> float | None:
        return float(plain[name]) if name in plain else None

    return Score(
        model=plain["model"],
        abstained=plain.get("abstained"),
        logit=number("logit"),
        probability=number("probability"),
        base=float(plain.get("base", 0.0)),
        contributions=tuple(
            Contribution(each["modality"], float(each["z"]) if "z" in each else None, float(each["amount"]))
            for each in plain.get("contributions", ())
        ),
        interval=_pair(plain.get("interval")),
        interval_kind=plain.get("interval_kind"),
        outputs=plain.get("outputs", {}),
        band=_pair(plain.get("band")),
        moves=tuple(Move(each["modality"], float(each["half_width"])) for each in plain.get("moves", ())),
        validated=plain.get("validated", True),
    )


def _pair(plain: Any) -> tuple[float, float] | None:
    return None if plain is None else (float(plain[0]), float(plain[1]))
