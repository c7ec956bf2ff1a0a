"""HealthChain with a service that returns one fixed card: nothing is read, scored or recorded, nobody is checked.

Run by the interpreter of the peers' own environment; imports nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import uvicorn
from healthchain.gateway import CDSHooksService, HealthChainAPI
from healthchain.models import Card, CDSRequest, CDSResponse

SERVICE = "breast-cancer-prognosis"
hooks = CDSHooksService()


@hooks.hook("patient-view", id=SERVICE)  # type: ignore[untyped-decorator]
def call(request: CDSRequest) -> CDSResponse:
    return CDSResponse(cards=[CARD])


def _card() -> Card:
    given = json.loads(Path(os.environ["CDS_BENCH_CARD"]).read_bytes())
    members = {name: given[name] for name in ("summary", "indicator", "detail")}
    return Card(**members, source={"label": given["source"]["label"]})


CARD = _card()
app = HealthChainAPI()
app.register_service(hooks)


@app.get("/healthz")  # type: ignore[untyped-decorator]
def healthz() -> dict[str, str]:
    return {"status": "ok"}


def main() -> None:
    parser = argparse.ArgumentParser(description="the neighbour")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    uvicorn.run(
        "benchmarks._neighbour:app",
        host="127.0.0.1",
        port=args.port,
        workers=args.processes,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
