"""`cds digest`"""

from __future__ import annotations

import argparse

from cds_server.commands.opening import actor_of, common, emit, existing, progress, settings_of, store_of

NAME = "digest"
HELP = "parts -> statements -> resources -> facts, for everything that landed and was not read yet"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--redo", action="store_true", help="read everything again with the present readers")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.backlog import digest_backlog, redo
    from cds_server.source_rules import rules_of

    settings = settings_of(args)
    existing(settings)
    actor = actor_of(args, settings)
    with store_of(settings) as store, progress("digest") as report:
        work = redo if args.redo else digest_backlog
        rules = rules_of(settings)
        tally = work(store, settings.joining_systems, actor, progress=report, rules=rules)
        if store.reads.one("SELECT 1 FROM dicom_object LIMIT 1") is not None:
            from cds_server.imaging.choices import choices
            from cds_server.imaging.work import Imaging

            imaging = Imaging(store, settings.joining_systems, rules, looking=choices(settings), actor=actor)
            tally.add(imaging.everything())
    emit(args, tally.plain(), "  ".join(f"{name} {count}" for name, count in tally.plain().items()))
    return 0
