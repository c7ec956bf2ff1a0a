"""The headers of 1,000 CT instances and the ImagingStudy of them; beside it pydicom reading the same headers.

The instances are one CT image of 128 x 128 with 255 elements (`../shared/data/dicom/highdicom`) under other UIDs, on
disk, opened one by one. pydicom reads the elements that our header has, and stops before the pixels.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pydicom
from pydicom.uid import UID

from adapters.dicom.archive import Archive
from adapters.dicom.headers import KEPT, Header, header_of
from adapters.dicom.study import imaging_study
from benchmarks import _bench
from models.canonical import spell

ROUNDS = 5
GOAL = 2.0
"""Seconds, of 1,000 instances."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000, help="instances")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    source = _bench.peer_data() / "dicom" / "highdicom" / "ct_image.dcm"
    sys.stdout.write(f"{args.count} instances, seconds of processor time, best of {args.rounds} interleaved rounds\n")
    with _bench.scratch() as folder:
        paths = generated(folder, source, args.count)
        archive = Archive("pacs", zone="Europe/Berlin", wado_base="https://pacs.example/dicom-web")
        seconds: dict[str, list[float]] = {"headers": [], "study": [], "pydicom headers": []}
        for _ in range(args.rounds):
            began = time.process_time()
            headers = [read(path) for path in paths]
            seconds["headers"].append(time.process_time() - began)
            began = time.process_time()
            size = len(spell(imaging_study(headers, archive)))
            seconds["study"].append(time.process_time() - began)
            began = time.process_time()
            for path in paths:
                by_pydicom(path)
            seconds["pydicom headers"].append(time.process_time() - began)
        best = {name: min(each) for name, each in seconds.items()}
    for name, each in best.items():
        sys.stdout.write(f"{name:16} {each:6.3f} s  {args.count / each:8.0f} instances/s\n")
    ours, theirs = best["headers"] + best["study"], best["pydicom headers"]
    kept = _bench.figure(
        f"headers of {args.count} CT instances and the ImagingStudy of them ({size} bytes)",
        ours,
        "s",
        against=f"pydicom, the same elements without the study: {theirs:.3g} s",
        ratio=ours / theirs,
        goal=f"< {GOAL:g} s for 1,000",
        ok=ours < GOAL * args.count / 1000,
    )
    return 0 if kept else 1


def read(path: Path) -> Header:
    with path.open("rb") as stream:
        return header_of(stream)


def by_pydicom(path: Path) -> None:
    """The values are asked for: pydicom converts an element when it is looked at."""
    found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=sorted(KEPT))
    for element in found:
        _ = element.value


def generated(folder: Path, source: Path, count: int) -> list[Path]:
    made = pydicom.dcmread(source)
    paths = []
    for number in range(count):
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.826.0.1.3680043.10.999.{number}")
        made.InstanceNumber = number
        paths.append(folder / f"{number}.dcm")
        made.save_as(paths[-1])
    return paths


if __name__ == "__main__":
    sys.exit(main())
