"""One hook call through the ASGI application, in this process, as uvicorn would bring it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from benchmarks._bodies import SERVICE, Bodies
from cds_server import logs
from cds_server.app import build, create_app
from cds_server.settings import load


async def call(app: Any, body: bytes) -> bytes:
    """The answer's body. Raises AssertionError where the status is not 200."""
    received = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0) if received else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": SERVICE, "raw_path": SERVICE.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["status"] == 200, f"answered with {sent[0]['status']}"
    return b"".join(message.get("body", b"") for message in sent[1:])


def call_once(data_dir: Path) -> dict[str, Any]:
    """The answer to one call on a new instance, as its JSON."""
    unhurried = {"CDS_DATA_DIR": str(data_dir), "CDS_TRUST": "open", "CDS_DEADLINE_MS": "60000"}
    parts = build(load(unhurried))  # a first call makes what later ones find
    try:
        logs.configure("warning")
        answer: dict[str, Any] = json.loads(asyncio.run(call(create_app(parts), Bodies(1).one())))
    finally:
        parts.close()
    return answer
