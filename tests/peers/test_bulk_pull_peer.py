"""`cds pull` against somebody else's bulk server (sekmet-fhir): tokens, files, changes, deletions, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.bulk.states import EXPORT, State
from cds_server.bulk_sources import KIND
from cds_server.jobs import Job, Jobs, holder, lease, release
from cds_server.keys import Keys
from cds_server.store.store import Store
from tests.cds_server.stores import patient, weight
from tests.peers.bulk_peer import NARROW, READ, BulkPeer
from tests.peers.bulk_stories import facts, held
from tests.peers.fhir_server import TOKEN
from tests.peers.server import CDS, Server

Make = Callable[..., Server]
SOURCE = "north"
ACTOR = "user:test"
PEOPLE = ("planted-anna", "planted-berta")
ALL = ["system/*.cruds"]
"""The peer lets nobody export who may not read every type; a POST of `$export` counts as creating."""
FILES = {"Patient": 2, "Observation": 6, "Condition": 1}


def population() -> list[dict[str, Any]]:
    condition = {"resourceType": "Condition", "id": "c1", "subject": {"reference": f"Patient/{PEOPLE[0]}"}}
    return [
        *(patient(each, born="1970-01-01") for each in PEOPLE),
        *(weight(f"{each}-w{number}", each, 60 + number) for each in PEOPLE for number in range(3)),
        condition,
    ]


# ---- an instance with a source ---------------------------------------------------------------------------------------


def instance(
    make: Make,
    peer: BulkPeer,
    *,
    scopes: str = READ,
    alg: str = "ES384",
    database_url: str | None = None,
    **keys: Any,
) -> Server:
    """One whose source is registered with the peer; `keys`: further ones of its [[source]]."""
    server = make(start=False, database_url=database_url)
    server.data_dir.mkdir(mode=0o700)
    published: dict[str, Mapping[str, Any]] = {}
    client = peer.client(lambda name: published[name], scopes)
    with opened(server) as store:
        Keys(store).new(client.registration, ACTOR, alg)
        published[client.registration] = dict(Keys(store).published(client.registration))
    asked = {
        "name": SOURCE,
        "kind": "fhir-bulk",
        "namespace": SOURCE,
        "url": peer.base,
        "client_id": client.client_id,
        "registration": client.registration,
        "scopes": ALL,
        "failure_wait": 0,
        "longest_wait": 1,
        **keys,
    }
    config = server.home / "cds.toml"
    config.write_text("[[source]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in asked.items()))
    server.environment = {"CDS_CONFIG": str(config)}
    return server


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


@contextmanager
def opened(server: Server) -> Iterator[Store]:
    store = Store.open(server.data_dir, server.database_url or f"sqlite:///{server.data_dir / 'cds.db'}")
    try:
        yield store
    finally:
        store.close()


def pull(server: Server, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `cds pull` tells."""
    told: dict[str, Any] = server.ask("pull", SOURCE, *arguments, code=code)
    return told


def jobs(server: Server) -> list[Job]:
    with opened(server) as store:
        return Jobs(store, KIND, EXPORT).latest(SOURCE, 100)


def known(server: Server) -> tuple[dict[tuple[str, str], Any], list[str]]:
    """What is open: each resource as it came, each fact with what it was read from."""
    with opened(server) as store:
        return held(store), facts(store)


def counted(server: Server) -> dict[str, int]:
    resources, _ = known(server)
    found: dict[str, int] = {}
    for kind, _ in resources:
        found[kind] = found.get(kind, 0) + 1
    return found


def log_of(server: Server) -> list[dict[str, Any]]:
    """The export log."""
    path = server.data_dir / "pulls" / f"{SOURCE}.ndjson"
    return [json.loads(line) for line in path.read_text().splitlines()]


def a_second_later(peer: BulkPeer) -> None:
    """The peer's Date, which the cursor is held against, has whole seconds, and runs behind where the machine is busy:
    wait until it is later than now."""
    began = time.time()
    while date_of(peer) <= began:
        time.sleep(0.1)


def date_of(peer: BulkPeer) -> float:
    answer = peer.http.get(f"{peer.base}/.well-known/smart-configuration")
    return parsedate_to_datetime(answer.headers["Date"]).timestamp()


