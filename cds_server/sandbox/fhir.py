"""The sandbox's FHIR R4 server: reads and searches over the fixtures, for whoever brings a token that may.

A search without a scope for its type is refused (403), not answered with nothing: an app must be able to tell "none"
from "not visible" (SMART App Launch 2.2, Scopes).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cds_server import __version__, wire
from cds_server.sandbox.grants import Grants
from cds_server.sandbox.records import Records
from cds_server.sandbox.rendering import FORM_TYPE, MAX_FORM
from cds_server.sandbox.scopes import Access
from cds_server.sandbox.search import PARAMETERS, Pairs, ordered, read_query
from models.errors import CdsError, NotAllowed, NotFound, Unauthenticated, Unreadable

PAGE, MOST = 50, 200
"""Entries of a page where `_count` says nothing, and at most."""
_RESULT = frozenset({"_count", "_offset", "_sort", "_summary", "_total", "_format", "_pretty"})
STARTED = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
_STRICT = "handling=strict"


class Fhir:
    def __init__(self, own_url: str, records: Records, grants: Grants) -> None:
        self.base = f"{own_url}/fhir"
        self._records = records
        self._grants = grants

    def routes(self) -> list[Route]:
        return [
            Route("/fhir/metadata", self.metadata),
            Route("/fhir/{kind}", self.search),
            Route("/fhir/{kind}/_search", self.search, methods=["POST"]),
            Route("/fhir/{kind}/{id}", self.read),
        ]

    async def metadata(self, _: Request) -> Response:
        return _resource(capability_statement(self.base))

    async def read(self, request: Request) -> Response:
        access, kind = self._access(request), _kind(request)
        if not access.allows(kind, "r"):
            raise NotAllowed("no scope of this token allows to read this type")
        found = self._records.read(kind, request.path_params["id"])
        if found is None or not access.sees(found, "r"):
            raise NotFound("there is no such resource that this token may see")
        return _resource(found)

    async def search(self, request: Request) -> Response:
        access, kind = self._access(request), _kind(request)
        if not access.allows(kind, "s"):
            raise NotAllowed("no scope of this token allows to search this type")
        raw = request.scope["query_string"]
        if request.method == "POST":
            raw += b"&" + await _form(request)
        pairs = parse_qsl(raw.decode("ascii", "replace"), max_num_fields=100)
        bundle = self.found(kind, pairs, access, strict=_STRICT in request.headers.get("prefer", ""))
        return _resource(bundle)

    def found(self, kind: str, pairs: Pairs, access: Access | None, *, strict: bool = False) -> dict[str, Any]:
        """A searchset of what `access` may see; None: of everything. Errors: Unreadable."""
        result = {name: value for name, value in pairs if name in _RESULT}
        asked = [(name, value) for name, value in pairs if name not in _RESULT]
        tests, unknown = read_query(kind, asked)
        matches = [
            each
            for each in self._records.all(kind)
            if all(test.meets(each) for test in tests) and (access is None or access.sees(each, "s"))
        ]
        matches, unsorted = ordered(kind, matches, result.get("_sort", ""))
        unknown += unsorted
        if unknown and strict:
            raise Unreadable("a search parameter that this server does not know")
        count, offset = _number(result, "_count", PAGE), _number(result, "_offset", 0)
        count = 0 if result.get("_summary") == "count" else min(count, MOST)
        used = [(name, value) for name, value in asked if name.partition(":")[0] not in unknown]
        used += [(name, result[name]) for name in ("_sort", "_summary") if name in result]
        entries: list[dict[str, Any]] = [
            {"fullUrl": f"{self.base}/{kind}/{each['id']}", "resource": each, "search": {"mode": "match"}}
            for each in matches[offset : offset + count]
        ]
        if unknown:
            entries.append({"resource": _aside(sorted(set(unknown))), "search": {"mode": "outcome"}})
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": len(matches)}
        bundle["link"] = self._links(kind, used, count, offset, len(matches))
        return bundle | ({"entry": entries} if entries else {})

    def _links(self, kind: str, used: Pairs, count: int, offset: int, total: int) -> list[dict[str, str]]:
        def link(relation: str, at: int) -> dict[str, str]:
            query = urlencode([*used, ("_count", count), *([("_offset", at)] if at else [])], safe="|,:/")
            return {"relation": relation, "url": f"{self.base}/{kind}?{query}"}

        links = [link("self", offset)]
        if count and offset + count < total:
            links.append(link("next", offset + count))
        if count and offset:
            links.append(link("previous", max(0, offset - count)))
        return links

    def _access(self, request: Request) -> Access:
        """What the request's token may see. Errors: Unauthenticated."""
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        token = self._grants.token(presented.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise Unauthenticated(cause="no token, or one that is over")
        context = token.grant.context
        return Access(token.scopes, context.patient, context.user.resource)


def _kind(request: Request) -> str:
    kind = str(request.path_params["kind"])
    if kind not in PARAMETERS:
        raise NotFound("this server has no resources of this type")
    return kind


def _number(result: dict[str, str], name: str, default: int) -> int:
    text = result.get(name, str(default))
    if not text.isdecimal() or len(text) > 9:
        raise Unreadable("not a whole number", where=name)
    return int(text)


async def _form(request: Request) -> bytes:
    try:
        return await wire.read_body(request, MAX_FORM, FORM_TYPE)
    except CdsError as error:
        if error.what == "the body is empty":
            return b""
        raise


def _resource(resource: Any) -> Response:
    return wire.json_response(resource, media_type="application/fhir+json")


def _aside(names: list[str]) -> dict[str, Any]:
    """R4, 3.1.1.3: what was not understood is told, without repeating it."""
    count = "one search parameter" if len(names) == 1 else f"{len(names)} search parameters"
    issue = {"severity": "warning", "code": "not-supported", "diagnostics": f"{count} left aside: not supported here"}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def capability_statement(base: str) -> dict[str, Any]:
    """R4 CapabilityStatement of what stands in `search.PARAMETERS`."""
    system = "http://terminology.hl7.org/CodeSystem/restful-security-service"
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": STARTED,
        "kind": "instance",
        "software": {"name": "cds sandbox", "version": __version__},
        "implementation": {"description": "Invented patients for trying out; never real data", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "security": {"service": [{"coding": [{"system": system, "code": "SMART-on-FHIR"}]}]},
                "resource": [
                    {
                        "type": kind,
                        "interaction": [{"code": "read"}, {"code": "search-type"}],
                        "searchParam": [{"name": name, "type": each.kind} for name, each in parameters.items()],
                    }
                    for kind, parameters in PARAMETERS.items()
                ],
            }
        ],
    }
