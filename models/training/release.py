"""Writes the directory of one model version: graphs, manifest, model card, bill of materials. Same sources, same bytes.

A release states, beside what `models.shelf` asks of every manifest: `intended_use`, `evidence`, `source`, `training`
(from `training` below), and, empty where it has none, `metrics`, `operating_points`, `attributions` (what the licences
of its data ask to be said) and, where it has it, `card` (answers to the questions of `models.training.attributes`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from models.training import graph, sbom, sources
from models.training.card import card as card

CARD = "MODEL_CARD.md"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def training(
    module: str,
    *,
    seeds: Mapping[str, int] | None = None,
    data: Mapping[str, str] | None = None,
    read: Iterable[Path] = (),
    fitted_by: Iterable[str] = (),
    libraries: Iterable[str] = (),
) -> dict[str, Any]:
    """The `training` member of a manifest, for the release `module` (its `__name__`).

    `seeds` by what they are for; `data`: file -> SHA-256 of what was fitted on and does not stand in the repository;
    `read`: files beside the training sources that were read (coefficients, licences); `fitted_by`: modules that made
    committed coefficients and that the release itself does not import, or only the `libraries` of these.

    Raises: Misconfigured where an installed library is not the locked one.
    """
    modules = (module, *fitted_by)
    return {
        "command": "python -m models.training",
        "sources": sources.sources(*modules, data=read),
        "libraries": sbom.versions(sorted({*sources.libraries(*modules), *libraries})),
        "seeds": dict(seeds or {}),
        "data": dict(data or {}),
        "threads": 1,
        "opset": graph.OPSET,
        "ir_version": graph.IR_VERSION,
    }


def write(root: Path, manifest: dict[str, Any], files: Mapping[str, bytes]) -> Path:
    """Write `<root>/<name>/<version>/`; the manifest gets the digest of every other file.

    The model card and the bill of materials are always made here, from the manifest.
    """
    manifest = {"metrics": [], "operating_points": [], "attributions": [], **manifest}
    directory: Path = root / manifest["name"] / manifest["version"]
    directory.mkdir(parents=True, exist_ok=True)
    given = {name: body for name, body in files.items() if name not in (CARD, sbom.NAME)}
    made = {
        **given,
        CARD: card(manifest).encode(),
        sbom.NAME: sbom.bill(manifest, {name: sha256(body) for name, body in given.items()}),
    }
    for name, body in made.items():
        (directory / name).write_bytes(body)
    whole = {**manifest, "files": {name: sha256(body) for name, body in sorted(made.items())}}
    text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    (directory / "manifest.json").write_bytes(text.encode())
    return directory
