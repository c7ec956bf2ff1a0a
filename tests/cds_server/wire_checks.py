"""What a CDS Hooks response must be, told independently of the code that makes it.

Written from the CDS Hooks 2.0.1 tables and from what Inferno's tests .05 (required fields) and .06 (optional fields) of
the CRD server suite look at. Works on any server's answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

EMPTY_ALLOWED = {"/cards"}


def check_response(body: Any) -> list[str]:
    """Every breach in a 200 answer of a CDS service, as `pointer: what`; empty: none."""
    if not isinstance(body, dict):
        return [": not an object"]
    wrong = _empties(body, "")
    cards = body.get("cards")
    if not isinstance(cards, list):
        return [*wrong, "/cards: not an array"]
    for ordinal, card in enumerate(cards):
        wrong += check_card(card, f"/cards/{ordinal}")
    if "systemActions" in body:
        wrong += _each(body, "systemActions", "", _check_action)
    wrong += _extensions(body, "")
    uuids = [card.get("uuid") for card in cards if isinstance(card, dict) and "uuid" in card]
    uuids += [s.get("uuid") for c in cards if isinstance(c, dict) for s in c.get("suggestions", []) if "uuid" in s]
    if len(uuids) != len(set(uuids)):
        wrong.append("/cards: a uuid occurs twice")
    return wrong


def check_card(card: Any, at: str = "") -> list[str]:
    if not isinstance(card, dict):
        return [f"{at}: not an object"]
    wrong = _texts(card, at, required=("summary", "indicator"), optional=("uuid", "detail", "selectionBehavior"))
    summary = card.get("summary")
    if isinstance(summary, str) and len(summary.encode("utf-16-le")) // 2 >= 140:
        wrong.append(f"{at}/summary: 140 characters or more")
    if card.get("indicator") not in ("info", "warning", "critical"):
        wrong.append(f"{at}/indicator: not in the set")
    wrong += _check_source(card.get("source"), f"{at}/source")
    wrong += _each(card, "suggestions", at, _check_suggestion)
    wrong += _each(card, "links", at, _check_link)
    wrong += _each(card, "overrideReasons", at, lambda c, a: _check_coding(c, a, display=True))
    behavior = card.get("selectionBehavior")
    if "suggestions" in card and behavior not in ("at-most-one", "any"):
        wrong.append(f"{at}/selectionBehavior: missing or not in the set")
    recommended = [s for s in card.get("suggestions", []) if isinstance(s, dict) and s.get("isRecommended")]
    if len(recommended) > 1 and behavior != "any":
        wrong.append(f"{at}/suggestions: more than one recommended")
    return wrong


def _check_source(source: Any, at: str) -> list[str]:
    if not isinstance(source, dict):
        return [f"{at}: missing"]
    wrong = _texts(source, at, required=("label",), optional=("url", "icon"))
    wrong += [
        f"{at}/{name}: not an absolute URL" for name in ("url", "icon") if name in source and not _url(source[name])
    ]
    return wrong + _check_coding(source.get("topic"), f"{at}/topic")


def _check_suggestion(suggestion: Any, at: str) -> list[str]:
    wrong = _texts(suggestion, at, required=("label",), optional=("uuid",))
    if "isRecommended" in suggestion and type(suggestion["isRecommended"]) is not bool:
        wrong.append(f"{at}/isRecommended: not a boolean")
    return wrong + _each(suggestion, "actions", at, _check_action)


def _check_action(action: Any, at: str) -> list[str]:
    wrong = _texts(action, at, required=("type", "description"), optional=("resourceId",))
    kind = action.get("type")
    if kind in ("create", "update"):
        resource = action.get("resource")
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            wrong.append(f"{at}/resource: not a FHIR resource")
    elif kind == "delete":
        if not re.fullmatch(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]+", str(action.get("resourceId"))):
            wrong.append(f"{at}/resourceId: not Type/id")
    else:
        wrong.append(f"{at}/type: not in the set")
    return wrong


def _check_link(link: Any, at: str) -> list[str]:
    wrong = _texts(link, at, required=("label", "url", "type"), optional=("appContext",))
    if not _url(link.get("url")):
        wrong.append(f"{at}/url: not an absolute URL")
    if link.get("type") not in ("absolute", "smart"):
        wrong.append(f"{at}/type: not in the set")
    if link.get("type") == "absolute" and "appContext" in link:
        wrong.append(f"{at}/appContext: on an absolute link")
    return wrong


def _check_coding(coding: Any, at: str, display: bool = False) -> list[str]:
    if not isinstance(coding, dict):
        return [f"{at}: missing"]
    required = ("code", "system", "display") if display else ("code", "system")
    return _texts(coding, at, required=required, optional=("display",))


def _texts(value: Any, at: str, required: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at}: not an object"]
    wrong = [f"{at}/{name}: required" for name in required if name not in value]
    named = [name for name in (*required, *optional) if name in value]
    return wrong + [
        f"{at}/{name}: not a text" for name in named if not isinstance(value[name], str) or not value[name].strip()
    ]


def _each(holder: Any, name: str, at: str, check: Callable[[Any, str], list[str]]) -> list[str]:
    if not isinstance(holder, dict) or name not in holder:
        return []
    members = holder[name]
    if not isinstance(members, list):
        return [f"{at}/{name}: not an array"]
    wrong: list[str] = []
    for ordinal, member in enumerate(members):
        where = f"{at}/{name}/{ordinal}"
        wrong += check(member, where) if isinstance(member, dict) else [f"{where}: not an object"]
    return wrong


def _empties(value: Any, at: str) -> list[str]:
    """null, "", [] and {} are allowed only where the specification says so (Use of JSON)."""
    if value is None or value in ("", [], {}):
        return [] if at in EMPTY_ALLOWED else [f"{at}: empty"]
    if isinstance(value, dict):
        return [problem for name, member in value.items() for problem in _empties(member, f"{at}/{name}")]
    if isinstance(value, list):
        return [problem for ordinal, member in enumerate(value) for problem in _empties(member, f"{at}/{ordinal}")]
    return []


def _extensions(value: Any, at: str) -> list[str]:
    """The value of an extension is an object whose members are objects, by reverse-domain names."""
    wrong: list[str] = []
    if isinstance(value, list):
        return [problem for ordinal, member in enumerate(value) for problem in _extensions(member, f"{at}/{ordinal}")]
    if not isinstance(value, dict) or "resourceType" in value:
        return wrong
    if "extension" in value:
        extension = value["extension"]
        if not isinstance(extension, dict):
            wrong.append(f"{at}/extension: not an object")
        else:
            wrong += [f"{at}/extension/{n}: not an object" for n, v in extension.items() if not isinstance(v, dict)]
            wrong += [f"{at}/extension/{n}: not a reverse domain" for n in extension if "." not in n]
    for name, member in value.items():
        if name != "extension":
            wrong += _extensions(member, f"{at}/{name}")
    return wrong


def _url(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and bool(parts.netloc)
