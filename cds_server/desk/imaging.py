"""The pictures of a case, and the link to the hospital's own viewer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from cds_server.imaging.pictures import Shown, pictures
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models import strict
from models.errors import CdsError

UID, OID = "urn:dicom:uid", "urn:oid:"
_LABELS = (
    "SELECT r.landing_id, r.labels FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
    "WHERE r.record_id = ? AND r.type = 'Media' AND r.labels <> '' AND c.id IS NULL"
)


def pictures_of(store: Store, records: Sequence[RecordRow], withheld: frozenset[str]) -> tuple[list[Shown], int]:
    """The pictures that may be shown, and how many a confidentiality label (`withheld`) keeps back."""
    found = pictures(store, [each.id for each in records])
    kept = {
        row[0]
        for each in records
        for row in store.reads.query(_LABELS, (each.id,))
        if not withheld.isdisjoint(str(row[1]).split())
    }
    shown = [each for each in found if each.landing not in kept]
    return shown, len(found) - len(shown)


def viewer_url(store: Store, settings: Settings, record: RecordRow, shown: Sequence[Shown]) -> str | None:
    """The EHR's `image_viewer`, filled with the study of the last picture; None where a place cannot be filled."""
    app = settings.ehr(record.namespace).app
    template = app.image_viewer if app is not None else None
    if template is None:
        return None
    values = {"patient": store.reads.local_id(record)}
    if shown and "{" in template.replace("{patient}", ""):
        values |= _study(store, shown[-1])
    for name in ("study", "series", "accession", "patient"):
        place = f"{{{name}}}"
        if place not in template:
            continue
        if not values.get(name):
            return None
        template = template.replace(place, quote(values[name], safe=""))
    return template


def _study(store: Store, shown: Shown) -> dict[str, str]:
    """Study, first series and accession number of the ImagingStudy that a picture landed with."""
    landing = store.reads.landing(shown.landing)
    try:
        bundle: Any = strict.loads(store.part(landing, 0)) if landing is not None else {}
    except CdsError:
        return {}
    studies = (each["resource"] for each in bundle.get("entry", ()))
    study: Any = next((each for each in studies if each["resourceType"] == "ImagingStudy"), {})
    series: Any = next(iter(study.get("series", ())), {})
    return {"series": str(series.get("uid", "")), **_identifiers(study.get("identifier", ()))}


def _identifiers(found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for each in found:
        value = str(each.get("value", ""))
        if each.get("system") == UID:
            values["study"] = value.removeprefix(OID)
        elif any(coding.get("code") == "ACSN" for coding in each.get("type", {}).get("coding", ())):
            values["accession"] = value
    return values
