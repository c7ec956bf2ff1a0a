"""Pictures that may show who it is: refused, blanked; what hides beside a picture."""

from __future__ import annotations

import hashlib
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit

from adapters.dicom.deidentify.copy import Policy, copy
from adapters.dicom.deidentify.picture import without_comments
from adapters.dicom.deidentify.profile import profile
from adapters.dicom.deidentify.project import Project
from adapters.dicom.deidentify.risks import RISKS
from adapters.dicom.headers import header_of
from tests.adapters.dicom_deidentified import ALL, KEY, ct, region, result, run, ultrasound
from tests.adapters.dicom_planted import FAMILY, NUMBER, found_in
from tests.adapters.dicom_samples import package_files as samples
from tests.dicom_made import ct_series, part10

# ---- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "risk"),
    [
        ({"Modality": "US"}, "ultrasound"),
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"ConversionType": "DF"}, "digitised-film"),
        ({"ConversionType": "WSD"}, "secondary-capture"),
        ({"Modality": "XA"}, "fluoroscopy"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen"),
        ({"RecognizableVisualFeatures": "YES"}, "recognizable"),
        ({"Modality": "XC"}, "visible-light"),
    ],
)
def test_pictures_that_may_show_who_it_is_are_refused(changes: dict[str, object], risk: str, tmp_path: Path) -> None:
    for policy in (Policy(), Policy(blank=True)):
        outcome = run(ct(**changes), tmp_path, policy=policy)
        assert (outcome.state, outcome.risks) == ("refused", [risk])
        assert outcome.reason.startswith(RISKS[risk])
    assert list(tmp_path.rglob("*.dcm")) == []
    looked_at = run(ct(**changes), tmp_path, policy=Policy(inspected=frozenset([risk])))
    assert looked_at.state == "written"
    assert f"inspected: {risk}" in looked_at.flags


def test_encapsulated_documents_never_leave(tmp_path: Path) -> None:
    raw = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    assert run(raw, tmp_path).state == "refused"


def test_a_no_is_not_believed_of_ultrasound(tmp_path: Path) -> None:
    assert run(part10(ultrasound(BurnedInAnnotation="NO")), tmp_path, policy=Policy(blank=True)).state == "refused"


def test_of_ultrasound_only_its_regions_stay(tmp_path: Path) -> None:
    raw = part10(ultrasound(SequenceOfUltrasoundRegions=Sequence([region(4, 8, 27, 30)])))
    outcome = run(raw, tmp_path, policy=Policy(blank=True))
    assert outcome.pixels == "blanked: ultrasound regions"
    copied = dcmread(tmp_path / outcome.output)
    expected = np.zeros((32, 32), np.uint8)
    expected[8:31, 4:28] = 200
    assert np.array_equal(copied.pixel_array, expected)
    assert copied.BurnedInAnnotation == "NO"
    assert copied.ImageType[0] == "DERIVED"
    assert "113101" in [item.CodeValue for item in copied.DeidentificationMethodCodeSequence]
    large = run(
        part10(ultrasound(SequenceOfUltrasoundRegions=Sequence([region(0, 3, 31, 31)]))),
        tmp_path,
        policy=Policy(blank=True),
    )
    assert large.flags.count("large-regions") == 1
    assert "large-regions" not in outcome.flags
    whole = part10(ultrasound(SequenceOfUltrasoundRegions=Sequence([region(0, 0, 31, 31)])))
    assert run(whole, tmp_path, policy=Policy(blank=True)).state == "refused"


def test_rules_blank_the_strip_of_a_scanner(tmp_path: Path) -> None:
    data = ultrasound(Manufacturer="Philips Medical Systems", ManufacturerModelName="iU22")
    data.Rows, data.Columns = 480, 640
    data.PixelData = np.full((480, 640), 9, np.uint8).tobytes()
    outcome = run(part10(data), tmp_path, policy=Policy(blank=True))
    assert outcome.pixels == "blanked: Philips iU22 640"
    pixels = dcmread(tmp_path / outcome.output).pixel_array
    assert not pixels[:47].any()
    assert (pixels[47:] == 9).all()
    data.Rows = 240
    assert run(part10(data), tmp_path, policy=Policy(blank=True)).state == "refused"  # another size: another place


