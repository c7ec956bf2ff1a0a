"""What one object says of itself, without its pixels: all that an index, a study, quality control and features ask for.

Tags stand behind each field; modules are those of PS3.3 (C.7 for images, C.8 for modalities, A.51 for segmentations).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from adapters.dicom import values
from adapters.dicom.elements import MAX_HEADER, File, parse
from adapters.dicom.frames import PER_FRAME, SHARED, Frames, frames_of
from adapters.dicom.references import REFERENCES, Reference, references_of
from adapters.dicom.values import Dataset, place
from models.canonical import Noun, from_plain
from models.errors import Unreadable
from models.nouns import JSON

REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})
"""CID 7011: document titles of a Key Object Selection that takes objects back (IHE IOCM): quality, patient safety,
wrong worklist entry, retention."""


class Code(Noun, frozen=True):
    """A code with its Coding Scheme Designator."""

    value: str
    scheme: str
    meaning: str = ""
    scheme_uid: str = ""


class PatientId(Noun, frozen=True):
    value: str
    """(0010,0020)"""
    issuer: str = ""
    """(0010,0021): the name of the assigning authority."""
    universal: str = ""
    """(0010,0024)(0040,0032): its universal id."""
    universal_type: str = ""
    """(0040,0033): ISO for an OID, UUID, DNS, ..."""


class PatientOf(Noun, frozen=True):
    id: PatientId | None = None
    others: tuple[PatientId, ...] = ()
    """(0010,1002)"""
    name: str = ""
    """(0010,0010) as written: up to three groups with up to five components each."""
    birth_date: str = ""
    """YYYYMMDD"""
    sex: str = ""
    """M, F, O"""
    age: str = ""
    """(0010,1010) as written: 045Y"""
    size: float | None = None
    """m"""
    weight: float | None = None
    """kg; SUV by body weight needs it."""
    quality_control: bool = False
    """(0010,0200): a phantom, not a person."""
    identity_removed: bool = False


class StudyOf(Noun, frozen=True):
    id: str = ""
    accession: str = ""
    accession_issuer: str = ""
    """(0008,0051)(0040,0031), else (0040,0032)"""
    date: str = ""
    time: str = ""
    description: str = ""
    referrer: str = ""
    procedures: tuple[Code, ...] = ()
    """(0008,1032), else (0032,1064)"""
    reasons: tuple[Code, ...] = ()
    """(0040,100A)"""
    reason: str = ""
    """(0040,1002)"""


class SeriesOf(Noun, frozen=True):
    number: int | None = None
    modality: str = ""
    description: str = ""
    protocol: str = ""
    date: str = ""
    time: str = ""
    body_part: str = ""
    region: tuple[Code, ...] = ()
    """(0008,2218)"""
    laterality: str = ""
    """(0020,0060), else (0020,0062): R, L, U, B"""
    performers: tuple[str, ...] = ()
    institution: str = ""


class ScannerOf(Noun, frozen=True):
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    software: tuple[str, ...] = ()
    station: str = ""
    kernel: str = ""
    kvp: float | None = None
    field: float | None = None
    """tesla"""
    contrast: str = ""


class ImageOf(Noun, frozen=True):
    rows: int
    columns: int
    frames: int = 1
    samples: int = 1
    photometric: str = ""
    bits_allocated: int = 0
    bits_stored: int = 0
    high_bit: int = 0
    signed: bool = False
    planar: int = 0
    spacing: tuple[float, ...] = ()
    """mm between rows, mm between columns; of a projection, (0028,0030) only where it is calibrated."""
    imager_spacing: tuple[float, ...] = ()
    """(0018,1164): at the detector."""
    between_slices: float | None = None
    thickness: float | None = None
    orientation: tuple[float, ...] = ()
    """Six direction cosines: of a row, then of a column."""
    position: tuple[float, ...] = ()
    """mm, of the centre of the first pixel."""
    location: float | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    centers: tuple[float, ...] = ()
    widths: tuple[float, ...] = ()
    padding: int | None = None
    frame_of_reference: str = ""
    burned_in: str = ""
    """(0028,0301): YES, NO or not said."""
    recognizable: str = ""
    """(0028,0302)"""
    conversion: str = ""
    lossy: str = ""
    """(0028,2110): 00 or 01"""
    voi: str = ""
    """(0028,1056): LINEAR, LINEAR_EXACT, SIGMOID"""


class NuclearOf(Noun, frozen=True):
    """What SUV is computed from (PET; PS3.3 C.8.9)."""

    units: str = ""
    decay_correction: str = ""
    corrections: tuple[str, ...] = ()
    dose: float | None = None
    """Bq"""
    half_life: float | None = None
    """s"""
    injected: str = ""
    """(0018,1078), a date and time; else (0018,1072), a time of day"""
    nuclide: Code | None = None
    factor: float | None = None
    """(7053,1000), where its block is Philips': SUV by body weight for one stored unit."""
    suv_type: str = ""
    """(0054,1006): of units GML; BW where it is not said."""


