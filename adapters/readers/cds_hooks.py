"""The body of a CDS Hooks request: what its prefetch brings is part of the record, what its context drafts is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adapters.readers import fhir
from models import strict
from models.errors import Unreadable
from models.nouns import Part, Statement

NAME = "cds-hooks"
VERSION = "1"
REQUEST = "application/cds-hooks+json"
MEDIA_TYPES = (REQUEST,)


def read(part: Part) -> list[Statement]:
    """The statements of a whole request body, as it was landed."""
    return read_request(strict.loads(part.body, what="the request"))


def read_request(body: Mapping[str, Any]) -> list[Statement]:
    """One assertion for each resource in `prefetch` (CDS Hooks 2.0, Providing FHIR Resources).

    A key with null has no data, an OperationOutcome is a failed fetch: neither states anything. Draft orders and other
    resources in `context` are never statements. The same resource under two keys is stated once. Entries must carry an
    id: they answer a read or a search of a FHIR server, which always has one, and without it a second version could not
    be told from a second finding. Absolute references below `fhirServer` are the sender's own.

    Raises: Unreadable, with the JSON pointer.
    """
    if not isinstance(body, dict):
        raise Unreadable("a request is not an object", where="/")
    prefetch = body.get("prefetch")
    if prefetch is None:
        return []
    if not isinstance(prefetch, dict):
        raise Unreadable("prefetch is not an object", where="/prefetch")
    base = body.get("fhirServer")
    stated: dict[tuple[str, str], Statement] = {}
    again: list[Statement] = []
    for key, value in prefetch.items():
        for resource, pointer in _resources(value, f"/prefetch/{_escaped(key)}"):
            statement = fhir.read_resource(resource, pointer, base if isinstance(base, str) else None)
            first = stated.setdefault((statement.resource_type, statement.local_id), statement)
            if first is not statement and first.body != statement.body:
                again.append(statement)
    return [*stated.values(), *again]


def _resources(value: Any, pointer: str) -> Iterator[tuple[Any, str]]:
    if value is None:
        return
    kind = value.get("resourceType") if isinstance(value, dict) else None
    if kind == "Bundle":
        for entry, at in fhir.entries(value, pointer):
            resource = entry.get("resource")
            if resource is None or (isinstance(resource, dict) and resource.get("resourceType") == "OperationOutcome"):
                continue
            yield resource, f"{at}/resource"
    elif kind != "OperationOutcome":
        yield value, pointer


def _escaped(key: str) -> str:
    """A name as RFC 6901 writes it in a pointer."""
    return key.replace("~", "~0").replace("/", "~1")
