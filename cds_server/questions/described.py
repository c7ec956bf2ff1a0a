"""The questions in the server's own description (OpenAPI 3.1). What an answer holds: docs/questions.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cds_server.questions.proofs import MOST

_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
_UUID = {
    "type": "string",
    "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
}
_LANDING = {"type": "string", "pattern": "^[0-9a-f]{8,32}$"}
_MOMENT = {"type": "string", "format": "date-time"}
_PROOF = {
    "type": "object",
    "required": ["body", "leaf", "inclusion"],
    "properties": {
        "body": {**_TEXT, "description": "The entry, base64."},
        "leaf": {**_TEXT, "description": "RFC 6962 leaf hash of the body, hex."},
        "inclusion": {"type": ["array", "null"], "items": _TEXT, "description": "Audit path, base64."},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["question", "checkpoint", "proofs"],
    "properties": {
        "question": {"type": "object"},
        "checkpoint": {"type": ["string", "null"], "description": "The signed head that the paths lead to."},
        "proofs": {"type": "object", "additionalProperties": _PROOF},
    },
}

Door = Callable[..., dict[str, Any]]


def questions(door: Door, answers: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The paths; `door` and `answers` as `openapi` makes them."""
    between = [_query("from", _MOMENT, "Inclusive."), _query("to", _MOMENT, "Inclusive.")]
    paged = [
        _query("limit", {"type": "integer", "minimum": 1, "maximum": MOST}, "Items of a page."),
        _query("after", {"type": "integer", "minimum": 0, "maximum": 2**53}, "`next` of the page before."),
    ]
    values = _query("values", {"type": "string", "enum": ["true", "false"]}, "With values: a look, on record.")
    part = {"type": "integer", "minimum": 0, "maximum": 10**9 - 1}
    asked: Mapping[str, tuple[str, str, list[Any]]] = {
        "card/{named}": (
            "card",
            "What made a card, who saw it, what they did",
            [_path("named", _UUID, "Of the card, or the inference."), values],
        ),
        "model/{model}": (
            "model",
            "Everything that a model version did",
            [_path("model", _TEXT, "NAME@VERSION"), *between, *paged],
        ),
        "fact/{landing}/{part}": (
            "fact",
            "Every card that rests on a fact",
            [
                _path("landing", _LANDING, "Enough of its reference to tell it from others."),
                _path("part", part, "Of the landing."),
                _query("pointer", {"type": "string"}, "Inside the part."),
                *paged,
            ],
        ),
        "corrected": ("corrected", "Every card whose facts were corrected since", [*between, *paged]),
    }
    return {
        f"/ledger/questions/{path}": door(
            f"question-{name}", summary, answers("It.", _ANSWER, (400, 401, 403, 404)), parameters=parameters
        )
        for path, (name, summary, parameters) in asked.items()
    }


def _path(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _query(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}
