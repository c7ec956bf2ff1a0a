"""`cds erase`"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cds_server.commands.opening import actor_of, common, emit, existing, record_of, settings_of, store_of

NAME = "erase"
HELP = "destroy the keys of everything that is sealed about a person, and give a receipt; every old proof stays valid"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("person", metavar="PERSON", help="NAMESPACE/ID, system|value, or a person's uuid")
    parser.add_argument(
        "--basis", metavar="TEXT", required=True, help="why, as the law or the patient says; it stays, and names nobody"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and change nothing")
    parser.add_argument(
        "--shared-parts",
        action="store_true",
        help="let parts go that hold another person's data, too: what was read of the others stays",
    )
    parser.add_argument(
        "--receipt", metavar="FILE", help="write the receipt here (it names nobody); keep it off backups"
    )
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.commands.opening import progress
    from cds_server.erasure import erase
    from cds_server.source_rules import rules_of

    settings = settings_of(args)
    existing(settings)
    with store_of(settings) as store, progress("looking for parts"):
        done = erase(
            store,
            record_of(store, args.person),
            args.basis,
            actor_of(args, settings),
            rules=rules_of(settings),
            shared=args.shared_parts,
            dry_run=args.dry_run,
        )
    if args.receipt and not args.dry_run:
        Path(args.receipt).write_text(json.dumps(done.receipt, indent=1) + "\n", encoding="utf-8")
    emit(args, done.receipt, "\n".join(_told(done.receipt, done.ref, done.seq, args.receipt)))
    if not done.wiped:
        print("The write-ahead logs are in use: run `cds purge` when the server rests, to empty them.")
    return 0


def _told(receipt: Mapping[str, Any], ref: str, seq: int, file: str | None) -> list[str]:
    head = f"erased (entry {seq}, erasure {ref})" if ref else "nothing was changed; an erasure would take"
    lines = [head, f"  records            {receipt['records']}"]
    lines += [f"  keys of {kind:<10} {count}" for kind, count in receipt["destroyed"].items()]
    lines += [f"  rows of {table:<18} {count}" for table, count in receipt["removed"].items()]
    if receipt["shared_parts"]:
        lines.append(f"  parts shared with other persons: {receipt['shared_parts']} (--shared-parts)")
    if receipt["not_sent"]:
        lines.append(f"  results that will not be sent any more: {receipt['not_sent']}")
    over = receipt["handed_over"]
    lines.append("handed over before, and not ours to erase:")
    lines += [f"  result sent to {each['destination']} at {each['at'][:19]}" for each in over["results"]]
    lines += [f"  {count} cards answered to {ehr}" for ehr, count in over["cards"].items()]
    lines += [f"  {each['act']} at {each['at'][:19]} through {each['door']}" for each in over["exports"]]
    if not any(over.values()):
        lines.append("  nothing")
    if ref:
        lines.append(f"receipt: {file or 'in the file `erasures` of the data directory'}; a restore asks for it")
    return lines
