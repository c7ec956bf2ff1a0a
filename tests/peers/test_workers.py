"""One instance, many processes: two workers answer while others land and digest, all on one store and one log."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.peers.load import Load, a_patient
from tests.peers.server import CDS, Server, free_port, of_inference
from tests.peers.test_kill import a_delivery, check_acknowledged, check_record

Make = Callable[..., Server]
SIZES = (0, 13, 39)


def test_workers_landing_and_digesting_share_one_log(servers: Make, peer_data: Path) -> None:
    server = servers()
    delivery = a_delivery(peer_data, server.home / "delivery.ndjson")
    alone = {number: summary(server, number) for number in SIZES}
    server.stop()
    server.workers = 2
    server.start()
    with Load(server, 8, rest=0.2) as told:  # callers all the while, and time left for what works beside them
        began = time.monotonic()
        others = [
            subprocess.Popen([*CDS, "land", delivery, "--namespace", "synthea"], env=server.env(), cwd=server.home),
            subprocess.Popen([*CDS, "land", delivery, "--namespace", "other"], env=server.env(), cwd=server.home),
        ]
        assert [process.wait(timeout=120) for process in others] == [0, 0]
        digests = [subprocess.Popen([*CDS, "digest"], env=server.env(), cwd=server.home) for _ in range(2)]
        assert [process.wait(timeout=300) for process in digests] == [0, 0]
        while time.monotonic() < began + 3:
            time.sleep(0.05)
    server.cds("digest")
    assert told.strange == []
    assert len(told.inferences) > 50
    assert {number: summary(server, number) for number in SIZES} == alone  # what is scored does not depend on all that
    check_acknowledged(server, told)
    check_record(server, told)
    server.stop()
    server.cds("digest")  # what the last calls brought, and the background did not get to
    with closing(sqlite3.connect(server.data_dir / "cds.db")) as database:
        count, last = database.execute("SELECT COUNT(*), MAX(seq) FROM ledger_entry").fetchone()
        doubles = database.execute("SELECT COUNT(*) - COUNT(DISTINCT landing_id || ':' || part_from) FROM digestion")
        assert doubles.fetchone() == (0,)
        (unread,) = database.execute(
            "SELECT (SELECT SUM(parts) FROM landing) - (SELECT SUM(part_to - part_from) FROM digestion)"
        ).fetchone()
    assert count == last
    assert unread == 0
    numbers = Counter([*(item["seq"] for item in told.inferences), *told.actions])
    assert max(numbers.values()) == 1


def summary(server: Server, number: int) -> str:
    answer = server.call(a_patient(number))
    of_inference(answer)
    return str(answer.json()["cards"][0]["summary"])


@pytest.fixture(scope="module")
def two_workers(shared_servers: Make) -> Server:
    return shared_servers(workers=2)


def test_a_worker_that_dies_is_replaced(two_workers: Server) -> None:
    server = two_workers
    assert server.process is not None
    for child in workers_of(server.process.pid, server.port):
        os.kill(child, signal.SIGKILL)
    give_up = time.monotonic() + 30
    while answered(server) != 200:
        assert time.monotonic() < give_up, "no worker came back"
        time.sleep(0.05)
    assert of_inference(server.call(a_patient(1)))


def test_workers_end_when_their_parent_is_killed(two_workers: Server) -> None:
    """kill -9 of the one process that an operator sees must not leave others that answer without it."""
    server = two_workers
    item = of_inference(server.call(a_patient(1)))
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(timeout=30)
    group = server.process.pid
    try:
        give_up = time.monotonic() + 20
        while group_lives(group):
            assert time.monotonic() < give_up, "workers outlive their parent"
            time.sleep(0.1)
    finally:
        server.kill()
    server.port = free_port()
    server.start()
    assert of_inference(server.call(a_patient(1)))["seq"] > item["seq"]


def group_lives(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def answered(server: Server) -> int:
    try:
        return httpx.get(f"{server.url}/readyz", timeout=5, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def workers_of(parent: int, port: int) -> list[int]:
    """The children that hold the listening socket, by /proc: the helper for background work holds none."""
    inode = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if int(line.split()[1].rpartition(":")[2], 16) == port and line.split()[3] == "0A"
    )
    found = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        links = [os.readlink(link) for link in Path(f"/proc/{child}/fd").iterdir() if link.is_symlink()]
        if f"socket:[{inode}]" in links:
            found.append(int(child))
    assert len(found) == 2
    return found
