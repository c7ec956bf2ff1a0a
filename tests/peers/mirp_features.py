"""Run by the interpreter that has MIRP: bins, then images and masks in turn -> a list of its features, one for each
image, as JSON on the last line. (To load it takes several times as long as to measure.)"""

from __future__ import annotations

import json
import logging
import sys
import warnings


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    bins, *files = sys.argv[1:]
    sys.stdout.write(json.dumps([of(*each, int(bins)) for each in zip(files[::2], files[1::2], strict=True)]) + "\n")


def of(image: str, mask: str, bins: int) -> dict[str, float]:
    from mirp import extract_features

    (found,) = extract_features(
        image=image,
        mask=mask,
        by_slice=False,
        base_feature_families=["statistics", "morphology", "cm", "rlm", "szm"],
        base_discretisation_method="fixed_bin_number",
        base_discretisation_n_bins=bins,
        glcm_spatial_method="3d_volume_merge",
        glrlm_spatial_method="3d_volume_merge",
        glszm_spatial_method="3d",
    )
    row = found.iloc[0].to_dict()
    return {key: float(row[key]) for key in row if key.split("_")[0] in ("morph", "stat", "cm", "rlm", "szm")}


if __name__ == "__main__":
    main()
