"""A person is erased: nothing readable is left anywhere, every old proof stays valid, and another's data stay whole."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from adapters.dicom.archive import Archive
from adapters.hl7v2.feed import Feed
from adapters.readers.hl7v2 import MESSAGE
from adapters.sources.files import land_file
from cds_server.app import build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog, redo
from cds_server.belongings import ACCESS, KEPT, SEALED, SESSION, TOKEN, belongings
from cds_server.checkpoints import Checkpoints
from cds_server.copies import backup, restore
from cds_server.decisions import now
from cds_server.erasure import FILE, apply_again, erase, finish, read_receipts
from cds_server.holds import holds, lift, set_hold
from cds_server.intake import StoreIntake
from cds_server.jobs import Order
from cds_server.ledger import verifier
from cds_server.outbox import Line, acknowledged, jobs_of
from cds_server.proving import prove
from cds_server.reading import Rules
from cds_server.reproduce import load
from cds_server.settings import Settings
from cds_server.store.board_tables import BOARD
from cds_server.store.entropy import new_ref
from cds_server.store.pack import part_ref
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from cds_server.store.tables import GOVERNED
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.errors import BadInput, Conflict, Erased, KeysUnavailable, NotAllowed
from tests.adapters.dicom_reports import group, report
from tests.cds_server.conftest import OpenStore
from tests.cds_server.stores import ACTOR, JOINING, MRN, land_parts, learn, patient, weight, weights
from tests.cds_server.test_vault import PLANTED, planted_call

BASIS = "request of the person, GDPR Article 17(1)(b)"
OTHER = "neighbour-local-id"


def spellings(text: str) -> list[bytes]:
    """In which a value may have been left: as it is, in hex, in base64 at each offset, UTF-16, upper case, reversed."""
    raw = text.encode()
    found = [raw, raw.hex().encode(), raw.hex().upper().encode(), text.encode("utf-16-le"), text.encode("utf-16-be")]
    found += [raw.upper(), raw[::-1], json.dumps(text)[1:-1].encode(), text.replace(" ", "%20").encode()]
    for offset in range(3):
        coded = base64.b64encode(bytes(offset) + raw)
        found.append(coded[2 * offset : len(coded) // 4 * 4 - 4])
    return [each for each in found if len(each) >= 6]


def played(settings: Settings) -> str:
    """Land, digest, score, override; another person in the same delivery; gives a card's uuid."""
    parts = build(settings)
    call = planted_call()
    person = call["prefetch"]["patient"]
    members = [person, *(e["resource"] for e in call["prefetch"]["observations"]["entry"])]
    learn(parts.store, *members, patient(OTHER, (MRN, "N-1")), weight("other-w", OTHER, 61.5), namespace="sandbox")
    learn(parts.store, person, namespace="sandbox", key=b"once more")  # repeats what is known: it leaves no row
    land_parts(parts.store, [b'{"resourceType": "Patient", "id": "planted-local-id", "x'], namespace="sandbox")
    digest_backlog(parts.store, JOINING, ACTOR)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        answer = client.post("/cds-services/breast-cancer-prognosis", json=call)
        assert answer.status_code == 200
        card: dict[str, Any] = answer.json()["cards"][0]
        item = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": "2026-11-21T10:00:00Z"}
        item["overrideReason"] = {"userComment": "planted comment"}
        assert client.post("/cds-services/breast-cancer-prognosis/feedback", json={"feedback": [item]}).is_success
    return str(card["uuid"])


