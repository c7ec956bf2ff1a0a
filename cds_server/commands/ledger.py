"""`cds ledger`"""

from __future__ import annotations

import argparse
from typing import Any

from cds_server.commands.opening import common, emit, existing, settings_of

NAME = "ledger"
HELP = "check the log: `verify` walks every entry and every row it wrote"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verify = verbs.add_parser("verify", help="walk the log; exit code 1 and a sentence for each thing that is wrong")
    verify.add_argument("--deep", action="store_true", help="check canonical form and the bytes of every landing too")
    common(verify)


def run(args: argparse.Namespace) -> int:
    from cds_server.audit import audit

    settings = settings_of(args)
    existing(settings)
    report = audit(settings.data_dir, settings.database_url, deep=args.deep)
    result: dict[str, Any] = {
        "entries": report.entries,
        "head": report.head,
        "ok": not report.findings,
        "findings": [str(f) for f in report.findings],
    }
    lines = [
        f"{report.entries} entries, head {report.head[:16]}…: "
        + ("the log verifies" if not report.findings else "THE LOG DOES NOT VERIFY")
    ]
    emit(args, result, "\n".join([*lines, *map(str, report.findings)]))
    return 1 if report.findings else 0
