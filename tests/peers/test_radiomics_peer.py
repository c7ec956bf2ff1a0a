"""Our features beside those of MIRP, an established package that follows the IBSI, on images of others.

The same mask on the same grid, the same grey levels (32 of a fixed number), the same merging of directions.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from adapters.imaging.catalogue import FEATURES
from adapters.imaging.first_order import first_order
from adapters.imaging.regions import boxed
from adapters.imaging.shape import shape
from adapters.imaging.texture import Discretisation, discretised, texture
from tests.adapters.imaging_made import nrrd
from tests.peers import ROOT, require
from tests.peers.mirp_full_set import SPACING, region

NAMES = {
    "Q4LE": "stat_mean", "ECT3": "stat_var", "KE2A": "stat_skew", "IPH6": "stat_kurt", "Y12H": "stat_median",
    "1GSF": "stat_min", "QG58": "stat_p10", "8DWT": "stat_p90", "84IY": "stat_max", "SALO": "stat_iqr",
    "2OJQ": "stat_range", "4FUA": "stat_mad", "1128": "stat_rmad", "N72L": "stat_medad", "7TET": "stat_cov",
    "9S40": "stat_qcod", "N8CA": "stat_energy", "5ZWQ": "stat_rms",
    "RNU0": "morph_volume", "YEKZ": "morph_vol_approx", "C0JK": "morph_area_mesh", "2PR5": "morph_av",
    "SKGS": "morph_comp_1", "BQWJ": "morph_comp_2", "KRCK": "morph_sph_dispr", "QCFX": "morph_sphericity",
    "25C7": "morph_asphericity", "KLMA": "morph_com", "L0JK": "morph_diam", "TDIC": "morph_pca_maj_axis",
    "P9VJ": "morph_pca_min_axis", "7J51": "morph_pca_least_axis", "Q3CK": "morph_pca_elongation",
    "N17B": "morph_pca_flatness", "PBX1": "morph_vol_dens_aabb", "R59B": "morph_area_dens_aabb",
    "99N0": "morph_integ_int",
    "GYBY": "cm_joint_max", "60VM": "cm_joint_avg", "UR99": "cm_joint_var", "TU9B": "cm_joint_entr",
    "TF7R": "cm_diff_avg", "D3YU": "cm_diff_var", "NTRS": "cm_diff_entr", "ZGXS": "cm_sum_avg", "OEEB": "cm_sum_var",
    "P6QZ": "cm_sum_entr", "8ZQL": "cm_energy", "ACUI": "cm_contrast", "IB1Z": "cm_inv_diff",
    "NDRX": "cm_inv_diff_norm", "WF0Z": "cm_inv_diff_mom", "1QCO": "cm_inv_diff_mom_norm", "E8JP": "cm_inv_var",
    "NI2N": "cm_corr", "QWB0": "cm_auto_corr", "DG8W": "cm_clust_tend", "7NFM": "cm_clust_shade",
    "AE86": "cm_clust_prom", "R8DG": "cm_info_corr1", "JN9H": "cm_info_corr2",
    "22OV": "rlm_sre", "W4KF": "rlm_lre", "V3SW": "rlm_lgre", "G3QZ": "rlm_hgre", "HTZT": "rlm_srlge",
    "GD3A": "rlm_srhge", "IVPO": "rlm_lrlge", "3KUM": "rlm_lrhge", "R5YN": "rlm_glnu", "OVBL": "rlm_glnu_norm",
    "W92Y": "rlm_rlnu", "IC23": "rlm_rlnu_norm", "9ZK5": "rlm_r_perc", "8CE5": "rlm_gl_var", "SXLW": "rlm_rl_var",
    "HJ9O": "rlm_rl_entr",
    "5QRC": "szm_sze", "48P8": "szm_lze", "XMSY": "szm_lgze", "5GN9": "szm_hgze", "5RAI": "szm_szlge",
    "HW1V": "szm_szhge", "YH51": "szm_lzlge", "J17V": "szm_lzhge", "JNSA": "szm_glnu", "Y1RO": "szm_glnu_norm",
    "4JP3": "szm_zsnu", "VB3A": "szm_zsnu_norm", "P30P": "szm_z_perc", "BYLV": "szm_gl_var", "3NSA": "szm_zs_var",
    "GU8N": "szm_zs_entr",
}  # fmt: skip
"""By IBSI code; ends of names (`_d1_3d_v_mrg_fbn_n32`) left out."""

MESH = {"RNU0", "C0JK", "2PR5", "SKGS", "BQWJ", "KRCK", "QCFX", "25C7", "PBX1", "R59B", "99N0"}
"""What depends on how a mesh goes through cells whose corners alternate: ours keeps them apart, MIRP's (Lewiner 2003)
sometimes joins them. The reference manual expects small differences between meshing algorithms."""
SINGLE = 1e-4
"""MIRP computes statistics in single precision."""
EXACT = 1e-8
MESH_TOLERANCE = {"breast1": 1e-6, "brain1": 0.01}
"""The region of breast1 has no such cell."""


def ours(image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    cut, begin = boxed(mask)
    values = image[tuple(slice(at, at + size) for at, size in zip(begin, cut.shape, strict=True))].astype(np.float32)
    levels = discretised(values, cut, Discretisation(bins=32))
    assert levels is not None
    return first_order(values[cut]) | shape(cut, values, spacing) | texture(levels)


IMAGES = ("breast1", "brain1")


def files_of(peer_data: Path, name: str) -> tuple[Path, Path]:
    image, mask = (peer_data / "dicom" / "pyradiomics-nrrd" / f"{name}_{kind}.nrrd" for kind in ("image", "label"))
    return image, mask


@pytest.fixture(scope="module")
def all_theirs(peer_data: Path) -> dict[str, dict[str, float]]:
    """MIRP's features of each image, by their own names."""
    files = [file for name in IMAGES for file in files_of(peer_data, name)]
    ran = subprocess.run(
        [require("mirp"), ROOT / "tests" / "peers" / "mirp_features.py", "32", *files],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return dict(zip(IMAGES, json.loads(ran.stdout.splitlines()[-1]), strict=True))


@pytest.fixture(params=IMAGES)
def both(
    request: pytest.FixtureRequest, peer_data: Path, all_theirs: dict[str, dict[str, float]]
) -> tuple[str, dict[str, float], dict[str, float]]:
    """The image's name, ours and theirs, by IBSI code."""
    name, found = request.param, all_theirs[request.param]
    ends = ("", "_d1_3d_v_mrg_fbn_n32", "_3d_v_mrg_fbn_n32", "_3d_fbn_n32")
    theirs = {code: next(found[key + end] for end in ends if key + end in found) for code, key in NAMES.items()}
    image, mask = files_of(peer_data, name)
    array, spacing = nrrd(image)
    labels, _ = nrrd(mask)
    return name, ours(array, labels > 0, spacing), theirs


def test_every_feature_agrees(both: tuple[str, dict[str, float], dict[str, float]]) -> None:
    name, mine, theirs = both
    assert set(mine) == set(theirs) == set(FEATURES)
    apart: dict[str, float] = {}
    for code, value in theirs.items():
        limit = MESH_TOLERANCE[name] if code in MESH else SINGLE if NAMES[code].startswith("stat_") else EXACT
        difference = abs(mine[code] - value) / max(abs(value), 1e-12)
        if difference > limit:
            apart[f"{code} {FEATURES[code].name}"] = difference
    assert not apart


def test_the_extra_measures_the_same_region_on_the_same_grid() -> None:
    """What a site gets that asks for `radiomics = true`, by the code that it runs; here in MIRP's own environment."""
    ran = subprocess.run(
        [require("mirp"), ROOT / "tests" / "peers" / "mirp_full_set.py"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["version"].startswith("2.")
    values, mask = region()
    for kind, how in (("number", Discretisation(bins=32)), ("size", Discretisation(width=25.0, lowest=-1000.0))):
        theirs = found[kind]
        assert len(theirs) > 160
        levels = discretised(values, mask, how)
        assert levels is not None
        mine = first_order(values[mask]) | shape(mask, values, SPACING) | texture(levels)
        for code, name in NAMES.items():
            (value,) = [theirs[each] for each in theirs if each == name or _plain(each) == name]
            limit = 0.02 if code in MESH else SINGLE
            assert mine[code] == pytest.approx(value, rel=limit, abs=1e-6), (kind, name)


def _plain(name: str) -> str:
    """Without the settings that MIRP appends."""
    return re.sub(r"(_d1)?_3d(_v_mrg)?_fb[ns]_[nw][\d.]+$", "", name)