def test_nothing_readable_is_left_of_an_erased_person(settings: Settings, data_dir: Path) -> None:
    card = played(settings)
    store = Store.open(settings.data_dir, settings.database_url)
    digest_backlog(store, JOINING, ACTOR)
    checkpoints = Checkpoints(store)
    checkpoints.make()
    inference = load(store, card)
    proof = prove(store, checkpoints, inference.seq)
    key = checkpoints.signing_keys()[0]
    record = store.reads.record("sandbox", "planted-local-id")
    neighbour = store.reads.record("sandbox", OTHER)
    assert record is not None
    assert neighbour is not None
    found = belongings(store, record)
    secrets = [store.vault.key(ref) for ref in found.keys]
    assert all(secrets)
    assert len(found.parts) > 5
    told = erase(store, record, BASIS, ACTOR, dry_run=True)
    assert told.ref == ""
    assert store.reads.record("sandbox", "planted-local-id") is not None
    done = erase(store, record, BASIS, ACTOR)
    assert done.wiped
    assert done.receipt["destroyed"]["cards"] >= 1
    assert done.receipt["handed_over"]["cards"] == {"sandbox": done.receipt["destroyed"]["cards"]}

    # nothing of theirs opens, and nothing of theirs stands in a row or a file; nor does a key that was destroyed
    assert store.reads.record("sandbox", "planted-local-id") is None
    with pytest.raises(Erased):
        load(store, card)
    for ref in found.keys:
        assert store.vault.key(ref) is None
        assert store.vault.keys.destroyed(ref)
    files = {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}
    for word in PLANTED:
        for path, content in files.items():
            assert not any(spelling in content for spelling in spellings(word)), (word, path.name)
    for secret in secrets:
        for path, content in files.items():
            assert secret is not None
            assert secret not in content, path.name
    landings = [store.reads.landing(each) for each in store.reads.landing_ids()]
    bodies = [body for landing in landings if landing for _, body in store.left(landing) if body is not None]
    assert bodies
    for word in PLANTED:
        assert not any(spelling in body for body in bodies for spelling in spellings(word)), word

    # another person in the same delivery stays whole
    assert weights(store, "sandbox", OTHER) == ["61.5 kg"]
    assert any(b'"id": "other-w"' in body for body in bodies)

    # the log, its old proof, and the same after a redo
    redo(store, JOINING, ACTOR)
    assert weights(store, "sandbox", OTHER) == ["61.5 kg"]
    assert store.reads.record("sandbox", "planted-local-id") is None
    checkpoints.make()
    file = data_dir / "old.tlog-proof"
    file.write_bytes(proof)
    assert verifier.check_file(file, [key], (), 0)[0].startswith(f"entry {inference.seq} is in the log")
    entry = store.reads.entry(done.seq)
    assert entry is not None
    assert json.loads(entry.body)["kind"] == "erase"
    assert b"planted" not in entry.body
    # the same patient may come again: as somebody new
    learn(store, patient("planted-local-id"), weight("new", "planted-local-id", 70), namespace="sandbox")
    assert weights(store, "sandbox", "planted-local-id") == ["70 kg"]
    store.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_rows_go_by_an_erasure_and_by_nothing_else(store: Store, open_store: OpenStore) -> None:
    from sqlalchemy.exc import DBAPIError

    learn(store, patient("p1"), weight("w", "p1", 60))
    with store.database.engine.connect() as connection, pytest.raises(DBAPIError):
        connection.exec_driver_sql("DELETE FROM resource")
    record = store.reads.record("a", "p1")
    assert record is not None
    erase(store, record, BASIS, ACTOR)
    assert store.reads.query("SELECT COUNT(*) FROM erasing") == [(0,)]
    learn(store, patient("p2"), weight("w2", "p2", 61))
    with store.database.engine.connect() as connection, pytest.raises(DBAPIError):
        connection.exec_driver_sql("DELETE FROM resource")
    assert store.reads.query("SELECT COUNT(*) FROM resource")[0][0] == 2


def test_a_part_that_two_persons_share_goes_only_when_asked(store: Store) -> None:
    entries = [{"resource": each} for each in (patient("s1"), weight("sw1", "s1", 60), patient("s2"))]
    entries.append({"resource": weight("sw2", "s2", 80)})
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    learn(store, bundle, media_type="application/fhir+json")
    record = store.reads.record("a", "s1")
    assert record is not None
    with pytest.raises(Conflict, match="1 parts hold another person's data"):
        erase(store, record, BASIS, ACTOR)
    assert weights(store, "a", "s1") == ["60 kg"]
    done = erase(store, record, BASIS, ACTOR, shared=True)
    assert done.receipt["shared_parts"] == 1
    assert store.reads.record("a", "s1") is None
    assert weights(store, "a", "s2") == ["80 kg"]
    redo(store, JOINING, ACTOR)
    assert weights(store, "a", "s2") == ["80 kg"]


def test_a_hold_stands_in_the_way_until_it_is_lifted(store: Store) -> None:
    learn(store, patient("h1"), weight("hw", "h1", 60))
    record = store.reads.record("a", "h1")
    assert record is not None
    hold = set_hold(store, record, "case 12 of 2026", ACTOR)
    with pytest.raises(NotAllowed, match=hold.ref):
        erase(store, record, BASIS, ACTOR)
    assert weights(store, "a", "h1") == ["60 kg"]
    lift(store, hold.ref, "closed", ACTOR)
    assert holds(store.reads) == []
    with pytest.raises(Conflict):
        lift(store, hold.ref, "closed", ACTOR)
    erase(store, record, BASIS, ACTOR)
    assert store.reads.record("a", "h1") is None


