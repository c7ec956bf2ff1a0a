"""A small CDS server over real HTTP, sound as it stands, and wrong in one way where a test spoils it."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOOKS = ("patient-view", "order-sign")
TOPIC = {"system": "https://example.org/topics", "code": "check"}
Answer = tuple[int, dict[str, str], bytes]


def a_service(hook: str) -> dict[str, Any]:
    return {
        "hook": hook,
        "id": f"sound-{hook}",
        "title": "Sound",
        "description": "A sound service",
        "prefetch": {"patient": "Patient/{{context.patientId}}"},
    }


def a_card(**changes: Any) -> dict[str, Any]:
    card = {
        "uuid": str(uuid.uuid4()),
        "summary": "Sound",
        "indicator": "info",
        "source": {"label": "Somebody", "topic": TOPIC},
        **changes,
    }
    return {name: value for name, value in card.items() if value is not ...}


def a_suggestion(*actions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"label": "Do it", "uuid": str(uuid.uuid4()), "actions": list(actions), **changes}


def outcome(status: int, text: str = "no") -> Answer:
    body = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "invalid", "diagnostics": text}],
    }
    return status, {"content-type": "application/fhir+json"}, json.dumps(body).encode()


def sent(body: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"content-type": "application/json", **named}, json.dumps(body).encode()


@dataclass(slots=True)
class Spoilt:
    """What the server does; a test replaces one of these."""

    discovery: Callable[[], Answer] = lambda: sent({"services": [a_service(hook) for hook in HOOKS]})
    cards: Callable[[], Any] = lambda: {"cards": [a_card()]}
    refusal: Callable[[bytes, str], Answer] = lambda _, what: outcome(400, what)
    lenient: frozenset[str] = frozenset()
    """What is wrong and taken all the same: json, hook, context, instance, type, service, twice, surrogate, nul."""
    lacking: Callable[[], Answer] | None = None
    """The answer to a call whose prefetch lacks."""
    feedback: Callable[[Any], Answer] | None = None
    preflight: dict[str, str] = field(default_factory=dict)
    slash: Callable[[], Answer] = lambda: outcome(404)
    seen: list[str] = field(default_factory=list)
    """Authorization headers, as they came."""

    def call(self, path: str, kind: str, raw: bytes) -> Answer:
        service = path.split("/")[2]
        known = {f"sound-{hook}": hook for hook in HOOKS}
        if service not in known and "service" not in self.lenient:
            return outcome(404, "no such service")
        if kind != "application/json" and "type" not in self.lenient:
            return outcome(415, "not JSON")
        wrong = self._wrong(raw, known.get(service, ""))
        if wrong and not wrong <= self.lenient:
            return self.refusal(raw, "the body is not what it should be")
        body = json.loads(raw) if "json" not in wrong else {}
        prefetch = body.get("prefetch", {}) if isinstance(body, dict) else {}
        lacks = not isinstance(prefetch.get("patient"), dict) or prefetch["patient"]["resourceType"] != "Patient"
        if lacks and self.lacking is not None:
            return self.lacking()
        return sent(self.cards())

    @staticmethod
    def _wrong(raw: bytes, hook: str) -> set[str]:
        found: set[str] = set()

        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            if len({name for name, _ in pairs}) != len(pairs):
                found.add("twice")
            return dict(pairs)

        def refuse(name: str) -> Any:
            raise ValueError(name)

        try:
            body = json.loads(raw, object_pairs_hook=once, parse_constant=refuse)
        except ValueError:
            return {"json"}
        if not isinstance(body, dict):
            return {"json"}
        found |= {name for name, mark in (("surrogate", rb"\ud800"), ("nul", rb"\u0000")) if mark in raw}
        found |= {"hook"} if body.get("hook") != hook else set()
        found |= (
            {"context"} if not isinstance(body.get("context"), dict) or "patientId" not in body["context"] else set()
        )
        try:
            uuid.UUID(str(body.get("hookInstance")))
        except ValueError:
            found.add("instance")
        return found

    def told(self, raw: bytes) -> Answer:
        if self.feedback is not None:
            return self.feedback(json.loads(raw))
        items = json.loads(raw).get("feedback", [])
        whole = all(
            "card" in item
            and "outcomeTimestamp" in item
            and item.get("outcome") in ("accepted", "overridden")
            and (item["outcome"] == "overridden" or "acceptedSuggestions" in item)
            for item in items
        )
        return (200, {}, b"") if whole else outcome(400)


@contextlib.contextmanager
def serving(spoilt: Spoilt) -> Iterator[str]:
    """The base URL of a server that behaves like this."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one segment: in two, each answer waits for the client's delayed ACK

        def do_GET(self) -> None:
            spoilt.seen.append(self.headers.get("authorization", ""))
            self._answer(spoilt.discovery() if self.path == "/cds-services" else spoilt.slash())

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            spoilt.seen.append(self.headers.get("authorization", ""))
            if self.path.endswith("/feedback"):
                self._answer(spoilt.told(raw))
            else:
                self._answer(spoilt.call(self.path, self.headers["content-type"], raw))

        def do_OPTIONS(self) -> None:
            self._answer((204, spoilt.preflight, b""))

        def _answer(self, answer: Answer) -> None:
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
