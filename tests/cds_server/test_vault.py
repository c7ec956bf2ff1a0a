"""Sealed from the first row: nothing readable in the database; and keys or bytes that are not what they were."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from adapters.readers.fhir import LINE
from cds_server import logs
from cds_server.app import build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.settings import Settings
from cds_server.store.pack import FRAME, PackWriter, read_parts
from cds_server.store.store import Store
from cds_server.store.vault import KeyStore
from models.errors import CdsError, KeysUnavailable, RecordUnavailable
from tests.cds_server.conftest import OpenStore
from tests.cds_server.stores import ACTOR, JOINING, land_parts, learn, patient, weight
from tests.peers import ROOT

PLANTED = (
    *("Qwertzenberg", "Aloysiane", "17 Plantagenet Mews", "MRN-7741-PLANT", "planted-local-id"),
    *("Said she fears the ward", "2.5173 cm across", "25.173", "planted-user", "1961-07-23", "planted comment"),
)


def planted_call() -> dict[str, Any]:
    """The persona's call with a name, an address, an MRN, a note, a size and a user that stand nowhere else."""
    text = (ROOT / "fixtures/hooks/jenny-m.patient-view.json").read_text(encoding="utf-8")
    call = json.loads(text.replace("jenny-m", "planted-local-id"))
    call["context"]["userId"] = "Practitioner/planted-user"
    person = call["prefetch"]["patient"]
    person["name"] = [{"family": "Qwertzenberg", "given": ["Aloysiane"]}]
    person["address"] = [{"line": ["17 Plantagenet Mews"]}]
    person["identifier"].append({"system": "http://hospital.example.org/mrn", "value": "MRN-7741-PLANT"})
    person["birthDate"] = "1961-07-23"
    for entry in call["prefetch"]["observations"]["entry"]:
        observation = entry["resource"]
        observation["note"] = [{"text": "Said she fears the ward"}]
        for component in observation.get("component", []):
            if component["code"]["coding"][0]["code"] == "33728-7":
                component["valueQuantity"]["value"] = 2.5173
                observation["text"] = {"status": "generated", "div": "<div>2.5173 cm across</div>"}
    return dict(call)


def played(settings: Settings) -> None:
    """Land, digest, score, override: every kind of row that a patient leaves behind."""
    parts = build(settings)
    call = planted_call()
    members = [call["prefetch"]["patient"], *(e["resource"] for e in call["prefetch"]["observations"]["entry"])]
    learn(parts.store, *members, namespace="sandbox")
    land_parts(parts.store, [b'{"resourceType": "Patient", "name": "Qwertzenberg'])
    digest_backlog(parts.store, JOINING, ACTOR)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        answer = client.post("/cds-services/breast-cancer-prognosis", json=call)
        assert answer.status_code == 200
        card = answer.json()["cards"][0]
        assert "25.173" in card["detail"] or "planted-local-id" in card["detail"]
        item = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": "2026-11-21T10:00:00Z"}
        item["overrideReason"] = {"userComment": "planted comment"}  # type: ignore[assignment]
        assert client.post("/cds-services/breast-cancer-prognosis/feedback", json={"feedback": [item]}).is_success
        call["context"]["patientId"] = "Qwertzenberg"
        assert client.post("/cds-services/breast-cancer-prognosis", json=call).status_code == 400


def spellings(text: str) -> Iterator[bytes]:
    yield text.encode()
    yield text.encode().hex().encode()
    yield text.encode("utf-16-le")


