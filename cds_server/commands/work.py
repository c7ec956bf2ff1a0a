"""`cds work`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table
from models.errors import Misconfigured, NotFound

NAME = "work"
HELP = "what somebody must look at: quarantine, unmatched, dead letters, flags"
KINDS = ("quarantine", "unmatched", "dead-letter", "flag")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("list", "show", "retry", "fix", "resolve"))
    parser.add_argument("id", nargs="?", type=int, metavar="ID")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--resolution", help="what was done, in words without patient data")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--unmasked",
        action="store_true",
        help="with show: an HL7 v2 message with patient data; who asked is recorded",
    )
    form.add_argument(
        "--raw",
        "--show-payload",
        action="store_true",
        help="with show: the part as it came (patient data); who asked is recorded",
    )
    parser.add_argument(
        "--with", dest="with_file", type=Path, metavar="FILE",
        help="with fix: the corrected message; it is landed beside the one that could not be read",
    )  # fmt: skip
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
            return _show(args, store, settings, actor)
        if args.verb == "fix":
            return _fix(args, store, settings, actor)
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
    from cds_server.queue import handlers

    who = handlers(store)
    flags = [{**flag, "handler": who.get(flag["id"])} for flag in _flags(store, args.kind)]
    rows = [
        [str(f["id"]), f["kind"], f["reason"], f["at"][:19], _place(f), f["handler"] or "-", (f["detail"] or "")[:70]]
        for f in flags
    ]
    header = ["id", "kind", "reason", "since", "where", "handled by", "what"]
    emit(args, flags, table(header, rows) if rows else "nothing waits")
    return 0


def _place(flag: dict[str, Any]) -> str:
    if flag["landing_id"] is None:
        return "-"
    return (
        f"landing {flag['landing_id'] >> 20}"
        + (f" part {flag['part']}" if flag["part"] is not None else "")
        + (f" {flag['pointer']}" if flag["pointer"] else "")
    )


def _one(store: Any, flag_id: int) -> dict[str, Any]:
    found = _flags(store, None, flag_id)
    if not found:
        raise NotFound("there is no such flag")
    return found[0]


def _show(args: argparse.Namespace, store: Any, settings: Any, actor: str) -> int:
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
    message = None
    if landing is not None and flag["part"] is not None:
        if args.raw or args.unmasked:
            _recorded(args, store, settings, flag, "raw" if args.raw else "unmasked")
        if args.raw:
            flag["payload"] = store.part(landing, flag["part"]).decode(errors="backslashreplace")
            text += f"\n\n{flag['payload']}"
        else:
            message = _message(store, settings, landing, flag["part"])
    if flag["inference_id"] is not None:
        _recorded(args, store, settings, flag, "cards")
        seen = _seen(store, flag["inference_id"])
        flag |= {"inference": seen}
        text += "".join(f"\n{name:13} {value}" for name, value in seen.items() if value)
    if message is not None:
        from cds_server import hl7_terminal as terminal

        number = flag["part"] + 1
        if args.json:
            flag["message"] = terminal.plain(message, number, unmask=args.unmasked)
        else:
            print(f"{text}\n")
            terminal.shown(message, number, unmask=args.unmasked)
            return 0
    emit(args, flag, text)
    return 0


def _message(store: Any, settings: Any, landing: Any, part: int) -> Any:
    """The part as an HL7 v2 message; None where it is none, or not even its segments can be told apart."""
    from adapters.hl7v2.charsets import Undecodable
    from adapters.hl7v2.message import parse
    from adapters.readers.hl7v2 import MESSAGE
    from cds_server.feeds import feed_sources
    from models.errors import BadInput

    if landing.media_type != MESSAGE:
        return None
    source = feed_sources(settings).get(landing.source)
    try:
        return parse(store.part(landing, part), source.feed.charset if source else None, undecodable=Undecodable.WARN)
    except BadInput:
        return None


def _recorded(args: argparse.Namespace, store: Any, settings: Any, flag: dict[str, Any], form: str) -> None:
    """Who looked at patient data is in the ledger before anything is shown."""
    from cds_server.commands.access import looked

    of = store.reads.records([flag["record_id"]]) if flag["record_id"] is not None else []
    looked(args, settings, store, f"work show {form}", *(each.ref for each in of), flag=str(flag["id"]))


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
    """Read again what was in quarantine, with the present readers; send again what a receiver refused."""
    from cds_server.backlog import retry
    from cds_server.results_due import send_again
    from cds_server.source_rules import rules_of

    kinds = (args.kind,) if args.kind else ("quarantine", "dead-letter")
    flags = [_one(store, args.id)] if args.id is not None else [f for kind in kinds for f in _flags(store, kind)]
    landings = sorted({f["landing_id"] for f in flags if f["landing_id"] is not None and f["part"] is not None})
    tally = retry(store, settings.joining_systems, actor, landings, rules=rules_of(settings))
    sent, problems = send_again(store, settings, {flag["id"]: flag["pointer"] for flag in flags}, actor)
    left = sum(len(_flags(store, kind)) for kind in kinds)
    told = f"{sent} results sent again, " if sent else ""
    text = "\n".join([*problems, f"{tally.asserted} resources read now, {told}{left} still wait"])
    emit(args, {**tally.plain(), "sent": sent, "problems": problems, "left": left}, text)
    return 0


def _fix(args: argparse.Namespace, store: Any, settings: Any, actor: str) -> int:
    """Land what a person corrected in the place of a part that could not be read."""
    from cds_server.fixing import fix
    from cds_server.source_rules import rules_of

    flag = _one(store, args.id)
    if args.with_file is None:
        raise Misconfigured("cds work fix needs --with FILE: the corrected message")
    landing = store.reads.landing(flag["landing_id"]) if flag["landing_id"] is not None else None
    if landing is None or flag["part"] is None or flag["kind"] not in ("quarantine", "dead-letter"):
        raise Misconfigured("only what could not be read can be corrected: a flag of quarantine or dead-letter")
    try:
        body = args.with_file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"--with names no file that can be read: {error.strerror}") from None
    fixed = fix(store, settings.joining_systems, actor, landing, flag["part"], body, rules_of(settings))
    emit(
        args,
        {"landing": fixed.landing, "corrects": landing.ref, "resolved": fixed.resolved, **fixed.tally.plain()},
        f"landed as {fixed.landing}; {fixed.tally.asserted} resources read, {fixed.resolved} flags resolved",
    )
    return 0


def _resolve(args: argparse.Namespace, store: Any, actor: str) -> int:
    flag = _one(store, args.id)
    if not args.resolution:
        raise Misconfigured("cds work resolve needs --resolution: what was done")
    from cds_server.queue import resolve

    def act(tx: Any) -> int:
        resolve(store, tx, flag["id"], flag["pointer"], args.resolution)
        return int(tx.entry("resolve", actor, {"flag": str(flag["id"]), "kind": flag["kind"]}).seq)

    seq = store.writer.submit(act).result()
    emit(args, {"flag": flag["id"], "seq": seq}, f"resolved (entry {seq})")
    return 0
