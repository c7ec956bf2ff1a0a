"""Jobs outlive whoever does them: rows along a table of states, sealed memory, leases that one process holds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.bulk.states import EXPORT, State
from adapters.states import States
from cds_server import jobs as jobs_module
from cds_server.jobs import LEASE, Job, Jobs, Order, holder, is_due, lease, release
from cds_server.store.store import Store
from models.errors import Conflict
from tests.cds_server.conftest import OpenStore
from tests.cds_server.stores import ACTOR
from tests.peers import ROOT

KIND, SOURCE, SCOPE = "fhir-bulk", "north", "server/system"
PLANTED = "https://fhir.example.org/status/planted-9c1e"
WAY = [State.KICKED_OFF, State.POLLING, State.DOWNLOADING, State.APPLYING]


def of(store: Store) -> Jobs:
    return Jobs(store, KIND, EXPORT)


def queued(jobs: Jobs, *modes: str, source: str = SOURCE, scope: str = SCOPE) -> list[Job]:
    orders = [Order(mode, scope, {"level": "system", "patients": ["planted-7d2a"]}) for mode in modes]
    return jobs.queue(source, orders, ACTOR)


def brought(jobs: Jobs, job: Job, end: State, cursor: str | None = None) -> Job:
    """All the way to an end."""
    for state in WAY:
        job = jobs.move(job, state, ACTOR)
    return jobs.move(job, end, ACTOR, cursor=cursor)


# ---- a job is a row --------------------------------------------------------------------------------------------------


def test_a_job_is_queued_moved_and_taken_up_by_another_process(open_store: OpenStore) -> None:
    first = of(open_store())
    full, since = queued(first, "full", "since")
    assert (full.state, full.run, full.cause, full.cursor) == (State.QUEUED, since.run, None, None)
    assert full.asked == {"level": "system", "patients": ["planted-7d2a"]}
    full = first.move(full, State.KICKED_OFF, ACTOR, remember={"status_url": PLANTED})
    second = of(open_store())  # as after a restart: nothing but the rows
    assert second.get(full.id) == full
    assert [(job.mode, job.state) for job in second.unfinished(SOURCE)] == [
        ("full", State.KICKED_OFF),
        ("since", State.QUEUED),
    ]
    moved = second.move(second.get(full.id), State.FAILED, ACTOR, cause="the server lost it")
    assert (moved.state, moved.cause, moved.remembers) == (State.FAILED, "the server lost it", {"status_url": PLANTED})
    assert [job.mode for job in second.unfinished(SOURCE)] == ["since"]
    assert [job.mode for job in second.latest(SOURCE, 1)] == ["full", "since"]
    assert second.unfinished("south") == []


def test_a_step_that_the_table_does_not_know_is_refused(store: Store) -> None:
    jobs = of(store)
    (job,) = queued(jobs, "full")
    for to in (State.APPLYING, State.DONE_WITH_FAULTS, "made up"):
        with pytest.raises(Conflict):
            jobs.move(job, to, ACTOR)
    done = brought(jobs, job, State.DONE)
    with pytest.raises(Conflict):
        jobs.move(done, State.QUEUED, ACTOR)
    assert jobs.get(job.id) == done


def test_a_step_that_somebody_else_made_meanwhile_is_refused(open_store: OpenStore) -> None:
    mine, theirs = of(open_store()), of(open_store())
    (job,) = queued(mine, "full")
    theirs.move(theirs.get(job.id), State.CANCELLED, ACTOR)
    with pytest.raises(Conflict, match="another process moved this job: it is cancelled"):
        mine.move(job, State.KICKED_OFF, ACTOR, remember={"status_url": PLANTED})
    assert mine.get(job.id).remembers == {}


def test_what_is_remembered_merges_and_a_step_to_the_same_state_only_remembers(store: Store) -> None:
    jobs = of(store)
    (job,) = queued(jobs, "full")
    job = jobs.move(job, State.KICKED_OFF, ACTOR, remember={"status_url": PLANTED, "page": -1})
    job = jobs.move(job, State.POLLING, ACTOR)
    job = jobs.move(job, job.state, ACTOR, remember={"page": 3})
    job = jobs.move(job, State.POLLING, ACTOR, remember={"missing": ["file 1"]})
    assert job.state == State.POLLING
    assert job.remembers == {"status_url": PLANTED, "page": 3, "missing": ["file 1"]}


def test_what_is_remembered_and_asked_is_sealed(store: Store, url: str, data_dir: Path) -> None:
    jobs = of(store)
    (job,) = queued(jobs, "full", scope="planted-5b7f")
    jobs.move(job, State.KICKED_OFF, ACTOR, remember={"status_url": PLANTED})
    rows = store.reads.query(
        "SELECT j.sealed, j.scope, j.commitment, s.sealed, s.ref, s.cause FROM job j JOIN job_step s ON s.job_id = j.id"
    )
    columns = [bytes(each) if not isinstance(each, str) else each.encode() for row in rows for each in row if each]
    assert len(columns) > 8
    assert not [each for each in columns if b"planted" in each]
    if url.startswith("sqlite"):
        stored = [path for path in data_dir.rglob("*") if path.is_file()]
        assert any(path.name == "cds.db" for path in stored)
        assert not [path.name for path in stored if b"planted" in path.read_bytes()]
    assert jobs.get(job.id).remembers["status_url"] == PLANTED


# ---- what is known of jobs -------------------------------------------------------------------------------------------


def test_the_cursor_of_a_scope_is_the_last_one_that_was_set(store: Store) -> None:
    jobs = of(store)
    assert jobs.cursor(SCOPE) is None
    (first,) = queued(jobs, "full")
    brought(jobs, first, State.DONE, "2026-11-01T00:00:00.000000Z")
    (faulty,) = queued(jobs, "since")
    brought(jobs, faulty, State.DONE_WITH_FAULTS)
    (other,) = queued(jobs, "full", scope="another server")
    brought(jobs, other, State.DONE, "2026-11-20T00:00:00.000000Z")
    found = jobs.cursor(SCOPE)
    assert found is not None
    assert (found.id, found.cursor) == (first.id, "2026-11-01T00:00:00.000000Z")
    (second,) = queued(jobs, "since")
    brought(jobs, second, State.DONE, "2026-11-02T00:00:00.000000Z")
    found = jobs.cursor(SCOPE)
    assert found is not None
    assert found.id == second.id


def test_the_last_job_that_came_to_a_state(store: Store) -> None:
    jobs = of(store)
    assert jobs.last(SCOPE, "full", State.DONE) is None
    (first,) = queued(jobs, "full")
    brought(jobs, first, State.DONE)
    (faulty,) = queued(jobs, "full")
    brought(jobs, faulty, State.DONE_WITH_FAULTS)
    found = jobs.last(SCOPE, "full", State.DONE)
    assert found is not None
    assert found.id == first.id
    assert jobs.last(SCOPE, "since", State.DONE) is None
    assert jobs.last("another server", "full", State.DONE) is None


def test_a_source_is_due_when_its_last_run_began_long_ago_or_did_not_end(store: Store) -> None:
    jobs, hour = of(store), timedelta(hours=1)
    assert is_due(jobs, EXPORT, SOURCE, hour)
    (job,) = queued(jobs, "full")
    assert is_due(jobs, EXPORT, SOURCE, hour)  # begun, and not at its end: to be taken up
    brought(jobs, job, State.DONE)
    assert not is_due(jobs, EXPORT, SOURCE, hour)
    assert is_due(jobs, EXPORT, SOURCE, timedelta(0))
    assert is_due(jobs, EXPORT, "south", hour)


# ---- leases ----------------------------------------------------------------------------------------------------------


def elsewhere() -> str:
    """A holder on another machine: nobody here can tell whether its process lives."""
    return f"another-{socket.gethostname()}/1/{uuid.uuid4().hex}"


def test_one_of_two_takes_a_lease(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    mine, theirs = holder(), elsewhere()
    assert lease(one, "pull:north", mine)
    assert not lease(other, "pull:north", theirs)
    assert lease(one, "pull:north", mine)
    assert lease(other, "pull:south", theirs)
    release(other, "pull:north", theirs)  # who does not hold it gives nothing back
    assert not lease(other, "pull:north", theirs)
    release(one, "pull:north", mine)
    assert lease(other, "pull:north", theirs)
    assert not lease(one, "pull:north", mine)


def test_two_holders_in_one_process_are_two(store: Store) -> None:
    assert lease(store, "pull:north", holder())
    assert not lease(store, "pull:north", holder())


def test_a_lease_that_ran_out_is_taken_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = elsewhere(), holder()
    assert lease(store, "pull:north", theirs)
    assert not lease(store, "pull:north", mine)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(seconds=LEASE + 1)

    monkeypatch.setattr(jobs_module, "datetime", Later)
    assert lease(store, "pull:north", mine)
    assert not lease(store, "pull:north", theirs)


def test_a_lease_whose_process_is_gone_is_taken_over_at_once(store: Store) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "from cds_server.jobs import holder; print(holder())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = told.stdout.strip()
    assert theirs.split("/")[:1] == [socket.gethostname()]
    assert theirs.split("/")[1] != str(os.getpid())
    assert lease(store, "pull:north", theirs)
    assert lease(store, "pull:north", holder())


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_table_has_the_states_of_the_manual() -> None:
    assert list(EXPORT.moves) == [
        "queued",
        "kicked off",
        "polling",
        "downloading",
        "applying",
        "done",
        "done with faults",
        "failed",
        "cancelled",
    ]
    assert EXPORT.first == State.QUEUED
    assert EXPORT.ends == {State.DONE, State.DONE_WITH_FAULTS, State.FAILED, State.CANCELLED}


def test_every_state_is_reached_and_every_one_that_is_no_end_may_be_given_up() -> None:
    reached, fresh = {EXPORT.first}, [EXPORT.first]
    while fresh:
        after = EXPORT.moves[fresh.pop()] - reached
        reached |= after
        fresh += after
    assert reached == set(EXPORT.moves)
    for state, after in EXPORT.moves.items():
        assert state in EXPORT.ends or {State.FAILED, State.CANCELLED} <= after


def test_a_table_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="does not know: lost"):
        States({"queued": frozenset({"lost"})})


def test_the_manual_shows_the_table_as_it_is() -> None:
    manual = (ROOT / "docs" / "bulk.md").read_text()
    shown = manual.partition("<!-- states -->\n")[2].partition("<!-- /states -->")[0]
    assert shown == f"```mermaid\n{EXPORT.diagram()}\n```\n"
    assert all(f"| {state} |" in manual for state in EXPORT.moves), "a state without its line in the table below"
