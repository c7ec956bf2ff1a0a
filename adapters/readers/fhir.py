"""FHIR R4 JSON: one resource, one Bundle, or one entry of a Bundle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from adapters.readers.subjects import ELEMENT
from models import strict
from models.errors import Unreadable
from models.nouns import Part, Statement, Verb

NAME = "fhir"
VERSION = "1"
RESOURCE = "application/fhir+json"
LINE = "application/fhir+ndjson"
ENTRY = "application/vnd.cds.bundle-entry+json"
"""One member of Bundle.entry, byte for byte; or the Bundle around them, with its entries taken out."""
BULK_MANIFEST = "application/vnd.cds.bulk-manifest+json"
"""What a bulk export's server said of its files: kept for whoever asks, no statement about a patient."""
MEDIA_TYPES = (RESOURCE, LINE, ENTRY, BULK_MANIFEST)

DELETED = f"{LINE}; kind=deleted"
"""A line of a deleted file: a Bundle of requests, of which only DELETE counts (Bulk Data 2.0.0, 2.5.4)."""
ORGANIZED = f"{LINE}; kind=organized"
"""A line of a file that is organized by resource, not by type: Parameters head its blocks."""

SUBSET = "; subset"
"""Ends the media type of lines that were asked for with `_elements`: parts of resources, also where no tag says so (R4
search.html, elements: a server SHOULD tag them)."""


def line_of_type(resource_type: str) -> str:
    """The media type of lines that are all of one type, as a manifest says: another is not read, whatever it says."""
    return f"{LINE}; type={resource_type}"


_ASSERT = Verb.ASSERT
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,255}")
"""FHIR allows 64 characters; some vendors' ids are near 200, and refusing them would lose real patients' data."""
_UUID = "urn:uuid:"


def read(part: Part) -> list[Statement]:
    """What one part says. A Bundle's envelope and an OperationOutcome say nothing about the record.

    Raises: Malformed (not JSON), Unreadable (no FHIR resource where one belongs), with the JSON pointer.
    """
    if part.media_type == BULK_MANIFEST:
        return []
    body = strict.loads(part.body, what="the part")
    essence, _, parameter = part.media_type.removesuffix(SUBSET).partition("; ")
    if essence == LINE and parameter:
        return _read_line(body, parameter)
    if part.media_type == ENTRY and isinstance(body, dict) and "resourceType" not in body:
        return read_entry(body, "")
    return read_any(body, "")


def _read_line(body: Any, parameter: str) -> list[Statement]:
    """One line of a file of a bulk export, of which the manifest said what it holds."""
    name, _, value = parameter.partition("=")
    stated = _resource_type(body, "")
    if name == "kind" and value == "organized" and stated == "Parameters":
        return []
    if name == "kind" and value == "deleted":
        if stated != "Bundle":
            raise Unreadable("a line of a deleted file that is no Bundle", where="/resourceType")
        return [statement for entry, at in entries(body, "") if _deletes(entry) for statement in read_entry(entry, at)]
    if name == "type" and stated != value:
        raise Unreadable("a line of another type than its file is said to hold", where="/resourceType")
    return read_any(body, "")


def _deletes(entry: Mapping[str, Any]) -> bool:
    request = entry.get("request")
    return isinstance(request, dict) and request.get("method") == "DELETE"


def read_any(body: Any, pointer: str) -> list[Statement]:
    """A resource, or each entry of a Bundle."""
    if isinstance(body, dict):
        match body.get("resourceType"):
            case "Bundle":
                return [statement for entry, at in entries(body, pointer) for statement in read_entry(entry, at)]
            case "OperationOutcome":
                return []
    return [read_resource(body, pointer)]


def read_resource(body: Any, pointer: str, base: str | None = None) -> Statement:
    """Assert one resource. It needs a type and an id, nothing else: validity is another mark.

    `base`: the sender's own FHIR base URL, where it is stated.
    """
    resource_type = _resource_type(body, pointer)
    local_id = body.get("id")
    if local_id is None:
        raise Unreadable("a resource without an id", where=f"{pointer}/id")
    return Statement(_ASSERT, resource_type, _checked_id(local_id, pointer), pointer, body, base=base)


