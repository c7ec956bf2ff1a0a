"""Polling a hostile server: what becomes of a whole pull then."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from adapters.bulk.states import State
from adapters.sources.fhir_bulk import Export
from models.errors import NotAllowed, PeerFailed
from tests.peers.bulk_stories import SOURCE, Clock, MakeStory, population, stated
from tests.peers.hostile_behaviours import EPOCH_MILLISECONDS, FIVE_HOURS, GARBAGE, in_seconds
from tests.peers.hostile_bulk import HostileBulk
from tests.peers.test_bulk_hostile_asking import check_whole

Make = Callable[..., HostileBulk]
DAY = 24 * 60 * 60


class After(Clock):
    """Does something at its n-th wait."""

    def __init__(self, waits: int, do: Callable[[], object]) -> None:
        super().__init__()
        self._left, self._do = waits, do

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self._left -= 1
        if self._left == 0:
            await asyncio.to_thread(self._do)


def kick_offs(peer: HostileBulk) -> int:
    return len(peer.requests("GET", "/fhir/$export"))


# ---- polling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "waits"),
    [
        ("7", [7.0, 7.0]),
        ("0", [1.0, 1.0]),
        (EPOCH_MILLISECONDS, [300.0, 300.0]),
        (FIVE_HOURS, [300.0, 300.0]),
        (GARBAGE, [1.0, 2.0]),
        (None, [1.0, 2.0]),
    ],
)
def test_retry_after_is_clamped(hostile: Make, bulk_story: MakeStory, value: str | None, waits: list[float]) -> None:
    """Milliseconds since 1970 (bulk-data-server), five hours (Oracle), words: nobody sleeps on the raw value."""
    story = bulk_story(hostile(population(), polls=(202, 202), retry_after=value), longest_wait=300)
    told = story.pull()
    check_whole(story, told)
    assert told.waits == waits


def test_retry_after_as_a_date(hostile: Make, bulk_story: MakeStory) -> None:
    """cumulus-etl#374: one in the past is a second, not a wait of less than none."""
    story = bulk_story(hostile(population(), polls=(202,), retry_after=in_seconds(50)), longest_wait=300)
    told = story.pull()
    check_whole(story, told)
    assert 20 < told.waits[0] <= 51
    past = bulk_story(hostile(population(), polls=(202,), retry_after=in_seconds(-500)), longest_wait=300)
    assert past.pull().waits == [1.0]


def test_what_is_transient_is_asked_again_after_minutes(hostile: Make, bulk_story: MakeStory) -> None:
    """2.0.0, Response - Error Status: a transient error does not end the job. A success in between ends the count."""
    peer = hostile(population(), polls=(503, 503, 503, 503, 202, 503, 503, 503, 503))
    story = bulk_story(peer, longest_wait=300, failure_wait=60)
    told = story.pull()
    check_whole(story, told)
    assert told.waits == [60.0, 120.0, 240.0, 480.0, 1.0, 60.0, 120.0, 240.0, 480.0]
    assert kick_offs(peer) == 1


def test_a_server_that_does_not_recover_keeps_its_job_for_the_next_run(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(), polls=(503,) * 7)
    story = bulk_story(peer)
    told = story.pull()
    assert isinstance(told.raised, PeerFailed)
    assert told.raised.exit_code == 3
    assert told.raised.what.startswith("it answered 503: again and again")
    assert told.state == State.POLLING
    assert peer.requests("DELETE", "/status/") == []
    told = story.pull()
    check_whole(story, told)
    assert kick_offs(peer) == 1
    assert len(story.pulls().jobs.latest(SOURCE, 9)) == 1


