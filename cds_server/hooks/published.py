"""The hooks of the CDS Hooks library (2026-04): what the context of each holds, and how a hook of one's own is named.

The fields that a definition lists are checked strictly for what they are (an id, a reference, a resource of a type);
embedded FHIR leniently: statuses and required members are not looked at, for the official sandbox and the suite's own
bodies break them. Where a definition says one name and its examples, or an earlier version, another, both are taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import ContractBroken
from models.nouns import JSON

MAX_ID = 256
"""The drafts of CDS Hooks 3.0 show ids of 194 characters: FHIR's own limit of 64 is not enforced."""

ID = re.compile(rf"[A-Za-z0-9.-]{{1,{MAX_ID}}}")
_LOCAL = re.compile(r"[a-z]{2,}(?:\.[A-Za-z0-9][A-Za-z0-9-]*){2,}")
_RELATIVE = re.compile(rf"[A-Z][A-Za-z]{{1,63}}/{ID.pattern}")

Check = Callable[[Any], str | None]
"""What is wrong with the value of a context field, in our words; None: nothing."""


@dataclass(frozen=True, slots=True)
class ContextField:
    name: str
    check: Check
    required: bool = True
    token: bool = True
    """May stand in a prefetch template as `{{context.name}}`."""
    also: Mapping[str, Check] = field(default_factory=dict)
    """Other names of the same: of an earlier version of the hook, or of the examples on the hook's own page."""


@dataclass(frozen=True, slots=True)
class HookContext:
    """What the context of a hook holds."""

    fields: tuple[ContextField, ...]
    names: frozenset[str] = frozenset()
    """Every member that the hook knows."""

    @classmethod
    def of(cls, *fields: ContextField) -> HookContext:
        return cls(fields, frozenset(name for each in fields for name in (each.name, *each.also)))

    @property
    def tokens(self) -> frozenset[str]:
        """What may stand in a prefetch template as `{{context.name}}`."""
        return frozenset(each.name for each in self.fields if each.token)

    def check(self, context: JSON) -> None:
        """Errors: ContractBroken, naming the field and never its value."""
        for each in self.fields:
            name, check = each.name, each.check
            if name not in context:
                other = next((other for other in each.also if other in context), None)
                if other is None:
                    if each.required:
                        raise broken(f"context.{name}", "is required by this hook")
                    continue
                name, check = other, each.also[other]
            problem = check(context[name])
            if problem is not None:
                raise broken(f"context.{name}", problem)


def broken(member: str, problem: str) -> ContractBroken:
    """An error that names a member of the contract, in its sentence and as its place."""
    return ContractBroken(f"{member} {problem}", where=member)


def reverse_domain(hook: str) -> bool:
    """Whether it may be the name of a hook that nobody published (CDS Hooks 2.0.1, Hook Definition Format)."""
    return len(hook) <= 128 and _LOCAL.fullmatch(hook) is not None


# ---- what a field may be ---------------------------------------------------------------------------------------------


def an_id(value: Any) -> str | None:
    return None if isinstance(value, str) and ID.fullmatch(value) else "must be a FHIR id"


def reference(*types: str) -> Check:
    """`Type/id`, of any type where none is named."""
    form = re.compile(rf"(?:{'|'.join(types)})/{ID.pattern}") if types else _RELATIVE
    wanted = " or ".join(types) if types else "Type"

    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and form.fullmatch(value) else f"must be {wanted}/id"

    return check


def references(value: Any) -> str | None:
    named = isinstance(value, list) and all(isinstance(each, str) and _RELATIVE.fullmatch(each) for each in value)
    return None if named else "must be a list of Type/id"


def bundle(value: Any) -> str | None:
    """A Bundle of resources; `type` may lack (so in every example before CDS Hooks 3.0)."""
    if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
        return "must be a Bundle"
    entries = value.get("entry", [])
    if not isinstance(entries, list):
        return "must be a Bundle whose entry is a list"
    for entry in entries:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            return "must be a Bundle whose entries hold resources"
    return None


def resource(*types: str) -> Check:
    """A resource of one of these types, bare or as `{"resource": ...}`: the examples of both hooks that have one wrap
    it, as an entry of a Bundle would."""

    def check(value: Any) -> str | None:
        inner = value.get("resource", value) if isinstance(value, dict) else None
        named = isinstance(inner, dict) and inner.get("resourceType") in types
        return None if named else f"must be a {' or '.join(types)}"

    return check


def _tasks(value: Any) -> str | None:
    whole = isinstance(value, list) and all(_task(each) is None for each in value)
    return None if whole else "must be a list of Task"


