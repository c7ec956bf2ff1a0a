"""Peak memory of `cds land` on a file of 2 GB, beside one of a tenth: landing is streamed, so it stays flat.

The NDJSON is made in the scratch folder (`CDS_BENCH_DIR`), which needs about 2.5 times its size, and is removed.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import shutil
import sys
from pathlib import Path

from benchmarks import _bench

SIZE = 2 * 10**9
TIMES = 10
GROWTH = 1.2
"""Of the peak, where the file grows tenfold."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=SIZE, help="size of the large file; the small one has a tenth")
    args = parser.parse_args()
    with _bench.scratch() as scratch, _bench.Waiting("landing"):
        free = shutil.disk_usage(scratch).free
        if free < 2.5 * args.bytes:
            sys.exit(
                f"land_memory: {free / 1e9:.1f} GB are free, {2.5 * args.bytes / 1e9:.1f} are needed (CDS_BENCH_DIR)"
            )
        few = _landed(scratch / "small", args.bytes // TIMES)
        much = _landed(scratch / "large", args.bytes)
    small, large = few[1], much[1]
    print(f"small {few[0]:.1f} s, large {much[0]:.1f} s ({args.bytes / much[0] / 1e6:.0f} MB/s)   {_bench.machine()}")
    kept = _bench.figure(
        f"cds land of {args.bytes / 1e9:.2g} GB: peak resident memory",
        large / 1e6,
        "MB",
        against=f"a file of a tenth: {small / 1e6:.0f} MB",
        ratio=large / small,
        goal=f"<= {GROWTH}",
        ok=large <= GROWTH * small,
    )
    return 0 if kept else 1


def _landed(folder: Path, size: int) -> tuple[float, int]:
    """Seconds and peak bytes of landing one file of that size into a new instance; all of it is removed again."""
    folder.mkdir()
    path = folder / "many.ndjson"
    _write(path, size)
    try:
        return _bench.cds(folder / "var", "land", "--source", "many", path)
    finally:
        shutil.rmtree(folder)


def _write(path: Path, size: int) -> None:
    """Observations of the Synthea set over and over, each under an id of its own, up to `size` bytes."""
    with gzip.open(_bench.synthea() / "Observation.000.ndjson.gz") as lines:
        sample = [line.rstrip(b"\n") for line in itertools.islice(lines, 5000)]
    written, number = 0, 0
    with open(path, "wb") as file:
        while written < size:
            for line in sample:
                number += 1
                at = line.index(b'"id"')
                start = line.index(b'"', at + 4) + 1
                written += file.write(line[:start] + b"%09d-" % number + line[start:] + b"\n")
                if written >= size:
                    return


if __name__ == "__main__":
    sys.exit(main())
