"""Encapsulated documents (PDF, CDA, ...; PS3.3 A.45) -> DocumentReference with the document in it."""

from __future__ import annotations

import base64
import hashlib
import re

from adapters.dicom.people import Resource
from adapters.dicom.stated import Stating
from adapters.dicom.study import study_id
from adapters.dicom.values import Dataset
from adapters.dicom.vocabulary import concept, uid_identifier
from adapters.hl7v2.local_ids import local_id

DOCUMENT, LENGTH, MIME = 0x00420011, 0x00420015, 0x00420012
MAX_EMBEDDED = 16 << 20
"""Bytes of a document that stands in its DocumentReference. Of a longer one size and hash are stated: it is in the
object, whose instance the ImagingStudy names."""
_MIME = re.compile(r"[a-zA-Z0-9!#$&^_.+\-]{1,64}/[a-zA-Z0-9!#$&^_.+\-]{1,64}")


def read_document(data: Dataset, stating: Stating) -> None:
    """Patient and DocumentReference. Raises: Unreadable, without a patient's number."""
    header, archive = stating.header, stating.archive
    stating.patient()
    made: Resource = {
        "resourceType": "DocumentReference",
        "id": local_id("document", header.sop_uid),
        "masterIdentifier": uid_identifier(header.sop_uid),
        "status": "current",
        "subject": stating.subject,
    }
    verified = data.text(0x0040A493)
    if verified:
        made["docStatus"] = "final" if verified == "VERIFIED" else "preliminary"
    if header.title is not None:
        made["type"] = concept(header.title, archive)
    elif header.label:
        made["type"] = {"text": header.label}
    if stating.issued:
        made["date"] = stating.issued
    if header.label:
        made["description"] = header.label
    made["content"] = [{"attachment": _attachment(data, stating)}]
    study = {"reference": f"ImagingStudy/{study_id(header.study_uid)}", "identifier": uid_identifier(header.study_uid)}
    made["context"] = {"related": [study, *stating.based_on]}
    stating.say(made)


def _attachment(data: Dataset, stating: Stating) -> Resource:
    element = data.elements.get(DOCUMENT)
    body = element.raw if element is not None else b""
    length = data.whole(LENGTH)
    if length is not None and 0 < length <= len(body) <= length + 1:
        body = body[:length]
    elif body.endswith(b"\0"):  # padded to an even length (PS3.5 6.2, OB)
        body = body[:-1]
    stated = data.text(MIME)
    made: Resource = {"contentType": stated if _MIME.fullmatch(stated) else "application/octet-stream"}
    if not body:
        made["extension"] = [
            {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
        ]
        return made
    if len(body) <= MAX_EMBEDDED:
        made["data"] = base64.b64encode(body).decode()
    made["size"] = len(body)
    made["hash"] = base64.b64encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()
    if stating.header.label:
        made["title"] = stating.header.label
    if stating.written:
        made["creation"] = stating.written
    return made
