"""The draft orders of a request: what goes into the Snapshot as its context, never as facts.

Hooks order-sign and order-select of CDS Hooks. Where the request says which orders were selected, the others are the
work of somebody who has not asked about them: they are left out.
"""

from __future__ import annotations

import re
from typing import Any

from models.canonical import without_none
from models.nouns import JSON


def draft_orders(hook_context: JSON) -> dict[str, Any]:
    """`{"focus": "Condition/x", "draft_orders": [{"type", "codings", "text"}]}` of the draft orders, each if any.

    Orders that name another patient than the context, that were not selected, or that say not to do something are left
    out. The focus is taken only when all orders that give a reason agree on one Condition: which tumour is meant is
    never guessed.
    """
    bundle = hook_context.get("draftOrders", {})
    mine = f"Patient/{hook_context.get('patientId')}"
    drafted = [entry.get("resource", {}) for entry in bundle.get("entry", [])]
    orders = [order for order in drafted if _reference(order.get("subject")) in (None, mine)]
    orders = [order for order in orders if _selected(order, hook_context) and order.get("doNotPerform") is not True]
    reasons = {reference for order in orders for reference in _reasons(order)}
    medications = {f"Medication/{each.get('id')}": each for each in drafted if each.get("resourceType") == "Medication"}
    told = [each for each in (_order(order, medications) for order in orders) if each is not None]
    return without_none({"focus": reasons.pop() if len(reasons) == 1 else None, "draft_orders": told})


def _selected(order: JSON, hook_context: JSON) -> bool:
    """`selections` lists `Type/id` of draft orders (order-select 1.0); an order-sign has none: all are meant."""
    selections = hook_context.get("selections")
    return selections is None or f"{order.get('resourceType')}/{order.get('id')}" in selections


def _reference(member: Any) -> str | None:
    reference = member.get("reference") if isinstance(member, dict) else None
    return reference if isinstance(reference, str) else None


def _reasons(order: JSON) -> list[str]:
    references = order.get("reasonReference", [])
    told = [_reference(member) for member in references] if isinstance(references, list) else []
    return [reference for reference in told if reference and re.fullmatch(r"Condition/[A-Za-z0-9.-]+", reference)]


def _order(order: JSON, medications: JSON) -> dict[str, Any] | None:
    """What is ordered: codings with system and code, and the words beside them; None if neither is there."""
    if order.get("resourceType") == "Medication":
        return None
    concept = order.get("medicationCodeableConcept") or order.get("code") or _medication(order, medications)
    if not isinstance(concept, dict):
        return None
    sent = concept.get("coding", [])
    codings = [
        {name: coding[name] for name in ("system", "code", "display") if isinstance(coding.get(name), str)}
        for coding in (sent if isinstance(sent, list) else [])
        if isinstance(coding, dict) and coding.get("system") and coding.get("code")
    ]
    text = concept.get("text")
    if not codings and not isinstance(text, str):
        return None
    return without_none({"type": order.get("resourceType"), "codings": codings, "text": text})


def _medication(order: JSON, medications: JSON) -> Any:
    """The code of the Medication that the order contains, or that is drafted beside it."""
    reference = _reference(order.get("medicationReference")) or ""
    contained = order.get("contained", [])
    inner = {f"#{each.get('id')}": each for each in contained if isinstance(each, dict)} if contained else {}
    return {**medications, **inner}.get(reference, {}).get("code")