def test_compressed_pictures_are_blanked_too(tmp_path: Path) -> None:
    from PIL import Image

    buffer = BytesIO()
    Image.new("L", (32, 32), 200).save(buffer, "JPEG")
    data = ultrasound(SequenceOfUltrasoundRegions=Sequence([region(8, 8, 23, 23)]))
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    outcome = run(part10(data, syntax=JPEGBaseline8Bit), tmp_path, policy=Policy(blank=True))
    copied = dcmread(tmp_path / outcome.output)
    assert copied.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert not copied.pixel_array[:8].any()
    assert abs(int(copied.pixel_array[16, 16]) - 200) < 3


def test_what_hides_beside_the_picture_goes(tmp_path: Path) -> None:
    data = next(iter(ct_series(slices=1, size=16)))
    clean = data.PixelData
    words = np.frombuffer(clean, "<u2") | (1 << 15)
    data.PixelData = words.tobytes() + NUMBER.encode() + b"\0" * (len(NUMBER) % 2)
    data.add_new(0x60000010, "US", 16)
    data.add_new(0x60000011, "US", 16)
    data.add_new(0x60000102, "US", 15)
    data.add_new(0xFFFCFFFC, "OB", FAMILY.encode() + b"\0")
    outcome = run(part10(data), tmp_path)
    raw = (tmp_path / outcome.output).read_bytes()
    assert found_in(raw) == []
    assert "pixels-cleaned" in outcome.flags
    copied = dcmread(BytesIO(raw))
    assert copied.PixelData[: len(clean)] == clean
    assert 0x60000010 not in copied


def test_comments_of_code_streams_are_overwritten_in_place() -> None:
    jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xfe\x00\x0bZebrowska\xff\xda\x00\x02ff"
    clean, count = without_comments(jpeg)
    assert (len(clean), count) == (len(jpeg), 9)
    assert b"Zebrowska" not in clean
    assert clean.replace(bytes(9), b"Zebrowska") == jpeg
    j2k = b"\xff\x4f\xff\x51\x00\x04ab\xff\x64\x00\x0d\x00\x01Zebrowska\xff\x90\x00\x0a"
    clean, count = without_comments(j2k)
    assert (len(clean), count, b"Zebrowska" in clean) == (len(j2k), 9, False)


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_cut_off_code_streams_do_no_harm(cut: int) -> None:
    jpeg = b"\xff\xd8\xff\xfe\x00\x00\xff\xfe\xff\xffZebrowska\xff\xda\x00\x02ff"
    assert len(without_comments(jpeg[:cut])[0]) == len(jpeg[:cut])


def test_big_endian_and_deflated_objects_are_written_anew_with_the_same_values(tmp_path: Path) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    data = next(iter(ct_series(slices=1, size=16)))
    expected = data.pixel_array if hasattr(data, "file_meta") else np.frombuffer(data.PixelData, "<u2").reshape(16, 16)
    copied = result(part10(data, syntax=DeflatedExplicitVRLittleEndian), tmp_path)
    assert np.array_equal(copied.pixel_array, expected)
    big = next(iter(ct_series(slices=1, size=16)))
    big.PixelData = np.frombuffer(big.PixelData, "<u2").astype(">u2").tobytes()
    copied = result(part10(big, syntax=ExplicitVRBigEndian), tmp_path)
    assert np.array_equal(copied.pixel_array, expected)
    assert copied.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_everybodys_pixels_are_the_same_bytes_and_our_reader_reads_the_copies(tmp_path: Path) -> None:
    same = 0
    for number, path in enumerate(samples()):
        outcome = copy(number, lambda path=path: path.open("rb"), tmp_path, profile("research"), Project(KEY), ALL, {})
        if outcome.state != "written":
            continue
        copied = tmp_path / outcome.output
        before, after = header_of(path.read_bytes()), header_of(copied.read_bytes())
        assert after.sop_class == before.sop_class, path.name
        assert after.patient.identity_removed
        assert (after.image is None) == (before.image is None), path.name
        if outcome.pixels == "copied" and "pixels-cleaned" not in outcome.flags:
            assert pixels_of(path) == pixels_of(copied), path.name
            same += 1
        copied.unlink()
    assert same > 60


def pixels_of(path: Path) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dcmread(path)
        name = next(name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if name in data)
        return hashlib.sha256(data[name].value).digest()


def test_heads_are_flagged_and_may_be_refused(tmp_path: Path) -> None:
    assert "face" in run(ct(BodyPartExamined="HEAD"), tmp_path).flags
    assert "face" in run(ct(), tmp_path).flags  # it does not say of what it is
    assert "face" not in run(ct(BodyPartExamined="CHEST"), tmp_path).flags
    assert run(ct(BodyPartExamined="BRAIN"), tmp_path, policy=Policy(refuse_faces=True)).state == "refused"
