"""Manifests that lie, are unfinished or lead astray, against the whole flow: what is known then, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.bulk_stories import MakeStory, population, stated
from tests.peers.hostile_behaviours import Behaviours
from tests.peers.hostile_bulk import HostileBulk

Make = Callable[..., HostileBulk]


def kicked_off(story: Any) -> str:
    """The server's own time of our last kick-off."""
    return str(story.pulls().jobs.latest("north", 1)[-1].remembers["kicked_off_at"])


def recovers(story: Any) -> bool:
    """Whether a pull from the same server, once it behaves, is whole."""
    story.peer.does = Behaviours()
    told = story.pull()
    return bool((told.state, story.held()) == ("done", stated(story.peer)))


# ---- counts and types ------------------------------------------------------------------------------------------------


def test_a_wrong_count_is_a_fault_of_its_file_and_the_cursor_stays(hostile: Make, bulk_story: MakeStory) -> None:
    """bulk-data-server stated 8 lines for a file of none (seen by running it): nobody can tell what is missing."""
    story = bulk_story(hostile(population(), wrong_count=5))
    told = story.pull()
    assert told.state == "done with faults"
    assert story.held() == stated(story.peer)
    assert told.result["faults"] == [
        "0.ndjson: 3 lines where the manifest says 8",
        "1.ndjson: 6 lines where the manifest says 11",
        "2.ndjson: 3 lines where the manifest says 8",
    ]
    assert [(kind, reason) for kind, reason, _ in story.flags()] == [("flag", "bulk-fault")] * 3
    assert story.cursor is None
    assert recovers(story)
    assert "_since" not in story.peer.requests("GET", "/fhir/$export")[-1].query


def test_each_file_with_a_fault_has_a_flag_of_its_own(hostile: Make, bulk_story: MakeStory) -> None:
    """Two files with the same fault are two things to look at (`cds work list`)."""
    people = population(4, weights=1)
    story = bulk_story(hostile(people, wrong_count=1))
    assert story.pull().state == "done with faults"
    shown = [story.server.ask("work", "show", str(each["id"])) for each in story.server.ask("work", "list")]
    assert sorted(each["file"] for each in shown) == [
        "Condition file 2.ndjson",
        "Observation file 1.ndjson",
        "Patient file 0.ndjson",
    ]


def test_lines_of_another_type_than_the_manifest_states_wait_in_quarantine(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """bulk-data-server called a file of Patients one of Conditions; pathling#2528: such lines passed silently."""
    story = bulk_story(hostile(population(), stated_types={"Condition": "Observation"}))
    told = story.pull()
    assert told.state == "done with faults"
    assert {kind for kind, _ in story.held()} == {"Patient", "Observation"}
    assert told.result["faults"] == [
        "2.ndjson: 3 lines of another type than Observation",
        "3 lines could not be read: they are in quarantine",
    ]
    waiting = [each for each in story.server.ask("work", "list") if each["kind"] == "quarantine"]
    assert [story.server.ask("work", "show", str(each["id"]))["file"] for each in waiting] == [
        f"Observation file 2.ndjson, line {line}" for line in (1, 2, 3)
    ]
    assert recovers(story)


# ---- untidy, and no harm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "does",
    [
        {"without_error": True},
        {"organized_by": ""},
        {"relative_urls": True},
        {"requires_token": None, "open": True},
        {"requires_token": False},
        {"stu4": True},
    ],
    ids=lambda does: next(iter(does)),
)
def test_manifests_that_are_only_untidy_are_taken(hostile: Make, bulk_story: MakeStory, does: dict[str, Any]) -> None:
    """No `error` (LinuxForHealth/FHIR#2715), an empty `outputOrganizedBy` (bulk-data-server), links without an origin
    (LinuxForHealth/FHIR#2673), no `requiresAccessToken`, and the ballot of STU4."""
    story = bulk_story(hostile(population(), **does))
    told = story.pull()
    assert (told.state, told.result["faults"], story.held()) == ("done", [], stated(story.peer))
    assert story.cursor is not None


def test_files_that_require_no_token_are_asked_for_without_it(hostile: Make, bulk_story: MakeStory) -> None:
    """Bulk Data Access 2.0.0, requiresAccessToken: a client SHALL NOT show it where it says false."""
    story = bulk_story(hostile(population(), requires_token=False))
    assert story.pull().state == "done"
    assert [each.token for each in story.peer.requests("GET", "/file/")] == [None] * 3


def test_files_that_require_a_token_get_it_at_home(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population(), requires_token=True))
    assert story.pull().state == "done"
    assert all(each.token for each in story.peer.requests("GET", "/file/"))


