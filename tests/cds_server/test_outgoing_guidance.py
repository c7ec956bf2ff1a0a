"""A result for a FHIR server: whose it is, what corrections and withdrawals put in its place, what the server says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.hl7v2.composed import Status
from adapters.readers.validation import validate
from adapters.sink import Taken
from adapters.sinks.fhir import FhirServer
from cds_server.app import Parts, build
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.destinations import Destination, check, destinations
from cds_server.outgoing import Composed, Composer, Held
from cds_server.outgoing_guidance import guidance_of
from cds_server.reproduce import Recorded, all_refs, load
from cds_server.results_due import Due
from cds_server.sending import Sender, prepare
from cds_server.settings import Settings
from cds_server.settings import load as settings_from
from models.errors import Misconfigured, PeerFailed
from tests.cds_server.conftest import UNHURRIED
from tests.cds_server.stores import JOINING
from tests.cds_server.test_registry import called
from tests.cds_server.test_sending import until

EHR = """
[[destination]]
name = "ehr"
kind = "fhir"
namespace = "sandbox"
url = "http://127.0.0.1:9/fhir"
plain_http = true
services = ["breast-cancer-prognosis"]
"""


def configured(data_dir: Path, text: str = EHR) -> Settings:
    config = data_dir / "cds.toml"
    config.write_text(text)
    url = f"sqlite:///{data_dir / 'cds.db'}"
    return settings_from(
        {"CDS_CONFIG": str(config)}, data_dir=data_dir, database_url=url, trust="open", deadline_ms=UNHURRIED
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    data_dir = tmp_path_factory.mktemp("outgoing") / "var"
    data_dir.mkdir(mode=0o700)
    settings = configured(data_dir)
    called(build(settings))
    built = build(settings)
    digest_backlog(built.store, JOINING, "system")
    yield built
    built.close()
    assert audit(data_dir, settings.database_url, deep=True).findings == ()


def composed(parts: Parts, recorded: Recorded, **more: Any) -> dict[str, Any]:
    composer = Composer(parts.store, parts.settings, parts.registry)
    made = composer.compose(composer.destinations["ehr"], recorded, **more)
    assert isinstance(made, Composed)
    assert made.binary is False
    bundle: dict[str, Any] = json.loads(made.message)
    assert validate(bundle) == []
    return bundle


def of(parts: Parts, word: str) -> Recorded:
    return next(r for r in (load(parts.store, ref) for ref in all_refs(parts.store.reads)) if word in r.judged.decode())


def urls(bundle: Mapping[str, Any]) -> list[str]:
    return [entry["request"]["url"] for entry in bundle["entry"]]


def test_a_result_is_one_transaction_of_puts_under_ids_of_ours(parts: Parts) -> None:
    recorded = of(parts, '"probability"')
    bundle = composed(parts, recorded)
    assert bundle["type"] == "transaction"
    kinds = [url.partition("/")[0] for url in urls(bundle)]
    assert kinds == ["RiskAssessment", "Observation", "Provenance"]
    assert all(recorded.ref in url for url in urls(bundle))
    assert composed(parts, recorded) == bundle  # the same bytes at every try
    risk = bundle["entry"][0]["resource"]
    assert risk["subject"]["reference"].startswith("Patient/")
    assert risk["status"] == "final"


def test_a_correction_keeps_the_ids_and_takes_back_what_it_no_longer_says(parts: Parts) -> None:
    first, newer = of(parts, '"probability"'), of(parts, '"abstained"')
    before = composed(parts, first)
    raw = json.dumps(before).encode()
    corrected = composed(parts, first, number="first-result", status=Status.CORRECTED, earlier=[raw])
    assert urls(corrected)[:2] == ["RiskAssessment/first-result", "Observation/first-result-mcode"]
    assert corrected["entry"][0]["resource"]["status"] == "corrected"
    instead = composed(parts, newer, number=first.ref, status=Status.CORRECTED, earlier=[raw])
    found = {
        entry["request"]["url"]: entry["resource"]["status"]
        for entry in instead["entry"]
        if "status" in entry["resource"]
    }
    assert found == {
        f"GuidanceResponse/{first.ref}": "data-required",
        f"RiskAssessment/{first.ref}": "entered-in-error",
        f"Observation/{first.ref}-mcode": "entered-in-error",
    }
    withdrawn = composed(parts, first, number=first.ref, status=Status.WITHDRAWN, earlier=[raw])
    states = {entry["resource"].get("status") for entry in withdrawn["entry"]}
    assert states == {"entered-in-error", None}
    assert f"Provenance/{first.ref}-withdrawn" in urls(withdrawn)


def test_nobody_is_guessed(parts: Parts) -> None:
    recorded = of(parts, '"probability"')
    composer = Composer(parts.store, parts.settings, parts.registry)
    destination = composer.destinations["ehr"]
    from cds_server.guidance import Guidance

    guidance = Guidance(parts.store, parts.registry, parts.settings, relative=True)
    (own,) = parts.store.reads.query("SELECT record_id FROM inference WHERE id = ?", (recorded.id,))[0]
    (record,) = parts.store.reads.records([own])
    other = replace(destination, namespace="elsewhere")
    held = guidance_of(guidance, other, recorded, [record], own, None, Status.FINAL, ())
    assert isinstance(held, Held)
    assert held.why == "the patient is not known in the namespace elsewhere"
    two = [replace(record, id=-1), replace(record, id=-2)]
    assert isinstance(guidance_of(guidance, destination, recorded, two, own, None, Status.FINAL, ()), Held)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (EHR.replace("url =", "# url ="), "url"),
        (EHR.replace("127.0.0.1:9", "ehr.example.org"), "auth"),
        (EHR.replace('services = ["breast-cancer-prognosis"]', ""), "services"),
        (EHR + 'ae_title = "X"\n', "ae_title"),
    ],
)
def test_what_is_wrong_with_it_stops_the_start(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(Misconfigured, match=what):
        check(configured(tmp_path, text))
    assert destinations(configured(tmp_path))["ehr"].fhir


class Ehr(BaseHTTPRequestHandler):
    """Takes each transaction, and keeps it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        taken = json.loads(body)
        self.server.taken.append((self.path, taken))  # type: ignore[attr-defined]
        said = json.dumps(response(*["201 Created"] * len(taken["entry"]))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_what_is_due_arrives_once_at_a_real_server(tmp_path: Path) -> None:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Ehr)
    server.taken = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = configured(tmp_path, EHR.replace("127.0.0.1:9", f"127.0.0.1:{server.server_port}"))
    parts = build(settings)
    try:
        prepare(settings, parts.store)
        called(parts)
        parts = build(settings)
        digest_backlog(parts.store, JOINING, "system")
        composer = Composer(parts.store, settings, parts.registry)
        due = Due(parts.store, composer, parts.registry, parts.decisions)
        while due.some():
            pass
        asyncio.run(sent(parts, composer.destinations["ehr"], server.taken, 8))
    finally:
        server.shutdown()
        server.server_close()
        parts.close()
    assert {path for path, _ in server.taken} == {"/fhir"}
    assert [problem for _, bundle in server.taken for problem in validate(bundle)] == []
    first = [bundle["entry"][0]["request"]["url"] for _, bundle in server.taken]
    assert len(set(first)) == len(first) == 8
    assert audit(tmp_path, settings.database_url, deep=True).findings == ()


