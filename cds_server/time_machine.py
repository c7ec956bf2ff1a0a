"""What a service would have said at a time, with what was known then: beside what it did say, and what it says now.

    said    the inference of this service about this patient nearest before the time, as it stands on record
    then    judged now, from the facts that were known at the time, by the model version that was pinned at the time
    now     judged now, from what is known now, by the version that is pinned now

Each pair is compared feature by feature (`tracing`). All three answer one question: what the request of `said` brought
besides facts (a chosen tumour, draft orders) is asked again, unless the caller asks something else. Nothing is
recorded: whoever shows it to somebody records the look (`cds_server.access`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from cds_server.decisions import Decisions, judged_bytes, now
from cds_server.hooks.cards import render
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.panel import Panel
from cds_server.registry import Registry
from cds_server.reproduce import Recorded, answer_before, cards_of, held_of, load_id
from cds_server.settings import Settings
from cds_server.store.entropy import new_uuid
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from cds_server.tracing import Difference, Side, differences
from models.errors import CdsError, KeysUnavailable, NotFound
from models.nouns import JSON, Judgement, ModelVersion
from models.scoring import Scorer

_PER_CALL = ("unread", "lacking")
"""Of a request's context: what it could not bring. Asked again, it would bring what it brings then."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What was said, or would be, at one instant."""

    at: str
    """What was known at this instant."""
    model: str
    """`name@version` of the service's own model."""
    sides: Mapping[str, Side]
    """Name of a model -> its judgement: the own one first, then those beside it."""
    cards: tuple[JSON, ...]
    inference: str | None = None
    """On record: its id."""
    seq: int | None = None
    """On record: its ledger entry."""
    actions: tuple[JSON, ...] = ()
    """On record: what people did with its cards."""
    held: tuple[JSON, ...] = ()
    """On record: cards that alert hygiene held back."""

    @property
    def score(self) -> JSON:
        """Of the own model."""
        score: JSON = next(iter(self.sides.values())).judged["score"]
        return score

    @property
    def summary(self) -> str:
        """In a line."""
        if self.cards:
            return " / ".join(str(card["summary"]) for card in self.cards)
        if self.held:
            return f"held back: {self.held[0]['card']['summary']}"
        return f"no card ({self.score['abstained']})" if "abstained" in self.score else "no card"

    def plain(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "model": self.model,
            "inference": self.inference,
            "seq": self.seq,
            "summary": self.summary,
            "score": self.score,
            "cards": list(self.cards),
            "actions": list(self.actions),
            "held": list(self.held),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The three, and what lies between them."""

    service: str
    person: str
    at: str
    said: Stand | None
    then: Stand
    now: Stand
    until_then: tuple[Difference, ...]
    """From what was said to what was known at the time."""
    since_then: tuple[Difference, ...]
    """From what was known at the time to what is known now."""
    notes: tuple[str, ...] = ()
    """What a reader must know: why nothing was said, that another model was pinned."""

    def plain(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "person": self.person,
            "at": self.at,
            "said": self.said.plain() if self.said else None,
            "then": self.then.plain(),
            "now": self.now.plain(),
            "until_then": [each.plain() for each in self.until_then],
            "since_then": [each.plain() for each in self.since_then],
            "notes": list(self.notes),
        }


class Machinery(Protocol):
    """What judging takes; `app.Parts` has it."""

    @property
    def store(self) -> Store: ...

    @property
    def registry(self) -> Registry: ...

    @property
    def decisions(self) -> Decisions: ...

    @property
    def settings(self) -> Settings: ...


def compare(parts: Machinery, service: str, record: RecordRow, at: str, context: JSON | None = None) -> Comparison:
    """A service and a patient at an instant (UTC text). `context`: what is asked besides facts (`{"focus": ...}`).

    Takes as long as two judgements: never call it where a hook call waits. Errors: NotFound (no such service),
    ModelFault, KeysUnavailable (a patient who was erased).
    """
    spec = next((spec for spec in parts.registry.specs if spec.id == service), None)
    if spec is None:
        raise NotFound("there is no such service")
    return _Machine(parts, spec, record).compare(at, context)


class _Machine:
    def __init__(self, parts: Machinery, spec: ServiceSpec, record: RecordRow) -> None:
        self._parts, self._spec, self._record = parts, spec, record
        self._store, self._registry = parts.store, parts.registry
        self._notes: list[str] = []

    def compare(self, at: str, context: JSON | None) -> Comparison:
        at = min(at, now())
        said = self._said(at)
        if context is None:
            brought = next(iter(said.sides.values())).snapshot.context if said else {}
            context = {name: value for name, value in brought.items() if name not in _PER_CALL}
        if self._registry.stopped_at(self._spec.id, at):
            self._notes.append("the service was stopped at that time: it would have said nothing")
        then = self._stand(self._panel_at(at), at, context)
        present = self._stand(self._parts.decisions.panel(self._spec), now(), context)
        return Comparison(
            self._spec.id,
            next(iter(then.sides.values())).snapshot.person,
            at,
            said,
            then,
            present,
            self._between(said, then) if said else (),
            self._between(then, present),
            tuple(self._notes),
        )

    # -- the three -----------------------------------------------------------------------------------------------------

    def _said(self, at: str) -> Stand | None:
        """The answer nearest before; not what was judged unasked, which nobody was told."""
        person = self._store.reads.person(self._record.id)
        rows = answer_before(self._store, person, self._spec.id, self._spec.model, at)
        if not rows:
            self._notes.append("nothing was said about this patient before that time")
            return None
        try:
            own, *others = [load_id(self._store, each) for each in rows]
        except KeysUnavailable:
            self._notes.append("what was said then was erased")
            return None
        shown = cards_of(self._store, own.id)
        return Stand(
            own.snapshot.as_of,
            own.model,
            {each.model.partition("@")[0]: self._side_of(each) for each in (own, *others)},
            tuple(each["card"] for each in shown),
            own.ref,
            own.seq,
            tuple(action for each in shown for action in each["actions"]),
            tuple(held_of(self._store, own.id)),
        )

    def _panel_at(self, at: str) -> Panel:
        beside = ((self._scorer_at(model, at), codes) for model, codes in self._spec.beside.items())
        return Panel(self._scorer_at(self._spec.model, at), tuple(beside))

    def _scorer_at(self, model: str, at: str) -> Scorer:
        """By the version of then; by the one of today where none was pinned yet, or that cannot be used any more."""
        pinned = self._registry.pinned_at(self._spec.id, model, at)
        if pinned is None:
            self._notes.append(f"no version of {model} was pinned yet: judged by the one of today")
        else:
            try:
                return self._registry.scorer_then(model, *pinned)
            except CdsError as error:
                self._notes.append(f"{model}@{pinned[0]}, which was pinned then, cannot judge any more: {error}")
        return self._registry.scorer(self._spec.id, model)

    def _stand(self, panel: Panel, at: str, context: JSON) -> Stand:
        known = self._parts.decisions.known(panel.wanted, self._record, at)
        own, *beside = panel.judge(known, context)
        guide = CardGuide(
            inference="",
            data_as_of=at,
            public_url=self._parts.settings.public_url,
            new_uuid=new_uuid,
            beside=tuple(("", each) for each in beside),
        )
        sides = {each.model.name: _side(each) for each in (own, *beside)}
        return Stand(at, own.model.id, sides, tuple(render(card) for card in self._spec.cards(own, guide)))

    def _side_of(self, recorded: Recorded) -> Side:
        name, _, version = recorded.model.partition("@")
        try:
            titles = _titles(self._registry.version_then(name, version, recorded.model_digest)[0])
        except CdsError:
            titles = {}
        judged = orjson.loads(recorded.judged)
        return Side(recorded.model, recorded.model_digest, recorded.snapshot, judged, titles)

    # -- between them --------------------------------------------------------------------------------------------------

    def _between(self, before: Stand, after: Stand) -> tuple[Difference, ...]:
        return tuple(
            each
            for name, side in before.sides.items()
            if name in after.sides
            for each in differences(self._store, side, after.sides[name])
        )


def _side(judgement: Judgement) -> Side:
    return Side(
        judgement.model.id,
        judgement.model.manifest_digest,
        judgement.snapshot,
        orjson.loads(judged_bytes(judgement)),
        _titles(judgement.model),
    )


def _titles(model: ModelVersion) -> dict[str, str]:
    """Feature -> what the manifest calls it."""
    stated = (feature for part in model.manifest["modalities"] for feature in part.get("features", ()))
    return {each["name"]: each["title"] for each in stated if "name" in each and "title" in each}
