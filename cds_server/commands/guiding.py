"""`cds inference ID --fhir` and `cds ledger export --format fhir-inferences`: what was concluded, as FHIR R4."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from cds_server.commands.access import looked, span_of
from cds_server.commands.opening import actor_of, emit, parts_of

if TYPE_CHECKING:
    from cds_server.app import Parts
    from cds_server.settings import Settings


def export_inferences(args: argparse.Namespace, settings: Settings) -> int:
    """All inferences of a span as NDJSON; on record as an export of these patients before it is written."""
    from cds_server.access.happenings import patients_of
    from cds_server.checkpoints import Checkpoints
    from cds_server.guidance import Guidance, export, inferences

    span = span_of(args)
    with parts_of(settings, "system") as parts:
        store = parts.store
        checkpoints = Checkpoints(store, settings.public_url)
        refs = list(inferences(store, span.since, span.until))
        looked(args, settings, store, "inferences as FHIR", *patients_of(store, refs), act="export")
        checkpoints.make(actor_of(args, settings))
        guidance = Guidance(store, parts.registry, settings, checkpoints, pseudonyms=args.pseudonymous)
        counts = export(guidance, store, Path(args.out), span.since, span.until)
    told = ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "nothing"
    emit(args, counts, f"{told} written to {args.out}")
    return 0


def shown(args: argparse.Namespace, settings: Settings, parts: Parts, refs: list[str]) -> int:
    """A collection Bundle; its entries are of a patient, and the look is on record already."""
    import json

    from cds_server.checkpoints import Checkpoints
    from cds_server.guidance import Guidance
    from models.errors import LedgerBroken

    checkpoints = Checkpoints(parts.store, settings.public_url)
    with contextlib.suppress(LedgerBroken):  # what was said can be shown; it goes without its proof
        checkpoints.make(actor_of(args, settings))
    guidance = Guidance(parts.store, parts.registry, settings, checkpoints)
    found = [each for ref in refs for each in guidance.of(ref)]
    entries = [{"fullUrl": f"urn:cds-server:{each['id']}", "resource": each} for each in found]
    print(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=2, ensure_ascii=False))
    return 0
