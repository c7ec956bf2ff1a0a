"""`cds dicom pictures`"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cds_server.commands.opening import common, emit, existing, record_of, settings_of, store_of, table
from models.errors import Misconfigured

HELP = "the pictures of a patient's studies, with the region drawn; --out writes them, and who asked is recorded"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="NAMESPACE/ID, system|value, or a person uuid")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write them there as PNG")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.commands.access import looked
    from cds_server.imaging.pictures import pictures, png

    settings = settings_of(args)
    existing(settings)
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise Misconfigured(f"{args.out} is no folder", where="--out")
    with store_of(settings) as store:
        record = record_of(store, args.id)
        found = pictures(store, store.reads.person(record.id))
        if args.out is not None and found:
            looked(args, settings, store, "pictures", record.ref)
            args.out.mkdir(parents=True, exist_ok=True, mode=0o700)
            for each in found:
                (args.out / f"{each.media}.png").write_bytes(png(store, each))
    plain: list[dict[str, Any]] = [
        {key: value for key, value in asdict(each).items() if key not in ("landing", "part")} for each in found
    ]
    rows = [[each.media, each.title, each.note] for each in found]
    emit(args, plain, table(["picture", "region", "what it shows"], rows) if rows else "no pictures")
    return 0
