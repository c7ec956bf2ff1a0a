"""An inference as a message for one destination: whom it is about there, what the score says, or why it is not sent.

A patient is named only by identifiers of the destination's own namespace, and never found by name. Scores of test
patients go to test systems, and only they do. A score that rests on restricted data goes nowhere, nor does one of a
patient who has opted out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from adapters.hl7v2.composed import (
    MOST_ID,
    Assigner,
    Code,
    Identifier,
    Result,
    Status,
    Value,
    Whom,
    compose,
)
from cds_server.access.allowed import Allowed
from cds_server.access.log import TREAT
from cds_server.destinations import Destination, destinations
from cds_server.ehrs import RESTRICTED
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.reading import Rules, read_part
from cds_server.registry import Registry
from cds_server.reproduce import Recorded, cards_of
from cds_server.settings import Settings
from cds_server.store.entropy import new_ref, new_uuid
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models.errors import CdsError
from models.nouns import JSON, Part

_UNITS: Mapping[str, Mapping[str, str]] = {
    "cgm-summary": {"summary": "%"},
    "cha2ds2-va": {"points": "{score}", "items": "{score}"},
    "khorana": {"points": "{score}", "items": "{score}", "risk": "1"},
    "kfre": {"risk": "1"},
    "meld3": {"points": "{score}", "items": "{score}", "raw": "{score}"},
    "news2": {"points": "{score}", "items": "{score}", "highest": "{score}"},
    "npi": {"points": "{score}", "items": "{score}"},
    "predict-breast": {"survival": "%", "breast_mortality": "%"},
}
"""Model -> output (or what stands before its last `_`) -> UCUM. An output that is not here is sent without a unit."""
_TYPES = frozenset({"MR", "PI"})
"""Table 0203: identifiers of a patient that a receiver files results by, where the configuration names none."""
_SEX = {"female": "F", "male": "M", "other": "O", "unknown": "U"}
"""administrative-gender -> table 0001."""
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Composed:
    message: bytes
    lane: str
    """Reference of the record that it is about: what is said of one patient stays in order."""
    binary: bool = False
    """A DICOM object, not text."""


@dataclass(frozen=True, slots=True)
class Held:
    """Why a result cannot go to a destination that wants it: for a person to look at."""

    why: str
    record_id: int


class Composer:
    def __init__(self, store: Store, settings: Settings, registry: Registry) -> None:
        self._store, self._settings, self._registry = store, settings, registry
        self._allowed = Allowed(store, settings)
        self.destinations = destinations(settings)
        self._rules: Mapping[str, Rules] | None = None
        self._specs: Mapping[str, ServiceSpec] = {spec.id: spec for spec in registry.specs}

    def compose(
        self,
        destination: Destination,
        recorded: Recorded,
        *,
        number: str | None = None,
        status: Status = Status.FINAL,
        earlier: Sequence[bytes] = (),
    ) -> Composed | Held | None:
        """The message; None where the destination is not meant for this patient, or for nothing that the score says;
        or, being an archive, where the score rests on no study.

        `number`: OBR-3, that of the first result of a chain of corrections; the inference's own where there is none.
        `earlier`: what was made of that chain before.
        """
        (record_id,) = self._store.reads.query("SELECT record_id FROM inference WHERE id = ?", (recorded.id,))[0]
        person = self._store.reads.records(self._store.reads.person(record_id))
        patients = self._patients([each.id for each in person])
        test = self._is_test(recorded, patients)
        if test == destination.production:
            return None
        labels = {label for fact in recorded.snapshot.facts for label in fact.labels}
        if not RESTRICTED.isdisjoint(labels.union(*(each.labels for each in patients))):
            return Held("it rests on restricted data (meta.security)", record_id)
        if self._allowed.opted_out([each.id for each in person], TREAT):
            return Held("the patient has opted out (Consent)", record_id)
        if destination.fhir:
            from cds_server.guidance import Guidance
            from cds_server.outgoing_guidance import guidance_of

            guidance = Guidance(self._store, self._registry, self._settings, relative=True)
            return guidance_of(guidance, destination, recorded, person, record_id, number, status, earlier)
        named = None if destination.archive else self._whom(destination, person, patients, record_id)
        if isinstance(named, Held):
            return named
        values = tuple(self._values(destination, recorded))
        if not values:
            return None
        result = Result(
            number=number or recorded.ref,
            service=Code(recorded.service, spec.title if (spec := self._specs.get(recorded.service)) else ""),
            method=Code(recorded.model, self._title(recorded)),
            observed=datetime.fromisoformat(recorded.snapshot.clinical_time),
            issued=datetime.fromisoformat(recorded.at),
            values=values,
            sentences=tuple(self._sentences(recorded)),
            status=status,
        )
        if named is None:
            from cds_server.outgoing_reports import report_of  # what writes DICOM is loaded where it is needed

            return report_of(self._store, destination, recorded, person, result, earlier)
        record, whom = named
        control_id = new_ref()[:MOST_ID].upper()
        return Composed(compose(destination.envelope, control_id, datetime.now(UTC), whom, result), record.ref)

    # -- whom ----------------------------------------------------------------------------------------------------------

    def _patients(self, record_ids: Sequence[int]) -> list[_Patient]:
        """The open Patient version of each record that has one."""
        return [
            _Patient(row[0], row[1], row[2], row[3], bool(row[4]), frozenset(row[5].split()))
            for record_id in record_ids
            for row in self._store.reads.query(
                "SELECT r.record_id, r.landing_id, r.part, r.pointer, r.test, r.labels FROM resource r "
                "LEFT JOIN resource_closing c ON c.resource_id = r.id "
                "WHERE r.record_id = ? AND r.type = 'Patient' AND c.id IS NULL ORDER BY r.id",
                (record_id,),
            )
        ]

    def _is_test(self, recorded: Recorded, patients: Sequence[_Patient]) -> bool:
        return (
            any(each.test for each in patients)
            or any(fact.test for fact in recorded.snapshot.facts)
            or self._settings.ehr(recorded.call["ehr"]).test
        )

    def _whom(
        self, destination: Destination, person: Sequence[RecordRow], patients: Sequence[_Patient], own: int
    ) -> tuple[RecordRow, Whom] | Held:
        there = [record for record in person if record.namespace == destination.namespace]
        bodies = {each.record_id: body for each in patients if (body := self._body(each)) is not None}
        alive = [record for record in there if bodies.get(record.id, {}).get("active") is not False]
        known = [(record, found) for record in alive if (found := self._known(destination, record, bodies))]
        mine = [each for each in known if each[0].id == own]
        if len(known) == 1 or mine:
            return (mine or known)[0]
        if not there:
            return Held(f"the patient is not known in the namespace {destination.namespace}", own)
        if not known:
            return Held(f"no identifier of the patient has an assigner that {destination.name} knows", own)
        return Held(f"the patient has several records in the namespace {destination.namespace}", own)

    def _known(self, destination: Destination, record: RecordRow, bodies: Mapping[int, JSON]) -> Whom | None:
        patient = bodies.get(record.id, {})
        identifiers = list(_identifiers(destination, patient))
        if destination.local_assigner is not None:
            identifiers.append(Identifier(self._store.reads.local_id(record), destination.local_assigner))
        if not identifiers:
            return None
        name = _name(patient)
        return Whom(
            tuple(dict.fromkeys(identifiers)),
            family=str(name.get("family") or name.get("text") or ""),
            given=tuple(map(str, name.get("given") or ())),
            birth_date=str(patient.get("birthDate") or "")[:10],
            sex=_SEX.get(str(patient.get("gender")), ""),
        )

    def _body(self, at: _Patient) -> JSON | None:
        """The resource as its reader takes it from its part; None where that cannot be had any more."""
        landing = self._store.reads.landing(at.landing_id)
        if landing is None:
            return None
        if self._rules is None:
            from cds_server.source_rules import rules_of

            self._rules = rules_of(self._settings)
        try:
            body = self._store.part(landing, at.part)
        except CdsError:
            return None
        part = Part(landing.ref, at.part, landing.namespace, landing.media_type, landing.received_at, body)
        read = read_part(part, self._rules.get(landing.source))
        stated = [
            each.statement.body
            for each in read.reads
            if each.statement.pointer == at.pointer and each.statement.resource_type == "Patient"
        ]
        return next((each for each in stated if each is not None), None)

    # -- what ----------------------------------------------------------------------------------------------------------

    def _values(self, destination: Destination, recorded: Recorded) -> Iterator[Value]:
        score, model = recorded.plain()["score"], recorded.model.partition("@")[0]
        if (why := score.get("abstained")) is not None:
            yield Value(Code(f"{model}.abstained", "Why there is no score"), text=str(why))
            return
        manifest = self._manifest(recorded)
        wanted = destination.outputs
        if (probability := score.get("probability")) is not None:
            if not wanted or "probability" in wanted:
                yield Value(Code(f"{model}.probability", "Probability"), number=float(probability), unit="1")
            if (between := score.get("interval")) and (not wanted or "interval" in wanted):
                title = str(score.get("interval_kind") or "Interval")
                yield Value(Code(f"{model}.interval", title), between=(float(between[0]), float(between[1])), unit="1")
        meaning = {
            name: said for part in manifest.get("modalities", ()) for name, said in (part.get("meaning") or {}).items()
        }
        outputs = {name: each if isinstance(each, list) else [each] for name, each in score.get("outputs", {}).items()}
        for name, numbers in sorted(outputs.items(), key=lambda each: (len(each[1]), each[0] != "points", each[0])):
            if not wanted or name in wanted:
                titled = ", ".join(filter(None, (str(manifest.get("title", "")), name.replace("_", " "))))
                yield from _members(f"{model}.{name}", titled, _unit(model, name), numbers, meaning.get(name, ()))

    def _sentences(self, recorded: Recorded) -> Iterator[str]:
        """What the card says first; of a score that nobody asked for, what it would say."""
        shown = [str(each["card"]["summary"]) for each in cards_of(self._store, recorded.id)]
        yield from shown or self._would_say(recorded)

    def _would_say(self, recorded: Recorded) -> list[str]:
        spec, (name, _, version) = self._specs.get(recorded.service), recorded.model.partition("@")
        if spec is None or name != spec.model:
            return []
        guide = CardGuide(recorded.ref, recorded.snapshot.as_of, self._settings.public_url, new_uuid)
        try:
            then = self._registry.scorer_then(name, version, recorded.model_digest)
            return [card.summary for card in spec.cards(then.judge(recorded.snapshot), guide)]
        except CdsError:  # a model that can't be had any more: the numbers are on record, the sentence is not
            return []

    def _title(self, recorded: Recorded) -> str:
        return str(self._manifest(recorded).get("title", ""))

    def _manifest(self, recorded: Recorded) -> JSON:
        name, _, version = recorded.model.partition("@")
        try:
            return self._registry.version_then(name, version, recorded.model_digest)[0].manifest
        except CdsError:
            return {}


@dataclass(frozen=True, slots=True)
class _Patient:
    record_id: int
    landing_id: int
    part: int
    pointer: str
    test: bool
    labels: frozenset[str]


def _unit(model: str, output: str) -> str:
    units = _UNITS.get(model, {})
    return units.get(output, units.get(output.rpartition("_")[0], ""))


def _members(code: str, title: str, unit: str, numbers: Sequence[float], meaning: Sequence[str]) -> Iterator[Value]:
    """An output: one value, or each of its members, by what it means where the manifest says so, else by its place."""
    for place, each in enumerate(numbers, 1):
        if len(numbers) == 1:
            yield Value(Code(code, title), number=float(each), unit=unit)
        elif len(meaning) == len(numbers):
            said = meaning[place - 1]
            member = _SLUG.sub("-", said.lower()).strip("-")
            yield Value(Code(f"{code}.{member}", f"{title}, {said.replace('_', ' ')}"), number=float(each), unit=unit)
        else:
            yield Value(Code(code, title), number=float(each), unit=unit, sub=str(place))


def _name(patient: JSON) -> JSON:
    """The official name, else the usual one, else the first that is not an old one."""
    names = [each for each in patient.get("name") or () if each.get("use") not in ("old", "maiden")]
    order = {"official": 0, "usual": 1, None: 2}
    return min(names, key=lambda each: order.get(each.get("use"), 3), default={})


def _identifiers(destination: Destination, patient: JSON) -> Iterator[Identifier]:
    for each in patient.get("identifier") or ():
        system, value = each.get("system"), each.get("value")
        if not system or not value or each.get("use") == "old":
            continue
        kinds = [str(coding.get("code") or "") for coding in (each.get("type") or {}).get("coding") or ()]
        kind = next((kind for kind in kinds if kind in _TYPES), kinds[0] if kinds else "")
        if destination.assigners:
            assigner = destination.assigners.get(system)
        else:
            assigner = assigner_of(system, destination.namespace) if kind in _TYPES else None
        if assigner is not None:
            yield Identifier(str(value), assigner, kind)


def assigner_of(system: str, namespace: str) -> Assigner | None:
    """How an identifier's system is named as an assigner (HD), where that needs no guess: an OID, a UUID, or a name
    that a feed of this namespace used itself."""
    if system.startswith("urn:oid:"):
        return Assigner("", system.removeprefix("urn:oid:"), "ISO")
    if system.startswith("urn:uuid:"):
        return Assigner("", system.removeprefix("urn:uuid:"), "UUID")
    own = f"urn:id:{namespace}:"
    return Assigner(unquote(system.removeprefix(own))) if system.startswith(own) and system != own else None
