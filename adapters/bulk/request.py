"""What is asked of a bulk server, and how each version of the standard has it spelt.

Bulk Data Access STU2 and STU3: a GET with a query, where a list is one parameter joined by commas; or, if the server
takes it, a POST of Parameters. STU4 (the ballot of 2026): the POST only, one parameter per value. A patient's id never
stands in a URL, which every proxy writes down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from adapters.bulk.profiles import EhrProfile
from models.canonical import from_plain
from models.errors import Misconfigured

Method = Literal["GET", "POST"]

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,255}")
"""FHIR R4, datatypes, id; longer ones than its 64 characters are seen in the field (as in `readers.subjects`)."""
_ELEMENT = re.compile(r"(?:[A-Z][A-Za-z]{1,63}\.)?[a-z][A-Za-z0-9]{0,63}")
_ASSOCIATED = re.compile(r"_?[A-Za-z][A-Za-z0-9\-]{0,63}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_RESULT_PARAMETER = re.compile(
    r"[?&]_(?:sort|count|include|revinclude|summary|total|elements|contained|containedType|graph)(?:[:=]|$)"
)
"""STU3, _typeFilter: search result parameters SHALL NOT be used in a filter."""
_CODES = "http://hl7.org/fhir/uv/bulkdata/CodeSystem/include-associated-data"
_PORTS = {"https": 443, "http": 80}

PARAMETERS: Mapping[str, str] = {
    "_type": "types",
    "_since": "since",
    "_until": "until",
    "_typeFilter": "type_filters",
    "_elements": "elements",
    "patient": "patients",
    "includeAssociatedData": "associated",
    "organizeOutputBy": "organize_by",
    "allowPartialManifests": "partial_manifests",
}
"""Name on the wire -> field of an ExportRequest."""
_PERMISSION = {"_typeFilter": "type_filter", "_elements": "elements", "_until": "until", "patient": "patient_parameter"}
"""Name on the wire -> switch of a profile that must be on for it."""


class Level(StrEnum):
    SYSTEM = "system"
    PATIENT = "patient"
    GROUP = "group"


class Shape(StrEnum):
    """The versions of the standard that differ on the wire. STU1 is read and asked like STU2."""

    STU2 = "stu2"
    STU3 = "stu3"
    STU4 = "stu4"


@dataclass(frozen=True, slots=True)
class KickOff:
    """The request that starts an export. Neither URL nor headers hold a secret; the body may hold patients' ids."""

    method: Method
    url: str
    headers: Mapping[str, str]
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is wanted, before it is known how the server likes it spelt. Errors: Misconfigured, at birth."""

    level: Level
    group: str | None = None
    types: tuple[str, ...] = ()
    """Empty: everything that the server gives."""
    since: str | None = None
    until: str | None = None
    """Instants with zone (FHIR R4, datatypes, instant)."""
    type_filters: tuple[str, ...] = ()
    """`Type?search`, percent-encoded as in a search where it must be (`%26` for a value's own &)."""
    elements: tuple[str, ...] = ()
    patients: tuple[str, ...] = field(default=(), repr=False)
    """Ids, without `Patient/`."""
    associated: tuple[str, ...] = ()
    """Values of includeAssociatedData: LatestProvenanceResources, RelevantProvenanceResources, _own."""
    organize_by: str | None = None
    partial_manifests: bool = False

    def __post_init__(self) -> None:
        if (self.group is not None) != (self.level is Level.GROUP):
            raise Misconfigured("a bulk export at group level names its group, and no other one does")
        if self.group is not None and not _ID.fullmatch(self.group):
            raise Misconfigured("the group of a bulk export is the id of a FHIR resource, without Group/")
        if self.patients and self.level is Level.SYSTEM:
            raise Misconfigured("a bulk export at system level is not restricted to patients")
        _all(self.types, _TYPE, "types", "the name of a resource type")
        _all(self.patients, _ID, "patients", "the id of a FHIR resource")
        _all(self.elements, _ELEMENT, "elements", "an element at the root of a resource, as Patient.id or id")
        _all(self.associated, _ASSOCIATED, "associated", "a code of includeAssociatedData")
        if self.organize_by is not None and not _TYPE.fullmatch(self.organize_by):
            raise Misconfigured("organize_by of a bulk export is the name of a resource type")
        for place, filtered in enumerate(self.type_filters):
            self._check_filter(filtered, f"type_filters[{place}]")
        for name, text in (("since", self.since), ("until", self.until)):
            if text is not None:
                _moment(text, name)

    def _check_filter(self, text: str, where: str) -> None:
        kind, mark, search = text.partition("?")
        if not _TYPE.fullmatch(kind) or not mark or "=" not in search or not search.isprintable():
            raise Misconfigured("a filter of a bulk export reads Type?parameter=value", where=where)
        if _RESULT_PARAMETER.search("?" + search):
            raise Misconfigured("a filter of a bulk export takes no search result parameter (_sort, ...)", where=where)
        if self.types and kind not in self.types:
            raise Misconfigured("a filter of a bulk export is for a type that is not asked for", where=where)

    # ---- as data -----------------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """JSON-able, sorted by name, without what is not set. It holds patients' ids."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in every.items()}
        return {"level": self.level.value, **{name: listed[name] for name in sorted(listed) if listed[name]}}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ExportRequest:
        """What `plain` gave. Errors: Misconfigured (a member or a type that it would not give)."""
        if not {each.name for each in fields(cls)}.issuperset(plain):
            raise Misconfigured("a bulk export request has a member that this software doesn't know")
        try:
            return from_plain(cls, dict(plain))
        except ValueError:
            raise Misconfigured("this is not a bulk export request: a member is missing or has another type") from None

    def scope(self, base: str) -> str:
        """What a cursor is for, as canonical text: the same for every request whose answers continue each other.

        Server, level, group, types, filters, elements, associated data; whatever their order, and whatever since,
        until and patients are.
        """
        wanted = {
            "server": server_of(base),
            "level": self.level.value,
            "group": self.group,
            "types": sorted(set(self.types)),
            "filters": sorted(set(self.type_filters)),
            "elements": sorted(set(self.elements)),
            "associated": sorted(set(self.associated)),
        }
        return json.dumps(wanted, sort_keys=True, separators=(",", ":"))

    def asked(self) -> tuple[str, ...]:
        """The parameters, by their names on the wire, that this request has."""
        return tuple(name for name, own in PARAMETERS.items() if getattr(self, own))

    def without(self, parameter: str) -> ExportRequest:
        """The same request less one parameter, for a server that refuses it and an operator who allowed it.

        More may come then, never less (`includeAssociatedData` apart). It's another `scope`: the cursor stays with the
        request that was meant. Errors: Misconfigured (the request doesn't have it, so dropping it can't help).
        """
        if parameter not in self.asked():
            raise Misconfigured("a parameter that a bulk export does not have cannot be dropped from it")
        name = PARAMETERS[parameter]
        empty: dict[str, Any] = {each.name: each.default for each in fields(self) if each.name == name}
        return replace(self, **empty)

    # ---- on the wire -------------------------------------------------------------------------------------------------

    def kick_off(self, base: str, profile: EhrProfile, shape: Shape, method: Method) -> KickOff:
        """The request that starts this export at the server below `base`.

        Errors: Misconfigured (a parameter that the profile says the server has not, or that this way can't carry).
        """
        for parameter in self.asked():
            switch = _PERMISSION.get(parameter)
            if switch is not None and not getattr(profile, switch):
                raise Misconfigured(f"this bulk server has no {parameter} (switch {switch})")
        if method == "GET" and self.patients:
            raise Misconfigured("a bulk export restricted to patients goes by POST: no patient's id stands in a URL")
        if method == "GET" and shape is Shape.STU4:
            raise Misconfigured("Bulk Data Access STU4 has no kick-off by GET")
        path = {Level.SYSTEM: "", Level.PATIENT: "Patient/", Level.GROUP: f"Group/{self.group}/"}[self.level]
        url = f"{base.rstrip('/')}/{path}$export"
        prefer = "respond-async, handling=lenient" if profile.handling_lenient else "respond-async"
        headers = {"Accept": "application/fhir+json", "Prefer": prefer}
        if method == "GET":
            # encoded once: what is percent-encoded inside a filter is part of its value
            query = "&".join(
                f"{name}={quote(_text(value), safe='')}" for name, value in self._values(profile, shape, method)
            )
            return KickOff("GET", f"{url}?{query}" if query else url, headers)
        parameters = [
            {"name": name, **_typed(name, value, shape)} for name, value in self._values(profile, shape, method)
        ]
        body: dict[str, Any] = {"resourceType": "Parameters"}
        if parameters:  # FHIR JSON has no empty arrays
            body["parameter"] = parameters
        headers["Content-Type"] = "application/fhir+json"
        return KickOff("POST", url, headers, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())

    def _values(self, profile: EhrProfile, shape: Shape, method: Method) -> Iterator[tuple[str, str | bool]]:
        """The parameters in a fixed order, each as often as it stands on the wire."""
        stu4 = shape is Shape.STU4
        yield from _list("_type", self.types, repeat=stu4 or profile.repeat_types)
        if self.since is not None:
            yield "_since", _wire(_moment(self.since, "since"))
        if self.until is not None:
            yield "_until", _wire(_moment(self.until, "until") + timedelta(microseconds=999))
        comma = "," if profile.filter_commas == "raw" else profile.filter_commas
        filters = tuple(each.replace(",", comma) for each in self.type_filters)
        yield from _list("_typeFilter", filters, repeat=stu4 or profile.repeat_filters)
        yield from _list("_elements", self.elements, repeat=stu4)
        for patient in self.patients:
            yield "patient", f"Patient/{patient}"
        yield from _list("includeAssociatedData", self.associated, repeat=method == "POST")  # a code holds one value
        if self.organize_by is not None:
            yield "organizeOutputBy", self.organize_by
        if self.partial_manifests:
            yield "allowPartialManifests", True


def server_of(base: str) -> str:
    """One spelling of a FHIR base: scheme and host in lower case, no default port, no slash at the end."""
    parts = urlsplit(base)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS.get(scheme)) else f":{parts.port}"
    return f"{scheme}://{host}{port}{parts.path.rstrip('/')}"


