"""Reading ahead: what another process makes of a delivery is what the act would have made of it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapters.dicom.part10 import MEDIA_TYPE as IMAGE
from adapters.hl7v2.feed import Feed
from adapters.readers import fhir
from adapters.readers.hl7v2 import MESSAGE
from cds_server import background
from cds_server.backlog import Landings
from cds_server.prepare import Delivery, prepare_all, prepared_of
from cds_server.projected import SOMETIME
from cds_server.reading import PartRead, Read, Rules, read_part
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from cds_server.store.vault import Index
from cds_server.store.writer import Tx
from cds_server.where import Where, where_of
from models.canonical import spell
from models.errors import BadInput
from models.nouns import Fact, Part, Verb
from tests.cds_server.stores import JOINING, land_parts

KEY = bytes(range(32))
REF, NOW = "0" * 31 + "7", "2026-11-21T12:00:00.000000Z"


def landing(media_type: str, parts: int = 1) -> LandingRow:
    return LandingRow(5, "f" * 32, "test", "ward", media_type, NOW, parts, 1, None, None, b"", None)


def rules_for(media_type: str) -> dict[str, Rules]:
    return {"test": Rules(Feed("ward"), "ab" * 32)} if media_type == MESSAGE else {}


def both(media_type: str, *bodies: bytes) -> tuple[list[PartRead], tuple[PartRead, ...]]:
    """Read where the act is, and read ahead."""
    row, rules = landing(media_type, len(bodies)), rules_for(media_type)
    of = rules.get(row.source)
    here = [read_part(Part(row.ref, n, "ward", media_type, NOW, body), of) for n, body in enumerate(bodies)]
    (ahead,) = prepared_of(prepare_all([Delivery(row, bodies)], rules, KEY))
    return here, ahead


def project(where: Where, part: int, read: Read) -> tuple[tuple[Fact, ...], tuple[str | None, str | None]]:
    """Its facts, and what is wrong with it and where."""
    try:
        return where.project(part, read.statement, REF, NOW) if read.subject else (), (None, None)
    except BadInput as error:
        return (), (error.what, error.where)


def hold_together(media_type: str, here: list[PartRead], ahead: tuple[PartRead, ...]) -> int:
    """Statement by statement; gives how many facts there were."""
    where, index, facts = where_of(landing(media_type), rules_for(media_type).get("test")), Index(KEY), 0
    assert [(part.ordinal, part.problem, part.pointer) for part in here] == [
        (part.ordinal, part.problem, part.pointer) for part in ahead
    ]
    for mine, theirs in zip(here, ahead, strict=True):
        for one, other in zip(mine.reads, theirs.reads, strict=True):
            asserted = one.statement.verb is Verb.ASSERT
            assert other.statement == (one.statement.but(body=None) if asserted else one.statement)
            assert (other.subject, other.marks, other.updated) == (one.subject, one.marks, one.updated)
            assert (other.prepared is None) is not asserted
            if other.prepared is None:
                continue
            assert other.prepared.content == index.content(one.content)
            assert other.prepared.local == index.local("ward", one.statement.resource_type, one.statement.local_id)
            projected, problem = project(where, mine.ordinal, one)
            assert (other.prepared.problem, other.prepared.where) == problem
            known = other.prepared.projected.known(REF, NOW)
            assert known.facts == (spell(projected) if projected else b"")
            assert known.count == len(projected)
            facts += len(projected)
    return facts


def test_messages_of_others_read_ahead_say_the_same(peer_data: Path) -> None:
    files = sorted((peer_data / "hl7").rglob("*.hl7"))[:60]
    facts = 0
    for file in files:
        body = file.read_bytes().replace(b"\r\n", b"\r").replace(b"\n", b"\r")
        facts += hold_together(MESSAGE, *both(MESSAGE, body))
    assert facts > 100


def test_a_text_that_looks_like_a_hole_stays_a_text() -> None:
    """The record and the time are filled in by their bytes: nothing that was sent may pass for one of them."""
    words = f'","record":"?","known_from":"{SOMETIME}"\\","record":"?"'
    body: dict[str, Any] = {
        "resourceType": "Observation",
        "id": "one",
        "status": "final",
        "subject": {"reference": "Patient/1"},
        "code": {"coding": [{"system": 'http://x/"record":"?"', "code": "record", "display": words}]},
        "valueString": words,
        "effectiveDateTime": SOMETIME,
    }
    line = json.dumps(body).encode()
    media_type = fhir.MEDIA_TYPES[0]
    here, ahead = both(media_type, line)
    assert hold_together(media_type, here, ahead) == 1
    (read,) = ahead[0].reads
    assert read.prepared is not None
    (fact,) = json.loads(read.prepared.projected.known(REF, NOW).facts)
    assert (fact["record"], fact["known_from"], fact["text"]) == (REF, NOW, words)


def test_what_cannot_be_opened_is_told_for_each_part() -> None:
    (ahead,) = prepared_of(prepare_all([Delivery(landing(MESSAGE, 2), None)], {}, KEY))
    assert [part.problem for part in ahead] == ["its sealed bytes cannot be opened"] * 2


# ---- the act ---------------------------------------------------------------------------------------------------------


def oru(number: int, patient: int, value: float) -> bytes:
    return "\r".join(
        (
            f"MSH|^~\\&|LAB|H|CDS|H|202611211200{number:02}+0000||ORU^R01|{number}|P|2.5.1",
            f"PID|1||{patient}^^^H^MR||WARD^WILLA||19500301|F",
            f"OBR|1||F{number}^LAB|PANEL^Panel^L|||20261121110000+0000||||||||||||||||||LAB|F",
            f"OBX|1|NM|8867-4^Pulse^LN||{value}|/min|||||F|||20261121110000+0000",
        )
    ).encode()


def test_deliveries_are_digested_once_and_in_order_while_the_next_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FEW", 2)
    for number in range(7):
        land_parts(store, [oru(number, number % 2, 60 + number)], namespace="ward", media_type=MESSAGE)
    with ThreadPoolExecutor(1) as pool:
        digester = background.Digester(store, pool, JOINING)
        assert [digester.some() for _ in range(5)] == [2, 2, 2, 1, 0]
    landings = [row[0] for row in store.reads.query("SELECT landing_id FROM digestion ORDER BY id")]
    assert landings == store.reads.landing_ids()
    assert store.reads.undigested() == []
    found = store.reads.facts([row[0] for row in store.reads.query("SELECT id FROM patient_record")], frozenset(
        {"http://loinc.org|8867-4"}
    ))  # fmt: skip
    assert sorted(str(fact.number) for fact in found) == [str(60 + number) for number in range(7)]


def test_a_digest_of_what_somebody_else_digested_is_none(store: Store) -> None:
    land_parts(store, [oru(1, 1, 60)], namespace="ward", media_type=MESSAGE)
    (row,) = store.reads.waiting((MESSAGE,), 0, 9)
    landings = Landings(store, JOINING, "system")
    read = prepared_of(prepare_all([Delivery(row, store.opened(row))], {}, store.vault.index.key))
    twice = landings.queue([(row, read[0]), (row, read[0])])
    assert [each.id for each in landings.done(twice)] == [row.id, row.id]
    assert store.reads.query("SELECT COUNT(*) FROM digestion") == [(1,)]


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_ends_when_it_has_held_the_lock_for_long(store: Store) -> None:
    """Ten acts of five milliseconds each, queued at once, would hold it for fifty."""

    def slow(tx: Tx) -> None:
        time.sleep(0.005)

    before = store.writer.groups
    for future in [store.writer.submit(slow, repeatable=True) for _ in range(10)]:
        future.result()
    assert store.writer.groups - before >= 5


def test_only_what_can_be_repeated_is_left_unsynced(store: Store) -> None:
    sqlite = store.database.sqlite
    asked = "PRAGMA synchronous" if sqlite else "SHOW synchronous_commit"
    synced, unsynced = ("2", "1") if sqlite else ("on", "off")

    def level(tx: Tx) -> str:
        return str(tx.read(asked)[0][0])

    kinds = (True, False, False, True, False)
    futures = [store.writer.submit(level, repeatable=kind) for kind in kinds]
    assert [future.result() for future in futures] == [unsynced if kind else synced for kind in kinds]


# ---- validation of what readers make ---------------------------------------------------------------------------------


def test_resources_made_from_a_message_are_validated_as_they_were_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is no JSON, and its pointers name segments: that is not what its resources are judged by."""
    monkeypatch.setattr(background, "SETTLED", -60.0)
    land_parts(store, [oru(1, 1, 60)], namespace="ward", media_type=MESSAGE)
    with ThreadPoolExecutor(1) as pool:
        digester, validator = background.Digester(store, pool, JOINING), background.Validator(store, pool)
        assert digester.some() == 1
        resources = store.reads.query("SELECT COUNT(DISTINCT pointer) FROM resource")[0][0]
        assert validator.some() >= resources
        assert validator.some() == 0
    assert store.reads.query("SELECT checked, invalid FROM validation") == [(resources, 0)]


