"""Bad input, each line of it through a real server: a clear refusal that names what and where, no patient data;
nothing is lost, the process lives on, and the log still verifies (`servers` walks it at the end of each test)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.peers.load import renamed
from tests.peers.server import (
    PATIENT_VIEW,
    Server,
    finish,
    hook,
    of_inference,
    outcome_of,
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


def wrong_patients(server: Server) -> list[Any]:
    return [flag for flag in server.ask("work", "list", "--kind", "flag") if flag["reason"] == "wrong-patient"]


def test_another_patients_observation_refuses_the_whole_call(shared: Server) -> None:
    """The worst failure there is: 400, a Call on record as a safety event, a Flag, and no Inference."""
    count, flags = inferences(shared), wrong_patients(shared)
    body = planted()
    size_of(body)[0]["subject"] = {"reference": f"Patient/{NAME}"}
    answer = shared.call(body)
    said = outcome_of(answer, 400)
    assert "patient" in said
    assert "prefetch" in said
    said_nothing_of(shared, answer.text)
    assert inferences(shared) == count
    found = wrong_patients(shared)
    assert len(found) == len(flags) + 1
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
