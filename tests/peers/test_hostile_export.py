"""One export against the hostile server: each thing that servers do, and what becomes of the export then."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from adapters.bulk.request import ExportRequest, Level
from adapters.bulk.states import State
from models.errors import NotAllowed, PeerFailed
from tests.peers.hostile_behaviours import EPOCH_MILLISECONDS, FIVE_HOURS, GARBAGE, damaged, in_seconds, outcome, untidy
from tests.peers.hostile_bulk import HostileBulk
from tests.peers.played_export import SECRET, Killed, Shelf, Told, export

Make = Callable[..., HostileBulk]
PATIENTS = [{"resourceType": "Patient", "id": each} for each in "123"]
CONDITIONS = [{"resourceType": "Condition", "id": each, "subject": {"reference": "Patient/1"}} for each in "ab"]
EVERY = {"Patient": PATIENTS, "Condition": CONDITIONS}
IDS = {"1", "2", "3", "a", "b"}


def is_whole(told: Told) -> bool:
    return (told.raised, told.state, set(told.shelf.ids), told.missing) == (None, State.APPLYING, IDS, [])


# ---- kick-off --------------------------------------------------------------------------------------------------------


def test_a_polite_server(hostile: Make) -> None:
    peer = hostile(EVERY, polls=(202, 202), progress="half")
    told = export(peer)
    assert is_whole(told)
    assert told.problems == []
    assert told.shelf.states[0] == State.KICKED_OFF
    assert len(peer.requests("DELETE", "/status/")) == 1
    assert peer.jobs == {}
    assert all(each.token for each in peer.asked if each.path not in ("/token", "/fhir/metadata"))


def test_a_busy_server_is_waited_for(hostile: Make) -> None:
    peer = hostile(EVERY, busy=50, retry_after="120")
    told = export(peer)
    assert is_whole(told)
    assert told.waits[:50] == [120.0] * 50


@pytest.mark.parametrize("does", [{"relative_location": True}, {"stu4": True}, {"ignores_since": True}, {"open": True}])
def test_shapes_of_a_kick_off(hostile: Make, does: dict[str, Any]) -> None:
    assert is_whole(export(hostile(EVERY, **does)))


@pytest.mark.parametrize("location", ["", "https://elsewhere.example.org/status/1"])
def test_a_status_that_is_nowhere_or_elsewhere(hostile: Make, location: str) -> None:
    told = export(hostile(EVERY, location=location))
    assert told.state == State.FAILED
    assert told.shelf.cause
    assert told.shelf.landed == {}


def test_a_parameter_is_left_out_only_where_the_operator_allowed(hostile: Make) -> None:
    request = ExportRequest(Level.SYSTEM, types=("Patient", "Condition"), type_filters=("Condition?code=1",))
    told = export(hostile(EVERY, refused="_typeFilter"), request=request)
    assert told.state == State.FAILED
    assert "_typeFilter" in str(told.shelf.cause)
    peer = hostile(EVERY, refused="_typeFilter")
    assert is_whole(export(peer, request=request, may_drop=frozenset({"_typeFilter"})))


# ---- polling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [EPOCH_MILLISECONDS, FIVE_HOURS, GARBAGE, "-5", in_seconds(90), None],
    ids=("milliseconds", "five hours", "garbage", "before now", "a date", "none"),  # the same in each test process
)
def test_no_wait_is_longer_or_shorter_than_is_sensible(hostile: Make, value: str | None) -> None:
    told = export(hostile(EVERY, polls=(202, 429, 202), retry_after=value))
    assert is_whole(told)
    assert len(told.waits) == 3
    assert all(1 <= wait <= 300 for wait in told.waits)


def test_what_passes_is_asked_again(hostile: Make) -> None:
    peer = hostile(EVERY, polls=(503, 503, 202, 503, 429, 401), token_seconds=10**6)
    assert is_whole(export(peer))
    assert len(peer.assertions) == 2


def test_a_server_that_does_not_recover_is_left_for_later_and_taken_up_again(hostile: Make) -> None:
    peer = hostile(EVERY, polls=(503,) * 5)
    told = export(peer)
    assert isinstance(told.raised, PeerFailed)
    assert told.state == State.POLLING
    assert is_whole(export(peer, shelf=told.shelf))
    assert len(peer.requests("GET", "/fhir/$export")) == 1


def test_an_export_that_failed_on_the_server(hostile: Make) -> None:
    told = export(hostile(EVERY, polls=(202, 500)))
    assert told.state == State.FAILED
    assert "500 (exception)" in str(told.shelf.cause)


@pytest.mark.parametrize("status", [404, 410])
def test_a_job_that_the_server_forgot_is_asked_for_once_more(hostile: Make, status: int) -> None:
    peer = hostile(EVERY, polls=(status,))
    told = export(peer)
    assert told.state == State.FAILED  # each job of this server is forgotten
    assert len(peer.requests("GET", "/fhir/$export")) == 2


def test_a_status_is_not_followed_to_another_origin(hostile: Make) -> None:
    other = hostile()
    told = export(hostile(EVERY, redirect_status=other), other)
    assert isinstance(told.raised, NotAllowed)
    assert other.asked == []


@pytest.mark.parametrize(
    "does", [{"token_uses": 1}, {"token_uses": 2, "polls": (202, 202)}, {"token_seconds": 2, "polls": (202,) * 3}]
)
def test_tokens_that_end_in_the_middle(hostile: Make, does: dict[str, Any]) -> None:
    peer = hostile(EVERY, **does)
    assert is_whole(export(peer))
    assert len(peer.assertions) > 1


# ---- manifests that lie ----------------------------------------------------------------------------------------------


def test_counts_and_types_are_held_against_the_files(hostile: Make) -> None:
    told = export(hostile({"Patient": PATIENTS}, wrong_count=5, stated_types={"Patient": "Condition"}))
    assert told.shelf.ids == ["1", "2", "3"]
    assert told.problems == ["3 lines where the manifest says 8", "3 lines of another type than Condition"]


@pytest.mark.parametrize(
    "does",
    [
        {"without_error": True},
        {"organized_by": ""},
        {"relative_urls": True},
        {"transaction_time": "2026-11-21T10:00:00"},
        {"time_is_end": True},
        {"pages": True},
    ],
)
def test_manifests_that_are_only_untidy(hostile: Make, does: dict[str, Any]) -> None:
    told = export(hostile(EVERY, **does))
    assert is_whole(told)
    assert told.problems == []


def test_pages_that_come_while_the_job_goes_on(hostile: Make) -> None:
    peer = hostile(EVERY, partial=True)
    assert is_whole(export(peer, request=ExportRequest(Level.SYSTEM, partial_manifests=True)))
    assert len(peer.requests("GET", "/status/")) == 2


@pytest.mark.parametrize(
    "does",
    [
        {"duplicate_urls": True},
        {"more_output": ({"type": "Patient", "url": "ftp://127.0.0.1/1"},)},
        {"more_output": ({"type": "Patient", "url": "file://localhost/etc/passwd"},)},
        {"manifest": b'{"transactionTime":"2026-11-21T10:00:00Z","requiresAccessToken":true,"error":[]}'},
        {"manifest": b"Alma Weiss"},
    ],
)
def test_manifests_that_would_lose_data_or_lead_astray(hostile: Make, does: dict[str, Any]) -> None:
    told = export(hostile(EVERY, **does))
    assert told.state == State.FAILED
    assert "the manifest cannot be used" in str(told.shelf.cause)
    assert told.shelf.landed == {}


@pytest.mark.parametrize("url", ["http://10.0.0.5/1", "https://evil.example.org/1", "http://localhost:1/1"])
def test_a_file_inside_the_network_or_of_a_stranger_is_missing_and_the_others_are_there(
    hostile: Make, url: str
) -> None:
    told = export(hostile(EVERY, more_output=({"type": "Patient", "url": url},)))
    assert told.state == State.APPLYING
    assert set(told.shelf.ids) == IDS
    assert told.missing == ["file 3 of page 1: the URL is not on a host that the configuration names"]


# ---- where the token goes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requires", [True, False, None])
@pytest.mark.parametrize("way", ["files_at", "redirect_files"])
def test_the_token_never_reaches_another_origin(hostile: Make, way: str, requires: bool | None) -> None:
    storage = hostile(storage=True)
    peer = hostile(EVERY, requires_token=requires, **{way: storage})
    assert is_whole(export(peer, storage))
    assert [each.token for each in storage.asked] == [None, None]
    assert "Bearer" not in repr([each.headers for each in storage.asked])


def test_the_token_goes_to_an_origin_that_the_operator_named(hostile: Make) -> None:
    files = hostile()
    assert is_whole(export(hostile(EVERY, files_at=files), files, trusted=[files]))
    assert all(each.token for each in files.asked)


def test_the_token_stays_at_home_where_no_file_requires_it(hostile: Make) -> None:
    peer = hostile(EVERY, requires_token=False)
    assert is_whole(export(peer))
    assert [each.token for each in peer.requests("GET", "/file/")] == [None, None]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_links_that_expire_lead_to_a_fresh_manifest(hostile: Make) -> None:
    peer = hostile({**EVERY, "Basic": [{"resourceType": "Basic", "id": "x"}]}, links_last=1)
    told = export(peer)
    assert told.state == State.APPLYING
    assert told.shelf.ids == sorted(IDS | {"x"})
    assert len(peer.requests("GET", "/status/")) > 1


def test_links_that_expired_of_a_job_that_is_gone(hostile: Make) -> None:
    peer = hostile(EVERY, links_last=1, forgets=True)
    told = export(peer)
    assert told.state == State.FAILED
    assert len(peer.requests("GET", "/fhir/$export")) == 2


@pytest.mark.parametrize(
    "does",
    [{"busy_files": 9, "retry_after": "30"}, {"cut_off": 2}, {"gzip": True}, {"tiny": True}, {"subsetted": True}],
)
def test_files_that_come_late_in_pieces_packed_or_one_by_one(hostile: Make, does: dict[str, Any]) -> None:
    told = export(hostile(EVERY, **does))
    assert is_whole(told)
    assert told.problems == []


@pytest.mark.parametrize("does", [{"bomb": True}, {"damaged_gzip": True}, {"cut_off": 1000}])
def test_files_that_never_come_whole_are_missing(hostile: Make, does: dict[str, Any]) -> None:
    told = export(hostile(EVERY, **does))
    assert (told.raised, told.state) == (None, State.APPLYING)
    assert told.shelf.files == []
    assert len(told.shelf.remembers["missing"]) == told.shelf.abandoned / 5
    assert told.shelf.abandoned >= 5


def test_what_is_durable_is_not_asked_for_again(hostile: Make) -> None:
    peer = hostile(EVERY)
    told = export(peer, forget=False)
    told.shelf.state = State.DOWNLOADING
    lost = next(key for key in told.shelf.landed if not key.endswith(b"manifest"))
    del told.shelf.landed[lost]
    asked = len(peer.requests("GET", "/file/"))
    assert is_whole(export(peer, shelf=told.shelf))
    assert len(peer.requests("GET", "/file/")) == asked + 1


def test_untidy_lines_do_no_harm(hostile: Make) -> None:
    told = export(hostile(EVERY, bodies={"Patient": untidy(PATIENTS)}))
    assert is_whole(told)
    assert told.problems == []
    assert [each.learnt["blank_lines"] for each in told.shelf.files if each.learnt["blank_lines"]] == [[2, 4]]


def test_damaged_lines_are_kept_and_told(hostile: Make) -> None:
    told = export(hostile({"Patient": PATIENTS}, bodies={"Patient": damaged(PATIENTS)}))
    [file] = told.shelf.files
    assert b"\n".join(file.parts) + b"\n" == damaged(PATIENTS)
    assert told.problems == [
        "9 lines where the manifest says 3",
        "1 line of another type than Patient",
        "3 lines not one JSON object",
    ]


def test_error_and_deleted_files(hostile: Make) -> None:
    outcomes = [outcome(severity, "exception", SECRET) for severity in ("error", "fatal", "information")]
    peer = hostile(EVERY, outcomes=tuple(outcomes), deleted=("Patient/9",))
    told = export(peer, request=ExportRequest(Level.SYSTEM, since="2026-01-01T00:00:00Z"))
    kinds = {str(each.meta.manifest["kind"]): each for each in told.shelf.files}
    assert kinds["error"].learnt["severities"] == {"error": 1, "fatal": 1, "information": 1}
    assert kinds["deleted"].learnt["lines"] == 1
    assert told.problems == []


def test_organised_output_has_headers_and_no_types(hostile: Make) -> None:
    told = export(hostile(EVERY, organized_by="Patient"), request=ExportRequest(Level.SYSTEM, organize_by="Patient"))
    assert told.problems == []
    assert [json.loads(each.parts[0])["resourceType"] for each in told.shelf.files] == ["Parameters"] * 2


@pytest.mark.parametrize("status", [202, 404, 405])
def test_whatever_a_server_says_to_the_removal(hostile: Make, status: int) -> None:
    assert is_whole(export(hostile(EVERY, delete_status=status)))


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


def test_a_kill_anywhere_changes_nothing(hostile: Make) -> None:
    """Before and after each step that becomes durable, and again in the life after that."""
    does = {"tiny": True, "pages": True, "polls": (202,), "outcomes": (outcome("error", "exception"),)}
    undisturbed = export(hostile(EVERY, **does))
    killed, turn = 0, 0
    while killed == turn:
        turn += 1
        peer, shelf = hostile(EVERY, **does), Shelf(lives=turn)
        told = None
        for lives in (turn, turn // 2 + 2, None):
            shelf.lives = lives
            try:
                told = export(peer, shelf=shelf)
                break
            except Killed:
                killed = turn
        assert told is not None
        assert told.state == State.APPLYING
        assert content(shelf) == content(undisturbed.shelf)
        assert len(peer.requests("GET", "/fhir/$export")) == (2 if turn == 1 else 1)
    assert turn > 40


def content(shelf: Shelf) -> list[tuple[bytes, list[bytes]]]:
    return sorted((key, each.parts) for key, each in shelf.landed.items() if not key.endswith(b"manifest"))
