"""Imaging modality: nuclear morphometry of a fine-needle aspirate, and the names of what the DICOM arm will compute.

The thirty features of the Wisconsin prognostic set (Street, Mangasarian and Wolberg 1995, ICML): ten measures of each
cell nucleus, as their mean, standard error, and "worst" (mean of the three largest) in one aspirate. No public code
system has them; ours is `urn:cds-server:nuclear-morphometry`. Lengths are pixels of the authors' microscope: another
magnification gives other numbers, which the model's guard refuses. All thirty must come from one measurement.

Not fused into the validated risk: no cohort joins these features to the other modalities and an outcome.
"""

from __future__ import annotations

import itertools

from models import codes
from models.codes import CodeSet
from models.current import Chart, Reading
from models.features import Definition
from models.nouns import JSON, Feature, FeatureVector, Snapshot

NAME = "imaging"
SYSTEM = "urn:cds-server:nuclear-morphometry"
RADIOMICS = "urn:cds-server:ibsi"
_YEAR = 24.0 * 365

STATISTICS = {"mean": "mean", "se": "standard error", "worst": "worst"}
MEASURES = {
    "radius": "radius", "texture": "texture", "perimeter": "perimeter", "area": "area", "smoothness": "smoothness",
    "compactness": "compactness", "concavity": "concavity", "concave_points": "concave points", "symmetry": "symmetry",
    "fractal_dimension": "fractal dimension",
}  # fmt: skip
_SCOPE = "Cell nuclei of one fine-needle aspirate of a breast mass, outlined by the authors' program (Xcyt)."
_SOURCE = "Street, Mangasarian and Wolberg 1995; UCI Breast Cancer Wisconsin (Prognostic)"


def _nuclear(statistic: str, measure: str) -> Definition:
    name = f"{statistic}_{measure}"
    code = name.replace("_", "-")
    return Definition(
        name,
        f"Nuclear {MEASURES[measure]}, {STATISTICS[statistic]}",
        CodeSet(name, _SCOPE, _SOURCE, codes.keys((SYSTEM, code))),
        units=frozenset({None, "1"}),
        plausible=(0.0, 10000.0),
        max_age_hours=_YEAR,
    )


NUCLEAR = tuple(_nuclear(*pair) for pair in itertools.product(STATISTICS, MEASURES))
"""Columns in the order of the data set: mean, standard error, worst."""


def _radiomic(name: str, ibsi: str, title: str, unit: str | None, plausible: tuple[float, float]) -> Definition:
    return Definition(
        name,
        title,
        CodeSet(
            name,
            "One segmented region of interest; computed from pixels, not read from a report.",
            f"Image Biomarker Standardisation Initiative, feature {ibsi} (from memory, not checked against a release)",
            codes.keys((RADIOMICS, ibsi)),
        ),
        units=frozenset({unit, "1"} if unit is None else {unit}),
        plausible=plausible,
        max_age_hours=_YEAR,
    )


_GREY = (-32768.0, 65535.0)
DICOM = (
    _radiomic("intensity_mean", "Q4LE", "Mean intensity", None, _GREY),
    _radiomic("intensity_median", "Y12H", "Median intensity", None, _GREY),
    _radiomic("intensity_variance", "ECT3", "Variance of intensity", None, (0.0, 1e10)),
    _radiomic("intensity_skewness", "KE2A", "Skewness of intensity", None, (-100.0, 100.0)),
    _radiomic("intensity_kurtosis", "IPH6", "Excess kurtosis of intensity", None, (-3.0, 10000.0)),
    _radiomic("intensity_p10", "QG58", "10th percentile of intensity", None, _GREY),
    _radiomic("intensity_p90", "8DWT", "90th percentile of intensity", None, _GREY),
    _radiomic("volume", "RNU0", "Volume (mesh)", "mm3", (0.1, 1e7)),
    _radiomic("surface", "C0JK", "Surface area (mesh)", "mm2", (0.1, 1e6)),
    _radiomic("sphericity", "QCFX", "Sphericity", None, (0.0, 1.0)),
    _radiomic("largest_diameter", "L0JK", "Largest diameter", "mm", (0.1, 1000.0)),
)
"""What the DICOM arm will compute and write as facts. No shipped model reads them; a site's own may."""

_READING = Reading.of(NAME, __file__, (*NUCLEAR, *DICOM), (codes.BREAST_CANCER, codes.METASTASIS))
ENCODER = _READING.encoder


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """The features that the manifest's columns name; absent where one lacks, or where they are of several measurements.

    Raises: BadInput, where a what-if input is not one of the manifest's rules.
    """
    chart = _READING.chart(snapshot)
    asked = set(manifest["columns"])
    found = {each.name: chart.value(each) for each in _READING.definitions if each.name in asked}
    outside = _outside(chart) or _mixed(found, {fact.id: fact.effective or "" for fact in snapshot.facts})
    return _READING.vector(found, manifest, snapshot.context, outside)


def _outside(chart: Chart) -> str | None:
    if not chart.diagnoses(codes.BREAST_CANCER):
        return "no invasive breast cancer is recorded"
    if chart.diagnoses(codes.METASTASIS):
        return "distant metastasis is recorded; the model was fitted on disease without it"
    return None


def _mixed(found: dict[str, Feature], times: dict[str, str]) -> str | None:
    measured = {times[fact] for feature in found.values() for fact in feature.facts}
    return "the features are of several measurements" if len(measured) > 1 else None
