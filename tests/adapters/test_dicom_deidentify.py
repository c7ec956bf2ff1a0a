"""PS3.15 Annex E against objects with a person planted everywhere; the table, reports, maps, dates."""

from __future__ import annotations

import json
import re
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from adapters.dicom.deidentify.copy import copy
from adapters.dicom.deidentify.profile import EDITION, OPTIONS, Profile, profile, profiles, resolved
from adapters.dicom.deidentify.project import FURTHEST, NEAREST, Project, hour, moved
from adapters.dicom.deidentify.words import Words
from adapters.dicom.headers import header_of
from models.errors import Misconfigured
from tests.adapters.dicom_deidentified import ALL, KEY, ct, result, run
from tests.adapters.dicom_planted import BORN, DOCTOR, FAMILY, NAME, NUMBER, found_in, planted, written
from tests.adapters.dicom_samples import package_files as samples
from tests.dicom_made import ct_series, enhanced_ct, mammogram, part10, uid

# ---- nobody is left --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(profiles()))
def test_nothing_planted_is_left_in_a_made_object_under_any_profile(name: str, tmp_path: Path) -> None:
    for number, made in enumerate((next(iter(ct_series(slices=1))), mammogram(), enhanced_ct())):
        raw = written(planted(part10(made)))
        assert len(found_in(raw)) >= 5
        outcome = run(raw, tmp_path, name, number=number)
        assert outcome.state == "written", outcome.reason
        assert found_in((tmp_path / outcome.output).read_bytes()) == []
        assert found_in(outcome.output.encode()) == []


@pytest.mark.parametrize("name", ["basic", "site"])
def test_nothing_planted_is_left_in_anybodys_files(name: str, tmp_path: Path, peer_data: Path) -> None:
    tried = 0
    everybodys = [*samples(), *sorted((peer_data / "dicom" / "highdicom").rglob("*.dcm"))]
    for number, path in enumerate(everybodys if name == "basic" else everybodys[::3]):
        try:
            raw = written(planted(path))
            header_of(raw)
        except Exception:  # noqa: BLE001, S112 (no object of one's own, or one that pydicom cannot write)
            continue
        outcome = run(raw, tmp_path, name, number=number)
        if outcome.state != "written":
            assert outcome.state in ("unreadable", "refused"), (path.name, outcome.state)
            assert found_in(outcome.reason.encode()) == []
            continue
        tried += 1
        copied = (tmp_path / outcome.output).read_bytes()
        assert found_in(copied) == [], path.name
        assert found_in(json.dumps([outcome.actions, outcome.cleaned, outcome.flags]).encode()) == [], path.name
        (tmp_path / outcome.output).unlink()
    assert tried > (100 if name == "basic" else 30)


def test_names_in_the_character_set_of_the_sender_are_found(tmp_path: Path) -> None:
    for charset in (["", "ISO 2022 IR 87"], ["ISO_IR 13", "ISO 2022 IR 87"], "GB18030"):
        data = next(iter(ct_series(slices=1, size=16)))
        data.SpecificCharacterSet = charset
        data.PatientName = NAME if charset != "GB18030" else "Zebrowska^Quintessa=鷲尾須美"
        data.ContentDescription = data.ProtocolName = data.ConvolutionKernel = "鷲尾須美"
        copied = result(part10(data), tmp_path, "research")
        assert copied.SpecificCharacterSet == "ISO_IR 192"
        assert found_in((tmp_path / run(part10(data), tmp_path, "research").output).read_bytes()) == []
        assert "鷲尾" not in str(copied.get("ConvolutionKernel", ""))


def test_text_that_stays_loses_the_patient_and_nothing_else(tmp_path: Path) -> None:
    raw = ct(
        PatientName=NAME,
        PatientID=NUMBER,
        ReferringPhysicianName=f"{DOCTOR}^B",
        SeriesDescription=f"T1 ax fs {FAMILY.upper()} {NUMBER}",
        StudyDescription=f"knee left, Dr {DOCTOR} 03/04/2019 call 030 1234567",
        ConvolutionKernel="B30f",
    )
    copied = result(raw, tmp_path, "research")
    assert copied.SeriesDescription == "T1 ax fs REMOVED REMOVED"
    assert copied.StudyDescription == "knee left, REMOVED REMOVED call REMOVED"
    assert copied.ConvolutionKernel == "B30f"
    assert "SeriesDescription" not in result(raw, tmp_path, "basic")


