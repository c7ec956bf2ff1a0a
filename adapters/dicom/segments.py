"""Segmentations and structure sets -> one Observation a segment or region: what was drawn, where, by whom.

No volume: that is computed from the pixels, with their quality checked (imaging features), not read from a header.
"""

from __future__ import annotations

from adapters.dicom.content import ANATOMY, key_of
from adapters.dicom.people import Resource
from adapters.dicom.stated import SEGMENT, Stating, algorithm_of
from adapters.dicom.values import Code, Dataset
from adapters.dicom.vocabulary import coding, concept, uid_identifier
from adapters.hl7v2.local_ids import local_id
from models.errors import TooLarge

MAX_SEGMENTS = 2_000
SEGMENTATION = Code("113076", "DCM", "Segmentation")
REGION = Code("111030", "DCM", "Image Region")
_CATEGORY = Code("276214006", "SCT", "Finding category")
_INTERPRETED = "urn:cds-server:rt-roi-interpreted-type"
_BY_APPROVAL = {"APPROVED": "final", "REJECTED": "cancelled"}


def read_segmentation(data: Dataset, stating: Stating) -> None:
    """Patient, and an Observation for each item of Segment Sequence (0062,0002). What an algorithm drew alone and
    nobody approved is preliminary. Raises: Unreadable, TooLarge."""
    stating.patient()
    segments = data.items(0x00620002)
    _few(len(segments), "(0062,0002)")
    for at, segment in enumerate(segments):
        _segment(segment, at, data, stating)


def _few(count: int, where: str) -> None:
    if count > MAX_SEGMENTS:
        raise TooLarge(f"more than {MAX_SEGMENTS} segments", where=where)


def _segment(segment: Dataset, at: int, data: Dataset, stating: Stating) -> None:
    archive, header = stating.archive, stating.header
    number = segment.whole(0x00620004) or at + 1
    kind = segment.text(0x00620008)
    status = _BY_APPROVAL.get(data.text(0x300E0002), "preliminary" if kind == "AUTOMATIC" else "final")
    made = stating.observation(local_id("segment", header.sop_uid, str(number)), status, concept(SEGMENTATION, archive))
    label = segment.text(0x00620005) or segment.text(0x00620006)
    property_type, category = segment.code(0x0062000F), segment.code(0x00620003)
    value: Resource = {}
    if property_type is not None:
        modifiers = segment.item(0x0062000F).codes(0x00620011)
        value = concept(property_type, archive)
        words = [property_type.meaning, *(code.meaning for code in modifiers), *([label] if label else [])]
        value["text"] = ", ".join(dict.fromkeys(filter(None, words)))
    elif label:
        value = {"text": label}
    if value:
        made["valueCodeableConcept"] = value
    if category is not None:
        made["component"] = [{"code": concept(_CATEGORY, archive), "valueCodeableConcept": concept(category, archive)}]
    region = segment.code(0x00082218)
    if region is None and category is not None and key_of(category) in ANATOMY:
        region = property_type
    if region is not None:
        made["bodySite"] = concept(region, archive)
    _tracking(segment, made, stating)
    _drawn(made, kind, segment.text(0x00620009) or algorithm_of(segment.item(0x00620007)))
    made["extension"] = [{"url": SEGMENT, "valueInteger": number}]
    _sources(made, stating)
    stating.say(made, f"/00620002/{at}")


def _tracking(segment: Dataset, made: Resource, stating: Stating) -> None:
    rows = []
    if uid := segment.uid(0x00620021):
        rows.append(uid_identifier(uid))
    if name := segment.text(0x00620020):
        rows.append({"system": stating.archive.local("tracking"), "value": name})
    if rows:
        made["identifier"] = rows


def _drawn(made: Resource, kind: str, algorithm: str) -> None:
    if kind:
        made["method"] = {"text": kind.lower()}
    if algorithm:
        made["device"] = {"display": algorithm}


def _sources(made: Resource, stating: Stating) -> None:
    if derived := stating.derived_from():
        made["derivedFrom"] = derived


def read_structure_set(data: Dataset, stating: Stating) -> None:
    """Patient, and an Observation for each region of Structure Set ROI Sequence (3006,0020), with what RT ROI
    Observations (3006,0080) says of it. Raises: Unreadable, TooLarge."""
    stating.patient()
    regions = data.items(0x30060020)
    _few(len(regions), "(3006,0020)")
    said: dict[int, Dataset] = {}
    for item in data.items(0x30060080):
        if (number := item.whole(0x30060084)) is not None:
            said.setdefault(number, item)
    approval = data.text(0x300E0002)
    for at, region in enumerate(regions):
        number = region.whole(0x30060022)
        if number is None:
            number = at + 1
        _region(region, number, at, said.get(number, Dataset()), approval, stating)


def _region(region: Dataset, number: int, at: int, said: Dataset, approval: str, stating: Stating) -> None:
    archive = stating.archive
    kind = region.text(0x30060036)
    status = _BY_APPROVAL.get(approval, "preliminary")
    made = stating.observation(local_id("roi", stating.header.sop_uid, str(number)), status, concept(REGION, archive))
    name = region.text(0x30060026) or said.text(0x30060085)
    code = said.code(0x30060086)
    interpreted = said.text(0x300600A4)
    value: Resource = {"coding": [coding(code, archive)]} if code is not None else {}
    if words := name or (code.meaning if code is not None else ""):
        value["text"] = words
    if value:
        made["valueCodeableConcept"] = value
    if interpreted:
        type_of = {"system": _INTERPRETED, "code": interpreted}
        made["component"] = [
            {
                "code": {"coding": [{"system": "urn:cds-server:dicom-element", "code": "300600A4"}]},
                "valueCodeableConcept": {"coding": [type_of], "text": interpreted},
            }
        ]
    if (site := said.code(0x00082218)) is not None:
        made["bodySite"] = concept(site, archive)
    _drawn(made, kind, region.text(0x30060038) if kind and kind != "MANUAL" else "")
    if interpreter := said.text(0x300600A6):
        made["performer"] = [{"type": "Practitioner", "display": " ".join(interpreter.split("^")).strip()}]
    made["extension"] = [{"url": SEGMENT, "valueInteger": number}]
    _sources(made, stating)
    stating.say(made, f"/30060020/{at}")
