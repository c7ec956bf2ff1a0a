"""MODEL_CARD.md: what the manifest says, for people (Mitchell 2019, FAT* '19; CHAI; HTI-1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.training import attributes

Manifest = Mapping[str, Any]


def card(manifest: Manifest) -> str:
    """The model card in Markdown; every part is there, and says "none" or "unknown" where there is nothing to say."""
    lines = [
        f"# {manifest['title']}",
        "",
        f"`{manifest['name']}@{manifest['version']}`. {manifest['intended_use']}",
        *_paragraph("What it says", manifest["endpoint"]),
        *_paragraph("For whom", manifest["population"]["text"]),
        *_inputs(manifest),
        *_parameters(manifest),
        *_bullets("How it was checked", manifest["evidence"]),
        *_metrics(manifest),
        *_operating_points(manifest),
        *_bullets("Limits", manifest["limits"]),
        *_training(manifest),
        *_paragraph("Source and licence", manifest["source"]["text"]),
        "",
        manifest["licence"],
        *(f"\n{text}" for text in manifest.get("attributions", ())),
        *_hti1(manifest),
        *_chai(manifest),
    ]
    return "\n".join(lines) + "\n"


def _paragraph(title: str, text: str) -> list[str]:
    return ["", f"## {title}", "", text]


def _bullets(title: str, texts: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {text}" for text in texts)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _inputs(manifest: Manifest) -> list[str]:
    rows = [
        _input(column, [feature for feature in part["features"] if feature["name"] == column], manifest)
        for part in manifest["modalities"]
        for column in part["columns"]
        if column not in manifest["parameters"]
    ]
    return ["", "## Inputs", "", *_table(["column", "what", "from", "unknown"], rows)]


def _input(column: str, described: Sequence[Manifest], manifest: Manifest) -> list[str]:
    if not described:
        title, origin, unknown = manifest["other_inputs"][column]
        return [f"`{column}`", title, origin, unknown]
    tokens = ", else ".join(
        ", ".join(f"`{token.rpartition('|')[2]}`" for token in feature["codes"]["codes"]) for feature in described
    )
    feature = described[0]
    unknown = "required" if feature["required"] else (feature["unknown_note"] or "").removeprefix("unknown: ")
    return [f"`{column}`", feature["title"], tokens, unknown or attributes.UNKNOWN]


def _parameters(manifest: Manifest) -> list[str]:
    if not manifest["parameters"]:
        return []
    said = [f"`{name}`: {label}" for name, (_, label) in sorted(manifest["parameters"].items())]
    lines = _bullets("Governed parameters", said)
    return [*lines[:3], "Decided by whoever releases the model, not read from the record.", "", *lines[3:]]


def _metrics(manifest: Manifest) -> list[str]:
    """`metrics`: objects of `what`, `value`, `interval` (two numbers or none), `n`, `events`, `data`, `design`."""
    metrics = manifest.get("metrics", ())
    if not metrics:
        return []
    rows = [
        [
            metric["what"],
            _number(metric["value"]),
            "none computed" if metric.get("interval") is None else " to ".join(map(_number, metric["interval"])),
            _number(metric.get("n")),
            _number(metric.get("events")),
            metric.get("data") or attributes.UNKNOWN,
            metric.get("design") or attributes.UNKNOWN,
        ]
        for metric in metrics
    ]
    header = ["what", "value", "95 % interval", "n", "events", "data", "design"]
    return ["", "## Measured", "", *_table(header, rows)]


def _number(value: float | None) -> str:
    if value is None:
        return attributes.UNKNOWN
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _operating_points(manifest: Manifest) -> list[str]:
    points = manifest.get("operating_points", ())
    return _bullets("Operating points", points or ["None: the number is shown, no threshold acts on it."])


def _training(manifest: Manifest) -> list[str]:
    training = manifest["training"]
    seeds = ", ".join(f"{name} {seed}" for name, seed in sorted(training["seeds"].items()))
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(training["libraries"].items()))
    data = [f"data `{name}`: SHA-256 `{digest}`" for name, digest in sorted(training["data"].items())]
    return _bullets(
        "How it was made",
        [
            f"`{training['command']}`, one thread; the same inputs and the same lock give the same bytes.",
            f"libraries: {libraries}; everything that they need is in `sbom.cdx.json`",
            f"seeds: {seeds or 'none, nothing is drawn at random'}",
            *(data or ["data: none, nothing was fitted here"]),
            f"sources: {len(training['sources'])} files, by SHA-256 in `manifest.json`",
        ],
    )


def _hti1(manifest: Manifest) -> list[str]:
    rows = [
        [str(number), attribute.clause, attribute.asks, answer]
        for number, (attribute, answer) in enumerate(attributes.hti1(manifest), start=1)
    ]
    about = "45 CFR 170.315(b)(11)(iv)(B). What nobody knows is said to be unknown."
    return ["", "## HTI-1 source attributes", "", about, "", *_table(["", "clause", "attribute", "answer"], rows)]


def _chai(manifest: Manifest) -> list[str]:
    rows = [[section, field, answer] for section, fields in attributes.chai(manifest) for field, answer in fields]
    about = "Fields of the CHAI applied model card, v0.2."
    return ["", "## CHAI applied model card", "", about, "", *_table(["section", "field", "answer"], rows)]
