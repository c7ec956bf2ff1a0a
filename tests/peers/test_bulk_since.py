"""What a second pull asks for and what it may change: since, deletions, versions; and where each fact came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.adapters.test_bulk_lineage import CORE, validator
from tests.peers.bulk_stories import MakeStory, Story, condition, patient, population, stated, weight
from tests.peers.hostile_behaviours import Behaviours
from tests.peers.hostile_bulk import HostileBulk
from tests.peers.hostile_wire import Asked, _parameters

Make = Callable[..., HostileBulk]
NOW = "2099-01-01T00:00:00Z"
"""Changed since any cursor of a test."""


def exports(story: Story) -> list[Asked]:
    return [each for each in story.peer.asked if each.path.endswith("$export")]


def parameters(asked: Asked) -> dict[str, list[str]]:
    return asked.query if asked.method == "GET" else _parameters(asked.body)


def since(story: Story) -> str | None:
    """Of the last kick-off."""
    return parameters(exports(story)[-1]).get("_since", [None])[0]


def advanced(story: Story) -> bool:
    """Whether the last job moved the cursor: two kick-offs of one second have the same time."""
    jobs = story.pulls().jobs
    at = jobs.cursor(story.source.scope)
    return at is not None and at.ref == jobs.latest("north", 1)[-1].ref


def ids(story: Story) -> set[str]:
    return {local_id for _, local_id in story.held()}


# ---- since -----------------------------------------------------------------------------------------------------------


def test_the_second_pull_asks_since_the_cursor_less_the_overlap_and_brings_what_changed(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """STU3, Output Manifest: transactions that were open at the server's transactionTime come with the next export."""
    story = bulk_story(hostile(population()), quirks={"since_overlap": 120})
    assert story.pull().state == "done"
    cursor = story.cursor
    assert cursor is not None
    story.peer.resources["Observation"].append(weight("new", "p0", 70, NOW))
    told = story.pull()
    assert (told.state, told.modes, told.result["lines"]) == ("done", ["since"], 1)
    asked, reaches = datetime.fromisoformat(str(since(story))), datetime.fromisoformat(cursor) - timedelta(minutes=2)
    assert timedelta(0) <= reaches - asked < timedelta(milliseconds=1)
    assert story.held() == stated(story.peer)
    assert story.cursor is not None
    assert story.cursor >= cursor


def test_since_is_never_later_than_the_kick_off_whatever_the_server_calls_its_time(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """HAPI before April 2025 stated the end of the job (hapi-fhir#6841)."""
    story = bulk_story(hostile(population(), transaction_time="2098-01-01T00:00:00Z"))
    assert story.pull().state == "done"
    story.peer.resources["Condition"].append(condition("late", "p0", "2097-01-01T00:00:00Z"))
    assert story.pull().state == "done"
    assert "late" in ids(story)


def test_what_a_server_sends_again_whatever_since_says_changes_nothing(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population(), ignores_since=True))
    assert story.pull().state == "done"
    facts = story.facts()
    told = story.pull()
    assert (told.state, told.result["lines"]) == ("done", 12)
    assert (story.held(), story.facts(), story.closed()) == (stated(story.peer), facts, [])


def test_the_cursor_stays_after_faults_and_the_same_span_is_asked_for_again(
    hostile: Make, bulk_story: MakeStory
) -> None:
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    cursor = story.cursor
    story.peer.resources["Observation"].append(weight("new", "p0", 70, NOW))
    story.peer.does = Behaviours(wrong_count=1)
    assert story.pull().state == "done with faults"
    assert "new" in ids(story)
    assert story.cursor == cursor
    asked = since(story)
    story.peer.does = Behaviours()
    assert story.pull().state == "done"
    assert since(story) == asked
    assert advanced(story)
    assert story.held() == stated(story.peer)


