"""DICOM files: those of pydicom and pydicom-data and of `peer_data`, and small ones that the tests make."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"


@lru_cache(maxsize=1)
def package_files() -> tuple[Path, ...]:
    """Every Part 10 file that the packages pydicom and pydicom-data bring, in order of their paths."""
    found: list[Path] = []
    for package, below in (("pydicom", "data"), ("data_store", "")):
        spec = find_spec(package)
        assert spec is not None, f"{package} is not installed"
        for root in spec.submodule_search_locations or [str(Path(spec.origin or "").parent)]:
            found += [path for path in sorted(Path(root, below).rglob("*")) if path.is_file() and _is_part_10(path)]
    return tuple(found)


def _is_part_10(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dataset(**elements: Any) -> Dataset:
    """A small CT image of one patient, with these elements besides or instead; None leaves one out."""
    made = Dataset()
    base: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": "1.2.3.1",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.0",
        "Modality": "CT",
        "PatientID": "4711",
        "PatientName": "Doe^Jane",
        "StudyDate": "20260301",
        "StudyTime": "091500",
        "Rows": 4,
        "Columns": 4,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    for name, value in {**base, **elements}.items():
        if value is not None:
            setattr(made, name, value)
    return made


def written(made: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The Part 10 file of it."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", CT)
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong here is wrong on purpose
        made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def file(**elements: Any) -> bytes:
    return written(dataset(**elements))


def with_pixels(values: Any, **elements: Any) -> bytes:
    """The same with these pixels (rows x columns)."""
    pixels = np.asarray(values)
    made = dataset(Rows=pixels.shape[-2], Columns=pixels.shape[-1], PixelData=pixels.tobytes(), **elements)
    made["PixelData"].VR = "OW"
    return written(made)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def mutated(source: bytes, random_: random.Random) -> bytes:
    """The bytes with a few accidents behind the preamble: bits, lengths, cuts, repetitions, delimiters."""
    raw = bytearray(source)
    for _ in range(random_.randint(1, 6)):
        if len(raw) < 160:
            break
        at = random_.randrange(128 if random_.random() < 0.05 else 132, len(raw))
        match random_.randrange(8):
            case 0:
                raw[at] ^= 1 << random_.randrange(8)
            case 1:
                raw[at : at + 4] = random_.choice(_LENGTHS)
            case 2:
                raw[at : at + 2] = random_.choice(_VRS)
            case 3:
                del raw[at : at + random_.randint(1, 64)]
            case 4:
                raw[at:at] = raw[at : at + random_.randint(1, 64)]
            case 5:
                raw[at:at] = random_.choice(_PIECES)
            case 6:
                del raw[at:]
            case _:
                raw[at : at + 8] = random_.randbytes(8)
    return bytes(raw)


_LENGTHS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\xfe\xff\xff\xff", b"\1\0\0\0", b"\0\0\1\0")
_VRS = (b"SQ", b"UN", b"OB", b"US", b"DS", b"UI", b"ZZ", b"\0\0", b"PN", b"FD", b"AT", b"UT")
_PIECES = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" * 40,
    b"\x08\x00\x05\x00CS\x0e\x00\\ISO 2022 IR 87",
    b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 40,
)


def small(paths: tuple[Path, ...], longest: int = 40_000) -> Iterator[Path]:
    return (path for path in paths if path.stat().st_size <= longest)
