"""Tiles of slices for a site's own image encoder, a few at a time; the embedding of a region is their mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.imaging.regions import Region
from adapters.imaging.volume import Volume
from models.errors import ContractMismatch

Tiles = NDArray[np.float32]
"""(tiles, channels, size, size)"""
Vectors = NDArray[np.float64]
MAX_TILES = 4096


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an encoder wants its tiles, as its manifest declares."""

    size: int
    """Pixels of a side."""
    stride: int
    low: float
    high: float
    """Values between which intensities are cut; they become 0 and 1."""
    mean: float = 0.0
    deviation: float = 1.0
    """Taken from the value between 0 and 1, then divided by."""
    channels: int = 1
    """The same slice in each."""
    batch: int = 16
    scale: str = "arbitrary"
    """HU, SUVbw or arbitrary: an encoder that was trained on one is not shown another."""

    def __post_init__(self) -> None:
        sizes = (self.size, self.stride, self.channels, self.batch)
        if min(sizes) < 1 or self.size > 2048 or self.batch > 256 or self.channels > 16:
            raise ContractMismatch("a tiling whose sizes cannot be")
        if not self.high > self.low or self.deviation <= 0:
            raise ContractMismatch("a tiling whose normalisation cannot be")


def tiling_of(declared: Mapping[str, Any]) -> Tiling:
    """Raises: ContractMismatch, where it lacks a size or has a member that is unknown or no number."""
    try:
        made = {
            name: str(value) if name == "scale" else _WHOLE.get(name, float)(value) for name, value in declared.items()
        }
        return Tiling(**made)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        raise ContractMismatch("an encoder's tiling is not as it should be declared") from None


_WHOLE = {"size": int, "stride": int, "channels": int, "batch": int}


class Encoder(Protocol):
    """A port: tiles in, vectors out."""

    name: str
    version: str
    digest: str
    """SHA-256 of its graph."""
    tiling: Mapping[str, Any]
    """The members of `Tiling`, as the encoder's manifest declares them."""
    length: int
    """Numbers of a vector."""

    def run(self, tiles: Tiles) -> Vectors:
        """(tiles, length) of at most one batch. Raises: ModelFault."""
        ...


def tiles_of(volume: Volume, region: Region, tiling: Tiling) -> Iterator[Tiles]:
    """Batches of tiles that cover the region's box, slice by slice; only tiles that hold a voxel of it. A tile that
    leaves the image is filled up with the lowest value. At most 4,096 tiles, evenly over the slices."""
    z, y, x = region.box
    places = [
        (at, top, left)
        for at in range(z.start, z.stop)
        for top in range(y.start, y.stop, tiling.stride)
        for left in range(x.start, x.stop, tiling.stride)
        if _holds(region, at - z.start, top - y.start, left - x.start, tiling.size)
    ]
    if len(places) > MAX_TILES:
        places = [places[at * len(places) // MAX_TILES] for at in range(MAX_TILES)]
    for begin in range(0, len(places), tiling.batch):
        yield np.stack([_tile(volume, place, tiling) for place in places[begin : begin + tiling.batch]])


def _holds(region: Region, at: int, top: int, left: int, size: int) -> bool:
    return bool(region.mask[at, top : top + size, left : left + size].any())


def _tile(volume: Volume, place: tuple[int, int, int], tiling: Tiling) -> Tiles:
    at, top, left = place
    cut = volume.values[at, top : top + tiling.size, left : left + tiling.size]
    scaled = (np.clip(cut, tiling.low, tiling.high) - tiling.low) / (tiling.high - tiling.low)
    whole = np.zeros((tiling.size, tiling.size), np.float32)
    whole[: cut.shape[0], : cut.shape[1]] = scaled
    made: Tiles = np.repeat(((whole - tiling.mean) / tiling.deviation)[None], tiling.channels, axis=0).astype(
        np.float32
    )
    return made


def embedding(volume: Volume, region: Region, encoder: Encoder) -> Vectors | None:
    """Mean vector over the region's tiles; None where the encoder is for values of another scale. Raises: ModelFault,
    ContractMismatch (vectors that are not as declared)."""
    tiling = tiling_of(encoder.tiling)
    if tiling.scale != volume.scale:
        return None
    total, count = np.zeros(encoder.length), 0
    for batch in tiles_of(volume, region, tiling):
        found = np.asarray(encoder.run(batch), np.float64)
        if found.shape != (len(batch), encoder.length) or not np.isfinite(found).all():
            raise ContractMismatch("an encoder's vectors are not as its manifest declares")
        total += found.sum(axis=0)
        count += len(batch)
    return total / count if count else None
