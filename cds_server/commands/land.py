"""`cds land`"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from cds_server.commands.opening import actor_of, common, emit, progress, settings_of, store_of

NAME = "land"
HELP = (
    "make files durable as they are, by content: NDJSON, Bundle, single FHIR resource, HL7 v2 messages, DICOM objects, "
    "each plain or gzip"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a file, or a folder whose files are landed in order of name"
    )
    parser.add_argument(
        "--source", default="files", help="the [[source]] of the configuration that sends this; its namespace is used"
    )
    parser.add_argument("--namespace", help="the namespace of the local ids in these files (default: the source's)")
    common(parser)


def run(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    actor = actor_of(args, settings)
    configured = next((source for source in settings.sources if source.name == args.source), None)
    namespace = args.namespace or (configured.namespace if configured else args.source)
    with store_of(settings) as store:
        results = asyncio.run(_land(args, store, actor, namespace))
    refused = [result for result in results if result["arrival"] in ("refused", "conflict")]
    text = "\n".join(
        f"{result['arrival']:9}  {result['file']}  "
        + (result["error"] if "error" in result else f"{result['parts']} parts")
        + "".join(f"\n           note: {note}" for note in result.get("notes", ()))
        for result in results
    )
    emit(args, results, text)
    return 1 if refused else 0


async def _land(args: argparse.Namespace, store: Any, actor: str, namespace: str) -> list[dict[str, Any]]:
    from adapters.sources.files import land_file
    from cds_server.decisions import now
    from cds_server.intake import StoreIntake
    from models.errors import BadInput

    intake, results = StoreIntake(store, actor), []
    for path in _files(args.paths):
        with progress(path.name) as report:
            try:
                receipt = await land_file(
                    path, intake, source=args.source, namespace=namespace, received_at=now(), progress=report
                )
                result: dict[str, Any] = {
                    "file": path.name,
                    "arrival": receipt.arrival.value,
                    "landing": receipt.landing,
                    "parts": receipt.parts,
                }
                if notes := _notes(store, receipt.landing):
                    result["notes"] = notes
                results.append(result)
            except BadInput as error:
                results.append({"file": path.name, "arrival": "refused", "error": str(error)})
                print(f"cds land: {path.name}: {error}", file=sys.stderr)
    return results


def _notes(store: Any, ref: str) -> list[str]:
    """What was odd about the file (a batch whose counts do not agree, ...), as its landing keeps it."""
    landing = store.reads.landing_by_ref(ref)
    manifest = store.manifest(landing) if landing is not None else None
    return list(json.loads(manifest).get("notes", ())) if manifest else []


def _files(paths: list[str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        found += (
            sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")) if path.is_dir() else [path]
        )
    return found
