"""Structured reports -> DiagnosticReport, and the measurement groups of TID 1500 -> Observations.

A number means what its group says of it: of which lesion, where, measured how, by whom. TID 1500 (PS3.16) says so in
one way; other templates say it by their own nesting, and their numbers stay in the report's text, where a person reads
them with what stands around them. So no number becomes a fact with half of its meaning.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from adapters.dicom.content import ANATOMY, Key, Node, key_of, rendered
from adapters.dicom.people import Resource
from adapters.dicom.stated import SEGMENT, Stating
from adapters.dicom.times import instant_of, of_text
from adapters.dicom.values import Code, Dataset
from adapters.dicom.vocabulary import UCUM, concept, laterality, uid_identifier
from adapters.hl7v2.local_ids import local_id
from models.errors import TooLarge

MAX_OBSERVATIONS = 500
"""Of one report. More is refused: a page of them is a data set, not a report."""

_REPORTS = {("DCM", value) for value in ("126000", "126001", "126002", "126003")}
"""CID 7021, document titles of a measurement report."""
_MEASUREMENTS, _GROUP = ("DCM", "126010"), ("DCM", "125007")
_GROUP_CODE = Code("125007", "DCM", "Measurement Group")
_TRACKING_ID, _TRACKING_UID = ("DCM", "112039"), ("DCM", "112040")
_FINDING, _CATEGORY = ("DCM", "121071"), ("SCT", "276214006")
_SITE, _SIDE, _TOPOGRAPHY = ("SCT", "363698007"), ("SCT", "272741003"), ("SCT", "106233006")
_METHOD, _DERIVATION = ("SCT", "370129005"), ("DCM", "121401")
_ALGORITHM, _VERSION = ("DCM", "111001"), ("DCM", "111003")
_SUBJECT_CLASS, _PATIENT = ("DCM", "121024"), ("DCM", "121025")
_SOURCE_SERIES, _SEGMENT = ("DCM", "121232"), ("DCM", "121191")
_PERSON, _DEVICE = ("DCM", "121008"), (("DCM", "121013"), ("DCM", "121015"), ("DCM", "121014"))
_CONCLUSIONS = {("DCM", value) for value in ("121072", "121073", "121076", "121077")} | {("LN", "19005-8")}
_NOT_ANSWERS = {
    *(_TRACKING_ID, _TRACKING_UID, _FINDING, _CATEGORY, _SITE, _METHOD, _DERIVATION, _ALGORITHM, _VERSION),
    *(_SUBJECT_CLASS, _SOURCE_SERIES, ("DCM", "111002"), ("DCM", "121401")),
}
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_WHY_ABSENT = {
    "114000": "not-a-number",
    "114001": "negative-infinity",
    "114002": "positive-infinity",
    "114007": "not-performed",
}
"""CID 42, numeric value qualifier; the others are errors of the measurement."""
_LATERALITY = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-laterality-qualifier"
_BY_SIDE = {"7771000": "L", "24028007": "R", "51440002": "B"}


@dataclass(slots=True)
class _Report:
    stating: Stating
    root: Node
    status: str
    count: int = 0

    def id(self) -> str:
        """The next Observation's id: by its number in this object."""
        self.count += 1
        if self.count > MAX_OBSERVATIONS:
            raise TooLarge(f"more than {MAX_OBSERVATIONS} observations in one report", where="(0040,A730)")
        return _observation_id(self.stating.header.sop_uid, self.count)


def _observation_id(sop_uid: str, number: int) -> str:
    return local_id("sr", sop_uid, str(number))


def report_id(sop_uid: str) -> str:
    return local_id("sr", sop_uid)


def read_report(data: Dataset, stating: Stating) -> None:
    """Patient, Observations, DiagnosticReport of one SR document; an earlier version of it in the same study
    (0040,A360) is taken back with its Observations.

    Raises: Unreadable (no patient's number), TooLarge (more than 500 observations).
    """
    header = stating.header
    root = Node(data, "1")
    stating.patient()
    for uid in _replaced(data, header.study_uid):
        stating.void("DiagnosticReport", report_id(uid))
        for number in range(1, MAX_OBSERVATIONS + 1):
            stating.void("Observation", _observation_id(uid, number))
    verified = data.text(0x0040A493) == "VERIFIED"
    complete = data.text(0x0040A491) != "PARTIAL"
    done = verified and complete and data.text(0x0040A496) != "PRELIMINARY"
    report = _Report(stating, root, "final" if done else "preliminary")
    results: list[Resource] = []
    if _is_measurement_report(data, root) and _of_patient(root):
        for container in root.below(_MEASUREMENTS):
            if _of_patient(container):
                for group in container.below(_GROUP):
                    results += _group(group, report)
    status = "final" if done else "preliminary" if complete else "partial"
    _document(report, status, results)


def _replaced(data: Dataset, study: str) -> list[str]:
    """Predecessors (PS3.3 C.17.2) in the same study: their content is wholly or partly in this one. One of another
    study is a prior examination, which stands."""
    return [
        uid
        for row in data.items(0x0040A360)[:8]
        if row.uid(0x0020000D) == study
        for series in row.items(0x00081115)[:8]
        for item in series.items(0x00081199)[:8]
        if (uid := item.uid(0x00081155))
    ]


