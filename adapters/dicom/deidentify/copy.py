"""One object: read, judged, walked, written beside; what was done to it is told without a value that stood in it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID

from adapters.dicom.deidentify.picture import Decoded, copied
from adapters.dicom.deidentify.profile import BASIC, EDITION, OPTIONS, Profile, safe_private
from adapters.dicom.deidentify.project import Project
from adapters.dicom.deidentify.risks import NEVER, RISKS, Plan, may_show_a_face, plan_of, risks_of
from adapters.dicom.deidentify.walk import Walk, every_element
from adapters.dicom.deidentify.words import Words, words_of
from adapters.dicom.elements import BIG_ENDIAN, DEFLATED, IMPLICIT, File, inflated, parse
from adapters.dicom.part10 import IMPLEMENTATION
from models.errors import BadInput, CdsError, Malformed, NotAllowed, Unreadable

EXPLICIT = "1.2.840.10008.1.2.1"
DICOMDIR = "1.2.840.10008.1.3.10"
LIMIT = 1 << 28
"""Bytes of one decoded frame, and of an object in the deflated syntax."""

Opener = Callable[[], BinaryIO]
"""Opens one object, seekable: a file here; a part of the store later."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done with images that may show who it is. `blank`: those whose text has a known place are blanked, the
    others refused; otherwise all are refused. `inspected`: risks that somebody looked at and answers for."""

    blank: bool = False
    inspected: frozenset[str] = frozenset()
    refuse_faces: bool = False


@dataclass(slots=True)
class Outcome:
    number: int
    """Of the file, in the order of the input."""
    state: str
    """written, refused (by a rule), unreadable, skipped (a DICOMDIR, the same object again)"""
    reason: str = ""
    output: str = ""
    """Path under the output folder: keyed UIDs."""
    digest: str = ""
    """SHA-256 of the output."""
    actions: dict[str, dict[str, int]] = field(default_factory=dict)
    """Tag -> action -> how often, at any depth."""
    cleaned: dict[str, int] = field(default_factory=dict)
    """Tags in whose text a value of the patient was found and replaced."""
    risks: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    pixels: str = "none"
    """none, copied, blanked (by which rule), written anew"""
    remains: dict[str, str] = field(default_factory=dict)
    """Keyed digests of what may make somebody stand out; not part of any report."""
    patient: str = ""
    kind: int = 0
    """In an export: which of its kinds has the actions and the tags cleaned."""


def copy(
    number: int, opener: Opener, out: Path, profile: Profile, project: Project, policy: Policy, written: dict[str, str]
) -> Outcome:
    """Write the de-identified copy of one object under `out`; what is wrong with it is its Outcome's, not raised.

    `written`: outputs of this export so far, path -> digest. Raises: OSError (the output cannot be written).
    """
    outcome = Outcome(number, "written")
    try:
        with opener() as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            _copy(source, outcome, out, profile, project, policy, written)
    except NotAllowed as error:
        outcome.state, outcome.reason = "refused", str(error)
    except BadInput as error:
        outcome.state, outcome.reason = "unreadable", str(error)
    except _Skipped as error:
        outcome.state, outcome.reason = "skipped", str(error)
    except RecursionError:
        outcome.state, outcome.reason = "unreadable", "sequences are nested too deep"
    except (CdsError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 (values that pydicom cannot make sense of; one file must not stop all)
        outcome.state, outcome.reason = "unreadable", f"it is not what it says ({type(error).__name__})"
    return outcome


class _Skipped(Exception):
    pass


def _copy(
    source: BinaryIO,
    outcome: Outcome,
    out: Path,
    profile: Profile,
    project: Project,
    policy: Policy,
    written: dict[str, str],
) -> None:
    file, data = _read(source)
    sop_class, sop_uid, series_uid = (
        _uid(data, name) for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
    )
    who = (str(data.get("PatientID") or "").strip(), str(data.get("IssuerOfPatientID") or "").strip())
    if not who[0]:
        who = ("", _uid(data, "StudyInstanceUID"))
        outcome.flags.append("no-patient-id")
    plan = _judged(data, file, policy, outcome)
    words = words_of(every_element(data), profile)
    walk = Walk(profile, project, words, sop_class, who, swap=file.syntax == BIG_ENDIAN)
    made = walk.dataset(data)
    _mark(made, walk, profile, plan)
    decode = file.pixels is not None and (
        plan is not None
        or file.syntax in (BIG_ENDIAN, DEFLATED)
        or bool(_overlays(data) and not _is_native(file.syntax))
    )
    syntax = EXPLICIT if decode or file.syntax in (BIG_ENDIAN, DEFLATED) else file.syntax
    if decode:
        _describe_decoded(made, blanked=plan is not None, sure="large-regions" not in outcome.flags)
    for (tag, action), count in sorted(walk.tally.items()):
        outcome.actions.setdefault(tag, {})[action] = count
    outcome.cleaned = dict(sorted(walk.cleaned.items()))
    outcome.flags += sorted(walk.flags)
    outcome.patient = walk.pseudonym
    outcome.remains = _remaining(made, project)
    header = _header(made, syntax)
    _check(header, words, walk, profile)
    name = f"{project.uid(series_uid)}/{project.uid(sop_uid)}.dcm"
    part = out / f".part-{outcome.number}"
    try:
        with part.open("wb") as raw:
            kept = _Hashed(raw)
            kept.write(header)
            if file.pixels is not None:
                _pixels(source, file, data, kept, syntax, outcome, plan, decode=decode)
            raw.flush()
            os.fsync(raw.fileno())
        digest = kept.digest.hexdigest()
        if name in written:
            if written[name] == digest:
                raise _Skipped("the same object again")
            raise Unreadable("another file of this export has the same UID and other content", where="(0008,0018)")
        (out / name).parent.mkdir(exist_ok=True)
        part.replace(out / name)
    finally:
        part.unlink(missing_ok=True)
    written[name] = outcome.digest = digest
    outcome.output = name


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read(source: BinaryIO) -> tuple[File, Dataset]:
    """Walked by our own parser first, which trusts no length; then read by pydicom as far as the pixels."""
    file = parse(source)
    if file.meta.uid(0x00020002) == DICOMDIR:
        raise _Skipped("a DICOMDIR: it lists what was, by name")
    source.seek(0)
    if file.syntax == DEFLATED:
        inflated(source, LIMIT)
        source.seek(0)
    try:
        data = dcmread(source, stop_before_pixels=True)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001 (pydicom raises what it likes)
        raise Malformed(f"pydicom cannot read it ({type(error).__name__})") from None
    return file, data


def _uid(data: Dataset, name: str) -> str:
    try:
        found = str(data.get(name) or "").strip()
    except Exception:  # noqa: BLE001 (as above)
        found = ""
    if not re.fullmatch(r"[0-9A-Za-z.\-]{1,64}", found):
        raise Unreadable("a UID is missing, or is none", where=name)
    return found


def _judged(data: Dataset, file: File, policy: Policy, outcome: Outcome) -> Plan | None:
    """Whether the picture may leave, and how. Raises: NotAllowed."""
    pixels = file.pixels is not None
    outcome.risks = risks_of(data, pixels=pixels, syntax=file.syntax)
    if may_show_a_face(data, pixels=pixels):
        if policy.refuse_faces:
            raise NotAllowed("a face can be rendered from its slices")
        outcome.flags.append("face")
    open_ones = [risk for risk in outcome.risks if risk not in policy.inspected or risk in NEVER]
    if not open_ones:
        outcome.flags += [f"inspected: {risk}" for risk in outcome.risks]
        return None
    first = open_ones[0]
    if NEVER & set(open_ones):
        raise NotAllowed(RISKS[first])
    plan = plan_of(data) if policy.blank else None
    if plan is None:
        known = "; no rule says where its text is" if policy.blank else ""
        raise NotAllowed(RISKS[first] + known)
    outcome.pixels = f"blanked: {plan.why}"
    shown = sum(width * height for _, _, width, height in plan.boxes) if plan.keep else 0
    if shown > 0.7 * int(data.Rows) * int(data.Columns):
        outcome.flags.append("large-regions")
    return plan


def _overlays(data: Dataset) -> int:
    """Bits of overlays that stand in unused bits of the pixels (retired; PS3.3 C.9.2): a mask."""
    mask = 0
    for group in range(0x6000, 0x6020, 2):
        try:
            position = int(data[group, 0x0102].value) if (group, 0x0102) in data else 0
        except Exception:  # noqa: BLE001, S112 (a position that is none masks nothing)
            continue
        if 0 < position < 16 and (group, 0x3000) not in data:
            mask |= 1 << position
    stored, high = int(data.get("BitsStored") or 16), int(data.get("HighBit") or 15)
    return mask & ~(((1 << stored) - 1) << max(high - stored + 1, 0))


def _is_native(syntax: str) -> bool:
    return syntax in (IMPLICIT, EXPLICIT)


# ---- writing ---------------------------------------------------------------------------------------------------------


def _mark(made: Dataset, walk: Walk, profile: Profile, plan: Plan | None) -> None:
    """What PS3.15 E.1.1 and PS3.3 C.7.1.1, C.12.1 want said of it."""
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName = made.PatientID = walk.pseudonym
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = [f"PS3.15 {EDITION}, profile {profile.name}"[:64]]
    items = []
    codes = {*profile.codes}
    if plan is not None:
        codes.add(OPTIONS["clean-pixel-data"])
    if "ContentSequence" in made:  # its text is gone or cleaned, its structure is there
        codes.add(OPTIONS["clean-structured-content"])
    for value, meaning in sorted(codes):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning[:64]
        items.append(item)
    made.DeidentificationMethodCodeSequence = Sequence(items)
    full, modified = "full-dates" in profile, "modified-dates" in profile
    made.LongitudinalTemporalInformationModified = "UNMODIFIED" if full else "MODIFIED" if modified else "REMOVED"


def _describe_decoded(made: Dataset, *, blanked: bool, sure: bool) -> None:
    for tag in (0x7FE00001, 0x7FE00002, 0x7FE00003):
        made.pop(tag, None)
    if str(made.get("PhotometricInterpretation", "")).startswith("YBR") and made.get("BitsAllocated") == 8:
        made.PhotometricInterpretation = "RGB"
    if made.get("SamplesPerPixel", 1) > 1:
        made.PlanarConfiguration = 0
    if made.get("BitsAllocated", 16) > 1 and "BitsStored" in made:
        made.HighBit = made.BitsStored - 1
    if blanked:
        if sure:
            made.BurnedInAnnotation = "NO"
        kind = made.get("ImageType")
        if kind:
            made.ImageType = ["DERIVED", *list(kind)[1:]] if not isinstance(kind, str) else "DERIVED"


def _header(made: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), UID(IMPLEMENTATION)
    meta.ImplementationVersionName = "CDS"
    made.file_meta = meta
    buffer = io.BytesIO()
    try:
        dcmwrite(buffer, made, enforce_file_format=True)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001 (pydicom raises what it likes of values that are none of their VR)
        raise Unreadable(f"a value cannot be written ({type(error).__name__})") from None
    return buffer.getvalue()


def _check(header: bytes, words: Words, walk: Walk, profile: Profile) -> None:
    """Nothing is trusted: what was written is looked through for the patient's values and the UIDs once more."""
    raw = header
    for ours in (*(meaning for _, meaning in (BASIC, *OPTIONS.values())), *_creators(), profile.name):
        raw = raw.replace(ours.encode(), b"")  # a patient may be called Patient, or Philips
    if words.left_in(raw):
        raise NotAllowed("a value of the patient would still stand in the copy")
    if "uids" not in profile:
        found = {each.decode() for each in re.findall(rb"(?<![\w.])[0-9][0-9.]{9,63}", header)}
        if walk.uids & found:
            raise NotAllowed("an original UID would still stand in the copy")