async def sent(parts: Parts, destination: Destination, taken: list[Any], count: int) -> None:
    stopping = asyncio.Event()
    sending = asyncio.create_task(Sender(parts.store, destination, stopping).run())
    await asyncio.to_thread(until, lambda: len(taken) >= count)
    stopping.set()
    await sending


class Answer:
    def __init__(self, status: int, body: bytes) -> None:
        self.status, self._body, self.url, self.headers = status, body, "", dict[str, str]()

    async def body(self, limit: int) -> bytes:
        return self._body[:limit]

    def chunks(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


class Answering:
    """A server that says one thing, and keeps what it was sent."""

    def __init__(self, status: int, body: Any) -> None:
        self._answer = Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode())
        self.asked: list[tuple[str, str, dict[str, str], bytes | None]] = []

    @asynccontextmanager
    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> AsyncIterator[Answer]:
        self.asked.append((method, url, dict(headers or {}), content))
        yield self._answer

    def refuses(self, _: str) -> str | None:
        return None


def response(*statuses: str) -> dict[str, Any]:
    entries = [{"response": {"status": status}} for status in statuses]
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}


def deliver(status: int, body: Any) -> tuple[Any, Answering]:
    door = Answering(status, body)
    made: Callable[[], Any] = lambda: door  # noqa: E731
    sink = FhirServer("https://ehr.example.org/fhir/", made, lambda: {"Authorization": "Bearer t"})
    return asyncio.run(sink.deliver(b"{}")), door


@pytest.mark.parametrize(
    ("status", "body", "taken"),
    [
        (200, response("201 Created", "200 OK"), Taken.YES),
        (422, {}, Taken.NO),
        (412, {}, Taken.NO),
        (401, {}, Taken.LATER),
        (404, {}, Taken.LATER),
        (503, {}, Taken.LATER),
    ],
)
def test_the_servers_word_is_understood(status: int, body: Any, taken: Taken) -> None:
    told, door = deliver(status, body)
    assert (told.taken, told.code) == (taken, str(status))
    ((method, url, headers, content),) = door.asked
    assert (method, url, content) == ("POST", "https://ehr.example.org/fhir", b"{}")
    assert headers == {
        "Authorization": "Bearer t",
        "Accept": "application/fhir+json",
        "Content-Type": "application/fhir+json",
    }


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, {"resourceType": "Bundle"}),
        (200, response("409 Conflict")),
        (200, response("")),
        (302, {}),
    ],
)
def test_an_answer_that_says_nothing_is_no_yes(status: int, body: Any) -> None:
    with pytest.raises(PeerFailed):
        deliver(status, body)
