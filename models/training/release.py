"""Writes the directory of one model version: graphs, manifest, model card. The same sources give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOM = Path(__file__).parent


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def sources_digest() -> dict[str, str]:
    """SHA-256 of every file that the training reads: programs and coefficients."""
    files = sorted(path for path in ROOM.rglob("*") if path.suffix in {".py", ".csv", ".md"})
    return {path.relative_to(ROOM).as_posix(): sha256(path.read_bytes()) for path in files}


def write(root: Path, manifest: dict[str, Any], files: Mapping[str, bytes]) -> Path:
    """Write `<root>/<name>/<version>/`; the manifest gets the digest of every other file."""
    directory: Path = root / manifest["name"] / manifest["version"]
    directory.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        (directory / name).write_bytes(body)
    whole = {**manifest, "files": {name: sha256(body) for name, body in sorted(files.items())}}
    text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    (directory / "manifest.json").write_bytes(text.encode())
    return directory


def card(manifest: Mapping[str, Any]) -> str:
    """The model card, in Markdown: what the manifest says, for people (after Mitchell 2019, FAT* '19)."""
    lines = [
        f"# {manifest['title']}",
        "",
        f"`{manifest['name']}@{manifest['version']}`. {manifest['intended_use']}",
        "",
        "## What it says",
        "",
        manifest["endpoint"],
        "",
        "## For whom",
        "",
        manifest["population"]["text"],
        "",
        "## Inputs",
        "",
        "| column | what | from | unknown |",
        "| --- | --- | --- | --- |",
    ]
    for part in manifest["modalities"]:
        for column in part["columns"]:
            if column not in manifest["parameters"]:
                described = [feature for feature in part["features"] if feature["name"] == column]
                lines.append(_input_row(column, described, manifest))
    lines += ["", "## Governed parameters", "", "Decided by whoever releases the model, not read from the record.", ""]
    lines += [f"- `{name}`: {label}" for name, (_, label) in sorted(manifest["parameters"].items())]
    lines += ["", "## How it was checked", "", *(f"- {text}" for text in manifest["evidence"])]
    lines += ["", "## Limits", "", *(f"- {text}" for text in manifest["limits"])]
    lines += ["", "## Source and licence", "", f"{manifest['source']['text']}", "", manifest["licence"], ""]
    return "\n".join(lines)


def _input_row(column: str, described: list[Mapping[str, Any]], manifest: Mapping[str, Any]) -> str:
    if not described:
        title, origin, unknown = manifest["other_inputs"][column]
        return f"| `{column}` | {title} | {origin} | {unknown} |"
    tokens = ", else ".join(
        ", ".join(f"`{token.rpartition('|')[2]}`" for token in feature["codes"]["codes"]) for feature in described
    )
    feature = described[0]
    unknown = "required" if feature["required"] else feature["unknown_note"].removeprefix("unknown: ")
    return f"| `{column}` | {feature['title']} | {tokens} | {unknown} |"
