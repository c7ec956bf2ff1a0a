"""DICOM objects in which a person's values stand wherever text can stand: what a de-identified copy is searched for."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import PersonName

FAMILY, GIVEN, NUMBER, KANJI = "Zebrowska", "Quintessa", "QX884213", "鷲尾須美"
NAME = f"{FAMILY}^{GIVEN}={KANJI}^花"
WORDS = (FAMILY, GIVEN, NUMBER, KANJI)
DOCTOR = "Vandersteen"
BORN = "19410307"
_LONG = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "UT": 5000, "UC": 5000}
LEFT = {0x00080005, 0x00080008, 0x00080016, 0x00080060, 0x00280004, 0x0040A040, 0x0040A010, 0x0040A050, 0x00080102}
"""Not planted into: values that say what the object is, of a fixed set."""


def planted(source: bytes | Path) -> Dataset:
    """The object with the person in every text element, at every depth; and five deep, in private, unknown, overlay and
    file meta elements."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dcmread(BytesIO(source) if isinstance(source, bytes) else source)
        data.SpecificCharacterSet = "ISO_IR 192"
        _plant(data, deidentified=False)
        data.PatientName, data.PatientID, data.PatientBirthDate = PersonName(NAME), NUMBER, BORN
        data.OtherPatientNames, data.ReferringPhysicianName = f"{FAMILY}^Maiden", f"{DOCTOR}^Bo"
        data.AccessionNumber = "ACC-77120"
        data.StudyDescription = f"{GIVEN} {FAMILY}, seen by Dr {DOCTOR}, born 07.03.1941"
        data.ImageComments, data.PatientComments = f"call {NUMBER}", f"{KANJI}様"
        inner = Dataset()
        inner.CodeMeaning, inner.PatientName = f"told {FAMILY}", PersonName(NAME)
        for _ in range(5):
            outer = Dataset()
            outer.ConceptNameCodeSequence = Sequence([inner])
            outer.TextValue = f"{GIVEN} {NUMBER}"
            inner = outer
        data.AcquisitionContextSequence = Sequence([inner])
        block = data.private_block(0x0099, "MADE PRIVATE", create=True)
        block.add_new(0x01, "LO", f"{FAMILY} {NUMBER}")
        block.add_new(0x02, "UN", NUMBER.encode())
        safe = data.private_block(0x7053, "Philips PET Private Group", create=True)
        safe.add_new(0x00, "DS", "1.25")
        safe.add_new(0x01, "LO", FAMILY)
        data.add_new(0x00189999, "UN", GIVEN.encode())
        data.add_new(0x60000010, "US", 8)
        data.add_new(0x60000011, "US", 8)
        data.add_new(0x60000022, "LO", f"overlay {FAMILY}")
        data.add_new(0x60003000, "OW", (NUMBER + "..").encode())
        data.add_new(0x60004000, "LT", GIVEN)
        data.add_new(0x50003000, "OW", (NUMBER + "..").encode())
        data.file_meta.SourceApplicationEntityTitle = NUMBER
        data.file_meta.PrivateInformationCreatorUID = "1.2.3.4"
        data.file_meta.PrivateInformation = f"{FAMILY}.".encode()
        data.preamble = FAMILY.encode().ljust(128, b"\0")
    return data


def _plant(data: Dataset, *, deidentified: bool) -> None:
    for tag in list(data.keys()):
        try:
            element = data[tag]
            VR = element.VR
        except Exception:  # noqa: BLE001, S112 (what pydicom cannot read stays as it is)
            continue
        if VR == "SQ":
            for item in element.value:
                _plant(item, deidentified=deidentified)
        elif int(tag) in LEFT or tag.is_private:
            continue
        elif VR == "PN":
            element.value = PersonName(NAME)
        elif VR in _LONG:
            element.value = f"{FAMILY} {NUMBER} {GIVEN} {KANJI}"[: _LONG[VR]]
        elif VR in ("CS", "AE"):
            element.value = NUMBER


def written(data: Dataset) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def found_in(raw: bytes) -> list[str]:
    """Which words of the person stand in the bytes, in any spelling that a DICOM writer may have used."""
    kinds = ("utf-8", "utf-16-le", "utf-16-be", "iso2022_jp", "shift_jis", "euc_jp", "gb18030")
    lower = raw.lower()
    found = []
    for word in (*WORDS, DOCTOR, "ACC-77120"):
        for kind in kinds:
            spelled = word.encode(kind)
            if kind == "iso2022_jp" and not word.isascii():
                spelled = spelled[3:-3]  # between its escapes
            if spelled in raw or spelled.lower() in lower:
                found.append(f"{word} ({kind})")
    return found
