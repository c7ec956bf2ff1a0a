"""Cohorts that a package ships (SurvSet, GPL: only ever in training), by name, each checked by SHA-256."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from importlib import resources

import numpy as np
import numpy.typing as npt
from SurvSet.data import SurvLoader  # type: ignore[import-untyped]

from models.errors import BadInput

DIGESTS: Mapping[str, str] = {
    "GBSG2": "9d454950bed0d720e9b2c36b60f5aeae55c89dd07f6523f39088f886a38b3c22",
    "gse1992": "86601d8810ca2738c0d460f7ee371815ba3d7354c8264abfbb6a5153133ff1da",
    "gse4335": "4a29a1b0cd04b8c08c9f50b27d0e1fab94db0756d85d31e38e7ca5c08c6c6371",
    "nki70": "595c5eb86cff2e222eaeb0a51a8eb14f8e5df6a66ceda601929025e295a48e32",
    "rott2": "66e20f825fe5b5c6fec83a86e2e4f6cde4b4e6257937d5275ab52c2daa149ea6",
    "wpbc": "51295645e06b62d8e93867b5c5c4c582a450efcca39b65be56b4faaae67372c1",
}
"""Cohort -> SHA-256 of its file in SurvSet 0.2.11."""


def file_of(name: str) -> str:
    return f"SurvSet/resources/pickles/{name}.pickle"


def table(name: str, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[np.generic]]:
    """The columns of a cohort by name (all of them by default).

    The file is a pickle, which can run anything when it is read: its digest is compared before.
    Raises: BadInput where the file is another one, or a column is missing.
    """
    body = resources.files("SurvSet").joinpath("resources", "pickles", f"{name}.pickle").read_bytes()
    if hashlib.sha256(body).hexdigest() != DIGESTS[name]:
        raise BadInput("the cohort is not the one that this was written for", where=file_of(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # written by an older numpy, whose modules have moved since
        frame = SurvLoader().load_dataset(name)["df"]
    wanted = list(frame.columns) if columns is None else list(columns)
    if lacking := [column for column in wanted if column not in frame]:
        raise BadInput(f"columns are missing: {', '.join(lacking)}", where=file_of(name))
    return {column: frame[column].to_numpy() for column in wanted}
