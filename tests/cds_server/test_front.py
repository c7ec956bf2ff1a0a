"""What goes straight to its door is answered as FastAPI would have answered it, to the last header."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Message

from cds_server import wire
from cds_server.app import build, create_app
from cds_server.front import Front
from cds_server.logs import REQUEST_ID
from cds_server.requests import Cors, Requests
from cds_server.settings import load
from models.errors import NotAllowed, Overloaded, Unauthenticated

ORIGIN = b"https://ehr.example.org"
GIVEN = b"0123456789abcdef0123456789ABCDEF"
NAMED = "Jane-Doe-1965"
PATH = "/cds-services/one"


async def answer(request: Request) -> Response:
    _, body = await wire.read_json(request, 100)
    problem = {"no": NotAllowed("may not"), "many": Overloaded("too many"), "who": Unauthenticated(cause="no token")}
    if body["how"] == "crash":
        raise KeyError(NAMED)
    if body["how"] in problem:
        raise problem[body["how"]]
    return wire.json_response({"door": request.path_params["door"], "id": REQUEST_ID.get(), **body})


@pytest.fixture
def front() -> Front:
    app = Front(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_route("/cds-services/{door}", answer, methods=["POST"], name="door")
    wire.install(app)
    app.add_middleware(Cors, origins=frozenset([ORIGIN.decode()]))
    app.add_middleware(Requests)
    app.straight("door", door="one")
    return app


def asked(app: Any, messages: list[Message], path: str = PATH, method: str = "POST", **headers: Any) -> list[Message]:
    """What is sent for a request of these messages, after which the client is gone."""
    sent: list[Message] = []
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    given = {"content_type": b"application/json", "x_request_id": GIVEN, **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value) for name, value in given.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent


def whole(body: bytes) -> list[Message]:
    return [{"type": "http.request", "body": body, "more_body": False}]


@pytest.mark.parametrize(
    ("messages", "headers", "status"),
    [
        (whole(b'{"how":"well"}'), {}, 200),
        (whole(b'{"how":"well"}'), {"origin": ORIGIN}, 200),
        (whole(b'{"how":"well"}'), {"origin": b"https://elsewhere.example.org"}, 200),
        ([{"type": "http.request", "body": b'{"how":', "more_body": True}, *whole(b'"well"}')], {}, 200),
        (whole(b'{"how":"no"}'), {"origin": ORIGIN}, 403),
        (whole(b'{"how":"many"}'), {}, 503),
        (whole(b'{"how":"who"}'), {}, 401),
        (whole(b'{"how":"crash"}'), {"origin": ORIGIN}, 500),
        (whole(b'{"how":"a","how":"b"}'), {}, 400),
        (whole(b""), {}, 400),
        (whole(b" " * 101), {}, 413),
        (whole(b"{}"), {"content_length": b"101"}, 413),
        (whole(b"{}"), {"content_type": b"text/plain"}, 415),
        (whole(b"{}"), {"content_encoding": b"gzip"}, 415),
        ([], {}, None),
        ([{"type": "http.request", "body": b'{"how":', "more_body": True}], {}, None),
    ],
)
def test_both_ways_answer_alike(
    front: Front, messages: list[Message], headers: dict[str, Any], status: int | None, caplog: Any
) -> None:
    """None: the client went away, and nobody is answered."""

    async def framework(*args: Any) -> None:
        await FastAPI.__call__(front, *args)

    with caplog.at_level(logging.DEBUG):
        straight, through = asked(front, messages, **headers), asked(framework, messages, **headers)
    assert straight == through
    assert [each["status"] for each in straight[:1]] == ([] if status is None else [status])
    assert NAMED not in caplog.text
    if straight:
        assert (b"x-request-id", GIVEN) in straight[0]["headers"]
    if status == 200:
        assert straight[1]["body"] == b'{"door":"one","id":"%s","how":"well"}' % GIVEN


@pytest.mark.parametrize(
    ("path", "method", "status"), [(PATH, "GET", 405), ("/cds-services/two", "POST", 200), (PATH + "/", "POST", 404)]
)
def test_everything_else_is_the_frameworks(front: Front, path: str, method: str, status: int) -> None:
    assert asked(front, whole(b'{"how":"well"}'), path, method)[0]["status"] == status


def test_a_page_may_ask_before_it_calls(front: Front) -> None:
    (start, _) = asked(front, [], PATH, "OPTIONS", origin=ORIGIN, access_control_request_method=b"POST")
    assert start["status"] == 204
    assert (b"access-control-allow-origin", ORIGIN) in start["headers"]


def test_what_goes_straight_does_not_come_through_the_framework(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastAPI, "__call__", None)
    assert asked(front, whole(b'{"how":"well"}'))[0]["status"] == 200
    with pytest.raises(TypeError):
        asked(front, whole(b'{"how":"well"}'), "/cds-services/two")


def test_calls_of_every_service_go_straight(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = build(load({"CDS_DATA_DIR": str(data_dir), "CDS_TRUST": "open"}))
    try:
        app = create_app(parts)
        monkeypatch.setattr(FastAPI, "__call__", None)
        client = TestClient(app, client=("127.0.0.1", 5000))
        for service in parts.registry.service_ids():
            told = client.post(f"/cds-services/{service}", json={"hook": "patient-view"})
            assert (told.status_code, told.json()["issue"][0]["code"]) == (400, "required")
    finally:
        parts.close()
