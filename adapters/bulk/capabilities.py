"""What a server states about exports, and what is concluded from it.

Real CapabilityStatements are sloppy: operations without definitions, definitions of the server's own, versions nowhere.
So everything here is optional, nothing is refused for being odd, and no statement means: ask as most servers understand
(GET, as in STU3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from adapters.bulk.profiles import EhrProfile
from adapters.bulk.request import ExportRequest, Level, Method, Shape
from models.errors import Misconfigured, Unreadable

_DEFINITION = re.compile(r"(?:^|/)(?P<name>(?:patient-|group-)?export)(?:\|(?P<version>[^|]*))?$")
"""Of the guide (uv, and us before it); STU1 hung all three at the root of the server."""
_LEVELS = {"export": Level.SYSTEM, "patient-export": Level.PATIENT, "group-export": Level.GROUP}
_GUIDE = re.compile(
    r"/bulkdata/(?:CapabilityStatement/bulk-data|ImplementationGuide/hl7\.fhir\.uv\.bulkdata)(?:\|(?P<version>[^|]*))?$"
)
_SHAPES = {"1": Shape.STU2, "2": Shape.STU2, "3": Shape.STU3, "4": Shape.STU4}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()/\-]{0,99}")
"""What of a name or a version is kept: it goes into logs."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a CapabilityStatement says about exports. Empty where it says nothing, which is no refusal."""

    shapes: tuple[Shape, ...] = ()
    """Versions of the guide that it names, oldest first."""
    levels: tuple[Level, ...] = ()
    methods: tuple[Method, ...] = ()
    """Ways to kick off that every server of these versions has: GET up to STU3, POST from STU4."""
    software: str | None = None
    """Name and version."""
    fhir_version: str | None = None
    searchable: frozenset[str] = frozenset()
    """Resource types that can be searched, so counted."""

    @property
    def counts(self) -> bool:
        """Whether the server may be asked how much there is (search with _summary=count)."""
        return bool(self.searchable)


def read(statement: Mapping[str, Any]) -> Stated:
    """What a CapabilityStatement (FHIR R4) states about exports. Raises nothing: what is odd is not stated."""
    versions: list[str] = []
    levels: set[Level] = set()
    searchable: set[str] = set()
    for rest in _objects(statement.get("rest")):
        for operation in _objects(rest.get("operation")):
            _operation(operation, Level.SYSTEM, levels, versions)
        for resource in _objects(rest.get("resource")):
            kind = resource.get("type")
            place = {"Patient": Level.PATIENT, "Group": Level.GROUP}.get(kind) if isinstance(kind, str) else None
            if place is not None:
                for operation in _objects(resource.get("operation")):
                    _operation(operation, place, levels, versions)
            if isinstance(kind, str) and any(
                each.get("code") == "search-type" for each in _objects(resource.get("interaction"))
            ):
                searchable.add(kind)
    for name in ("instantiates", "implementationGuide"):
        versions += [found["version"] or "" for text in _texts(statement.get(name)) if (found := _GUIDE.search(text))]
    shapes = {_SHAPES[version[0]] for version in versions if version[:1] in _SHAPES}
    methods: tuple[Method, ...] = ("GET",) if shapes - {Shape.STU4} else ()
    if Shape.STU4 in shapes:
        methods += ("POST",)
    software = statement.get("software")
    named = [_word(software.get(each)) for each in ("name", "version")] if isinstance(software, Mapping) else []
    return Stated(
        shapes=tuple(shape for shape in Shape if shape in shapes),
        levels=tuple(level for level in Level if level in levels),
        methods=methods,
        software=" ".join(each for each in named if each) or None,
        fhir_version=_word(statement.get("fhirVersion")),
        searchable=frozenset(searchable),
    )


