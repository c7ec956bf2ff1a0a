"""One region -> its features, with how they were computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapters.imaging.catalogue import FEATURES
from adapters.imaging.findings import Finding, Weight
from adapters.imaging.first_order import Measures, first_order
from adapters.imaging.regions import Region
from adapters.imaging.shape import shape
from adapters.imaging.texture import Discretisation, discretised, texture
from adapters.imaging.volume import Volume

DISCRETISATIONS = {
    "HU": Discretisation(width=25.0, lowest=-1000.0),
    "SUVbw": Discretisation(width=0.5, lowest=0.0),
    "arbitrary": Discretisation(bins=32),
}
"""By scale. Calibrated values get bins of a fixed size from a fixed start, so that a grey level means the same in every
patient; arbitrary ones a fixed number of bins (IBSI 2.7)."""
MIN_VOXELS = 64
"""Below which texture is not computed: it would describe the outline."""
MAX_TEXTURE = 1 << 22
"""Voxels of a region's box above which texture is not computed."""


@dataclass(frozen=True)
class Measured:
    region: Region
    measures: Measures
    """IBSI code -> value, in the catalogue's order; 10 significant digits, so that libraries of linear algebra that
    differ in the last ones give the same bytes."""
    scale: str
    discretisation: str
    """Empty where no texture was computed."""
    findings: tuple[Finding, ...]


def measured(volume: Volume, region: Region, how: Discretisation | None = None) -> Measured:
    """The features of a region with a voxel at least."""
    values = volume.values[region.box]
    findings = list(region.findings)
    how = how or DISCRETISATIONS[volume.scale]
    with np.errstate(all="ignore"):  # what overflows is left out below
        found = first_order(values[region.mask]) | shape(region.mask, values, volume.grid.spacing)
    voxels = int(np.count_nonzero(region.mask))
    levels = None
    if region.rule:
        findings.append(Finding("rule", "nobody drew this region: a rule did, and it is no lesion", "", Weight.CAUTION))
    if voxels < MIN_VOXELS:
        words = f"fewer than {MIN_VOXELS} voxels: no texture, and shape is that of the grid"
        findings.append(Finding("small-region", words))
    elif region.mask.size > MAX_TEXTURE:
        findings.append(Finding("large-region", "too many voxels for texture", "", Weight.NOTE))
    else:
        levels = discretised(values, region.mask, how)
        if levels is None:
            findings.append(Finding("many-levels", "more than 1024 grey levels: no texture", "", Weight.NOTE))
        else:
            found |= texture(levels)
    if _at_the_edge(volume, region):
        findings.append(Finding("cut-off", "the region reaches the edge of the images: a part may be missing"))
    rounded = {code: float(f"{found[code]:.10g}") for code in FEATURES if code in found and np.isfinite(found[code])}
    return Measured(region, rounded, volume.scale, str(how) if levels is not None else "", tuple(findings))


def _at_the_edge(volume: Volume, region: Region) -> bool:
    ends = zip(region.begin, region.mask.shape, volume.grid.shape, strict=True)
    return any(begin == 0 or begin + size == whole for begin, size, whole in ends)
