"""Exports of groups, whose members come and go, and full exports, which close what a server no longer has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.peers.bulk_stories import MakeStory, population, stated, weight
from tests.peers.hostile_behaviours import Behaviours
from tests.peers.hostile_bulk import HostileBulk
from tests.peers.test_bulk_since import advanced, exports, ids, parameters

Make = Callable[..., HostileBulk]
GROUP = {"level": "group", "group": "g"}


# ---- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tagged", [True, False])
def test_who_joined_a_group_comes_with_all_the_years_before(hostile: Make, bulk_story: MakeStory, tagged: bool) -> None:
    """Bulk Data Access 2.0.0, Group Export: the pattern of four exports. LinuxForHealth/FHIR#993, dpc-app#634 and
    cumulus-etl#296 ask for it."""
    groups = {"g": ["p0", "p1"]}
    story = bulk_story(hostile(population(), groups=groups), **GROUP)
    assert (told := story.pull()).state == "done"
    assert (told.modes, ids(story) & {"p2", "p2-c"}) == (["full"], set())
    groups["g"].append("p2")
    story.peer.does = Behaviours(subsetted=False, only_elements=True) if not tagged else Behaviours()
    told = story.pull()
    assert (told.state, told.modes) == ("done", ["members", "joiners", "since"])
    assert story.held() == stated(story.peer)
    members, joiners, changed = exports(story)[1:]
    assert parameters(members) == {"_type": ["Patient"], "_elements": ["id"]}
    assert (joiners.method, parameters(joiners)) == ("POST", {"patient": ["Patient/p2"]})
    assert list(parameters(changed)) == ["_since"]
    assert not any("p2" in each.path + json.dumps(each.query) for each in story.peer.asked)
    assert "p2" not in json.dumps(story.export_log() + story.lineage())


def test_where_nobody_joined_nothing_is_asked_for_joiners(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population(), groups={"g": ["p0"]}), **GROUP)
    assert [story.pull().state, story.pull().state] == ["done", "done"]
    assert len(exports(story)) == 3


def test_who_left_a_group_is_not_deleted_and_is_a_joiner_when_they_return(hostile: Make, bulk_story: MakeStory) -> None:
    """A removed member is not a deleted resource, nor does a full reconciliation make it one."""
    groups = {"g": ["p0", "p1", "p2"]}
    story = bulk_story(hostile(population(), groups=groups), **GROUP)
    assert story.pull().state == "done"
    groups["g"] = ["p0", "p1"]
    assert story.pull().state == "done"
    assert story.pull(full=True).state == "done"
    assert (story.held(), story.closed()) == (stated(story.peer), [])
    story.peer.resources["Observation"].append(weight("while-away", "p2", 50))
    groups["g"] = ["p0", "p1", "p2"]
    assert story.pull().state == "done"
    assert story.held() == stated(story.peer)


def test_joiners_are_joiners_until_their_history_came_without_fault(hostile: Make, bulk_story: MakeStory) -> None:
    groups = {"g": ["p0"]}
    story = bulk_story(hostile(population(), groups=groups), **GROUP)
    assert story.pull().state == "done"
    cursor = story.cursor
    groups["g"].append("p1")
    story.peer.does = Behaviours(wrong_count=1)
    assert story.pull().state == "done with faults"
    assert story.cursor == cursor
    story.peer.does = Behaviours()
    assert story.pull().state == "done"
    assert [parameters(each).get("patient") for each in exports(story)[-3:]] == [None, ["Patient/p1"], None]
    assert advanced(story)


def test_where_patient_does_not_work_a_joiner_means_a_full_export(hostile: Make, bulk_story: MakeStory) -> None:
    """Oracle: `patient` is not supported (docs.oracle.com, group export)."""
    groups = {"g": ["p0", "p1"]}
    quirks = {"patient_parameter": False, "elements": False}
    story = bulk_story(hostile(population(), groups=groups), quirks=quirks, **GROUP)
    assert story.pull().state == "done"
    groups["g"].append("p2")
    assert story.pull().state == "done"
    assert story.held() == stated(story.peer)
    assert [sorted(parameters(each)) for each in exports(story)[1:]] == [["_type"], [], ["_since"]]