def test_nothing_planted_stands_anywhere_but_under_seal(settings: Settings, data_dir: Path, capfd: Any) -> None:
    logs.configure("debug")
    played(settings)
    said = "".join(capfd.readouterr())
    store = Store.open(settings.data_dir, settings.database_url)
    bodies = [entry.body for entry in store.reads.entries()]
    assert {json.loads(body)["kind"] for body in bodies} >= {"land", "digest", "infer", "act", "safety"}
    cells = b"\n".join(
        bytes(cell) if isinstance(cell, bytes | memoryview) else str(cell).encode()
        for table in _tables(store)
        for row in store.reads.query(f'SELECT * FROM "{table}"')
        for cell in row
    )
    files = b"\n".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
    if store.database.sqlite:
        assert (data_dir / "cds.db-wal").exists()
        assert len(files) > len(cells)
    for word in PLANTED:
        for place, found in (
            ("a cell", cells),
            ("a file", files),
            ("the log", said.encode()),
            ("entries", b"".join(bodies)),
        ):
            assert not any(spelling in found for spelling in spellings(word)), (word, place)
    record = store.reads.record("sandbox", "planted-local-id")
    assert record is not None
    facts = [stored.fact for stored in store.reads.stored_facts([record.id])]
    assert any(
        fact.number is not None and fact.number.startswith("25.173") for fact in facts
    )  # it is all there, sealed
    store.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def _tables(store: Store) -> list[str]:
    asked = (
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        if store.database.sqlite
        else "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    )
    return [row[0] for row in store.reads.query(asked)]


def test_a_lost_key_store_is_said_and_the_ledger_still_verifies(
    open_store: OpenStore, data_dir: Path, url: str
) -> None:
    store = open_store()
    learn(store, patient("1"), weight("w", "1", 60))
    store.close()
    for path in data_dir.glob("keys.db*"):
        path.rename(path.with_name(f"lost-{path.name}"))
    with pytest.raises(KeysUnavailable, match="the key store is missing"):
        Store.open(data_dir, url)
    assert audit(data_dir, url, deep=True).findings == ()
    (data_dir / "keys.db").write_bytes(b"not a database, but long enough to be looked at" * 9)
    with pytest.raises(KeysUnavailable, match=r"cannot be opened \(DatabaseError\)"):
        Store.open(data_dir, url)


def test_the_key_store_of_another_instance_is_refused(open_store: OpenStore, data_dir: Path, url: str) -> None:
    open_store().close()
    (data_dir / "keys.db").unlink()
    KeyStore.create(data_dir / "keys.db")
    with pytest.raises(KeysUnavailable, match="belongs to another instance"):
        Store.open(data_dir, url)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_new_database_does_not_take_the_place_of_a_lost_one(open_store: OpenStore, data_dir: Path, url: str) -> None:
    store = open_store()
    learn(store, patient("1"))
    store.close()
    kept = [path.rename(path.with_name(f"kept-{path.name}")) for path in data_dir.glob("cds.db*")]
    with pytest.raises(KeysUnavailable, match="was the database lost"):
        Store.open(data_dir, url)
    for path in data_dir.glob("cds.db*"):
        path.unlink()
    for path in kept:
        path.rename(path.with_name(path.name.removeprefix("kept-")))


def packed(store: Store, parts: list[bytes], landing: str = "ab" * 16) -> bytes:
    writer = PackWriter(store.vault, landing, store.data_dir / "staging")
    for part in parts:
        writer.write(part)
        writer.end_part()
    store.vault.keys.put(writer.keys.items())
    inline, file = writer.settle(store.data_dir / "blobs")
    return inline if inline is not None else (store.data_dir / "blobs" / str(file)).read_bytes()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_every_flipped_byte_of_a_pack_is_noticed(store: Store) -> None:
    parts = [b"first part", b"second", b""]
    pack = packed(store, parts)
    assert [body for _, body in read_parts(store.vault, "ab" * 16, io.BytesIO(pack))] == parts[:2]
    for place in range(len(pack)):
        for bit in (0, 1, 7):
            changed = bytearray(pack)
            changed[place] ^= 1 << bit
            with pytest.raises(RecordUnavailable):  # KeysUnavailable is one
                list(read_parts(store.vault, "ab" * 16, io.BytesIO(bytes(changed))))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_cut_off_blob_is_noticed_and_a_missing_one_named(store: Store) -> None:
    receipt = land_parts(store, [os.urandom(40_000) for _ in range(3)])
    landing = store.reads.landing_by_ref(receipt.landing)
    assert landing is not None
    blob = store.data_dir / "blobs" / str(landing.pack_file)
    whole = blob.read_bytes()
    assert len(list(store.parts(landing))) == 3
    for length in (len(whole) - 1, len(whole) // 3 * 2, len(whole) // 3 + 2, 0):
        blob.write_bytes(whole[:length])
        with pytest.raises(RecordUnavailable):
            list(store.parts(landing))
        assert "were changed" in str(audit(store.data_dir, store.database.url, deep=True).findings[0])
    blob.unlink()
    with pytest.raises(RecordUnavailable, match=f"blob of a landing is missing .at landing {receipt.landing}"):
        list(store.parts(landing))
    assert "is missing" in str(audit(store.data_dir, store.database.url, deep=True).findings[0])
    blob.write_bytes(whole)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_parts_of_every_length_come_back_and_long_ones_in_frames(store: Store) -> None:
    lengths = (1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME)
    parts = [os.urandom(length) for length in lengths]
    receipt = land_parts(store, parts)
    landing = store.reads.landing_by_ref(receipt.landing)
    assert landing is not None
    assert receipt.parts == landing.parts == len(parts)
    assert [body for _, body in store.parts(landing)] == parts
    assert [store.part(landing, n) for n in (4, 2)] == [parts[4], parts[2]]
    sealed = (store.data_dir / "blobs" / str(landing.pack_file)).read_bytes()
    frames = sum(max(1, -(-length // FRAME)) for length in lengths)
    assert len(sealed) == sum(lengths) + frames * (5 + 16)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_bytes_come_back_as_they_came(store: Store) -> None:
    path = ROOT / "fixtures/patients/ingrid-s.ndjson"
    receipt = land_parts(store, path.read_bytes().splitlines(), media_type=LINE)
    landing = store.reads.landing_by_ref(receipt.landing)
    assert landing is not None
    assert b"\n".join(body for _, body in store.parts(landing)) + b"\n" == path.read_bytes()
    assert json.loads(store.manifest(landing)) == {"file": "x.ndjson"}


def test_a_payload_under_another_reference_or_key_does_not_open(store: Store) -> None:
    fresh: dict[bytes, bytes] = {}
    sealed = store.vault.seal(b"s" + bytes(16), b"payload", fresh)
    store.vault.keys.put(fresh.items())
    assert store.vault.open(b"s" + bytes(16), sealed.cipher) == b"payload"
    store.vault.keys.put([(b"s" + bytes(15) + b"1", fresh[b"s" + bytes(16)])])
    for ref in (b"s" + bytes(15) + b"1", b"s" + bytes(15) + b"2"):
        with pytest.raises(CdsError) as refused:
            store.vault.open(ref, sealed.cipher)
        assert isinstance(refused.value, KeysUnavailable)
    assert store.vault.index("ab", "c") != store.vault.index("a", "bc")


BIG = """
import asyncio, resource, sys
from pathlib import Path
from adapters.sources.files import land_file
from cds_server.decisions import now
from cds_server.intake import StoreIntake
from cds_server.store.store import Store

data_dir, file = map(Path, sys.argv[1:])
store = Store.open(data_dir, f"sqlite:///{data_dir / 'cds.db'}")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
receipt = asyncio.run(land_file(file, StoreIntake(store, "user:test"), source="t", namespace="a", received_at=now()))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
landing = store.reads.landing_by_ref(receipt.landing)
with open(file, "rb") as lines:
    same = all(body + b"\\n" == line for (_, body), line in zip(store.parts(landing), lines, strict=True))
store.close()
print(receipt.parts, int(same), after - before)
"""


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_memory_stays_flat_on_a_large_file(open_store: OpenStore, data_dir: Path, tmp_path: Path) -> None:
    """200 MB of NDJSON in lines of 40 kB: the process that lands it grows by a small part of that (measured: 10 MB)."""
    open_store().close()
    line = json.dumps(weight("w", "1", 60, note=[{"text": "x" * 40_000}])).encode() + b"\n"
    file = tmp_path / "big.ndjson"
    with file.open("wb") as out:
        for n in range(200_000_000 // len(line)):
            out.write(line.replace(b'"id": "w"', b'"id": "%d"' % n))
    done = subprocess.run(
        [sys.executable, "-c", BIG, str(data_dir), str(file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    parts, same, grown = map(int, done.stdout.split())
    assert parts == 200_000_000 // len(line)
    assert same == 1
    assert grown < 60_000  # kB
