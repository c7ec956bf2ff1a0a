"""The headers of 1,000 CT instances and the ImagingStudy of them; beside it pydicom reading the same headers.

The instances are one CT image of 128 x 128 with 255 elements (`../shared/data/dicom/highdicom`) under other UIDs, on
disk, opened one by one. pydicom reads the elements that our header has, and stops before the pixels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pydicom

from adapters.dicom.archive import Archive
from adapters.dicom.headers import KEPT, Header, header_of
from adapters.dicom.study import imaging_study
from models.canonical import spell

ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "dicom")
    args = parser.parse_args()
    sys.stdout.write(f"{args.count} instances, best of {ROUNDS} interleaved rounds\n")
    with tempfile.TemporaryDirectory() as folder:
        paths = generated(Path(folder), args.data / "highdicom" / "ct_image.dcm", args.count)
        archive = Archive("pacs", zone="Europe/Berlin", wado_base="https://pacs.example/dicom-web")
        seconds: dict[str, list[float]] = {"headers": [], "study": [], "pydicom headers": []}
        for _ in range(ROUNDS):
            began = time.perf_counter()
            headers = [read(path) for path in paths]
            seconds["headers"].append(time.perf_counter() - began)
            began = time.perf_counter()
            size = len(spell(imaging_study(headers, archive)))
            seconds["study"].append(time.perf_counter() - began)
            began = time.perf_counter()
            for path in paths:
                by_pydicom(path)
            seconds["pydicom headers"].append(time.perf_counter() - began)
        best = {name: min(each) for name, each in seconds.items()}
    for name, each in best.items():
        sys.stdout.write(f"{name:16} {each:6.3f} s  {args.count / each:8.0f} instances/s\n")
    sys.stdout.write(f"headers and study {best['headers'] + best['study']:.3f} s; {size} bytes of resources\n")
    return 0


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
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.10.999.{number}"
        made.InstanceNumber = number
        paths.append(folder / f"{number}.dcm")
        made.save_as(paths[-1])
    return paths


if __name__ == "__main__":
    sys.exit(main())
