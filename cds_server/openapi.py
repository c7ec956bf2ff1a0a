"""The server, described: an OpenAPI 3.1 document of the doors that machines use.

Each service has a path of its own, with the context of its hook and the keys of its prefetch, so that a client can be
generated and a request can be checked before it is sent. What the document cannot say (a prefetch must be of the
context's patient) is told in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cds_server import __version__, keys, wire
from cds_server.hooks.feedback import MAX_COMMENT, MAX_ITEMS, MAX_TEXT
from cds_server.hooks.published import MAX_ID, HookContext
from cds_server.hooks.routes import INFERENCES, LEDGER_HEADER
from cds_server.hooks.service import ServiceSpec
from cds_server.questions.described import questions
from cds_server.settings import Settings

PATH = "/openapi.json"

_ID = {"type": "string", "pattern": rf"^[A-Za-z0-9.-]{{1,{MAX_ID}}}$"}
_UUID = {
    "type": "string",
    "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
}
_TEXT = {"type": "string", "minLength": 1}
_FILLED = {"type": "string", "pattern": r"^[^\x00-\x1f]*[^\x00-\x20][^\x00-\x1f]*$"}
_SHORT = {"type": "string", "pattern": r"^[ -~]*[!-~][ -~]*$", "maxLength": MAX_TEXT}
_URL = {"type": "string", "format": "uri"}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Sequence[str], properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    told = {"required": list(required)} if required else {}
    return {"type": "object", **told, "properties": dict(properties), **more}


def _array(items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **more}


# ---- context: the fields of the hooks --------------------------------------------------------------------------------


def _reference(*types: str) -> dict[str, Any]:
    named = f"(?:{'|'.join(types)})" if types else "[A-Z][A-Za-z]{1,63}"
    return {"type": "string", "pattern": rf"^{named}/[A-Za-z0-9.-]{{1,{MAX_ID}}}$"}


def _resource(*types: str) -> dict[str, Any]:
    return _object(["resourceType"], {"resourceType": {"enum": list(types)}})


_ORDERED = _resource("MedicationRequest", "MedicationOrder")

_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "userId": _reference("Practitioner", "PractitionerRole", "Patient", "RelatedPerson"),
    "patientId": _ID,
    "encounterId": _ID,
    "draftOrders": _ref("Bundle"),
    "selections": _array(_reference()),
    "appointments": _ref("Bundle"),
    "conditions": _ref("Bundle"),
    "medications": _ref("Bundle"),
    "medication": _ORDERED,
    "allergyIntolerance": _resource("AllergyIntolerance"),
    "dispatchedOrders": _array(_reference()),
    "performer": _reference(),
    "fulfillmentTasks": _array(_resource("Task")),
}
"""A context field by its name in the CDS Hooks library. A field that is not here is described as any JSON."""

_USERS: Mapping[str, tuple[str, ...]] = {
    "patient-view": ("Practitioner", "PractitionerRole", "Patient", "RelatedPerson"),
    "appointment-book": ("Practitioner", "PractitionerRole", "Patient", "RelatedPerson"),
    "allergyintolerance-create": ("Practitioner",),
}
"""Who may use a hook; Practitioner or PractitionerRole where it is not listed."""


def _context(hook: str, shape: HookContext) -> dict[str, Any]:
    """Earlier names of a field (order-dispatch 1.0) are taken, too, and not described."""
    named = {each.name: _FIELDS.get(each.name, {}) for each in shape.fields}
    if "userId" in named and "." not in hook and hook != "fancy-structure":
        named["userId"] = _reference(*_USERS.get(hook, ("Practitioner", "PractitionerRole")))
    required = [each.name for each in shape.fields if each.required and not each.also]
    return _object(required, named, minProperties=1)


def _call_body(specs: Sequence[ServiceSpec]) -> dict[str, Any]:
    """What a service takes; one shape a hook where it answers several."""
    shapes = [
        _object(
            ["hook", "hookInstance", "context"],
            {
                "hook": {"const": spec.hook},
                "hookInstance": _UUID,
                "context": _context(spec.hook, spec.hook_context),
                "prefetch": _object(
                    (),
                    {key: _ref("Prefetched") for key in spec.prefetch},
                    additionalProperties=_ref("Prefetched"),
                    description="Of the patient in the context: data of anybody else refuse the whole call. Absent: "
                    "not fetched; null: known to have none; OperationOutcome: the client could not fetch it.",
                ),
                "fhirServer": {**_URL, "pattern": r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,4})?(/[A-Za-z0-9._~/-]*)?$"},
                "fhirAuthorization": _ref("FhirAuthorization"),
                "extension": {"type": "object"},
            },
            dependentRequired={"fhirAuthorization": ["fhirServer"]},
        )
        for spec in specs
    ]
    return shapes[0] if len(shapes) == 1 else {"oneOf": shapes}


# ---- schemas ---------------------------------------------------------------------------------------------------------


def _schemas() -> dict[str, Any]:
    coding = _object(["system", "code"], {"system": _TEXT, "code": _TEXT, "display": _TEXT})
    return {
        "OperationOutcome": _object(
            ["resourceType", "issue"],
            {
                "resourceType": {"const": "OperationOutcome"},
                "issue": _array(
                    _object(
                        ["severity", "code"],
                        {"severity": {"const": "error"}, "code": _TEXT, "diagnostics": {"type": "string"}},
                    ),
                    minItems=1,
                ),
            },
        ),
        "Bundle": _object(
            ["resourceType"],
            {
                "resourceType": {"const": "Bundle"},
                "entry": _array(_object(["resource"], {"resource": _ref("Resource")})),
            },
        ),
        "Resource": _object(["resourceType"], {"resourceType": {"type": "string"}}),
        "Prefetched": {"anyOf": [_ref("Resource"), {"type": "null"}]},
        "FhirAuthorization": _object(
            ["access_token", "token_type", "expires_in", "scope", "subject"],
            {
                "access_token": {"type": "string", "pattern": r"^[!#-\[\]-~]{8,}$"},
                "token_type": {"const": "Bearer"},
                "expires_in": {"type": "integer", "minimum": 0},
                "scope": _FILLED,
                "subject": _FILLED,
                "patient": _ID,
            },
            description="Used for this call only; never stored, never logged.",
        ),
        "Coding": coding,
        "Service": _object(
            ["hook", "description", "id"],
            {
                **dict.fromkeys(("hook", "title", "description", "id", "version", "usageRequirements"), _TEXT),
                "prefetch": {"type": "object", "additionalProperties": _TEXT},
            },
        ),
        "Action": _object(
            ["type", "description"],
            {
                "type": {"enum": ["create", "update", "delete"]},
                "description": _TEXT,
                "resource": _ref("Resource"),
                "resourceId": _reference(),
            },
        ),
        "Card": _card(),
        "Answer": _object(
            ["cards"],
            {
                "cards": _array(_ref("Card")),
                "systemActions": _array(_ref("Action"), minItems=1),
                "extension": _object((), {INFERENCES: _object(["items"], {"items": _array(_ref("Inference"))})}),
            },
        ),
        "Inference": _object(
            ["service", "id", "seq", "leaf"],
            {
                "service": _TEXT,
                "id": _UUID,
                "seq": {"type": "integer", "minimum": 1},
                "leaf": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            },
            description="What a card rests on: its id, its entry in the ledger, and the entry's RFC 6962 leaf hash.",
        ),
        "Feedback": _feedback(),
        "PublicKey": _object(
            ["kty", "kid", "alg", "use", "key_ops"],
            {
                "kty": {"enum": ["RSA", "EC"]},
                "alg": {"enum": list(keys.ALGORITHMS)},
                "use": {"const": "sig"},
                "key_ops": {"const": ["verify"]},
                **dict.fromkeys(("kid", "n", "e", "crv", "x", "y"), _TEXT),
            },
            additionalProperties=False,
        ),
    }


def _card() -> dict[str, Any]:
    suggestion = _object(
        ["label", "uuid"],
        {
            "label": _TEXT,
            "uuid": _UUID,
            "isRecommended": {"const": True},
            "actions": _array(_ref("Action"), minItems=1),
        },
    )
    link = _object(
        ["label", "url", "type"],
        {
            "label": _TEXT,
            "url": _URL,
            "type": {"enum": ["absolute", "smart"]},
            "appContext": _TEXT,
            "autolaunchable": {"type": "boolean"},
        },
    )
    source = _object(["label", "topic"], {"label": _TEXT, "url": _URL, "icon": _URL, "topic": _ref("Coding")})
    return _object(
        ["uuid", "summary", "indicator", "source"],
        {
            "uuid": _UUID,
            "summary": {**_TEXT, "maxLength": 139},
            "detail": {**_TEXT, "description": "GitHub Flavored Markdown; text from the record is escaped."},
            "indicator": {"enum": ["info", "warning", "critical"]},
            "source": source,
            "suggestions": _array(suggestion, minItems=1),
            "selectionBehavior": {"enum": ["at-most-one", "any"]},
            "overrideReasons": _array(_ref("Coding"), minItems=1),
            "links": _array(link, minItems=1),
        },
    )


def _feedback() -> dict[str, Any]:
    reason = _object(["code", "system"], dict.fromkeys(("code", "system", "display"), _SHORT))
    override = _object(
        (),
        {"reason": reason, "userComment": {**_SHORT, "maxLength": MAX_COMMENT}},
        anyOf=[{"required": ["reason"]}, {"required": ["userComment"]}],
    )
    both = {
        "card": _SHORT,
        "outcomeTimestamp": {"type": "string", "format": "date-time", "pattern": r"^(19|20)\d\d-\d\d-\d\d[Tt]"},
    }
    accepted = _object(
        ["card", "outcome", "outcomeTimestamp", "acceptedSuggestions"],
        {
            **both,
            "outcome": {"const": "accepted"},
            "acceptedSuggestions": _array(_object(["id"], {"id": _SHORT})),
            "overrideReason": override,
        },
    )
    overridden = _object(
        ["card", "outcome", "outcomeTimestamp"],
        {**both, "outcome": {"const": "overridden"}, "overrideReason": override},
    )
    item = {"oneOf": [accepted, overridden]}
    return _object(["feedback"], {"feedback": _array(item, minItems=1, maxItems=MAX_ITEMS)})


# ---- doors -----------------------------------------------------------------------------------------------------------

_REFUSALS = {
    400: "The request breaks the contract, or its data cannot be used.",
    401: "Who calls is not known. Alike for every cause.",
    403: "This caller may not.",
    404: "There is nothing here.",
    408: "The body did not come in time.",
    412: "Data that the service needs could not be had.",
    413: "The body is too large.",
    415: "Another media type or coding than JSON in UTF-8.",
    500: "The model cannot be used.",
    503: "The record cannot be written, the deadline passed, or there is too much to do: try again later.",
}
_OF_A_BODY = (400, 408, 413, 415)


def _answers(told: str, schema: Mapping[str, Any] | None, refusals: Iterable[int], **more: Any) -> dict[str, Any]:
    content = {"content": {wire.JSON_TYPE: {"schema": dict(schema)}}} if schema is not None else {}
    refused = {
        str(status): {
            "description": _REFUSALS[status],
            "content": {wire.OUTCOME_TYPE: {"schema": _ref("OperationOutcome")}},
        }
        for status in sorted(set(refusals))
    }
    return {"200": {"description": told, **content, **more}, **refused}


def _body(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {wire.JSON_TYPE: {"schema": dict(schema)}}}


def document(specs: Sequence[ServiceSpec], *, public_url: str | None = None, signed: bool = True) -> dict[str, Any]:
    """The description of a server with these services; `signed`: calls carry the EHR's JWT."""
    by_id: dict[str, list[ServiceSpec]] = {}
    for spec in specs:
        by_id.setdefault(spec.id, []).append(spec)
    trust: list[Any] = [{"ehr": []}] if signed else []
    paths: dict[str, Any] = {
        "/cds-services": {
            "get": {
                "operationId": "discovery",
                "summary": "The CDS services (CDS Hooks 2.0.1, Discovery)",
                "security": trust,
                "responses": _answers(
                    "The services.", _object(["services"], {"services": _array(_ref("Service"))}), (401, 503)
                ),
            }
        }
    }
    for service, shapes in by_id.items():
        paths[f"/cds-services/{service}"] = {"post": _call(service, shapes, trust)}
        paths[f"/cds-services/{service}/feedback"] = {"post": _feedback_door(service, trust)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clinical decision-support integration server",
            "version": __version__,
            "description": "CDS Hooks 2.0.1 and the operator's doors. Every error is a FHIR OperationOutcome that "
            "echoes nothing of what came in.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        **({"servers": [{"url": public_url}]} if public_url else {}),
        "paths": {**paths, **_operators()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "ehr": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Signed by the EHR for this one URL (CDS Hooks 2.0.1, Trusting CDS Clients).",
                }
            },
        },
    }


