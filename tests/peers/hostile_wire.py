"""What the hostile bulk server says on the wire: routes, statuses and bytes, as its switches want them."""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from tests.peers.hostile_behaviours import outcome

if TYPE_CHECKING:
    from tests.peers.hostile_bulk import File, HostileBulk, Job

_ISSUES = {503: "transient", 429: "throttled", 500: "exception", 404: "not-found", 410: "deleted", 401: "login"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    token: str | None
    """The bearer token that came along."""


def serving(peer: HostileBulk, port: int = 0) -> ThreadingHTTPServer:
    """Bound to a port, or to a free one; whoever asked lets it run."""
    return _Server(("127.0.0.1", port), type("Bound", (_Handler,), {"peer": peer}))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    peer: HostileBulk

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_any(self) -> None:
        if self.peer.stopped:  # a connection that was kept open
            self.close_connection = True
            return
        at = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        kind, _, token = headers.get("authorization", "").partition(" ")
        shown = token if kind.lower() == "bearer" else None
        asked = Asked(self.command, at.path, parse_qs(at.query), headers, body, shown)
        self.peer.asked.append(asked)
        self._route(asked, [step for step in at.path.split("/") if step])

    do_GET = do_POST = do_DELETE = do_any

    def _route(self, asked: Asked, steps: list[str]) -> None:
        match steps:
            case ["token"]:
                self._json(200, self.peer.token(dict(parse_qsl(asked.body.decode()))))
            case ["fhir", ".well-known", "smart-configuration"]:
                self._json(200, _smart(self.peer.origin))
            case ["fhir", "metadata"]:
                self._json(200, self.peer.statement())
            case ["file", job, name]:
                self._file(asked, job, int(name.partition(".")[0]))
            case _ if not self.peer.lets_in(asked.token):
                self._refuse_token()
            case ["fhir", "$export"]:
                self._kick_off(asked, "system", None)
            case ["fhir", "Patient", "$export"]:
                self._kick_off(asked, "patient", None)
            case ["fhir", "Group", group, "$export"] if group in self.peer.groups:
                self._kick_off(asked, "group", group)
            case ["fhir", name] if asked.method == "GET" and "_summary" in asked.query:
                total = len(self.peer.resources.get(name, ()))
                self._json(200, {"resourceType": "Bundle", "type": "searchset", "total": total})
            case ["status", job]:
                self._status(asked, self.peer.jobs.get(job))
            case _:
                self._refuse(404)

    # -- kick-off ------------------------------------------------------------------------------------------------------

    def _kick_off(self, asked: Asked, level: str, group: str | None) -> None:
        does = self.peer.does
        if asked.method == "GET" and does.stu4:
            self._refuse(405)
        elif self.peer.first("kick-off", does.busy):
            self._refuse(429, **({"Retry-After": does.retry_after} if does.retry_after else {}))
        else:
            parameters = asked.query if asked.method == "GET" else _parameters(asked.body)
            if does.refused in parameters:
                text = f"the parameter {does.refused} is not supported"
                self._json(400, outcome("error", "not-supported", text))
                return
            job = self.peer.begin(level, group, parameters, f"{self.peer.origin}{self.path}")
            self.peer.share(job)
            location = f"{'' if does.relative_location else self.peer.origin}/status/{job.id}"
            self._send(202, b"", {"Content-Location": does.location if does.location is not None else location})

    # -- status --------------------------------------------------------------------------------------------------------

    def _status(self, asked: Asked, job: Job | None) -> None:
        does = self.peer.does
        if job is None or (job.over and does.forgets):
            self._refuse(404)
        elif asked.method == "DELETE":
            if does.delete_status < 300:
                del self.peer.jobs[job.id]
            self._send(does.delete_status, b"", {})
        elif does.redirect_status is not None:
            self._send(307, b"", {"Location": f"{does.redirect_status.origin}{self.path}"})
        else:
            self._poll(asked, job)

    def _poll(self, asked: Asked, job: Job) -> None:
        does = self.peer.does
        status, page = next(job.polls, 200), int(asked.query.get("page", ["0"])[0])
        wait = {"Retry-After": does.retry_after} if does.retry_after else {}
        if status == 202:
            self._send(202, b"", wait | ({"X-Progress": does.progress} if does.progress else {}))
        elif status != 200:
            self._refuse(status, **(wait if status in (429, 503) else {}))
        elif does.manifest is not None:
            self._send(200, does.manifest, {"Content-Type": "application/json"})
        else:
            last = not job.partial or page + 1 >= len(job.files)
            job.over = last
            self._json(200 if last else 202, self.peer.manifest(job, page))

    # -- files ---------------------------------------------------------------------------------------------------------

    def _file(self, asked: Asked, job_id: str, number: int) -> None:
        does, job = self.peer.does, self.peer.jobs.get(job_id)
        if does.redirect_files is not None:
            self._send(307, b"", {"Location": f"{does.redirect_files.origin}{self.path}"})
        elif (does.storage or not does.requires_token) and asked.token is not None:
            self._refuse(400)
        elif not does.storage and does.requires_token and not self.peer.lets_in(asked.token):
            self._refuse_token()
        elif job is None or number >= len(job.files):
            self._refuse(404)
        elif self.peer.first("file", does.busy_files):
            self._refuse(429, **({"Retry-After": does.retry_after} if does.retry_after else {}))
        elif not self._is_good(job, int(asked.query["signature"][0])):
            self._refuse(403)
        else:
            self._bytes(job.files[number])

    def _is_good(self, job: Job, signature: int) -> bool:
        lasts = self.peer.does.links_last
        if lasts is None:
            return True
        with self.peer._lock:
            if signature != job.signature:
                return False
            job.served += 1
            return job.served <= lasts

    def _bytes(self, file: File) -> None:
        does, headers = self.peer.does, {"Content-Type": "application/fhir+ndjson"}
        if file.huge:
            self._stream(file.huge, headers)
        elif does.bomb:
            self._send(200, _bomb(), headers | {"Content-Encoding": "gzip"})
        elif does.gzip or does.damaged_gzip:
            packed = gzip.compress(file.body, 1)
            packed = packed[:-8] + b"\0" * 8 if does.damaged_gzip else packed
            self._send(200, packed, headers | {"Content-Encoding": "gzip"})
        elif self.peer.first("cut off", does.cut_off):
            self._send(200, file.body[: len(file.body) // 2], headers, announced=len(file.body))
        elif does.slow:
            self._halves(file.body, headers, does.slow)
        else:
            self._send(200, file.body, headers)

    def _stream(self, size: int, headers: Mapping[str, str]) -> None:
        """About so many bytes of Observations that differ, never more than one block of them at a time."""
        self.send_response(200)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        sent, numbers = 0, itertools.count()
        while sent < size:
            block = b"".join(_observation(next(numbers)) for _ in range(1000))
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
            sent += len(block)
        self.wfile.write(b"0\r\n\r\n")

    def _halves(self, body: bytes, headers: Mapping[str, str], seconds: float) -> None:
        half = len(body) // 2
        self._send(200, body[:half], headers, announced=len(body))
        self.wfile.flush()
        time.sleep(seconds)
        self.wfile.write(body[half:])

    # -- answers -------------------------------------------------------------------------------------------------------

    def _refuse_token(self) -> None:
        if self.peer.does.bare_400:
            self._send(400, b"", {})
        else:
            self._refuse(401)

    def _refuse(self, status: int, **headers: str) -> None:
        severity = "warning" if _ISSUES.get(status) == "transient" else "error"
        body = json.dumps(outcome(severity, _ISSUES.get(status, "processing"), "Alma Weiss is not here")).encode()
        self._send(status, body, {"Content-Type": "application/fhir+json", **headers})

    def _json(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], *, announced: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or announced is not None

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


def _smart(origin: str) -> dict[str, Any]:
    return {
        "token_endpoint": f"{origin}/token",
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "capabilities": ["client-confidential-asymmetric", "permission-v2"],
        "code_challenge_methods_supported": ["S256"],
    }


def _parameters(body: bytes) -> dict[str, list[str]]:
    """The values of a Parameters resource by name, as GET would have them."""
    found: dict[str, list[str]] = {}
    for each in json.loads(body or b"{}").get("parameter", ()):
        value = next((value for name, value in each.items() if name.startswith("value")), None)
        text = value.get("reference", value.get("code")) if isinstance(value, dict) else value
        found.setdefault(each["name"], []).append(str(text).lower() if isinstance(text, bool) else str(text))
    return found


def _observation(number: int) -> bytes:
    return (
        b'{"resourceType":"Observation","id":"huge-%d","status":"final","code":{"coding":[{"system":'
        b'"http://loinc.org","code":"29463-7"}]},"subject":{"reference":"Patient/%d"},"effectiveDateTime":'
        b'"2026-01-01T00:00:00Z","valueQuantity":{"value":%d,"unit":"kg","code":"kg"}}\n'
        % (number, number % 1000, number % 150)
    )


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b"\0" * (64 << 20), 9)
