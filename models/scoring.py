"""From a snapshot to a score: each modality encodes, its graph speaks, the head fuses, or the whole abstains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

import models.modalities
from models.errors import ContractMismatch, ModelFault
from models.fusion import Head, abstain
from models.modalities import Modality
from models.nouns import JSON, FeatureVector, Judgement, ModelVersion, Snapshot
from models.plugins import discover
from models.runtime import Session
from models.score import Score

_PARTLY = ("population", "rules", "parameters")
"""Members of the manifest that a modality's own part may replace."""


@dataclass(frozen=True, slots=True)
class _Voice:
    """One modality of a model: its encoder, its part of the manifest, its graph."""

    name: str
    modality: Modality
    manifest: JSON
    session: Session
    z: int | None
    """Position of `z` among the outputs; None: the modality describes, it gives no risk."""
    guard: tuple[tuple[int, float, float, str], ...]
    """Applicability: position among the columns, lowest and highest value that the model was fitted on, its title."""
    curves: tuple[tuple[int, tuple[tuple[int, str], ...]], ...]
    """Outputs [N, S, Y] by position, with the rows that go into the Score under a name: lists of Y numbers."""


class Scorer:
    """One model version, loaded and verified; safe to share between threads."""

    def __init__(self, model: ModelVersion, directory: Path, *, encoding: bool = True) -> None:
        """Without `encoding`, only `fuse` may be asked: for features that the model's own encoder made, elsewhere.

        Raises: DigestMismatch, ContractMismatch (also where an encoder is not the one the model was made with).
        """
        self.model = model
        known = discover(models.modalities, "NAME")
        try:
            self._voices = tuple(
                _voice(part, model, directory, cast("dict[str, Modality]", known), encoding)
                for part in model.manifest["modalities"]
            )
            self._head = Head(model.manifest["head"], model.files, directory) if model.manifest["head"] else None
        except (KeyError, TypeError) as error:
            raise ContractMismatch(f"the manifest lacks what a model needs ({error!s})", where=model.id) from None
        if self._head is not None and self._head.modalities != tuple(voice.name for voice in self._voices):
            raise ContractMismatch("head and modalities of the manifest differ", where=model.id)
        spoken = self._voices if encoding else ()
        self._wanted = frozenset[str]().union(*(voice.modality.facts_wanted(voice.manifest) for voice in spoken))

    def facts_wanted(self) -> frozenset[str]:
        """Code tokens (`system|code`) that a snapshot for this model asks for."""
        return self._wanted

    def score(self, snapshot: Snapshot) -> Score:
        return self.judge(snapshot).score

    def judge(self, snapshot: Snapshot) -> Judgement:
        """Encode and score. Abstains with a reason; raises ModelFault only where the model itself is broken."""
        vectors = tuple([_guarded(voice, voice.modality.encode(snapshot, voice.manifest)) for voice in self._voices])
        return Judgement(snapshot, vectors, self.model, self.fuse(vectors))

    def fuse(self, vectors: Sequence[FeatureVector]) -> Score:
        """The score of encoded features, one vector for each modality in the manifest's order."""
        z: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        outputs: dict[str, Any] = {}
        for voice, vector in zip(self._voices, vectors, strict=True):
            if vector.absent is not None:
                z[voice.name], reasons[voice.name] = None, vector.absent
                continue
            z[voice.name] = _speak(voice, vector, outputs)
        return self._fused(z, reasons, outputs)

    def _fused(self, z: dict[str, float | None], reasons: dict[str, str], outputs: dict[str, Any]) -> Score:
        if self._head is not None:
            return self._head.fuse(self.model.id, z, reasons, outputs)
        if not outputs:
            return abstain(self.model.id, "; ".join(reasons.values()) or "no modality is available")
        return Score(self.model.id, None, outputs=outputs)


def _voice(
    part: JSON, model: ModelVersion, directory: Path, known: dict[str, Modality], encoding: bool = True
) -> _Voice:
    name, modality = part["name"], known.get(part.get("encoded_by", part["name"]))
    if modality is None:
        if encoding:
            raise ContractMismatch("the manifest names a modality that this program does not have", where=model.id)
        modality = next(iter(known.values()))  # never asked
    if encoding and part["encoder"] != modality.ENCODER:
        raise ContractMismatch(
            f"the encoder of modality {name} is not the one that the model was made with", where=model.id
        )
    session = Session(
        directory / part["file"], model.files[part["file"]], inputs=part["inputs"], outputs=part["outputs"]
    )
    positions = list(part["outputs"])
    curves = tuple(
        (positions.index(output), tuple((row, kept) for row, kept in enumerate(names) if kept is not None))
        for output, names in part["curves"].items()
    )
    manifest = {**{key: model.manifest[key] for key in _PARTLY}, **part}
    guard = tuple(
        (part["columns"].index(rule["name"]), *map(float, rule["range"]), str(rule["title"]))
        for rule in part.get("guard", ())
    )
    z = positions.index("z") if "z" in positions else None
    return _Voice(name, modality, manifest, session, z, guard, curves)


def _guarded(voice: _Voice, vector: FeatureVector) -> FeatureVector:
    """The vector, turned off where a value lies outside what the modality was fitted on: visibly, before fusion."""
    if not voice.guard or vector.absent is not None:
        return vector
    for position, low, high, title in voice.guard:
        feature = vector.features[position]
        if not feature.missing and not low <= feature.value <= high:
            why = f"{title} is outside {low:g} to {high:g}, where the model was fitted: modality {voice.name} is off"
            return FeatureVector(vector.modality, vector.encoder, vector.features, why, vector.cautions)
    return vector


def _speak(voice: _Voice, vector: FeatureVector, outputs: dict[str, Any]) -> float | None:
    values = [feature.value for feature in vector.features]
    if not all(map(math.isfinite, values)):
        raise ModelFault(f"modality {voice.name} encoded an input without a number")
    results = voice.session.run({"x": np.array([values])})
    for position, kept in voice.curves:
        rows = results[position][0].tolist()
        for row, output in kept:
            outputs[output] = rows[row]
    return None if voice.z is None else float(results[voice.z].item())
