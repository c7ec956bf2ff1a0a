"""`cds inference`"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cds_server.commands.opening import common, emit, existing, parts_of, settings_of, table

if TYPE_CHECKING:
    from cds_server.app import Parts
    from cds_server.reproduce import Recorded, Reproduction
    from models.explain import Explanation

NAME = "inference"
HELP = (
    "one inference: its snapshot, features, score, cards and what people did; --reproduce scores it again, --explain "
    "takes the score apart"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "id", metavar="ID", help="inference id, or the uuid of one of its cards; `all` with --reproduce"
    )
    parser.add_argument(
        "--reproduce", action="store_true", help="encode and score again from the stored snapshot, compare bits"
    )
    parser.add_argument(
        "--explain", action="store_true", help="what each input did to its modality's logit, and where it came from"
    )
    parser.add_argument(
        "--fhir", action="store_true", help="as FHIR R4: RiskAssessment or GuidanceResponse, Provenance"
    )
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.access.happenings import patients_of
    from cds_server.commands.access import looked
    from cds_server.commands.guiding import shown as as_fhir
    from cds_server.reproduce import all_refs, attempt, cards_of, held_of, load, ref_of, system_actions_of

    settings = settings_of(args)
    existing(settings)
    with parts_of(settings, "system") as parts:
        store = parts.store
        if args.reproduce:
            refs = all_refs(store.reads) if args.id == "all" else [ref_of(store, args.id)]
            results = {ref: attempt(store, parts.registry, ref, stated=len(refs) == 1) for ref in refs}
            emit(args, {ref: result.plain() for ref, result in results.items()}, _reproduced(results))
            return 0 if all(result.held for result in results.values()) else 1
        refs = all_refs(store.reads) if args.id == "all" else [load(store, args.id).ref]
        looked(args, settings, store, "inference", *patients_of(store, refs), act="inference")
        if args.fhir:
            return as_fhir(args, settings, parts, refs)
        if args.explain:
            found = {ref: _explained(parts, load(store, ref)) for ref in refs}
            plain = {ref: [one.plain() for one in explanations] for ref, explanations in found.items()}
            text = "\n\n".join(_apart(one) for explanations in found.values() for one in explanations)
            emit(args, plain, text or "the model spoke by no modality whose references it states")
            return 0
        shown = [
            {
                **recorded.plain(),
                "cards": cards_of(store, recorded.id),
                "system_actions": system_actions_of(store, recorded.id),
                "held": held_of(store, recorded.id),
            }
            for recorded in (load(store, ref) for ref in refs)
        ]
    emit(args, shown if args.id == "all" else shown[0], "\n\n".join(map(_text, shown)))
    return 0


def _reproduced(results: Mapping[str, Reproduction]) -> str:
    """One line each where there is one or something is not equal; else how many are."""
    if len(results) == 1:
        ((ref, result),) = results.items()
        lines = [f"{ref}: {result.why}"]
        lines += [f"  since: {each}" for each in result.changed]
        lines += [f"  {each}" for each in result.outputs if each.distance]
        return "\n".join(lines)
    others = [f"{ref}: {result.why}" for ref, result in results.items() if not result.equal]
    return "\n".join([f"{len(results)} inferences, {len(results) - len(others)} equal bit for bit", *others])


def _explained(parts: Parts, recorded: Recorded) -> tuple[Explanation, ...]:
    """The stored snapshot is scored again: the same bits, by `--reproduce`."""
    from models.explain import Explainer

    name, _, version = recorded.model.partition("@")
    scorer = parts.registry.scorer_then(name, version, recorded.model_digest)
    explainer = Explainer(*parts.registry.version_then(name, version, recorded.model_digest))
    return explainer.explain(scorer.judge(recorded.snapshot))


def _apart(found: Explanation) -> str:
    rows = [
        [
            part.feature,
            part.label,
            f"{part.amount:+.3f}",
            f"{found.points(part):+.1f}",
            "; ".join(f"{s.resource} ({s.landing[:8]}:{s.part}{s.pointer})" for s in part.sources) or "-",
        ]
        for part in found.parts
    ]
    base = "" if found.base is None else f", of which {found.base:+.3f} with every input at its reference"
    head = f"{found.modality}: logit {found.z:+.3f}{base} ({found.kind})\n{found.text}"
    return f"{head}\n" + table(["input", "value", "logits", "points", "from (landing:part)"], rows)


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
    cards += [f"system action: {action['type']}, {action['description']}" for action in inference["system_actions"]]
    cards += [f"held back by {held['rule']}: {held['card']['summary']}" for held in inference["held"]]
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
