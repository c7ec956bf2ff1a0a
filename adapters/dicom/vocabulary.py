"""Codes of DICOM as FHIR codings: designators as URIs, SNOMED RT codes as SNOMED CT, body parts and sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydicom.sr._snomed_dict import mapping as _snomed

from adapters.dicom.archive import Archive
from adapters.terminology.codings import LOINC, SNOMED

DCM = "http://dicom.nema.org/resources/ontology/DCM"
UCUM = "http://unitsofmeasure.org"
UID = "urn:dicom:uid"
RFC_3986 = "urn:ietf:rfc:3986"

_SYSTEMS = {
    "DCM": DCM, "SCT": SNOMED, "LN": LOINC, "UCUM": UCUM, "NCIt": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
    "NCIT": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl", "UMLS": "http://www.nlm.nih.gov/research/umls",
    "RADLEX": "http://radlex.org", "FMA": "http://sig.biostr.washington.edu/projects/fm/AboutFM.html",
    "I10": "http://hl7.org/fhir/sid/icd-10", "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm", "C4": "http://www.ama-assn.org/go/cpt", "IBSI": "urn:cds-server:ibsi",
}  # fmt: skip
"""Coding Scheme Designators (PS3.16 8) and their URIs (HL7 external code systems); IBSI is the imaging modality's."""
_SRT = frozenset(("SRT", "SNM3", "99SDM"))
"""SNOMED RT style designators, retired; their codes have one SNOMED CT concept each (PS3.16 8.1)."""

_sites = json.loads(Path(__file__).with_name("body_sites.json").read_text("utf-8"))["terms"]
_SIDES = {"L": ("7771000", "Left"), "R": ("24028007", "Right"), "B": ("51440002", "Bilateral")}

Resource = dict[str, Any]


def coding(code: Any, archive: Archive) -> Resource:
    """A code (value, scheme, meaning, scheme_uid) as Coding. A scheme that nobody knows is the archive's own."""
    value, scheme = code.value, code.scheme
    if scheme in _SRT and value in _snomed["SRT"]:
        value, system = _snomed["SRT"][value], SNOMED
    elif scheme in archive.systems:
        system = archive.systems[scheme]
    elif scheme in _SYSTEMS:
        system = _SYSTEMS[scheme]
    elif code.scheme_uid:
        system = f"urn:oid:{code.scheme_uid}"
    else:
        system = archive.local(scheme or "code")
    made = {"system": system, "code": value}
    if code.meaning:
        made["display"] = code.meaning
    return made


def concept(code: Any, archive: Archive) -> Resource:
    """The same as CodeableConcept."""
    made: Resource = {"coding": [coding(code, archive)]}
    if code.meaning:
        made["text"] = code.meaning
    return made


def modality(code: str) -> Resource:
    return {"system": DCM, "code": code}


def body_site(term: str) -> Resource | None:
    """Body Part Examined as SNOMED CT; None for a term that the table does not know."""
    found = _sites.get("".join(letter for letter in term.upper() if letter.isalnum()))
    return {"system": SNOMED, "code": found[0], "display": found[1]} if found else None


def laterality(side: str) -> Resource | None:
    """R, L or B; None for U (unpaired) and nothing."""
    found = _SIDES.get(side)
    return {"system": SNOMED, "code": found[0], "display": found[1]} if found else None


def uid_identifier(uid: str) -> Resource:
    """A UID as FHIR writes it among identifiers (R4 imagingstudy.html)."""
    return {"system": UID, "value": f"urn:oid:{uid}"}
