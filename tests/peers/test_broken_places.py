"""Broken places, each below a real server: a changed model, a full or read-only disk, lost keys, a second server. What
is wrong is named, nothing is lost, and the log still verifies (`servers` walks it at the end of each test)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from models.shelf import SHIPPED
from tests.peers.server import (
    NAMESPACE,
    ORDER_SIGN,
    PATIENT_VIEW,
    Server,
    hook,
    of_inference,
    outcome_of,
    override,
)
from tests.peers.test_faults import NAME, Make, planted, said_nothing_of, still_answers

# ---- models ----------------------------------------------------------------------------------------------------------


def test_a_changed_model_file_is_never_pinned(server: Server) -> None:
    place = a_changed_model(server)
    refused = server.cds("models", "use", PATIENT_VIEW, "predict-breast@9.9.9", code=1)
    assert "head.onnx is not the one that its manifest names" in refused.stderr
    assert server.cds("models", "verify", code=1).stdout.count("head.onnx") == 1
    item = of_inference(server.call(hook("jenny-m.patient-view")))
    assert server.ask("inference", item["id"])["model"] == "predict-breast@3.2.0"
    shutil.rmtree(place)


def test_a_model_changed_while_the_server_was_down(server: Server) -> None:
    """It starts, says so at /readyz, answers the calls of that service with an error on record, and recovers."""
    place = a_changed_model(server, change=False)
    server.cds("models", "use", PATIENT_VIEW, "predict-breast@9.9.9")
    server.stop()
    sound = (place / "head.onnx").read_bytes()
    (place / "head.onnx").write_bytes(sound + b"\0")
    server.launch()
    waiting = time.monotonic() + 30
    while (ready := server.readiness()) == 0 and time.monotonic() < waiting:
        time.sleep(0.05)
    assert ready == 503
    checks = server.http.get("/readyz").json()["checks"]
    assert "head.onnx" in checks[f"model predict-breast of {PATIENT_VIEW}"]
    assert checks["store"] == "ok"
    answer = server.call(planted())
    assert "head.onnx" in outcome_of(answer, 500)
    said_nothing_of(server, answer.text)
    assert of_inference(server.call(hook("carla-r.order-sign"), ORDER_SIGN))  # the other service has its own pin
    (place / "head.onnx").write_bytes(sound)
    still_answers(server)


def a_changed_model(server: Server, *, change: bool = True) -> Path:
    place = server.data_dir / "models" / "predict-breast" / "9.9.9"
    shutil.copytree(SHIPPED / "predict-breast" / "3.2.0", place)
    manifest = json.loads((place / "manifest.json").read_bytes())
    (place / "manifest.json").write_text(json.dumps({**manifest, "version": "9.9.9"}))
    if change:
        (place / "head.onnx").write_bytes((place / "head.onnx").read_bytes() + b"\0")
    return place


# ---- the disk --------------------------------------------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def remount(disk: Path, how: str) -> None:
    """The kernel refuses while a process that is ending still holds a file."""
    give_up = time.monotonic() + 10
    while (mounted := subprocess.run(["mount", "-o", f"remount,{how}", disk], capture_output=True)).returncode:
        assert time.monotonic() < give_up, mounted.stderr
        time.sleep(0.1)


def fill(disk: Path) -> Path:
    """Write until the disk says that it is full (ENOSPC)."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.strerror == "No space left on device"  # noqa: PT017 (the loop ends no other way)
    return filler


