"""Run by the interpreter that has MIRP: image, mask, bins -> its features as JSON on the last line."""

from __future__ import annotations

import json
import logging
import sys
import warnings


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from mirp import extract_features

    image, mask, bins = sys.argv[1:]
    (found,) = extract_features(
        image=image,
        mask=mask,
        by_slice=False,
        base_feature_families=["statistics", "morphology", "cm", "rlm", "szm"],
        base_discretisation_method="fixed_bin_number",
        base_discretisation_n_bins=int(bins),
        glcm_spatial_method="3d_volume_merge",
        glrlm_spatial_method="3d_volume_merge",
        glszm_spatial_method="3d",
    )
    row = found.iloc[0].to_dict()
    kept = {key: float(row[key]) for key in row if key.split("_")[0] in ("morph", "stat", "cm", "rlm", "szm")}
    sys.stdout.write(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()
