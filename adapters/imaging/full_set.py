"""The full set of radiomics features of a region, by MIRP, where a site has the extra `radiomics` and asks for it.

MIRP (EUPL-1.2) follows the reference manual of the IBSI; the features that are ours, too, are compared with it in the
tests. It is imported when the first region is measured and not before: it takes seconds and hundreds of megabytes. The
arrays are handed over in memory: no image of a patient is written to a disk for it.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import Misconfigured, Unreadable

PACKAGE = "mirp"
FAMILIES = ("morph", "loc", "stat", "ivh", "ih", "cm", "rlm", "szm", "dzm", "ngt", "ngl")
"""How the names of its features begin; its other columns tell about files and settings."""


@dataclass(frozen=True, slots=True)
class FullSet:
    """MIRP of one version."""

    version: str

    def measures(
        self,
        values: NDArray[np.floating],
        mask: NDArray[np.bool_],
        spacing: tuple[float, float, float],
        *,
        bins: int | None = None,
        width: float | None = None,
        lowest: float | None = None,
    ) -> Mapping[str, float]:
        """MIRP's name -> value, 10 significant digits; what is no number is left out.

        `values` and `mask`: (slices, rows, columns) of the region's box; `spacing` in mm, in the same order. `bins` or
        `width` (from `lowest`): the grey levels, as in `texture.Discretisation`. Errors: Unreadable, where MIRP fails.
        """
        how: dict[str, Any] = {"base_discretisation_method": "fixed_bin_number", "base_discretisation_n_bins": bins}
        if bins is None:
            how = {"base_discretisation_method": "fixed_bin_size", "base_discretisation_bin_width": width}
            if lowest is not None:
                how["resegmentation_intensity_range"] = [lowest, math.nan]
        room = [(1, 1)] * 3  # a surface needs something around it
        image, inside = np.pad(values.astype(np.float32), room, mode="edge"), np.pad(mask, room)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (table,) = _mirp().extract_features(
                    image=_file("ImageNumpyFile", image, spacing),
                    mask=_file("MaskNumpyFile", inside.astype(np.uint8), spacing),
                    by_slice=False,
                    base_feature_families="all",
                    glcm_spatial_method="3d_volume_merge",
                    glrlm_spatial_method="3d_volume_merge",
                    **how,
                )
            row = table.iloc[0].to_dict()
        except Exception as error:  # noqa: BLE001 (it raises what it likes; its text may hold what it was given)
            raise Unreadable(f"{PACKAGE} cannot measure the region ({type(error).__name__})") from None
        found = {name: value for name, value in row.items() if name.partition("_")[0] in FAMILIES}
        return {
            name: float(f"{float(value):.10g}")
            for name, value in found.items()
            if isinstance(value, int | float | np.number) and math.isfinite(value)
        }


def load() -> FullSet:
    """Errors: Misconfigured, where the package is not installed. Nothing is imported yet."""
    try:
        return FullSet(metadata.version(PACKAGE))
    except metadata.PackageNotFoundError:
        raise Misconfigured(
            f"{PACKAGE} is not installed: it comes with the extra `radiomics`", where="radiomics"
        ) from None


def _mirp() -> Any:
    import mirp  # type: ignore[import-not-found]

    logging.getLogger(PACKAGE).setLevel(logging.CRITICAL)
    return mirp


def _file(kind: str, array: NDArray[Any], spacing: tuple[float, float, float]) -> Any:
    """An array as MIRP has it when it comes from a file; by its public functions an array would have no spacing."""
    from mirp._data_import import numpy_file  # type: ignore[import-not-found]

    made = getattr(numpy_file, kind)(image_spacing=spacing, sample_name="region")
    made.image_data = made.image_metadata = array
    return made
