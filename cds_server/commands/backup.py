"""`cds backup`"""

from __future__ import annotations

import argparse
from pathlib import Path

from cds_server.commands.opening import common, emit, existing, settings_of

NAME = "backup"
HELP = "copy an instance, while it runs: DIR/database, DIR/blobs, DIR/models, and apart from them DIR/keys"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a new or empty folder")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.copies import backup

    settings = settings_of(args)
    existing(settings)
    made = backup(settings, Path(args.directory))
    what = "the database" if made["entries"] is None else f"{made['entries']} entries"
    warning = f"Keep {args.directory}/keys away from the rest: whoever has both can read everything."
    emit(args, made, f"{what} and {made['blobs']} blobs copied. {warning}")
    return 0
