"""Exports: bad files, and the report of what was done."""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from adapters.dicom.deidentify.copy import Policy
from adapters.dicom.deidentify.export import REPORT, REPORT_TEXT, export, files_of
from adapters.dicom.deidentify.profile import profile
from tests.adapters.dicom_deidentified import KEY, ct, run, ultrasound
from tests.adapters.dicom_planted import FAMILY, NAME, WORDS, found_in, planted, written
from tests.dicom_made import ct_series, part10

# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_files_are_told_and_stop_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    good = ct(PatientName=NAME)
    files = {
        "a-text": b"no dicom",
        "b-cut": good[: len(good) - 300],
        "c-header-cut": good[:400],
        "d-good": good,
        "e-again": good,
        "f-other": ct(PatientName=NAME, SliceThickness=7),
        "g-no-uid": part10_without_series(),
        f"{FAMILY}.dcm": part10(next(iter(ct_series(name="other", slices=1)))),
    }
    for name, raw in files.items():
        (inside / name).write_bytes(raw)
    done = export(
        [lambda path=path: path.open("rb") for path in files_of(inside)],
        tmp_path / "out",
        profile("basic"),
        KEY,
        "p",
        Policy(),
    )
    assert done.counts == {"written": 2, "refused": 0, "unreadable": 5, "skipped": 1}
    assert done.exit_code == 1
    assert sorted(each.name for each in (tmp_path / "out").iterdir() if each.is_file()) == sorted([REPORT, REPORT_TEXT])
    text = (tmp_path / "out" / REPORT).read_text() + (tmp_path / "out" / REPORT_TEXT).read_text()
    assert found_in(text.encode()) == []


def part10_without_series() -> bytes:
    data = next(iter(ct_series(slices=1, size=16)))
    del data.SeriesInstanceUID
    return part10(data)


def test_damaged_objects_never_raise_and_never_leak(tmp_path: Path) -> None:
    good = written(planted(part10(next(iter(ct_series(slices=1, size=16))))))
    rng = np.random.default_rng(7)
    for number in range(150):
        raw = bytearray(good)
        for at in rng.integers(132, len(good) - 600, 6):
            raw[at] = int(rng.integers(0, 256))
        outcome = run(bytes(raw), tmp_path, "basic", number=number)
        assert outcome.state in ("written", "unreadable", "refused", "skipped")
        assert found_in(outcome.reason.encode()) == []
    assert not list(tmp_path.glob(".part-*"))


def test_deep_sequences_are_refused(tmp_path: Path) -> None:
    data = next(iter(ct_series(slices=1, size=16)))
    inner = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.ContentSequence = Sequence([inner])
        inner = outer
    data.ContentSequence = Sequence([inner])
    assert run(part10(data), tmp_path).state == "unreadable"


# ---- the report ------------------------------------------------------------------------------------------------------


def test_a_report_says_what_was_done_and_what_is_left(tmp_path: Path) -> None:
    raws = [
        part10(each)
        for number in range(6)
        for each in ct_series(name=f"n{number}", slices=2, size=16, patient_id=f"p{number}")
    ]
    raws.append(part10(ultrasound()))
    raws.append(ct(PatientID="old", PatientAge="099Y", BodyPartExamined="CHEST"))
    done = export([lambda raw=raw: BytesIO(raw) for raw in raws], tmp_path, profile("model"), KEY, "p", Policy())
    said = json.loads((tmp_path / REPORT).read_text())
    assert said == json.loads(json.dumps(done.plain()))
    assert said["counts"] == {"written": 13, "refused": 1, "unreadable": 0, "skipped": 0}
    assert said["patients"] == 7
    assert said["actions"]["(0010,0020)"] == {"pseudonym": 13}
    assert said["actions"]["(0008,0020)"] == {"moved": 13}
    assert said["rare"]["sex and age"] == {"values": 2, "rare": 1}
    assert said["rare"]["device"] == {"values": 1, "rare": 0}
    assert len(said["kinds"]) <= 4
    written_files = [each for each in said["files"] if each["state"] == "written"]
    for each in written_files:
        assert hashlib.sha256((tmp_path / each["output"]).read_bytes()).hexdigest() == each["sha256"]
    lines = "".join(
        f"{each['sha256']}  {each['output']}\n" for each in sorted(written_files, key=lambda each: each["output"])
    )
    assert said["outputs_digest"] == hashlib.sha256(lines.encode()).hexdigest()
    assert said["risk"]["level"] == "high"  # heads, or nobody knows
    text = (tmp_path / REPORT_TEXT).read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "(0010,0020)  replaced by the pseudonym" in text
    assert not any(word in text for word in (*WORDS, "made-1", "Made"))


def test_an_export_that_is_refused_whole_says_so_by_its_exit_code(tmp_path: Path) -> None:
    done = export([lambda: BytesIO(part10(ultrasound()))], tmp_path, profile("basic"), KEY, "p", Policy())
    assert done.exit_code == 4
