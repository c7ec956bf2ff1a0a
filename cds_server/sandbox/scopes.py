"""SMART scopes, both spellings: read them, narrow them to what is here, and say what a token may see.

SMART App Launch 2.2, Scopes and Launch Context: `(patient|user|system)/(Type|*).cruds?param=value`, letters in this
order, each optional; version 1's read is `rs`, write `cud`, `*` all. The union of what was granted counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from cds_server.sandbox.records import patient_of
from cds_server.sandbox.search import PARAMETERS, read_query
from models.errors import CdsError
from models.nouns import JSON

PLAIN = (
    "openid",
    "fhirUser",
    "profile",
    "launch",
    "launch/patient",
    "launch/encounter",
    "online_access",
    "offline_access",
)
"""What a client may have besides resources."""
_FORM = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]+)\.(\*|read|write|(?=[cruds])c?r?u?d?s?)(?:\?(.+))?")
_VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}
_NO_PATIENT = frozenset({"Practitioner", "Organization"})
"""In nobody's compartment: readable beside a patient's data."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope for resources."""

    context: str
    """patient, user, system."""
    kind: str
    """A resource type, or `*`."""
    letters: str
    """Of `cruds`."""
    query: tuple[tuple[str, str], ...] = ()
    """Only what meets this search."""


def parse(text: str) -> Scope | None:
    """None: it is not a scope for resources."""
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    context, kind, letters, query = form.groups()
    return Scope(context, kind, _VERSION_1.get(letters, letters), tuple(parse_qsl(query or "")))


def granted(asked: str, known: Iterable[str]) -> list[str]:
    """What of it is granted: what this client may have, and of resources no more than reading and searching.

    A server may grant less than was asked (2.2, Scopes): nothing can be written here, and no app gets `system/`.
    """
    given: list[str] = []
    for each in asked.split(" "):
        scope = parse(each)
        narrowed: str | None = each if scope is None and each in PLAIN and each in known else None
        if scope is not None and scope.context != "system" and scope.kind in ("*", *PARAMETERS):
            narrowed = _narrowed(each, scope)
        if narrowed is not None and narrowed not in given:
            given.append(narrowed)
    return given


def _narrowed(text: str, scope: Scope) -> str | None:
    head, _, query = text.partition("?")
    subject, _, spelled = head.rpartition(".")
    letters = "".join(letter for letter in scope.letters if letter in "rs")
    if not letters:
        return None
    if scope.query:
        try:
            if scope.kind == "*" or read_query(scope.kind, scope.query)[1]:
                return None
        except CdsError:
            return None
    spelled = "read" if spelled in _VERSION_1 else letters
    return f"{subject}.{spelled}" + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True)
class Access:
    """What a token may see."""

    scopes: tuple[str, ...]
    patient: str | None
    fhir_user: str
    """`Practitioner/id`."""

    def allows(self, kind: str, letter: str) -> bool:
        """Whether any scope is about this type at all. False: say so (403), do not answer with nothing."""
        if kind == "Practitioner" and letter == "r" and "fhirUser" in self.scopes:
            return True
        return any(each.kind in ("*", kind) for each in self._of(letter))

    def sees(self, resource: JSON, letter: str) -> bool:
        kind = resource["resourceType"]
        if letter == "r" and "fhirUser" in self.scopes and f"{kind}/{resource['id']}" == self.fhir_user:
            return True
        return any(self._covers(scope, resource) for scope in self._of(letter))

    def _of(self, letter: str) -> list[Scope]:
        return [scope for scope in map(parse, self.scopes) if scope is not None and letter in scope.letters]

    def _covers(self, scope: Scope, resource: JSON) -> bool:
        kind = resource["resourceType"]
        if scope.kind not in ("*", kind):
            return False
        if scope.context == "patient" and kind not in _NO_PATIENT and patient_of(resource) != self.patient:
            return False
        return not scope.query or all(test.meets(resource) for test in read_query(kind, scope.query)[0])