@cache
def _creators() -> frozenset[str]:
    return frozenset(creator for _, _, creator in safe_private())


def _pixels(
    source: BinaryIO,
    file: File,
    data: Dataset,
    out: _Hashed,
    syntax: str,
    outcome: Outcome,
    plan: Plan | None,
    *,
    decode: bool,
) -> None:
    bits, count = int(data.get("BitsAllocated") or 0), int(data.get("NumberOfFrames") or 1)
    if decode:
        source.seek(0)
        stored = int(data.get("BitsStored") or bits or 16)
        Decoded(source, plan, stored if data.get("PhotometricInterpretation") == "MONOCHROME1" else 0, LIMIT).write(
            out, count, bits
        )
        outcome.pixels = outcome.pixels if plan else "written anew, uncompressed"
        return
    cells = int(data.get("Rows") or 0) * int(data.get("Columns") or 0) * int(data.get("SamplesPerPixel") or 1) * count
    if data.get("PhotometricInterpretation") == "YBR_FULL_422":
        cells = cells // 3 * 2
    changed = copied(
        source, file.pixels or 0, out, syntax, (cells * bits + 7) // 8, _overlays(data) if bits == 16 else 0
    )
    outcome.pixels = "copied"
    if changed:
        outcome.flags.append("pixels-cleaned")


class _Hashed(io.RawIOBase):
    """Writes, and knows the digest of what it wrote."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self.digest = hashlib.sha256()

    def write(self, piece: Any) -> int:
        self.digest.update(piece)
        return self._raw.write(piece)


def _remaining(made: Dataset, project: Project) -> dict[str, str]:
    """Keyed digests of the quasi-identifiers that are still there."""
    found = {}
    for name, keywords in _QUASI.items():
        values = [str(made.get(keyword) or "") for keyword in keywords]
        if name == "sex and age":
            values[1] = values[1][:2] + values[1][-1:]  # by decade
        if any(values):
            found[name] = project.mark(name, *values)
    return found


_QUASI = {
    "sex and age": ("PatientSex", "PatientAge"),
    "device": ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber"),
    "institution": ("InstitutionName",),
    "ethnic group": ("EthnicGroup",),
}
"""What of it may be rare; each is counted over the patients of an export."""
