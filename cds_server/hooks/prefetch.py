"""What came with a call: which of our templates are answered and how, what is missing, and whose it is.

CDS Hooks 2.0.1, Providing FHIR Resources to a CDS Service, Prefetch Template, Prefetch query restrictions. A key that
is absent was not satisfied; null means that there is known to be no data; an OperationOutcome means that the client
tried and failed, so asking again is no use.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote

from cds_server.hooks.context import HookRequest
from cds_server.hooks.templates import PLACE, USER_TOKENS
from models.errors import CdsError, DataUnavailable, PeerFailed, WrongPatient
from models.nouns import JSON, Subject

Page = tuple[bytes, JSON]
"""A body as the FHIR server sent it, and the same parsed."""


class Reading(Protocol):
    """What a read or search gave (`adapters.fhir_read.Reading`)."""

    @property
    def pages(self) -> Sequence[Page]: ...
    @property
    def whole(self) -> bool: ...
    @property
    def problem(self) -> str | None: ...


FhirRead = Callable[[str], Awaitable[Reading]]
"""A port: a relative FHIR URL, or the next link of a Bundle, to what stands there, with the token of this call.
Errors: PeerFailed, when nothing could be had."""


class SubjectOf(Protocol):
    """A port: whose a resource claims to be; None for a type that is about no patient (`adapters.readers.subjects`)."""

    def __call__(self, resource: JSON, /, *, base: str | None = None) -> Subject | None:
        """`base`: the sender's own FHIR base URL, below which an absolute reference is as good as a relative one."""


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
    fetched: tuple[Page, ...] = field(default=(), repr=False)
    """Read by us from the FHIR server, not sent by the client; pages after the first that the client sent, too."""
    problem: str | None = None
    """Why it is not there, or not all there, in our words."""


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

    @property
    def lacking(self) -> tuple[str, ...]:
        """What a reader of the card must know: what was asked for, and is not there or not all there."""
        return tuple(f"{key} {item.problem}" for key, item in self.items.items() if item.problem)

    def need(self, required: Sequence[str]) -> DataUnavailable | None:
        """412, naming the required keys that hold no data and why each does not (CDS Hooks 2.0.1: @54)."""
        missing = [self.items[key] for key in self.missing(required)]
        if not missing:
            return None
        told = ", ".join(f"{item.key} ({item.problem or _WITHOUT[item.answered]})" for item in missing)
        return DataUnavailable("data that this service needs did not come", where=f"prefetch: {told}")


_WITHOUT = {
    Answered.ABSENT: "not sent, and no access to a FHIR server that this service may ask",
    Answered.NONE: "known to have no data",
    Answered.FAILED: "could not be fetched by the client",
}


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
        return Item(key, Answered.FAILED, resource, problem=_WITHOUT[Answered.FAILED])
    if _next_page(resource) is not None:
        return Item(key, Answered.DATA, resource, partial=True, problem="came in part: its next page was not read")
    return Item(key, Answered.DATA, resource)


def _next_page(resource: JSON) -> str | None:
    """The URL of a Bundle's next page."""
    if "link" not in resource or resource.get("resourceType") != "Bundle":
        return None
    links = resource["link"]
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next":
            return str(link.get("url"))
    return None


async def complete(
    templates: Mapping[str, str], request: HookRequest, fhir_read: FhirRead | None = None, seconds: float = 10.0
) -> Prefetch:
    """The data of a call: what was sent, and what was absent read from the FHIR server where we may.

    1. What the client sent stands. What it tried and failed to fetch is not asked for again (2.0.1: "to prevent an
       unneeded follow-up query").
    2. Absent keys are read with `fhir_read`, and Bundles that the client cut off are followed: all at the same time.
    3. After `seconds`, what has not come is given up: late is told apart from failed.
    """
    prefetch = read(templates, request.prefetch)
    if fhir_read is None:
        return prefetch
    urls = {key: url for key, item in prefetch.items.items() if (url := _wanted(item, templates[key], request))}
    if not urls:
        return prefetch
    tasks = {key: asyncio.ensure_future(fhir_read(url)) for key, url in urls.items()}
    try:
        await asyncio.wait(tasks.values(), timeout=max(0.0, seconds))
    finally:
        late = {key for key, task in tasks.items() if task.cancel()}
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    items = dict(prefetch.items)
    for key, task in tasks.items():
        items[key] = _fetched(items[key], urls[key], None if key in late else task)
    return Prefetch(items, prefetch.unasked)


def _wanted(item: Item, template: str, request: HookRequest) -> str | None:
    """The URL that would tell what the item lacks."""
    if item.answered is Answered.ABSENT:
        return resolve(template, request)
    return _next_page(item.resource) if item.partial and item.resource is not None else None


def _fetched(item: Item, url: str, task: asyncio.Future[Reading] | None) -> Item:
    """What became of one read; None: it did not come in time."""
    if task is None:
        return replace(item, problem="did not come from the FHIR server in time")
    try:
        reading = task.result()
        if item.answered is Answered.ABSENT:
            _check_kind(url, reading.pages[0][1])
    except PeerFailed as error:
        return replace(item, problem=f"did not come: the FHIR server {error.what}")
    except CdsError:
        return replace(item, problem="did not come: it would have been on another server")
    first = item.resource if item.partial else reading.pages[0][1]
    told = None if reading.whole else f"came in part: {reading.problem or 'its next page was not read'}"
    return Item(item.key, Answered.DATA, first, not reading.whole, tuple(reading.pages), told)


def _check_kind(url: str, resource: JSON) -> None:
    """A search answers with a Bundle, a read with a resource of the type that was asked for."""
    if resource.get("resourceType") != ("Bundle" if "?" in url else url.partition("/")[0]):
        raise PeerFailed("answered with another kind of resource")


def bring(request: HookRequest, prefetch: Prefetch) -> bytes | None:
    """What was read for a call, each body as it came, in the form of a request's prefetch; None: nothing was.

    Pages after the first stand under names of their own.
    """
    members: list[bytes] = []
    sent = request.prefetch or {}
    for key, item in prefetch.items.items():
        for ordinal, (body, _) in enumerate(item.fetched, start=2 if key in sent else 1):
            name = key if ordinal == 1 else f"{key} page {ordinal}"
            members.append(json.dumps(name).encode() + b":" + body)
    if not members:
        return None
    base = json.dumps(request.fhir_server).encode()
    return b'{"fhirServer":' + base + b',"prefetch":{' + b",".join(members) + b"}}"


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


def resolve(template: str, request: HookRequest) -> str | None:
    """The relative URL for this call, every value percent-encoded; None when a token has no value in this call."""
    values: dict[str, str] = {}
    for name in set(PLACE.findall(template)):
        value = _token(name, request)
        if value is None:
            return None
        values[name] = quote(value, safe="/" if template.startswith("{{") else "")  # a whole reference, as the path
    return PLACE.sub(lambda place: values[place.group(1)], template)


def _token(name: str, request: HookRequest) -> str | None:
    if name in USER_TOKENS:
        user = request.user_id or ""
        kind = USER_TOKENS[name]
        return user.removeprefix(kind) if user.startswith(kind) else None
    value = request.context.get(name.removeprefix("context."))
    return value if isinstance(value, str) else None
