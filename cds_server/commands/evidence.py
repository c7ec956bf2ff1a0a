"""`cds evidence`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cds_server.commands.access import looked
from cds_server.commands.opening import actor_of, common, emit, existing, parts_of, settings_of

if TYPE_CHECKING:
    from cds_server.store.store import Store

NAME = "evidence"
HELP = "what shows an auditor that a model version did what is said of it: one ZIP file, checked offline"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL@V", help="as `cds models` lists it")
    parser.add_argument("--out", metavar="FILE", required=True, help="a ZIP file that is not there yet")
    parser.add_argument("--card", metavar="UUID", help="open this card in it: then the file is the patient's data")
    parser.add_argument("--at", type=int, default=0, metavar="N", help="as of the checkpoint at N entries, again")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.checkpoints import Checkpoints
    from cds_server.evidence import evidence

    settings = settings_of(args)
    existing(settings)
    actor = actor_of(args, settings)
    with parts_of(settings, actor) as parts:
        if args.card:
            looked(args, settings, parts.store, "evidence", *_record(parts.store, args.card), act="export")
        checkpoints = Checkpoints(parts.store, settings.public_url)
        if not args.at:
            checkpoints.make(actor)
        shelf = parts.registry.shelf
        made = evidence(parts.store, checkpoints, shelf, args.model, Path(args.out), card=args.card or None, at=args.at)
    told = f"{made.files} files about {made.inferences} inferences, as of {made.size} entries; SHA-256 {made.digest}"
    result = {"size": made.size, "files": made.files, "sha256": made.digest, "inferences": made.inferences}
    emit(args, result, f"{told}\ncheck it elsewhere: unpack it, and python check.py . --key KEY")
    return 0


def _record(store: Store, card: str) -> list[str]:
    """Whose card it is."""
    rows = store.reads.query(
        "SELECT p.ref FROM card c JOIN inference i ON i.id = c.inference_id "
        "JOIN patient_record p ON p.id = i.record_id WHERE c.uuid = ?",
        (card,),
    )
    return [row[0] for row in rows]
