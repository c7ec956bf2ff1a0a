"""What came with a call: which of our templates are answered and how, what is missing, and whose it is.

CDS Hooks 2.0.1, Providing FHIR Resources to a CDS Service, Prefetch Template, Prefetch query restrictions. A key that
is absent was not satisfied; null means that there is known to be no data; an OperationOutcome means that the client
tried and failed, so asking again is no use.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote

from cds_server.hooks.context import HOOKS, HookRequest
from models.errors import DataUnavailable, PeerFailed, WrongPatient
from models.nouns import JSON, Subject

FhirRead = Callable[[str], Awaitable[JSON]]
"""A port: a relative FHIR URL to its resource or Bundle, with the token of this call. Errors: PeerFailed."""


class SubjectOf(Protocol):
    """A port: whose a resource claims to be; None for a type that is about no patient (`adapters.readers.subjects`)."""

    def __call__(self, resource: JSON, /, *, base: str | None = None) -> Subject | None:
        """`base`: the sender's own FHIR base URL, below which an absolute reference is as good as a relative one."""


USER_TOKENS = {
    "userPractitionerId": "Practitioner/",
    "userPractitionerRoleId": "PractitionerRole/",
    "userPatientId": "Patient/",
    "userRelatedPersonId": "RelatedPerson/",
}


class Answered(StrEnum):
    DATA = "data"
    NONE = "none"
    """null: known to have no data."""
    FAILED = "failed"
    """An OperationOutcome: the client could not fetch it."""
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Item:
    """What one prefetch key of the service holds."""

    key: str
    answered: Answered
    resource: JSON | None = field(default=None, repr=False)
    partial: bool = False
    """A Bundle that names a next page: what it holds is true, but not all."""
    fetched: bool = False
    """Read by us from the FHIR server, not sent by the client."""


@dataclass(frozen=True, slots=True)
class Prefetch:
    items: Mapping[str, Item]
    unasked: tuple[str, ...] = ()
    """Keys that the service has no template for: checked for the patient like the others, used for nothing."""

    def missing(self, required: Sequence[str]) -> tuple[str, ...]:
        """Required keys that hold no answer. A search that found nothing is an answer; a read that did is none."""
        return tuple(key for key in required if self.items[key].answered is not Answered.DATA)

    @property
    def partial(self) -> tuple[str, ...]:
        return tuple(key for key, item in self.items.items() if item.partial)


def read(templates: Mapping[str, str], sent: JSON | None) -> Prefetch:
    """The client's prefetch against our templates, key by key."""
    sent = sent or {}
    items = {key: _item(key, templates[key], sent) for key in templates}
    return Prefetch(items, tuple(key for key in sent if key not in templates))


def _item(key: str, template: str, sent: JSON) -> Item:
    if key not in sent:
        return Item(key, Answered.ABSENT)
    resource = sent[key]
    if resource is None:
        is_search = "?" in template
        return Item(key, Answered.DATA if is_search else Answered.NONE)
    if resource.get("resourceType") == "OperationOutcome":
        return Item(key, Answered.FAILED, resource)
    return Item(key, Answered.DATA, resource, partial=_has_next(resource))


def _has_next(resource: JSON) -> bool:
    if "link" not in resource or resource.get("resourceType") != "Bundle":
        return False
    links = resource["link"]
    return isinstance(links, list) and any(isinstance(link, dict) and link.get("relation") == "next" for link in links)


async def complete(
    templates: Mapping[str, str], required: Sequence[str], request: HookRequest, fhir_read: FhirRead | None = None
) -> Prefetch:
    """The data of a call: what was sent, and what was absent read from the FHIR server where we may.

    1. What the client sent stands. What it tried and failed to fetch is not asked for again (2.0.1: "to prevent an
       unneeded follow-up query").
    2. An absent key is read with `fhir_read`; a reading that fails leaves it absent.
    3. A required key that is still without data: DataUnavailable (412), naming the keys.
    """
    prefetch = read(templates, request.prefetch)
    if fhir_read is not None:
        items = dict(prefetch.items)
        for key, item in prefetch.items.items():
            if item.answered is Answered.ABSENT:
                items[key] = await _fetch(key, templates[key], request, fhir_read)
        prefetch = Prefetch(items, prefetch.unasked)
    missing = prefetch.missing(required)
    if missing:
        raise DataUnavailable("data that this service needs did not come", where="prefetch: " + ", ".join(missing))
    return prefetch


