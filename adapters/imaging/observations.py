"""What was measured, found and drawn, as FHIR R4: an Observation a region with its features as components, one a series
for its quality, Media for pictures.

A component becomes a fact of its own (adapters/readers/facts.py), with the Observation's time, region, method and what
it was derived from. The picture itself is no part of its Media: its bytes lie beside it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header, ScannerOf
from adapters.dicom.stated import SERIES
from adapters.dicom.study import study_id
from adapters.dicom.vocabulary import UCUM, concept, modality, uid_identifier
from adapters.hl7v2.local_ids import local_id
from adapters.imaging.catalogue import FEATURES, SYSTEM
from adapters.imaging.findings import Finding, Verdict, Weight
from adapters.imaging.measuring import Measured
from adapters.imaging.pictures import Picture
from adapters.imaging.quality import Quality
from adapters.imaging.regions import Region
from adapters.imaging.tiles import Encoder, Vectors

Resource = dict[str, Any]
IMAGING = "urn:cds-server:imaging"
"""Code system of what has no other: region-features, region-embedding, series-quality; verdicts, scales and rules."""
EMBEDDING = "urn:cds-server:embedding"
"""Followed by the first 16 hex digits of the encoder's digest: vectors of two encoders never meet."""
FULL_SET = "urn:cds-server:mirp"
"""Followed by its version. Values are in the units of the images, as MIRP gives them."""
SOFTWARE = "cds-server imaging"
VERSION = "1"
_CATEGORY = [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}]}]
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_SCALES = {"HU": "HU", "SUVbw": "g/mL", "arbitrary": ""}


@dataclass(frozen=True)
class Of:
    """What all resources of one series share."""

    study: Mapping[str, Any]
    """The ImagingStudy."""
    header: Header
    """Any image of the series."""
    archive: Archive
    scanners: tuple[ScannerOf, ...] = ()

    @property
    def series(self) -> Mapping[str, Any]:
        rows = self.study.get("series", [])
        return next((row for row in rows if row.get("uid") == self.header.series_uid), {})

    def reference(self) -> Resource:
        """The ImagingStudy, with the series that is meant."""
        return {
            "extension": [{"url": SERIES, "valueUri": f"urn:oid:{self.header.series_uid}"}],
            "reference": f"ImagingStudy/{study_id(self.header.study_uid)}",
            "identifier": uid_identifier(self.header.study_uid),
        }

    def shared(self, kind: str, made: str) -> Resource:
        found: Resource = {"resourceType": kind, "id": made}
        if "meta" in self.study:
            found["meta"] = self.study["meta"]
        return found

    @property
    def started(self) -> str | None:
        return self.series.get("started") or self.study.get("started")

    @property
    def device(self) -> str:
        """The software that measured, then the scanners and theirs."""
        rows = [" ".join(filter(None, (one.manufacturer, one.model, *one.software))) for one in self.scanners]
        return "; ".join([f"{SOFTWARE} {VERSION}", *(row for row in dict.fromkeys(rows) if row)])


def quality_of(of: Of, quality: Quality, more: Sequence[Finding] = ()) -> Resource:
    """The verdict on a series with its findings; of a refused one no value, but why there is none."""
    findings = (*quality.findings, *more)
    made = _observation(
        of, local_id("quality", of.header.series_uid, ""), "series-quality", "Quality of an image series"
    )
    refusals = [finding for finding in findings if finding.weight is Weight.REFUSAL]
    if refusals:
        made["dataAbsentReason"] = _absent(refusals)
    else:
        cautions = any(finding.weight is Weight.CAUTION for finding in findings)
        made["valueCodeableConcept"] = _own((Verdict.CAUTIONS if cautions else Verdict.USABLE).value)
    made["derivedFrom"] = [of.reference()]
    _found(made, findings)
    return made


def features_of(of: Of, measured: Measured, pictures: Sequence[Picture]) -> Resource:
    """A region's features as components."""
    made = _of_region(of, measured.region, "features", "region-features", "Radiomic features of a region", pictures)
    made["method"] = _method(measured)
    made["component"] = [_component(code, value, measured.scale) for code, value in measured.measures.items()]
    _found(made, measured.findings)
    return made


def refused_region(of: Of, region: Region) -> Resource:
    """A region that nothing was measured on, and why."""
    made = _of_region(of, region, "features", "region-features", "Radiomic features of a region", ())
    made["dataAbsentReason"] = _absent(region.findings)
    _found(made, region.findings)
    return made


def embedding_of(of: Of, region: Region, encoder: Encoder, vector: Vectors, pictures: Sequence[Picture]) -> Resource:
    """A region's embedding: a component a number, coded by its place in the vector of this encoder."""
    kind = f"embedding {encoder.digest}"
    made = _of_region(of, region, kind, "region-embedding", "Embedding of a region", pictures)
    words = f"mean over tiles; encoder {encoder.name} {encoder.version}, sha-256 {encoder.digest}"
    made["method"] = {"coding": [{"system": EMBEDDING, "code": encoder.digest}], "text": words}
    system = f"{EMBEDDING}:{encoder.digest[:16]}"
    made["component"] = [
        {
            "code": {"coding": [{"system": system, "code": str(at)}]},
            "valueQuantity": _quantity(float(f"{value:.8g}"), "1"),
        }
        for at, value in enumerate(vector.tolist())
    ]
    return made


