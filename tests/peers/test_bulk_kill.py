"""kill -9 during a pull, at any moment: run again, it ends with the store that an undisturbed pull makes.

First real processes, killed where something of another kind is under way; then, in this process, a stop before and
after each act that becomes durable. `CDS_TEST_KILLS=1000` makes a soak of it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.bulk.states import State
from cds_server import backlog
from cds_server.intake import StagedLanding
from cds_server.jobs import Jobs
from tests.peers.bulk_stories import SOURCE, MakeStory, Story, patient, population, weight
from tests.peers.hostile_bulk import HostileBulk
from tests.peers.server import CDS

Make = Callable[..., HostileBulk]


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    """What is killed while it syncs has a disk to sync."""
    return on_disk


ROUNDS = int(os.environ.get("CDS_TEST_KILLS", "12"))
PATIENTS = 60
GIVE_UP = 120
"""Seconds for a process to come to where it is to be killed, on a machine that is busy."""


# ---- processes -------------------------------------------------------------------------------------------------------


def test_processes_killed_wherever_something_is_under_way(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(PATIENTS, 5), polls=(202, 202, 202), slow=0.5)
    peer.jobs = _Slow()
    story = bulk_story(peer, files_in_parallel=1)
    places: list[tuple[str, Callable[[], bool]]] = [
        ("after the kick-off", lambda: state(story) not in ("", State.QUEUED)),
        ("mid poll", lambda: len(peer.requests("GET", "/status/")) >= 2),
        ("mid file", lambda: files(peer) >= 1),
        ("mid file, the same again", lambda: files(peer) >= 2),
        ("mid file, a later one", lambda: files(peer) >= 4),
        ("about to apply", lambda: state(story) == State.APPLYING),
        ("while it applies", lambda: digested(story) >= 40),
        ("while it applies, later", lambda: digested(story) >= 200),
        ("applied, before its last step", lambda: bool(peer.requests("DELETE", "/status/"))),
    ]
    for place, is_there in places:
        assert killed(story, is_there), f"it ended before it was {place}"
    assert state(story) == State.APPLYING
    story.server.apart("pull", SOURCE)
    assert kick_offs(peer) == 1
    assert [job.state for job in story.pulls().jobs.latest(SOURCE, 9)] == [State.DONE]
    assert content(story) == content(undisturbed(hostile, bulk_story, PATIENTS))
    assert story.cursor is not None


class _Slow(dict[str, Any]):
    """The server takes half a second to answer a removal."""

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        time.sleep(0.5)


def test_a_process_killed_before_it_knew_where_its_status_is(hostile: Make, bulk_story: MakeStory) -> None:
    """The one moment in which the server has a job that we cannot know of: it is asked for again."""
    peer = hostile(population(3))
    peer.jobs = _SlowToBegin()
    story = bulk_story(peer)
    assert killed(story, lambda: kick_offs(peer) == 1)
    assert state(story) == State.QUEUED
    story.server.apart("pull", SOURCE)
    assert kick_offs(peer) == 2
    assert content(story) == content(undisturbed(hostile, bulk_story, 3, 2))


class _SlowToBegin(dict[str, Any]):
    def __setitem__(self, name: str, job: Any) -> None:
        super().__setitem__(name, job)
        time.sleep(0.5)


def test_processes_killed_at_random(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(PATIENTS, 5), polls=(202,), slow=0.1)
    story, chance = bulk_story(peer, files_in_parallel=2), random.Random(5)
    whole = content(undisturbed(hostile, bulk_story, PATIENTS))
    for _ in range(max(2, ROUNDS // 4)):
        killed(story, after(chance.uniform(0.5, 6.0)))
    story.server.apart("pull", SOURCE)  # takes up what was left, or brings what changed since: nothing
    assert content(story) == whole


def after(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until


def undisturbed(hostile: Make, bulk_story: MakeStory, patients: int, weights: int = 5) -> Story:
    story = bulk_story(hostile(population(patients, weights)))
    told = story.pull()
    assert (told.raised, told.state) == (None, State.DONE)
    return story


def killed(story: Story, is_there: Callable[[], bool]) -> bool:
    """Run `cds pull`, and kill it once it is there; False where it came to its end before."""
    give_up = time.monotonic() + GIVE_UP
    errors_at = story.server.home / "pull.err"
    with errors_at.open("ab") as errors:
        process = subprocess.Popen(
            [*CDS, "pull", SOURCE],
            env=story.server.env(),
            cwd=story.server.home,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    try:
        while process.poll() is None and not is_there():
            assert time.monotonic() < give_up, errors_at.read_text()[-2000:]
            time.sleep(0.005)
        ended = process.poll()
        assert ended in (None, 0), errors_at.read_text()[-2000:]
        return ended is None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def state(story: Story) -> str:
    jobs = story.pulls().jobs.latest(SOURCE, 1)
    return jobs[-1].state if jobs else ""


def kick_offs(peer: HostileBulk) -> int:
    return len(peer.requests("GET", "/fhir/$export")) + len(peer.requests("GET", "/fhir/Group/"))


def files(peer: HostileBulk) -> int:
    return len(peer.requests("GET", "/file/"))


def digested(story: Story) -> int:
    return int(story.store.reads.query("SELECT COALESCE(SUM(part_to - part_from), 0) FROM digestion")[0][0])


def content(story: Story) -> dict[str, Any]:
    """What the store holds, less references, times, and what the server itself says otherwise in each export."""
    landed = [
        (each["page"], each["file"], each["type"], each["lines"], each["sha256"])
        for each in story.landings()
        if each["kind"] != "manifest"
    ]
    counts = {
        table: story.store.reads.query(f"SELECT COUNT(*) FROM {table}")[0][0]
        for table in ("resource", "patient_record", "record_identifier", "link", "validation", "flag")
    }
    assert len(landed) == len(
        {(each["job"], each["page"], each["file"]) for each in story.landings() if "file" in each}
    )
    assert story.store.reads.undigested() == []
    return {
        "landed": sorted(landed),
        "counts": counts,
        "closed": sorted(story.closed()),
        "resources": story.held(),
        "facts": story.facts(),
        "flags": [(kind, reason) for kind, reason, _ in story.flags()],
    }


# ---- every durable act -----------------------------------------------------------------------------------------------


class Killed(KeyboardInterrupt):
    """Goes through everything that handles errors, as a kill does."""


class Lives:
    """Ends the process, so to speak, before or after the n-th durable act; whoever still moves then ends, too."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for owner, name in ((Jobs, "move"), (Jobs, "queue"), (backlog, "_digest")):
            patched.setattr(owner, name, self._watched(getattr(owner, name)))
        commit = StagedLanding.commit

        async def committed(*arguments: Any, **named: Any) -> Any:
            self._live()
            done = await commit(*arguments, **named)
            self._live()
            return done

        patched.setattr(StagedLanding, "commit", committed)

    def _watched(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            self._live()
            done = act(*arguments, **named)
            self._live()
            return done

        return watched

    def _live(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


def test_a_stop_at_every_durable_act_of_a_group_with_a_joiner(
    hostile: Make, bulk_story: MakeStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three exports follow on each other: who is in the group, all about who joined, what changed since."""
    lives, turn, stopped = Lives(monkeypatch), 0, True
    whole = content(pulled(joined(hostile, bulk_story)))
    while stopped:
        story, stopped = joined(hostile, bulk_story), False
        lives.left = turn
        try:
            story.pull()
        except Killed:
            stopped = True
        lives.left = None
        assert content(pulled(story)) == whole
        turn += 3
    assert turn > 40


def pulled(story: Story) -> Story:
    """Pull, unless the run is at its end."""
    latest = story.pulls().jobs.latest(SOURCE, 1)
    if [job.mode for job in latest] != ["members", "joiners", "since"] or latest[-1].state != State.DONE:
        told = story.pull()
        assert told.raised is None
        latest = list(told.jobs)
    assert [(job.mode, job.state) for job in latest] == [(mode, State.DONE) for mode in ("members", "joiners", "since")]
    assert latest[-1].cursor == latest[-1].remembers["kicked_off_at"] == story.cursor
    assert ("Observation", "p2-w0") in story.held()
    return story


def joined(hostile: Make, bulk_story: MakeStory) -> Story:
    """A group that was pulled; then p2, whose data are old, joins it, and p0 gets a weight."""
    members = {"g": ["p0", "p1"]}
    peer = hostile(population(3, 1), groups=members)
    story = bulk_story(peer, level="group", group="g")
    assert story.pull().modes == ["full"]
    members["g"].append("p2")
    peer.resources["Observation"].append(weight("p0-new", "p0", 70, "2099-01-01T00:00:00Z"))
    peer.resources["Patient"][2] = patient("p2")
    return story
