"""One run of a source at a time, giving up and cleaning up at a hostile server: what becomes of a whole pull then."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from adapters.bulk.states import State
from cds_server import pulls
from cds_server.bulk_sources import KIND
from cds_server.jobs import holder, lease, release
from cds_server.vendor_door import HostRules
from models.errors import Conflict, PeerFailed, RecordUnavailable
from tests.peers.bulk_stories import SOURCE, MakeStory, population, stated
from tests.peers.hostile_bulk import HostileBulk
from tests.peers.test_bulk_hostile_asking import check_whole
from tests.peers.test_bulk_hostile_polling import After, change, kick_offs

Make = Callable[..., HostileBulk]


# ---- one at a time ---------------------------------------------------------------------------------------------------


def test_one_process_pulls_a_source_at_a_time(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population())
    story, other = bulk_story(peer), holder()
    assert lease(story.store, f"pull:{SOURCE}", other)
    told = story.pull()
    assert isinstance(told.raised, Conflict)
    with pytest.raises(Conflict):
        story.cancel()
    assert (told.jobs, peer.asked) == ((), [])
    release(story.store, f"pull:{SOURCE}", other)
    check_whole(story, story.pull())


def test_a_run_during_a_run_is_refused_and_disturbs_nothing(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(), polls=(202,) * 3)
    story, seen = bulk_story(peer), []
    told = story.pull(clock=After(2, lambda: seen.append(story.pull().raised)))
    assert [type(each) for each in seen] == [Conflict]
    check_whole(story, told)
    assert kick_offs(peer) == 1


def test_the_lease_is_kept_though_the_database_was_away_for_a_moment(
    hostile: Make, bulk_story: MakeStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export may take weeks: one beat that fails must not be the last."""
    beats: list[str] = []

    def beat(store: Any, name: str, who: str) -> bool:
        beats.append(name)
        if len(beats) == 2:
            raise RecordUnavailable("the record is away")
        return lease(store, name, who)

    monkeypatch.setattr(pulls, "lease", beat)
    monkeypatch.setattr(pulls, "LEASE", 0.04)
    story = bulk_story(hostile(population(), polls=(202,)))
    check_whole(story, story.pull(clock=After(1, lambda: time.sleep(0.5))))
    assert len(beats) > 3


# ---- giving up, cleaning up ------------------------------------------------------------------------------------------


def test_cancelling_ends_the_job_here_and_there(hostile: Make, bulk_story: MakeStory) -> None:
    """2.0.0, Bulk Data Delete Request."""
    peer = hostile(population(), polls=(503,) * 5)
    story = bulk_story(peer)
    assert isinstance(story.pull().raised, PeerFailed)
    [job] = story.cancel()
    assert (job.state, job.cause) == (State.CANCELLED, "by an operator")
    assert (peer.jobs, len(peer.requests("DELETE", "/status/"))) == ({}, 1)
    assert [each["eventType"] for each in story.lineage()] == ["START", "ABORT"]
    assert story.cancel() == []
    change(peer, polls=())
    check_whole(story, story.pull())
    assert kick_offs(peer) == 2


def test_cancelling_needs_no_server(hostile: Make, bulk_story: MakeStory) -> None:
    """One that is gone for good would otherwise hold its job, and so the source, for ever."""
    peer = hostile(population(), polls=(503,) * 5)
    story = bulk_story(peer)
    assert isinstance(story.pull().raised, PeerFailed)
    peer.stop()
    [job] = story.cancel()
    assert job.state == State.CANCELLED
    assert story.pulls().jobs.unfinished(SOURCE) == []
    assert [each["eventType"] for each in story.lineage()] == ["START", "ABORT"]


@pytest.mark.parametrize("status", [202, 404, 405, 500])
def test_whatever_the_server_says_to_the_removal_the_pull_is_done(
    hostile: Make, bulk_story: MakeStory, status: int
) -> None:
    """HAPI answers 404 to its own removed jobs; some servers have no DELETE. It comes after everything is applied."""
    peer = hostile(population(), delete_status=status)
    story = bulk_story(peer)
    told = story.pull()
    assert (told.raised, told.state, story.held()) == (None, State.DONE, stated(peer))
    assert len(peer.requests("DELETE", "/status/")) == 1
    assert peer.asked[-1].method == "DELETE"
    assert story.cursor is not None


def test_what_is_durable_is_applied_though_its_server_is_no_longer_ours_to_ask(
    hostile: Make, bulk_story: MakeStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source was pointed at another server while a job waited to be applied."""
    peer, moved = hostile(population()), hostile(population())
    story = bulk_story(peer)
    with monkeypatch.context() as patched:
        patched.setattr(pulls.Pulls, "_digest", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            story.pull()
    story.source = dataclasses.replace(story.source, url=moved.base, rules=HostRules(moved.base))
    told = story.pull()
    assert (told.raised, told.state, story.held()) == (None, State.DONE, stated(peer))
    assert story.cursor is None  # of the new server nothing is known yet
    assert kick_offs(moved) == 0
    assert [job.kind for job in told.jobs] == [KIND]


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt
