"""One message being read: what every function of the mapping may ask, and the statements so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adapters.hl7v2.events import Event
from adapters.hl7v2.feed import Feed
from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.message import Message, Segment
from adapters.hl7v2.times import Moment, Zones, moment
from models.errors import Unreadable
from models.nouns import Statement, Verb

TEST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
"""On every resource of a message whose MSH-11 is T or D: it never becomes a production fact (subjects.marks_of)."""
CLAIM = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HPAYMT"}
"""On what DFT and BAR state: it was said for payment."""
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
"""On a Patient or Encounter of a message whose business is something else: a whole version outranks it."""
WRONG_PATIENT = {"system": "http://terminology.hl7.org/CodeSystem/v2-0085", "code": "W"}
"""On an Observation that was posted to the wrong patient (OBX-11 W): to be withdrawn at once."""

Resource = dict[str, Any]
_RESULTS = frozenset({"Observation", "DiagnosticReport"})
_SETTLED = {
    **dict.fromkeys(("registered", "partial", "preliminary"), False),
    **dict.fromkeys(("final", "amended", "corrected"), True),
}
"""Status of a result -> whether a preliminary one of a later MSH-7 may not replace it any more (tables 0085, 0123)."""


@dataclass(slots=True)
class Reading:
    """The message, what its source is known by, and what was taken so far."""

    message: Message
    feed: Feed
    event: Event
    zones: Zones
    tags: list[Resource]
    sent: str | None
    """MSH-7 as an instant: the one clock by which a later message outranks an earlier one."""
    statements: list[Statement] = field(default_factory=list)
    targets: list[Resource] = field(default_factory=list)
    """References to what was asserted: the Provenance's."""
    seen: set[tuple[str, str]] = field(default_factory=set)
    times: dict[str, Moment] = field(default_factory=dict)
    """Times of a message are few, and asked for by each of its results."""
    counted: dict[tuple[str, ...], int] = field(default_factory=dict)
    odd: dict[str, None] = field(default_factory=dict)
    """Codes of what was read nevertheless, each once (`adapters.hl7v2.oddities`)."""

    def key(self, *parts: str) -> str:
        """A local id of these parts; with a count behind, where the same parts named something before in this message:
        nothing that was sent may cover up something else."""
        self.counted[parts] = self.counted.get(parts, 0) + 1
        again = (f"{self.counted[parts]}",) if self.counted[parts] > 1 else ()
        return local_id(*parts, *again)

    @property
    def trigger(self) -> str:
        return self.event.trigger

    def date_time(self, text: str, where: str) -> str:
        """FHIR dateTime. Raises: Unreadable."""
        return self._moment(text, where).text

    def date_time_or_none(self, text: str, where: str) -> str | None:
        """FHIR dateTime; None for nothing, and for what is no time."""
        try:
            return self.date_time(text, where) if text else None
        except Unreadable:
            return None

    def instant(self, text: str, where: str) -> str | None:
        """FHIR instant; None without a full time or a zone. Raises: Unreadable."""
        return self._moment(text, where).instant

    def date(self, text: str, where: str) -> str:
        """FHIR date. Raises: Unreadable."""
        return self._moment(text, where).date

    def _moment(self, text: str, where: str) -> Moment:
        found = self.times.get(text)
        if found is None:
            found = self.times[text] = moment(text, where, self.zones)
        return found

    def state(
        self,
        resource: Resource,
        pointer: str,
        *,
        tags: tuple[Resource, ...] = (),
        keeps: tuple[str, ...] = (),
        group: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Resource:
        """Assert a resource that has its type and id; its reference. The last word of a message on an id counts.
        `keeps`, `group`, `notes`: as in `models.nouns.Statement`."""
        key = (resource["resourceType"], resource["id"])
        meta: Resource = resource.pop("meta", {})
        if self.sent:
            meta["lastUpdated"] = self.sent
        if found := [*self.tags, *tags]:
            meta["tag"] = found
        if meta:
            resource["meta"] = meta
        reference = {"reference": f"{key[0]}/{key[1]}"}
        if key not in self.seen:
            self.seen.add(key)
            self.targets.append(reference)
        settled = _SETTLED.get(resource.get("status", "")) if key[0] in _RESULTS else None
        self.statements.append(
            Statement(Verb.ASSERT, *key, pointer, resource, keeps=keeps, group=group, settled=settled, notes=notes)
        )
        return reference

    def say(self, verb: Verb, resource_type: str, one: str, pointer: str, other: str | None = None) -> None:
        """A statement without a resource: void, link, unlink, replace."""
        self.statements.append(Statement(verb, resource_type, one, pointer, other_id=other, at=self.sent))


def named_id(segment: Segment, number: int, component: int = 0, *, within: str = "") -> str | None:
    """The local id that an EI field gives (value, namespace id, else universal id); None where it has no value.

    `within`: the patient, for things whose numbers without an assigner begin anew with each patient.
    """
    repetition = segment.first(number)
    if component:
        value, name, oid = (repetition.text(component, at).strip() for at in (1, 2, 3))
    else:
        value, name, oid = (repetition.text(at).strip() for at in (1, 2, 3))
    if value and within and not (name or oid):
        return local_id("within", within, segment.name, value)
    return local_id(name or oid, value) if value else None