def test_words_are_whole_words_and_scripts_without_blanks_are_found_inside() -> None:
    words = Words(["Lee", "鷲尾"], ["19410307"])
    assert words.replaced("Lee sleeps in Leeds; LEE_1; 様鷲尾様") == (
        "REMOVED sleeps in Leeds; REMOVED_1; 様REMOVED様",
        3,
    )
    assert words.replaced("7.3.1941, 1941-03-07, 03/07/1941, 419410307")[1] == 3
    assert words.replaced("see 1.2.826.0.1.3680043.10.1561.7 and 1.2.840.10008.5.1.4.1.1.2")[0] == (
        "see REMOVED and 1.2.840.10008.5.1.4.1.1.2"
    )


def test_a_patient_may_have_the_name_of_an_option_or_a_maker_and_a_small_number(tmp_path: Path) -> None:
    data = next(iter(ct_series(slices=1, size=16)))
    data.PatientName, data.PatientID, data.RescaleIntercept, data.ExposureTime = (
        "Patient^Philips",
        "1000",
        "-1000",
        "1000",
    )
    data.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "1.25")
    copied = result(part10(data), tmp_path, "research")
    assert (copied.RescaleIntercept, copied.ExposureTime) == (-1000, 1000)
    assert copied[0x70531000].value == 1.25


@pytest.mark.parametrize("spelling", ["Müller", "MUELLER", "Muller", "muellerjana", "JanaMüller"])
def test_names_are_found_as_other_systems_write_them(spelling: str, tmp_path: Path) -> None:
    copied = result(ct(PatientName="Müller^Jana", SeriesDescription=f"knee {spelling}_2"), tmp_path, "research")
    assert copied.SeriesDescription == "knee REMOVED_2"


def test_text_where_the_dictionary_has_numbers_goes(tmp_path: Path) -> None:
    data = next(iter(ct_series(slices=1, size=16)))
    data.add_new(0x00080001, "SH", "ACC-1")  # Length to End, a number of the year 1993
    data.add_new(0x00281101, "LO", "somebody")
    copied = result(part10(data), tmp_path, "research")
    assert 0x00080001 not in copied
    assert 0x00281101 not in copied


def test_the_original_is_not_changed_and_the_copy_is_another_series(tmp_path: Path) -> None:
    raw = ct(PatientName=NAME)
    path = tmp_path / "in.dcm"
    path.write_bytes(raw)
    outcome = copy(1, lambda: path.open("rb"), tmp_path, profile("basic"), Project(KEY), ALL, {})
    assert path.read_bytes() == raw
    before, after = header_of(raw), header_of((tmp_path / outcome.output).read_bytes())
    assert before.sop_class == after.sop_class
    assert not {before.sop_uid, before.series_uid, before.study_uid} & {
        after.sop_uid,
        after.series_uid,
        after.study_uid,
    }


