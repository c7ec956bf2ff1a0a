"""What was kept for its time goes, on record; what is on hold, or waits for somebody, stays."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.__main__ import main
from cds_server.app import build, create_app
from cds_server.backlog import digest_backlog, redo
from cds_server.holds import set_hold
from cds_server.reproduce import load
from cds_server.retention import EVERY, Purger, due, purge
from cds_server.retention_settings import Retention, read_retention
from cds_server.settings import Settings
from cds_server.store.pack import part_ref
from cds_server.store.store import Store
from models.errors import Erased, Misconfigured
from tests.cds_server.stores import ACTOR, JOINING, land_parts, learn, patient, weight, weights
from tests.cds_server.test_vault import planted_call


def later(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def went(store: Store, retention: Retention, days: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for kind, keys in purge(store, retention, ACTOR, now=later(days)):
        counts[kind] += keys
    return counts


def test_parts_go_and_what_was_read_of_them_stays(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    broken = land_parts(store, [b'{"resourceType": "Patient", "x'])
    digest_backlog(store, JOINING, ACTOR)
    unread = land_parts(store, [b'{"resourceType": "Patient", "id": "2"}'])
    retention = Retention(parts=30)
    assert due(store, retention, later(29)) == {"parts": []}
    assert len(due(store, retention, later(31))["parts"]) == 3  # two parts and a manifest
    assert went(store, retention, 31)["parts"] == 3
    assert went(store, retention, 31)["parts"] == 0
    assert weights(store, "a", "1") == ["60 kg"]
    for each in (broken, unread):  # one waits for a person, one for its reader
        assert store.vault.key(part_ref(each.landing, 0)) is not None
    digest_backlog(store, JOINING, ACTOR)
    redo(store, JOINING, ACTOR)
    assert weights(store, "a", "1") == ["60 kg"]
    kinds = [json.loads(entry.body) for entry in store.reads.entries()]
    (said,) = [each["detail"] for each in kinds if each["kind"] == "purge"]
    assert said["keys"] == 3
    assert said["kind"] == "parts"


def test_decisions_go_but_those_of_somebody_on_hold(settings: Settings) -> None:
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        call = planted_call()
        cards = [client.post("/cds-services/breast-cancer-prognosis", json=call).json()["cards"][0]["uuid"]]
        text = json.dumps(call).replace("planted-local-id", "another-local-id").replace("MRN-7741-PLANT", "MRN-2")
        other: dict[str, Any] = json.loads(text)
        answer = client.post("/cds-services/breast-cancer-prognosis", json=other)
        cards.append(answer.json()["cards"][0]["uuid"])
    store = Store.open(settings.data_dir, settings.database_url)
    digest_backlog(store, JOINING, ACTOR)
    record = store.reads.record("sandbox", "planted-local-id")
    assert record is not None
    set_hold(store, record, "case 7", ACTOR)
    retention = Retention(parts=10, decisions=200)
    assert went(store, retention, 199)["decisions"] == 0
    assert went(store, retention, 201)["decisions"] >= 4
    assert load(store, cards[0]).service == "breast-cancer-prognosis"
    with pytest.raises(Erased):
        load(store, cards[1])
    held = store.reads.query("SELECT ref FROM landing WHERE record_id = ?", (record.id,))
    assert held
    assert all(store.vault.key(part_ref(ref, 0)) is not None for (ref,) in held)
    store.close()


def test_the_server_does_it_once_a_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    now = {"seconds": 0.0}
    monkeypatch.setattr("cds_server.retention.time.monotonic", lambda: now["seconds"])
    purger = Purger(store, Retention(parts=1))
    assert purger.some() == 0  # it has just begun
    now["seconds"] = 61.0
    assert purger.some() == 0  # a round: nothing is old yet
    today = store.reads.one("SELECT at FROM cursor WHERE name = ?", (EVERY,))
    assert today is not None
    entries = store.reads.head()[0]
    now["seconds"] = 200.0
    assert purger.some() == 0
    assert store.reads.head()[0] == entries


def test_what_the_configuration_may_say() -> None:
    assert read_retention(None, "cds.toml") == Retention()
    assert read_retention({"parts_days": 90, "access_days": 4000}, "cds.toml") == Retention(parts=90, access=4000)
    wrong: list[Any] = [
        {"decisions_days": 183},
        {"access_days": 365},
        {"parts_days": 0},
        {"parts_days": "90"},
        {"facts_days": 1},
        [],
    ]
    for entry in wrong:
        with pytest.raises(Misconfigured):
            read_retention(entry, "cds.toml")


def test_by_commands(
    sqlite_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """hold, erase and purge, as an operator types them."""
    config = tmp_path / "cds.toml"
    config.write_text(f'data_dir = "{sqlite_settings.data_dir}"\ntrust = "open"\n[retention]\nparts_days = 1\n')
    monkeypatch.setenv("CDS_CONFIG", str(config))
    store = Store.open(sqlite_settings.data_dir, sqlite_settings.database_url)
    learn(store, patient("MRN-1"), weight("w", "MRN-1", 60))
    store.close()
    assert main(["purge", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"parts": 0}
    assert main(["hold", "set", "a/MRN-1", "--reason", "case 7", "--json"]) == 0
    hold = json.loads(capsys.readouterr().out)["hold"]
    assert main(["hold", "list"]) == 0
    assert hold in capsys.readouterr().out
    assert main(["erase", "a/MRN-1", "--basis", "asked"]) == 4
    assert hold in capsys.readouterr().err
    assert main(["hold", "lift", hold, "--reason", "closed"]) == 0
    assert main(["erase", "a/MRN-1", "--basis", "asked", "--dry-run"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    receipt = tmp_path / "receipt.json"
    assert main(["erase", "a/MRN-1", "--basis", "asked", "--receipt", str(receipt)]) == 0
    said = capsys.readouterr().out
    assert "erased (entry" in said
    assert "MRN-1" not in said + receipt.read_text()
    assert main(["erase", "a/MRN-1", "--basis", "asked"]) == 1
    assert main(["ledger", "verify"]) == 0
    assert main(["purge"]) == 0
    assert main(["doctor"]) in (0, 1)
