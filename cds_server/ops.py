"""What operators and auditors ask over HTTP: alive, ready, metrics, the entry behind a card.

Metrics and ledger need loopback (or, when it comes, a token): elsewhere they answer 401 like any other door.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from cds_server import wire
from cds_server.registry import Registry
from cds_server.settings import loopback
from cds_server.store.store import Store
from models.errors import CdsError, NotFound, Unauthenticated


class Metrics:
    """Counts per service; no label ever holds anything that came from outside."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "cds_calls_total", "Hook calls by service and outcome.", ("service", "outcome"), registry=self.registry
        )
        self.cards = Counter("cds_cards_total", "Cards answered.", ("service",), registry=self.registry)
        self.actions = Counter(
            "cds_actions_total", "Clinician actions recorded.", ("service", "outcome"), registry=self.registry
        )
        self.latency = Histogram(
            "cds_call_seconds",
            "Time of a hook call, from the checked request to the recorded answer.",
            ("service",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self.flags = Gauge("cds_open_flags", "Open flags by kind.", ("kind",), registry=self.registry)
        self.entries = Gauge("cds_ledger_entries", "Entries in the ledger.", registry=self.registry)
        self.undigested = Gauge(
            "cds_undigested_landings", "Deliveries of which no reader has seen every part.", registry=self.registry
        )
        self.unvalidated = Gauge(
            "cds_unvalidated_resources", "Resources that wait for R4 validation.", registry=self.registry
        )


def readiness(store: Store, registry: Registry) -> dict[str, str]:
    """Check name -> `ok` or what is wrong: the store takes writes, the pinned models load, the log can be read."""
    checks: dict[str, str] = {}

    def check(name: str, ask: Any) -> None:
        try:
            ask()
            checks[name] = "ok"
        except CdsError as error:
            checks[name] = str(error)

    check("store", store.check_writable)
    check("keys", store.vault.keys.check)
    for service, model in registry.needed():
        check(f"model {model} of {service}", lambda service=service, model=model: registry.scorer(service, model))
    check("ledger", store.reads.head)
    return checks


def router(store: Store, registry: Registry, metrics: Metrics) -> APIRouter:
    began = time.monotonic()

    async def healthz(_: Request) -> Response:
        return wire.json_response({"status": "alive", "seconds": round(time.monotonic() - began)})

    async def readyz(_: Request) -> Response:
        checks = readiness(store, registry)
        ready = all(state == "ok" for state in checks.values())
        return wire.json_response(
            {"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503
        )

    async def metrics_text(request: Request) -> Response:
        _only_loopback(request)
        for kind, count in store.reads.open_flags().items():
            metrics.flags.labels(kind).set(count)
        metrics.entries.set(store.reads.head()[0])
        metrics.undigested.set(len(store.reads.undigested()))
        metrics.unvalidated.set(store.reads.unvalidated_count())
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    async def proof(request: Request) -> Response:
        """One entry as it stands in the log: its body, its RFC 6962 leaf hash, its place in the chain."""
        _only_loopback(request)
        seq = request.path_params["seq"]
        entry = store.reads.entry(seq)
        if entry is None:
            raise NotFound("there is no such ledger entry")
        return wire.json_response(
            {"seq": seq, "leaf": entry.leaf.hex(), "chain": entry.chain.hex(), "entry": orjson.loads(entry.body)}
        )

    api = APIRouter(redirect_slashes=False)
    api.add_route("/healthz", healthz, methods=["GET"])
    api.add_route("/readyz", readyz, methods=["GET"])
    api.add_route("/metrics", metrics_text, methods=["GET"])
    api.add_route("/ledger/proof/{seq:int}", proof, methods=["GET"])
    return api


def _only_loopback(request: Request) -> None:
    if request.client is None or not loopback(request.client.host):
        raise Unauthenticated("authentication is required")
