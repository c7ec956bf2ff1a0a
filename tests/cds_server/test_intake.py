"""`land` and `digest`: kept as it came, once, in order, the same again; what cannot be read waits for a person."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.readers import facts as projection
from adapters.readers import fhir
from adapters.readers.fhir import ENTRY
from adapters.source import Arrival
from cds_server.backlog import digest_backlog, redo, retry
from cds_server.decisions import now
from cds_server.store.store import Store
from models.errors import RecordUnavailable
from tests.cds_server.conftest import OpenStore
from tests.cds_server.stores import ACTOR, JOINING, flags, land, land_parts, learn, patient, weight, weights

WEIGHT = frozenset({"http://loinc.org|29463-7"})


def dump(store: Store) -> list[Any]:
    """Every resource and fact, opened, without times, random references and nonces: what a digest decided."""
    resources = store.reads.query(
        "SELECT r.namespace, r.type, r.part, r.pointer, r.test, r.labels, c.cause FROM resource r "
        "LEFT JOIN resource_closing c ON c.resource_id = r.id ORDER BY r.id"
    )
    verdicts = store.reads.query("SELECT part, checked, invalid, problems FROM validation ORDER BY id")
    records = [row[0] for row in store.reads.query("SELECT id FROM patient_record ORDER BY id")]
    facts = [stored.fact.plain() for stored in store.reads.stored_facts(records)]
    kept = [
        {key: value for key, value in fact.items() if key not in ("id", "record", "known_from", "source")}
        for fact in facts
    ]
    pointers = [[fact["source"]["resource"], fact["source"]["part"], fact["source"]["pointer"]] for fact in facts]
    together = zip(pointers, kept, strict=True)
    kept_rows = [tuple(row) for row in (*resources, *verdicts)]
    return [kept_rows, sorted(json.dumps([a, b], sort_keys=True) for a, b in together)]


# ---- land ------------------------------------------------------------------------------------------------------------


def test_the_same_bytes_twice_are_one_landing(store: Store) -> None:
    first = land(store, patient("1"), weight("w", "1", 60))
    again = land(store, patient("1"), weight("w", "1", 60))
    assert (first.arrival, again.arrival) == (Arrival.STORED, Arrival.DUPLICATE)
    assert (again.landing, again.parts) == (first.landing, 2)
    assert store.reads.head()[0] == 1
    assert land(store, patient("1"), weight("w", "1", 60), namespace="b").arrival is Arrival.STORED
    joined = json.dumps(patient("1")).encode() + json.dumps(weight("w", "1", 60)).encode()
    assert land_parts(store, [joined]).arrival is Arrival.STORED  # the same bytes, other parts
    assert len(list((store.data_dir / "blobs").rglob("*"))) == 0


def test_a_key_that_comes_again_with_other_bytes_is_a_conflict(store: Store) -> None:
    large = weight("w", "1", 60, note=[{"text": "x" * 100_000}])
    first = land(store, patient("1"), key=b"message 7")
    assert land(store, patient("1"), key=b"message 7").arrival is Arrival.DUPLICATE
    refused = land(store, large, key=b"message 7")
    assert (refused.arrival, refused.landing) == (Arrival.CONFLICT, first.landing)
    assert flags(store) == [("flag", "conflict")]
    assert [path for path in (store.data_dir / "blobs").rglob("*") if path.is_file()] == []
    assert list((store.data_dir / "staging").iterdir()) == []
    assert digest_backlog(store, JOINING, ACTOR).asserted == 1


def test_what_is_abandoned_leaves_nothing(store: Store) -> None:
    import asyncio

    from cds_server.intake import StoreIntake
    from models.nouns import LandingMeta

    async def run() -> None:
        staged = StoreIntake(store, ACTOR).stage(LandingMeta("test", "a", fhir.LINE, now(), {}))
        await staged.write(b"x" * 200_000)
        await staged.abandon()
        await staged.abandon()

    asyncio.run(run())
    assert list((store.data_dir / "staging").iterdir()) == []
    assert store.reads.head()[0] == 0


# ---- digest ----------------------------------------------------------------------------------------------------------


def test_a_newer_version_supersedes_and_a_repetition_does_nothing(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    before = now()
    tally = learn(store, weight("w", "1", 61))
    assert (tally.asserted, tally.superseded) == (1, 1)
    assert weights(store, "a", "1") == ["61 kg"]
    assert weights(store, "a", "1", at=before) == ["60 kg"]
    repeated = learn(store, weight("w", "1", 61), patient("1"))
    assert (repeated.asserted, repeated.unchanged) == (0, 2)


def test_several_versions_in_one_delivery_end_at_the_last(store: Store) -> None:
    tally = learn(store, patient("1"), *(weight("w", "1", kg) for kg in (60, 61, 60, 62)))
    assert (tally.asserted, tally.superseded, tally.unchanged) == (5, 3, 0)
    assert weights(store, "a", "1") == ["62 kg"]


def entry(method: str, url: str, resource: dict[str, Any] | None = None) -> bytes:
    return json.dumps(
        {"request": {"method": method, "url": url}, **({"resource": resource} if resource else {})}
    ).encode()


def test_a_delete_voids_and_a_later_put_speaks_again(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    land_parts(store, [entry("DELETE", "Observation/w"), entry("DELETE", "Observation/unknown")], media_type=ENTRY)
    tally = digest_backlog(store, JOINING, ACTOR)
    voided = now()
    assert (tally.voided, tally.asserted) == (1, 0)
    assert weights(store, "a", "1") == []
    land_parts(store, [entry("PUT", "Observation/w", weight("w", "1", 64))], media_type=ENTRY)
    digest_backlog(store, JOINING, ACTOR)
    assert weights(store, "a", "1") == ["64 kg"]
    assert weights(store, "a", "1", at=voided) == []


def test_what_cannot_be_read_is_quarantined_with_its_place(store: Store) -> None:
    land_parts(
        store,
        [
            json.dumps(patient("1")).encode(),
            b'{"resourceType": "Observation", "id": "cut',
            b'{"resourceType": "Observation"}',
            json.dumps(weight("m", "1", 60, modifierExtension=[{"url": "x"}])).encode(),
            json.dumps(weight("w", "1", 60)).encode(),
        ],
    )
    tally = digest_backlog(store, JOINING, ACTOR)
    assert (tally.asserted, tally.quarantined) == (2, 3)
    rows = store.reads.query("SELECT part, pointer, reason, detail FROM flag WHERE kind = 'quarantine' ORDER BY part")
    assert [(row[0], row[2]) for row in rows] == [(1, "unreadable"), (2, "unreadable"), (3, "unreadable")]
    assert [row[1] for row in rows[1:]] == ["/id", "/modifierExtension"]
    assert "cut" not in "".join(str(row[3]) for row in rows)
    assert store.reads.undigested() == []
    assert digest_backlog(store, JOINING, ACTOR).plain() == dict.fromkeys(tally.plain(), 0)


def test_readable_but_invalid_is_marked_not_dropped(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60, performer="not a list"))
    rows = store.reads.query("SELECT part, checked, invalid, problems FROM validation ORDER BY part")
    assert [tuple(row[:3]) for row in rows] == [(0, 1, 0), (1, 1, 1)]
    assert "performer" in rows[1][3]
    assert "not a list" not in rows[1][3]
    record = store.reads.record("a", "1")
    assert record is not None
    assert {stored.fact.kind: stored.valid for stored in store.reads.stored_facts([record.id])} == {
        "observation": False
    }


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_digest_comes_out_the_same_on_another_instance(store: Store, tmp_path: Path) -> None:
    lines = [*(ROOT_LINES), json.dumps(weight("bad", "nobody", 1) | {"id": None}).encode()]
    land_parts(store, lines)
    other = Store.open(tmp_path / "other", f"sqlite:///{tmp_path / 'other.db'}")
    land_parts(other, lines)
    for instance in (store, other):
        digest_backlog(instance, JOINING, ACTOR)
    assert dump(store) == dump(other)
    other.close()


ROOT_LINES = (Path(__file__).resolve().parents[2] / "fixtures/patients/ingrid-s.ndjson").read_bytes().splitlines()


# ---- again -----------------------------------------------------------------------------------------------------------


def test_redo_with_the_same_reader_changes_nothing(store: Store) -> None:
    land_parts(store, [*ROOT_LINES, b"{"])
    learn(store, patient("1"), weight("w", "1", 60))
    learn(store, weight("w", "1", 61))
    before, head = dump(store), store.reads.head()
    tally = redo(store, JOINING, ACTOR)
    assert tally.asserted == tally.superseded == tally.flagged == tally.voided == 0
    assert tally.unchanged == len(ROOT_LINES) + 3
    assert dump(store) == before
    assert store.reads.head() == head


def test_redo_with_a_newer_reader_is_known_from_then_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(store, patient("1"), weight("w", "1", 60), weight("old", "1", 50))
    learn(store, weight("old", "1", 55))
    before = now()
    real = projection.project

    def newer(resource: Any, **place: Any) -> Any:

        return tuple(
            fact.but(number=str(int(fact.number) * 2)) if fact.number else fact for fact in real(resource, **place)
        )

    monkeypatch.setattr(projection, "project", newer)
    monkeypatch.setattr(projection, "VERSION", "3")
    tally = redo(store, JOINING, ACTOR)
    assert (tally.asserted, tally.superseded) == (2, 2)  # what was closed before stays as it was
    assert weights(store, "a", "1") == ["110 kg", "120 kg"]
    assert weights(store, "a", "1", at=before) == ["55 kg", "60 kg"]
    record = store.reads.record("a", "1")
    assert record is not None
    assert {f.source.reader for f in store.reads.facts([record.id], WEIGHT)} == {"fhir@1+facts@3"}
    assert redo(store, JOINING, ACTOR).asserted == 0


def test_retry_reads_what_a_newer_reader_understands(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(store, patient("1"))
    receipt = land(store, weight("w", "1", 60) | {"resourceType": "observation"}, weight("v", "1", 61))
    assert digest_backlog(store, JOINING, ACTOR).quarantined == 1
    landing = store.reads.landing_by_ref(receipt.landing)
    assert landing is not None
    assert retry(store, JOINING, ACTOR, [landing.id]).asserted == 0
    assert flags(store) == [("quarantine", "unreadable")]
    before = now()
    real = fhir.read

    def newer(part: Any) -> Any:

        return real(part.but(body=part.body.replace(b'"observation"', b'"Observation"')))

    monkeypatch.setattr(fhir, "read", newer)
    monkeypatch.setattr(fhir, "VERSION", "2")
    tally = retry(store, JOINING, ACTOR, [landing.id])
    assert (tally.asserted, tally.unchanged) == (1, 1)
    assert flags(store) == []
    assert weights(store, "a", "1") == ["60 kg", "61 kg"]
    assert weights(store, "a", "1", at=before) == ["61 kg"]


# ---- real data -------------------------------------------------------------------------------------------------------


def sliced(peer_data: Path, folder: str, name: str, count: int | None) -> list[bytes]:
    with gzip.open(peer_data / "fhir" / folder / f"{name}.000.ndjson.gz") as lines:
        return [line.rstrip(b"\n") for _, line in zip(range(count or 10**9), lines, strict=False)]


def test_real_sets_land_and_digest(open_store: OpenStore, peer_data: Path) -> None:
    """clinosim (invalid on purpose) and Synthea: every line is a resource, a flag or a repetition, never nothing."""
    store = open_store()
    taken = {
        ("clinosim-oncology-200", "Patient"): None,
        ("clinosim-oncology-200", "Condition"): None,
        ("clinosim-oncology-200", "MedicationAdministration"): 150,
        ("clinosim-oncology-200", "DiagnosticReport"): 150,
        ("synthea-smart-615", "Patient"): 100,
        ("synthea-smart-615", "Observation"): 400,
        ("synthea-smart-615", "Procedure"): 100,
    }
    landed = 0
    for (folder, name), count in taken.items():
        lines = sliced(peer_data, folder, name, count)
        landed += land_parts(store, lines, namespace=folder.split("-")[0]).parts
    tally = digest_backlog(store, JOINING, ACTOR)
    assert tally.asserted + tally.unchanged + tally.quarantined == landed
    assert (tally.quarantined, tally.unmatched) == (0, 0)
    by_type = store.reads.query("SELECT namespace, type, COUNT(*) FROM resource GROUP BY namespace, type")
    counts = {(row[0], row[1]): row[2] for row in by_type}
    assert (counts["clinosim", "Patient"], counts["synthea", "Observation"]) == (200, 400)
    assert sum(counts.values()) == tally.asserted
    invalid = store.reads.query(
        "SELECT l.namespace, SUM(v.checked), SUM(v.invalid) FROM validation v JOIN landing l ON l.id = v.landing_id "
        "GROUP BY l.namespace ORDER BY l.namespace"
    )
    verdicts = {row[0]: (row[1], row[2]) for row in invalid}
    assert sum(checked for checked, _ in verdicts.values()) == landed
    assert verdicts["clinosim"][1] > 0
    assert verdicts["synthea"][1] == 0
    records = store.reads.query("SELECT namespace, COUNT(*) FROM patient_record GROUP BY namespace ORDER BY namespace")
    assert dict(map(tuple, records))["clinosim"] == 200
    assert tally.facts > 1000
    landing = store.reads.landing(store.reads.landing_ids()[0])
    assert landing is not None
    with pytest.raises(RecordUnavailable):
        store.part(landing, 100_000)
