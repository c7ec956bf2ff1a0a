"""The features: IBSI code, name, unit and family, as the reference manual (arXiv:1612.07003, chapter 3) has them.

Intensities have the unit of the image: HU, SUV or none. All three are quotients, so their quantities are of unit 1 in
UCUM; which scale it is stands in the Observation's method.
"""

from __future__ import annotations

from typing import NamedTuple

SYSTEM = "urn:cds-server:ibsi"
"""The same as models/modalities/imaging.py asks for."""


class Feature(NamedTuple):
    code: str
    name: str
    family: str
    """intensity (UHIW), morphology (HCUG), co-occurrence (LFYI, 3D merged), run length (TP0I, 3D merged),
    size zone (9SAK, 3D)."""
    unit: str = "1"
    """UCUM."""
    power: int = 0
    """Of the intensities' own unit."""


_INTENSITY = {
    "Q4LE": ("Mean intensity", 1), "ECT3": ("Intensity variance", 2), "KE2A": ("Intensity skewness", 0),
    "IPH6": ("(Excess) intensity kurtosis", 0), "Y12H": ("Median intensity", 1), "1GSF": ("Minimum intensity", 1),
    "QG58": ("10th intensity percentile", 1), "8DWT": ("90th intensity percentile", 1),
    "84IY": ("Maximum intensity", 1), "SALO": ("Intensity interquartile range", 1), "2OJQ": ("Intensity range", 1),
    "4FUA": ("Intensity-based mean absolute deviation", 1),
    "1128": ("Intensity-based robust mean absolute deviation", 1),
    "N72L": ("Intensity-based median absolute deviation", 1),
    "7TET": ("Intensity-based coefficient of variation", 0),
    "9S40": ("Intensity-based quartile coefficient of dispersion", 0), "N8CA": ("Intensity-based energy", 2),
    "5ZWQ": ("Root mean square intensity", 1),
}  # fmt: skip
_MORPHOLOGY = {
    "RNU0": ("Volume (mesh)", "mm3"), "YEKZ": ("Volume (voxel counting)", "mm3"),
    "C0JK": ("Surface area (mesh)", "mm2"), "2PR5": ("Surface to volume ratio", "/mm"), "SKGS": ("Compactness 1", "1"),
    "BQWJ": ("Compactness 2", "1"), "KRCK": ("Spherical disproportion", "1"), "QCFX": ("Sphericity", "1"),
    "25C7": ("Asphericity", "1"), "KLMA": ("Centre of mass shift", "mm"), "L0JK": ("Maximum 3D diameter", "mm"),
    "TDIC": ("Major axis length", "mm"), "P9VJ": ("Minor axis length", "mm"), "7J51": ("Least axis length", "mm"),
    "Q3CK": ("Elongation", "1"), "N17B": ("Flatness", "1"),
    "PBX1": ("Volume density (axis-aligned bounding box)", "1"),
    "R59B": ("Area density (axis-aligned bounding box)", "1"), "99N0": ("Integrated intensity", "mm3"),
}  # fmt: skip
_CO_OCCURRENCE = {
    "GYBY": "Joint maximum", "60VM": "Joint average", "UR99": "Joint variance", "TU9B": "Joint entropy",
    "TF7R": "Difference average", "D3YU": "Difference variance", "NTRS": "Difference entropy", "ZGXS": "Sum average",
    "OEEB": "Sum variance", "P6QZ": "Sum entropy", "8ZQL": "Angular second moment", "ACUI": "Contrast",
    "IB1Z": "Inverse difference", "NDRX": "Normalised inverse difference", "WF0Z": "Inverse difference moment",
    "1QCO": "Normalised inverse difference moment", "E8JP": "Inverse variance", "NI2N": "Correlation",
    "QWB0": "Autocorrelation", "DG8W": "Cluster tendency", "7NFM": "Cluster shade", "AE86": "Cluster prominence",
    "R8DG": "Information correlation 1", "JN9H": "Information correlation 2",
}  # fmt: skip
_RUN_LENGTH = {
    "22OV": "Short runs emphasis", "W4KF": "Long runs emphasis", "V3SW": "Low grey level run emphasis",
    "G3QZ": "High grey level run emphasis", "HTZT": "Short run low grey level emphasis",
    "GD3A": "Short run high grey level emphasis", "IVPO": "Long run low grey level emphasis",
    "3KUM": "Long run high grey level emphasis", "R5YN": "Grey level non-uniformity",
    "OVBL": "Normalised grey level non-uniformity", "W92Y": "Run length non-uniformity",
    "IC23": "Normalised run length non-uniformity", "9ZK5": "Run percentage", "8CE5": "Grey level variance",
    "SXLW": "Run length variance", "HJ9O": "Run entropy",
}  # fmt: skip
_SIZE_ZONE = {
    "5QRC": "Small zone emphasis", "48P8": "Large zone emphasis", "XMSY": "Low grey level zone emphasis",
    "5GN9": "High grey level zone emphasis", "5RAI": "Small zone low grey level emphasis",
    "HW1V": "Small zone high grey level emphasis", "YH51": "Large zone low grey level emphasis",
    "J17V": "Large zone high grey level emphasis", "JNSA": "Grey level non-uniformity (zones)",
    "Y1RO": "Normalised grey level non-uniformity (zones)", "4JP3": "Zone size non-uniformity",
    "VB3A": "Normalised zone size non-uniformity", "P30P": "Zone percentage", "BYLV": "Grey level variance (zones)",
    "3NSA": "Zone size variance", "GU8N": "Zone size entropy",
}  # fmt: skip

FEATURES: dict[str, Feature] = {
    feature.code: feature
    for feature in (
        *(Feature(code, name, "intensity", power=power) for code, (name, power) in _INTENSITY.items()),
        *(Feature(code, name, "morphology", unit) for code, (name, unit) in _MORPHOLOGY.items()),
        *(Feature(code, name, "co-occurrence") for code, name in _CO_OCCURRENCE.items()),
        *(Feature(code, name, "run length") for code, name in _RUN_LENGTH.items()),
        *(Feature(code, name, "size zone") for code, name in _SIZE_ZONE.items()),
    )
}
"""By code, in the order in which they are reported."""
