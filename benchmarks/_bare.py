"""A bare FastAPI route: parse a hook request, answer as many bytes as ours; nothing is looked at, scored or recorded.

`/cds-services/{service}` is written as FastAPI's own tutorial writes a route: the body is a model, the answer is
returned as the object that it is. `/least/{service}` is the least that a server can do: the body is parsed and left
alone, the answer is bytes made ahead. Both run under uvicorn with the very settings of `cds serve`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel

from cds_server.serve import run_app

LEAST = "/least/breast-cancer-prognosis"


class Call(BaseModel):
    """The envelope of a hook request (CDS Hooks 2.0, "HTTP Request")."""

    hook: str
    hookInstance: str
    context: dict[str, Any]
    fhirServer: str | None = None
    fhirAuthorization: dict[str, Any] | None = None
    prefetch: dict[str, Any] | None = None
    extension: dict[str, Any] | None = None


def create_app(answer: bytes) -> FastAPI:
    app = FastAPI()
    given = json.loads(answer)

    @app.post("/cds-services/{service}")
    async def call(service: str, body: Call):  # type: ignore[no-untyped-def]  # as the tutorial has it
        return given

    @app.post("/least/{service}")
    async def least(request: Request) -> Response:
        await request.json()
        return Response(answer, media_type="application/json")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="a bare FastAPI route")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", type=Path, required=True, help="file of the answer, JSON")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    run_app(create_app(args.answer.read_bytes()), "127.0.0.1", args.port, processes=args.processes)


if __name__ == "__main__":
    main()
