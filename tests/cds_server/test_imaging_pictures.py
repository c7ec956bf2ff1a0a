"""The pictures of a record: shown by who may see it, held against their digest, named by the facts of their region."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cds_server.__main__ import main
from cds_server.imaging.pictures import pictures, png
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import RecordUnavailable
from tests.cds_server.test_imaging import arrive, imaging
from tests.dicom_made import ct_series

WHOSE = "a/MADE-made-1"


def examined(store: Store) -> int:
    """A series with a body in it; gives the record's row."""
    arrive(store, ct_series(slices=6))
    imaging(store).some()
    record = store.reads.record("a", "MADE-made-1")
    assert record is not None
    return record.id


def test_the_facts_of_a_region_name_its_picture_by_its_digest(store: Store) -> None:
    record = examined(store)
    shown = pictures(store, [record])
    assert shown
    assert all(png(store, each).startswith(b"\x89PNG\r\n") for each in shown)
    named = {
        name
        for stored in store.reads.stored_facts([record], "9999-12-31T00:00:00.000000Z")
        for name in stored.fact.derived_from
        if name.startswith("Media/")
    }
    assert named
    assert named <= {f"Media/{each.media}" for each in shown}
    assert all(each.media == f"png-{each.digest[:32]}" for each in shown)


def test_another_record_sees_none_of_them(store: Store) -> None:
    record = examined(store)
    assert pictures(store, [record + 1]) == []
    assert pictures(store, []) == []


def test_what_was_not_known_then_is_not_shown_then(store: Store) -> None:
    assert pictures(store, [examined(store)], "2020-01-01T00:00:00.000000Z") == []


def test_a_picture_that_is_another_than_described_is_refused(store: Store) -> None:
    first, second, *_ = pictures(store, [examined(store)])
    swapped = type(first)(**{name: getattr(first, name) for name in first.__slots__} | {"part": second.part})
    with pytest.raises(RecordUnavailable, match="not the one"):
        png(store, swapped)


def test_the_command_lists_them_and_records_who_takes_them(
    store: Store,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examined(store)
    monkeypatch.setenv("CDS_CONFIG", str(settings.data_dir / "cds.toml"))
    monkeypatch.setenv("CDS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("CDS_DATABASE_URL", settings.database_url)
    before = store.reads.one("SELECT COUNT(*) FROM ledger_entry")
    assert main(["dicom", "pictures", WHOSE, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert store.reads.one("SELECT COUNT(*) FROM ledger_entry") == before, "a list shows no picture"
    assert main(["dicom", "pictures", WHOSE, "--out", str(tmp_path / "out")]) == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {each["media"] for each in listed}
    bodies = [bytes(row[0]) for row in store.reads.query("SELECT body FROM ledger_entry ORDER BY seq DESC LIMIT 1")]
    entry = json.loads(bodies[0])
    assert (entry["kind"], entry["detail"]["act"], entry["detail"]["patients"]) == ("access", "command", 1)
