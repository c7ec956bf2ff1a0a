"""The EHR's records: the fixture patients' FHIR R4 resources, in memory, their clock moved as the chart's is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cds_server.sandbox.clock import clock_of, moved
from models.nouns import JSON

ORGANISATION = "Sandbox Hospital"


class Records:
    """Every resource of the fixtures, by type. Read only: what the app or the CDS server does never changes a chart."""

    def __init__(self, resources: list[dict[str, Any]], clocks: Mapping[str, datetime]) -> None:
        """`clocks`: id of a patient -> what time it was in their fixtures, where these are about the last hours."""
        self._by_type: dict[str, dict[str, dict[str, Any]]] = {}
        for resource in resources:
            self._by_type.setdefault(resource["resourceType"], {})[resource["id"]] = resource
        self._clocks = clocks

    def types(self) -> list[str]:
        return sorted(self._by_type)

    def read(self, kind: str, id_: str) -> dict[str, Any] | None:
        """One resource; None where there is none."""
        found = self._by_type.get(kind, {}).get(id_)
        return None if found is None else self._now(found)

    def all(self, kind: str) -> Iterator[dict[str, Any]]:
        """Each resource of a type, by id."""
        for _, resource in sorted(self._by_type.get(kind, {}).items()):
            yield self._now(resource)

    def of_patient(self, kind: str, patient: str) -> Iterator[dict[str, Any]]:
        return (each for each in self.all(kind) if patient_of(each) == patient)

    def _now(self, resource: dict[str, Any]) -> dict[str, Any]:
        clock = self._clocks.get(patient_of(resource) or "")
        if clock is None:
            return resource
        now: dict[str, Any] = moved(resource, datetime.now(UTC) - clock)
        return now


def patient_of(resource: JSON) -> str | None:
    """Id of the patient in whose compartment a resource stands; None: in nobody's (a practitioner)."""
    if resource["resourceType"] == "Patient":
        return str(resource["id"])
    reference = (resource.get("subject") or resource.get("patient") or {}).get("reference", "")
    kind, _, id_ = str(reference).rpartition("/")
    return id_ if kind.rpartition("/")[2] == "Patient" else None


def load_records(fixtures: Path) -> Records:
    """`fixtures/patients/*`, and the encounters that the requests in `fixtures/hooks` speak of."""
    resources = [each for path in sorted((fixtures / "patients").iterdir()) for each in _resources(path)]
    clocks: dict[str, datetime] = {}
    for path in sorted((fixtures / "hooks").glob("*.json")):
        request = json.loads(path.read_bytes())
        patient, encounter = request["context"].get("patientId"), request["context"].get("encounterId")
        if (clock := clock_of(request)) is not None:
            clocks[patient] = clock
        if encounter:
            resources.append(_encounter(encounter, patient))
    return Records(resources, clocks)


def _resources(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".ndjson":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]


def _encounter(id_: str, patient: str) -> dict[str, Any]:
    """No fixture holds one: as much as a launch and a search need."""
    system = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
    return {
        "resourceType": "Encounter",
        "id": id_,
        "status": "in-progress",
        "class": {"system": system, "code": "IMP", "display": "inpatient encounter"},
        "subject": {"reference": f"Patient/{patient}"},
    }