@as_root
def test_a_full_disk(small_disk: Path, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue("servers")(data_dir=small_disk / "var")
    kept = [of_inference(server.call(hook("jenny-m.patient-view"))) for _ in range(3)]
    (card,) = server.call(hook("jenny-m.patient-view")).json()["cards"]
    filler = fill(small_disk)
    refusals = [server.call(planted()) for _ in range(20)]
    refused = [answer for answer in refusals if answer.status_code != 200]
    assert refused, "the disk was never full"
    for answer in refused:
        assert "disk is full" in outcome_of(answer, 503)
        assert answer.headers["Retry-After"]
        said_nothing_of(server, answer.text)
    assert "disk is full" in outcome_of(server.feedback(override(card, NAME)), 503)
    assert server.readiness() == 503
    assert "full" in server.http.get("/readyz").json()["checks"]["store"]
    assert server.http.get("/healthz").status_code == 200
    filler.unlink()
    still_answers(server)
    assert server.feedback(override(card)).status_code == 200
    assert server.readiness() == 200
    known = {shown["inference"] for shown in server.ask("inference", "all")}
    assert {item["id"] for item in kept} <= known
    server.stop()
    server.verify()


@as_root
def test_landing_on_a_full_disk(small_disk: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A delivery that does not fit is refused whole, and the same delivery is taken when there is room."""
    server: Server = request.getfixturevalue("servers")(data_dir=small_disk / "var", start=False)
    server.land_fixtures()
    big = tmp_path / "big.ndjson"
    line = json.dumps({"resourceType": "Patient", "id": "p", "name": [{"family": NAME}], "language": "x" * 5000})
    big.write_text("".join(line.replace('"p"', f'"p{n}"') + "\n" for n in range(2000)))
    filler = fill(small_disk)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - (2 << 20))  # room for some of it
    refused = server.cds("land", big, "--namespace", NAMESPACE, code=1)
    assert "full" in refused.stderr
    said_nothing_of(server, refused.stderr, refused.stdout)
    assert list((small_disk / "var" / "staging").glob("*")) == []  # nothing is left behind
    filler.unlink()
    assert server.ask("land", big, "--namespace", NAMESPACE)[0]["arrival"] == "stored"
    server.verify()


@as_root
def test_a_read_only_file_system(small_disk: Path, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue("servers")(data_dir=small_disk / "var")
    item = of_inference(server.call(hook("jenny-m.patient-view")))
    server.stop()
    remount(small_disk, "ro")
    for command in (("serve", "--port", "0"), ("land", __file__), ("digest",)):
        refused = server.cds(*command, code=None)
        assert refused.returncode != 0, command
        assert "read-only" in refused.stderr.lower(), (command, refused.stderr)
        assert len(refused.stderr.splitlines()) == 1
        said_nothing_of(server, refused.stderr)
    remount(small_disk, "rw")
    server.start()
    assert of_inference(server.call(hook("jenny-m.patient-view")))["seq"] > item["seq"]
    server.stop()
    server.verify()


@as_root
def test_the_data_directory_turns_read_only_below_a_running_server(server: Server) -> None:
    """By a read-only mount over it: what is open stays open, what must be opened anew is refused."""
    (card,) = server.call(hook("jenny-m.patient-view")).json()["cards"]
    place = server.data_dir
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    try:
        assert server.readiness() == 503
        assert "read-only" in server.http.get("/readyz").json()["checks"]["store"]
        answer = server.call(planted())  # either durable or refused, never a card without its entry
        if answer.status_code == 200:
            of_inference(answer)
        else:
            assert "read-only" in outcome_of(answer, 503)
        said_nothing_of(server, answer.text)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    still_answers(server)
    assert server.feedback(override(card)).status_code == 200
    assert server.readiness() == 200


def test_a_read_only_database_server(request: pytest.FixtureRequest) -> None:
    """PostgreSQL turned read-only below a running server (as a failed-over standby is)."""
    url = request.getfixturevalue("postgres_url")
    server: Server = request.getfixturevalue("servers")(database_url=url)
    kept = of_inference(server.call(hook("jenny-m.patient-view")))
    read_only(url, "on")
    answer = server.call(planted())
    assert "read-only" in outcome_of(answer, 503)
    assert answer.headers["Retry-After"]
    said_nothing_of(server, answer.text)
    assert server.readiness() == 503
    read_only(url, "off")
    still_answers(server)
    assert server.ask("inference", kept["id"])["seq"] == kept["seq"]


def read_only(url: str, state: str) -> None:
    """For new connections; the open ones are ended, as a restart of the database server would."""
    database = url.rpartition("/")[2]
    with psycopg.connect(url.replace("+psycopg", "").replace("//cds@", "//postgres@"), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = {state}".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (database,),
        )


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_the_key_store_is_lost_before_the_start(server: Server) -> None:
    item = of_inference(server.call(hook("jenny-m.patient-view")))
    server.stop()
    keys = server.data_dir / "keys.db"
    aside = [(path, server.home / path.name) for path in server.data_dir.glob("keys.db*")]
    for path, place in aside:
        shutil.move(path, place)
    for command in (("serve", "--port", "0"), ("digest",), ("inference", item["id"])):
        refused = server.cds(*command, code=1)
        assert "the key store is missing" in refused.stderr
        assert "keys.db" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert not keys.exists()  # never a new, empty one in its place
    server.verify()  # the log needs no keys
    for path, place in aside:
        shutil.move(place, path)
    server.start()
    assert server.ask("inference", item["id"], "--reproduce")[item["id"]]["equal"] is True


def test_the_key_store_of_another_instance(server: Server, servers: Make) -> None:
    other = servers()
    of_inference(server.call(hook("jenny-m.patient-view")))
    of_inference(other.call(hook("jenny-m.patient-view")))
    server.stop()
    other.stop()
    assert [path.name for path in server.data_dir.glob("keys.db*")] == ["keys.db"]  # all of it is in the one file
    shutil.move(server.data_dir / "keys.db", server.home / "keys.db")
    shutil.copy(other.data_dir / "keys.db", server.data_dir / "keys.db")
    refused = server.cds("serve", "--port", "0", code=1)
    assert "belongs to another instance" in refused.stderr
    shutil.move(server.home / "keys.db", server.data_dir / "keys.db")
    still_answers(server.start())


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
def test_the_key_store_is_lost_below_a_running_server(servers: Make, how: str) -> None:
    """No card leaves whose keys would be gone with the next restart; when the keys are back, so is the service."""
    server = servers()
    item = of_inference(server.call(hook("jenny-m.patient-view")))
    server.cds("backup", server.home / "backup")
    for path in server.data_dir.glob("keys.db*"):
        path.unlink() if how == "deleted" else path.write_bytes(b"\0" * path.stat().st_size)
    give_up = time.monotonic() + 5
    while server.readiness() == 200 and time.monotonic() < give_up:
        time.sleep(0.1)
    assert server.readiness() == 503
    answer = server.call(planted())
    assert "key" in outcome_of(answer, 503)
    said_nothing_of(server, answer.text)
    assert server.http.get("/healthz").status_code == 200
    server.kill()
    for path in server.data_dir.glob("keys.db*"):
        path.unlink()
    shutil.copy(server.home / "backup" / "keys" / "keys.db", server.data_dir / "keys.db")
    server.start()
    assert server.ask("inference", item["id"], "--reproduce")[item["id"]]["equal"] is True
    still_answers(server)


# ---- the instance ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unharmed(shared_servers: Make) -> Server:
    """For those that find everything in its place, and leave it there."""
    return shared_servers()


def test_a_second_server_on_one_instance_names_the_first(unharmed: Server) -> None:
    assert unharmed.process is not None
    refused = unharmed.cds("serve", "--port", "0", code=4)
    assert f"already served by process {unharmed.process.pid} on 127.0.0.1:{unharmed.port}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    still_answers(unharmed)


def test_a_port_that_is_taken(unharmed: Server, servers: Make) -> None:
    second = servers(start=False)
    refused = second.cds("serve", "--port", str(unharmed.port), code=2)
    assert f"127.0.0.1:{unharmed.port}" in refused.stderr
    second.cds("digest", code=2)  # and no instance was made by the attempt
    second.sound = False


def test_trust_open_is_for_loopback_only(servers: Make) -> None:
    server = servers(start=False, sound=False)
    refused = server.cds("serve", "--host", "0.0.0.0", "--port", "0", code=2)  # noqa: S104 (it is refused)
    assert "loopback" in refused.stderr


def test_a_closed_door_tells_nothing(servers: Make) -> None:
    """Without CDS_TRUST=open nobody calls yet: 401, and the body is not looked at."""
    server = servers(environment={"CDS_TRUST": "jwt"})
    answer = server.call(planted())
    assert outcome_of(answer, 401)
    said_nothing_of(server, answer.text)