# ---- what a pull brings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
def test_a_first_pull_brings_everything(servers: Make, bulk_peer: BulkPeer, alg: str) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer, alg=alg)
    told = pull(server)
    assert (told["state"], [job["mode"] for job in told["jobs"]]) == ("done", ["full"])
    assert (told["jobs"][0]["files"], told["jobs"][0]["lines"], told["jobs"][0]["types"]) == (3, 9, FILES)
    assert told["jobs"][0]["cursor"] is not None
    assert counted(server) == FILES
    resources, _ = known(server)
    there = bulk_peer.search("Observation?_count=100")["entry"]
    assert {entry["resource"]["id"]: entry["resource"] for entry in there} == {
        name: resource for (kind, name), resource in resources.items() if kind == "Observation"
    }
    anna = server.ask("patient", f"{SOURCE}/{PEOPLE[0]}")
    weights = {fact["source"]["resource"] for fact in anna["facts"] if fact["codings"][0]["code"] == "29463-7"}
    assert weights == {f"Observation/{PEOPLE[0]}-w{number}" for number in range(3)}
    assert "Observation.ndjson, line " in server.cds("patient", f"{SOURCE}/{PEOPLE[0]}").stdout
    assert pull(server, "--status") == told["jobs"]
    (job,) = jobs(server)
    assert job.remembers["kick_offs"] == 1
    status = bulk_peer.http.get(job.remembers["status_url"], headers={"Authorization": f"Bearer {TOKEN}"})
    assert status.status_code == 404, "the job is still on the server"


def test_the_export_log_tells_it_all_but_no_secret(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer)
    pull(server)
    events = log_of(server)
    assert len({event["exportId"] for event in events}) == 1
    names = [event["eventId"] for event in events]
    assert names[0] == "kickoff"
    assert names[-1] == "export_complete"
    assert names.count("download_request") == names.count("download_complete") == 3
    assert {"status_page_complete", "status_complete", "manifest_complete"} <= set(names)
    done = [event["eventDetail"] for event in events if event["eventId"] == "download_complete"]
    assert sorted(each["resourceCount"] for each in done) == sorted(FILES.values())
    written = [path for path in server.home.rglob("*") if path.is_file() and path.suffix != ".toml"]
    assert [path.name for path in written if b"planted-" in path.read_bytes()] == []
    assert [path.name for path in written if b"Bearer" in path.read_bytes()] == []
    assert "uthorization" not in json.dumps(events)


