"""Every door answers an error as an OperationOutcome, without stack, echo or redirect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from cds_server import wire
from models.errors import (
    CdsError,
    ContractBroken,
    DataUnavailable,
    DiskFull,
    Late,
    NotAllowed,
    Overloaded,
    WrongPatient,
)

LIMIT = 1000
NAMED = "Jane-Doe-1965"


async def echo(request: Request) -> Response:
    raw, body = await wire.read_json(request, LIMIT)
    return wire.json_response({"size": len(raw), "kind": type(body).__name__})


async def fail(request: Request) -> Response:
    raise {
        "refused": NotAllowed("this caller may not"),
        "missing": DataUnavailable("data did not come", where="prefetch: patient"),
        "disk": DiskFull("the disk is full"),
        "late": Late("the answer was not ready within the deadline"),
        "many": Overloaded("there are more calls than can be answered in time"),
        "broken": ContractBroken("is required", where="hook"),
    }[request.path_params["how"]]


async def crash(_: Request) -> Response:
    raise KeyError(NAMED)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = Starlette(
        routes=[
            Route("/echo", echo, methods=["POST"]),
            Route("/fail/{how}", fail),
            Route("/crash", crash),
        ]
    )
    wire.install(app)
    with TestClient(app, raise_server_exceptions=True) as client:
        yield client


def outcome(response) -> dict:
    assert response.headers["content-type"] == "application/fhir+json"
    body = response.json()
    assert body["resourceType"] == "OperationOutcome"
    (issue,) = body["issue"]
    assert issue["severity"] == "error"
    assert "Traceback" not in response.text
    return issue


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_is_taken(client: TestClient, media_type: str) -> None:
    answer = client.post("/echo", content=b'{"a": 1.50}', headers={"content-type": media_type})
    assert answer.status_code == 200
    assert answer.json() == {"size": 11, "kind": "dict"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{}", {"content-type": "text/plain"}, 415, "not-supported"),
        (b"{}", {"content-type": "application/jsonp"}, 415, "not-supported"),
        (b"{}", {}, 415, "not-supported"),
        (b"{}", {"content-type": "application/json; charset=utf-16"}, 415, "not-supported"),
        (b"\x1f\x8b", {"content-type": "application/json", "content-encoding": "gzip"}, 415, "not-supported"),
        (b" " * (LIMIT + 1), {"content-type": "application/json"}, 413, "too-long"),
        (b"", {"content-type": "application/json"}, 400, "structure"),
        (b'{"a": NaN}', {"content-type": "application/json"}, 400, "structure"),
        (b'{"a": 1, "a": 2}', {"content-type": "application/json"}, 400, "structure"),
        (b'{"name": "Jane-Doe-1965"', {"content-type": "application/json"}, 400, "structure"),
        (b'{"a": "\\ud800"}', {"content-type": "application/json"}, 400, "structure"),
        (b'{"a": "\\u0000"}', {"content-type": "application/json"}, 400, "structure"),
        (b"\xef\xbb\xbf{}", {"content-type": "application/json"}, 400, "structure"),
        ('{"a": "\u00e9"}'.encode("latin-1"), {"content-type": "application/json"}, 400, "structure"),
        ("{}".encode("utf-16"), {"content-type": "application/json"}, 400, "structure"),
        (b'{"a": ' + b"1" * 41 + b"}", {"content-type": "application/json"}, 400, "structure"),
        (b"[" * 65 + b"]" * 65, {"content-type": "application/json"}, 400, "structure"),
        (b"{} {}", {"content-type": "application/json"}, 400, "structure"),
        (b"{'a': 1}", {"content-type": "application/json"}, 400, "structure"),
        (b'{"a": 1,}', {"content-type": "application/json"}, 400, "structure"),
        (b'{"a": 1} // said so', {"content-type": "application/json"}, 400, "structure"),
        (b"{}", {"content-type": "application/fhir+json"}, 415, "not-supported"),
        (b"{}", {"content-type": "application/json, text/plain"}, 415, "not-supported"),
        (b"{}", {"content-type": "application/json; charset=iso-8859-1"}, 415, "not-supported"),
        (b"{}", {"content-type": "application/json", "content-encoding": "br"}, 415, "not-supported"),
        (b"{}", {"content-type": "application/json", "content-encoding": "identity, gzip"}, 415, "not-supported"),
    ],
)
def test_bad_body(client: TestClient, content: bytes, headers: dict, status: int, code: str) -> None:
    answer = client.post("/echo", content=content, headers=headers)
    assert answer.status_code == status
    assert outcome(answer)["code"] == code
    assert NAMED not in answer.text


def test_a_body_that_does_not_end_is_given_up(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that says it will send more, and does not, holds a place no longer than this."""
    monkeypatch.setattr(wire, "BODY_SECONDS", 0.05)

    async def half(scope: Scope, sent: list[Message]) -> None:
        first = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive() -> Message:
            for message in first:
                return message
            await asyncio.sleep(60)
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        await client.app(scope, receive, send)

    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/echo",
        "raw_path": b"/echo",
        "query_string": b"",
        "headers": [],
    }
    scope["headers"] = [(b"content-type", b"application/json")]
    asyncio.run(half(scope, sent))
    assert sent[0]["status"] == 408
    assert b'"code":"timeout"' in sent[1]["body"]


def test_a_stream_without_a_length_is_bounded(client: TestClient) -> None:
    answer = client.post("/echo", content=(b" " * 400 for _ in range(5)), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert outcome(answer)["code"] == "too-long"


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("refused", 403, "forbidden"),
        ("missing", 412, "incomplete"),
        ("disk", 503, "no-store"),
        ("late", 503, "timeout"),
        ("many", 503, "throttled"),
        ("broken", 400, "required"),
    ],
)
def test_errors_know_their_status(client: TestClient, how: str, status: int, code: str) -> None:
    answer = client.get(f"/fail/{how}")
    assert answer.status_code == status
    assert outcome(answer)["code"] == code
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/echo", 405), ("POST", "/echo/", 404), ("DELETE", "/crash", 405)],
)
def test_unknown_paths_and_methods(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, follow_redirects=False)
    assert answer.status_code == status
    outcome(answer)
    assert ("allow" in answer.headers) == (status == 405)


def test_a_crash_tells_nothing(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = client.get("/crash")
    assert answer.status_code == 500
    assert outcome(answer)["code"] == "exception"
    assert NAMED not in answer.text + caplog.text
    assert "unhandled KeyError at test_wire.py" in caplog.text


def test_an_outcome_names_what_and_where() -> None:
    error: CdsError = WrongPatient("a resource belongs to another patient", where="/prefetch/labs/entry/3/resource")
    (issue,) = wire.operation_outcome(error)["issue"]
    assert issue["code"] == "conflict"
    assert issue["diagnostics"].endswith("(at /prefetch/labs/entry/3/resource)")