class Header(Noun, frozen=True):
    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    syntax: str
    patient: PatientOf
    study: StudyOf
    series: SeriesOf
    scanner: ScannerOf
    number: int | None = None
    acquisition: int | None = None
    image_type: tuple[str, ...] = ()
    content_date: str = ""
    content_time: str = ""
    acquisition_date: str = ""
    """(0008,0022), else the date of (0008,002A)"""
    acquisition_time: str = ""
    offset: str = ""
    """(0008,0201): `+0100`, of every time in the object."""
    title: Code | None = None
    """(0040,A043): of a document or a key object selection."""
    label: str = ""
    """Document Title, Content Label or Structure Set Label."""
    image: ImageOf | None = None
    frames: Frames | None = None
    """Of an enhanced multi-frame image."""
    nuclear: NuclearOf | None = None
    references: tuple[Reference, ...] = ()
    """What a segmentation, structure set, report or key object selection refers to."""
    synthetic: bool = False
    """(0008,001C) or (0028,0300): no image of a person's care."""
    problems: tuple[str, ...] = ()
    """Tags whose value is not of its kind, as `(0028,0030)`; the fields are empty."""

    @classmethod
    def from_plain(cls, plain: JSON) -> Header:
        return from_plain(cls, plain)

    @property
    def rejects(self) -> bool:
        """Whether it takes back the objects that it refers to."""
        return self.title is not None and self.title.scheme == "DCM" and self.title.value in REJECTIONS


def header_of(source: bytes | BinaryIO, *, limit: int = MAX_HEADER) -> Header:
    """The header of a Part 10 file of any transfer syntax; a stream is read no further than its pixels.

    Raises: Malformed (no Part 10 file, or damaged before its pixels), Unreadable (no SOP, series or study UID),
    TooLarge (more than `limit` bytes or a million elements before the pixels). Nothing else, whatever the bytes are.
    """
    return header_from(parse(source, keep=KEPT, inside=_INSIDE, limit=limit))


def header_from(file: File) -> Header:
    """The same of a file that is parsed already. Raises: Unreadable."""
    data = file.data
    title = data.code(0x0040A043)
    made = Header(
        sop_class=_required(data, 0x00080016),
        sop_uid=_required(data, 0x00080018),
        study_uid=_required(data, 0x0020000D),
        series_uid=_required(data, 0x0020000E),
        syntax=file.syntax[:64],
        patient=_patient(data),
        study=_study(data),
        series=_series(data),
        scanner=_scanner(data),
        number=data.whole(0x00200013),
        acquisition=data.whole(0x00200012),
        image_type=data.texts(0x00080008, 16),
        content_date=data.text(0x00080023),
        content_time=data.text(0x00080033),
        acquisition_date=data.text(0x00080022) or data.text(0x0008002A)[:8],
        acquisition_time=data.text(0x00080032) or data.text(0x0008002A)[8:],
        offset=data.text(0x00080201),
        title=_code(title) if title else None,
        label=data.text(0x00420010) or data.text(0x00700080) or data.text(0x30060002),
        image=image_of(data),
        frames=frames_of(data),
        nuclear=_nuclear(data),
        references=references_of(data),
        synthetic="YES" in (data.text(0x0008001C), data.text(0x00280300)),
    )
    return made.but(problems=tuple(map(place, sorted(data.problems)))) if data.problems else made


