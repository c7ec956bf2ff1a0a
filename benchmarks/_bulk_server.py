"""A bulk server that is never what one waits for: files from disk by the kernel, or lines made as they leave.

Open, on loopback, HTTP/1.1 with connections kept. Each export is ready at the first poll, its manifest states counts.
Three kinds: a folder's NDJSON files, one large file of DocumentReferences, many files of one Observation each.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gzip
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Protocol

BASE = "/fhir"
KICK_OFF = re.compile(rf"{BASE}/(?:Patient/|Group/[\w.-]+/)?\$export")
COUNT = re.compile(rf"{BASE}/([A-Z][A-Za-z]+)")
TEXT = 19_600
"""Characters of base64 in a DocumentReference: a line has about 20 kB. A multiple of 4."""
AT_ONCE = 64
"""Lines that are put together before they are written."""
NDJSON = "application/fhir+ndjson"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the manifest."""

    type: str
    count: int
    size: int


class Export(Protocol):
    @property
    def entries(self) -> Sequence[Entry]: ...

    async def send(self, index: int, writer: asyncio.StreamWriter) -> None:
        """The bytes of a file, as many as its entry says."""


class Folder:
    """NDJSON files, unpacked once into `scratch`."""

    def __init__(self, paths: Sequence[Path], scratch: Path) -> None:
        self.entries: list[Entry] = []
        self._paths: list[Path] = []
        for path in paths:
            plain = scratch / path.name.removesuffix(".gz")
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as packed, plain.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            with plain.open("rb") as lines:
                count = sum(1 for line in lines if line.strip())
            self.entries.append(Entry(path.name.split(".")[0], count, plain.stat().st_size))
            self._paths.append(plain)

    async def send(self, index: int, writer: asyncio.StreamWriter) -> None:
        with self._paths[index].open("rb") as file:
            await asyncio.get_running_loop().sendfile(writer.transport, file)


