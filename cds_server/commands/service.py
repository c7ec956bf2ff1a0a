"""`cds service`"""

from __future__ import annotations

import argparse

from cds_server.commands.opening import actor_of, common, emit, existing, parts_of, settings_of, table

NAME = "service"
HELP = "stop or start a CDS service; a stopped one answers without cards within a second, on record"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("list", "stop", "start"))
    parser.add_argument("service", nargs="?", metavar="NAME")
    parser.add_argument("--reason", help="why, in words without patient data; kept in the record")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from models.errors import Misconfigured

    settings = settings_of(args)
    existing(settings)
    actor = actor_of(args, settings)
    with parts_of(settings, actor) as parts:
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
        if not args.service:
            raise Misconfigured(f"cds service {args.verb} needs the name of a service")
        state = "stopped" if args.verb == "stop" else "started"
        seq = parts.registry.switch(args.service, state, args.reason, actor)
    emit(args, {"service": args.service, "state": state, "seq": seq}, f"{args.service} {state} (entry {seq})")
    return 0