def test_what_it_is_says_so(tmp_path: Path) -> None:
    copied = result(ct(), tmp_path, "model")
    assert copied.PatientIdentityRemoved == "YES"
    assert copied.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [item.CodeValue for item in copied.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113108", "113109", "113111"]
    assert copied.file_meta.MediaStorageSOPInstanceUID == copied.SOPInstanceUID
    assert set(copied.file_meta.keys()) == {0x00020000 + n for n in (0, 1, 2, 3, 0x10, 0x12, 0x13)}
    assert result(ct(), tmp_path, "basic").LongitudinalTemporalInformationModified == "REMOVED"
    assert result(ct(), tmp_path, "site").LongitudinalTemporalInformationModified == "UNMODIFIED"


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_whole() -> None:
    lines = [
        line.split("\t")
        for line in (Path(profile.__code__.co_filename).parent / "confidentiality.tsv").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert len(lines) - 1 == 655
    assert {len(line) for line in lines} == {12}
    assert lines[0][3:] == [OPTIONS[name][0] for name in _COLUMNS]
    assert {line[2] for line in lines[1:]} == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    assert {cell for line in lines[1:] for cell in line[3:]} == {"K", "C", "-"}
    assert EDITION == "2026c"


_COLUMNS = (
    *("uids", "device-identity", "institution-identity", "patient-characteristics", "full-dates", "modified-dates"),
    *("clean-descriptors", "clean-structured-content", "clean-graphics"),
)


def test_choices_follow_the_type_of_the_attribute() -> None:
    ct_class, mr_enhanced = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
    assert resolved("X/Z/D", 0x00181000, ct_class, top=True) == "X"  # Device Serial Number: type 3 of a CT
    assert resolved("X/Z/D", 0x00181000, mr_enhanced, top=True) == "D"  # type 1 of enhanced equipment
    assert resolved("X/Z/D", 0x00181000, ct_class, top=False) == "D"
    assert resolved("Z/D", 0x00100020, ct_class, top=True) == "Z"
    assert resolved("X/Z/U*", 0x00081140, ct_class, top=True) == "U*"
    assert resolved("X", 0x00100021, ct_class, top=True) == "X"


def test_options_exclude_each_other_and_have_names() -> None:
    with pytest.raises(Misconfigured, match="exclude"):
        profile("research", ["full-dates"])
    with pytest.raises(Misconfigured, match="unknown"):
        profile("basic", ["all"])
    with pytest.raises(Misconfigured, match="basic, research"):
        profile("none")
    assert Profile("x", frozenset(["uids", "device-identity"])).action(0x00181002) == "K"
    assert Profile("x", frozenset(["patient-characteristics"])).action(0x00102110) == "C"


@pytest.mark.parametrize(
    ("option", "keyword", "value"),
    [
        ("institution-identity", "InstitutionName", "General"),
        ("device-identity", "StationName", "CT7"),
        ("patient-characteristics", "PatientSize", 1.8),
        ("uids", "FrameOfReferenceUID", uid("frame")),
        ("full-dates", "AcquisitionDate", "20200229"),
        ("clean-descriptors", "RequestedProcedureDescription", "knee"),
    ],
)
def test_each_option_keeps_what_basic_does_not(option: str, keyword: str, value: object, tmp_path: Path) -> None:
    raw = ct(**{keyword: value})
    basic = result(raw, tmp_path)
    assert basic.get(keyword) != value
    chosen = copy(1, lambda: BytesIO(raw), tmp_path, profile("basic", [option]), Project(KEY), ALL, {})
    assert dcmread(tmp_path / chosen.output)[keyword].value == value


def test_ages_over_89_are_one_group(tmp_path: Path) -> None:
    assert result(ct(PatientAge="097Y"), tmp_path, "research").PatientAge == "090Y"
    assert result(ct(PatientAge="045Y"), tmp_path, "research").PatientAge == "045Y"
    assert "age-over-89" in run(ct(PatientAge="097Y"), tmp_path, "research").flags


def test_private_attributes_stay_only_from_the_safe_list(tmp_path: Path) -> None:
    data = next(iter(ct_series(slices=1, size=16)))
    block = data.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "1.25")
    block.add_new(0x05, "LO", "not listed")
    data.private_block(0x7053, "Somebody", create=True).add_new(0x00, "DS", "2.5")
    copied = result(part10(data), tmp_path, "model")
    assert [(str(each.tag), each.value) for each in copied if each.tag.is_private] == [
        ("(7053,0010)", "Philips PET Private Group"),
        ("(7053,1000)", 1.25),
    ]
    assert not any(each.tag.is_private for each in result(part10(data), tmp_path, "basic"))


def test_reports_lose_text_and_names_and_keep_measurements(tmp_path: Path, peer_data: Path) -> None:
    path = next(each for each in samples() if each.name == "test-SR.dcm")
    raw = written(planted(path))
    for name, text in (("basic", "REMOVED"), ("research", None)):
        outcome = run(raw, tmp_path, name)
        assert outcome.state == "written", outcome.reason
        copied = dcmread(tmp_path / outcome.output)
        kinds = [item.ValueType for item in _items(copied)]
        assert kinds == [item.ValueType for item in _items(dcmread(path))]
        for item in _items(copied):
            if item.ValueType == "PNAME":
                assert str(item.PersonName) == "REMOVED"
            if item.ValueType == "TEXT" and text:
                assert item.TextValue == text


def _items(data: Dataset) -> list[Dataset]:
    nested = [each for item in data.get("ContentSequence", ()) for each in (item, *_items(item))]
    return [item for item in nested if "ValueType" in item]  # the others refer to one of these


# ---- maps ------------------------------------------------------------------------------------------------------------


def test_maps_hold_across_files_runs_and_depths_and_not_across_projects(tmp_path: Path) -> None:
    first, second = ct_series(slices=2, size=16)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = first.SOPClassUID, first.SOPInstanceUID
    outer = Dataset()
    outer.ReferencedSOPSequence = Sequence([item])
    second.ReferencedImageSequence = Sequence([item])
    second.ReferencedInstanceSequence = Sequence([outer])
    one, two = result(part10(first), tmp_path), result(part10(second), tmp_path)
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert one.SeriesInstanceUID == two.SeriesInstanceUID
    assert one.PatientID == two.PatientID
    assert two.ReferencedImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
    assert two.ReferencedInstanceSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
    assert two.ReferencedImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID
    (tmp_path / "again").mkdir()
    assert run(part10(first), tmp_path / "again").digest == run(part10(first), tmp_path).digest
    other = result(part10(first), tmp_path, key=bytes(32))
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert other[keyword].value != one[keyword].value


def test_keyed_uids_are_uids() -> None:
    made = {Project(KEY).uid(f"1.2.3.{number}") for number in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"2\.25\.[1-9]\d{0,38}", each) and len(each) <= 64 for each in made)