def _required(data: Dataset, tag: int) -> str:
    found = data.uid(tag)
    if not found:
        raise Unreadable("a UID is missing, or is none", where=place(tag))
    return found


def _code(code: values.Code) -> Code:
    return Code(code.value, code.scheme, code.meaning, code.scheme_uid)


def _codes(found: Iterable[values.Code]) -> tuple[Code, ...]:
    return tuple(map(_code, found))


def _patient_id(data: Dataset) -> PatientId | None:
    value = data.text(0x00100020)
    if not value:
        return None
    by = data.item(0x00100024)
    return PatientId(value, data.text(0x00100021), by.text(0x00400032), by.text(0x00400033))


def _patient(data: Dataset) -> PatientOf:
    return PatientOf(
        id=_patient_id(data),
        others=tuple(found for item in data.items(0x00101002)[:32] if (found := _patient_id(item)) is not None),
        name=data.text(0x00100010),
        birth_date=data.text(0x00100030),
        sex=data.text(0x00100040),
        age=data.text(0x00101010),
        size=data.number(0x00101020),
        weight=data.number(0x00101030),
        quality_control=data.text(0x00100200) == "YES",
        identity_removed=data.text(0x00120062) == "YES",
    )


def _study(data: Dataset) -> StudyOf:
    issuer = data.item(0x00080051)
    return StudyOf(
        id=data.text(0x00200010),
        accession=data.text(0x00080050),
        accession_issuer=issuer.text(0x00400031) or issuer.text(0x00400032),
        date=data.text(0x00080020),
        time=data.text(0x00080030),
        description=data.text(0x00081030),
        referrer=data.text(0x00080090),
        procedures=_codes(data.codes(0x00081032) or data.codes(0x00321064)),
        reasons=_codes(data.codes(0x0040100A)),
        reason=data.text(0x00401002),
    )


def _series(data: Dataset) -> SeriesOf:
    return SeriesOf(
        number=data.whole(0x00200011),
        modality=data.text(0x00080060),
        description=data.text(0x0008103E),
        protocol=data.text(0x00181030),
        date=data.text(0x00080021),
        time=data.text(0x00080031),
        body_part=data.text(0x00180015),
        region=_codes(data.codes(0x00082218)),
        laterality=data.text(0x00200060) or data.text(0x00200062),
        performers=data.texts(0x00081050, 16),
        institution=data.text(0x00080080),
    )


def _scanner(data: Dataset) -> ScannerOf:
    return ScannerOf(
        manufacturer=data.text(0x00080070),
        model=data.text(0x00081090),
        serial=data.text(0x00181000),
        software=tuple(filter(None, data.texts(0x00181020, 16))),
        station=data.text(0x00081010),
        kernel=data.text(0x00181210),
        kvp=data.number(0x00180060),
        field=data.number(0x00180087),
        contrast=data.text(0x00180010),
    )


def image_of(data: Dataset) -> ImageOf | None:
    rows, columns = data.whole(0x00280010), data.whole(0x00280011)
    if rows is None or columns is None:
        return None
    padding = data.whole(0x00280120)
    signed = data.whole(0x00280103) == 1
    if padding is not None and signed and padding > 0x7FFF:  # its VR is US or SS, which implicit files do not say
        padding -= 0x10000
    return ImageOf(
        rows=rows,
        columns=columns,
        frames=data.whole(0x00280008) or 1,
        samples=data.whole(0x00280002) or 1,
        photometric=data.text(0x00280004),
        bits_allocated=data.whole(0x00280100) or 0,
        bits_stored=data.whole(0x00280101) or 0,
        high_bit=data.whole(0x00280102) or 0,
        signed=signed,
        planar=data.whole(0x00280006) or 0,
        spacing=_row(data, 0x00280030, 2),
        imager_spacing=_row(data, 0x00181164, 2),
        between_slices=data.number(0x00180088),
        thickness=data.number(0x00180050),
        orientation=_row(data, 0x00200037, 6),
        position=_row(data, 0x00200032, 3),
        location=data.number(0x00201041),
        slope=data.number(0x00281053),
        intercept=data.number(0x00281052),
        rescale_type=data.text(0x00281054),
        centers=data.numbers(0x00281050)[:16],
        widths=data.numbers(0x00281051)[:16],
        padding=padding,
        frame_of_reference=data.uid(0x00200052),
        burned_in=data.text(0x00280301),
        recognizable=data.text(0x00280302),
        conversion=data.text(0x00080064),
        lossy=data.text(0x00282110),
        voi=data.text(0x00281056),
    )


