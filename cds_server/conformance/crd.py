"""What the Da Vinci CRD guide asks of an answer beyond CDS Hooks: the suite's checks .07 to .11 and of suggestions.

A server that is no payer owes none of it: each of these is told as seen or not seen, and counts only where the guide
was asked for (`--crd`). Resources are checked as R4; of the guide's own profiles, only the rules that the suite names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from adapters.readers.validation import validate
from cds_server.conformance.answers import Breaches, actions_of, cards_of, suggestions_of
from models.nouns import JSON

NEED_SYSTEM_ACTIONS = frozenset({"appointment-book", "order-sign", "order-dispatch"})
"""Hooks whose answer has the key `systemActions` even where it is empty: so the suite, against CDS Hooks 2.0 (@3)."""
COVERED = frozenset(
    {"Appointment", "DeviceRequest", "Encounter", "MedicationRequest", "NutritionOrder", "ServiceRequest"}
    | {"VisionPrescription"}
)
ORDERS = frozenset(
    {"CommunicationRequest", "DeviceRequest", "MedicationRequest", "NutritionOrder", "ServiceRequest", "Task"}
    | {"VisionPrescription"}
)
COVERAGE_INFORMATION = "http://hl7.org/fhir/us/davinci-crd/StructureDefinition/ext-coverage-information"


def topics(body: Any) -> Breaches:
    """The guide makes `source.topic` mandatory."""
    return [
        f"/cards/{ordinal}/source/topic: required"
        for ordinal, card in enumerate(cards_of(body))
        if not isinstance(card.get("source"), dict) or "topic" not in card["source"]
    ]


def system_actions(hook: str, body: Any) -> Breaches:
    missing = hook in NEED_SYSTEM_ACTIONS and isinstance(body, dict) and "systemActions" not in body
    return ["/systemActions: required by this hook"] if missing else []


# ---- kinds of cards --------------------------------------------------------------------------------------------------


def external_references(body: Any) -> int:
    """Cards all of whose links are absolute."""
    return sum(_links_all(card, "absolute") for card in cards_of(body))


def smart_launches(body: Any) -> int:
    """Cards all of whose links launch a SMART app."""
    return sum(_links_all(card, "smart") for card in cards_of(body))


def instructions(body: Any) -> int:
    """Cards with neither links nor suggestions."""
    return sum(not card.get("links") and not card.get("suggestions") for card in cards_of(body))


def _links_all(card: JSON, kind: str) -> bool:
    links = card.get("links")
    return bool(links) and isinstance(links, list) and all(isinstance(e, dict) and e.get("type") == kind for e in links)


# ---- coverage information --------------------------------------------------------------------------------------------


def coverage_information(body: Any) -> list[JSON]:
    """System actions that add the coverage-information extension to what was ordered or booked."""
    actions = body.get("systemActions", []) if isinstance(body, dict) else []
    return [action for action in actions if isinstance(action, dict) and _informations(action)]


def coverage_breaches(actions: Iterable[JSON]) -> Breaches:
    """Each updates, is valid, and says one thing about each coverage."""
    wrong: Breaches = []
    for ordinal, action in enumerate(actions):
        at = f"/systemActions/{ordinal}"
        resource = action.get("resource", {})
        if action.get("type") != "update":
            wrong.append(f"{at}/type: not update")
        wrong += [f"{at}/resource/{problem}" for problem in validate(resource)]
        wrong += _assertions(_informations(action), at)
    return wrong


def _informations(action: JSON) -> list[JSON]:
    resource = action.get("resource")
    if not isinstance(resource, dict) or resource.get("resourceType") not in COVERED:
        return []
    extensions = resource.get("extension")
    named = [each for each in extensions if isinstance(each, dict)] if isinstance(extensions, list) else []
    return [each for each in named if each.get("url") == COVERAGE_INFORMATION]


def _assertions(informations: Iterable[JSON], at: str) -> Breaches:
    """One coverage-assertion-id and at most one satisfied-pa-id a coverage; other coverages have other ids."""
    ids: dict[str, set[str]] = {}
    authorizations: dict[str, set[str]] = {}
    for each in informations:
        members = {
            part.get("url"): next((part[name] for name in part if name.startswith("value")), None)
            for part in each.get("extension", [])
            if isinstance(part, dict)
        }
        coverage = str((members.get("coverage") or {}).get("reference"))
        ids.setdefault(coverage, set()).add(str(members.get("coverage-assertion-id")))
        if "satisfied-pa-id" in members:
            authorizations.setdefault(coverage, set()).add(str(members["satisfied-pa-id"]))
    wrong = [f"{at}: a coverage has several assertion ids" for each in ids.values() if len(each) > 1]
    wrong += [
        f"{at}: a coverage has several satisfied authorizations" for each in authorizations.values() if len(each) > 1
    ]
    shared = Counter(one for each in ids.values() for one in each)
    return wrong + [f"{at}: two coverages have one assertion id" for count in shared.values() if count > 1]


# ---- suggestions -----------------------------------------------------------------------------------------------------


def alternate_requests(body: Any, drafted: frozenset[str]) -> tuple[int, Breaches]:
    """Suggestions that change or replace what is drafted, and what is wrong with them. `drafted`: `Type/id`."""
    seen, wrong = 0, list[str]()
    for suggestion in suggestions_of(body):
        actions = _actions(suggestion)
        targets = [_target(action) for action in actions if action.get("type") in ("update", "delete")]
        if not targets or any(target.partition("/")[0] == "Coverage" for target in targets):
            continue
        seen += 1
        wrong += ["an alternate request changes what is not drafted" for target in targets if target not in drafted]
        made = {_kind(action) for action in actions if action.get("type") == "create"}
        wrong += [
            "a deleted order has no created one of its type"
            for action in actions
            if action.get("type") == "delete" and _target(action).partition("/")[0] not in made
        ]
    return seen, wrong


def additional_orders(body: Any) -> tuple[int, Breaches]:
    """Suggestions that only create orders, and what is invalid of them."""
    found = [
        suggestion
        for suggestion in suggestions_of(body)
        if (actions := _actions(suggestion)) and all(_creates(action, ORDERS - {"Task"}) for action in actions)
    ]
    return len(found), [problem for each in found for action in _actions(each) for problem in _invalid(action)]


def form_completions(body: Any) -> tuple[int, Breaches]:
    """Tasks that ask to complete a questionnaire."""
    tasks = [action for action in actions_of(body) if _creates(action, {"Task"}) and _asks(action["resource"])]
    return len(tasks), [problem for task in tasks for problem in _invalid(task)]


def coverages(body: Any) -> tuple[int, Breaches]:
    """Cards that create or update a Coverage: one suggestion each."""
    seen, wrong = 0, list[str]()
    for card in cards_of(body):
        about = [each for each in actions_of({"cards": [card]}) if _kind(each) == "Coverage"]
        if about:
            seen += 1
            wrong += [problem for action in about for problem in _invalid(action)]
            if len(card.get("suggestions", [])) != 1:
                wrong.append("a coverage card has more than one suggestion")
    return seen, wrong


def _asks(task: JSON) -> bool:
    code = task.get("code")
    codings = code.get("coding", []) if isinstance(code, dict) else []
    asked = any(isinstance(each, dict) and each.get("code") == "complete-questionnaire" for each in codings)
    inputs = [each for each in task.get("input", []) if isinstance(each, dict)]
    return asked and any("valueCanonical" in each for each in inputs)


def _actions(suggestion: JSON) -> list[JSON]:
    actions = suggestion.get("actions")
    return [action for action in actions if isinstance(action, dict)] if isinstance(actions, list) else []


def _creates(action: JSON, types: Iterable[str]) -> bool:
    return action.get("type") == "create" and _kind(action) in types


def _kind(action: JSON) -> str:
    resource = action.get("resource")
    return str(resource.get("resourceType")) if isinstance(resource, dict) else ""


def _target(action: JSON) -> str:
    if action.get("type") == "delete":
        return str(action.get("resourceId"))
    resource = action.get("resource")
    return f"{_kind(action)}/{resource.get('id')}" if isinstance(resource, dict) else ""


def _invalid(action: JSON) -> Breaches:
    return [f"{_kind(action)}: {problem}" for problem in validate(action.get("resource", {}))]
