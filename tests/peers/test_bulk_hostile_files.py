"""Files that lie elsewhere, expire, come late, in pieces, packed or damaged, against the whole flow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers import hostile_wire
from tests.peers.bulk_stories import MakeStory, Story, patient, population, stated
from tests.peers.hostile_behaviours import Behaviours, damaged, outcome, untidy
from tests.peers.hostile_bulk import HostileBulk

Make = Callable[..., HostileBulk]


def is_whole(story: Story, told: Any) -> bool:
    return bool((told.raised, told.state, story.held()) == (None, "done", stated(story.peer)))


def recovers(story: Story) -> bool:
    """Whether a pull from the same server, once it behaves, is whole."""
    story.peer.does = Behaviours()
    return is_whole(story, story.pull())


# ---- where the token goes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requires", [True, False, None])
@pytest.mark.parametrize("way", ["files_at", "redirect_files"])
def test_a_storage_at_another_origin_never_sees_the_token(
    hostile: Make, bulk_story: MakeStory, way: str, requires: bool | None
) -> None:
    """Oracle answers 307 to a storage that refuses two credentials (fhir.cerner.com#899, LinuxForHealth/FHIR#2874);
    smart-fetch 1.0.3 shows it the token all the same (seen by running it)."""
    storage = hostile(storage=True)
    story = bulk_story(hostile(population(), requires_token=requires, **{way: storage}), storage)
    assert is_whole(story, story.pull())
    assert len(storage.asked) == 3
    assert not any("authorization" in each.headers for each in storage.asked)


def test_an_origin_that_the_operator_names_gets_the_token_where_the_manifest_asks_for_it(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """Bulk Data Access 2.0.0, requiresAccessToken: true."""
    files = hostile()
    story = bulk_story(hostile(population(), files_at=files), files, token_origins=[files.origin])
    assert is_whole(story, story.pull())
    assert all(each.token for each in files.requests("GET", "/file/"))


def test_files_sent_on_to_a_host_that_nobody_named_are_faults_and_it_is_not_asked(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """A redirect is held against the same rules as a link."""
    stranger = hostile(storage=True)
    story = bulk_story(hostile(population(), redirect_files=stranger))
    told = story.pull()
    assert told.raised is None
    assert told.state == "done with faults"
    assert told.result["faults"][0].endswith("the URL is not on a host that the configuration names")
    assert stranger.asked == []
    assert story.cursor is None
    assert recovers(story)


# ---- links and servers that wear out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [False, True])
def test_links_that_expire_lead_to_a_fresh_manifest_and_no_second_export(
    hostile: Make, bulk_story: MakeStory, pages: bool
) -> None:
    """STU3: a server may give new links with each answer of the status; those of the one before are no longer good."""
    story = bulk_story(hostile(population(), links_last=1, pages=pages))
    assert is_whole(story, story.pull())
    assert len(story.peer.requests("GET", "/status/")) >= 3
    assert len(story.peer.requests("GET", "/fhir/$export")) == 1
    landed = [each["file"] for each in story.landings() if each["kind"] == "output"]
    assert len(landed) == 3


def test_a_file_that_is_gone_for_good_is_a_fault_and_the_others_are_applied(
    hostile: Make, bulk_story: MakeStory
) -> None:
    story = bulk_story(hostile(population()))
    gone = {"type": "Basic", "url": f"{story.peer.origin}/file/none/7.ndjson"}
    story.peer.does = Behaviours(more_output=(gone,))
    told = story.pull()
    assert told.state == "done with faults"
    assert story.held() == stated(story.peer)
    assert told.result["faults"] == ["file 4 of page 1: the server answered 404"]
    assert story.cursor is None
    assert recovers(story)


def test_a_server_that_is_busy_is_asked_for_fewer_files_at_a_time(
    hostile: Make, bulk_story: MakeStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bulk-data-client#18: more than 20,000 files, then 429."""
    under_way, seen, lock = [0], [], threading.Lock()
    send = hostile_wire._Handler._bytes

    def slowly(handler: Any, file: Any) -> None:
        with lock:
            under_way[0] += 1
            seen.append(under_way[0])
        time.sleep(0.02)
        with lock:
            under_way[0] -= 1
        send(handler, file)

    monkeypatch.setattr(hostile_wire._Handler, "_bytes", slowly)
    story = bulk_story(hostile(population(8), tiny=True, busy_files=3))
    assert is_whole(story, story.pull())
    assert len(seen) == 32
    assert set(seen[16:]) == {1}  # before, lanes may be at the file that they had begun
    seen.clear()
    story.peer.does = Behaviours(tiny=True)
    assert story.pull(full=True).state == "done"
    assert max(seen) > 1


def test_three_hundred_files_of_one_line_each_are_landed_once(hostile: Make, bulk_story: MakeStory) -> None:
    """Oracle made more than 20,000 (bulk-data-client#18)."""
    story = bulk_story(hostile(population(75), tiny=True))
    told = story.pull()
    assert is_whole(story, told)
    assert (told.result["files"], told.result["lines"]) == (300, 300)
    assert len(story.peer.requests("GET", "/file/")) == 300


# ---- bytes that do not come whole ------------------------------------------------------------------------------------


def test_a_file_that_ends_in_the_middle_is_asked_for_again_from_its_beginning(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """The connection closes before Content-Length; bulk-data-server ignores Range (seen by running it)."""
    story = bulk_story(hostile(population(), cut_off=2))
    assert is_whole(story, story.pull())
    assert len(story.peer.requests("GET", "/file/")) == 5
    assert len(story.landings()) == 4
    assert not any("range" in each.headers for each in story.peer.asked)


def test_packed_files_are_unpacked(hostile: Make, bulk_story: MakeStory) -> None:
    """Bulk Data Access 2.0.0, Output Files: a client SHALL accept gzip."""
    story = bulk_story(hostile(population(), gzip=True))
    assert is_whole(story, story.pull())
    assert all("gzip" in each.headers["accept-encoding"] for each in story.peer.requests("GET", "/file/"))


@pytest.mark.parametrize(
    "does", [{"bomb": True}, {"damaged_gzip": True}, {"cut_off": 1000}], ids=lambda does: next(iter(does))
)
def test_files_that_never_come_whole_are_faults_and_come_with_the_next_pull(
    hostile: Make, bulk_story: MakeStory, does: dict[str, Any]
) -> None:
    """64 MiB of zeros in 64 KiB; a checksum that is wrong; a connection that always breaks."""
    story = bulk_story(hostile(population(), **does))
    told = story.pull()
    assert (told.raised, told.state) == (None, "done with faults")
    assert len(told.result["faults"]) == len(story.peer.requests("GET", "/file/")) / 5  # each was tried five times
    assert (story.held(), story.cursor) == ({}, None)
    assert [each["kind"] for each in story.landings()] == ["manifest"]
    assert list((story.store.data_dir / "staging").iterdir()) == []
    story.peer.does = Behaviours()
    assert is_whole(story, story.pull())
    assert len(story.peer.requests("GET", "/fhir/$export")) == 2


def test_a_long_file_is_streamed_and_every_line_is_known(hostile: Make, bulk_story: MakeStory) -> None:
    """Chunked, without a count."""
    story = bulk_story(hostile(population(), huge=600_000))
    told = story.pull()
    assert told.state == "done"
    held = story.held()
    assert len(held) == told.result["lines"]
    assert {number for _, number in held if number.startswith("huge-")} == {f"huge-{each}" for each in range(3000)}
    assert stated(story.peer).items() <= held.items()


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_untidy_lines_are_taken_and_noted_and_their_places_are_those_of_the_file(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """A byte order mark, CRLF, blank lines, a last line without its end."""
    people = population()
    story = bulk_story(hostile(people, bodies={"Observation": untidy(people["Observation"])}))
    assert is_whole(story, story.pull())
    [notes] = [each["notes"] for each in story.landings() if each.get("notes")]
    assert notes == ["a byte order mark at its beginning", "5 blank lines, skipped"]
    facts = story.server.ask("patient", "north/p1")["facts"]
    assert sorted(each["file"] for each in facts if each["source"]["resource"].startswith("Observation/")) == [
        "Observation file 1.ndjson, line 5",
        "Observation file 1.ndjson, line 7",
    ]


def test_damaged_lines_wait_in_quarantine_with_file_and_line_and_the_sound_ones_are_applied(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """Half a line, a list, a name twice, no id, another type, no UTF-8 at all."""
    people = population()
    story = bulk_story(hostile(people, bodies={"Patient": damaged(people["Patient"])}))
    told = story.pull()
    assert told.state == "done with faults"
    assert story.held() == stated(story.peer)
    assert told.result["faults"] == [
        "0.ndjson: 9 lines where the manifest says 3",
        "0.ndjson: 1 line of another type than Patient",
        "0.ndjson: 3 lines not one JSON object",
        "6 lines could not be read: they are in quarantine",
    ]
    assert story.cursor is None
    waiting = [each["id"] for each in story.server.ask("work", "list", "--kind", "quarantine")]
    assert [story.server.ask("work", "show", str(each))["file"] for each in waiting] == [
        f"Patient file 0.ndjson, line {line}" for line in (2, 3, 4, 5, 6, 7)
    ]
    assert recovers(story)


def test_a_file_of_no_lines_is_held_against_its_count(hostile: Make, bulk_story: MakeStory) -> None:
    """bulk-data-server lost a Patient so (seen by running it)."""
    story = bulk_story(hostile(population(), bodies={"Patient": b""}))
    told = story.pull()
    assert told.state == "done with faults"
    assert told.result["faults"] == ["0.ndjson: 0 lines where the manifest says 3"]
    assert {kind for kind, _ in story.held()} == {"Observation", "Condition"}
    assert recovers(story)


def test_a_file_that_no_honest_server_writes_is_not_taken_and_the_others_are_applied(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """More than a thousand blank lines, or a line over 64 MiB: asking again would bring the same."""
    people = population()
    story = bulk_story(hostile(people, bodies={"Patient": b"\n" * 1001}))
    told = story.pull()
    assert (told.raised, told.state, told.waits) == (None, "done with faults", [])
    assert told.result["faults"] == ["file 1 of page 1: more than 1000 blank lines"]
    assert {kind for kind, _ in story.held()} == {"Observation", "Condition"}
    assert story.cursor is None
    assert list((story.store.data_dir / "staging").iterdir()) == []
    assert recovers(story)


def test_links_of_a_job_that_the_server_forgot_lead_to_one_new_export_and_nothing_doubles(
    hostile: Make, bulk_story: MakeStory
) -> None:
    """HAPI removes its jobs by itself; a second one may come to other files under the same names."""
    story = bulk_story(hostile(population(), links_last=2, forgets=True))
    told = story.pull()
    assert told.state == "failed"
    assert len(story.peer.requests("GET", "/fhir/$export")) == 2
    assert (story.cursor, told.cause) == (None, "the server no longer knows the job, for the second time")
    assert recovers(story)
    assert story.closed() == []


def test_the_same_resource_twice_in_one_export_is_known_once(hostile: Make, bulk_story: MakeStory) -> None:
    """A client cannot tell it from the same line sent twice: nothing doubles."""
    people = population()
    people["Patient"].append(people["Patient"][0])
    story = bulk_story(hostile(people))
    assert is_whole(story, story.pull())
    assert story.closed() == []


def test_the_older_of_two_versions_in_one_file_never_stays(hostile: Make, bulk_story: MakeStory) -> None:
    """The newer one comes first."""
    newer, older = patient("p9", "2026-03-01T00:00:00Z"), patient("p9", "2026-02-01T00:00:00Z", active=False)
    story = bulk_story(hostile({"Patient": [newer, older]}))
    assert story.pull().state == "done"
    assert story.held() == {("Patient", "p9"): newer}


# ---- what the server reports -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", ["error", "fatal"])
def test_errors_of_an_error_file_are_faults_counted_by_severity_without_their_words(
    hostile: Make, bulk_story: MakeStory, severity: str
) -> None:
    """Bulk Data Access 2.0.0, error: some resources could not be exported; the export still says 200."""
    said = (outcome(severity, "exception", "Alma Weiss"), outcome("information", "informational", "Alma Weiss"))
    story = bulk_story(hostile(population(), outcomes=said))
    told = story.pull()
    assert told.state == "done with faults"
    assert story.held() == stated(story.peer)
    assert told.result["faults"] == [f"3.ndjson: the server reports errors of the export: 1 of severity {severity}"]
    assert story.cursor is None
    assert recovers(story)


def test_information_and_warnings_of_an_error_file_are_no_faults(hostile: Make, bulk_story: MakeStory) -> None:
    said = tuple(outcome(severity, "informational", "Alma Weiss") for severity in ("information", "warning"))
    story = bulk_story(hostile(population(), outcomes=said))
    assert is_whole(story, story.pull())
    assert story.cursor is not None
    assert story.flags() == []
