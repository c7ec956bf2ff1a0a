"""`cds hold`"""

from __future__ import annotations

import argparse

from cds_server.commands.opening import actor_of, common, emit, existing, record_of, settings_of, store_of, table

NAME = "hold"
HELP = "legal hold: nothing of a person is erased or purged while one stands"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    put = verbs.add_parser("set", help="from now on nothing of this person may be destroyed")
    put.add_argument("person", metavar="PERSON", help="NAMESPACE/ID, system|value, or a person's uuid")
    put.add_argument("--reason", metavar="TEXT", required=True, help="why; it stays on record, and names nobody")
    common(put)
    lift = verbs.add_parser("lift", help="the hold ends")
    lift.add_argument("hold", metavar="HOLD", help="its name, of `cds hold list`")
    lift.add_argument("--reason", metavar="TEXT", required=True)
    common(lift)
    common(verbs.add_parser("list", help="the holds that stand"))


def run(args: argparse.Namespace) -> int:
    from cds_server.holds import holds, lift, set_hold

    settings = settings_of(args)
    existing(settings)
    with store_of(settings) as store:
        if args.verb == "set":
            made = set_hold(store, record_of(store, args.person), args.reason, actor_of(args, settings))
            told = f"hold {made.ref} stands (entry {made.seq}); lift it by: cds hold lift {made.ref} --reason TEXT"
            emit(args, {"hold": made.ref, "seq": made.seq}, told)
            return 0
        if args.verb == "lift":
            seq = lift(store, args.hold, args.reason, actor_of(args, settings))
            emit(args, {"hold": args.hold, "seq": seq}, f"hold {args.hold} is lifted (entry {seq})")
            return 0
        standing = holds(store.reads)
        people = {each.id: each.ref for each in store.reads.records(each.record_id for each in standing)}
    listed = [{"hold": h.ref, "person": people[h.record_id], "since": h.at[:19], "reason": h.reason} for h in standing]
    columns = ["hold", "person", "since", "reason"]
    rows = [[each[column] for column in columns] for each in listed]
    emit(args, listed, table(columns, rows) if rows else "no hold stands")
    return 0
