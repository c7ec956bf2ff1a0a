"""The shipped release, loaded once."""

from __future__ import annotations

import pytest

from models.nouns import ModelVersion
from models.scoring import Scorer
from models.shelf import Shelf


@pytest.fixture(scope="session")
def predict_breast() -> ModelVersion:
    return Shelf().get("predict-breast", "3.2.0")


@pytest.fixture(scope="session")
def scorer(predict_breast: ModelVersion) -> Scorer:
    return Scorer(predict_breast, Shelf().path(predict_breast))
