"""Fuzz the DICOM storage door: `python -m tests.soak.fuzz_dicom_storage --minutes 10`

Spoilt associations and spoilt objects over real sockets into a real store, and spoilt data sets to the search for the
two UIDs. After each minute a sound object must be taken and come back byte for byte, nothing may be half received, no
mistake of ours may have happened, and memory must not grow. Prints one JSON line; exits with 1 on a finding.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.adapters.dicom_senders import listening, opened
from tests.adapters.test_dicom_associations import fuzz, fuzz_search

GROWTH_MB = 128
"""The page caches of SQLite fill to 64 MiB a connection, and then no more. Mapped files are not counted: the
kernel takes their pages back."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tried, searched, seed, began, first = 0, 0, args.seed, time.process_time(), 0
    with tempfile.TemporaryDirectory(prefix="cds-fuzz-") as folder:
        hurried = listening(stall_seconds=2, request_seconds=2, idle_seconds=2)
        with opened(Path(folder) / "var", hurried) as door:
            while time.process_time() - began < args.minutes * 60:
                share = min(60.0, args.minutes * 60)
                tried += fuzz(door, share * 0.8, seed)
                searched += fuzz_search(share * 0.2, seed)
                seed += 1
                first = first or _resident()
            counts = {name: count for name, count in sorted(door.counts.items()) if count}
    grown = (_resident() - first) / 1e6
    told = {"associations": tried, "searches": searched, "grown_mb": round(grown, 1), "counts": counts}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if not counts.get("mistakes") and grown < GROWTH_MB else 1


def _resident() -> int:
    """Bytes of anonymous memory (proc(5), smaps_rollup)."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return int(re.search(r"^Anonymous: +(\d+) kB$", rollup, re.MULTILINE)[1]) * 1024  # type: ignore[index]


if __name__ == "__main__":
    sys.exit(main())
