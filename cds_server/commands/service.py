"""`cds service`"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cds_server.commands.opening import actor_of, common, emit, existing, parts_of, settings_of, table

if TYPE_CHECKING:
    from cds_server.store.store import Store

NAME = "service"
HELP = "stop or start a CDS service or a model; a stopped one answers without cards within a second, on record"
RULES = ("threshold", "quiet", "cap", "duplicate")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("list", "stop", "start", "suppressions"))
    parser.add_argument("service", nargs="?", metavar="NAME")
    parser.add_argument(
        "--model",
        metavar="NAME[@V]",
        help="with stop and start: a model, in every service that speaks by it (all its versions, or one)",
    )
    parser.add_argument("--reason", help="why, in words without patient data; kept in the record")
    parser.add_argument("--rule", choices=RULES, help="with suppressions: only cards that this rule held back")
    parser.add_argument(
        "--show-payload", action="store_true", help="with suppressions: print each card's summary (patient data)"
    )
    common(parser)


def run(args: argparse.Namespace) -> int:
    from models.errors import Misconfigured

    settings = settings_of(args)
    existing(settings)
    actor = actor_of(args, settings)
    with parts_of(settings, actor) as parts:
        if args.verb == "suppressions":
            return _suppressions(args, parts.store)
        if args.verb == "list":
            pins = parts.registry.pins()
            rows = [
                [
                    service,
                    "stopped" if parts.registry.stopped(service) else "started",
                    ", ".join(f"{model}@{version}" for (of, model), version in pins.items() if of == service),
                ]
                for service in parts.registry.service_ids()
            ]
            emit(
                args,
                [dict(zip(("service", "state", "model"), row, strict=True)) for row in rows],
                table(["service", "state", "model"], rows),
            )
            return 0
        if bool(args.service) == bool(args.model):
            raise Misconfigured(f"cds service {args.verb} needs the name of a service, or --model NAME")
        state = "stopped" if args.verb == "stop" else "started"
        switch = parts.registry.switch_model if args.model else parts.registry.switch
        seq = switch(args.model or args.service, state, args.reason, actor)
    kind = "model" if args.model else "service"
    name = args.model or args.service
    emit(args, {kind: name, "state": state, "seq": seq}, f"{name} {state} (entry {seq})")
    return 0


_COLUMNS = ("at", "service", "rule", "indicator", "ehr", "hook", "inference", "card")


def _suppressions(args: argparse.Namespace, store: Store) -> int:
    """What alert hygiene held back, oldest first."""
    from cds_server.hygiene import HELD

    found = store.reads.query(
        "SELECT v.at, v.service, v.rule, v.indicator, v.ehr, c.hook, i.ref, v.card, v.sealed FROM advice v "
        "JOIN inference i ON i.id = v.inference_id JOIN call c ON c.id = i.call_id "
        "WHERE v.sealed IS NOT NULL AND (? = '' OR v.service = ?) AND (? = '' OR v.rule = ?) ORDER BY v.id",
        (args.service or "", args.service or "", args.rule or "", args.rule or ""),
    )
    held = [dict(zip(_COLUMNS, row[:-1], strict=True)) for row in found]
    if args.show_payload:
        for told, row in zip(held, found, strict=True):
            told["summary"] = store.reads.open_payload(HELD, row[7], row[8])["summary"]
    columns = (*_COLUMNS[:-1], "summary") if args.show_payload else _COLUMNS[:-1]
    rows = [[told["at"][:19], *(told[column] or "-" for column in columns[1:])] for told in held]
    emit(args, held, table(list(columns), rows) if rows else "nothing was held back")
    return 0
