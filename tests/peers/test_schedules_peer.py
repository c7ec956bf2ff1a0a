"""Pulls by the clock of a running `cds serve`: once each, beside calls, and taken up after any death."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest

from adapters.bulk.states import EXPORT, State
from cds_server import schedules
from cds_server.settings import load
from tests.cds_server.stores import weight
from tests.peers.bulk_peer import BulkPeer
from tests.peers.server import Server, free_port, hook, of_inference
from tests.peers.test_background import until
from tests.peers.test_bulk_pull_peer import FILES, PEOPLE, SOURCE, counted, instance, jobs, known, population, pull
from tests.peers.test_workers import group_lives

Make = Callable[..., Server]


def states(server: Server) -> list[str]:
    return [job.state for job in jobs(server)]


def test_a_server_pulls_what_is_due_once(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer, every="1m")
    assert states(server) == []
    server.start()
    until(lambda: states(server) == ["done"])
    assert counted(server) == FILES
    of_inference(server.call(hook("jenny-m.patient-view")))
    server.kill()
    server.start()  # it looks at once, and nothing is due
    time.sleep(schedules.LOOK + 1)
    assert states(server) == ["done"]
    assert "scheduled pull failed" not in server.told()


def test_without_a_schedule_nothing_is_pulled(servers: Make, bulk_peer: BulkPeer) -> None:
    server = instance(servers, bulk_peer)
    server.start()
    time.sleep(1)
    assert states(server) == []


def test_a_run_that_ended_with_its_server_is_taken_up(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load([*population(), *(weight(f"n{number}", PEOPLE[0], 50 + number) for number in range(600))])
    calm = instance(servers, bulk_peer)
    pull(calm)
    undisturbed = known(calm)
    for end in ("stopped", "killed, and all that it started", "killed alone"):
        server = instance(servers, bulk_peer, every="1d")
        ended(server, end)
        (state,) = states(server)
        assert state not in EXPORT.ends, end
        server.port = free_port()
        server.start()
        until(lambda server=server: states(server) == ["done"])  # type: ignore[misc]
        assert [job.remembers["kick_offs"] for job in jobs(server)] == [1], end
        assert known(server) == undisturbed, end
        server.stop()


def ended(server: Server, how: str) -> None:
    """Start it, and end it once its run is under way; nothing that it started is left."""
    server.start()
    until(lambda: states(server) not in ([], [State.QUEUED]))
    assert server.process is not None
    group = server.process.pid
    if how == "stopped":
        server.stop()
    elif how == "killed alone":
        os.kill(group, signal.SIGKILL)
        server.process.wait(timeout=30)
    else:
        server.kill()
    until(lambda: not group_lives(group))
    server.kill()


def test_a_peer_that_is_down_hurts_no_call(servers: Make, bulk_peer: BulkPeer) -> None:
    server = instance(servers, bulk_peer, every="1m", url=f"http://127.0.0.1:{free_port()}/fhir")
    server.start()
    until(lambda: "scheduled pull failed" in server.told())
    of_inference(server.call(hook("jenny-m.patient-view")))
    assert server.readiness() == 200
    assert "Traceback" not in server.told()
    assert set(states(server)) <= {"queued"}


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """None: the SQLite file of the instance."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def test_of_several_processes_one_runs_what_is_due(
    database_url: str | None, servers: Make, bulk_peer: BulkPeer
) -> None:
    """What each of several servers on one store starts when the time has come."""
    bulk_peer.load(population())
    server = instance(servers, bulk_peer, every="1d", database_url=database_url)
    url = database_url or f"sqlite:///{server.data_dir / 'cds.db'}"
    settings = load(server.environment, data_dir=server.data_dir, database_url=url, trust="open")
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=schedules.pull, args=(settings, SOURCE)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=120)
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert states(server) == ["done"]
    assert counted(server) == FILES