def _is_measurement_report(data: Dataset, root: Node) -> bool:
    template = data.item(0x0040A504)
    by_template = template.text(0x00080105) == "DCMR" and template.text(0x0040DB00) == "1500"
    return by_template or root.key in _REPORTS


def _of_patient(node: Node) -> bool:
    """Whether it is about the patient; a fetus, a specimen or a device is somebody or something else (TID 1006)."""
    return all(item.code is not None and _same(item.code, _PATIENT) for item in node.below(_SUBJECT_CLASS))


def _same(code: Code, key: Key) -> bool:
    return code.key == key


# ---- the document ----------------------------------------------------------------------------------------------------


def _document(report: _Report, status: str, results: list[Resource]) -> None:
    stating, root = report.stating, report.root
    header, archive = stating.header, stating.archive
    made: Resource = {
        "resourceType": "DiagnosticReport",
        "id": report_id(header.sop_uid),
        "identifier": [uid_identifier(header.sop_uid)],
        "status": status,
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
        "code": concept(root.name, archive) if root.name else {"text": "structured report"},
        "subject": stating.subject,
    }
    if stating.based_on:
        made["basedOn"] = stating.based_on
    if stating.effective:
        made["effectiveDateTime"] = stating.effective
    if stating.issued:
        made["issued"] = stating.issued
    if performers := _performers(root):
        made["performer"] = performers
    if results:
        made["result"] = results
    if studies := stating.derived_from():
        made["imagingStudy"] = studies
    conclusions = [
        item.text
        for node in root.walk()
        if node.key in _CONCLUSIONS
        for item in ([node] if node.kind == "TEXT" else node.children)
        if item.kind == "TEXT" and item.text
    ]
    if conclusions:
        made["conclusion"] = "\n".join(dict.fromkeys(conclusions))
    if text := rendered(root):
        data = base64.b64encode(text.encode()).decode()
        made["presentedForm"] = [{"contentType": "text/plain; charset=utf-8", "data": data}]
    stating.say(made)


def _performers(root: Node) -> list[Resource]:
    names = [node.text for node in root.below(_PERSON) if node.text]
    return [{"type": "Practitioner", "display": " ".join(name.split("^")).strip()} for name in dict.fromkeys(names)]


def _device(*nodes: Node) -> str:
    """Algorithm name and version, the nearest one; else the device that observed."""
    for node in nodes:
        if (name := node.first(_ALGORITHM)) is not None and name.shown:
            version = node.first(_VERSION)
            return f"{name.shown} {version.shown if version else ''}".rstrip()
    for node in nodes:
        for key in _DEVICE:
            if (name := node.first(key)) is not None and name.shown:
                return name.shown
    return ""


# ---- a measurement group ---------------------------------------------------------------------------------------------


def _group(group: Node, report: _Report) -> list[Resource]:
    """An Observation a measurement and a qualitative answer, then one of the group, which has them as members and the
    finding as its value. Each member has the group as its focus: a diameter is of that finding, and of no other."""
    if not _of_patient(group):
        return []
    whole = report.id()
    focus = {"reference": f"Observation/{whole}"}
    members: list[Resource] = []
    for node in group.children:
        if node.name is None or node.key in _NOT_ANSWERS:
            continue
        if node.kind == "NUM":
            members.append(_say({**_numeric(node, group, report), "focus": [focus]}, node, report))
        elif node.relation == "CONTAINS" and node.kind in ("CODE", "TEXT") and node.shown:
            members.append(_say({**_answer(node, group, report), "focus": [focus]}, node, report))
    finding = group.first(_FINDING)
    made = _shared(group, group, report, concept(_GROUP_CODE, report.stating.archive), whole)
    if finding is not None and finding.code is not None:
        made["valueCodeableConcept"] = concept(finding.code, report.stating.archive)
    elif finding is not None and finding.text:
        made["valueString"] = finding.text
    if members:
        made["hasMember"] = members
    if not members and finding is None:
        return []
    return [*members, _say(made, group, report)]


def _say(made: Resource, node: Node, report: _Report) -> Resource:
    return report.stating.say(made, "/" + node.place.replace(".", "/"))


def _shared(node: Node, group: Node, report: _Report, code: Resource, made_id: str = "") -> Resource:
    stating, archive = report.stating, report.stating.archive
    made = stating.observation(made_id or report.id(), report.status, code)
    tracking = group.first(_TRACKING_UID)
    if tracking is not None and (uid := tracking.item.uid(0x0040A124)):
        made["identifier"] = [uid_identifier(uid)]
    tracked = group.first(_TRACKING_ID)
    if tracked is not None and tracked.shown:
        made.setdefault("identifier", []).append({"system": archive.local("tracking"), "value": tracked.shown})
    if observed := _observed(node, stating):
        made["issued"] = observed
    if performers := _performers(group) or _performers(report.root):
        made["performer"] = performers
    if device := _device(node, group, report.root):
        made["device"] = {"display": device}
    if site := _site(node, group, report):
        made["bodySite"] = site
    if method := _method(node, group, report):
        made["method"] = method
    if derived := _derived(node, group, report):
        made["derivedFrom"] = derived
    if segments := _segments(group):
        made["extension"] = [{"url": SEGMENT, "valueInteger": number} for number in segments]
    return made


