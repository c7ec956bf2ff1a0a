"""How a call's own data come in: durable and scored at once, digested a moment later, and never missed meanwhile."""

from __future__ import annotations

import contextlib
import copy
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from starlette.testclient import TestClient

from adapters.readers import cds_hooks
from cds_server.app import build, create_app
from cds_server.audit import audit
from cds_server.background import Digester
from cds_server.settings import Settings
from cds_server.store.pack import part_ref
from cds_server.store.store import Store
from tests.cds_server.stores import flags
from tests.cds_server.test_decisions import SERVICE, hook, own_refs, sizes


def undigested(store: Store) -> list[int]:
    return [landing.id for landing in store.reads.waiting((cds_hooks.REQUEST,), 0, 100)]


def test_a_call_is_landed_and_scored_before_it_is_digested(settings: Settings) -> None:
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        assert client.post(SERVICE, json=hook(2.5)).json()["cards"][0]["summary"].startswith("Estimated")
        assert len(undigested(parts.store)) == 1
        assert parts.store.reads.query("SELECT COUNT(*) FROM resource")[0][0] == 0
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_a_call_digests_what_waits_for_the_same_person_first(settings: Settings) -> None:
    """The second call brings no observations: it stands on those of the first, which nobody had digested."""
    parts = build(settings)
    bare = copy.deepcopy(hook(2.5))
    bare["prefetch"]["observations"]["entry"] = []
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        assert client.post(SERVICE, json=hook(3.5)).status_code == 200
        (first,) = undigested(parts.store)
        assert client.post(SERVICE, json=bare).status_code == 200
        (second,) = undigested(parts.store)
        assert second > first
        assert [sizes(parts, ref) for ref in own_refs(parts)] == [["35 mm"], ["35 mm"]]
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_two_calls_about_one_person_in_one_transaction(settings: Settings) -> None:
    """The second opens what the first sealed before the first one's keys are on disk."""
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(SERVICE, json=hook(2.5)), range(24)))
        assert {answer.status_code for answer in answers} == {200}
        assert {tuple(sizes(parts, ref)) for ref in own_refs(parts)} == {("25 mm",)}
        assert parts.store.reads.query("SELECT COUNT(*) FROM patient_record")[0][0] == 1
    assert parts.store.vault.unsaved == {}
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_a_patient_who_may_be_joined_is_digested_at_once(settings: Settings) -> None:
    """Whose facts are scored must be settled first; the same Patient again settles nothing."""
    call = hook(2.5)
    system = call["prefetch"]["patient"]["identifier"][0]["system"]
    parts = build(replace(settings, joining_systems=frozenset({system})))
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        assert client.post(SERVICE, json=call).status_code == 200
        assert undigested(parts.store) == []
        assert client.post(SERVICE, json=call).status_code == 200
        assert len(undigested(parts.store)) == 1
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_a_resource_whose_subject_must_be_looked_up_is_digested_at_once(settings: Settings) -> None:
    parts = build(settings)
    call: dict[str, Any] = hook(2.5)
    identifier = call["prefetch"]["patient"]["identifier"][0]
    for entry in call["prefetch"]["observations"]["entry"]:
        entry["resource"]["subject"] = {"identifier": {"system": identifier["system"], "value": identifier["value"]}}
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        assert client.post(SERVICE, json=call).status_code == 200
        assert undigested(parts.store) == []
        (ref,) = own_refs(parts)
        assert sizes(parts, ref) == ["25 mm"]


def test_the_background_digests_in_order_and_flags_what_cannot_be_opened(settings: Settings) -> None:
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        for name in ("jenny-m", "other"):
            call = hook(2.5)
            body = client.build_request("POST", SERVICE, json=call).read().replace(b"jenny-m", name.encode())
            assert client.post(SERVICE, content=body, headers={"Content-Type": "application/json"}).status_code == 200
        first, second = undigested(parts.store)
        landing = parts.store.reads.landing(first)
        assert landing is not None
        with contextlib.closing(sqlite3.connect(settings.data_dir / "keys.db", isolation_level=None)) as keys:
            keys.execute("DELETE FROM object_key WHERE ref = ?", (part_ref(landing.ref, 0),))
        with ThreadPoolExecutor(1) as pool:
            digester = Digester(parts.store, pool, frozenset())
            assert (digester.some(), digester.some()) == (2, 0)
        assert undigested(parts.store) == []
        assert [row[0] for row in parts.store.reads.query("SELECT landing_id FROM digestion ORDER BY id")] == [
            first,
            second,
        ]
        assert flags(parts.store) == [("quarantine", "unreadable")]
        assert parts.store.reads.query("SELECT COUNT(DISTINCT landing_id) FROM resource")[0][0] == 1


def test_a_patient_whose_identifiers_cannot_be_read_bars_nobody(settings: Settings) -> None:
    """It goes to quarantine, in the call and in the digest alike; the next call is answered like this one."""
    call = hook(2.5)
    call["prefetch"]["patient"]["identifier"] = ["a text where an object belongs"]
    for joining in (frozenset[str](), frozenset({"http://hospital.example.org/mrn"})):
        parts = build(replace(settings, joining_systems=joining))
        with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
            for _ in range(2):
                (card,) = client.post(SERVICE, json=call).json()["cards"]
                assert "could not be read and had no part in this" in card["detail"]
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()
