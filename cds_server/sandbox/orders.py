"""Draft orders: those that the fixtures hold, and a short list that can be ordered for any patient."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cds_server.sandbox.ehr import Case
from cds_server.sandbox.render import ordered
from models.nouns import JSON

HOOK = "order-sign"


def catalogue(cases: Iterable[Case]) -> dict[str, JSON]:
    """What can be ordered, by id: each drug of which some fixture holds a draft, as that draft has it."""
    found: dict[str, JSON] = {}
    for case in cases:
        for order in drafts_of(case.requests.get(HOOK, {})):
            found.setdefault(ordered(order).casefold().replace(" ", "-"), order)
    return dict(sorted(found.items()))


def drafts_of(request: JSON) -> list[dict[str, Any]]:
    bundle = request.get("context", {}).get("draftOrders", {})
    return [entry["resource"] for entry in bundle.get("entry", [])]


def drafted(template: JSON, patient: str, requester: str, reason: str | None) -> dict[str, Any]:
    """A draft of this drug for this patient; `reason`: `Condition/id`, where the chart has one that it is for."""
    order = copy.deepcopy(dict(template))
    order |= {
        "subject": {"reference": f"Patient/{patient}"},
        "authoredOn": datetime.now(UTC).date().isoformat(),
        "requester": {"reference": requester},
    }
    order.pop("reasonReference", None)
    return order | ({"reasonReference": [{"reference": reason}]} if reason else {})


def request_of(hook: str, context: Mapping[str, Any], drafts: list[dict[str, Any]], base: str) -> dict[str, Any]:
    """A request about these drafts, all of them selected (CDS Hooks 2.0.1, order-select 1.0.1, order-sign 1.1)."""
    entries = [{"fullUrl": f"{base}/MedicationRequest/{each['id']}", "resource": each} for each in drafts]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    chosen = {"selections": [f"MedicationRequest/{each['id']}" for each in drafts]} if hook == "order-select" else {}
    kept = {name: context[name] for name in ("userId", "patientId", "encounterId") if name in context}
    return {"hook": hook, "context": {**kept, **chosen, "draftOrders": bundle}}