async def _fetch(key: str, template: str, request: HookRequest, fhir_read: FhirRead) -> Item:
    url = resolve(template, request)
    if url is None:
        return Item(key, Answered.ABSENT)
    try:
        resource = await fhir_read(url)
    except PeerFailed:
        return Item(key, Answered.ABSENT)
    return Item(key, Answered.DATA, resource, partial=_has_next(resource), fetched=True)


# ---- whose it is -----------------------------------------------------------------------------------------------------


def check_patient(request: HookRequest, subject_of: SubjectOf, data: JSON | None = None) -> tuple[str, ...]:
    """Refuse a call whose data belong to another patient than its context names.

    `data`: key -> resource or null (the request's own prefetch by default). Returns the JSON pointers of resources that
    are about a patient but do not say whom by a plain reference (a logical reference, a group, none): whether they may
    be used is for identity to say, never for us to guess.

    Errors: WrongPatient, naming the JSON pointer only.
    """
    undecided: list[str] = []
    sent = (request.prefetch if data is None else data) or {}
    base, patient_id = request.fhir_server, request.patient_id
    for pointer, resource in resources(sent, "/prefetch"):
        subject = subject_of(resource, base=base)
        if subject is None:
            continue
        if subject.local_id is None:
            undecided.append(pointer)
        elif subject.local_id != patient_id:
            raise WrongPatient("a resource belongs to another patient than the context names", where=pointer)
    return tuple(undecided)


def resources(holder: JSON, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource in an object of resources and Bundles, with its JSON pointer (RFC 6901)."""
    for key, value in holder.items():
        if not isinstance(value, dict):
            continue
        pointer = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
        kind = value.get("resourceType")
        if kind == "Bundle":
            entries = value.get("entry")
            for ordinal, entry in enumerate(entries if isinstance(entries, list) else ()):
                resource = entry.get("resource") if isinstance(entry, dict) else None
                if not isinstance(resource, dict):
                    continue
                kind = resource.get("resourceType")
                if isinstance(kind, str) and kind != "Bundle":
                    yield f"{pointer}/entry/{ordinal}/resource", resource
                else:
                    yield from resources({"resource": resource}, f"{pointer}/entry/{ordinal}")
        elif isinstance(kind, str):
            yield pointer, value
        else:
            yield from resources(value, pointer)


# ---- templates -------------------------------------------------------------------------------------------------------

_PLACE = re.compile(r"\{\{(.*?)\}\}")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9-]*(?::in)?|_count|_sort|_id|_lastUpdated")
_FORBIDDEN_PREFIX = re.compile(r"(?:ne|sa|eb|ap)\d")


def lint(template: str, hook: str) -> list[str]:
    """What is not legal in a prefetch template of CDS Hooks 2.0; empty: nothing.

    Tokens are root-level primitive fields of the hook's context, or one of the four user tokens; the query stays in the
    recommended subset (instance read, type search, token equality or `:in`, dates with eq/lt/gt/ge/le, _count, _sort).
    """
    fields = {f"context.{each.name}" for each in HOOKS.get(hook, ()) if each.token}
    wrong = [f"{{{{{name}}}}} is not a prefetch token of {hook}" for name in _PLACE.findall(template)
             if name not in fields and name not in USER_TOKENS]  # fmt: skip
    plain = _PLACE.sub("x", template)
    path, question, query = plain.partition("?")
    if "{" in plain or "}" in plain:
        wrong.append("a brace stands outside a token")
    if not re.fullmatch(r"[A-Z][A-Za-z]+" if question else r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]+", path):
        wrong.append("it is neither an instance read nor a type search")
    for parameter in query.split("&") if question else ():
        name, _, value = parameter.partition("=")
        if not _PARAMETER.fullmatch(name):
            wrong.append(f"search parameter {name} is outside the recommended subset")
        if not value or _FORBIDDEN_PREFIX.match(value):
            wrong.append(f"the value of {name} is outside the recommended subset")
    return wrong


def resolve(template: str, request: HookRequest) -> str | None:
    """The relative URL for this call, every value percent-encoded; None when a token has no value in this call."""
    values: dict[str, str] = {}
    for name in set(_PLACE.findall(template)):
        value = _token(name, request)
        if value is None:
            return None
        values[name] = quote(value, safe="")
    return _PLACE.sub(lambda place: values[place.group(1)], template)


def _token(name: str, request: HookRequest) -> str | None:
    if name in USER_TOKENS:
        user = request.user_id or ""
        kind = USER_TOKENS[name]
        return user.removeprefix(kind) if user.startswith(kind) else None
    value = request.context.get(name.removeprefix("context."))
    return value if isinstance(value, str) else None
