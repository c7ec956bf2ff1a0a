"""`cds keys`"""

from __future__ import annotations

import argparse

from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table

NAME = "keys"
HELP = "our signing keys: make, list, retire; their public halves stand at /.well-known/jwks.json, private ones nowhere"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    new = verbs.add_parser("new", help="make a key; beside an older one it signs after a day, when peers know it")
    new.add_argument("--alg", choices=("RS384", "ES384"), help="default: as the registration's other keys, or RS384")
    new.add_argument(
        "--for",
        dest="registration",
        metavar="REGISTRATION",
        help="a set of its own, with one type of key, at /.well-known/jwks/REGISTRATION.json",
    )
    common(new)
    common(verbs.add_parser("list", help="every key, whether it signs, and when it was made and retired"))
    retire = verbs.add_parser("retire", help="from now on it neither signs nor is published")
    retire.add_argument("kid", metavar="KID")
    common(retire)


def run(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from cds_server.keys import Keys, path_of, told

    settings = settings_of(args)
    if args.verb != "new":
        existing(settings)
    actor = actor_of(args, settings)
    with store_of(settings) as store:
        keys = Keys(store)
        if args.verb == "retire":
            seq = keys.retire(args.kid, actor)
            emit(args, {"kid": args.kid, "state": "retired", "seq": seq}, f"{args.kid} retired (entry {seq})")
            return 0
        made = keys.new(args.registration, actor, args.alg) if args.verb == "new" else None
        every = keys.all()
        listed = [told(key, every, datetime.now(UTC)) for key in every]
    if made is not None:
        found = next(each for each in listed if each["kid"] == made.kid)
        url = (settings.public_url or "").rstrip("/") + path_of(made.registration)
        emit(args, {**found, "jwks": url}, f"{made.kid} ({made.alg}, {found['state']}), in the set {url}")
        return 0
    columns = ("kid", "alg", "registration", "state", "made_at", "retired_at")
    rows = [[str(each[column] or "-") for column in columns] for each in listed]
    emit(args, listed, table(list(columns), rows) if rows else "no key was made yet: cds keys new")
    return 0
