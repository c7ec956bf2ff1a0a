"""`cds score`"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cds_server.commands.opening import actor_of, common, emit, existing, parts_of, record_of, settings_of
from cds_server.commands.patient import as_of

if TYPE_CHECKING:
    from cds_server.app import Parts
    from cds_server.store.reads import RecordRow
    from models.score import Score

NAME = "score"
HELP = (
    "what a service would say about a patient now, or would have said with what was known at T; records only who looked"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", help="or NAME@V: a model that no service uses, its score alone")
    parser.add_argument("--patient", required=True, metavar="ID", help="NAMESPACE/ID, system|value, or a person uuid")
    parser.add_argument(
        "--as-of", metavar="T", help="with what was known at this instant, beside what was said and is said now"
    )
    parser.add_argument("--focus", metavar="Condition/ID", help="the tumour that is meant, where there are several")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from uuid import uuid4

    from cds_server.commands.access import looked
    from cds_server.hooks.cards import render
    from cds_server.hooks.service import CardGuide
    from cds_server.panel import Panel
    from models.errors import NotFound

    settings = settings_of(args)
    existing(settings)
    with parts_of(settings, actor_of(args, settings)) as parts:
        spec = next((spec for spec in parts.registry.specs if spec.id == args.service), None)
        name, _, version = args.service.partition("@")
        if spec is None and not version:
            raise NotFound("there is no such service")
        record = record_of(parts.store, args.patient)
        looked(args, settings, parts.store, "score", record.ref)
        if spec is not None and args.as_of:
            return _compared(args, parts, spec.id, record)
        panel = parts.decisions.panel(spec) if spec else Panel(parts.registry.scorer_of(name, version), ())
        known = parts.decisions.known(panel.wanted, record, as_of(args.as_of) if args.as_of else None)
        judgement, *beside = panel.judge(known, {"focus": args.focus} if args.focus else {})
        guide = CardGuide(
            inference="",
            data_as_of=known.at,
            public_url=settings.public_url,
            new_uuid=lambda: str(uuid4()),
            beside=tuple(("", other) for other in beside),
        )
        cards = [render(card) for card in spec.cards(judgement, guide)] if spec else []
    result = {
        "score": judgement.score.plain(),
        "vectors": [vector.plain() for vector in judgement.vectors],
        "beside": [{"score": other.score.plain(), "model": other.model.id} for other in beside],
        "cards": cards,
    }
    told = "\n\n".join(f"{card['summary']}\n\n{card.get('detail', '')}" for card in cards)
    emit(args, result, told or _alone(judgement.score))
    return 0


def _compared(args: argparse.Namespace, parts: Parts, service: str, record: RecordRow) -> int:
    from cds_server.commands.comparing import told
    from cds_server.time_machine import compare

    found = compare(parts, service, record, as_of(args.as_of), {"focus": args.focus} if args.focus else None)
    own, *beside = found.then.sides.values()
    result = {
        "score": own.judged["score"],
        "vectors": own.judged["vectors"],
        "beside": [{"score": each.judged["score"], "model": each.model} for each in beside],
        "cards": list(found.then.cards),
        "compared": found.plain(),
    }
    emit(args, result, told(found))
    return 0


def _alone(score: Score) -> str:
    """A model without a service has no cards: its numbers, or why it says none."""
    if score.abstained is not None:
        return f"{score.model} abstains: {score.abstained}"
    said = [] if score.probability is None else [f"probability {score.probability:.4f}"]
    said += [f"{name} {value}" for name, value in score.outputs.items()]
    return f"{score.model}: {', '.join(said)}"