def test_all_dates_of_a_patient_move_by_the_same_days(tmp_path: Path) -> None:
    raw = ct(
        StudyDate="20240229",
        AcquisitionDateTime="20240301235959.5+0100",
        ContentDate="20240302",
        AcquisitionTime="101112",
        PatientBirthDate=BORN,
    )
    copied = result(raw, tmp_path, "research")
    days = [
        date.fromisoformat(str(value)[:8])
        for value in (copied.StudyDate, copied.AcquisitionDateTime, copied.ContentDate)
    ]
    assert [(day - days[0]).days for day in days] == [0, 1, 2]
    shift = (date(2024, 2, 29) - days[0]).days
    assert NEAREST <= shift <= FURTHEST
    assert copied.AcquisitionDateTime[8:] == "235959.5+0100"
    assert copied.AcquisitionTime == "101112"
    assert copied.PatientBirthDate == ""
    assert Project(KEY).days("made-1", "MADE") == -shift
    coarse = copy(1, lambda: BytesIO(raw), tmp_path, profile("research", coarse=True), Project(KEY), ALL, {})
    found = dcmread(tmp_path / coarse.output)
    assert (found.AcquisitionTime, found.AcquisitionDateTime[8:]) == ("10", "23+0100")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20240301", "20240229"),
        ("2024.03.01", "20240229"),
        ("20240301120000", "20240229120000"),
        ("2024", "2024"),
        ("202403", "202402"),
        ("", ""),
        ("00010101", ""),
        ("20241301", ""),
        ("yesterday", ""),
        ("20240301 Zebrowska", ""),
    ],
)
def test_moved(value: str, expected: str) -> None:
    assert moved(value, -1) == expected


def test_hours() -> None:
    assert [hour(each) for each in ("101112.5", "20240301101112+0100", "x")] == ["10", "2024030110+0100", ""]
