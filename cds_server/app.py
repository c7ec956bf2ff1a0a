"""The composition root: the only place that knows how the parts fit together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request

from cds_server import __version__, keys, ledger_doors, openapi, ops, wire
from cds_server.access.log import Access
from cds_server.deadline import Clock, Gate
from cds_server.decisions import Decisions, Recorded
from cds_server.front import Front
from cds_server.hooks.context import HookRequest
from cds_server.hooks.routes import HOOK_CALL, Answer, Caller, router
from cds_server.hooks.service import ServiceSpec
from cds_server.hooks.trust import Trust
from cds_server.http import Outbound, authorities
from cds_server.logs import log
from cds_server.operators import Operators
from cds_server.questions.doors import QuestionDoors
from cds_server.registry import Registry
from cds_server.requests import Cors, Requests
from cds_server.services import all_services
from cds_server.settings import Settings
from cds_server.staff_doors import StaffDoors
from cds_server.store.store import Store
from models.errors import CdsError, Late, NotInTime, Unauthenticated
from models.nouns import ClinicianAction
from models.shelf import SHIPPED, Shelf
from smart_app import rendering

if TYPE_CHECKING:
    from cds_server.feeds import FeedSource


@dataclass(frozen=True, slots=True)
class Parts:
    """The server, taken apart."""

    settings: Settings
    store: Store
    registry: Registry
    decisions: Decisions
    trust: Trust
    metrics: ops.Metrics
    outbound: Outbound
    access: Access

    def close(self) -> None:
        self.store.close()


def build(settings: Settings, actor: str = "system") -> Parts:
    """Open the store, find the models, pin the defaults of a new instance."""
    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    registry = Registry(store, Shelf((SHIPPED, *settings.model_roots)), all_services(conformance=settings.conformance))
    registry.pin_defaults(actor)
    allowed = (url for ehr in settings.ehrs for url in ehr.allowed_fhir)
    outbound = Outbound(allowed, verify=authorities(settings.ca_file))
    decisions = Decisions(store, settings, registry, outbound)
    return Parts(
        settings, store, registry, decisions, Trust(settings, store), ops.Metrics(), outbound, Access(store, settings)
    )


class Desk:
    """What the CDS Hooks doors ask for: trust, then decisions, counted and logged."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._seconds = parts.settings.deadline_ms / 1000
        self._gate = Gate(self._seconds)
        self._counts = {service: parts.metrics.of(service) for service in parts.registry.service_ids()}

    def services(self) -> Sequence[ServiceSpec]:
        return self._parts.registry.specs

    def arrived(self) -> Clock:
        """The clock of a call that begins now. Errors: Overloaded, when it could not be answered in time."""
        try:
            self._gate.check()
        except NotInTime:
            self._parts.metrics.shed.inc()
            raise
        return Clock.start(self._seconds)

    async def admit(self, request: Request) -> Caller:
        try:
            return await self._parts.trust.admit(request)
        except Unauthenticated:
            self._parts.metrics.unauthenticated.inc()
            raise

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller, clock: Clock) -> Answer:
        counts, began = self._counts[spec.id], time.perf_counter()
        self._gate.inside += 1
        try:
            self._parts.trust.check(request, caller)
            answer = await self._parts.decisions.call(spec, request, caller, clock)
        except Recorded as recorded:
            counts.refused.inc()
            raise recorded.error from None
        except Unauthenticated:  # a token that another request used first: nothing of this call is on record
            self._parts.metrics.unauthenticated.inc()
            raise
        except Late as error:
            counts.failed.inc()
            counts.timeouts.inc()
            self._parts.decisions.later(self.refused(spec.id, request, caller, error))  # the answer goes now
            raise
        except CdsError as error:
            (counts.failed if error.status >= 500 else counts.refused).inc()
            await self.refused(spec.id, request, caller, error)
            raise
        except Exception:
            counts.failed.inc()
            await self.refused(spec.id, request, caller, CdsError("the server failed on this request"))
            raise
        finally:
            counts.latency.observe(time.perf_counter() - began)
            self._gate.leave(clock)
        counts.answered.inc()
        counts.cards.inc(len(answer.cards))
        if answer.degraded:
            counts.degraded.inc()
        for rule in answer.suppressed:
            self._parts.metrics.suppressed.labels(spec.id, rule).inc()
        return answer

    async def refused(self, service: str, request: HookRequest | None, caller: Caller, error: CdsError) -> None:
        """Put an error answer on record; where even that fails the answer stays the same, and the log has it."""
        log().warning("call refused", service=service, status=error.status, what=error.what, where=error.where)
        try:
            await self._parts.decisions.refuse(service, request, caller, error)
        except CdsError as failure:
            log().error("refusal not recorded", service=service, what=failure.what)

    async def feedback(self, service: str, actions: Sequence[ClinicianAction], caller: Caller) -> Sequence[int]:
        try:
            kept = await self._parts.decisions.feedback(service, actions, caller)
        except Unauthenticated:
            self._parts.metrics.unauthenticated.inc()
            raise
        for action, each in zip(actions, kept, strict=True):
            if each.fresh:
                self._parts.metrics.acted(service, action)
        return [each.seq for each in kept]


