"""`cds ask`"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table

if TYPE_CHECKING:
    from cds_server.settings import Settings
    from cds_server.store.store import Store

NAME = "ask"
HELP = "an auditor's questions, with proofs: what made this card, what did a model do, which cards did a fact touch"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="QUESTION", required=True)
    card = verbs.add_parser("card", help="which data, features and model made it, who saw it, what they did")
    card.add_argument("named", metavar="UUID", help="of the card, or the inference's id")
    card.add_argument("--values", action="store_true", help="with numbers, texts and people: a look at patient data")
    model = verbs.add_parser("model", help="everything that a model version did")
    model.add_argument("named", metavar="NAME@V")
    fact = verbs.add_parser("fact", help="every card that rests on a fact")
    fact.add_argument("named", metavar="LANDING:PART[POINTER]", help="as `cds patient` prints it, or the fact's id")
    corrected = verbs.add_parser("corrected", help="every card whose facts were corrected or withdrawn since")
    for one in (model, corrected):
        one.add_argument("--from", dest="since", metavar="T", help="RFC 3339, or a date")
        one.add_argument("--to", dest="until", metavar="T", help="RFC 3339, or a date: its end in UTC")
    for one in (model, fact, corrected):
        one.add_argument("--limit", type=int, metavar="N", help="items of a page (50)")
        one.add_argument("--after", type=int, default=0, metavar="NEXT", help="the page after this one")
    for one in (card, model, fact, corrected):
        one.add_argument("--proofs", metavar="DIR", help="write a .tlog-proof for each entry, for verifier.py")
        common(one)


def run(args: argparse.Namespace) -> int:
    import contextlib

    from cds_server.checkpoints import Checkpoints
    from cds_server.questions.proofs import proven, seqs, write_proofs
    from models.errors import LedgerBroken

    settings = settings_of(args)
    existing(settings)
    with store_of(settings) as store:
        checkpoints = Checkpoints(store, settings.public_url)
        answer = _answer(args, settings, store)
        last = checkpoints.last()
        if last is None or last.checkpoint.size < max(seqs(answer), default=0):
            with contextlib.suppress(
                LedgerBroken
            ):  # the answer stands, its proofs do not reach a signed head: it says so
                checkpoints.make(actor_of(args, settings))
        whole = proven(store, checkpoints, answer)
        written = write_proofs(store, checkpoints, answer, Path(args.proofs)) if args.proofs else 0
    proofs = whole["proofs"].values()
    bare = sum(each["inclusion"] is None for each in proofs)
    told = f"{len(proofs)} ledger entries" + (
        f", {bare} of them not signed yet" if bare else ", all under a signed head"
    )
    if written:
        told += f"; {written} proofs written: python verifier.py {args.proofs}/*.tlog-proof --key KEY"
    emit(args, whole, f"{_TOLD[args.verb](whole)}\n\n{told}")
    return 0


def _answer(args: argparse.Namespace, settings: Settings, store: Store) -> dict[str, Any]:
    from cds_server.commands.patient import as_of
    from cds_server.questions.card import card
    from cds_server.questions.facts import corrected, fact
    from cds_server.questions.made import FIRST, LAST, made
    from cds_server.questions.proofs import page

    if args.verb == "card":
        if args.values:
            _look(store, settings, args)
        return card(store, args.named, values=args.values)
    paged = {"after": args.after, "limit": page(args.limit)}
    if args.verb == "fact":
        return fact(store, args.named, **paged)
    since = as_of(args.since, "--from", end=False) if args.since else FIRST
    until = as_of(args.until, "--to") if args.until else LAST
    if args.verb == "model":
        return made(store, args.named, since, until, **paged)
    return corrected(store, since, until, **paged)


def _look(store: Store, settings: Settings, args: argparse.Namespace) -> None:
    """Values are a look at a patient's data: on record first."""
    from cds_server.access.log import OPERATIONS, Access, Look, by_command
    from cds_server.access.roles import Act
    from cds_server.reproduce import ref_of

    row = store.reads.one(
        "SELECT p.ref FROM inference i JOIN patient_record p ON p.id = i.record_id WHERE i.ref = ?",
        (ref_of(store, args.named),),
    )
    viewer = by_command(actor_of(args, settings))
    Access(store, settings).look_now(
        Look(viewer, Act.INFERENCE, row[0] if row else None, OPERATIONS, {"section": "ask card"})
    )


# -- for a terminal ----------------------------------------------------------------------------------------------------