def test_another_set_of_types_is_another_cursor(hostile: Make, bulk_story: MakeStory) -> None:
    """A type that is new has a history before the cursor of the others."""
    story = bulk_story(hostile(population()), types=["Patient"])
    assert story.pull().state == "done"
    asked = replace(story.source.request, types=("Patient", "Condition"))
    story.source = replace(story.source, request=asked)
    assert story.pull().modes == ["full"]
    assert {kind for kind, _ in story.held()} == {"Patient", "Condition"}
    assert story.pull().modes == ["since"]


def test_full_asks_for_everything_as_if_there_were_no_cursor(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    told = story.pull(full=True)
    assert (told.state, told.modes, told.result["lines"], since(story)) == ("done", ["full"], 12, None)
    assert story.closed() == []


# ---- deletions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [False, True])
def test_what_a_deleted_file_names_is_closed_and_its_past_stays(
    hostile: Make, bulk_story: MakeStory, pages: bool
) -> None:
    """Bulk Data Access 2.0.0, deleted: Bundles of DELETE; other methods say nothing there."""
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    before = story.server.ask("patient", "north/p0")["facts"]
    moment = story.pulls().jobs.latest("north", 1)[-1].at
    gone = [each for each in story.peer.resources["Observation"] if each["id"] == "p0-w0"]
    story.peer.resources["Observation"].remove(gone[0])
    story.peer.resources["Condition"].append(condition("new", "p1", NOW))
    named = ("Observation/p0-w0", "PUT Observation/p0-w1", "Observation/never-known")
    story.peer.does = Behaviours(deleted=named, pages=pages)
    told = story.pull()
    assert (told.state, told.result["faults"]) == ("done", [])
    assert story.held() == stated(story.peer)
    assert story.closed() == [("Observation", "voided")]
    assert len(story.server.ask("patient", "north/p0")["facts"]) == len(before) - 1
    assert story.server.ask("patient", "north/p0", "--as-of", moment)["facts"] == before


def test_a_deletion_that_is_told_twice_changes_nothing_more(hostile: Make, bulk_story: MakeStory) -> None:
    """The overlap brings it again."""
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    story.peer.resources["Condition"].pop()
    story.peer.does = Behaviours(deleted=("Condition/p2-c",))
    assert [story.pull().state, story.pull().state] == ["done", "done"]
    assert story.closed() == [("Condition", "voided")]


def test_what_was_deleted_and_made_anew_is_known_again(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    [*others, last] = story.peer.resources["Condition"]
    story.peer.resources["Condition"] = others
    story.peer.does = Behaviours(deleted=(f"Condition/{last['id']}",))
    assert story.pull().state == "done"
    assert story.held() == stated(story.peer)
    story.peer.resources["Condition"] = [*others, condition(str(last["id"]), "p2", NOW)]
    story.peer.does = Behaviours()
    assert story.pull().state == "done"
    assert story.held() == stated(story.peer)


def test_a_deletion_comes_before_what_the_same_manifest_says_anew(hostile: Make, bulk_story: MakeStory) -> None:
    """Within one span: deleted, then made again under its id. A manifest has no order: `deleted` is applied first."""
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    story.peer.resources["Condition"][-1] = condition("p2-c", "p2", NOW)
    story.peer.does = Behaviours(deleted=("Condition/p2-c",))
    assert story.pull().state == "done"
    assert story.held() == stated(story.peer)


# ---- versions --------------------------------------------------------------------------------------------------------


def test_an_older_version_that_comes_later_does_not_replace_the_newer_one(hostile: Make, bulk_story: MakeStory) -> None:
    """A replica that lags behind, behind the same URL."""
    story = bulk_story(hostile({"Patient": [patient("p0", "2026-03-01T00:00:00Z")]}))
    assert story.pull().state == "done"
    newer = story.held()
    story.peer.resources["Patient"] = [patient("p0", "2026-02-01T00:00:00Z", gender="male")]
    assert story.pull(full=True).state == "done"
    assert story.held() == newer


@pytest.mark.parametrize("tagged", [True, False])
def test_a_part_of_a_resource_never_replaces_the_whole_one(hostile: Make, bulk_story: MakeStory, tagged: bool) -> None:
    """Bulk Data Access 2.0.0, _elements: a server SHOULD tag what it returns SUBSETTED; so it may not."""
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    whole, facts = story.held(), story.facts()
    story.source = replace(story.source, request=replace(story.source.request, elements=("id",)))
    story.peer.does = Behaviours(subsetted=tagged, only_elements=True)
    told = story.pull()
    assert (told.modes, told.state, told.result["lines"]) == (["full"], "done", 12)
    assert (story.held(), story.facts(), story.closed()) == (whole, facts, [])


@pytest.mark.parametrize("tagged", [True, False])
def test_a_whole_resource_replaces_the_part_that_was_known(hostile: Make, bulk_story: MakeStory, tagged: bool) -> None:
    story = bulk_story(hostile(population(), subsetted=tagged, only_elements=True), elements=["id"])
    assert story.pull().state == "done"
    assert all("gender" not in each for each in story.held().values())
    story.source = replace(story.source, request=replace(story.source.request, elements=()))
    story.peer.does = Behaviours()
    assert story.pull().state == "done"
    assert story.held() == stated(story.peer)


# ---- where it came from ----------------------------------------------------------------------------------------------


def test_every_fact_leads_back_to_the_file_and_line_of_the_export_that_stated_it(
    hostile: Make, bulk_story: MakeStory
) -> None:
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    story.peer.resources["Observation"].append(weight("new", "p1", 70, NOW))
    assert story.pull().state == "done"
    facts = story.server.ask("patient", "north/p1")["facts"]
    places = {each["source"]["resource"]: each["file"] for each in facts}
    assert places == {
        "Patient/p1": "Patient file 0.ndjson, line 2",
        "Observation/p1-w0": "Observation file 1.ndjson, line 3",
        "Observation/p1-w1": "Observation file 1.ndjson, line 4",
        "Condition/p1-c": "Condition file 2.ndjson, line 2",
        "Observation/new": "Observation file 0.ndjson, line 1",
    }
    first, second = (job.ref for job in story.pulls().jobs.latest("north", 2))
    of_landing = {each["source"]["resource"]: each["source"]["landing"] for each in facts}
    landed = story.store.reads.landing_by_ref(of_landing["Observation/new"])
    earlier = story.store.reads.landing_by_ref(of_landing["Observation/p1-w0"])
    assert landed is not None
    assert earlier is not None
    assert json.loads(story.store.manifest(landed))["job"] == second
    assert json.loads(story.store.manifest(earlier))["job"] == first


@pytest.mark.parametrize(
    ("does", "ends", "fault"),
    [({}, "COMPLETE", False), ({"wrong_count": 1}, "COMPLETE", True), ({"polls": (500,)}, "FAIL", True)],
    ids=["done", "with faults", "failed"],
)
def test_lineage_tells_of_each_job_once_that_it_began_and_how_it_ended(
    hostile: Make, bulk_story: MakeStory, does: dict[str, Any], ends: str, fault: bool
) -> None:
    """OpenLineage 2-0-2, each event valid against the published schema."""
    story = bulk_story(hostile(population(), **does))
    [job] = story.pull().jobs
    events = story.lineage()
    assert [each["eventType"] for each in events] == ["START", ends]
    assert {each["run"]["runId"].replace("-", "") for each in events} == {job.ref}
    assert ("errorMessage" in events[-1]["run"]["facets"]) == fault
    for each in events:
        validator(CORE).validate(each)
    if ends == "COMPLETE":
        rows = {each["name"]: each["outputFacets"]["outputStatistics"]["rowCount"] for each in events[-1]["outputs"]}
        assert rows == {"north/Patient": 3, "north/Observation": 6, "north/Condition": 3}


def test_lineage_of_a_job_that_is_taken_up_begins_once(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population(), polls=(503,) * 5))
    assert story.pull().raised is not None
    story.peer.does = Behaviours()
    assert story.pull().state == "done"
    assert [each["eventType"] for each in story.lineage()] == ["START", "COMPLETE"]