def _observed(node: Node, stating: Stating) -> str:
    """Observation DateTime (0040,A032) of the item, where it is an instant."""
    return instant_of(of_text(node.item.text(0x0040A032), stating.header.offset, stating.archive.zone))


def _site(node: Node, group: Node, report: _Report) -> Resource | None:
    """The finding site, its side as mCODE's qualifier; else a finding that is itself a part of the body. Of several
    sites the words only: their codes are no synonyms."""
    nodes = [one for one in (*node.below(_SITE),) if one.code] or [one for one in group.below(_SITE) if one.code]
    if not nodes and (category := group.first(_CATEGORY)) is not None and key_of(category.code) in ANATOMY:
        nodes = [one for one in group.below(_FINDING) if one.code]
    sites = [one.code for one in nodes if one.code is not None]
    if not sites:
        return None
    archive = report.stating.archive
    if len(sites) > 1:
        return {"text": "; ".join(code.meaning or code.value for code in sites)}
    made = concept(sites[0], archive)
    words = [made.get("text", "")]
    side, topography = nodes[0].first(_SIDE), nodes[0].first(_TOPOGRAPHY)
    if side is not None and side.code is not None:
        known = laterality(_BY_SIDE.get(side.code.value, "")) or concept(side.code, archive)["coding"][0]
        made["extension"] = [{"url": _LATERALITY, "valueCodeableConcept": {"coding": [known]}}]
        words.append(side.shown)
    if topography is not None and topography.shown:
        words.append(topography.shown)
    if text := ", ".join(filter(None, words)):
        made["text"] = text
    return made


def _method(node: Node, group: Node, report: _Report) -> Resource | None:
    """How it was measured, and what was made of several values (mean, maximum): own rule, both in `method`, for R4 has
    no place for a derivation, and a maximum must not pass for a mean."""
    found: list[Code] = []
    for key in (_METHOD, _DERIVATION):
        one = node.first(key) or group.first(key)
        if one is not None and one.code is not None:
            found.append(one.code)
    if not found:
        return None
    concepts = [concept(code, report.stating.archive) for code in found]
    made: Resource = {"coding": [one["coding"][0] for one in concepts]}
    if words := "; ".join(one["text"] for one in concepts if "text" in one):
        made["text"] = words
    return made


def _derived(node: Node, group: Node, report: _Report) -> list[Resource]:
    """The images that the item refers to, else those of its group."""
    for within in (node, group):
        below = list(within.walk())
        instances = [uid for one in below if (uid := one.instance)]
        series = [uid for one in below if one.key == _SOURCE_SERIES and (uid := one.item.uid(0x0040A124))]
        if instances or series:
            return report.stating.derived_from(instances, series)
    return report.stating.derived_from()


def _segments(group: Node) -> list[int]:
    """Numbers of the segments that were measured (0062,000B)."""
    found = []
    for node in group.below(_SEGMENT):
        found += [int(each) for each in node.item.item(0x00081199).numbers(0x0062000B)]
    return [number for number in dict.fromkeys(found) if number > 0][:16]


def _numeric(node: Node, group: Node, report: _Report) -> Resource:
    archive = report.stating.archive
    code = concept(node.name, archive)
    made = _shared(node, group, report, code)
    measured = node.item.item(0x0040A300)
    value, unit = _decimal(measured.decimal(0x0040A30A)), measured.code(0x004008EA)
    if value is None:
        made["dataAbsentReason"] = _absent(node)
        return made
    quantity: Resource = {"value": value}
    if unit is not None:
        quantity["unit"] = unit.meaning or unit.value
        if unit.scheme == "UCUM":
            quantity |= {"system": UCUM, "code": unit.value}
    made["valueQuantity"] = quantity
    return made


def _decimal(written: str) -> Decimal | None:
    try:
        return Decimal(written) if written else None
    except InvalidOperation:
        return None


def _absent(node: Node) -> Resource:
    qualifier = node.item.code(0x0040A301)
    reason = _WHY_ABSENT.get(qualifier.value, "error") if qualifier is not None else "unknown"
    made: Resource = {"coding": [{"system": _ABSENT, "code": reason}]}
    if qualifier is not None and qualifier.meaning:
        made["text"] = qualifier.meaning
    return made


def _answer(node: Node, group: Node, report: _Report) -> Resource:
    """A qualitative evaluation: a code or words."""
    archive = report.stating.archive
    made = _shared(node, group, report, concept(node.name, archive))
    if node.code is not None:
        made["valueCodeableConcept"] = concept(node.code, archive)
    else:
        made["valueString"] = node.text
    return made
