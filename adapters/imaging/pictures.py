"""Pictures of key slices: PNG, 8 bits, the region's outline drawn, no text, no metadata.

Window: the header's (PS3.3 C.11.2.1.2, or .3 for LINEAR_EXACT) where the values are in its units; else from the 1st to
the 99th percentile of the slice. MONOCHROME1 is shown inverted (C.7.6.3.1.2). Pixels are square: the wider spacing is
stretched. The same volume and region give the same bytes with the same version of Pillow.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters.imaging.regions import Mask, Region
from adapters.imaging.volume import Volume

OUTLINE = (230, 159, 0)
"""Orange of Okabe and Ito's palette: seen by people with any of the common colour deficiencies, and never a grey."""
SMALLEST, LARGEST = 384, 1024
"""Pixels of the longer side."""


@dataclass(frozen=True, slots=True)
class Picture:
    png: bytes
    digest: str
    """SHA-256, hex."""
    slice: int
    width: int
    height: int
    window: str
    """Which rule the window came from."""

    @property
    def id(self) -> str:
        return f"png-{self.digest[:32]}"


def key_slices(region: Region, most: int) -> list[int]:
    """Slices of a volume: the one with the region's largest area (of as many, the first) first, then those at the
    quarters of its extent."""
    areas = region.mask.sum(axis=(1, 2))
    held = np.flatnonzero(areas)
    quarters = [int(held[round((len(held) - 1) * part)]) for part in (0.25, 0.75, 0.5)]
    picked = dict.fromkeys([int(np.argmax(areas)), *quarters])
    return [at + region.begin[0] for at in picked][:most]


def pictures_of(volume: Volume, region: Region, most: int) -> list[Picture]:
    """Pictures of a region's key slices, the first of the largest area."""
    return [_picture(volume, region, at) for at in key_slices(region, most)]


def _picture(volume: Volume, region: Region, at: int) -> Picture:
    image = volume.planes[at].header.image
    low, high, window = _window(volume, at)
    grey = np.clip((volume.values[at].astype(np.float64) - low) / (high - low), 0, 1)
    if image is not None and image.photometric == "MONOCHROME1":
        grey = 1 - grey
    mask = np.zeros(grey.shape, bool)
    z, y, x = region.box
    mask[y, x] = region.mask[at - z.start]
    pixels = np.round(grey * 255).astype(np.uint8)
    size = _size(grey.shape, volume.grid.spacing[1:])
    shown = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    drawn = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 0
    coloured = np.repeat(shown[:, :, None], 3, axis=2)
    coloured[outline(drawn)] = OUTLINE
    out = io.BytesIO()
    Image.fromarray(coloured).save(out, format="PNG", compress_level=6)
    png = out.getvalue()
    return Picture(png, hashlib.sha256(png).hexdigest(), at, size[0], size[1], window)


def _window(volume: Volume, at: int) -> tuple[float, float, str]:
    """Lowest and highest value that differ in shade; of a window that is none, by percentiles."""
    image = volume.planes[at].header.image
    if image is not None and image.centers and image.widths and volume.scale != "SUVbw":
        centre, width = image.centers[0], image.widths[0]
        if image.voi in ("", "LINEAR"):
            centre, width = centre - 0.5, width - 1
        low, high = centre - width / 2, centre + width / 2
        if image.voi != "SIGMOID" and low < high:
            return low, high, "header"
    low, high = (float(each) for each in np.percentile(volume.values[at], (1, 99)))
    return (low, high, "percentiles") if low < high else (low - 0.5, low + 0.5, "percentiles")


def _size(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, int]:
    """Width and height of the picture, with square pixels."""
    height, width = shape[0] * spacing[0], shape[1] * spacing[1]
    pixels = max(shape[0] * spacing[0], shape[1] * spacing[1]) / min(spacing)
    longest = min(max(pixels, SMALLEST), LARGEST)
    scale = longest / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def outline(mask: Mask) -> NDArray[np.bool_]:
    """Two pixels wide: the rim inside the region, and the one around it."""
    return _grown(mask) & ~_shrunk(mask)


def _grown(mask: Mask) -> Mask:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _shrunk(mask: Mask) -> Mask:
    return ~_grown(~np.pad(mask, 1))[1:-1, 1:-1]