class Large:
    """One file of about so many bytes, none of them kept: documents with text, each under an id of its own."""

    def __init__(self, size: int) -> None:
        chance = random.Random(5)
        words = ["patient", "denies", "chest", "pain", "follow-up", "in", "two", "weeks", "no", "change", "of", "dose"]
        self._text = base64.b64encode(" ".join(chance.choices(words, k=200_000)).encode())
        line = len(self._line(0))
        count = max(1, size // line)
        self.entries = [Entry("DocumentReference", count, count * line)]

    def _line(self, number: int) -> bytes:
        start = 4 * ((number * 977) % ((len(self._text) - TEXT) // 4))
        return (
            b'{"resourceType":"DocumentReference","id":"d%09d","meta":{"lastUpdated":"2026-11-01T08:00:00Z"},'
            b'"status":"current","type":{"coding":[{"system":"http://loinc.org","code":"11506-3"}]},'
            b'"subject":{"reference":"Patient/p%04d"},"date":"2026-11-01T08:00:00Z",'
            b'"content":[{"attachment":{"contentType":"text/plain","data":"%s"}}]}\n'
        ) % (number, number % 1000, self._text[start : start + TEXT])

    async def send(self, index: int, writer: asyncio.StreamWriter) -> None:
        count = self.entries[index].count
        for start in range(0, count, AT_ONCE):
            writer.write(b"".join(self._line(number) for number in range(start, min(start + AT_ONCE, count))))
            await writer.drain()


class Many:
    """Files of one line."""

    def __init__(self, files: int) -> None:
        self.entries = [Entry("Observation", 1, len(self._line(number))) for number in range(files)]

    def _line(self, number: int) -> bytes:
        return (
            b'{"resourceType":"Observation","id":"o%09d","meta":{"lastUpdated":"2026-11-01T08:00:00Z"},'
            b'"status":"final","code":{"coding":[{"system":"http://loinc.org","code":"29463-7"}]},'
            b'"subject":{"reference":"Patient/p%04d"},"effectiveDateTime":"2026-11-01T08:00:00Z",'
            b'"valueQuantity":{"value":%d.5,"unit":"kg","system":"http://unitsofmeasure.org","code":"kg"}}\n'
        ) % (number, number % 1000, 50 + number % 50)

    async def send(self, index: int, writer: asyncio.StreamWriter) -> None:
        writer.write(self._line(index))


class Server:
    def __init__(self, export: Export, port: int) -> None:
        self._export = export
        self._origin = f"http://127.0.0.1:{port}"
        self._totals = Counter[str]()
        for entry in export.entries:
            self._totals[entry.type] += entry.count
        files = f"{self._origin}{BASE}/files"
        manifest = {
            "transactionTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": f"{self._origin}{BASE}/$export",
            "requiresAccessToken": False,
            "output": [
                {"type": entry.type, "url": f"{files}/{index}", "count": entry.count}
                for index, entry in enumerate(export.entries)
            ],
            "error": [],
        }
        self._manifest = json.dumps(manifest).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?im)^content-length:\s*(\d+)", head)
                if length:
                    await reader.readexactly(int(length[1]))
                method, target, _ = head.split(" ", 2)
                await self._answer(method, target.partition("?")[0], writer)
                await writer.drain()
        writer.close()

    async def _answer(self, method: str, path: str, writer: asyncio.StreamWriter) -> None:
        file = re.fullmatch(rf"{BASE}/files/(\d+)", path)
        if file and int(file[1]) < len(self._export.entries):
            index = int(file[1])
            writer.write(_head(200, self._export.entries[index].size, f"Content-Type: {NDJSON}"))
            await writer.drain()
            await self._export.send(index, writer)
        elif KICK_OFF.fullmatch(path):
            writer.write(_head(202, 0, f"Content-Location: {self._origin}{BASE}/status/1"))
        elif path == f"{BASE}/status/1":
            ready = b"" if method == "DELETE" else self._manifest
            writer.write(_head(200 if ready else 202, len(ready), "Content-Type: application/json") + ready)
        elif path == "/healthz":
            writer.write(_head(200, 2) + b"ok")
        elif path == f"{BASE}/metadata":
            writer.write(_json(200, _capabilities()))
        elif counted := COUNT.fullmatch(path):
            bundle = {"resourceType": "Bundle", "type": "searchset", "total": self._totals[counted[1]]}
            writer.write(_json(200, bundle))
        else:
            writer.write(_json(404, {"resourceType": "OperationOutcome", "issue": [_NOT_FOUND]}))


_NOT_FOUND = {"severity": "error", "code": "not-found"}


def _head(status: int, length: int, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} OK", f"Content-Length: {length}", f"Date: {formatdate(usegmt=True)}", *headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _json(status: int, resource: dict[str, object]) -> bytes:
    body = json.dumps(resource).encode()
    return _head(status, len(body), "Content-Type: application/fhir+json") + body


def _capabilities() -> dict[str, object]:
    operation = {"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export|2.0.0"}
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-01",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "software": {"name": "bench"},
        "rest": [{"mode": "server", "operation": [operation]}],
    }


async def _run(export: Export, port: int) -> None:
    server = await asyncio.start_server(Server(export, port).serve, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="a fast bulk server")
    parser.add_argument("--port", type=int, required=True)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--paths", type=Path, nargs="+", help="NDJSON files, plain or gzip, by type")
    kind.add_argument("--bytes", type=int, help="of one large file")
    kind.add_argument("--files", type=int, help="of one line each")
    parser.add_argument("--scratch", type=Path, help="folder for unpacked files")
    args = parser.parse_args()
    export: Export
    if args.paths:
        export = Folder(args.paths, args.scratch)
    elif args.bytes:
        export = Large(args.bytes)
    else:
        export = Many(args.files)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(export, args.port))


if __name__ == "__main__":
    main()
