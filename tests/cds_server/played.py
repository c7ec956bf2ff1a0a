"""Fixture requests at their own time: read by the real readers, judged by the real model, shown by the real service."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from adapters.readers import cds_hooks
from adapters.readers.facts import project
from cds_server.hooks.cards import Card, render
from cds_server.hooks.context import parse
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.services import all_services
from models import strict
from models.nouns import Fact, Judgement, Provenance, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.cds_server.wire_checks import check_response

HOOKS = Path(__file__).parents[2] / "fixtures" / "hooks"
NOW = "2026-11-20T10:00:00.000000Z"


def request(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((HOOKS / f"{name}.json").read_bytes())
    return body


def service(service_id: str) -> ServiceSpec:
    return next(spec for spec in all_services() if spec.id == service_id)


def judged(spec: ServiceSpec, body: dict[str, Any], *, at: str = NOW) -> Judgement:
    raw = json.dumps(body).encode()
    asked = parse(raw, strict.loads(raw, what="the request"))
    facts: list[Fact] = []
    for n, statement in enumerate(cds_hooks.read_request({"prefetch": asked.prefetch})):
        assert statement.body is not None
        source = Provenance("0" * 32, n, "", f"{statement.resource_type}/{statement.local_id}", "cds-hooks@1")
        facts += project(statement.body, record="record-1", source=source, known_from=NOW)
    shelf = Shelf()
    model = shelf.get(spec.model)
    scorer = Scorer(model, shelf.path(model))
    wanted = [fact for fact in facts if fact.code.token in scorer.facts_wanted()]
    context = spec.context(asked.context)
    return scorer.judge(Snapshot("person-1", ("record-1",), at, at, model.id, Snapshot.ordered(wanted), context))


def cards(spec: ServiceSpec, body: dict[str, Any], *, at: str = NOW) -> tuple[Card, ...]:
    serial = itertools.count(1)
    guide = CardGuide(
        inference="0190-inf",
        data_as_of=at,
        public_url="https://cds.example.org",
        new_uuid=lambda: f"00000000-0000-4000-8000-{next(serial):012}",
    )
    shown = spec.cards(judged(spec, body, at=at), guide)
    assert check_response({"cards": [render(card) for card in shown]}) == []
    return shown
