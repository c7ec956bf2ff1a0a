"""Whose data a case may show, and who that is: the case's own record, and those joined with it that its EHR may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from cds_server.reading import read_part
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models.errors import CdsError, NotFound
from models.features import calendar, completed_years
from models.nouns import Part
from smart_app.banners import Banner, Identifier
from smart_app.desk import Case
from smart_app.texts import t

SSN = "http://hl7.org/fhir/sid/us-ssn"
MOST = 3
"""Identifiers on a banner."""
_PATIENTS = (
    "SELECT r.landing_id, r.part, r.pointer, r.test FROM resource r "
    "LEFT JOIN resource_closing c ON c.resource_id = r.id "
    "WHERE r.record_id = ? AND r.type = 'Patient' AND c.id IS NULL ORDER BY r.id DESC"
)


class Whose:
    """Implements `smart_app.banners.Banners` over the store."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def record(self, ref: str) -> RecordRow:
        """Errors: NotFound."""
        record = self._store.reads.record_by_ref(ref)
        if record is None:
            raise NotFound("the patient record of this case is not there")
        return record

    def visible(self, record: RecordRow) -> tuple[RecordRow, ...]:
        """The record and those joined with it, of namespaces that its EHR may see: the same as for a hook call."""
        ids = self._store.reads.person(record.id)
        ehr = self._settings.ehr(record.namespace)
        return tuple(
            each
            for each in self._store.reads.records(ids)
            if each.namespace == record.namespace or each.namespace in ehr.sees
        )

    async def banner(self, case: Case) -> Banner:
        return self.banner_of(self.record(case.record))

    def banner_of(self, record: RecordRow) -> Banner:
        """From the newest Patient resource of this very record; an empty one where it has none that can be read."""
        for landing_id, part, pointer, test in self._store.reads.query(_PATIENTS, (record.id,)):
            patient = self._patient(landing_id, part, pointer)
            if patient is not None:
                return banner(patient, datetime.now(UTC).date(), test=bool(test))
        return Banner()

    def _patient(self, landing_id: int, ordinal: int, pointer: str) -> Mapping[str, Any] | None:
        """The resource as its part states it."""
        landing = self._store.reads.landing(landing_id)
        if landing is None:
            return None
        try:
            body = self._store.part(landing, ordinal)
        except CdsError:  # erased, or a blob is gone: the page says that nothing is known
            return None
        part = Part(landing.ref, ordinal, landing.namespace, landing.media_type, landing.received_at, body)
        for read in read_part(part).reads:
            if read.statement.resource_type == "Patient" and read.statement.pointer == pointer:
                return read.statement.body
        return None


def banner(patient: Mapping[str, Any], today: date, *, test: bool = False) -> Banner:
    """What a FHIR R4 Patient says of who it is; whatever is not of the right type is left out."""
    born, died = _text(patient.get("birthDate")), _text(patient.get("deceasedDateTime"))
    dead = died is not None or patient.get("deceasedBoolean") is True
    return Banner(
        name=_name(patient),
        born=born,
        age=_age(born, died or (None if dead else today.isoformat())),
        died=died or (t("frame.died_when_unknown") if dead else None),
        sex=_text(patient.get("gender")),
        identifiers=_identifiers(patient),
        test=test,
    )


def _name(patient: Mapping[str, Any]) -> str | None:
    names = [each for each in _objects(patient.get("name")) if each.get("use") not in ("old", "maiden", "nickname")]
    if not names:
        return None
    uses = ("official", "usual")
    name = min(names, key=lambda each: uses.index(each["use"]) if each.get("use") in uses else len(uses))
    given = [each for each in name.get("given", ()) if isinstance(each, str)] if "given" in name else []
    words = [*given, _text(name.get("family")) or ""]
    return " ".join(word for word in words if word) or _text(name.get("text"))


def _identifiers(patient: Mapping[str, Any]) -> tuple[Identifier, ...]:
    """Record numbers first; a social security number only where there is nothing else."""
    found = []
    for each in _objects(patient.get("identifier")):
        value = _text(each.get("value"))
        if value is None or each.get("use") == "old":
            continue
        kind = each.get("type")
        coding = next(iter(_objects(kind.get("coding"))), {}) if isinstance(kind, dict) else {}
        system = _text(each.get("system")) or ""
        number = coding.get("code") == "MR" or "mrn" in system.lower()
        told = _text(kind.get("text")) if isinstance(kind, dict) else None
        told = t("frame.mrn") if number else told or _text(coding.get("display")) or _short(system)
        found.append((system == SSN, not number, Identifier(told, value)))
    found.sort(key=lambda each: each[:2])
    shown = [each[2] for each in found if not each[0]] or [each[2] for each in found]
    return tuple(shown[:MOST])


def _short(system: str) -> str:
    last = system.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return last[:24] or t("frame.identifier")


def _age(born: str | None, at: str | None) -> str | None:
    """Completed years, from the dates as exact as they are; months below two years."""
    birth, day = calendar(born), calendar(at)
    if birth is None or day is None or day.ordinal < birth.ordinal:
        return None
    years = completed_years(birth, day)
    if years >= 2 or birth.partial:
        return t("frame.age_years", years=years)
    return t("frame.age_months", months=int((day.ordinal - birth.ordinal) / 30.44))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _objects(value: object) -> Sequence[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
