"""What the graphs and releases of published point scores share: cut points, outputs, and the frame of a manifest.

A point score has outputs `items` [N, 1, K] (what each input adds, in order) and `points` [N, 1, 1]. Where a publication
gives a probability its graph also has `z`, the logit of it, and an identity head; where none does, `head` is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.features import Definition
from models.fusion import head_shapes
from models.training import head, release
from models.training.graph import Graph

SCENARIO = "score"
CARD = {
    "developer": "Equation: see the publication. Graph and integration: the cds-server project",
    "model_type": "published point score or closed-form equation, evaluated exactly",
    "variables": (
        "Date of birth (as age) decides whether the model speaks or is an input; sex where the inputs name it. Race, "
        "ethnicity, language, sexual orientation, gender identity, social determinants are not used."
    ),
    "validity_internal": "not measured here; see the publication",
}


def bands(g: Graph, x: str, cuts: Sequence[tuple[float, float]], above: float) -> str:
    """Points of a value: those of the first cut that it does not exceed, else `above`. `cuts`: (up to, points)."""
    points: str | float = above
    for upper, here in reversed(cuts):
        points = g("Where", g("LessOrEqual", x, upper), here, points)
    return str(points)


def flag(g: Graph, condition: str, points: float) -> str:
    return g("Where", condition, points, 0.0)


def publish(g: Graph, name: str, *columns: str) -> None:
    """Output `name` [N, 1, K] from K columns [N, 1]."""
    joined = g("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]
    g("Unsqueeze", joined, g.constant([1], index=True), out=name)


def finish(g: Graph, columns: int, outputs: Mapping[str, int], *, z: bool, about: str) -> bytes:
    """The graph's bytes. `outputs`: name -> K."""
    shapes: dict[str, tuple[str | int, ...]] = {name: ("N", 1, k) for name, k in outputs.items()}
    return g.model({"x": ("N", columns)}, {**shapes, **({"z": ("N", 1)} if z else {})}, about)


def rule(definition: Definition, **more: Any) -> dict[str, Any]:
    """What may be typed for an input: the range in which it is believed when it is read from a record."""
    if definition.plausible is None or definition.threshold is not None:
        return {"name": definition.name, "allowed": sorted(definition.words), "words": _words(definition), **more}
    return {"name": definition.name, "range": list(definition.plausible), "whole": definition.whole, **more}


def _words(definition: Definition) -> dict[str, str]:
    return {f"{value:g}": word for value, word in definition.words.items()}


def choice(name: str, words: Mapping[float, str], **more: Any) -> dict[str, Any]:
    allowed = sorted(words)
    return {"name": name, "allowed": allowed, "words": {f"{value:g}": words[value] for value in allowed}, **more}


def part(
    modality: Any,
    columns: Sequence[str],
    outputs: Mapping[str, Sequence[str]],
    *,
    definitions: Iterable[Definition],
    z: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The modality's part of a manifest. `outputs`: name -> what stands in it, in order; `z`: what its logit is of."""
    shapes: dict[str, list[Any]] = {name: ["N", 1, len(words)] for name, words in outputs.items()}
    return {
        "name": modality.NAME,
        "encoder": modality.ENCODER,
        "file": f"{modality.NAME}.onnx",
        "columns": list(columns),
        "inputs": {"x": ["N", len(columns)]},
        "outputs": {**shapes, **({"z": ["N", 1]} if z else {})},
        "scenarios": [SCENARIO],
        "curves": {name: [name] for name in outputs},
        "meaning": {name: list(words) for name, words in outputs.items()},
        **({"z": z} if z else {}),
        "features": [definition.plain() for definition in definitions],
        **more,
    }


def identity_head(modality: Any) -> tuple[dict[str, Any], bytes]:
    """The `head` member and the file `head.onnx` of a model with one modality that gives a probability."""
    inputs, outputs = head_shapes(1)
    member = {
        "file": "head.onnx",
        "modalities": [modality.NAME],
        "patterns": [[modality.NAME]],
        "inputs": inputs,
        "outputs": outputs,
        "text": "Identity: one modality, weight 1, no interval.",
    }
    row = head.Row(0.0, {modality.NAME: 1.0})
    return member, head.build([modality.NAME], [0.0], {frozenset({modality.NAME}): row})


def table(modality: Any, names: Mapping[str, Sequence[str]], **defaults: float) -> dict[str, Any]:
    """The `table` member, for `cds models run`. `names`: output -> a column for each of its numbers, in order."""
    cells = [
        [column, out, SCENARIO, at] for out, columns in names.items() for at, column in enumerate(columns, start=1)
    ]
    return {"modality": modality.NAME, "defaults": defaults, "outputs": cells}


def write(root: Path, stated: dict[str, Any], graph: bytes, more: Mapping[str, bytes] | None = None) -> Path:
    (only,) = stated["modalities"]
    return release.write(root, stated, {only["file"]: graph, **(more or {})})
