"""Bad input and broken places, each through a real server: a clear refusal that names what and where, no patient data;
nothing is lost, the process lives on, and the log still verifies (`servers` walks it at the end of each test)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from models.shelf import SHIPPED
from tests.peers.load import renamed
from tests.peers.server import (
    NAMESPACE,
    ORDER_SIGN,
    PATIENT_VIEW,
    Server,
    finish,
    hook,
    of_inference,
    outcome_of,
    override,
    size_of,
)

NAME = "Zyxwvutova"
"""A name that stands in no fixture: planted in what is refused, looked for in what is said about it."""

Make = Callable[..., Server]


def planted(name: str = "jenny-m.patient-view") -> dict[str, Any]:
    """A good request of a patient with the planted name."""
    body = hook(name)
    body["prefetch"]["patient"]["name"] = [{"family": NAME, "given": [NAME]}]
    return body


def said_nothing_of(server: Server, *texts: str) -> None:
    for text in (*texts, server.told()):
        assert NAME not in text
        assert "Traceback" not in text


def still_answers(server: Server) -> None:
    assert server.process is not None
    assert server.process.poll() is None
    assert of_inference(server.call(hook("jenny-m.patient-view")))


def inferences(server: Server) -> int:
    return len(server.ask("inference", "all"))


# ---- what comes over the wire ----------------------------------------------------------------------------------------


def raw(server: Server, body: bytes, service: str = PATIENT_VIEW) -> Any:
    return server.http.post(f"/cds-services/{service}", content=body, headers={"Content-Type": "application/json"})


def broken_bodies() -> Iterator[tuple[str, bytes, str]]:
    good = planted()
    text = json.dumps(good).encode()
    yield "no JSON", f"hook {NAME}".encode(), "JSON"
    yield "truncated", text[: len(text) // 2], "JSON"
    yield "cut in a character", text.replace(NAME.encode(), NAME.encode() + b"\xc3"), "UTF-8"
    yield "a name twice", b'{"hook": "' + NAME.encode() + b'", ' + text[1:], "twice"
    yield "not a number", text[:-1] + b', "x": NaN}', "JSON"
    yield "not an object", json.dumps([NAME]).encode(), ""
    yield "hook of another kind", json.dumps({**good, "hook": "medication-prescribe"}).encode(), "hook"
    yield "hook is a number", json.dumps({**good, "hook": 7}).encode(), "hook"
    yield "no context", json.dumps({k: v for k, v in good.items() if k != "context"}).encode(), "context"
    yield "context is a text", json.dumps({**good, "context": NAME}).encode(), "context"
    yield "no patient in context", json.dumps({**good, "context": {"userId": "Practitioner/1"}}).encode(), "patientId"
    yield (
        "no hook instance",
        json.dumps({k: v for k, v in good.items() if k != "hookInstance"}).encode(),
        "hookInstance",
    )
    yield "prefetch is a list", json.dumps({**good, "prefetch": [NAME]}).encode(), "prefetch"
    yield "a resource is a text", json.dumps({**good, "prefetch": {"patient": NAME}}).encode(), "prefetch"


@pytest.mark.parametrize(
    ("body", "named"), [pytest.param(body, named, id=what) for what, body, named in broken_bodies()]
)
def test_a_broken_request_is_refused_by_name(shared: Server, body: bytes, named: str) -> None:
    before = shared.http.get("/metrics").text
    answer = raw(shared, body)
    said = outcome_of(answer, 400)
    assert named in said
    said_nothing_of(shared, answer.text)
    assert entries(shared.http.get("/metrics").text) > entries(before)  # a refusal is on record
    still_answers(shared)


def entries(metrics: str) -> float:
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("cds_ledger_entries "))


def test_an_unknown_service_is_not_found(shared: Server) -> None:
    answer = shared.call(planted(), service=f"{PATIENT_VIEW}-{NAME}")
    outcome_of(answer, 404)
    said_nothing_of(shared, answer.text)


def test_required_prefetch_that_did_not_come(shared: Server) -> None:
    body = planted()
    del body["prefetch"]["observations"]
    answer = shared.call(body)
    assert "observations" in outcome_of(answer, 412)
    said_nothing_of(shared, answer.text)


def wrong_types(body: dict[str, Any], what: str) -> None:
    size, component = size_of(body)
    match what:
        case "value is a text":
            component["valueQuantity"]["value"] = NAME
        case "quantity is a list":
            component["valueQuantity"] = [NAME]
        case "component is a text":
            size["component"] = NAME
        case "code is a text":
            size["code"] = NAME
        case "status is an object":
            size["status"] = {"x": NAME}
        case "subject is a text":
            size["subject"] = NAME
        case "effective is a number":
            size["effectiveDateTime"] = 20180401
        case "birth date is a list":
            body["prefetch"]["patient"]["birthDate"] = [NAME]
        case "entries are texts":
            body["prefetch"]["observations"]["entry"] = [NAME]


@pytest.mark.parametrize(
    "what",
    [
        "value is a text",
        "quantity is a list",
        "component is a text",
        "code is a text",
        "status is an object",
        "subject is a text",
        "effective is a number",
        "birth date is a list",
        "entries are texts",
    ],
)
@pytest.mark.parametrize("known", [False, True], ids=["at first sight", "of a known resource"])
def test_a_wrong_fhir_type_is_never_scored(shared: Server, what: str, known: bool) -> None:
    """Refused with 400, or a card without an estimate; also where an earlier, sound version is known."""
    body = renamed(planted(), f"{what.replace(' ', '-')}-{known}".lower())
    if known:
        assert shared.call(body).json()["cards"][0]["summary"].startswith("Estimated ")
    wrong_types(body, what)
    answer = shared.call({**body, "hookInstance": str(uuid.uuid4())})
    if answer.status_code == 400:
        assert "prefetch" in outcome_of(answer, 400)
    else:
        of_inference(answer)
        assert answer.json()["cards"][0]["summary"].startswith("No survival estimate: ")
    said_nothing_of(shared, answer.text)
    still_answers(shared)


def test_another_patients_observation_refuses_the_whole_call(shared: Server) -> None:
    """The worst failure there is: 400, a Call on record as a safety event, a Flag, and no Inference."""
    count, flags = inferences(shared), len(shared.ask("work", "list", "--kind", "flag"))
    body = planted()
    size_of(body)[0]["subject"] = {"reference": f"Patient/{NAME}"}
    answer = shared.call(body)
    said = outcome_of(answer, 400)
    assert "patient" in said
    assert "prefetch" in said
    said_nothing_of(shared, answer.text)
    assert inferences(shared) == count
    found = shared.ask("work", "list", "--kind", "flag")
    assert len(found) == flags + 1
    assert found[-1]["reason"] == "wrong-patient"
    entry = shared.http.get(f"/ledger/proof/{found[-1]['id'] >> 20}").json()["entry"]
    assert entry["kind"] == "safety"
    assert "call" in json.dumps(entry)
    still_answers(shared)


@pytest.mark.parametrize(
    ("quantity", "said"),
    [
        ({"value": 900, "unit": "cm", "system": "http://unitsofmeasure.org", "code": "cm"}, "tumour size"),
        ({"value": 25, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}, "tumour size"),
        ({"value": 25, "unit": "furlong", "system": "http://unitsofmeasure.org", "code": "furlong"}, "tumour size"),
    ],
    ids=["900 cm", "a mass", "no unit of UCUM"],
)
def test_a_value_that_cannot_be_is_not_scored(shared: Server, quantity: dict[str, Any], said: str) -> None:
    body = planted()
    size_of(body)[1]["valueQuantity"] = quantity
    answer = shared.call(body)
    of_inference(answer)
    (card,) = answer.json()["cards"]
    assert card["summary"].startswith("No survival estimate: ")
    assert said in card["summary"]
    said_nothing_of(shared, answer.text)
    still_answers(shared)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all that comes over the wire: each of these faults must leave the next caller unharmed."""
    home = tmp_path_factory.mktemp("shared")
    server = Server(home=home, data_dir=home / "var").start()
    yield server
    finish(server)


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
    assert "head.onnx" in checks[f"model of {PATIENT_VIEW}"]
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


def test_a_second_server_on_one_instance_names_the_first(server: Server) -> None:
    assert server.process is not None
    refused = server.cds("serve", "--port", "0", code=4)
    assert f"already served by process {server.process.pid} on 127.0.0.1:{server.port}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    still_answers(server)


def test_a_port_that_is_taken(server: Server, servers: Make) -> None:
    second = servers(start=False)
    refused = second.cds("serve", "--port", str(server.port), code=2)
    assert f"127.0.0.1:{server.port}" in refused.stderr
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
