"""The contexts of the published hooks, and of a hook of one's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cds_server.hooks.context import HookRequest, parse
from cds_server.hooks.published import HOOKS, LOCAL, MAX_ID, ContextField, HookContext, an_id, reverse_domain
from cds_server.hooks.service import ServiceSpec
from cds_server.services import all_services
from models.errors import ContractBroken
from models.strict import loads

INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
LONG = "eFnx9hyX.YTNJ407PR9g4zpiT8lXCElOXkldLgGDYrAU-fszvYmrUZlYzRfJl-qKj3" * 3
"""As long as the ids in the examples of CDS Hooks 3.0 (194 characters)."""
DRAFTS = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "ServiceRequest", "id": "1"}}]}
TASK = {"resourceType": "Task", "status": "draft"}
DISPATCH = {"dispatchedOrders": ["ServiceRequest/1"], "performer": "Organization/2"}
ALLERGY = {"resourceType": "AllergyIntolerance", "id": "1"}
MEDICATION = {"resourceType": "MedicationRequest", "id": "1", "status": "active"}
PEOPLE = ("Practitioner", "PractitionerRole")
ANYBODY = (*PEOPLE, "Patient", "RelatedPerson")

MINIMAL: dict[str, dict[str, Any]] = {
    "patient-view": {},
    "order-select": {"selections": ["ServiceRequest/1"], "draftOrders": DRAFTS},
    "order-sign": {"draftOrders": DRAFTS},
    "order-dispatch": DISPATCH,
    "appointment-book": {"appointments": DRAFTS},
    "encounter-start": {"encounterId": "e1"},
    "encounter-discharge": {"encounterId": "e1"},
    "problem-list-item-create": {"conditions": DRAFTS},
    "allergyintolerance-create": {"allergyIntolerance": ALLERGY},
    "medication-refill": {"medications": DRAFTS},
    "medication-verify": {"medication": MEDICATION},
}
"""What each hook requires besides userId and patientId."""
USERS = dict.fromkeys(MINIMAL, PEOPLE) | {
    "patient-view": ANYBODY,
    "appointment-book": ANYBODY,
    "allergyintolerance-create": ("Practitioner",),
    "order-dispatch": (),
}
"""Whose id `userId` may be. order-dispatch has no user."""
WITHOUT_USER = ("order-dispatch", "medication-refill")


def asked(hook: str, *without: str, hooks: Any = HOOKS, **changes: Any) -> HookRequest:
    context = {"userId": "Practitioner/7", "patientId": "p1", **MINIMAL.get(hook, {}), **changes}
    for name in without:
        del context[name]
    raw = json.dumps({"hook": hook, "hookInstance": INSTANCE, "context": context}).encode()
    return parse(raw, loads(raw), hooks)


def refused(hook: str, *without: str, **changes: Any) -> str | None:
    with pytest.raises(ContractBroken) as error:
        asked(hook, *without, **changes)
    return error.value.where


def test_every_published_hook_is_here() -> None:
    assert set(MINIMAL) | {"fancy-structure"} == set(HOOKS)


@pytest.mark.parametrize("hook", MINIMAL)
def test_a_minimal_context_is_taken_and_nothing_in_it_is_unknown(hook: str) -> None:
    without = ("userId",) if hook == "order-dispatch" else ()
    request = asked(hook, *without)
    assert (request.hook, request.patient_id, request.unknown) == (hook, "p1", ())


@pytest.mark.parametrize("hook", MINIMAL)
def test_each_required_field_is_required_and_named(hook: str) -> None:
    user = () if hook in WITHOUT_USER else ("userId",)
    for name in (*user, "patientId", *MINIMAL[hook]):
        assert refused(hook, name) == f"context.{name}"


@pytest.mark.parametrize("hook", WITHOUT_USER)
def test_some_hooks_have_no_user(hook: str) -> None:
    assert asked(hook, "userId").user_id is None


@pytest.mark.parametrize("hook", [hook for hook in MINIMAL if hook != "order-dispatch"])
def test_the_user_is_of_a_type_that_the_hook_names(hook: str) -> None:
    for kind in ANYBODY:
        if kind in USERS[hook]:
            assert asked(hook, userId=f"{kind}/7").user_id == f"{kind}/7"
        else:
            assert refused(hook, userId=f"{kind}/7") == "context.userId"
    assert refused(hook, userId="7") == "context.userId"


@pytest.mark.parametrize("hook", MINIMAL)
@pytest.mark.parametrize("value", [None, "", 7, "Patient/1", "a b", "1?_id=2", "a/../b", "x" * (MAX_ID + 1), "é"])
def test_what_is_no_id_is_refused(hook: str, value: Any) -> None:
    assert refused(hook, patientId=value) == "context.patientId"
    if hook != "order-dispatch":
        assert refused(hook, encounterId=value) == "context.encounterId"


@pytest.mark.parametrize("hook", MINIMAL)
def test_long_ids_are_taken(hook: str) -> None:
    changes = {} if hook == "order-dispatch" else {"encounterId": LONG, "userId": f"Practitioner/{LONG}"}
    assert len(LONG) > 190
    assert asked(hook, patientId=LONG, **changes).patient_id == LONG


@pytest.mark.parametrize(
    "name", ["draftOrders", "appointments", "conditions", "medications", "medication", "allergyIntolerance"]
)
@pytest.mark.parametrize(
    "value",
    [None, [], "x", {}, {"resourceType": "List"}, {"resource": {}}, {"resourceType": "Bundle", "entry": [{}]}],
)
def test_embedded_resources_are_of_their_type(name: str, value: Any) -> None:
    hook = next(hook for hook, members in MINIMAL.items() if name in members and hook != "order-select")
    assert refused(hook, **{name: value}) == f"context.{name}"


def test_embedded_fhir_is_otherwise_not_looked_at() -> None:
    """The official sandbox sends a MedicationRequest without intent and medication, in a Bundle without type."""
    drafts = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "MedicationRequest", "coding": [{}]}}]}
    assert asked("order-sign", draftOrders=drafts).context["draftOrders"] == drafts


# ---- one thing under several names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "context",
    [
        DISPATCH,
        {**DISPATCH, "fulfillmentTasks": [TASK]},
        {"order": "ServiceRequest/1", "performer": "Practitioner/2"},
        {"order": "ServiceRequest/1", "performer": "Practitioner/2", "task": TASK},
        {"dispatched-orders": ["ServiceRequest/1"], "performer": "CareTeam/2", "fulfillment-tasks": [TASK]},
    ],
    ids=["1.1", "1.1 with tasks", "1.0", "1.0 with task", "as its page shows it"],
)
def test_both_shapes_of_order_dispatch(context: dict[str, Any]) -> None:
    body = {"hook": "order-dispatch", "hookInstance": INSTANCE, "context": {"patientId": "p1", **context}}
    raw = json.dumps(body).encode()
    request = parse(raw, loads(raw))
    assert request.unknown == ()
    assert request.context["performer"] == context["performer"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"dispatchedOrders": "ServiceRequest/1"}, "dispatchedOrders"),
        ({"dispatchedOrders": ["1"]}, "dispatchedOrders"),
        ({"performer": "somebody"}, "performer"),
        ({"fulfillmentTasks": TASK}, "fulfillmentTasks"),
        ({"fulfillmentTasks": [DRAFTS]}, "fulfillmentTasks"),
        ({"task": DRAFTS}, "task"),
    ],
)
def test_a_broken_dispatch_is_refused(changes: dict[str, Any], where: str) -> None:
    assert refused("order-dispatch", **changes) == f"context.{where}"


def test_a_broken_dispatch_of_the_earlier_shape_is_refused() -> None:
    assert refused("order-dispatch", "dispatchedOrders", order=["ServiceRequest/1"]) == "context.order"


@pytest.mark.parametrize(
    ("hook", "required", "members"),
    [
        ("allergyintolerance-create", "allergyIntolerance", {"allergyIntolerance": {"resource": ALLERGY}}),
        ("allergyintolerance-create", "allergyIntolerance", {"allergyIntolerances": DRAFTS}),
        ("medication-verify", "medication", {"medication": {"resource": MEDICATION}}),
        ("medication-verify", "medication", {"order": {"resource": MEDICATION}}),
    ],
)
def test_contexts_as_the_examples_of_the_hooks_own_pages_show_them(
    hook: str, required: str, members: dict[str, Any]
) -> None:
    context = {"userId": "Practitioner/7", "patientId": "p1", **members}
    raw = json.dumps({"hook": hook, "hookInstance": INSTANCE, "context": context}).encode()
    assert parse(raw, loads(raw)).unknown == ()
    assert refused(hook, required) == f"context.{required}"


# ---- hooks of one's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["org.example.x-y", "com.vendor.ehr.order-simulate", "nl.hospital.Board2"])
def test_a_hook_of_ones_own_is_named_by_a_reversed_domain(name: str) -> None:
    assert reverse_domain(name)


@pytest.mark.parametrize(
    "name", ["x-y", "Order", "org.example", "org..x", "org.example.", "org.exa mple.x", "1.2.3", ""]
)
def test_other_names_are_not(name: str) -> None:
    assert not reverse_domain(name)


def a_service(**changes: Any) -> ServiceSpec:
    (known, *_) = all_services()
    members = {name: getattr(known, name) for name in ("title", "description", "model", "cards")}
    return ServiceSpec(**{"id": "board", "hook": "org.example.board-open", "prefetch": {}, **members, **changes})


def test_a_service_declares_the_context_of_its_own_hook() -> None:
    board = ContextField("boardId", an_id)
    spec = a_service(fields=(board,), prefetch={"board": "Basic/{{context.boardId}}"})
    request = asked(spec.hook, "userId", hooks={spec.hook: spec.hook_context}, boardId="b1")
    assert (request.hook, request.unknown) == ("org.example.board-open", ())
    with pytest.raises(ContractBroken, match=r"context\.boardId is required"):
        asked(spec.hook, hooks={spec.hook: spec.hook_context})


def test_a_record_is_about_a_patient() -> None:
    with pytest.raises(ContractBroken, match=r"context\.patientId is required"):
        asked("org.example.x-y", "patientId", hooks={"org.example.x-y": HookContext.of(*LOCAL.fields)})


@pytest.mark.parametrize("hook", ["board-open", "order", "ORG.EXAMPLE.X"])
def test_a_service_on_any_other_hook_is_never_born(hook: str) -> None:
    with pytest.raises(ValueError, match="neither published nor a reverse-domain name"):
        a_service(hook=hook)


def test_the_context_of_a_published_hook_cannot_be_declared_anew() -> None:
    with pytest.raises(ValueError, match="is published"):
        a_service(hook="patient-view", fields=(ContextField("boardId", an_id),))


def test_all_published_hooks_are_answered_in_a_sandbox() -> None:
    assert {spec.hook for spec in all_services(conformance=True)} >= set(HOOKS)
