"""A score adds up, or says nothing; what is absent does not appear."""

from __future__ import annotations

import math

import pytest

from models.score import Contribution, Move, Score

PARTS = (Contribution("clinical", 0.5, 0.25), Contribution("expression", None, 0.0))


def score(**members: object) -> Score:
    return Score(**{"model": "m@1", "abstained": None, "logit": -0.75, "probability": 0.32, "base": -1.0,
                    "contributions": PARTS, **members})  # type: ignore[arg-type]  # fmt: skip


def test_plain_form_holds_what_is_there_only() -> None:
    assert score().plain() == {
        "model": "m@1", "base": -1, "logit": -0.75, "probability": 0.32,
        "contributions": [
            {"modality": "clinical", "z": 0.5, "amount": 0.25}, {"modality": "expression", "amount": 0.0},
        ],
    }  # fmt: skip
    assert Score("m@1", "no tumour").plain() == {"model": "m@1", "base": 0, "abstained": "no tumour"}


def test_plain_form_of_everything() -> None:
    full = score(
        interval=(0.2, 0.4), interval_kind="range", band=(0.3, 0.35), moves=(Move("expression", 0.3),), validated=False,
        outputs={"a": [1.0]},
    )  # fmt: skip
    plain = full.plain()
    assert plain["interval"] == [0.2, 0.4]
    assert plain["band"] == [0.3, 0.35]
    assert plain["moves"] == [{"modality": "expression", "half_width": 0.3}]
    assert plain["validated"] is False
    assert plain["outputs"] == {"a": [1.0]}


def test_range_after_a_missing_result() -> None:
    low, high = score().range_after(Move("expression", 0.3))
    assert (low, high) == (pytest.approx(1 / (1 + math.exp(1.05))), pytest.approx(1 / (1 + math.exp(0.45))))


def test_outputs_alone_are_a_score_without_a_probability() -> None:
    plain = Score("news2@1", None, outputs={"points": [3.0]}).plain()
    assert plain == {"model": "news2@1", "base": 0, "outputs": {"points": [3.0]}}


@pytest.mark.parametrize(
    "members",
    [{"logit": -0.7}, {"probability": None}, {"logit": None, "probability": None}, {"abstained": "no tumour"}],
    ids=["does not add up", "no probability", "nothing at all", "an abstention with a number"],
)
def test_score_that_is_not_one_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"add up|has a logit|has no number"):
        score(**members)


def test_an_abstention_has_no_range() -> None:
    with pytest.raises(ValueError, match="no range"):
        Score("m@1", "no tumour").range_after(Move("expression", 0.3))