def test_an_error_for_good_fails_with_its_code_and_the_next_run_begins_anew(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """STU3, Response - Error Status. The status URL stays on record, its words do not."""
    peer = hostile(population(), polls=(202, 500))
    story = bulk_story(peer)
    told = story.pull()
    assert (told.raised, told.state) == (None, State.FAILED)
    assert told.cause == "the export failed on the server: its status answered 500 (exception)"
    assert told.jobs[0].remembers["status_url"].startswith(f"{peer.origin}/status/")
    assert [each["code"] for each in story.events("status_error")] == [500]
    assert (story.held(), story.cursor) == ({}, None)
    assert peer.jobs == {}  # it was told to forget it
    assert [each["eventType"] for each in story.lineage()] == ["START", "FAIL"]
    peer.does = type(peer.does)()
    check_whole(story, story.pull())


@pytest.mark.parametrize("status", [404, 410])
def test_a_job_that_the_server_lost_is_asked_for_once_more(hostile: Make, bulk_story: MakeStory, status: int) -> None:
    peer = hostile(population(), polls=(202, status))
    story = bulk_story(peer)
    told = story.pull(clock=After(1, lambda: change(peer, polls=(202,))))
    check_whole_but_lost(story, told, peer)
    other = bulk_story(hostile(population(), polls=(status,)))
    told = other.pull()
    assert (told.state, told.cause) == (State.FAILED, "the server no longer knows the job, for the second time")
    assert kick_offs(other.peer) == 2
    change(other.peer, polls=())
    check_whole_but_lost(other, other.pull(), other.peer, before=2)


def check_whole_but_lost(story: Any, told: Any, peer: HostileBulk, before: int = 0) -> None:
    """The record is whole; what the server lost nobody could remove."""
    assert (told.raised, told.state) == (None, State.DONE)
    assert story.held() == stated(peer)
    assert story.cursor == told.jobs[-1].remembers["kicked_off_at"]
    assert kick_offs(peer) == before + (1 if before else 2)


def change(peer: HostileBulk, **behaviours: Any) -> None:
    """For jobs that are not yet begun."""
    peer.does = dataclasses.replace(peer.does, **behaviours)


def test_a_429_while_polling_is_no_failure(hostile: Make, bulk_story: MakeStory) -> None:
    """2.0.0: a client that polls too often may be answered 429, and later be let go. More of them than `failures`."""
    story = bulk_story(hostile(population(), polls=(429,) * 9, retry_after="40"), longest_wait=300)
    told = story.pull()
    check_whole(story, told)
    assert told.waits == [40.0] * 9


@pytest.mark.parametrize("status", [202, 429])
def test_an_export_is_not_waited_for_beyond_its_days(hostile: Make, bulk_story: MakeStory, status: int) -> None:
    peer = hostile(population(), polls=(status,) * 2000, retry_after=FIVE_HOURS)
    story = bulk_story(peer, days=2, longest_wait=3600)
    told = story.pull()
    assert (told.raised, told.state) == (None, State.FAILED)
    assert told.cause == "the export took longer than 2 days"
    assert 2 * DAY <= sum(told.waits) <= 2 * DAY + 3600
    assert peer.jobs == {}


@pytest.mark.parametrize("listed", [True, False])
def test_a_status_is_not_followed_to_another_origin(hostile: Make, bulk_story: MakeStory, listed: bool) -> None:
    """Whoever answers for a status names the files; even a listed host is no place for it."""
    other = hostile()
    peer = hostile(population(), redirect_status=other)
    story = bulk_story(peer, *[other] * listed)
    told = story.pull()
    assert isinstance(told.raised, NotAllowed)
    assert told.state == State.POLLING
    assert other.asked == []
    change(peer, redirect_status=None)
    check_whole(story, story.pull())
    assert kick_offs(peer) == 1


def test_a_server_that_goes_away_is_found_again_by_the_next_run(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(), polls=(202,) * 5)
    story = bulk_story(peer)
    told = story.pull(clock=After(3, peer.stop))
    assert isinstance(told.raised, PeerFailed)
    assert told.raised.what.startswith("no connection: again and again")
    assert told.state == State.POLLING
    again = story.pull()  # still away
    assert isinstance(again.raised, PeerFailed)
    assert [job.id for job in again.jobs] == [job.id for job in told.jobs]
    peer.start()
    check_whole(story, story.pull())
    assert kick_offs(peer) == 1


def test_a_kick_off_that_needs_two_runs_is_one_run_of_lineage(
    hostile: Make, bulk_story: MakeStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenLineage 2-0-2: a run's START is one event. A job that began and was cancelled is told as aborted."""
    for end in ("COMPLETE", "ABORT"):
        story = bulk_story(hostile(population()))
        with monkeypatch.context() as patched:
            patched.setattr(Export, "_kick_off", _away)
            told = story.pull()
        assert isinstance(told.raised, PeerFailed)
        assert told.state == State.QUEUED
        if end == "COMPLETE":
            check_whole(story, story.pull())
        else:
            story.cancel()
        assert [each["eventType"] for each in story.lineage()] == ["START", end]


async def _away(_: Export) -> None:
    raise PeerFailed("no connection")
