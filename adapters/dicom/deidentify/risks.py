"""What an image may show of a person although its header is clean: text in its pixels, a face, a document.

BurnedInAnnotation (0028,0301) is believed where it says YES and not where it says NO: ultrasound scanners write names
into the picture and NO into the header. So whole classes of images are at risk (PS3.15 E.3.1, E.3.2).
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.dataset import Dataset

_SOP = "1.2.840.10008.5.1.4.1.1."
RISKS = {
    "document": "an encapsulated document (PDF, CDA, STL)",
    "video": "a video: its frames are not looked into",
    "burned-in": "(0028,0301) says that there is text in the picture",
    "ultrasound": "ultrasound: scanners write names and dates into the picture",
    "secondary-capture": "a secondary capture: a screen, or anything",
    "screen": "the image type says a screen or a dose report",
    "digitised-film": "a digitised film: labels are on it",
    "fluoroscopy": "angiography or fluoroscopy: stored screens and text in the picture",
    "visible-light": "a photograph or endoscopy: a face, a label",
    "slide-label": "the label or the overview of a slide",
    "recognizable": "(0028,0302) says that a person can be recognised",
}
NEVER = frozenset(("document", "video"))
"""Neither blanked nor let through."""
_HEAD = re.compile(r"HEAD|BRAIN|SKULL|FACE|FACIAL|NECK|SINUS|ORBIT|JAW|MAXILL|MANDIB|DENT|CRANI|NASAL|EAR\b", re.I)
_HEAD_CODES = {"69536005", "T-D1100", "89546000", "T-11100", "12738006", "T-A0100", "774007", "T-D1000", "89545001"}


class Plan(NamedTuple):
    """Which pixels are blanked: `boxes` (x, y, width, height), or all but them (`keep`)."""

    boxes: tuple[tuple[int, int, int, int], ...]
    keep: bool
    why: str


def risks_of(data: Dataset, *, pixels: bool, syntax: str) -> list[str]:
    """Names out of RISKS, in their order."""
    uid, modality, kind = _text(data, "SOPClassUID"), _text(data, "Modality"), _text(data, "ConversionType")
    image_type = _texts(data, "ImageType")
    found = {
        "document": uid.startswith(_SOP + "104.") or "EncapsulatedDocument" in data,
        "video": pixels and syntax.startswith("1.2.840.10008.1.2.4.10"),
        "burned-in": pixels and _text(data, "BurnedInAnnotation") not in ("", "NO"),
        "ultrasound": pixels and (modality in ("US", "IVUS", "BDUS") or _is(uid, "3", "3.1", "6", "6.1", "6.2", "6.3")),
        "secondary-capture": pixels
        and (_is(uid, "7", "7.1", "7.2", "7.3", "7.4") or modality == "OT" or kind in ("WSD", "DV", "DI", "SI", "SYN")),
        "screen": pixels and any(re.search(r"SCREEN|DOSE|CAPTURE|REPORT|GSPS|PRINT", each) for each in image_type),
        "digitised-film": pixels and (kind in ("DF", "SD") or "DIGITIZED" in " ".join(image_type)),
        "fluoroscopy": pixels and (modality in ("XA", "RF") or _is(uid, "12.1", "12.1.1", "12.2", "12.2.1", "12.3")),
        "visible-light": pixels
        and (
            modality in ("XC", "GM", "ES", "DMS", "EPS")
            or (uid.startswith(_SOP + "77.1.") and not _is(uid, "77.1.6", "77.1.2", "77.1.3"))
        ),
        "slide-label": pixels and ("LABEL" in image_type or "OVERVIEW" in image_type),
        "recognizable": pixels and _text(data, "RecognizableVisualFeatures") not in ("", "NO"),
    }
    return [name for name in RISKS if found[name]]


def may_show_a_face(data: Dataset, *, pixels: bool) -> bool:
    """A CT, MR or PET image of the head, or one that does not say of what: a face can be rendered from its slices."""
    if not pixels or _text(data, "Modality") not in ("CT", "MR", "PT", "NM"):
        return False
    codes = [_text(item, "CodeValue") for item in data.get("AnatomicRegionSequence") or ()]
    words = " ".join(_text(data, name) for name in _SAYING)
    return bool(_HEAD.search(words)) or bool(_HEAD_CODES & set(codes)) or not (_text(data, "BodyPartExamined") or codes)


_SAYING = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")


def plan_of(data: Dataset) -> Plan | None:
    """Which pixels to blank, by what the object says (Sequence of Ultrasound Regions, PS3.3 C.8.5.5) or by the rule of
    its scanner; None: nobody knows."""
    rows, columns = int(data.get("Rows") or 0), int(data.get("Columns") or 0)
    boxes = []
    for region in data.get("SequenceOfUltrasoundRegions") or ():
        ends = [region.get(name) for name in _ENDS]
        if any(not isinstance(each, int) for each in ends):
            return None
        x0, y0, x1, y1 = (int(each) for each in ends if each is not None)
        if not (0 <= x0 <= x1 < columns and 0 <= y0 <= y1 < rows):
            return None
        boxes.append((x0, y0, x1 - x0 + 1, y1 - y0 + 1))
    if boxes:
        if any(width * height > 0.98 * rows * columns for _, _, width, height in boxes):
            return None  # a region that is the whole picture leaves the text where it is
        return Plan(tuple(boxes), True, "ultrasound regions")
    for rule in _rules():
        asked = (("modality", "Modality"), ("manufacturer", "Manufacturer"), ("model", "ManufacturerModelName"))
        fits = all(re.search(rule[key], _text(data, name), re.I) for key, name in asked if key in rule)
        named = rule.get("image_type") is None or rule["image_type"] in _texts(data, "ImageType")
        if fits and named and (rule["rows"], rule["columns"]) == (rows, columns):
            return Plan(tuple(tuple(box) for box in rule["blank"]), False, rule["name"])
    return None


_ENDS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


@cache
def _rules() -> list[dict[str, Any]]:
    held = json.loads((Path(__file__).parent / "regions.json").read_text(encoding="utf-8"))
    return list(held["rules"])


def _is(uid: str, *ends: str) -> bool:
    return uid in {_SOP + end for end in ends}


def _text(data: Dataset, name: str) -> str:
    try:
        return str(data.get(name) or "").strip().upper() if name != "SOPClassUID" else str(data.get(name) or "").strip()
    except Exception:  # noqa: BLE001 (a value that is none says nothing)
        return ""


def _texts(data: Dataset, name: str) -> list[str]:
    try:
        value = data.get(name)
    except Exception:  # noqa: BLE001 (as above)
        return []
    if value is None:
        return []
    each = [value] if isinstance(value, str) else list(value)
    return [str(one).strip().upper() for one in each]