def entries(bundle: Mapping[str, Any], pointer: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The entries of a Bundle with their pointers."""
    members = bundle.get("entry", [])
    if not isinstance(members, list):
        raise Unreadable("Bundle.entry is not a list", where=f"{pointer}/entry")
    for index, entry in enumerate(members):
        at = f"{pointer}/entry/{index}"
        if not isinstance(entry, dict):
            raise Unreadable("an entry is not an object", where=at)
        yield entry, at


def read_entry(entry: Mapping[str, Any], pointer: str) -> list[Statement]:
    """What one entry of a Bundle says, from the entry alone.

    The method of a transaction, batch or history entry decides: DELETE voids, PUT and POST assert, GET and HEAD say
    nothing. Identity: a PUT is `request.url`, which must agree with the resource; a POST is the UUID of its fullUrl,
    because FHIR ignores the id of a create (R4 http.html, create) and the other entries refer to it by that UUID;
    anything else is the resource's own id, or, where it has none, the UUID. The body that is asserted carries that
    identity as its id, as it does on the server that ran the entry.
    """
    request = entry.get("request")
    if request is not None and not isinstance(request, dict):
        raise Unreadable("a request is not an object", where=f"{pointer}/request")
    method = request.get("method") if request else None
    url = request.get("url") if request else None
    if method == "DELETE":
        resource_type, local_id = _target(url, f"{pointer}/request/url")
        return [Statement(Verb.VOID, resource_type, local_id, pointer)]
    if method in ("GET", "HEAD"):
        return []
    if method not in (None, "PUT", "POST"):
        raise Unreadable("a method that is not read (PATCH, or none of HTTP)", where=f"{pointer}/request/method")
    resource = entry.get("resource")
    if resource is None:
        return []
    at = f"{pointer}/resource"
    resource_type = _resource_type(resource, at)
    if resource_type == "OperationOutcome":
        return []
    own, full = resource.get("id"), _uuid(entry.get("fullUrl"), f"{pointer}/fullUrl")
    local_id = full if full and (method == "POST" or own is None) else own
    if local_id is None:
        raise Unreadable("a resource without an id, in an entry without a UUID", where=f"{at}/id")
    local_id = _checked_id(local_id, at)
    named = method == "PUT" and isinstance(url, str) and "?" not in url
    if named and _target(url, f"{pointer}/request/url") != (resource_type, local_id):
        raise Unreadable("the request names another resource than it carries", where=f"{pointer}/request/url")
    body = resource if own == local_id else {**resource, "id": local_id}
    return [Statement(_ASSERT, resource_type, local_id, at, body)]


def _resource_type(body: Any, pointer: str) -> str:
    if not isinstance(body, dict):
        raise Unreadable("not a resource (an object is expected)", where=pointer or "/")
    resource_type = body.get("resourceType")
    if not isinstance(resource_type, str) or not (resource_type in ELEMENT or _TYPE.fullmatch(resource_type)):
        raise Unreadable("resourceType is missing or is not the name of a type", where=f"{pointer}/resourceType")
    return resource_type


def _checked_id(local_id: Any, pointer: str) -> str:
    if not isinstance(local_id, str) or not _ID.fullmatch(local_id):
        raise Unreadable("an id that FHIR does not allow", where=f"{pointer}/id")
    return local_id


def _target(url: Any, at: str) -> tuple[str, str]:
    """Type and id of `Type/id`, relative or absolute; a conditional URL names no one resource."""
    if not isinstance(url, str) or "?" in url:
        raise Unreadable("a request that names no single resource", where=at)
    path = urlsplit(url).path if "://" in url else url
    segments = path.strip("/").split("/")
    if len(segments) < 2 or not _TYPE.fullmatch(segments[-2]) or not _ID.fullmatch(segments[-1]):
        raise Unreadable("a request that names no single resource", where=at)
    return segments[-2], segments[-1]


def _uuid(full_url: Any, at: str) -> str | None:
    if full_url is None:
        return None
    if not isinstance(full_url, str):
        raise Unreadable("fullUrl is not text", where=at)
    return full_url[len(_UUID) :] if full_url.startswith(_UUID) else None