def _card(found: Mapping[str, Any]) -> str:
    inference, model = found["inference"], found["model"]
    pinned = f", pinned in entry {model['pinned']['seq']}" if model["pinned"] else ""
    data = [
        [
            f"{each['landing'][:8]}:{each['part']}{each['pointer']}",
            f"{each['source']} ({each['seq']})",
            each["known_from"][:19] + "Z",
            (each["known_to"] or "")[:19],
            (each["code"] or each["kind"]).rpartition("/")[2],
            *([str(each["value"])[:24]] if "value" in each else []),
            ", ".join(each["features"]) or "-",
        ]
        for each in found["data"]
    ]
    valued = ["value"] if found["question"]["values"] else []
    header = ["landing:part", "from (entry)", "known from", "known to", "what", *valued, "went into"]
    lines = [
        f"inference {inference['id']} (entry {inference['seq']}) of {inference['service']} at {inference['at'][:19]}Z"
        + (": it abstained" if inference["abstained"] else ""),
        f"model {model['id']}, manifest {model['manifest'][:16]}{pinned}",
        f"ran on {model['runtime']}",
        *(["erased: its data, its cards' words and whoever asked for it are gone"] if "erased" in found else []),
        *(f"card {each['uuid']}{': ' + each['summary'] if 'summary' in each else ''}" for each in found["cards"]),
        "",
        f"{len(found['features'])} features, {sum(each['missing'] for each in found['features'])} missing, from "
        f"{len(found['data'])} facts:",
        table(header, data) if data else "no facts",
        "",
        "seen by:",
        table(["when", "how", "through", "by", "entry"], [_seen(each) for each in found["seen"]]),
        *_done(found["done"]),
        *(
            f"{each['reason']}: flagged at {each['at'][:19]}Z (entry {each['seq']})"
            + (f", {each['closed']['resolution']} in entry {each['closed']['seq']}" if each["closed"] else ", open")
            for each in found["corrected"]
        ),
    ]
    return "\n".join(lines)


def _seen(each: Mapping[str, Any]) -> list[str]:
    how = f"{each['hook']}: {each['outcome']}" if each["how"] == "call" else each["act"]
    user = each.get("user")
    who = (user.get("name") or user.get("subject")) if isinstance(user, Mapping) else user
    return [each["at"][:19] + "Z", how, each.get("ehr") or each.get("door") or "", str(who or "-"), str(each["seq"])]


def _done(done: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{each['outcome']} through {each['door']} at {each['at'][:19]}Z (entry {each['seq']})" for each in done]


def _model(found: Mapping[str, Any]) -> str:
    switches = [
        f"{each['at'][:19]}Z "
        + (f"pinned for {each['pinned']}" if "pinned" in each else next(n for n in ("stopped", "started") if n in each))
        + f" (entry {each['seq']})"
        for each in found["switches"]
    ]
    rows = [
        [
            each["at"][:19] + "Z",
            each["id"],
            each["service"],
            "abstained" if each["abstained"] else f"{len(each['cards'])} cards",
            ", ".join(one["outcome"] for one in each["done"]) or "-",
            str(each["seq"]),
        ]
        for each in found["inferences"]
    ]
    counts = ", ".join(f"{count} {name}" for name, count in found["counts"].items())
    shown = table(["when", "inference", "service", "said", "done", "entry"], rows) if rows else "no inferences"
    return "\n".join([f"{found['question']['of']}: {counts}", *switches, "", shown, *_more(found)])


def _rests(each: Mapping[str, Any]) -> list[str]:
    return [each["at"][:19] + "Z", each["id"], each["service"], each["model"], ", ".join(each["cards"]) or "-"]


def _life(each: Mapping[str, Any]) -> str:
    told = f"{each['type']}, known from {each['known_from'][:19]}Z (entry {each['seq']})"
    if each["closed"]:
        told += f" to {each['known_to'][:19]}Z ({each['closed']['cause']}, entry {each['closed']['seq']})"
    if each["instead"]:
        new = each["instead"]
        told += f"; instead {new['landing'][:8]}:{new['part']}{new['pointer']} (entry {new['seq']})"
    return told


def _fact(found: Mapping[str, Any]) -> str:
    landed, rows = (
        found["landed"],
        [[*_rests(each), ", ".join(each["features"]) or "-", str(each["seq"])] for each in found["inferences"]],
    )
    header = ["when", "inference", "service", "model", "cards", "went into", "entry"]
    return "\n".join(
        [
            f"{_life(found['fact'])}",
            f"landed from {landed['source']} at {landed['arrived'][:19]}Z (entry {landed['seq']})",
            "",
            table(header, rows) if rows else "no inference rests on it",
            *_more(found),
        ]
    )


def _corrected(found: Mapping[str, Any]) -> str:
    lines = []
    for each in found["inferences"]:
        flag, handled = each["flag"], each["handled"]
        state = f"handled in entry {handled['seq']}" if handled else "open"
        lines.append(f"{flag['reason']}, noticed {flag['at'][:19]}Z (entry {flag['seq']}), {state}")
        if "erased" in each:
            lines.append("  of an inference that was erased")
            continue
        lines.append(f"  {'  '.join(_rests(each))} (entry {each['seq']})")
        lines += [f"    {_life(one)}" for one in each["facts"]]
    return "\n".join([*lines, *_more(found)] if lines else ["no fact that a card rests on was corrected"])


def _more(found: Mapping[str, Any]) -> list[str]:
    return [f"more: --after {found['next']}"] if found["next"] is not None else []


_TOLD = {"card": _card, "model": _model, "fact": _fact, "corrected": _corrected}
