"""`cds restore`"""

from __future__ import annotations

import argparse
from pathlib import Path

from cds_server.commands.opening import common, emit, settings_of

NAME = "restore"
HELP = "put a backup back into an empty data directory, and verify its log"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="what `cds backup` made")
    parser.add_argument("--keys", metavar="DIR", help="where the keys are kept, if not in DIR/keys")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.copies import restore

    settings = settings_of(args)
    made = restore(settings, Path(args.directory), Path(args.keys) if args.keys else None)
    emit(args, made, f"{made['entries']} entries restored; the log verifies")
    return 0
