"""Features of a series of 384 slices of 256 x 256 with one region, and the whole examination that they are part of.

The series is made (MR, 16 bits, a bright ball of 60 voxels across in noise), its region is a binary segmentation of the
ball, as highdicom writes it; the objects are files. Features: all of the catalogue, from the calibrated volume and the
region's mask. Examination: positions checked, slices decoded and calibrated, segmentation read, features, three
pictures, resources. A process of its own does it; the memory is what that has resident at most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header, header_of
from adapters.dicom.study import imaging_study
from adapters.imaging.catalogue import FEATURES
from adapters.imaging.examine import Looking, examine
from adapters.imaging.measuring import measured
from adapters.imaging.planes import planes_of
from adapters.imaging.quality import looked_at
from adapters.imaging.regions import Region, boxed
from adapters.imaging.volume import volume_of

LIMIT = 1.0
MEMORY = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=384)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examine", type=Path, help="what the process that is measured does: examine a folder")
    args = parser.parse_args()
    if args.examine:
        return examined(args.examine, args.rounds)
    from benchmarks._bench import figure, machine, scratch  # not in the process that is measured: it loads the server

    mask = _ball(args.slices, args.size)
    with scratch() as folder:
        for number, body in enumerate(_objects(args.slices, args.size, mask)):
            (folder / f"{number:05}.dcm").write_bytes(body)
        np.save(folder / "mask.npy", mask)
        command = [sys.executable, __file__, "--examine", str(folder), "--rounds", str(args.rounds)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    features, whole, memory = json.loads(ran.stdout)
    print(f"{args.slices} slices of {args.size} x {args.size}, a region of {int(mask.sum())} voxels; {machine()}")
    size = f"a {args.slices}-slice series with one region"
    limit: Any = {"against": f"a limit of {LIMIT:g} s", "goal": f"<= {LIMIT:g}"}
    ok = figure(f"features of {size}", features, "s", **limit, ok=features <= LIMIT)
    ok &= figure(f"examination of {size}, decoding and pictures too", whole, "s", **limit, ok=whole <= LIMIT)
    against = "the series in float32 and the interpreter with its codecs"
    ok &= figure("memory of its process", memory, "MiB", against=against, goal=f"<= {MEMORY:g}", ok=memory <= MEMORY)
    return 0 if ok else 1


def examined(folder: Path, rounds: int) -> int:
    """Best seconds of the features and of the examination, and the most memory in MiB, as one line of JSON."""
    paths = sorted(folder.glob("*.dcm"))
    headers, place = [], {}
    for path in paths:
        with path.open("rb") as stream:
            header = header_of(stream)
        headers.append(header)
        place[header.sop_uid] = path
    archive = Archive("pacs", zone="Europe/Berlin")
    study = imaging_study(headers, archive)

    def opened(header: Header) -> BinaryIO:
        return place[header.sop_uid].open("rb")

    whole, features = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        made = examine(study, headers, opened, archive, Looking())
        whole.append(time.perf_counter() - began)
    memory = _peak()
    if len(made.pictures) != 3 or len(made.resources[-1]["component"]) != len(FEATURES):
        sys.exit("benchmarks: features or pictures are missing")
    images = [header for header in headers if header.series.modality == "MR"]
    quality = looked_at(images, lambda: planes_of(images, opened), 1 << 27)
    volume = volume_of(quality.planes, quality.step, opened)
    cut, begin = boxed(np.load(folder / "mask.npy"))
    for _ in range(rounds):
        began = time.perf_counter()
        measured(volume, Region("r", "ball", cut, begin))
        features.append(time.perf_counter() - began)
    print(json.dumps([min(features), min(whole), memory]))
    return 0


def _peak() -> float:
    """MiB that this process had resident at most. Not ru_maxrss: that remembers its parent's, from before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _ball(slices: int, size: int) -> np.ndarray:
    z, y, x = np.ogrid[:slices, :size, :size]
    radius = min(30, slices // 2 - 1, size // 4)
    mask: np.ndarray = (z - slices // 2) ** 2 + (y - size // 2) ** 2 + (x - size // 2) ** 2 <= radius**2
    return mask


def _objects(slices: int, size: int, mask: np.ndarray) -> list[bytes]:
    """Part 10 files."""
    from tests.adapters.imaging_made import objects, segmentation
    from tests.dicom_made import ct_series

    rng = np.random.default_rng(1)
    rows = list(ct_series(name="bench", slices=slices, size=size, modality="MR"))
    for at, each in enumerate(rows):
        each.SeriesTime, each.PositionReferenceIndicator = "101500", ""
        pixels = rng.integers(200, 300, (size, size), dtype=np.uint16) + mask[at] * np.uint16(400)
        each.PixelData = pixels.astype("<u2").tobytes()
    return list(objects(*rows, segmentation(rows, [mask])).values())


if __name__ == "__main__":
    sys.exit(main())
