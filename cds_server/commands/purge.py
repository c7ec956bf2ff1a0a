"""`cds purge`"""

from __future__ import annotations

import argparse

from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table

NAME = "purge"
HELP = "destroy what was kept for its time ([retention]); the server does it daily by itself"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and change nothing")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from cds_server.retention import due, purge
    from cds_server.source_rules import rules_of
    from cds_server.store.erased import wipe

    settings = settings_of(args)
    existing(settings)
    retention, rules = settings.retention, rules_of(settings)
    counts = dict.fromkeys(retention.kinds(), 0)
    with store_of(settings) as store:
        if args.dry_run:
            counts = {kind: len(refs) for kind, refs in due(store, retention, datetime.now(UTC), rules).items()}
        else:
            for kind, keys in purge(store, retention, actor_of(args, settings), rules=rules):
                counts[kind] = counts.get(kind, 0) + keys
            store.vault.keys.wipe()  # also what an erasure could not, while the server was busy
            wipe(store.database)
    days = retention.kinds()
    rows = [[kind, str(days.get(kind, "-")), str(count)] for kind, count in counts.items()]
    told = table(["kind", "days", "would go" if args.dry_run else "gone"], rows)
    emit(args, counts, told if rows else f"[retention] in {settings.origin} names nothing: everything is kept")
    return 0
