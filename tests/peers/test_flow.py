"""The flow of ARCHITECTURE.md through a real server, on both databases: a record lands, a hook is scored, the card is
overridden, and all of it stands in a log that verifies and reproduces. Later issues extend the walk."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from models.shelf import SHIPPED
from tests.cds_server.wire_checks import check_response
from tests.peers.postgres import PostgresServer
from tests.peers.server import (
    FIXTURES,
    NAMESPACE,
    ORDER_SIGN,
    PATIENT_VIEW,
    SIZE,
    Server,
    finish,
    hook,
    of_inference,
    outcome_of,
    override,
    size_of,
)

HOOKS = sorted(path.stem for path in (FIXTURES / "hooks").glob("*.json"))
LEDGER_HEADER = "CDS-Ledger-Seq"
PLANTED = "planted-4f1c9a7e-in-the-authorization"

Make = Callable[..., Server]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def walked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows the fixture patients, on each of the two databases; each test leaves it as it found it."""
    home = tmp_path_factory.mktemp(request.param)
    with a_database(request.param == "sqlite", request) as url:
        server = Server(home=home, data_dir=home / "var", database_url=url)
        server.land_fixtures()
        yield server.start()
        finish(server)


@contextmanager
def a_database(sqlite: bool, request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A new database on the PostgreSQL server; None for SQLite, which has its file in the data directory."""
    if sqlite:
        yield None
        return
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


SERVICE_OF_HOOK = {
    "patient-view": PATIENT_VIEW,
    "order-sign": ORDER_SIGN,
    "order-select": "vte-risk-chemotherapy-order-select",
    "encounter-start": "deterioration-news2-encounter-start",
}


def service_of(name: str) -> str:
    return SERVICE_OF_HOOK[name.partition(".")[2]]


def test_the_whole_walk(walked: Server) -> None:
    # what landed is known, and from where
    before = walked.ask("patient", "sandbox/jenny-m")
    assert before["records"] == ["sandbox/jenny-m"]
    assert all(fact["source"]["landing"] and fact["source"]["resource"] for fact in before["facts"])

    # discovery
    listed = walked.http.get("/cds-services").json()["services"]
    assert {(each["id"], each["hook"]) for each in listed} >= {
        (PATIENT_VIEW, "patient-view"),
        (ORDER_SIGN, "order-sign"),
    }

    # every fixture hook is answered by the specification, and named in the log
    answers = {}
    for name in HOOKS:
        answers[name] = walked.call(hook(name), service_of(name))
        assert check_response(answers[name].json()) == [], name
        item = of_inference(answers[name])
        proof = walked.http.get(f"/ledger/proof/{item['seq']}").json()
        assert proof["leaf"] == item["leaf"]
        assert proof["entry"]["kind"] == "infer"

    # the card, then the override of it: in the EHR, by the feedback door
    answer = answers["jenny-m.patient-view"]
    (card,) = answer.json()["cards"]
    assert card["summary"].startswith("Estimated 10-year survival: 87 % after surgery alone, 93 % with ")
    taken = walked.feedback(item_of := override(card, "Ki-67 is on its way"))
    assert taken.status_code == 200
    seq = int(taken.headers[LEDGER_HEADER])
    assert walked.http.get(f"/ledger/proof/{seq}").json()["entry"]["kind"] == "act"

    # saying it again is one action; another comment is a change of mind, and a new one
    assert int(walked.feedback(item_of).headers[LEDGER_HEADER]) == seq
    assert int(walked.feedback(override(card, "it came")).headers[LEDGER_HEADER]) > seq

    # a card that was never shown is answered alike
    unknown = walked.feedback(override({**card, "uuid": "00000000-0000-4000-8000-000000000000"}))
    assert (unknown.status_code, unknown.content) == (taken.status_code, taken.content)
    assert set(unknown.headers) == set(taken.headers)
    assert [flag["reason"] for flag in walked.ask("work", "list", "--kind", "unmatched")] == ["feedback"]

    # the record of it, scored again from its snapshot
    item = of_inference(answer)
    shown = walked.ask("inference", item["id"])
    assert [action["comment"] for action in shown["cards"][0]["actions"]] == ["Ki-67 is on its way", "it came"]
    assert shown["cards"][0]["card"]["uuid"] == card["uuid"]
    assert walked.ask("inference", item["id"], "--reproduce")[item["id"]]["equal"] is True
    assert walked.ask("inference", card["uuid"])["inference"] == item["id"]
    assert "equal bit for bit" in walked.cds("inference", "all", "--reproduce").stdout

    # and the log over all of it
    assert walked.verify()["entries"] >= seq + 2


def test_the_chosen_tumour_is_the_one_that_is_scored(walked: Server) -> None:
    """carla-r has two tumours: on opening the chart none is chosen, on signing orders the order's reason says which."""
    (undecided,) = walked.call(hook("carla-r.patient-view")).json()["cards"]
    assert undecided["summary"].startswith("No survival estimate: ")
    body = hook("carla-r.order-sign")
    (card,) = walked.call(body, ORDER_SIGN).json()["cards"]
    orders = [entry["resource"] for entry in body["context"]["draftOrders"]["entry"]]
    (meant,) = {reason["reference"] for order in orders for reason in order.get("reasonReference", [])}
    assert card["summary"].startswith("Estimated 10-year survival: ")
    assert meant in card["detail"].replace("&#45;", "-").partition("\n")[0]


def test_what_was_known_then(walked: Server) -> None:
    """A later delivery changes what is known from its arrival on, and nothing before it."""
    known = walked.ask("patient", "sandbox/maria-k")["facts"]
    middle = max(fact["known_from"] for fact in known)
    assert walked.ask("patient", "sandbox/maria-k", "--as-of", "2001-01-01")["facts"] == []
    told, component = size_of(hook("maria-k.patient-view"))
    quantity = {"value": 19, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"}
    corrected = {**told, "status": "corrected", "component": [{**component, "valueQuantity": quantity}]}
    delivery = walked.home / "corrected.json"
    delivery.write_text(json.dumps(corrected))
    walked.cds("land", delivery, "--namespace", NAMESPACE)
    walked.cds("digest")

    def sizes(*arguments: str) -> set[str]:
        facts = walked.ask("patient", "sandbox/maria-k", *arguments)["facts"]
        return {fact["original"] for fact in facts if SIZE in {coding["code"] for coding in fact["codings"]}}

    assert sizes() == {"19 mm"}
    assert len(sizes("--as-of", middle)) == 1
    assert sizes("--as-of", middle) != sizes()


def test_a_switch_of_models_reaches_the_running_server_and_the_log(walked: Server) -> None:
    enrol(walked, "3.2.0-copy")
    assert of_model(walked) == "predict-breast@3.2.0"
    switched = walked.ask("models", "use", PATIENT_VIEW, "predict-breast@3.2.0-copy")
    entry = walked.http.get(f"/ledger/proof/{switched['seq']}").json()["entry"]
    assert entry["kind"] == "pin"
    assert entry["detail"]["model"] == "predict-breast@3.2.0-copy"
    time.sleep(1)  # the contract: within a second
    assert of_model(walked) == "predict-breast@3.2.0-copy"
    # only this service was switched
    order = of_inference(walked.call(hook("carla-r.order-sign"), ORDER_SIGN))
    assert walked.ask("inference", order["id"])["model"] == "predict-breast@3.2.0"
    walked.cds("models", "use", PATIENT_VIEW, "predict-breast@3.2.0")
    time.sleep(1)


def of_model(server: Server) -> str:
    item = of_inference(server.call(hook("jenny-m.patient-view")))
    return str(server.ask("inference", item["id"])["model"])


def enrol(server: Server, version: str) -> Path:
    """A copy of the shipped model under another version on the instance's own shelf."""
    source = SHIPPED / "predict-breast" / "3.2.0"
    place = server.data_dir / "models" / "predict-breast" / version
    shutil.copytree(source, place)
    manifest = json.loads((place / "manifest.json").read_bytes())
    (place / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    return place


def test_a_stopped_service_is_silent_within_a_second(walked: Server) -> None:
    assert walked.call(hook("jenny-m.patient-view")).json()["cards"]
    stopped = walked.ask("service", "stop", PATIENT_VIEW, "--reason", "trial")
    time.sleep(1)  # the contract: within a second
    silent = walked.call(hook("jenny-m.patient-view"))
    assert (silent.status_code, silent.json()) == (200, {"cards": []})
    assert walked.call(hook("carla-r.order-sign"), ORDER_SIGN).json()["cards"]  # the other one speaks on
    assert walked.http.get(f"/ledger/proof/{stopped['seq']}").json()["entry"]["kind"] == "service-stopped"
    walked.cds("service", "start", PATIENT_VIEW)
    time.sleep(1)
    assert walked.call(hook("jenny-m.patient-view")).json()["cards"]


def test_a_backup_of_a_serving_instance_restores_elsewhere(
    walked: Server, servers: Make, request: pytest.FixtureRequest
) -> None:
    item = of_inference(walked.call(hook("jenny-m.patient-view")))
    copy = walked.home / "backup"
    walked.cds("backup", copy)
    of_inference(walked.call(hook("jenny-m.patient-view")))  # still serving
    with a_database(walked.database_url is None, request) as url:
        elsewhere = servers(start=False, database_url=url)
        restored = elsewhere.ask("restore", copy)
        assert restored["entries"] >= item["seq"]
        assert elsewhere.ask("inference", item["id"], "--reproduce")[item["id"]]["equal"] is True
        elsewhere.start()
        assert of_inference(elsewhere.call(hook("jenny-m.patient-view")))["seq"] > item["seq"]
        finish(elsewhere)
        elsewhere.sound = False  # verified: its database goes with this block


def test_the_access_token_is_found_nowhere(walked: Server) -> None:
    """Not in the data directory, not in a log, not in the database: it lives as long as the call."""
    authorization = {
        "access_token": PLANTED,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "patient/*.read",
        "subject": "cds-service",
    }
    sent = hook("jenny-m.patient-view", fhirServer="https://ehr.example/fhir", fhirAuthorization=authorization)
    assert of_inference(walked.call(sent))
    refused = walked.call({**sent, "context": {}})
    assert PLANTED not in refused.text
    outcome_of(refused, 400)
    assert not list(files_with(walked, PLANTED))
    if walked.database_url:
        assert PLANTED not in dump(walked.database_url)


def test_no_name_and_no_number_of_a_patient_stands_in_the_database(walked: Server) -> None:
    """What is planted in the fixtures (names, record numbers, birth dates) is sealed; keys stand apart."""
    of_inference(walked.call(hook("jenny-m.patient-view")))
    patient = hook("jenny-m.patient-view")["prefetch"]["patient"]
    given = patient["name"][0]["given"][0]
    planted = [given, patient["identifier"][0]["value"], patient["birthDate"], "jenny-m", "hospital.example.org/fhir/P"]
    for value in planted:
        assert not list(files_with(walked, value)), value
    if walked.database_url:
        text = dump(walked.database_url)
        assert [value for value in planted if value in text] == []


def files_with(server: Server, text: str) -> Iterator[str]:
    wanted = text.encode()
    for path in [*server.data_dir.rglob("*"), server.errors]:
        if path.is_file() and wanted in path.read_bytes():
            yield path.name


def dump(url: str) -> str:
    """Every row of every table of a PostgreSQL database, bytes as their escaped text."""
    told = []
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("SET bytea_output = 'escape'")
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            rows: list[Any] = connection.execute(f'SELECT t::text FROM "{table}" t'.encode()).fetchall()
            told += [row[0] for row in rows]
    assert len(told) > 20
    return "\n".join(told)
