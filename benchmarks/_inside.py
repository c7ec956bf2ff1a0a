"""Hook calls through the ASGI application, in this process, as uvicorn would bring them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from adapters.terminology import units
from benchmarks._bodies import SERVICE, Bodies
from cds_server import logs
from cds_server.app import Parts, build, create_app
from cds_server.settings import Settings, load


def settings(data_dir: Path) -> Settings:
    """Of an instance whose calls have a minute: what is measured here is work, and a late answer would be none."""
    return load({"CDS_DATA_DIR": str(data_dir), "CDS_TRUST": "open", "CDS_DEADLINE_MS": "60000"})


@contextlib.asynccontextmanager
async def application(data_dir: Path) -> AsyncIterator[tuple[Any, Parts]]:
    """The application, as prepared for its first call as a worker of `cds serve` is, and its parts."""
    parts = build(settings(data_dir))
    try:
        app = create_app(parts)
        units.prepare()
        parts.decisions.warm()
        yield app, parts
        await parts.decisions.settle()
    finally:
        parts.close()


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
    logs.configure("warning")

    async def once() -> bytes:
        async with application(data_dir) as (app, _):
            return await call(app, Bodies(1).one())

    answer: dict[str, Any] = json.loads(asyncio.run(once()))
    return answer
