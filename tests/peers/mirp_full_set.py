"""Run by the interpreter that has MIRP: the full set of a made region, by the server's own code, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPACING = (2.0, 0.8, 1.1)


def region() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A ball in noise that is brighter at one side, cut to its box."""
    z, y, x = np.mgrid[:13, :17, :15]
    mask = (z - 6) ** 2 / 36 + (y - 8) ** 2 / 64 + (x - 7) ** 2 / 49 <= 1
    noise = np.random.default_rng(5).normal(0, 40, mask.shape)
    return (np.round(100 + 12 * x + noise)).astype(np.float32), mask


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from adapters.imaging.full_set import load

    full = load()
    by_number = dict(full.measures(*region(), SPACING, bins=32))
    by_size = dict(full.measures(*region(), SPACING, width=25.0, lowest=-1000.0))
    sys.stdout.write(json.dumps({"version": full.version, "number": by_number, "size": by_size}) + "\n")


if __name__ == "__main__":
    main()