def _row(data: Dataset, tag: int, size: int) -> tuple[float, ...]:
    """Exactly so many numbers, or none: half an orientation is no orientation."""
    found = data.numbers(tag)
    if found and len(found) != size:
        data.problems.add(tag)
        return ()
    return found


def _nuclear(data: Dataset) -> NuclearOf | None:
    given = data.item(0x00540016)
    if not given.elements and 0x00541001 not in data:
        return None
    nuclide = given.code(0x00540300)
    philips = data.text(0x70530010) == "Philips PET Private Group"
    return NuclearOf(
        units=data.text(0x00541001),
        decay_correction=data.text(0x00541102),
        corrections=data.texts(0x00280051, 16),
        dose=given.number(0x00181074),
        half_life=given.number(0x00181075),
        injected=given.text(0x00181078) or given.text(0x00181072),
        nuclide=_code(nuclide) if nuclide else None,
        factor=data.number(0x70531000) if philips else None,
        suv_type=data.text(0x00541006),
    )


KEPT = frozenset(
    {
        *(0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x0008001C, 0x00080020, 0x00080021, 0x00080022, 0x00080023),
        *(0x0008002A, 0x00080030, 0x00080031, 0x00080032, 0x00080033, 0x00080050, 0x00080051, 0x00080060, 0x00080064),
        *(0x00080070, 0x00080080, 0x00080090, 0x00080201, 0x00081010, 0x00081030, 0x00081032, 0x0008103E, 0x00081050),
        *(0x00081090, 0x00082218, 0x00100010, 0x00100020, 0x00100021, 0x00100024, 0x00100030, 0x00100040, 0x00100200),
        *(0x00101002, 0x00101010, 0x00101020, 0x00101030, 0x00120062, 0x00180010, 0x00180015, 0x00180050, 0x00180060),
        *(0x00180087, 0x00180088, 0x00181000, 0x00181020, 0x00181030, 0x00181164, 0x00181210, 0x0020000D, 0x0020000E),
        *(0x00200010, 0x00200011, 0x00200012, 0x00200013, 0x00200032, 0x00200037, 0x00200052, 0x00200060, 0x00200062),
        *(0x00201041, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280051),
        *(0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280300, 0x00280301, 0x00280302, 0x00281050),
        *(0x00281051, 0x00281052, 0x00281053, 0x00281054, 0x00281056, 0x00282110, 0x00321064, 0x00401002, 0x0040100A),
        *(
            0x0040A043,
            0x00420010,
            0x00540016,
            0x00541001,
            0x00541006,
            0x00541102,
            0x00700080,
            0x30060002,
            0x70530010,
            0x70531000,
        ),
        *(SHARED, PER_FRAME, *REFERENCES),
    }
)
_INSIDE = frozenset(
    {
        *(0x00080100, 0x00080102, 0x00080104, 0x0008010C, 0x00080119, 0x00080120, 0x00100020, 0x00100021, 0x00100024),
        *(0x00181072, 0x00181074, 0x00181075, 0x00181078, 0x00400031, 0x00400032, 0x00400033, 0x00540300),
        *(0x00081115, 0x0008114A, 0x00081150, 0x00081155, 0x00081199, 0x0020000D, 0x0020000E),
        *(0x30060012, 0x30060014, 0x30060016),
        *(0x00209113, 0x00200032, 0x00209116, 0x00200037, 0x00289110, 0x00280030, 0x00180050, 0x00180088),
        *(0x00289145, 0x00281052, 0x00281053, 0x00281054, 0x00289132, 0x00281050, 0x00281051, 0x00189114),
    }
)
