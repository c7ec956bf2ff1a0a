"""Tokens and the kick-off, as servers in the field have them: what becomes of a whole pull then."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from adapters.backend_services import TokenRefused
from adapters.bulk.states import State
from models.errors import Misconfigured
from tests.peers.bulk_stories import MakeStory, Story, Told, patient, population, stated
from tests.peers.hostile_behaviours import EPOCH_MILLISECONDS, FIVE_HOURS, GARBAGE, in_seconds
from tests.peers.hostile_bulk import HostileBulk

Make = Callable[..., HostileBulk]


def check_whole(story: Story, told: Told) -> None:
    """All that the server has is known, once, and the next pull begins where this one asked."""
    assert (told.raised, told.state, told.cause) == (None, State.DONE, None)
    assert story.held() == stated(story.peer)
    assert story.flags() == []
    assert story.store.reads.undigested() == []
    assert story.cursor == told.jobs[-1].remembers["kicked_off_at"]
    assert story.peer.jobs == {}


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_a_polite_server_and_nothing_doubled_by_a_second_pull(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(), polls=(202, 202), progress="half of it")
    story = bulk_story(peer)
    check_whole(story, story.pull())
    known, landings = story.facts(), len(story.landings())
    assert len(known) == 9 + 3  # weights, conditions, and the sex of each patient
    assert landings == 1 + 3
    peer.resources["Patient"].append(patient("p3", "2099-01-01T00:00:00Z"))
    told = story.pull()
    assert told.modes == ["since"]
    check_whole(story, told)
    assert set(known) < set(story.facts())
    assert story.closed() == []


def test_tokens_of_two_seconds_are_renewed_before_they_end(hostile: Make, bulk_story: MakeStory) -> None:
    """sekmet-fhir can be told 20 s; waits between polls are longer than such a token lives."""
    peer = hostile(population(), token_seconds=2, polls=(202,) * 6, retry_after="5")
    story = bulk_story(peer, longest_wait=300)
    check_whole(story, story.pull())
    assert len(peer.assertions) >= 7
    ids = [_claims(each)["jti"] for each in peer.assertions]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("uses", [1, 2, 3, 5])
def test_a_token_that_ends_in_the_middle_is_renewed_once_for_each_401(
    hostile: Make, bulk_story: MakeStory, uses: int
) -> None:
    """RFC 6750, 3.1: invalid_token (401). By uses, it ends at the kick-off, between polls, between files."""
    peer = hostile(population(), token_uses=uses, polls=(202, 202))
    story = bulk_story(peer, files_in_parallel=1)
    check_whole(story, story.pull())
    answered = 1 + 3 + 3 + 1  # kick-off, polls, files, removal
    assert len(peer.assertions) == -(-answered // uses)
    asked = [each for each in peer.asked if each.token and each.path != "/fhir/metadata"]
    assert len(asked) == answered + len(peer.assertions) - 1


def test_lanes_that_share_a_token_that_ended(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(), token_uses=4, tiny=True)
    story = bulk_story(peer, files_in_parallel=4)
    check_whole(story, story.pull())
    assert len(peer.assertions) < len(peer.requests("GET", "/file/"))


def test_a_bare_400_is_a_token_that_ended_where_the_profile_says_so(hostile: Make, bulk_story: MakeStory) -> None:
    """smart-fetch 1.0.3: Epic answers a token that ran out by a 400 without a body."""
    does: dict[str, Any] = {"token_uses": 2, "bare_400": True, "polls": (202, 202)}
    story = bulk_story(hostile(population(), **does), files_in_parallel=1, quirks={"reauthorize_on_400": True})
    check_whole(story, story.pull())
    other = bulk_story(hostile(population(), **does), files_in_parallel=1)
    told = other.pull()
    assert (told.state, told.cause) == (State.FAILED, "the export failed on the server: its status answered 400")
    assert (other.held(), other.cursor) == ({}, None)


@pytest.mark.parametrize("granted", ["system/Patient.rs", "", "system/*.rs?category=x system/Patient.read"])
def test_fewer_scopes_than_asked_for_are_no_kick_off(hostile: Make, bulk_story: MakeStory, granted: str) -> None:
    """RFC 6749, 5.1: a server may grant less, and must say so. An export would silently lack what was not granted."""
    peer = hostile(population(), granted=granted)
    story = bulk_story(peer, types=["Patient", "Observation"])
    told = story.pull()
    assert told.state == State.FAILED
    assert "fewer scopes than are needed: " in str(told.cause)
    assert "system/Observation.rs" in str(told.cause)
    assert peer.requests("GET", "/fhir/$export") == []
    assert [each["eventType"] for each in story.lineage()] == ["START", "FAIL"]
    peer.does = type(peer.does)()
    told = story.pull()
    assert (told.state, told.modes) == (State.DONE, ["full"])
    assert {kind for kind, _ in story.held()} == {"Patient", "Observation"}


def test_a_registration_that_is_refused_leaves_the_job_for_later(hostile: Make, bulk_story: MakeStory) -> None:
    """RFC 6749, 5.2: invalid_client. The code is told, the server's words are not."""
    peer = hostile(population())
    story = bulk_story(peer, token_url=f"{peer.origin}/fhir/metadata-not-here")
    told = story.pull()
    assert isinstance(told.raised, TokenRefused)
    assert told.state == State.QUEUED
    assert peer.requests("GET", "/fhir/$export") == []


def _claims(assertion: str) -> dict[str, Any]:
    middle = assertion.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    assert isinstance(found, dict)
    return found


