"""A study -> Observations, Media and pictures; what models can ask of them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from fhir.resources.R4B.media import Media
from fhir.resources.R4B.observation import Observation
from PIL import Image
from pydicom.dataset import Dataset

from adapters.dicom.archive import Archive
from adapters.dicom.headers import header_of
from adapters.dicom.study import bundle_of, imaging_study
from adapters.imaging.catalogue import FEATURES, SYSTEM
from adapters.imaging.examine import Examination, Looking, examine
from adapters.imaging.full_set import FullSet
from adapters.imaging.pictures import OUTLINE, outline
from adapters.readers import dicom as objects_reader
from adapters.readers import examination
from adapters.readers.dicom import OBJECT
from adapters.readers.facts import project
from models.canonical import canonical
from models.errors import BadInput, Unreadable
from models.modalities.imaging import DICOM
from models.nouns import Fact, Part, Provenance
from tests.adapters.imaging_made import (
    STEP,
    Objects,
    ball,
    held,
    in_order,
    objects,
    segmentation,
    series,
    structure_set,
)
from tests.adapters.test_imaging_regions import circle
from tests.dicom_made import uid

ARCHIVE = Archive("pacs", zone="Europe/Berlin")
NOW = "2026-11-21T10:00:00.000000Z"


def looked(given: Objects, looking: Looking | None = None) -> Examination:
    headers, opened = held(given)
    return examine(imaging_study(headers, ARCHIVE), headers, opened, ARCHIVE, looking or Looking())


def of_code(made: Examination, code: str) -> list[dict[str, Any]]:
    return [
        each
        for each in made.resources
        if each["resourceType"] == "Observation" and each["code"]["coding"][0]["code"] == code
    ]


@pytest.fixture(scope="module")
def given() -> Objects:
    rows = series()
    return objects(*rows, segmentation(rows, [ball()]))


@pytest.fixture(scope="module")
def made(given: Objects) -> Examination:
    return looked(given)


def facts(made: Examination) -> list[Fact]:
    """As they come out of the landing that is made of an examination."""
    part = Part("0" * 32, 0, "pacs", examination.MEDIA_TYPE, NOW, canonical(bundle_of(made.resources)))
    found: list[Fact] = []
    for statement in examination.read(part):
        source = Provenance("0" * 32, 0, statement.pointer, f"{statement.resource_type}/{statement.local_id}", "e@1")
        assert statement.body is not None
        found += project(statement.body, record="r", source=source, known_from=NOW)
    return found


def test_the_study_comes_first_then_what_was_made_of_it(made: Examination) -> None:
    kinds = [each["resourceType"] for each in made.resources]
    assert kinds == ["Patient", "ImagingStudy", "Observation", "Media", "Media", "Media", "Observation"]
    assert [name for name, _ in made.pictures] == [each["id"] for each in made.resources if "content" in each]
    assert len({each["id"] for each in made.resources}) == len(made.resources)


def test_everything_is_fhir(made: Examination) -> None:
    for each in made.resources:
        model: Any = {"Observation": Observation, "Media": Media}.get(each["resourceType"])
        if model is not None:
            model.model_validate_json(json.dumps(each))


def test_quality_is_said_of_every_series_of_images(made: Examination) -> None:
    (quality,) = of_code(made, "series-quality")
    assert quality["valueCodeableConcept"]["coding"][0]["code"] == "usable"
    assert quality["derivedFrom"][0]["extension"][0]["valueUri"].endswith(str(uid("im", 1)))
    assert "Made M-1 1.0" in quality["device"]["display"]


def test_features_are_components_with_what_they_were_measured_on(given: Objects, made: Examination) -> None:
    (features,) = of_code(made, "region-features")
    assert features["status"] == "preliminary", "an algorithm drew it, and nobody approved it"
    assert features["effectiveDateTime"] == "2026-01-02T10:15:00+01:00"
    found = {each["code"]["coding"][0]["code"]: each["valueQuantity"] for each in features["component"]}
    assert list(found) == [code for code in FEATURES if code in found]
    assert set(found) == set(FEATURES)
    assert found["Q4LE"]["value"] == pytest.approx(200, abs=1)
    assert found["YEKZ"] == {"value": ball().sum() * 2 * 0.75**2, "unit": "mm3", "system": UCUM, "code": "mm3"}
    study = next(each for each in made.resources if each["resourceType"] == "ImagingStudy")
    literal = [each["reference"] for each in features["derivedFrom"]]
    assert literal[:2] == [f"ImagingStudy/{study['id']}", f"Media/{made.pictures[0][0]}"]
    assert literal[2] == features["focus"][0]["reference"]


UCUM = "http://unitsofmeasure.org"


def test_the_region_is_the_observation_that_the_segmentation_states(given: Objects, made: Examination) -> None:
    (features,) = of_code(made, "region-features")
    seg = list(given.values())[-1]
    stated = objects_reader.read(Part("0" * 32, 0, "pacs", OBJECT, NOW, seg), ARCHIVE)
    known = {f"{each.resource_type}/{each.local_id}" for each in stated}
    assert features["focus"][0]["reference"] in known


def test_models_can_ask_for_the_features(made: Examination) -> None:
    """What models/modalities/imaging.py asks for, in the units that it takes."""
    by_code = {fact.code.token: fact for fact in facts(made)}
    for definition in DICOM:
        (token,) = definition.codes.tokens
        fact = by_code[token]
        assert fact.unit in definition.units
        assert fact.number is not None
        low, high = definition.plausible or (-np.inf, np.inf)
        assert low <= float(fact.number) <= high
        assert fact.effective == "2026-01-02T10:15:00+01:00"
        assert fact.method[0].code == "scale-HU"
    asked = by_code[f"{SYSTEM}|RNU0"]
    assert f"Media/{made.pictures[0][0]}" in asked.derived_from
    assert asked.derived_from[0].startswith("ImagingStudy/")


def test_the_other_parts_of_its_landing_are_pictures(made: Examination) -> None:
    part = Part("0" * 32, 1, "pacs", examination.MEDIA_TYPE, NOW, made.pictures[0][1])
    assert examination.read(part) == []


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_shows_the_slice_with_the_region_outlined(made: Examination) -> None:
    name, png = made.pictures[0]
    media = next(each for each in made.resources if each["id"] == name)
    assert name == f"png-{hashlib.sha256(png).hexdigest()[:32]}"
    assert media["identifier"][0]["value"] == hashlib.sha256(png).hexdigest()
    assert media["content"]["size"] == len(png)
    assert media["note"][0]["text"] == "slice 8 along the normal; window by header; the region outlined"
    image = Image.open(io.BytesIO(png))
    assert image.size == (media["width"], media["height"]) == (384, 384)
    assert (image.mode, image.info) == ("RGB", {})
    pixels = np.asarray(image).astype(int)
    coloured = (pixels == OUTLINE).all(axis=2)
    expected = outline(np.kron(ball()[7], np.ones((8, 8), bool)))
    assert np.array_equal(coloured, expected)
    grey = pixels[~coloured]
    assert (grey[:, 0] == grey[:, 1]).all()
    assert (grey[:, 1] == grey[:, 2]).all()
    assert pixels[192, 192, 0] == pytest.approx((200 - (40 - 200)) / 400 * 255, abs=16)
    assert pixels[2, 2, 0] == 0


def test_pixels_of_a_picture_are_square() -> None:
    rows = series()
    for each in rows:
        each.PixelSpacing = [1.5, 0.75]
    made = looked(objects(*rows, segmentation(rows, [ball()])), Looking(pictures=1))
    (media,) = [each for each in made.resources if each["resourceType"] == "Media"]
    assert (media["width"], media["height"]) == (192, 384)


def test_monochrome1_is_inverted() -> None:
    rows = series()
    for each in rows:
        each.PhotometricInterpretation = "MONOCHROME1"
    made = looked(objects(*rows, segmentation(rows, [ball()])), Looking(pictures=1))
    assert np.asarray(Image.open(io.BytesIO(made.pictures[0][1])))[2, 2].tolist() == [255, 255, 255]


def test_nothing_of_a_person_is_in_a_picture_or_a_finding(given: Objects, made: Examination) -> None:
    text = json.dumps([each for each in made.resources if each["resourceType"] in ("Observation", "Media")])
    for word in ("Person", "19600102"):
        assert word not in text
        assert all(word.encode() not in png for _, png in made.pictures)
    for _, png in made.pictures:
        assert not any(chunk in png for chunk in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"))


def test_the_same_objects_give_the_same_bytes(given: Objects, made: Examination) -> None:
    again = looked(dict(reversed(given.items())))
    assert canonical(bundle_of(again.resources)) == canonical(bundle_of(made.resources))
    assert again.pictures == made.pictures


# ---- what a study may look like --------------------------------------------------------------------------------------


def test_a_series_that_cannot_be_used_is_a_finding_and_the_others_go_on() -> None:
    good, bad = series(), series(number=2)
    bad = [each for each in in_order(bad) if each.InstanceNumber not in (5, 6)]
    damaged = series(number=3)
    given = objects(*good, *bad, *damaged, segmentation(good, [ball()]))
    name = str(damaged[0].SOPInstanceUID)
    given[name] = given[name][:-500]
    made = looked(given)
    reasons = [each.get("dataAbsentReason", {}).get("text") for each in of_code(made, "series-quality")]
    assert reasons == [
        None,
        "2 slices are missing between the others (0020,0032)",
        "fewer pixels than the header claims (7FE0,0010)",
    ]
    assert len(of_code(made, "region-features")) == 1
    absent = of_code(made, "series-quality")[1]
    assert absent["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert absent["note"][0]["text"].startswith("refusal: 2 slices")
    Observation.model_validate_json(json.dumps(absent))
    assert {fact.absent_reason for fact in facts(made) if fact.code.code == "series-quality"} == {None, "not-performed"}


def test_a_region_that_does_not_fit_says_so() -> None:
    rows = series()
    made = looked(objects(*rows, structure_set(rows, [circle(STEP * 4.4, 9)])))
    (features,) = of_code(made, "region-features")
    assert features["dataAbsentReason"]["text"] == "a contour does not lie on a slice of the images (3006,0050)"
    assert "component" not in features
    Observation.model_validate_json(json.dumps(features))


def test_without_a_region_the_rule_is_named_and_stays_preliminary() -> None:
    rows = series()
    made = looked(objects(*rows), Looking(pictures=1))
    (features,) = of_code(made, "region-features")
    assert features["status"] == "preliminary"
    assert [each["code"] for each in features["method"]["coding"]] == ["scale-HU", "rule-ct-body"]
    assert "focus" not in features
    assert any("it is no lesion [rule]" in note["text"] for note in features["note"])
    off = looked(objects(*rows), Looking(rules=False))
    assert not of_code(off, "region-features")
    assert [finding.code for finding in off.findings] == ["no-region"]


def test_an_mr_series_has_a_fixed_number_of_grey_levels() -> None:
    rows = series(modality="MR")
    made = looked(objects(*rows, segmentation(rows, [ball()])))
    (features,) = of_code(made, "region-features")
    assert "fixed bin number 32" in features["method"]["text"]
    mean = features["component"][0]["valueQuantity"]
    assert (mean["unit"], mean["code"]) == ("1", "1")


def test_no_more_regions_than_the_site_wants() -> None:
    rows = series()
    made = looked(objects(*rows, segmentation(rows, [ball()] * 3)), Looking(regions=2, pictures=1))
    assert len(of_code(made, "region-features")) == 2
    assert [finding.code for finding in made.findings] == ["many-regions"]


def test_text_in_the_pixels_is_never_shown() -> None:
    rows = series()
    for each in rows:
        each.BurnedInAnnotation = "YES"
    made = looked(objects(*rows, segmentation(rows, [ball()])))
    assert made.pictures == []
    assert (
        of_code(made, "series-quality")[0]["dataAbsentReason"]["text"] == "text is burned into the pixels (0028,0301)"
    )


def test_a_test_patient_stays_one() -> None:
    rows = series()
    for each in rows:
        each.QualityControlImage = each.QualityControlSubject = "YES"
    made = looked(objects(*rows, segmentation(rows, [ball()])), Looking(pictures=1))
    assert all("meta" in each for each in made.resources)


class Thirds:
    """An encoder: mean, and share of pixels above the middle."""

    name, version, digest, length = "thirds", "1", "ab" * 32, 2
    tiling: Mapping[str, Any] = MappingProxyType(
        {"size": 8, "stride": 8, "low": -1000, "high": 1000, "batch": 3, "scale": "HU"}
    )

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def run(self, tiles: np.ndarray) -> np.ndarray:
        self.seen.append(tiles.shape)
        return np.column_stack([tiles.mean(axis=(1, 2, 3)), (tiles > 0.5).mean(axis=(1, 2, 3))])


def test_an_encoders_vector_is_the_mean_over_tiles(given: Objects) -> None:
    encoder = Thirds()
    made = looked(given, Looking(encoder=encoder, pictures=1))
    (vector,) = of_code(made, "region-embedding")
    Observation.model_validate_json(json.dumps(vector))
    assert all(shape[1:] == (1, 8, 8) and shape[0] <= 3 for shape in encoder.seen)
    values = [each["valueQuantity"]["value"] for each in vector["component"]]
    assert 0.5 < values[0] < 0.65
    codes = [fact.code.token for fact in facts(made) if "embedding" in fact.code.system]
    assert codes == [f"urn:cds-server:embedding:{'ab' * 8}|{at}" for at in (0, 1)]
    mr = series(modality="MR")
    other = looked(objects(*mr, segmentation(mr, [ball()])), Looking(encoder=Thirds(), pictures=1))
    assert not of_code(other, "region-embedding"), "it was made for HU"


def rejected(rows: Sequence[Dataset]) -> Dataset:
    """A Key Object Selection that takes one image back (IHE IOCM)."""
    made = structure_set(rows, [])
    for name in ("StructureSetROISequence", "ROIContourSequence", "ReferencedFrameOfReferenceSequence"):
        delattr(made, name)
    made.SOPClassUID, made.Modality = "1.2.840.10008.5.1.4.1.1.88.59", "KO"
    title, evidence, row, one = Dataset(), Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113001", "DCM", "Rejected for Quality Reasons"
    made.ConceptNameCodeSequence = [title]
    evidence.StudyInstanceUID, row.SeriesInstanceUID = rows[0].StudyInstanceUID, rows[0].SeriesInstanceUID
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = rows[0].SOPClassUID, rows[0].SOPInstanceUID
    row.ReferencedSOPSequence, evidence.ReferencedSeriesSequence = [one], [row]
    made.CurrentRequestedProcedureEvidenceSequence = [evidence]
    return made


def test_what_was_taken_back_is_not_looked_at() -> None:
    rows = in_order(series())
    made = looked(objects(*rows, rejected(rows)))
    (quality,) = of_code(made, "series-quality")
    assert quality["valueCodeableConcept"]["coding"][0]["code"] == "usable"
    (features,) = of_code(made, "region-features")
    assert "note" in next(each for each in made.resources if each["resourceType"] == "ImagingStudy")
    assert next(each for each in made.resources if each["resourceType"] == "ImagingStudy")["numberOfInstances"] == 15
    assert features["component"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RescaleSlope", "1e300"),
        ("RescaleSlope", "1e36"),
        ("RescaleSlope", "0"),
        ("RescaleIntercept", "-1e300"),
        ("PixelSpacing", ["1e-300", "1e-300"]),
        ("PixelSpacing", ["1e300", "1"]),
        ("ImagePositionPatient", ["1e300", "0", "1e300"]),
        ("ImageOrientationPatient", ["1e200", "0", "0", "0", "1e200", "0"]),
        ("WindowWidth", "1e300"),
        ("WindowWidth", "0"),
        ("WindowCenter", "-1e300"),
        ("BitsStored", 3),
    ],
)
def test_absurd_numbers_are_a_finding_or_are_left_out(name: str, value: Any) -> None:
    rows = series()
    seg = segmentation(rows, [ball()])
    for each in rows:
        setattr(each, name, value)
    made = looked(objects(*rows, seg), Looking(pictures=1))
    assert len(of_code(made, "series-quality")) == 1
    canonical(made.resources)
    for features in of_code(made, "region-features"):
        assert all(np.isfinite(each["valueQuantity"]["value"]) for each in features.get("component", []))


def test_damaged_objects_never_end_an_examination() -> None:
    """Bytes of every kind of object changed at random: findings, or a study that cannot be put together."""
    rows = series(slices=5, size=16)
    mask = np.zeros((5, 16, 16), bool)
    mask[1:4, 5:11, 5:11] = True
    whole = objects(*rows, segmentation(rows, [mask]), structure_set(rows, [circle(STEP * at, 3) for at in (1, 2)]))
    rng = np.random.default_rng(9)
    looked_at = 0
    for _ in range(150):
        given: Objects = {}
        for body in whole.values():
            broken = bytearray(body)
            for at in rng.integers(132, len(broken), int(rng.integers(0, 4))):
                broken[at] = int(rng.choice(list(b"0123456789.-e\\\0\xff")))
            with contextlib.suppress(BadInput):
                given[header_of(bytes(broken)).sop_uid] = bytes(broken)
        with contextlib.suppress(BadInput):
            headers, opened = held(given)
            study = imaging_study(headers, ARCHIVE)
            canonical(examine(study, headers, opened, ARCHIVE, Looking(pictures=1)).resources)
            looked_at += 1
    assert looked_at > 50


def test_a_real_series_of_a_head(peer_data: Path) -> None:
    """Twenty slices of a de-faced brain in public domain: whole numbers without a window, made from another format."""
    bodies = [path.read_bytes() for path in sorted((peer_data / "dicom" / "brain-mr-pddl").glob("*.dcm"))]
    made = looked({header_of(body).sop_uid: body for body in bodies}, Looking(pictures=1))
    (quality,), (features,) = of_code(made, "series-quality"), of_code(made, "region-features")
    assert quality["valueCodeableConcept"]["coding"][0]["code"] == "usable"
    assert [finding.code for finding in made.findings] == ["derived"]
    assert features["method"]["coding"][1]["code"] == "rule-mr-bright"
    found = {each["code"]["coding"][0]["code"]: each["valueQuantity"]["value"] for each in features["component"]}
    assert 1e5 < found["RNU0"] < 2e5
    assert "ACUI" in found
    (media,) = [each for each in made.resources if each["resourceType"] == "Media"]
    assert "window by percentiles" in media["note"][0]["text"]
    assert (media["width"], media["height"]) == (288, 384) == Image.open(io.BytesIO(made.pictures[0][1])).size


@dataclass(frozen=True, slots=True)
class _Played(FullSet):
    """The full set without its package."""

    fails: bool = False

    def measures(self, values: Any, mask: Any, spacing: Any, **how: Any) -> Mapping[str, float]:
        if self.fails:
            raise Unreadable("mirp cannot measure the region (ValueError)")
        assert values.shape == mask.shape
        return {"morph_volume": float(mask.sum() * np.prod(spacing)), "stat_mean": float(values[mask].mean()), **how}


def test_the_full_set_stands_beside_our_features_where_a_site_asks_for_it(given: Objects) -> None:
    made = looked(given, Looking(pictures=1, full=_Played("2.7.0")))
    (ours,), (full,) = of_code(made, "region-features"), of_code(made, "region-full-set")
    assert (full["focus"], full["derivedFrom"], full["status"]) == (ours["focus"], ours["derivedFrom"], ours["status"])
    values = {
        each["code"]["coding"][0]["code"]: each["valueQuantity"]["value"]
        for each in full["component"]
        if each["code"]["coding"][0]["system"] == "urn:cds-server:mirp:2.7.0"
    }
    assert values["width"] == 25
    assert values["morph_volume"] > 0
    assert "MIRP 2.7.0" in full["method"]["text"]
    failing = looked(given, Looking(pictures=1, full=_Played("2.7.0", fails=True)))
    assert not of_code(failing, "region-full-set")
    assert of_code(failing, "region-features")
    assert "no-full-set" in {finding.code for finding in failing.findings}
