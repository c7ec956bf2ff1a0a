"""kill -9 at any moment: what was acknowledged is there afterwards, what was not may be missing, nothing is half there.

`CDS_TEST_KILLS=1000` makes a soak of it (by default four rounds, so that every run of the tests has them).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.peers.load import Load, Told
from tests.peers.server import CDS, Server

ROUNDS = int(os.environ.get("CDS_TEST_KILLS", "4"))
CONNECTIONS = 16
PATIENTS = ("018f428e-34f6-4707-8009-5ad742f901e7", "ba18818d-faef-44cd-9744-b12d8973d402")
"""Two of the Synthea set, with facts among those lines."""
LINES = 1200
"""Resources of the delivery that is cut off: several acts of the reducer."""

Make = Callable[..., Server]


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    """What is killed while it syncs has a disk to sync."""
    return on_disk


def test_a_server_killed_under_load_loses_nothing_that_it_acknowledged(servers: Make) -> None:
    server, chance, kept = servers(), random.Random(20), Told()
    for number in range(ROUNDS):
        with Load(server, CONNECTIONS) as told:
            at_least_one(told)
            time.sleep(chance.uniform(0.0, 0.6))
            server.kill()
        assert told.strange == []
        server.start()
        check_acknowledged(server, told)
        kept.inferences += told.inferences
        kept.actions += told.actions
        if number % 6 == 2:
            check_log(server)
    assert kept.actions
    check_log(server)
    check_record(server, kept)


def at_least_one(told: Told) -> None:
    """Wait until something was acknowledged that could be lost."""
    give_up = time.monotonic() + 30
    while not told.inferences:
        assert not told.strange
        assert time.monotonic() < give_up, "no call was answered"
        time.sleep(0.005)


def check_acknowledged(server: Server, told: Told) -> None:
    """Each entry that an answer named stands in the log, with the leaf that the answer carried."""
    for item in told.inferences:
        proof = server.http.get(f"/ledger/proof/{item['seq']}").json()
        assert proof["leaf"] == item["leaf"]
        assert proof["entry"]["detail"]["inference"] == item["id"]
    for seq in told.actions:
        assert server.http.get(f"/ledger/proof/{seq}").json()["entry"]["kind"] == "act"


def check_log(server: Server) -> None:
    """It verifies, rows and all (a row without an entry is a finding), and its numbers have no gap."""
    with closing(sqlite3.connect(f"file:{server.data_dir / 'cds.db'}?mode=ro", uri=True)) as database:
        count, last = database.execute("SELECT COUNT(*), MAX(seq) FROM ledger_entry").fetchone()
    assert count == last
    server.verify()


def check_record(server: Server, kept: Told) -> None:
    """Each acknowledged inference can be opened, with the cards that were sent."""
    shown = {each["inference"]: each for each in server.ask("inference", "all")}
    for item in kept.inferences:
        recorded = shown[item["id"]]
        assert recorded["seq"] == item["seq"]
        assert [card["card"]["uuid"] for card in recorded["cards"]] == item["cards"]
    actions = sum(len(card["actions"]) for each in shown.values() for card in each["cards"])
    assert actions >= len(kept.actions)


def test_landing_and_digesting_killed_in_the_middle(servers: Make, peer_data: Path) -> None:
    """Run again until done: the store holds what an undisturbed run makes, no less and nothing twice."""
    undisturbed, killed = servers(start=False), servers(start=False)
    delivery = a_delivery(peer_data, undisturbed.home / "delivery.ndjson")
    land, digest = ("land", str(delivery), "--namespace", "synthea"), ("digest",)
    chance = random.Random(9)
    for command in (land, digest):
        took = timed(undisturbed, command)
        kills = 0
        while kills < max(4, ROUNDS // 3):
            kills += cut_off(killed, command, chance.uniform(0.2, 1.0) * took)
        killed.cds(*command)
    assert content(killed) == content(undisturbed)
    again = killed.ask("land", delivery, "--namespace", "synthea")
    assert again[0]["arrival"] == "duplicate"
    killed.cds("digest")
    assert content(killed) == content(undisturbed)
    check_log(killed)


def a_delivery(peer_data: Path, to: Path) -> Path:
    """The first lines of each file of the Synthea set."""
    files = sorted((peer_data / "fhir" / "synthea-smart-615").glob("*.ndjson*"))
    assert files
    lines: list[bytes] = []
    for path in files:
        lines += first_lines(path, LINES // len(files) + 1)
    to.write_bytes(b"".join(lines))
    return to


def first_lines(path: Path, count: int) -> list[bytes]:
    import gzip

    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return [line.rstrip(b"\n") + b"\n" for _, line in zip(range(count), file, strict=False)]


def timed(server: Server, command: tuple[str, ...]) -> float:
    began = time.monotonic()
    server.apart(*command)
    return time.monotonic() - began


def cut_off(server: Server, command: tuple[str, ...], after: float) -> bool:
    """Run a command and kill -9 it after so many seconds; whether it was still running."""
    with (server.home / "killed.err").open("ab") as errors:
        process = subprocess.Popen(
            [*CDS, *command], env=server.env(), cwd=server.home, stdout=errors, stderr=errors, start_new_session=True
        )
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0, (server.home / "killed.err").read_text()
    return True


def content(server: Server) -> dict[str, Any]:
    """What the store holds, as counts: random references and sealed bytes differ from instance to instance."""
    asked = {
        "landings": "SELECT media_type, parts, size, COUNT(*) FROM landing GROUP BY 1, 2, 3",
        "parts read": "SELECT SUM(part_to - part_from), SUM(statements), SUM(quarantined) FROM digestion",
        "resources": "SELECT type, test, COUNT(*), COUNT(DISTINCT local_digest) FROM resource GROUP BY 1, 2",
        "places": "SELECT COUNT(*) - COUNT(DISTINCT part || pointer) FROM resource",
        "closings": "SELECT COUNT(*) FROM resource_closing",
        "facts": "SELECT code, COUNT(facts) FROM resource GROUP BY 1",
        "records": "SELECT namespace, COUNT(*) FROM patient_record GROUP BY 1",
        "verdicts": "SELECT invalid, SUM(checked) FROM validation GROUP BY 1",
        "flags": "SELECT kind, reason, COUNT(*) FROM flag GROUP BY 1, 2",
    }
    with closing(sqlite3.connect(f"file:{server.data_dir / 'cds.db'}?mode=ro", uri=True)) as database:
        found = {name: sorted(map(list, database.execute(query)), key=json.dumps) for name, query in asked.items()}
    assert found["places"] == [[0]]
    assert sum(row[2] for row in found["resources"]) > LINES // 2
    folder = server.data_dir / "blobs"
    blobs = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    with closing(sqlite3.connect(f"file:{server.data_dir / 'cds.db'}?mode=ro", uri=True)) as database:
        named = {row[0] for row in database.execute("SELECT pack_file FROM landing WHERE pack_file IS NOT NULL")}
    assert named <= blobs
    found["facts"] = [facts_of(server, patient) for patient in PATIENTS]
    return found


def facts_of(server: Server, patient: str) -> list[str]:
    """What is known about a patient: every fact, without where it was read and when."""
    known = server.ask("patient", f"synthea/{patient}")["facts"]
    assert known
    own = {"id", "record", "source", "known_from"}  # of an instance
    return sorted(json.dumps({name: fact[name] for name in sorted(fact.keys() - own)}) for fact in known)
