"""`cds hl7 queue`: what waits for each destination, and what its receiver said last."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cds_server.outbox import Counted

VERB = "queue"
HELP = "results on their way to each destination: how many wait, since when, and why"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from cds_server.commands.opening import emit, existing, settings_of, store_of, table
    from cds_server.outbox import waiting

    settings = settings_of(args)
    existing(settings)
    with store_of(settings) as store:
        found = waiting(store, [each.name for each in settings.destinations])
    header = ["destination", "waiting", "oldest", "refused", "last yes", "trouble"]
    emit(args, [asdict(each) for each in found], table(header, [_row(each) for each in found]) if found else _NONE)
    return 0


_NONE = "there is no [[destination]]: nothing is sent"


def _row(each: Counted) -> list[str]:
    def shortly(at: str | None) -> str:
        return at[:19] if at else "-"

    counted = [str(each.waiting), shortly(each.oldest), str(each.parked)]
    return [each.destination, *counted, shortly(each.heard), each.trouble or "-"]