def _operation(operation: Mapping[str, Any], place: Level, levels: set[Level], versions: list[str]) -> None:
    """Take an operation in, if it's an export: by its definition, or by its name at the place where it hangs."""
    definition = operation.get("definition")
    if isinstance(definition, Mapping):  # a Reference, as in STU3 of FHIR
        definition = definition.get("reference")
    found = _DEFINITION.search(definition) if isinstance(definition, str) else None
    name = str(operation.get("name")).removeprefix("$").lower()
    if found is None and name not in _LEVELS:
        return
    own = found["name"] if found else name
    levels.add(_LEVELS[own] if place is Level.SYSTEM else place)
    if found and found["version"]:
        versions.append(found["version"])


def choose(stated: Stated, profile: EhrProfile, request: ExportRequest) -> tuple[Shape, Method]:
    """How this request is put to this server. The profile's own word counts more than the server's statement.

    A GET where one is possible, for before STU4 nothing else was required of a server; and STU4, while it is a ballot,
    only where there is no other version, or where a POST is needed, which is an option of the server's in the others.

    Errors: Misconfigured (patients, at a server that takes no POST or none with patients).
    """
    if request.patients and not profile.patient_parameter:
        raise Misconfigured("this bulk server takes no patients (switch patient_parameter)")
    older = [shape for shape in stated.shapes if shape is not Shape.STU4]
    only_stu4 = stated.shapes == (Shape.STU4,)
    if profile.kick_off == "post" or request.patients or (profile.kick_off == "stated" and only_stu4):
        return (Shape.STU4 if Shape.STU4 in stated.shapes else (older or [Shape.STU3])[-1]), "POST"
    return (older or [Shape.STU3])[-1], "GET"


@dataclass(frozen=True, slots=True)
class SmartStated:
    """What .well-known/smart-configuration says that a backend service needs (SMART App Launch 2.2, Conformance)."""

    token_endpoint: str | None = None
    """Absolute."""
    issuer: str | None = None
    algorithms: tuple[str, ...] = ()
    """For client assertions (token_endpoint_auth_signing_alg_values_supported); empty: it does not say."""
    permission_v1: bool = False
    permission_v2: bool = False
    """Syntaxes of scopes; both False: it does not say."""


def smart(configuration: Mapping[str, Any], base: str) -> SmartStated:
    """What a SMART configuration states. Relative endpoints are below the FHIR base (SMART App Launch 2.2, 379).

    Servers under-declare, so nothing is refused for being absent. Errors: Unreadable (an endpoint that is no http URL).
    """
    capabilities = set(_texts(configuration.get("capabilities")))
    endpoint = configuration.get("token_endpoint")
    issuer = configuration.get("issuer")
    algorithms = _texts(configuration.get("token_endpoint_auth_signing_alg_values_supported"))
    return SmartStated(
        token_endpoint=_endpoint(endpoint, base) if isinstance(endpoint, str) and endpoint else None,
        issuer=issuer if isinstance(issuer, str) and issuer else None,
        algorithms=tuple(dict.fromkeys(algorithms)),
        permission_v1="permission-v1" in capabilities,
        permission_v2="permission-v2" in capabilities,
    )


def _endpoint(text: str, base: str) -> str:
    try:
        url = urljoin(base.rstrip("/") + "/", text)
        parts = urlsplit(url)
        fits = parts.scheme in ("https", "http") and bool(parts.hostname) and "@" not in parts.netloc
        fits = fits and not (urlsplit(text).scheme and not urlsplit(text).netloc)  # https:x: no two read it alike
        _ = parts.port
    except ValueError:
        fits, url = False, ""
    if not fits or not text.isascii() or re.search(r"[\s\\<>\"#\x00-\x1f\x7f]", text):
        raise Unreadable("the SMART configuration has an endpoint that is no http URL", where="/token_endpoint")
    return url


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    for each in value if isinstance(value, list) else ():
        if isinstance(each, Mapping):
            yield each


def _texts(value: Any) -> list[str]:
    """The texts in a list; a lone text is a list of one, as sloppy servers have it."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and each]


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
