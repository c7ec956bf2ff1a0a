"""Fuzz the DICOM header, reader and pixels by mutation: `python -m tests.soak.fuzz_dicom_reader --minutes 10`

Files of pydicom, pydicom-data and, where it is there, `../shared/data/dicom` are changed a little and read. Whatever
comes out must be a result or a BadInput, in two seconds of processor time and without memory that grows: what breaks
this is written to `--out`, once for each place that it comes from. Prints one JSON line; exits with 1 on a finding.
With `--pixels` they are decoded in this process: a codec that crashes ends it, and the input is `last` in `--out`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from adapters.dicom.headers import header_of
from adapters.dicom.pixels import frames
from adapters.readers.dicom import read
from models.errors import BadInput
from models.nouns import Part
from tests.adapters.dicom_reports import objects
from tests.adapters.dicom_samples import mutated, package_files, small

ROOT = Path(__file__).parents[2]
SLOW = 2.0


def tried(raw: bytes, pixels: bool) -> str:
    """What came of it: `read`, or the name of the refusal. Raises what must not come out."""
    try:
        header_of(raw)
        read(Part("0" * 32, 0, "fuzz", "application/dicom", "2026-01-01T00:00:00.000000Z", raw))
    except BadInput as error:
        outcome = type(error).__name__
    else:
        outcome = "read"
    if pixels:
        try:
            for index, _ in frames(raw, limit=1 << 24):
                if index > 4:
                    break
        except BadInput:
            pass
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pixels", action="store_true", help="decode the pixels, too")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-dicom")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    others = ROOT.parent / "shared" / "data" / "dicom"
    paths = (*package_files(), *(sorted(others.rglob("*.dcm")) if others.is_dir() else ()))
    images, stating = [path.read_bytes() for path in small(paths)], objects()
    chance, outcomes, places = random.Random(args.seed), Counter[str](), Counter[str]()
    slowest, end = 0.0, time.monotonic() + 60 * args.minutes
    while time.monotonic() < end:
        raw = mutated(chance.choice(images if chance.random() < 0.6 else stating), chance)
        if args.pixels:
            (args.out / "last").write_bytes(raw)
        began = time.process_time()
        try:
            outcomes[tried(raw, args.pixels)] += 1
        except Exception as error:  # noqa: BLE001 (that is what is looked for)
            at = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} {Path(at.filename).name}:{at.lineno}"
            if not places[place]:
                (args.out / f"finding-{len(places)}").write_bytes(raw)
            places[place] += 1
        took = time.process_time() - began
        slowest = max(slowest, took)
        if took > SLOW:
            places["slow"] += 1
            (args.out / "finding-slow").write_bytes(raw)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    result = {"inputs": outcomes.total(), **outcomes, "findings": dict(places), "slowest_s": round(slowest, 3)}
    sys.stdout.write(json.dumps({**result, "seeds": len(images) + len(stating), "peak_mb": peak}) + "\n")
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main())
