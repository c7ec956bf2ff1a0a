"""The composition root: the only place that knows how the parts fit together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.requests import Request

from cds_server import __version__, ops, wire
from cds_server.decisions import Decisions, Recorded
from cds_server.hooks.context import HookRequest
from cds_server.hooks.routes import Answer, Caller, router
from cds_server.hooks.service import ServiceSpec
from cds_server.hooks.trust import Trust
from cds_server.logs import log
from cds_server.registry import Registry
from cds_server.services import all_services
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import CdsError
from models.nouns import ClinicianAction
from models.shelf import SHIPPED, Shelf


@dataclass(frozen=True, slots=True)
class Parts:
    """The server, taken apart."""

    settings: Settings
    store: Store
    registry: Registry
    decisions: Decisions
    trust: Trust
    metrics: ops.Metrics

    def close(self) -> None:
        self.store.close()


def build(settings: Settings, actor: str = "system") -> Parts:
    """Open the store, find the models, pin the defaults of a new instance."""
    store = Store.open(settings.data_dir, settings.database_url)
    registry = Registry(store, Shelf((SHIPPED, *settings.model_roots)), all_services())
    registry.pin_defaults(actor)
    return Parts(settings, store, registry, Decisions(store, settings, registry), Trust(settings), ops.Metrics())


class Desk:
    """What the CDS Hooks doors ask for: trust, then decisions, counted and logged."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def services(self) -> Sequence[ServiceSpec]:
        return self._parts.registry.specs

    async def admit(self, request: Request) -> Caller:
        return self._parts.trust.admit(request)

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller) -> Answer:
        metrics, began = self._parts.metrics, time.perf_counter()
        try:
            answer = await self._parts.decisions.call(spec, request, caller)
        except Recorded as recorded:
            metrics.calls.labels(spec.id, "refused").inc()
            raise recorded.error from None
        except CdsError as error:
            metrics.calls.labels(spec.id, "failed" if error.status >= 500 else "refused").inc()
            await self.refused(spec.id, request, caller, error)
            raise
        except Exception:
            metrics.calls.labels(spec.id, "failed").inc()
            await self.refused(spec.id, request, caller, CdsError("the server failed on this request"))
            raise
        metrics.calls.labels(spec.id, "answered").inc()
        metrics.cards.labels(spec.id).inc(len(answer.cards))
        metrics.latency.labels(spec.id).observe(time.perf_counter() - began)
        return answer

    async def refused(self, service: str, request: HookRequest | None, caller: Caller, error: CdsError) -> None:
        """Put an error answer on record; where even that fails the answer stays the same, and the log has it."""
        log().warning("call refused", service=service, status=error.status, what=error.what, where=error.where)
        try:
            await self._parts.decisions.refuse(service, request, caller, error)
        except CdsError as failure:
            log().error("refusal not recorded", service=service, what=failure.what)

    async def feedback(self, service: str, actions: Sequence[ClinicianAction], caller: Caller) -> Sequence[int]:
        numbers = await self._parts.decisions.feedback(service, actions, caller)
        for action in actions:
            self._parts.metrics.actions.labels(service, action.outcome.value).inc()
        return numbers


def create_app(parts: Parts) -> FastAPI:
    """The ASGI application over built parts; closes them when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        parts.close()

    app = FastAPI(
        title="Clinical decision-support integration server",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    for doors in (
        router(Desk(parts), max_body=parts.settings.max_body),
        ops.router(parts.store, parts.registry, parts.metrics),
    ):
        app.router.routes.extend(doors.routes)  # plain routes: FastAPI's own nesting of routers costs a tenth of a call
    wire.install(app)
    return app