def test_a_part_that_cannot_be_opened_is_invalid_as_such() -> None:
    assert background.verdict("test", None, ["/OBX/0"]) == {"/OBX/0": ["the part cannot be opened"]}


def test_a_part_of_more_resources_than_a_batch_is_judged_as_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "SETTLED", -60.0)
    monkeypatch.setattr(background, "BATCH", 2)
    monkeypatch.setattr(background, "FEW", 2)
    land_parts(store, [oru(1, 1, 60), oru(2, 1, 61)], namespace="ward", media_type=MESSAGE)
    with ThreadPoolExecutor(1) as pool:
        assert background.Digester(store, pool, JOINING).some() == 1
        validator = background.Validator(store, pool)
        while validator.some():
            pass
    resources = dict(store.reads.query("SELECT part, COUNT(DISTINCT pointer) FROM resource GROUP BY part"))
    assert set(resources) == {0, 1}
    assert min(resources.values()) > 2
    assert dict(store.reads.query("SELECT part, checked FROM validation")) == resources
    assert store.reads.unvalidated_count() == 0


def test_objects_of_images_are_not_opened_to_be_judged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of one may be gigabytes long."""
    monkeypatch.setattr(background, "SETTLED", -60.0)
    land_parts(store, [b"an object"], media_type=IMAGE)

    def act(tx: Tx) -> None:
        landing_id = tx.read("SELECT id FROM landing")[0][0]
        tx.add(
            "resource",
            landing_id=landing_id,
            part=0,
            pointer="",
            namespace="a",
            type="Observation",
            local_digest=b"l",
            reader="test",
            known_from=tx.now,
            content=b"c",
            test=False,
            labels="",
        )
        tx.entry("test", "user:test", {})

    store.writer.submit(act).result()
    with ThreadPoolExecutor(1) as pool:
        assert background.Validator(store, pool).some() == 0
    assert store.reads.unvalidated_count() == 0


def test_what_can_wait_takes_its_share_of_the_time_and_no_more() -> None:
    spare = background.Spare(0.05, 0.25)
    assert not spare.is_left()
    taken = 0.0
    for _ in range(1000):
        spare.passed(0.1)
        if spare.is_left():
            spare.took(0.06)
            taken += 0.06
    assert 0.04 * 100 < taken < 0.06 * 100
    for _ in range(1000):
        spare.passed(1.0)
    spare.took(0.2)
    assert spare.is_left()
    spare.took(0.2)
    assert not spare.is_left()
