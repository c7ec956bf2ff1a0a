"""`cds land` and `cds digest` of the Synthea set, beside only parsing and validating it with fhir.resources.

One process each, one after the other. Landing makes the bytes durable; digesting reads, validates, resolves whose they
are, projects facts, seals them and writes the ledger. The baseline has `json.loads` and `model_validate`, no more.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import _bench

GOAL = 4.0
"""Times the baseline."""
PEAK = 10**9
"""Bytes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--types", nargs="*", default=[], help="only these resource types (default: all 148,203 resources)"
    )
    parser.add_argument(
        "--baseline", nargs="+", type=Path, help=argparse.SUPPRESS
    )  # the child that only parses and validates
    args = parser.parse_args()
    if args.baseline:
        return _baseline(args.baseline)
    files = _bench.files_of(args.types)
    with _bench.scratch() as scratch, _bench.Waiting("land and digest"):
        landing, land_peak = _bench.cds(scratch / "var", "land", "--source", "synthea", *files)
        digesting, digest_peak = _bench.cds(scratch / "var", "digest")
        count, least = _only_validating(files)
    ours, peak = landing + digesting, max(land_peak, digest_peak)
    print(
        f"{count} resources: land {landing:.1f} s, digest {digesting:.1f} s, only validate {least:.1f} s   "
        f"{_bench.machine()}"
    )
    print(f"peak: land {land_peak / 1e6:.0f} MB, digest {digest_peak / 1e6:.0f} MB; {count / ours:.0f} resources/s")
    fast = _bench.figure(
        f"land + digest of {count} Synthea resources",
        ours,
        "s",
        against=f"only parse and validate with fhir.resources: {least:.1f} s",
        ratio=ours / least,
        goal=f"<= {GOAL:.0f}",
        ok=ours / least <= GOAL,
    )
    small = _bench.figure(
        "land + digest: peak resident memory",
        peak / 1e6,
        "MB",
        against="the larger of the two processes",
        goal=f"< {PEAK / 1e6:.0f} MB",
        ok=peak < PEAK,
    )
    return 0 if fast and small else 1


def _only_validating(files: Sequence[Path]) -> tuple[int, float]:
    """(resources, seconds) of the baseline, from process start to end like ours."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--baseline", *map(str, files)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=dict(os.environ))
    return int(done.stdout), time.perf_counter() - began


def _baseline(files: Sequence[Path]) -> int:
    from fhir.resources.R4B import get_fhir_model_class

    count = 0
    for path in files:
        with gzip.open(path, "rb") as lines:
            for line in lines:
                if line.strip():
                    resource = json.loads(line)
                    with contextlib.suppress(ValueError):  # some are invalid: finding that out is the work
                        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
                    count += 1
    print(count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
