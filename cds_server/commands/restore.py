"""`cds restore`"""

from __future__ import annotations

import argparse
from pathlib import Path

from cds_server.commands.opening import actor_of, common, emit, settings_of

NAME = "restore"
HELP = "put a backup back into an empty data directory, and verify its log"

SIGNING = """
The log was signed up to entry {signed} in this backup, perhaps further since. It is not signed before you say how:
  Nothing lost?   put the last published checkpoint (file `checkpoint` of the old data directory, or a witness's
                  /checkpoints) into the data directory as `checkpoint`: signing goes on if the log extends it.
  Entries lost?   cds ledger break --reason TEXT: an entry says so, and the log goes on under another origin, whose key
                  every witness and auditor must be given."""

ERASURES = """
Was anybody erased after this backup was made? Then their data are back. Restore into an empty directory again, with
--erasures FILE: the receipts, or the file `erasures` of the old data directory."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="what `cds backup` made")
    parser.add_argument("--keys", metavar="DIR", help="where the keys are kept, if not in DIR/keys")
    parser.add_argument(
        "--erasures",
        metavar="FILE",
        action="append",
        default=[],
        help="receipts of erasures after this backup, or the file `erasures` of the old data directory: done again",
    )
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.copies import restore

    settings = settings_of(args)
    made = restore(
        settings,
        Path(args.directory),
        Path(args.keys) if args.keys else None,
        [Path(each) for each in args.erasures],
        actor_of(args, settings),
    )
    told = f"{made['entries']} entries restored; the log verifies"
    told += f"; {made['erased_again']} erasures done again" if args.erasures else ERASURES
    if made["signed"]:
        told += SIGNING.format(signed=made["signed"])
    emit(args, made, told)
    return 0
