"""What the tests of de-identification share: one object through it, and objects to put through it."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundImageStorage

from adapters.dicom.deidentify.copy import Outcome, Policy, copy
from adapters.dicom.deidentify.profile import profile
from adapters.dicom.deidentify.project import Project
from adapters.dicom.deidentify.risks import RISKS
from tests.dicom_made import ct_series, part10

KEY = bytes(range(32))
ALL = Policy(inspected=frozenset(RISKS))
"""Every picture is let through: these tests are of the elements."""


def run(
    raw: bytes, out: Path, name: str = "basic", *, policy: Policy = ALL, key: bytes = KEY, number: int = 1
) -> Outcome:
    return copy(number, lambda: BytesIO(raw), out, profile(name), Project(key), policy, {})


def result(raw: bytes, out: Path, name: str = "basic", *, policy: Policy = ALL, key: bytes = KEY) -> Dataset:
    outcome = run(raw, out, name, policy=policy, key=key)
    assert outcome.state == "written", outcome.reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(out / outcome.output)


def ct(**changes: object) -> bytes:
    data = next(iter(ct_series(slices=1, size=16)))
    for name, value in changes.items():
        setattr(data, name, value)
    return part10(data)


def ultrasound(**changes: object) -> Dataset:
    data = next(iter(ct_series(slices=1, size=32)))
    data.SOPClassUID, data.Modality = UltrasoundImageStorage, "US"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelData = np.full((32, 32), 200, np.uint8).tobytes()
    for name, value in changes.items():
        setattr(data, name, value)
    return data


def region(x0: int, y0: int, x1: int, y1: int) -> Dataset:
    made = Dataset()
    made.RegionLocationMinX0, made.RegionLocationMinY0 = x0, y0
    made.RegionLocationMaxX1, made.RegionLocationMaxY1 = x1, y1
    return made
