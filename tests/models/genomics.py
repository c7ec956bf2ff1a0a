"""FHIR observations as mCODE writes them, read by our own reader: variants, regions studied, a subtype.

Written by hand after HL7 mCODE 4.0.0 (input/fsh/EX_Genomics.fsh, EX_GenomeX.fsh, EX_ExtendedExample.fsh; CC0-1.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from adapters.readers.facts import project
from models.codes import LOINC
from models.nouns import Fact, Provenance
from tests.models.records import NOW

HGNC = "http://www.genenames.org/geneId"
SUBTYPE = "urn:cds-server:breast-expression-subtype"
SO = "http://www.sequenceontology.org"
TBD = "http://hl7.org/fhir/uv/genomics-reporting/CodeSystem/tbd-codes-cs"

STK11, BAP1, BCR, ABL1, TP53, GATA3, PALB2 = (f"HGNC:{number}" for number in (11389, 950, 1014, 76, 11998, 4172, 26144))
SOMATIC, GERMLINE = "LA6684-0", "LA6683-2"


def concept(system: str, *codes: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code} for code in codes]}


def component(system: str, code: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"code": concept(system, code), "valueCodeableConcept": value}


def variant(
    *genes: str,
    id: str = "variant",
    present: str = "LA9633-4",
    source: str | None = SOMATIC,
    consequence: str | None = None,
    also: Iterable[dict[str, Any]] = (),
    **members: Any,
) -> dict[str, Any]:
    """mcode-genomic-variant: one gene, or two for a fusion."""
    components = [component(LOINC, "48018-6", concept(HGNC, gene)) for gene in genes]
    if source is not None:
        components.append(component(LOINC, "48002-0", concept(LOINC, source)))
    if consequence is not None:
        components.append(component(TBD, "molecular-consequence", concept(SO, consequence)))
    return observation(
        id, "69548-6", valueCodeableConcept=concept(LOINC, present), component=[*components, *also], **members
    )


def region(genes: Sequence[str], *, id: str = "region", system: str = HGNC, **members: Any) -> dict[str, Any]:
    """mcode-genomic-region-studied: every gene in one concept, as the persona's has it."""
    return observation(id, "53041-0", component=[component(LOINC, "48018-6", concept(system, *genes))], **members)


def subtype(code: str, *, id: str = "subtype", **members: Any) -> dict[str, Any]:
    whole = observation(id, "", **{"valueCodeableConcept": concept(SUBTYPE, code), **members})
    return {**whole, "code": concept(SUBTYPE, "pam50-claudin-low")}


def observation(id: str, code: str, **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": concept(LOINC, code),
        "subject": {"reference": "Patient/jenny"},
        "effectiveDateTime": "2018-04-01",
        **members,
    }


def read(*resources: dict[str, Any]) -> list[Fact]:
    """Their facts, by the reader that the server uses."""
    return [
        fact
        for at, resource in enumerate(resources)
        for fact in project(
            resource,
            record="record-1",
            source=Provenance("genomics", at, "", f"{resource['resourceType']}/{resource['id']}", "fhir@1"),
            known_from=NOW,
        )
    ]