def test_output_in_blocks_of_a_patient_is_read_by_line_and_its_headers_say_nothing(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """STU3, organizeOutputBy: no `type` for a file, Parameters head each block."""
    story = bulk_story(hostile(population(), organized_by="Patient"), organize_by="Patient")
    told = story.pull()
    assert (told.state, told.result["faults"], story.held()) == ("done", [], stated(story.peer))
    assert story.peer.requests("GET", "/fhir/$export")[0].query["organizeOutputBy"] == ["Patient"]


# ---- times -----------------------------------------------------------------------------------------------------------


def test_the_time_of_the_jobs_end_does_not_move_the_cursor_past_the_kick_off(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """HAPI before April 2025 (hapi-fhir#6841): what changed while the job ran would never have been asked for."""
    story = bulk_story(hostile(population(), transaction_time="2099-01-01T00:00:00Z"))
    assert story.pull().state == "done"
    assert story.cursor == kicked_off(story)


@pytest.mark.parametrize("time", ["2026-02-01T12:00:00+02:00", "2026-02-01T10:00:00", "2026-02-01 10:00:00.000Z"])
def test_a_transaction_time_before_the_kick_off_is_the_cursor(hostile: Make, bulk_story: MakeStory, time: str) -> None:
    """Bulk Data Access 2.0.0, transactionTime. Without a zone (cumulus-etl#332) it is taken as UTC."""
    story = bulk_story(hostile(population(), transaction_time=time))
    assert story.pull().state == "done"
    assert story.cursor == "2026-02-01T10:00:00.000000Z"


@pytest.mark.parametrize("time", ["yesterday", "", "2026-13-45T00:00:00Z", "99999"])
def test_a_transaction_time_that_is_none_leaves_the_kick_off(hostile: Make, bulk_story: MakeStory, time: str) -> None:
    """cumulus-etl#332."""
    story = bulk_story(hostile(population(), transaction_time=time))
    assert story.pull().state == "done"
    assert story.cursor == kicked_off(story)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_transaction_time_at_either_end_of_the_calendar_stops_no_later_pull(
    hostile: Make, bulk_story: MakeStory, time: str
) -> None:
    """What some platforms write where a time was never set."""
    story = bulk_story(hostile(population(), transaction_time=time))
    assert story.pull().state == "done"
    assert story.cursor == kicked_off(story)
    assert story.pull().state == "done"
    assert story.held() == stated(story.peer)


# ---- refused, and nothing is taken -----------------------------------------------------------------------------------

HEAD = b'{"transactionTime":"2026-11-21T10:00:00Z","requiresAccessToken":true'


@pytest.mark.parametrize(
    "does",
    [
        {"duplicate_urls": True},
        {"more_output": ({"type": "Patient", "url": "ftp://127.0.0.1/1"},)},
        {"more_output": ({"type": "Patient", "url": "file://localhost/etc/passwd"},)},
        {"manifest": HEAD + b',"error":[]}'},
        {"manifest": HEAD + b',"output":{}}'},
        {"manifest": HEAD + b',"output":['},
        {"manifest": b"Alma Weiss"},
        {"manifest": b"[]"},
        {"manifest": b""},
    ],
    ids=["twice", "ftp", "file", "no output", "no list", "half", "text", "list", "empty"],
)
def test_manifests_that_would_lose_data_or_lead_astray_fail_the_job_and_nothing_is_taken(
    hostile: Make, bulk_story: MakeStory, does: dict[str, Any]
) -> None:
    """The same link twice is another file lost; only http(s) is spoken; without `output` nothing is known at all."""
    story = bulk_story(hostile(population(), **does))
    told = story.pull()
    assert told.state == "failed"
    assert "the manifest cannot be used" in str(told.cause)
    assert (story.held(), story.landings(), story.cursor) == ({}, [], None)
    assert story.peer.requests("GET", "/file/") == []
    assert len(story.peer.requests("DELETE", "/status/")) == 1
    assert recovers(story)


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.5/1", "http://169.254.169.254/latest/meta-data", "http://localhost:1/1", "https://e.example/1"],
)
def test_a_link_into_the_network_is_not_asked_and_is_a_fault_while_the_other_files_are_applied(
    hostile: Make, bulk_story: MakeStory, url: str
) -> None:
    """Hosts are named by the operator: a vendor's manifest leads nobody to the machine next door."""
    story = bulk_story(hostile(population(), more_output=({"type": "Patient", "url": url},)))
    told = story.pull()
    assert told.state == "done with faults"
    assert story.held() == stated(story.peer)
    assert told.result["faults"] == ["file 4 of page 1: the URL is not on a host that the configuration names"]
    assert story.cursor is None
    assert [reason for _, reason, _ in story.flags()] == ["bulk-fault"]
    assert url not in json.dumps([told.result, story.export_log()])
    assert recovers(story)


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pages", "partial"])
def test_every_page_is_landed_and_applied_before_the_job_is_done(
    hostile: Make, bulk_story: MakeStory, way: str
) -> None:
    """STU3, link of relation `next`; with allowPartialManifests while the job goes on."""
    story = bulk_story(hostile(population(), **{way: True}), partial_manifests=way == "partial")
    told = story.pull()
    assert (told.state, told.result["files"], story.held()) == ("done", 3, stated(story.peer))
    kinds = [each["kind"] for each in story.landings()]
    assert sorted(kinds) == ["manifest"] * 3 + ["output"] * 3
    assert [each["page"] for each in story.landings() if each["kind"] == "manifest"] == [0, 1, 2]
    assert story.peer.jobs == {}


def test_the_earliest_time_of_all_pages_is_the_cursor(hostile: Make, bulk_story: MakeStory) -> None:
    """A later page may state a later time (the hostile server's own clock at each page)."""
    story = bulk_story(hostile(population(), pages=True, time_is_end=True))
    assert story.pull().state == "done"
    assert story.cursor is not None
    assert story.cursor <= instant_of_first_page(story)


def instant_of_first_page(story: Any) -> str:
    first = next(each for each in story.events("status_page_complete"))
    return str(first["transactionTime"])


def test_a_page_that_comes_to_nothing_leaves_the_cursor_and_the_next_pull_is_whole(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """A file on the last of three pages has a false count: what is sound is applied, the whole is asked for again."""
    story = bulk_story(hostile(population(), pages=True, stated_types={"Condition": "Basic"}))
    told = story.pull()
    assert (told.state, story.cursor) == ("done with faults", None)
    assert recovers(story)