# ---- kick-off --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "waited"),
    [("120", 120.0), (EPOCH_MILLISECONDS, 300.0), (FIVE_HOURS, 300.0), (GARBAGE, 60.0), (None, 60.0), ("-5", 60.0)],
)
def test_a_429_at_the_kick_off_waits_for_its_turn(
    hostile: Make, bulk_story: MakeStory, value: str | None, waited: float
) -> None:
    """One export at a time (Epic: for each client and group). More 429 than `failures`: it is none."""
    peer = hostile(population(), busy=9, retry_after=value)
    story = bulk_story(peer, longest_wait=300)
    told = story.pull()
    check_whole(story, told)
    assert told.waits == [waited] * 9
    assert [each["errorCode"] for each in story.events("kickoff")] == [429] * 9 + [None]


def test_a_server_that_is_always_busy_is_not_waited_for_beyond_the_days(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population(), busy=1000)
    told = bulk_story(peer, days=1, longest_wait=3600).pull()
    assert (told.raised, told.state) == (None, State.FAILED)
    assert told.cause == "the server was busy with other exports for 1 days"
    assert peer.jobs == {}


def test_a_429_at_the_kick_off_with_a_date(hostile: Make, bulk_story: MakeStory) -> None:
    """RFC 9110, 10.2.3. Held against the clock that waits."""
    story = bulk_story(hostile(population(), busy=1, retry_after=in_seconds(90)), longest_wait=300)
    told = story.pull()
    check_whole(story, told)
    assert 60 < told.waits[0] <= 91


def test_a_relative_content_location(hostile: Make, bulk_story: MakeStory) -> None:
    """STU3 demands an absolute one; relative ones are seen."""
    story = bulk_story(hostile(population(), relative_location=True))
    check_whole(story, story.pull())


@pytest.mark.parametrize("at", ["http://127.0.0.2:1/status/1", "http://[::1", "//[", "https://evil.example.org/s", ""])
def test_a_status_at_another_origin_or_at_no_url_is_never_asked(hostile: Make, bulk_story: MakeStory, at: str) -> None:
    """Whoever can answer for the server must not learn the token by naming a place."""
    peer = hostile(population(), location=at)
    story = bulk_story(peer)
    told = story.pull()
    assert (told.raised, told.state) == (None, State.FAILED)
    assert "status" in str(told.cause)
    assert at == "" or at not in str(told.cause)
    assert story.landings() == []
    peer.jobs.clear()
    peer.does = type(peer.does)()
    check_whole(story, story.pull())


def test_a_status_at_another_server_of_the_vendor(hostile: Make, bulk_story: MakeStory) -> None:
    """A listed host is not enough: it also must be one that may see the token."""
    other = hostile()
    peer = hostile(population(), location=f"{other.origin}/status/1")
    story = bulk_story(peer, other)
    assert story.pull().state == State.FAILED
    assert other.asked == []


@pytest.mark.parametrize("quirks", [{}, {"kick_off": "get"}])
def test_the_shape_of_the_ballot(hostile: Make, bulk_story: MakeStory, quirks: dict[str, str]) -> None:
    """STU4 ballot: POST only, `outcome` for `error`. By its CapabilityStatement, and by a 405 on GET."""
    peer = hostile(population(), stu4=True)
    story = bulk_story(peer, types=["Patient", "Observation", "Condition"], quirks=quirks)
    check_whole(story, story.pull())
    assert len(peer.requests("GET", "/fhir/$export")) == len(quirks)
    [posted] = peer.requests("POST", "/fhir/$export")
    parameters = json.loads(posted.body)["parameter"]
    assert [each["valueString"] for each in parameters] == ["Patient", "Observation", "Condition"]


def test_a_refused_parameter_is_named_and_nothing_is_left_out_unasked(hostile: Make, bulk_story: MakeStory) -> None:
    """STU3, Response - Error: a server that does not support a parameter SHOULD refuse it."""
    asked = ["Observation?category=laboratory"]
    peer = hostile(population(), refused="_typeFilter")
    story = bulk_story(peer, type_filters=asked)
    told = story.pull()
    assert told.state == State.FAILED
    assert told.cause == "the server refuses _typeFilter (it answered 400); it can be left out by drop_refused"
    assert "laboratory" not in json.dumps(story.export_log())
    other = bulk_story(peer, type_filters=asked, drop_refused=["_typeFilter"])
    check_whole(other, other.pull())


@pytest.mark.parametrize("never", ["_since", "patient"])
def test_what_would_lose_data_or_patients_cannot_be_left_out(hostile: Make, bulk_story: MakeStory, never: str) -> None:
    with pytest.raises(Misconfigured, match="never left out"):
        bulk_story(hostile(), drop_refused=[never])


def test_a_refused_since_is_no_export_of_something_else(hostile: Make, bulk_story: MakeStory) -> None:
    peer = hostile(population())
    story = bulk_story(peer)
    check_whole(story, story.pull())
    before = story.cursor
    peer.does = type(peer.does)(refused="_since")
    told = story.pull()
    assert (told.state, story.cursor) == (State.FAILED, before)
    assert "_since" in str(told.cause)


def test_a_server_that_ignores_since_doubles_nothing(hostile: Make, bulk_story: MakeStory) -> None:
    """Everything comes again; what comes twice changes nothing."""
    story = bulk_story(hostile(population(), ignores_since=True))
    check_whole(story, story.pull())
    known = story.facts()
    told = story.pull()
    assert (told.modes, told.result["lines"]) == (["since"], 12)
    check_whole(story, told)
    assert (story.facts(), story.closed()) == (known, [])
    assert story.store.reads.one("SELECT COUNT(*) FROM resource") == (12,)
