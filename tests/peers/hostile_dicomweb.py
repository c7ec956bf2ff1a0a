"""A DICOMweb server of our own that answers as no test of Orthanc can make it: any status, any bytes, any end."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

STUDY, SERIES = "1.2.3", "1.2.3.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
BOUNDARY = "b0undary"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@dataclass(slots=True)
class Answer:
    status: int = 200
    media: str = "application/dicom+json"
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Content-Length that is announced; None: that of the body."""
    endless: bytes = b""
    """After the body, over and over, until the other side has gone."""


@dataclass(slots=True)
class HostileWeb:
    """`objects`: SOP Instance UID -> file. `answers`: path pattern -> what is said instead, or None for the usual."""

    objects: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Callable[[Asked], Answer | None]] = field(default_factory=dict)
    stated: int | None = None
    page: int = 1000
    """Results that it gives at most."""
    pages: bool = True
    """It knows `offset`."""
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def answer(self, asked: Asked) -> Answer:
        with self.lock:
            self.asked.append(asked)
        for pattern, instead in self.answers.items():
            if re.fullmatch(pattern, asked.path) and (said := instead(asked)) is not None:
                return said
        return self._usual(asked)

    def _usual(self, asked: Asked) -> Answer:
        levels = asked.path.strip("/").split("/")
        if asked.path == "/studies":
            count = len(self.objects) if self.stated is None else self.stated
            return self._json(asked, [row(StudyInstanceUID=STUDY, NumberOfStudyRelatedInstances=count)])
        if levels[-1] == "series":
            return self._json(asked, [row(SeriesInstanceUID=SERIES)])
        if levels[-1] in ("instances", "metadata"):
            rows = [row(SOPInstanceUID=each, SeriesInstanceUID=SERIES, SOPClassUID=CT) for each in sorted(self.objects)]
            return self._json(asked, rows) if levels[-1] == "instances" else Answer(body=json.dumps(rows).encode())
        if "instances" in levels:
            found = self.objects.get(levels[-1])
            return Answer(404) if found is None else Answer(media=RELATED, body=related(found))
        return Answer(media=RELATED, body=related(*self.objects.values()))

    def _json(self, asked: Asked, rows: list[Any]) -> Answer:
        offset = int(asked.query.get("offset", "0")) if self.pages else 0
        size = min(int(asked.query.get("limit", "1000")), self.page)
        found = rows[offset : offset + size]
        return Answer(body=json.dumps(found).encode()) if found else Answer(204)


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


_TAGS = {
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "SOPClassUID": "00080016",
    "NumberOfStudyRelatedInstances": "00201208",
}


def row(**values: Any) -> dict[str, Any]:
    return {
        _TAGS[key]: {"vr": "IS" if isinstance(value, int) else "UI", "Value": [value]} for key, value in values.items()
    }


def related(*files: bytes, end: bytes = f"--{BOUNDARY}--".encode()) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + each + b"\r\n" for each in files) + end


@contextmanager
def serving(hostile: HostileWeb) -> Iterator[HostileWeb]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            said = hostile.answer(Asked(self.command, parts.path, query, headers, body))
            try:
                self.send_response(said.status)
                if said.status != 204:
                    self.send_header("Content-Type", said.media)
                for key, value in said.headers.items():
                    self.send_header(key, value)
                if not said.endless:
                    self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
                self.end_headers()
                self.wfile.write(said.body)
                while said.endless:
                    self.wfile.write(said.endless)
            except OSError:  # the other side has gone
                pass

        do_GET = do_POST = _serve

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hostile.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hostile
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
