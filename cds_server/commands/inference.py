"""`cds inference`"""

from __future__ import annotations

import argparse
from typing import Any

from cds_server.commands.opening import common, emit, existing, parts_of, settings_of, table

NAME = "inference"
HELP = "one inference: its snapshot, features, score, cards and what people did; --reproduce scores it again"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "id", metavar="ID", help="inference id, or the uuid of one of its cards; `all` with --reproduce"
    )
    parser.add_argument(
        "--reproduce", action="store_true", help="encode and score again from the stored snapshot, compare bits"
    )
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.reproduce import all_refs, cards_of, load, reproduce

    settings = settings_of(args)
    existing(settings)
    with parts_of(settings, "system") as parts:
        store = parts.store
        refs = all_refs(store.reads) if args.id == "all" else [load(store, args.id).ref]
        if args.reproduce:
            results = {ref: reproduce(parts.registry, load(store, ref)) for ref in refs}
            differing = {ref: result.why for ref, result in results.items() if not result.equal}
            text = (
                "\n".join(f"{ref}: {result.why}" for ref, result in results.items())
                if len(refs) == 1
                else (
                    f"{len(refs)} inferences, {len(refs) - len(differing)} equal bit for bit"
                    + "".join(f"\n{ref}: {why}" for ref, why in differing.items())
                )
            )
            emit(args, {ref: {"equal": r.equal, "why": r.why} for ref, r in results.items()}, text)
            return 1 if differing else 0
        shown = [
            {**recorded.plain(), "cards": cards_of(store, recorded.id)}
            for recorded in (load(store, ref) for ref in refs)
        ]
    emit(args, shown if args.id == "all" else shown[0], "\n\n".join(map(_text, shown)))
    return 0


def said(score: dict[str, Any]) -> str:
    """A model that publishes no probability speaks by its points."""
    if "probability" in score:
        return f"probability {score['probability']:.6f}"
    single = {name: values[0] for name, values in score.get("outputs", {}).items() if len(values) == 1}
    ordered = sorted(single, key=lambda name: (name != "points", name))
    return score.get("abstained") or ", ".join(f"{name} {single[name]:g}" for name in ordered)


def _text(inference: dict[str, Any]) -> str:
    features = [
        [
            f["name"],
            f.get("label", ""),
            (f.get("effective") or "")[:10],
            ", ".join(f.get("facts", [])) or "-",
            f.get("note", ""),
        ]
        for vector in inference["vectors"]
        for f in vector.get("features", [])
    ]
    cards = [
        f"card {shown['card']['uuid']}: {shown['card']['summary']}"
        + "".join(f"\n  {action['outcome']} at {action['at']} (entry {action['seq']})" for action in shown["actions"])
        for shown in inference["cards"]
    ]
    score = inference["score"]
    told = said(score)
    return "\n".join(
        [
            f"inference {inference['inference']} (entry {inference['seq']}) by {inference['model']} "
            f"at {inference['at']}",
            f"score: {told}",
            table(["feature", "value", "effective", "facts", "note"], features) if features else "no features",
            *cards,
        ]
    )