def anything(_: Any) -> str | None:
    return None


_task = resource("Task")

# ---- the hooks -------------------------------------------------------------------------------------------------------

PATIENT = ContextField("patientId", an_id)
ENCOUNTER = ContextField("encounterId", an_id, required=False)
_MUST_ENCOUNTER = ContextField("encounterId", an_id)
_ANY_USER = ContextField("userId", reference("Practitioner", "PractitionerRole", "Patient", "RelatedPerson"))
_PRESCRIBER = ContextField("userId", reference("Practitioner", "PractitionerRole"))
_DRAFTS = ContextField("draftOrders", bundle, token=False)
_SELECTIONS = ContextField("selections", references, token=False)
_APPOINTMENTS = ContextField("appointments", bundle, token=False)
_CONDITIONS = ContextField("conditions", bundle, token=False)
_ALLERGY = ContextField(
    "allergyIntolerance", resource("AllergyIntolerance"), token=False, also={"allergyIntolerances": bundle}
)
_REFILLS = ContextField("medications", bundle, token=False)
_ORDERED = resource("MedicationRequest", "MedicationOrder")
_VERIFIED = ContextField("medication", _ORDERED, token=False, also={"order": _ORDERED})
_DISPATCHED = ContextField(
    "dispatchedOrders", references, token=False, also={"order": reference(), "dispatched-orders": references}
)
_TASKS = ContextField(
    "fulfillmentTasks", _tasks, required=False, token=False, also={"task": _task, "fulfillment-tasks": _tasks}
)

HOOKS: Mapping[str, HookContext] = {
    # patient-view 1.0, maturity 5
    "patient-view": HookContext.of(_ANY_USER, PATIENT, ENCOUNTER),
    # order-select 1.0, maturity 4
    "order-select": HookContext.of(_PRESCRIBER, PATIENT, ENCOUNTER, _SELECTIONS, _DRAFTS),
    # order-sign 1.0, maturity 5
    "order-sign": HookContext.of(_PRESCRIBER, PATIENT, ENCOUNTER, _DRAFTS),
    # order-dispatch 1.1, maturity 0; 1.0 had order and task, and the conformance suite still does. Its page lets
    # dispatchedOrders be a prefetch token, CDS Hooks 2.0.1 lets no array be one: the stricter rule is kept.
    "order-dispatch": HookContext.of(PATIENT, _DISPATCHED, ContextField("performer", reference()), _TASKS),
    # appointment-book 1.0, maturity 1
    "appointment-book": HookContext.of(_ANY_USER, PATIENT, ENCOUNTER, _APPOINTMENTS),
    # encounter-start 1.0 and encounter-discharge 1.0, maturity 1
    "encounter-start": HookContext.of(_PRESCRIBER, PATIENT, _MUST_ENCOUNTER),
    "encounter-discharge": HookContext.of(_PRESCRIBER, PATIENT, _MUST_ENCOUNTER),
    # problem-list-item-create 0.1.0, maturity 1
    "problem-list-item-create": HookContext.of(_PRESCRIBER, PATIENT, ENCOUNTER, _CONDITIONS),
    # allergyintolerance-create 0.1.0, maturity 1
    "allergyintolerance-create": HookContext.of(
        ContextField("userId", reference("Practitioner")), PATIENT, ENCOUNTER, _ALLERGY
    ),
    # medication-refill 0.1.0, maturity 1: a pharmacy or a portal asks, so there may be no user
    "medication-refill": HookContext.of(
        ContextField("userId", reference("Practitioner", "PractitionerRole"), required=False),
        PATIENT,
        ENCOUNTER,
        _REFILLS,
    ),
    # medication-verify 0.1.0, maturity 1
    "medication-verify": HookContext.of(_PRESCRIBER, PATIENT, ENCOUNTER, _VERIFIED),
    # Nobody published it: the name under which the conformance suite sends a context of any structure.
    "fancy-structure": HookContext.of(
        _ANY_USER,
        PATIENT,
        ContextField("list", anything, required=False, token=False),
        ContextField("non_uniform_list", anything, required=False, token=False),
    ),
}
"""One row a hook: its context fields as the hook's own page lists them."""

LOCAL = HookContext.of(
    ContextField("userId", reference("Practitioner", "PractitionerRole", "Patient", "RelatedPerson"), required=False),
    PATIENT,
    ENCOUNTER,
)
"""What every context of a hook of one's own holds, beside what the service declares: a record is about a patient."""