def full_set_of(
    of: Of,
    region: Region,
    version: str,
    scale: str,
    grey_levels: str,
    measures: Mapping[str, float],
    pictures: Sequence[Picture],
) -> Resource:
    """What MIRP measured on a region: its names for its features, under its version."""
    made = _of_region(of, region, f"mirp {version}", "region-full-set", "Full set of radiomic features", pictures)
    rows = [{"system": IMAGING, "code": f"scale-{scale}"}]
    if region.rule:
        rows.append({"system": IMAGING, "code": f"rule-{region.rule}"})
    words = f"MIRP {version}; on the images' own grid; texture in 3D, merged over 13 directions, {grey_levels}"
    made["method"] = {"coding": rows, "text": words}
    made["component"] = [
        {
            "code": {"coding": [{"system": f"{FULL_SET}:{version}", "code": name}]},
            "valueQuantity": _quantity(value, "1"),
        }
        for name, value in sorted(measures.items())
    ]
    return made


def media_of(of: Of, region: Region, picture: Picture) -> Resource:
    """A picture: its id says its SHA-256, as its identifier does in full; R4's hash is SHA-1, of a public format."""
    made = of.shared("Media", picture.id)
    made["identifier"] = [{"system": "urn:cds-server:sha-256", "value": picture.digest}]
    made["status"] = "completed"
    made["type"] = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/media-type", "code": "image"}]}
    made["modality"] = {"coding": [modality(of.header.series.modality)]}
    made["subject"] = of.study["subject"]
    if "basedOn" in of.study:
        made["basedOn"] = of.study["basedOn"]
    made["partOf"] = [of.reference()]
    if of.started:
        made["createdDateTime"] = of.started
    if site := of.series.get("bodySite"):
        made["bodySite"] = {"coding": [site]}
    if device := of.device:
        made["deviceName"] = device
    made["height"], made["width"] = picture.height, picture.width
    digest = base64.b64encode(hashlib.sha1(picture.png, usedforsecurity=False).digest()).decode()
    made["content"] = {"contentType": "image/png", "size": len(picture.png), "hash": digest, "title": region.label}
    words = f"slice {picture.slice + 1} along the normal; window by {picture.window}; the region outlined"
    made["note"] = [{"text": words}]
    return made


# ---- what they share -------------------------------------------------------------------------------------------------


def _own(code: str, words: str = "") -> Resource:
    made: Resource = {"coding": [{"system": IMAGING, "code": code}]}
    if words:
        made["text"] = words
    return made


def _observation(of: Of, made: str, code: str, words: str) -> Resource:
    found = of.shared("Observation", made)
    if "basedOn" in of.study:
        found["basedOn"] = of.study["basedOn"]
    found["status"] = "final"
    found["category"] = _CATEGORY
    found["code"] = _own(code, words)
    found["subject"] = of.study["subject"]
    if of.started:
        found["effectiveDateTime"] = of.started
    if site := of.series.get("bodySite"):
        found["bodySite"] = {"coding": [site]}
    found["device"] = {"display": of.device}
    return found


def _of_region(of: Of, region: Region, kind: str, code: str, words: str, pictures: Sequence[Picture]) -> Resource:
    made = _observation(of, local_id(kind, of.header.series_uid, region.key, ""), code, f"{words}: {region.label}")
    if region.observation:
        made["focus"] = [{"reference": f"Observation/{region.observation}", "display": region.label}]
    made["status"] = region.status
    if region.site is not None:
        made["bodySite"] = concept(region.site, of.archive)
    derived = [of.reference(), *({"reference": f"Media/{picture.id}"} for picture in pictures[:1])]
    if region.observation:
        derived.append({"reference": f"Observation/{region.observation}"})
    made["derivedFrom"] = derived
    if region.algorithm:
        made["note"] = [{"text": f"region drawn by: {region.algorithm}"}]
    return made


def _method(measured: Measured) -> Resource:
    """What the numbers mean: the scale of intensities, the grey levels, the rule."""
    rows = [{"system": IMAGING, "code": f"scale-{measured.scale}"}]
    words = [f"intensities {_SCALES[measured.scale] or 'without a unit'}", "on the images' own grid"]
    if measured.discretisation:
        words.append(f"texture in 3D, merged over 13 directions, {measured.discretisation}")
    if measured.region.rule:
        rows.append({"system": IMAGING, "code": f"rule-{measured.region.rule}"})
    return {"coding": rows, "text": "; ".join(words)}


def _component(code: str, value: float, scale: str) -> Resource:
    feature = FEATURES[code]
    quantity = _quantity(value, feature.unit)
    if feature.power and _SCALES[scale]:
        quantity["unit"] = _SCALES[scale] if feature.power == 1 else f"({_SCALES[scale]})2"
    return {
        "code": {"coding": [{"system": SYSTEM, "code": code, "display": feature.name}]},
        "valueQuantity": quantity,
    }


def _quantity(value: float, unit: str) -> Resource:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def _absent(findings: Sequence[Finding]) -> Resource:
    words = "; ".join(finding.words for finding in findings)
    return {"coding": [{"system": _ABSENT, "code": "not-performed"}], "text": words}


def _found(made: Resource, findings: Sequence[Finding]) -> None:
    """The findings as sentences, and each by its code as the interpretation's words."""
    if findings:
        rows = [{"text": f"{finding.weight.value}: {finding.words} [{finding.code}]"} for finding in findings]
        made["note"] = [*made.get("note", []), *rows]