def test_a_second_pull_brings_the_change_only(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    a_second_later(bulk_peer)
    server = instance(servers, bulk_peer, quirks={"since_overlap": 0})
    first = pull(server)
    bulk_peer.load([weight(f"{PEOPLE[0]}-w0", PEOPLE[0], 75.5), weight("new", PEOPLE[1], 81)])
    second = pull(server)
    assert [job["mode"] for job in second["jobs"]] == ["since"]
    assert second["jobs"][0]["since"] == first["jobs"][0]["cursor"]
    assert second["jobs"][0]["types"] == {"Observation": 2}
    assert second["jobs"][0]["cursor"] >= first["jobs"][0]["cursor"]
    resources, _ = known(server)
    assert resources["Observation", f"{PEOPLE[0]}-w0"]["valueQuantity"]["value"] == 75.5
    assert counted(server) == {**FILES, "Observation": 7}
    a_second_later(bulk_peer)
    third = pull(server)
    assert third["state"] == "done"


def test_what_comes_twice_changes_nothing(servers: Make, bulk_peer: BulkPeer) -> None:
    """The next `_since` reaches back before the cursor: all of it comes once more."""
    bulk_peer.load(population())
    server = instance(servers, bulk_peer)
    pull(server)
    before = known(server)
    again = pull(server)
    assert again["jobs"][0]["lines"] == 9
    assert known(server) == before
    with opened(server) as store:
        assert store.reads.query("SELECT COUNT(*) FROM resource_closing")[0][0] == 0


def test_a_deletion_that_the_server_leaves_untold_is_found_by_a_full_pull(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer)
    pull(server)
    gone = ("Observation", f"{PEOPLE[0]}-w1")
    bulk_peer.delete(gone)
    pull(server)
    assert gone in known(server)[0], "the peer has no deleted files: a pull of changes cannot know"
    full = pull(server, "--full")
    assert (full["state"], [job["mode"] for job in full["jobs"]]) == ("done", ["full"])
    assert counted(server) == {**FILES, "Observation": 5}
    assert gone not in known(server)[0]
    anna = server.ask("patient", f"{SOURCE}/{PEOPLE[0]}")
    weights = {fact["source"]["resource"] for fact in anna["facts"] if fact["codings"][0]["code"] == "29463-7"}
    assert weights == {f"Observation/{PEOPLE[0]}-w{number}" for number in (0, 2)}
    bulk_peer.load([weight(gone[1], PEOPLE[0], 61)])  # and it may come back
    pull(server)
    assert gone in known(server)[0]


def test_types_and_filters_are_asked_for(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load([*population(), weight("draft", PEOPLE[0], 99, status="preliminary")])
    server = instance(
        servers, bulk_peer, types=["Patient", "Observation"], type_filters=["Observation?status=preliminary"]
    )
    assert pull(server)["state"] == "done"
    assert counted(server) == {"Patient": 2, "Observation": 1}


def test_a_group_and_who_joins_it(servers: Make, bulk_peer: BulkPeer) -> None:
    """The peer knows neither `patient` nor `_elements`, so it sends more than is asked: that is right all the same."""

    def group(*members: str) -> dict[str, Any]:
        entities = [{"entity": {"reference": f"Patient/{each}"}} for each in members]
        return {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": entities}

    bulk_peer.load([*population(), group(PEOPLE[0])])
    server = instance(
        servers,
        bulk_peer,
        level="group",
        group="g",
        types=["Patient", "Observation"],
        quirks={"since_overlap": 0},
    )
    first = pull(server)
    assert [job["mode"] for job in first["jobs"]] == ["full"]
    assert counted(server) == {"Patient": 1, "Observation": 3}
    a_second_later(bulk_peer)
    assert [(job["mode"], job["state"]) for job in pull(server)["jobs"]] == [
        ("members", "done"),
        ("joiners", "done"),
        ("since", "done"),
    ]
    assert [job.cause for job in jobs(server) if job.mode == "joiners"] == ["nobody joined the group"]
    bulk_peer.load([group(*PEOPLE)])  # her resources are older than the cursor
    told = pull(server)
    assert [(job["mode"], job["state"]) for job in told["jobs"]] == [
        ("members", "done"),
        ("joiners", "done"),
        ("since", "done"),
    ]
    assert counted(server) == {"Patient": 2, "Observation": 6}
    bulk_peer.load([group(PEOPLE[1])])  # who leaves is not deleted
    assert pull(server, "--full")["state"] == "done"
    assert counted(server) == {"Patient": 2, "Observation": 6}


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_fewer_scopes_than_asked_are_a_failure_that_says_which(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer, scopes=NARROW, types=["Patient", "Observation"])
    without = Path(server.environment["CDS_CONFIG"])
    without.write_text("".join(line for line in without.read_text().splitlines(True) if "scopes" not in line))
    told = pull(server, code=3)
    assert told["state"] == "failed"
    assert told["jobs"][0]["cause"] == "the server grants fewer scopes than are needed: system/Observation.rs"
    assert counted(server) == {}
    assert not (server.data_dir / "pulls").exists(), "nothing was asked for"


def test_a_client_that_the_server_does_not_know(servers: Make, bulk_peer: BulkPeer) -> None:
    """The job stays: once the registration is right, it is taken up."""
    server = instance(servers, bulk_peer, types=["Patient"])
    config = Path(server.environment["CDS_CONFIG"])
    right = config.read_text()
    config.write_text(right.replace('client_id = "', 'client_id = "un'))
    refused = server.cds("pull", SOURCE, code=None)
    assert refused.returncode == 3
    assert "no token" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert [job.state for job in jobs(server)] == [State.QUEUED]
    config.write_text(right)
    assert pull(server)["state"] == "done"
    assert len(jobs(server)) == 1


def test_tokens_that_live_for_two_seconds_are_enough(servers: Make, hasty_bulk_peer: BulkPeer) -> None:
    hasty_bulk_peer.load(population())
    server = instance(servers, hasty_bulk_peer)
    assert pull(server)["state"] == "done"
    assert counted(server) == FILES


def test_a_source_that_another_process_pulls_is_left_alone(servers: Make, bulk_peer: BulkPeer) -> None:
    server = instance(servers, bulk_peer)
    with opened(server) as store:
        mine = holder()
        assert lease(store, f"pull:{SOURCE}", mine)
        refused = server.apart("pull", SOURCE, code=None)
        assert refused.returncode not in (0, 1)
        assert "another process pulls this source" in refused.stderr
        assert jobs(server) == []
        release(store, f"pull:{SOURCE}", mine)
    assert pull(server)["state"] == "done"


# ---- before and after ------------------------------------------------------------------------------------------------


def test_a_dry_run_starts_nothing(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer, types=["Condition", "Observation", "Patient"])
    told = pull(server, "--dry-run")
    (asked,) = told["jobs"]
    assert (asked["mode"], asked["method"], asked["since"]) == ("full", "GET", None)
    assert asked["url"].startswith(f"{bulk_peer.base}/$export?")
    assert told["counts"] == FILES
    assert jobs(server) == []
    assert server.cds("pull", SOURCE, "--status").stdout.strip() == "never pulled"
    pull(server)
    again = pull(server, "--dry-run")
    assert again["jobs"][0]["mode"] == "since"
    assert again["jobs"][0]["since"] is not None
    assert len(jobs(server)) == 1


def test_verify_counts_theirs_beside_ours(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer)
    assert server.cds("pull", SOURCE, "--dry-run").returncode == 0
    pull(server)
    rows = server.ask("pull", SOURCE, "--verify")
    assert {row["type"]: (row["ours"], row["theirs"], row["verdict"]) for row in rows} == {
        kind: (str(count), str(count), "same") for kind, count in FILES.items()
    }
    bulk_peer.load([weight("more", PEOPLE[0], 70)])
    rows = server.ask("pull", SOURCE, "--verify", code=1)
    assert {row["type"]: row["verdict"] for row in rows} == {
        "Condition": "same",
        "Observation": "DIFFERENT",
        "Patient": "same",
    }


# ---- kill -9 ---------------------------------------------------------------------------------------------------------

MANY = 2500
"""Observations: enough for several acts of the digest."""


def test_a_pull_that_is_killed_at_every_step_ends_as_an_undisturbed_one(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load([*population(), *(weight(f"n{number}", PEOPLE[number % 2], 50 + number) for number in range(MANY))])
    calm = instance(servers, bulk_peer)
    pull(calm)
    server = instance(servers, bulk_peer)
    at = [
        killed(server, state)
        for state in (State.KICKED_OFF, State.POLLING, State.DOWNLOADING, State.APPLYING, State.APPLYING)
    ]
    assert State.APPLYING in at
    assert len(set(at)) > 2
    server.verify()
    told = pull(server)
    assert told["state"] == "done"
    (job,) = jobs(server)
    assert job.remembers["kick_offs"] == 1, "it was asked for anew"
    (undisturbed,) = jobs(calm)
    assert job.remembers["result"] == undisturbed.remembers["result"]
    assert known(server) == known(calm)
    with opened(server) as store, opened(calm) as other:
        for table in ("landing", "resource", "resource_closing", "flag"):
            count = f"SELECT COUNT(*) FROM {table}"
            assert store.reads.query(count) == other.reads.query(count), table


def test_a_full_pull_is_one_also_where_another_was_left_unfinished(servers: Make, bulk_peer: BulkPeer) -> None:
    bulk_peer.load(population())
    server = instance(servers, bulk_peer)
    pull(server)
    bulk_peer.delete(("Condition", "c1"))
    killed(server, State.KICKED_OFF)
    told = pull(server, "--full")
    assert [job["mode"] for job in told["jobs"]] == ["full"]
    assert [(job.mode, job.state) for job in jobs(server)] == [("full", "done"), ("since", "done"), ("full", "done")]
    assert counted(server) == {"Patient": 2, "Observation": 6}
    killed(server, State.KICKED_OFF)
    assert len(pull(server)["jobs"]) == 1
    assert len(jobs(server)) == 4, "who asks for no full one takes up what is there, and that is all"


def killed(server: Server, state: State) -> State:
    """Start a pull, and kill it as soon as its job is in that state, or past it; where it was then."""
    order = list(EXPORT.moves)
    with opened(server) as store:
        rows = Jobs(store, KIND, EXPORT)
        before = {job.id for job in rows.latest(SOURCE, 100) if job.state in EXPORT.ends}
        process = subprocess.Popen(
            [*CDS, "pull", SOURCE],
            env=server.env(),
            cwd=server.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        give_up = time.monotonic() + 60
        while not any(
            order.index(job.state) >= order.index(state) for job in rows.latest(SOURCE, 1) if job.id not in before
        ):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < give_up, "the pull did not come that far"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        (job,) = rows.latest(SOURCE, 1)
        assert job.state not in EXPORT.ends, "it was too quick to be killed"
        return State(job.state)
