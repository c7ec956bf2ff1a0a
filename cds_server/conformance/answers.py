"""What a CDS Hooks answer must be, told independently of the code that makes ours.

Written from the CDS Hooks 2.0.1 tables and from what the CRD server suite looks at: its tests .05 (required fields)
and .06 (optional fields). Works on any server's answer. Each breach is `pointer: what`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from models.nouns import JSON

INDICATORS = ("info", "warning", "critical")
BEHAVIORS = ("at-most-one", "any")
_EMPTY_ALLOWED = frozenset({"/cards"})
_RESOURCE_ID = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]+")

Breaches = list[str]


def check_response(body: Any) -> Breaches:
    """Every breach in a 200 answer of a CDS service; empty: none."""
    return [*check_required(body), *check_optional(body)] if isinstance(body, dict) else [": not an object"]


def check_card(card: Any, at: str = "") -> Breaches:
    if not isinstance(card, dict):
        return [f"{at}: not an object"]
    return [*_required_of_card(card, at), *_optional_of_card(card, at)]


def cards_of(body: Any) -> list[JSON]:
    cards = body.get("cards") if isinstance(body, dict) else None
    return [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []


def actions_of(body: Any) -> Iterator[JSON]:
    """Actions of every suggestion, then the system actions."""
    for card in cards_of(body):
        for suggestion in _objects(card, "suggestions"):
            yield from _objects(suggestion, "actions")
    yield from _objects(body, "systemActions")


def suggestions_of(body: Any) -> Iterator[JSON]:
    for card in cards_of(body):
        yield from _objects(card, "suggestions")


def uuids_of(body: Any) -> list[str]:
    """Of cards and suggestions, in order."""
    found = [card.get("uuid") for card in cards_of(body)]
    found += [suggestion.get("uuid") for suggestion in suggestions_of(body)]
    return [uuid for uuid in found if isinstance(uuid, str)]


# ---- .05: what must be there -----------------------------------------------------------------------------------------


def check_required(body: Any) -> Breaches:
    """`cards`; of each card summary, indicator and source; of each action what its type asks for."""
    if not isinstance(body, dict):
        return [": not an object"]
    cards = body.get("cards")
    if not isinstance(cards, list):
        return ["/cards: not an array"]
    wrong: Breaches = []
    for ordinal, card in enumerate(cards):
        at = f"/cards/{ordinal}"
        wrong += _required_of_card(card, at) if isinstance(card, dict) else [f"{at}: not an object"]
    if "systemActions" in body:
        wrong += _each(body, "systemActions", "", _action)
    return wrong


def _required_of_card(card: JSON, at: str) -> Breaches:
    wrong = _texts(card, at, "summary", "indicator")
    summary = card.get("summary")
    if isinstance(summary, str) and len(summary.encode("utf-16-le", "surrogatepass")) // 2 >= 140:
        wrong.append(f"{at}/summary: 140 characters or more")
    if card.get("indicator") not in INDICATORS:
        wrong.append(f"{at}/indicator: not in the set")
    source = card.get("source")
    wrong += _texts(source, f"{at}/source", "label") if isinstance(source, dict) else [f"{at}/source: missing"]
    for ordinal, suggestion in enumerate(_objects(card, "suggestions")):
        wrong += _each(suggestion, "actions", f"{at}/suggestions/{ordinal}", _action)
    return wrong


def _action(action: JSON, at: str) -> Breaches:
    wrong = _texts(action, at, "type", "description")
    kind = action.get("type")
    if kind in ("create", "update"):
        resource = action.get("resource")
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            wrong.append(f"{at}/resource: not a FHIR resource")
    elif kind == "delete":
        if not isinstance(action.get("resourceId"), str) or not _RESOURCE_ID.fullmatch(action["resourceId"]):
            wrong.append(f"{at}/resourceId: not Type/id")
    else:
        wrong.append(f"{at}/type: not in the set")
    return wrong


# ---- .06: what may be there, and then must be right ------------------------------------------------------------------


def check_optional(body: JSON) -> Breaches:
    wrong = [*_empties(body, ""), *_extensions(body, "")]
    for ordinal, card in enumerate(cards_of(body)):
        wrong += _optional_of_card(card, f"/cards/{ordinal}")
    uuids = uuids_of(body)
    if len(uuids) != len(set(uuids)):
        wrong.append("/cards: a uuid occurs twice")
    return wrong


def _optional_of_card(card: JSON, at: str) -> Breaches:
    wrong = _texts(card, at, optional=("uuid", "detail", "selectionBehavior"))
    wrong += _source(card.get("source"), f"{at}/source")
    wrong += _each(card, "suggestions", at, _suggestion)
    wrong += _each(card, "links", at, _link)
    wrong += _each(
        card, "overrideReasons", at, lambda reason, where: _texts(reason, where, "code", "system", "display")
    )
    behavior = card.get("selectionBehavior")
    if "suggestions" in card and behavior not in BEHAVIORS:
        wrong.append(f"{at}/selectionBehavior: missing or not in the set")
    recommended = [each for each in _objects(card, "suggestions") if each.get("isRecommended")]
    if len(recommended) > 1 and behavior != "any":
        wrong.append(f"{at}/suggestions: more than one recommended")
    return wrong


def _source(source: Any, at: str) -> Breaches:
    if not isinstance(source, dict):
        return []
    wrong = _texts(source, at, optional=("url", "icon"))
    wrong += [
        f"{at}/{name}: not an absolute URL" for name in ("url", "icon") if name in source and not _url(source[name])
    ]
    if "topic" in source:
        topic = source["topic"]
        wrong += (
            _texts(topic, f"{at}/topic", "code", "system", optional=("display",))
            if isinstance(topic, dict)
            else [f"{at}/topic: not a Coding"]
        )
    return wrong


def _suggestion(suggestion: JSON, at: str) -> Breaches:
    wrong = _texts(suggestion, at, "label", optional=("uuid",))
    if "isRecommended" in suggestion and type(suggestion["isRecommended"]) is not bool:
        wrong.append(f"{at}/isRecommended: not a boolean")
    return wrong


def _link(link: JSON, at: str) -> Breaches:
    wrong = _texts(link, at, "label", "url", "type", optional=("appContext",))
    if not _url(link.get("url")):
        wrong.append(f"{at}/url: not an absolute URL")
    if link.get("type") not in ("absolute", "smart"):
        wrong.append(f"{at}/type: not in the set")
    if link.get("type") == "absolute" and "appContext" in link:
        wrong.append(f"{at}/appContext: on an absolute link")
    if "autolaunchable" in link and type(link["autolaunchable"]) is not bool:
        wrong.append(f"{at}/autolaunchable: not a boolean")
    return wrong


def _empties(value: Any, at: str) -> Breaches:
    """null, "", [] and {} are allowed only where the specification says so (Use of JSON)."""
    if value is None or value in ("", [], {}):
        return [] if at in _EMPTY_ALLOWED else [f"{at}: empty"]
    if isinstance(value, dict):
        return [problem for name, member in value.items() for problem in _empties(member, f"{at}/{name}")]
    if isinstance(value, list):
        return [problem for ordinal, member in enumerate(value) for problem in _empties(member, f"{at}/{ordinal}")]
    return []


def _extensions(value: Any, at: str) -> Breaches:
    """The value of an extension is an object whose members are objects, by reverse-domain names."""
    if isinstance(value, list):
        return [problem for ordinal, member in enumerate(value) for problem in _extensions(member, f"{at}/{ordinal}")]
    if not isinstance(value, dict) or "resourceType" in value:
        return []
    wrong: Breaches = []
    if "extension" in value:
        extension = value["extension"]
        if isinstance(extension, dict):
            wrong += [
                f"{at}/extension/{n}: not an object" for n, each in extension.items() if not isinstance(each, dict)
            ]
            wrong += [f"{at}/extension/{n}: not a reverse domain" for n in extension if "." not in n]
        else:
            wrong.append(f"{at}/extension: not an object")
    for name, member in value.items():
        if name != "extension":
            wrong += _extensions(member, f"{at}/{name}")
    return wrong


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _texts(value: Any, at: str, *required: str, optional: tuple[str, ...] = ()) -> Breaches:
    if not isinstance(value, dict):
        return [f"{at}: not an object"]
    wrong = [f"{at}/{name}: required" for name in required if name not in value]
    named = [name for name in (*required, *optional) if name in value]
    return wrong + [
        f"{at}/{name}: not a text" for name in named if not isinstance(value[name], str) or not value[name].strip()
    ]


def _each(holder: Any, name: str, at: str, check: Callable[[JSON, str], Breaches]) -> Breaches:
    if not isinstance(holder, dict) or name not in holder:
        return []
    members = holder[name]
    if not isinstance(members, list):
        return [f"{at}/{name}: not an array"]
    wrong: Breaches = []
    for ordinal, member in enumerate(members):
        where = f"{at}/{name}/{ordinal}"
        wrong += check(member, where) if isinstance(member, dict) else [f"{where}: not an object"]
    return wrong


def _objects(holder: Any, name: str) -> list[JSON]:
    members = holder.get(name) if isinstance(holder, dict) else None
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _url(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
