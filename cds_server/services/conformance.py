"""For sandboxes and tests: answers the hooks that no clinical service uses, so that an EHR's team can try every one.

What it says is about no patient, and each card says so. Off unless the configuration lets it speak (`conformance`). It
is one service on many hooks: a client that follows "Update stale guidance" replaces its cards from hook to hook. The
record of a call names a model because every card belongs to an inference; nothing of what the model says is shown.
"""

from __future__ import annotations

from typing import Any

from cds_server.hooks.cards import (
    Action,
    ActionType,
    Card,
    Indicator,
    Link,
    LinkType,
    SelectionBehavior,
    Source,
    Suggestion,
)
from cds_server.hooks.evidence import TOPICS
from cds_server.hooks.published import ContextField, anything
from cds_server.hooks.reasons import CLINICAL
from cds_server.hooks.service import CardGuide, ServiceSpec
from models.nouns import JSON, Coding, Judgement

NAME = "conformance"
MODEL = "news2"
LOCAL_HOOK = "org.cds-server.conformance-check"
HOOKS = (
    "appointment-book",
    "order-dispatch",
    "encounter-discharge",
    "problem-list-item-create",
    "allergyintolerance-create",
    "medication-refill",
    "medication-verify",
    "fancy-structure",
    LOCAL_HOOK,
)

_SOURCE = Source(
    label="Conformance service of this server",
    url="https://cds-hooks.hl7.org/2.0/",
    topic=Coding(TOPICS, NAME, "Conformance of a CDS client"),
)
_NOTHING_CLINICAL = "This card is for testing a connection. It is about no patient and advises nothing."


def context(hook_context: JSON) -> dict[str, Any]:
    """Whom the suggested order would be for: the id that the client itself sent."""
    return {"patient": hook_context["patientId"]}


def cards(judgement: Judgement, guide: CardGuide) -> tuple[Card, ...]:
    """One card of each kind: instructions, an external reference, a suggestion."""
    order = {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "proposal",
        "code": {"text": "Conformance check, not to be performed"},
        "subject": {"reference": f"Patient/{judgement.snapshot.context['patient']}"},
    }
    suggestion = Suggestion(
        label="Draft an order that says it is a check",
        uuid=guide.new_uuid(),
        actions=(Action(ActionType.CREATE, "Draft a ServiceRequest that says it is a check", resource=order),),
    )
    specification = Link("CDS Hooks 2.0", "https://cds-hooks.hl7.org/2.0/", LinkType.ABSOLUTE)
    return (
        _card(guide, "Conformance check: a card that instructs", override_reasons=CLINICAL),
        _card(guide, "Conformance check: a card with an external reference", links=(specification,)),
        _card(
            guide,
            "Conformance check: a card with a suggestion",
            suggestions=(suggestion,),
            selection_behavior=SelectionBehavior.AT_MOST_ONE,
        ),
    )


def _card(guide: CardGuide, summary: str, **members: Any) -> Card:
    return Card(
        uuid=guide.new_uuid(),
        summary=summary,
        detail=_NOTHING_CLINICAL,
        indicator=Indicator.INFO,
        source=_SOURCE,
        **members,
    )


SERVICES = tuple(
    ServiceSpec(
        id=NAME,
        hook=hook,
        title="Conformance check, for sandboxes and tests",
        description="Answers hooks that no clinical service uses with one card of each kind. About no patient.",
        model=MODEL,
        prefetch={"patient": "Patient/{{context.patientId}}"},
        cards=cards,
        context=context,
        usage_requirements="Never with real data: switched on in sandboxes and tests only.",
        fields=(ContextField("check", anything, required=False, token=False),) if hook == LOCAL_HOOK else (),
    )
    for hook in HOOKS
)