def _feeds(settings: Settings) -> Sequence[FeedSource]:
    if not settings.sources:
        return ()
    from cds_server.feeds import feed_sources  # nothing of it is loaded where nothing listens

    return list(feed_sources(settings).values())


def create_app(parts: Parts) -> FastAPI:
    """The ASGI application over built parts; closes them when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts.trust.start()
        yield
        await parts.trust.aclose()
        await staff.aclose()
        if smart is not None:
            await smart.aclose()
        if similar is not None:
            similar.close()
        await parts.decisions.settle()
        await parts.outbound.aclose()
        parts.close()

    app = Front(
        title="Clinical decision-support integration server",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    staff = StaffDoors(parts.settings, parts.store, parts.access)
    operators, watch = Operators(parts.settings, staff.sessions), ledger_doors.LedgerWatch(parts.store, parts.settings)
    for doors in (
        router(Desk(parts), max_body=parts.settings.max_body),
        ops.router(
            parts.store,
            parts.registry,
            parts.metrics,
            operators,
            _feeds(parts.settings),
            [each.name for each in parts.settings.destinations],
            watch,
        ),
        ledger_doors.router(parts.store, watch, operators),
        keys.router(keys.Keys(parts.store)),
        openapi.router(parts.registry.specs, parts.settings),
    ):
        app.router.routes.extend(doors.routes)  # plain routes: FastAPI's own nesting of routers costs a tenth of a call
    questions = QuestionDoors(parts.store, watch.checkpoints, operators, parts.access, staff.sessions)
    app.router.routes.extend(questions.routes())
    app.router.routes.extend(staff.routes())
    app.router.routes.extend(rendering.routes())
    smart, similar = None, None
    if staff.sessions is not None or any(ehr.app is not None for ehr in parts.settings.ehrs):
        from cds_server.smart.wiring import SmartApp  # loaded where somebody can open a case

        smart = SmartApp(parts.settings, parts.store, parts.access)
        app.router.routes.extend(smart.routes())
        from cds_server.desk.wiring import case_routes
        from cds_server.similar.wiring import SimilarPatients
        from cds_server.then_desk import then_routes

        known = (parts.store, parts.settings, parts.registry, parts.decisions, parts.access)
        similar = SimilarPatients(*known, smart.sessions)
        app.router.routes.extend(similar.routes())
        app.router.routes.extend(then_routes(parts, parts.settings, parts.access, smart.sessions))
        kept = (*known, watch.checkpoints)
        app.router.routes.extend(case_routes(*kept, smart.sessions, parts.metrics.acted))
    if staff.sessions is not None and smart is not None:
        from cds_server.board.wiring import board_routes

        app.router.routes.extend(
            board_routes(
                parts.store,
                parts.settings,
                parts.registry,
                parts.access,
                watch.checkpoints,
                staff.sessions,
                smart.sessions,
            )
        )
    if staff.sessions is not None:
        from cds_server.queue import pages  # what reads and sends again is loaded where somebody can ask for it

        app.router.routes.extend(pages(parts.store, parts.settings, parts.access, staff.sessions))
    rendering.offer(str(getattr(each, "path", "")) for each in app.router.routes)
    wire.install(app)
    if parts.settings.cors_origins:
        app.add_middleware(Cors, origins=parts.settings.cors_origins)
    app.add_middleware(Requests)
    for service in parts.registry.service_ids():
        app.straight(HOOK_CALL, service=service)
    return app