def test_a_basis_that_names_the_person_is_refused(store: Store) -> None:
    learn(store, patient("MRN-4711"), weight("hw", "MRN-4711", 60))
    record = store.reads.record("a", "MRN-4711")
    assert record is not None
    for basis in ("asked by MRN-4711", "", "x" * 501):
        with pytest.raises(BadInput):
            erase(store, record, basis, ACTOR)
    assert weights(store, "a", "MRN-4711") == ["60 kg"]


def test_an_erasure_that_was_cut_off_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(store, patient("c1"), weight("cw", "c1", 60))
    record = store.reads.record("a", "c1")
    assert record is not None
    keys = belongings(store, record).keys
    with monkeypatch.context() as patched:
        patched.setattr(type(store.vault), "destroy", _gone)
        with pytest.raises(KeysUnavailable):
            erase(store, record, BASIS, ACTOR)
    assert any(store.vault.keys.get(key) for key in keys)
    assert finish(store) == len(keys)
    assert not any(store.vault.keys.get(key) for key in keys)
    assert finish(store) == 0


def _gone(*_: object) -> None:
    raise KeysUnavailable("the machine stopped here")


def test_a_restored_backup_does_not_bring_an_erased_person_back(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    if not store.database.sqlite:
        pytest.skip("copies of PostgreSQL are tried in test_copies")
    learn(store, patient("b1"), weight("bw", "b1", 60), patient("b2"), weight("bw2", "b2", 80))
    backup(settings, tmp_path / "copy")
    record = store.reads.record("a", "b1")
    assert record is not None
    keys = belongings(store, record).keys
    done = erase(store, record, BASIS, ACTOR)
    learn(store, patient("b3"), weight("bw3", "b3", 81))
    backup(settings, tmp_path / "later")
    assert not (tmp_path / "later" / FILE).exists()

    def restored(name: str, *from_: Any) -> Store:
        folder = tmp_path / name
        other = replace(settings, data_dir=folder, database_url=f"sqlite:///{folder / 'cds.db'}")
        restore(other, *from_)
        return Store.open(folder, other.database_url)

    old = restored("old", tmp_path / "copy")
    assert weights(old, "a", "b1") == ["60 kg"]  # without the receipt nobody can know
    old.close()
    new = restored("new", tmp_path / "copy", None, [settings.data_dir / FILE])
    assert new.reads.record("a", "b1") is None
    assert not any(new.vault.key(key) for key in keys)
    assert weights(new, "a", "b2") == ["80 kg"]
    learn(new, patient("b4"), weight("bw4", "b4", 82))
    assert apply_again(new, read_receipts(settings.data_dir / FILE), ACTOR) == 0
    new.close()
    assert audit(tmp_path / "new", f"sqlite:///{tmp_path / 'new' / 'cds.db'}").findings == ()
    mixed = restored("mixed", tmp_path / "later", tmp_path / "copy" / "keys")  # keys older than the record
    assert not any(mixed.vault.key(key) for key in keys)
    with pytest.raises(BadInput):
        apply_again(mixed, [{**done.receipt, "instance": "another"}], ACTOR)
    mixed.close()


def test_a_row_that_goes_or_comes_back_by_itself_is_named(store: Store, settings: Settings) -> None:
    if not store.database.sqlite:
        pytest.skip("tampering with triggers is tried on SQLite")
    learn(store, patient("t1"), weight("tw", "t1", 60), patient("t2"), weight("tw2", "t2", 80))
    record = store.reads.record("a", "t1")
    assert record is not None
    kept = store.reads.query("SELECT * FROM patient_record WHERE id = ?", (record.id,))[0]
    erase(store, record, BASIS, ACTOR)
    assert audit(settings.data_dir, settings.database_url).findings == ()
    marks = ", ".join("?" * len(kept))
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql(f"INSERT INTO patient_record VALUES ({marks})", tuple(kept))
    findings = [str(each) for each in audit(settings.data_dir, settings.database_url).findings]
    assert findings == [f"entry {record.id >> 20}: row {record.id} of table patient_record was erased, and is there"]
    other = store.reads.record("a", "t2")
    assert other is not None
    theirs = store.reads.query("SELECT * FROM patient_record WHERE id = ?", (other.id,))[0]
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO erasing VALUES ('patient_record', ?)", (other.id,))
        connection.exec_driver_sql("DELETE FROM patient_record WHERE id = ?", (other.id,))
        connection.exec_driver_sql("DELETE FROM erasing")
    findings = [str(each) for each in audit(settings.data_dir, settings.database_url).findings]
    assert any(f"row {other.id} of table patient_record was deleted" in each for each in findings)
    with store.database.engine.connect() as connection:  # as it was: the fixture checks the log
        connection.exec_driver_sql("INSERT INTO erasing VALUES ('patient_record', ?)", (record.id,))
        connection.exec_driver_sql("DELETE FROM patient_record WHERE id = ?", (record.id,))
        connection.exec_driver_sql("DELETE FROM erasing")
        connection.exec_driver_sql(f"INSERT INTO patient_record VALUES ({marks})", tuple(theirs))


def test_images_and_messages_go_too_and_their_neighbours_in_a_segment_stay(
    store: Store, settings: Settings, data_dir: Path
) -> None:
    if not store.database.sqlite:
        pytest.skip("what is asked here is the same on both")
    rules = {"test": Rules(Archive("a", zone="Europe/Berlin", issuer="HOSP"), "archive")}
    intake = StoreIntake(store, ACTOR, appended=True)
    store.segments.wait()
    padding = b"\xfc\xff\xfc\xffOB\0\0" + (80_000).to_bytes(4, "little") + bytes(80_000)
    objects = {}
    for number in ("4711", "4712"):
        path = data_dir.parent / f"{number}.dcm"
        path.write_bytes(report(group(), PatientID=number) + padding)
        landed = asyncio.run(land_file(path, intake, source="test", namespace="a", received_at=now()))
        objects[number] = store.reads.landing_by_ref(landed.landing)
        path.unlink()
    digest_backlog(store, JOINING, ACTOR, rules=rules)
    message = b"MSH|^~\\&|A|B|C|D|20260301||ADT^A08|1|P|2.5\rPID|1||%s^^^HOSP^MR||Doe^Jane||19600102|F\r"
    feed = {"test": Rules(Feed("a"), "feed")}
    twice = [land_parts(store, [message % b"4711"], media_type=MESSAGE, key=key) for key in (b"1", b"2")]
    other = land_parts(store, [message % b"4712"], media_type=MESSAGE)
    unread = land_parts(store, [b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5\rPID|1||4711"], media_type="text/plain")
    digest_backlog(store, JOINING, ACTOR, rules=feed)
    record = store.reads.record("a", "HOSP-4711")
    assert record is not None
    theirs, neighbours = objects["4711"], objects["4712"]
    assert theirs is not None
    assert neighbours is not None
    assert str(theirs.pack_file).partition(":")[0] == str(neighbours.pack_file).partition(":")[0]
    done = erase(store, record, BASIS, ACTOR, rules=feed)
    assert done.receipt["shared_parts"] == 0
    for landing in (*twice, unread):
        assert store.vault.key(part_ref(landing.landing, 0)) is None, landing
    assert store.vault.key(part_ref(other.landing, 0)) is not None
    with pytest.raises(Erased):
        store.part(theirs, 0)
    with pytest.raises(Erased):
        store.stream(theirs, 0)
    assert store.part(neighbours, 0).endswith(padding)
    assert store.reads.record("a", "HOSP-4712") is not None
    redo(store, JOINING, ACTOR, rules={**rules})
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_results_on_their_way_are_dropped_and_sent_ones_listed(store: Store) -> None:
    learn(store, patient("r1"), weight("rw", "r1", 60))
    record = store.reads.record("a", "r1")
    assert record is not None
    jobs = jobs_of(store)
    lanes = [{"lane": record.ref, "inference": "none", "message": f"MSH|{n}"} for n in range(2)]
    others = {"lane": "0" * 32, "inference": "none", "message": "MSH|other"}
    first, second, third = jobs.queue("his", [Order("final", str(each), each) for each in (*lanes, others)], ACTOR)
    line = Line(store, "his")
    line.look()
    acknowledged(store, line, first, ACTOR)
    done = erase(store, record, BASIS, ACTOR)
    assert [(each["destination"], each["job"]) for each in done.receipt["handed_over"]["results"]] == [
        ("his", first.ref)
    ]
    assert done.receipt["not_sent"] == 1
    assert [jobs.get(each.id).state for each in (first, second, third)] == ["acknowledged", "dropped", "waiting"]
    assert dict(jobs.get(second.id).asked) == {}
    waiting = Line(store, "his").next()
    assert waiting is not None
    assert waiting.ref == third.ref


def test_a_boards_case_an_open_session_and_a_reason_go(store: Store) -> None:
    learn(store, patient("t1"), weight("tw", "t1", 60), patient("t2"), weight("tw2", "t2", 61))
    keys: dict[str, dict[str, bytes]] = {}
    for local_id in ("t1", "t2"):
        record = store.reads.record("a", local_id)
        assert record is not None
        keys[local_id] = store.writer.submit(lambda tx, record=record: _about(tx, record)).result()  # type: ignore[misc]
    record = store.reads.record("a", "t1")
    assert record is not None
    done = erase(store, record, BASIS, ACTOR)
    assert done.receipt["handed_over"]["exports"] == [{"act": "minutes", "door": "staff", "at": "2026-11-21T10:00:00Z"}]
    assert {name: store.vault.key(ref) is None for name, ref in keys["t1"].items()} == {
        "case": True,
        "recommendation": True,
        "sign-off": True,
        "minutes": True,
        "reason": True,
        "looked": False,  # who looked says nothing of whom any more
        "session": True,
        "token": True,
    }
    assert all(store.vault.key(ref) is not None for ref in keys["t2"].values())
    assert store.reads.query("SELECT COUNT(*) FROM app_session") == [(1,)]
    assert store.reads.query("SELECT state FROM board_case_state") == [("withdrawn",)]


def _about(tx: Tx, record: RecordRow) -> dict[str, bytes]:
    """What the board, the access log and the app keep of a patient; gives the references of its keys."""
    found = {}

    def sealed(kind: bytes, name: str) -> dict[str, Any]:
        ref = new_ref()
        found[name] = object_ref(kind, ref)
        made = tx.vault.seal(found[name], b'"said"', tx.fresh_keys)
        return {"ref": ref, "sealed": made.cipher, "commitment": made.commitment, "at": "2026-11-21T10:00:00Z"}

    case = tx.add("board_case", meeting_id=1, record_id=record.id, **sealed(BOARD, "case"))
    said = sealed(BOARD, "recommendation")
    recommendation = tx.add("board_recommendation", case_id=case, version=1, inferences="", **said)
    who: dict[str, Any] = {"recommendation_id": recommendation, "role": "surgeon", "who": new_ref().encode()}
    tx.add("board_sign_off", **who, **sealed(BOARD, "sign-off"))
    tx.add("board_minutes", case_id=case, recommendation_id=recommendation, **sealed(BOARD, "minutes"))
    for act, outcome, name in (("break-glass", "broken", "reason"), ("minutes", "seen", "looked")):
        look: dict[str, Any] = {
            "act": act,
            "outcome": outcome,
            "purpose": "TREAT",
            "door": "staff",
            "roles": "",
            "who": b"w",
        }
        access = tx.add("access", **look, **sealed(ACCESS, name))
        tx.add("access_record", access_id=access, record_id=record.id, outcome=outcome)
    tx.entry("test", ACTOR, {})
    session, token = sealed(SESSION, "session"), sealed(TOKEN, "token")
    tx.execute(
        "INSERT INTO app_session (id, cookie, record, idle, seen, until, ref, sealed, token_ref, token, turn, "
        "refreshing_until) VALUES (?, ?, ?, 1, 1, 1, ?, ?, ?, ?, 0, 0)",
        (new_ref(), b"c", record.ref, session["ref"], session["sealed"], token["ref"], token["sealed"]),
    )
    return found


def test_another_process_forgets_and_goes_on(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It held the record's key, and makes a new record for the same patient when they come again."""
    one, other = open_store(), open_store()
    learn(one, patient("m1"), weight("mw", "m1", 60))
    assert weights(other, "a", "m1") == ["60 kg"]
    record = one.reads.record("a", "m1")
    assert record is not None
    sealed = one.reads.query("SELECT facts FROM resource WHERE facts IS NOT NULL")[0][0]
    erase(one, record, BASIS, ACTOR)
    monkeypatch.setattr("cds_server.store.vault._LOOK", -1.0)  # it looks each time
    learn(other, patient("m1"), weight("mw", "m1", 61))  # it hears of the erasure while it makes the new record
    with pytest.raises(Erased):
        other.vault.open_of_record(record.ref, bytes(sealed))
    assert weights(other, "a", "m1") == weights(one, "a", "m1") == ["61 kg"]


def test_every_sealed_column_is_reached_or_kept_for_a_reason() -> None:
    for name, table in GOVERNED.items():
        sealed = {c.name for c in table.__table__.columns} & {"sealed", "facts", "header", "manifest", "pack"}  # type: ignore[attr-defined]
        assert sealed <= set(SEALED.get(name, ())) or name in KEPT, f"{name} seals {sealed}: does an erasure reach it?"
    assert not SEALED.keys() & KEPT.keys()