def _call(service: str, shapes: Sequence[ServiceSpec], trust: list[Any]) -> dict[str, Any]:
    refusals = {400, 401, 403, 412, 500, 503, *_OF_A_BODY}
    return {
        "operationId": f"call-{service}",
        "summary": f"{shapes[0].title} ({', '.join(spec.hook for spec in shapes)})",
        "description": shapes[0].description,
        "security": trust,
        "requestBody": _body(_call_body(shapes)),
        "responses": _answers("The cards; none: no guidance.", _ref("Answer"), refusals),
    }


def _feedback_door(service: str, trust: list[Any]) -> dict[str, Any]:
    header = {"schema": {"type": "string"}, "description": "Ledger entries of the items, in their order."}
    return {
        "operationId": f"feedback-{service}",
        "summary": "What clinicians did with the cards; all items or none are kept",
        "security": trust,
        "requestBody": _body(_ref("Feedback")),
        "responses": _answers("Kept.", None, {401, 503, *_OF_A_BODY}, headers={LEDGER_HEADER: header}),
    }


def _operators() -> dict[str, Any]:
    def door(name: str, summary: str, responses: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return {"get": {"operationId": name, "summary": summary, **more, "responses": responses}}

    state = _object(["status"], {"status": _TEXT})
    unready = {"description": "Not ready, and why.", "content": {wire.JSON_TYPE: {"schema": state}}}
    text = {"content": {"text/plain; version=0.0.4": {"schema": {"type": "string"}}}}
    seq = {"name": "seq", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0, "maximum": 2**53}}
    proof = {
        "leaf": _TEXT,
        "chain": _TEXT,
        "entry": {"type": "object"},
        "checkpoint": _TEXT,
        "inclusion": _array(_TEXT),
    }
    entry = _object(["seq", "leaf", "chain", "entry"], proof)
    key_set = "The set (RFC 7517).", _object(["keys"], {"keys": _array(_ref("PublicKey"))})
    name = {
        "name": "registration",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": keys.NAME.pattern},
    }
    return {
        keys.PATH: door("keys", "Our public keys", _answers(*key_set, (503,))),
        keys.PATH_OF_ONE: door(
            "keys-of", "Our public keys for one registration with an authorization server",
            _answers(*key_set, (404, 503)), parameters=[name],
        ),
        "/healthz": door("alive", "Whether the process answers", _answers("It does.", state, ())),
        "/readyz": door("ready", "Whether it can serve", {**_answers("It can.", state, ()), "503": unready}),
        "/metrics": door(
            "metrics", "Prometheus text; loopback, or the operators' token", _answers("Counts.", None, (401,), **text)
        ),
        "/ledger/checkpoint": door(
            "checkpoint", "The signed head of the log; loopback, or the operators' token",
            _answers("A note.", None, (401, 404), **text),
        ),
        "/ledger/proof/{seq}": door(
            "proof", "One ledger entry and its way to the signed head; loopback, or the operators' token",
            _answers("It.", entry, (401, 404)), parameters=[seq],
        ),
        **questions(door, _answers),
        PATH: door("description", "This document", _answers("It.", {"type": "object"}, ())),
    }  # fmt: skip


def router(specs: Sequence[ServiceSpec], settings: Settings) -> APIRouter:
    """The door to the document, written once."""
    text = wire.encode(document(specs, public_url=settings.public_url, signed=settings.trust == "jwt"))

    async def described(_: Request) -> Response:
        return Response(text, media_type=wire.JSON_TYPE)

    api = APIRouter(redirect_slashes=False)
    api.add_route(PATH, described, methods=["GET"])
    return api
