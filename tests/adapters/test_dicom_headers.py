"""One object's header: what it says, in its character set, and what becomes of values that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from adapters.dicom.headers import Header, header_of
from models.canonical import spell
from models.errors import Malformed, Unreadable
from tests.adapters.dicom_reports import IMAGE, rejection, segmentation, structure_set
from tests.adapters.dicom_samples import code, dataset, file, package_files, written


def named(name: str) -> bytes:
    return next(path for path in package_files() if path.name == name).read_bytes()


def test_every_file_gives_a_header_that_survives_json_or_a_reason() -> None:
    read = 0
    for path in package_files():
        try:
            header = header_of(path.read_bytes())
        except (Malformed, Unreadable):
            continue
        read += 1
        assert Header.from_plain(header.plain()) == header
        assert spell(header.plain())
        with path.open("rb") as stream:
            assert header_of(stream) == header
    assert read > 220


def test_the_header_of_a_ct_image(peer_data: Path) -> None:
    header = header_of((peer_data / "dicom" / "highdicom" / "ct_image.dcm").read_bytes())
    assert (header.patient.id.value if header.patient.id else None, header.patient.sex) == ("1CT1", "O")
    assert (header.study.date, header.study.time, header.offset) == ("20040119", "072730", "-0500")
    assert (header.series.modality, header.series.number, header.number) == ("CT", 1, 1)
    assert header.scanner.manufacturer == "GE MEDICAL SYSTEMS"
    assert header.scanner.software == ("05",)
    image = header.image
    assert image is not None
    assert (image.rows, image.columns, image.bits_stored, image.signed) == (128, 128, 16, True)
    assert image.spacing == (0.661468, 0.661468)
    assert image.position == (-158.135803, -179.035797, -75.699997)
    assert (image.slope, image.intercept, image.padding) == (1.0, -1024.0, -2000)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chrRuss.dcm", "Люкceмбypг"),
        ("chrGreek.dcm", "Διονυσιος"),
        ("chrH31.dcm", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrI2.dcm", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrX1.dcm", "Wang^XiaoDong=王^小東="),
        ("chrX2.dcm", "Wang^XiaoDong=王^小东="),
        ("chrFren.dcm", "Buc^Jérôme"),
    ],
)
def test_names_in_their_character_sets(name: str, expected: str) -> None:
    assert header_of(named(name)).patient.name == expected


def test_text_without_a_declared_character_set_is_read_as_utf_8_else_latin_1() -> None:
    made = dataset()
    made.add_new(0x00100010, "PN", b"M\xc3\xbcller^A")
    assert header_of(written(made)).patient.name == "Müller^A"
    made.add_new(0x00100010, "PN", b"M\xfcller^A ")
    assert header_of(written(made)).patient.name == "Müller^A"


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_values_that_are_none_are_left_out_and_named() -> None:
    made = dataset()
    made.add_new(0x00280030, "LO", "wide\\0.5")
    made.add_new(0x00200037, "DS", "1\\0\\0")
    made.add_new(0x00280008, "IS", "1")
    made.add_new(0x00281053, "FD", float("nan"))
    made.add_new(0x00200052, "UI", "1.2.3/../../etc")
    header = header_of(written(made))
    assert header.image is not None
    assert header.image.spacing == header.image.orientation == ()
    assert header.image.slope is None
    assert header.image.frame_of_reference == ""
    assert header.problems == ("(0020,0037)", "(0020,0052)", "(0028,0030)", "(0028,1053)")


def test_numbers_are_read_in_whatever_vr_they_are_written() -> None:
    made = dataset(Rows=None)
    made.add_new(0x00280010, "IS", "512")
    made.add_new(0x00180050, "FD", 2.5)
    image = header_of(written(made)).image
    assert image is not None
    assert (image.rows, image.thickness) == (512, 2.5)


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/4", "1" * 80, "", "1.2 3", "1.2.3\n4"])
@pytest.mark.parametrize(
    ("tag", "where"), [(0x00080018, "(0008,0018)"), (0x0020000D, "(0020,000D)"), (0x0020000E, "(0020,000E)")]
)
def test_a_uid_that_is_none_is_refused_without_being_quoted(uid: str, tag: int, where: str) -> None:
    made = dataset()
    del made[tag]
    made.add_new(tag, "LT", uid)
    with pytest.raises(Unreadable) as refused:
        header_of(written(made))
    assert refused.value.where == where
    assert not uid or uid not in str(refused.value)


def test_issuers_and_other_patient_ids() -> None:
    universal, other = Dataset(), Dataset()
    universal.UniversalEntityID, universal.UniversalEntityIDType = "1.2.276.0.7", "ISO"
    other.PatientID, other.IssuerOfPatientID = "X9", "REGISTER"
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    header = header_of(
        file(
            IssuerOfPatientID="HOSP",
            IssuerOfPatientIDQualifiersSequence=[universal],
            OtherPatientIDsSequence=[other],
            AccessionNumber="A1",
            IssuerOfAccessionNumberSequence=[issuer],
        )
    )
    assert header.patient.id is not None
    assert (header.patient.id.issuer, header.patient.id.universal) == ("HOSP", "1.2.276.0.7")
    assert [(each.value, each.issuer) for each in header.patient.others] == [("X9", "REGISTER")]
    assert (header.study.accession, header.study.accession_issuer) == ("A1", "RIS")


def plane(z: float, spacing: tuple[float, float] | None = None) -> Dataset:
    made, position = Dataset(), Dataset()
    position.ImagePositionPatient = [0.0, 0.0, z]
    made.PlanePositionSequence = [position]
    if spacing:
        measures = Dataset()
        measures.PixelSpacing, measures.SliceThickness = list(spacing), 2.0
        made.PixelMeasuresSequence = [measures]
    return made


def test_functional_groups_are_summarised() -> None:
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 3.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    header = header_of(
        file(
            NumberOfFrames=4,
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=Sequence(plane(z) for z in (0.0, 3.0, 3.0, 6.0)),
        )
    )
    frames = header.frames
    assert frames is not None
    assert (frames.items, frames.positions, frames.thickness, frames.spacing) == (4, 3, 3.0, (0.5, 0.5))
    assert (frames.first, frames.last, frames.varies) == ((0.0, 0.0, 0.0), (0.0, 0.0, 6.0), ())
    mixed = header_of(file(PerFrameFunctionalGroupsSequence=[plane(0.0, (0.5, 0.5)), plane(2.0, (0.7, 0.7))])).frames
    assert mixed is not None
    assert (mixed.spacing, mixed.thickness, mixed.varies) == ((), 2.0, ("spacing",))


def test_what_suv_needs() -> None:
    given = Dataset()
    given.RadionuclideTotalDose, given.RadionuclideHalfLife = 370_000_000, 6586.2
    given.RadiopharmaceuticalStartDateTime = "20260301080000+0100"
    given.RadionuclideCodeSequence = [code("77004003", "SCT", "^18^Fluorine")]
    header = header_of(
        file(RadiopharmaceuticalInformationSequence=[given], Units="BQML", DecayCorrection="START", PatientWeight=70)
    )
    assert header.nuclear is not None
    assert (header.nuclear.dose, header.nuclear.half_life, header.nuclear.units) == (370e6, 6586.2, "BQML")
    assert header.nuclear.injected == "20260301080000+0100"
    assert header.nuclear.nuclide is not None
    assert header.patient.weight == 70.0


def test_references_of_segmentations_structure_sets_and_key_objects() -> None:
    assert [(row.study, row.series, row.instances) for row in header_of(segmentation()).references] == [
        ("", IMAGE[1], (IMAGE[2],))
    ]
    assert [(row.study, row.series, row.instances) for row in header_of(structure_set()).references] == [
        (IMAGE[0], IMAGE[1], (IMAGE[2],))
    ]
    taken_back = header_of(rejection("1.2.3.1", "1.2.3.2"))
    assert taken_back.rejects
    assert taken_back.references[0].instances == ("1.2.3.1", "1.2.3.2")
    assert not header_of(rejection("1.2.3.1", reason=("113000", "DCM", "Of Interest"))).rejects
