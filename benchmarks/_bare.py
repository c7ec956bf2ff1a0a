"""The least that a server can do with a hook request: parse the body, answer as many bytes.

FastAPI, run by uvicorn with the very settings of `cds serve`.
"""

from __future__ import annotations

import argparse

from fastapi import FastAPI, Request
from fastapi.responses import Response

from cds_server.serve import run_app


def create_app(answer_bytes: int) -> FastAPI:
    app = FastAPI()
    answer = (b'{"cards":[],"padding":"%s"}' % (b"x" * answer_bytes))[: answer_bytes - 2] + b'"}'

    @app.post("/cds-services/{service}")
    async def call(request: Request) -> Response:
        await request.json()
        return Response(answer, media_type="application/json")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="a bare FastAPI route")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer-bytes", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    run_app(create_app(args.answer_bytes), "127.0.0.1", args.port, processes=args.processes)


if __name__ == "__main__":
    main()
