"""`cds models recalibrate` as a site uses it: a table, a new version on record, and sentences where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cds_server.settings import Settings
from cds_server.store.store import Store
from tests.cds_server.test_commands import Cds, cds
from tests.models.some_model import outcomes, put_some_model

__all__ = ["cds"]


@pytest.fixture
def site(cds: Cds, settings: Settings, tmp_path: Path) -> Path:
    """An instance with a version of its own on the shelf; gives an outcomes file."""
    put_some_model(settings.model_roots[0])
    Store.open(settings.data_dir, settings.database_url).close()
    file = tmp_path / "outcomes.csv"
    file.write_bytes(outcomes(1500, intercept=0.6, slope=0.8))
    return file


def test_a_site_gets_a_version_of_its_own(cds: Cds, site: Path) -> None:
    text = cds("models", "recalibrate", "some-model", "--outcomes", site)
    assert "before (1.0.0)" in text
    assert "after, held out" in text
    assert "some-model@1.0.0-site.1 is on the shelf" in text
    assert cds.json("models", "verify")["some-model@1.0.0-site.1"] == []
    shown = cds.json("models", "show", "some-model@1.0.0-site.1")
    assert shown["recalibration"]["of"] == "some-model@1.0.0"
    assert shown["head"]["recalibration"]["intercept"] == pytest.approx(0.6, abs=0.2)


def test_the_second_time_starts_from_the_original_again(cds: Cds, settings: Settings, site: Path) -> None:
    first = cds.json("models", "recalibrate", "some-model", "--outcomes", site)
    entry = entry_of(settings, first["seq"])
    assert (entry["kind"], entry["detail"]["model"], entry["detail"]["of"]) == (
        "recalibrate", "some-model@1.0.0-site.1", "some-model@1.0.0",
    )  # fmt: skip
    assert entry["detail"]["digest"] == first["digest"]
    second = cds.json("models", "recalibrate", "some-model", "--outcomes", site)
    assert [one["model"] for one in (first, second)] == ["some-model@1.0.0-site.1", "some-model@1.0.0-site.2"]
    assert second["of"] == "some-model@1.0.0"
    assert {name: second[name] for name in ("intercept", "slope", "before")} == {
        name: first[name] for name in ("intercept", "slope", "before")
    }
    named = cds.json(
        "models", "recalibrate", "some-model", "--outcomes", site, "--out-version", "1.0.0-north", "--as", "auditor"
    )
    assert named["model"] == "some-model@1.0.0-north"
    cds("models", "recalibrate", "some-model", "--outcomes", site, "--out-version", "1.0.0-north", code=4)
    cds("models", "recalibrate", "some-model", "--outcomes", site, "--out-version", "../up", code=2)


def test_too_few_events_leave_the_shelf_as_it_was(cds: Cds, site: Path) -> None:
    site.write_bytes(outcomes(30))
    answer = cds.json("models", "recalibrate", "some-model", "--outcomes", site, code=1)
    assert answer["model"] is None
    assert answer["why"].endswith("below 20 nothing is fitted")
    assert answer["before"]["n"] == 30
    assert "No new version:" in cds("models", "recalibrate", "some-model", "--outcomes", site, code=1)
    assert [one["version"] for one in cds.json("models", "list") if one["name"] == "some-model"] == ["1.0.0"]


def test_what_is_wrong_is_one_sentence(cds: Cds, site: Path, tmp_path: Path) -> None:
    site.write_text("id,score,time,event\nsecret,1,2,0\n")
    cds("models", "recalibrate", "some-model", "--outcomes", site, code=1)
    assert cds.err == "cds models: one of the columns logit and p is needed, not both (at the header)\n"
    cds("models", "recalibrate", "some-model", "--outcomes", tmp_path / "none.csv", code=2)
    cds("models", "recalibrate", "no-such", "--outcomes", site, code=1)
    cds("models", "recalibrate", "predict-breast", "--outcomes", site, code=4)
    assert "predict-breast shows numbers" in cds.err
    cds("models", "recalibrate", "some-model", "--outcomes", site, "--horizon", "120", code=1)
    assert "horizon of this model is 60 months" in cds.err


def entry_of(settings: Settings, seq: int) -> Any:
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        return json.loads(store.reads.entry(seq).body)
    finally:
        store.close()
