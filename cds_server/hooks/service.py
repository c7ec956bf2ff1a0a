"""What a CDS service declares: one frozen object, checked when the server starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cds_server.hooks.cards import Action, Card
from cds_server.hooks.published import HOOKS, LOCAL, ContextField, HookContext, reverse_domain
from cds_server.hooks.templates import lint
from models.canonical import Noun, without_none
from models.nouns import JSON, Judgement

SPEC_VERSION = "2.0.1"
"""Sent in discovery (a member of CDS Hooks 3.0 that a 2.0 client ignores)."""


class CardGuide(Noun, frozen=True):
    """What a service may know of the record that its cards will belong to."""

    inference: str
    """Id of the Inference, as the SMART app will be given it."""
    data_as_of: str
    """Instant as of which everything was looked up."""
    public_url: str
    """Our own base URL, without a slash at its end."""
    new_uuid: Callable[[], str]
    """Makes the uuid of a card or suggestion."""
    smart_app: bool = False
    """Whether `{public_url}/app/launch` exists to link to."""
    beside: tuple[tuple[str, Judgement], ...] = ()
    """What the service's further models said, each with the id of its own inference."""
    sources: Mapping[str, str] = {}
    """Source, as a reader would call it -> instant of its newest delivery that the judgements rest on."""
    partial: tuple[str, ...] = ()
    """What the answer lacks besides what stands in the snapshot: a model that was stopped, or too slow."""


def no_context(_: JSON) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One row of discovery and the two pure functions behind it.

    `context(hook_context)` takes from the request what goes into the Snapshot beside the facts (a chosen tumour, draft
    orders; decimals as text). `cards(judgement, guide)` says what is shown; it never sees the store.
    """

    id: str
    hook: str
    title: str
    description: str
    model: str
    """Name of the model; which version, the configuration pins."""
    prefetch: Mapping[str, str]
    cards: Callable[[Judgement, CardGuide], tuple[Card, ...]]
    context: Callable[[JSON], dict[str, Any]] = no_context
    system_actions: Callable[[Judgement, CardGuide], tuple[Action, ...]] | None = None
    """What the EHR may do without asking anybody. Only where both sides agreed on it beforehand (CDS Hooks, System
    Actions): no feedback ever comes back about it."""
    measure: Callable[[Judgement], float | None] | None = None
    """The one number that a site's threshold is held against, where the service has one (`hygiene`)."""
    subscribes: bool = False
    """Judged again, on record and shown to nobody, when a feed brings facts that its model asks for (`continuous`)."""
    required: tuple[str, ...] = ()
    """Prefetch keys without which there is no answer but 412."""
    usage_requirements: str | None = None
    fields: tuple[ContextField, ...] = ()
    """Of a hook of one's own (`org.example.x-y`): what its context holds besides userId, patientId and encounterId."""
    beside: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Further models, each a named endpoint of its own: judged where the record answers one of these codes
    (`system|code`), for without such a fact they would say nothing that the first model does not."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.id):
            raise ValueError(f"service id {self.id!r} is not lower-case words joined by hyphens")
        if self.hook not in HOOKS and not reverse_domain(self.hook):
            raise ValueError(f"service {self.id}: hook {self.hook} is neither published nor a reverse-domain name")
        if self.hook in HOOKS and self.fields:
            raise ValueError(f"service {self.id}: the context of {self.hook} is published, and cannot be declared")
        if not (self.title and self.description and self.model):
            raise ValueError(f"service {self.id} has no title, description or model")
        unknown = set(self.required) - set(self.prefetch)
        if unknown:
            raise ValueError(f"service {self.id} requires keys that it has no template for: {sorted(unknown)}")
        for key, template in self.prefetch.items():
            for problem in lint(template, self.hook_context):
                raise ValueError(f"service {self.id}, prefetch template {key}: {problem}")

    @property
    def hook_context(self) -> HookContext:
        """What the context of its hook holds."""
        return HOOKS.get(self.hook) or HookContext.of(*LOCAL.fields, *self.fields)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that may be pinned for it."""
        return (self.model, *self.beside)

    def discovery(self) -> dict[str, Any]:
        """The service as `GET /cds-services` lists it (CDS Hooks 2.0.1, Discovery, Response)."""
        return without_none(
            {
                "hook": self.hook,
                "title": self.title,
                "description": self.description,
                "id": self.id,
                "version": SPEC_VERSION,
                "prefetch": dict(self.prefetch) or None,
                "usageRequirements": self.usage_requirements,
            }
        )