@pytest.mark.parametrize(
    "keys", [{"quirks": {"sends_joiner_history": True}}, {"types": ["Condition"]}], ids=["by itself", "no patients"]
)
def test_groups_of_which_joiners_are_not_looked_for(hostile: Make, bulk_story: MakeStory, keys: dict[str, Any]) -> None:
    """A server MAY send a joiner's older data by itself; without Patients nobody can be seen to join."""
    story = bulk_story(hostile(population(), groups={"g": ["p0", "p1"]}), **GROUP, **keys)
    assert [story.pull().modes, story.pull().modes] == [["full"], ["since"]]


# ---- full reconciliation ---------------------------------------------------------------------------------------------


def test_a_full_export_closes_what_the_server_no_longer_has(hostile: Make, bulk_story: MakeStory) -> None:
    """Bulk Data Access 2.0.0, deleted: the file MAY be missing; cumulus-etl#343, medplum#10522."""
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    del story.peer.resources["Observation"][0]
    assert story.pull().state == "done"
    assert len(story.held()) == 12
    assert story.pull(full=True).state == "done"
    assert story.held() == stated(story.peer)
    assert story.closed() == [("Observation", "not in the full export")]


def test_a_reconciliation_runs_by_itself_when_it_is_due(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population()), reconcile="30d")
    assert [story.pull().modes, story.pull().modes] == [["full"], ["since"]]
    story.source = replace(story.source, reconcile=timedelta(0))
    assert story.pull().modes == ["full"]


def test_a_server_that_lost_much_of_a_type_closes_nothing_of_it_and_a_person_is_asked(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """More than 20, and more than `reconcile_most` percent: that is a fault of the server. Other types go on."""
    story = bulk_story(hostile(population(15)))
    assert story.pull().state == "done"
    held = story.held()
    story.peer.resources["Observation"] = story.peer.resources["Observation"][:5]
    story.peer.resources["Condition"].pop()
    assert story.pull(full=True).state == "done"
    assert story.held() == {key: each for key, each in held.items() if key != ("Condition", "p14-c")}
    [(kind, reason, detail)] = story.flags()
    assert (kind, reason) == ("flag", "bulk-fault")
    assert str(detail).endswith("the full export lacks 25 of type Observation: too many to be closed unseen")


def test_a_server_that_lost_everything_closes_nothing_and_a_person_is_asked(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """A full export without a single file, however few there were."""
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    held = story.held()
    story.peer.resources = {}
    assert story.pull(full=True).state == "done"
    assert (story.held(), story.closed()) == (held, [])
    assert [reason for _, reason, _ in story.flags()] == ["bulk-fault"] * 3


@pytest.mark.parametrize(
    "does", [{"wrong_count": 1}, {"stated_types": {"Condition": "Basic"}}], ids=["a false count", "a false type"]
)
def test_a_full_export_with_faults_closes_nothing(hostile: Make, bulk_story: MakeStory, does: dict[str, Any]) -> None:
    """What is missing may be in what did not come."""
    story = bulk_story(hostile(population()))
    assert story.pull().state == "done"
    story.peer.resources["Observation"].pop()
    story.peer.does = Behaviours(**does)
    assert story.pull(full=True).state == "done with faults"
    assert story.closed() == []


def test_types_that_are_asked_for_in_part_are_not_reconciled(hostile: Make, bulk_story: MakeStory) -> None:
    story = bulk_story(hostile(population()), type_filters=["Observation?category=laboratory"])
    assert story.pull().state == "done"
    story.peer.resources["Observation"].pop()
    story.peer.resources["Condition"].pop()
    assert story.pull(full=True).state == "done"
    assert story.closed() == [("Condition", "not in the full export")]
