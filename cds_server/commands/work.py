"""`cds work`"""

from __future__ import annotations

import argparse
from typing import Any

from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table
from models.errors import Misconfigured, NotFound

NAME = "work"
HELP = "what somebody must look at: quarantine, unmatched, dead letters, flags"
KINDS = ("quarantine", "unmatched", "dead-letter", "flag")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("list", "show", "retry", "resolve"))
    parser.add_argument("id", nargs="?", type=int, metavar="ID")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--resolution", help="what was done, in words without patient data")
    parser.add_argument("--show-payload", action="store_true", help="with show: print the part itself (patient data)")
    common(parser)


def run(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    existing(settings)
    actor = actor_of(args, settings)
    with store_of(settings) as store:
        if args.verb == "list":
            return _list(args, store)
        if args.verb == "retry":
            return _retry(args, store, settings, actor)
        if args.id is None:
            raise Misconfigured(f"cds work {args.verb} needs the ID of a flag")
        if args.verb == "show":
            return _show(args, store)
        return _resolve(args, store, actor)


_COLUMNS = ("id", "kind", "reason", "at", "landing_id", "part", "pointer", "record_id", "inference_id", "detail")


def _flags(store: Any, kind: str | None, flag_id: int | None = None) -> list[dict[str, Any]]:
    rows = store.reads.query(
        f"SELECT {', '.join('f.' + column for column in _COLUMNS)} FROM flag f "
        "LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE (c.id IS NULL OR ? = 1) AND (? = '' OR f.kind = ?) AND (? = 0 OR f.id = ?) ORDER BY f.id",
        (int(flag_id is not None), kind or "", kind or "", flag_id or 0, flag_id or 0),
    )
    return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]


def _list(args: argparse.Namespace, store: Any) -> int:
    flags = _flags(store, args.kind)
    rows = [[str(f["id"]), f["kind"], f["reason"], f["at"][:19], _place(f), (f["detail"] or "")[:70]] for f in flags]
    emit(args, flags, table(["id", "kind", "reason", "since", "where", "what"], rows) if rows else "nothing waits")
    return 0


def _place(flag: dict[str, Any]) -> str:
    if flag["landing_id"] is None:
        return "-"
    return (
        f"landing {flag['landing_id'] >> 20}"
        + (f" part {flag['part']}" if flag["part"] is not None else "")
        + (flag["pointer"] or "")
    )


def _one(store: Any, flag_id: int) -> dict[str, Any]:
    found = _flags(store, None, flag_id)
    if not found:
        raise NotFound("there is no such flag")
    return found[0]


def _show(args: argparse.Namespace, store: Any) -> int:
    flag = _one(store, args.id)
    text = "\n".join(f"{name:13} {value}" for name, value in flag.items() if value is not None)
    landing = store.reads.landing(flag["landing_id"]) if flag["landing_id"] is not None else None
    if landing is not None:
        flag |= {
            "landing": landing.ref,
            "source": landing.source,
            "namespace": landing.namespace,
            "media_type": landing.media_type,
        }
        text += f"\nlanding       {landing.ref} from {landing.source} ({landing.media_type}), {landing.parts} parts"
        from cds_server.origins import place_of

        if place := place_of(store.manifest(landing), flag["part"]):
            flag |= {"file": place}
            text += f"\nfile          {place}"
        if args.show_payload and flag["part"] is not None:
            flag["payload"] = store.part(landing, flag["part"]).decode(errors="backslashreplace")
            text += f"\n\n{flag['payload']}"
    if flag["inference_id"] is not None:
        seen = _seen(store, flag["inference_id"])
        flag |= {"inference": seen}
        text += "".join(f"\n{name:13} {value}" for name, value in seen.items() if value)
    emit(args, flag, text)
    return 0


def _seen(store: Any, inference_id: int) -> dict[str, Any]:
    """Whose screen the cards of an inference stood on, and what was done with them."""
    from cds_server.reproduce import cards_of, load_id

    recorded = load_id(store, inference_id)
    cards = cards_of(store, inference_id)
    done = [f"{action['outcome']} by {action.get('who') or 'somebody'}" for card in cards for action in card["actions"]]
    return {
        "inference": recorded.ref,
        "service": recorded.service,
        "at": recorded.at,
        "shown to": recorded.call["user"] or f"somebody at {recorded.call['ehr']}",
        "cards": "; ".join(str(card["card"].get("summary")) for card in cards),
        "actions": "; ".join(done),
    }


def _retry(args: argparse.Namespace, store: Any, settings: Any, actor: str) -> int:
    """Read again what was in quarantine, with the present readers."""
    from cds_server.backlog import retry
    from cds_server.feeds import rules_of

    kinds = (args.kind,) if args.kind else ("quarantine", "dead-letter")
    flags = [_one(store, args.id)] if args.id is not None else [f for kind in kinds for f in _flags(store, kind)]
    landings = sorted({f["landing_id"] for f in flags if f["landing_id"] is not None and f["part"] is not None})
    tally = retry(store, settings.joining_systems, actor, landings, rules=rules_of(settings))
    left = sum(len(_flags(store, kind)) for kind in kinds)
    emit(args, {**tally.plain(), "left": left}, f"{tally.asserted} resources read now, {left} still wait")
    return 0


def _resolve(args: argparse.Namespace, store: Any, actor: str) -> int:
    flag = _one(store, args.id)
    if not args.resolution:
        raise Misconfigured("cds work resolve needs --resolution: what was done")

    def act(tx: Any) -> int:
        if tx.read("SELECT 1 FROM flag_closing WHERE flag_id = ?", (flag["id"],)):
            raise NotFound("this flag is resolved already")
        tx.add("flag_closing", flag_id=flag["id"], resolution=args.resolution, at=tx.now)
        return int(tx.entry("resolve", actor, {"flag": str(flag["id"]), "kind": flag["kind"]}).seq)

    seq = store.writer.submit(act).result()
    emit(args, {"flag": flag["id"], "seq": seq}, f"resolved (entry {seq})")
    return 0