def _all(values: tuple[str, ...], form: re.Pattern[str], name: str, wanted: str) -> None:
    for place, value in enumerate(values):
        if not form.fullmatch(value):
            raise Misconfigured(
                f"a bulk export's {name} holds something that is not {wanted}", where=f"{name}[{place}]"
            )


def _moment(text: str, name: str) -> datetime:
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Misconfigured(f"{name} of a bulk export is an instant with zone, as 2026-11-21T10:00:00Z")


def _wire(moment: datetime) -> str:
    """UTC, to the millisecond: servers compare it as text with their own lastUpdated (seen at Medplum), which mostly
    looks so. Cut off, so that `_since` never moves forward."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _list(name: str, values: tuple[str, ...], *, repeat: bool) -> Iterator[tuple[str, str]]:
    if repeat:
        for value in values:
            yield name, value
    elif values:
        yield name, ",".join(values)


def _text(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


def _typed(name: str, value: str | bool, shape: Shape) -> dict[str, Any]:
    """The value by its type in the OperationDefinitions (export, patient-export, group-export)."""
    if isinstance(value, bool):
        return {"valueBoolean": value}
    if name in ("_since", "_until"):
        return {"valueInstant": value}
    if name == "patient":
        return {"valueReference": {"reference": value}}
    if name == "includeAssociatedData":
        if shape is not Shape.STU4:
            return {"valueCode": value}
        # a server's own values start with an underscore and are in no published code system
        return {"valueCoding": {"code": value} if value.startswith("_") else {"system": _CODES, "code": value}}
    return {"valueString": value}
