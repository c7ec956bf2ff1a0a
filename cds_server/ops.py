"""What operators ask over HTTP: alive, ready, metrics. (`ledger_doors`: the log.)

Metrics and ledger are for operators (`operators`): anybody else is answered 401, like at any other door.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import Response

from adapters.bulk.states import EXPORT
from adapters.dicom.states import PULL
from cds_server import wire
from cds_server.feed_counts import NOW, counts
from cds_server.hooks.reasons import category
from cds_server.jobs import pull_states
from cds_server.operators import Operators
from cds_server.registry import Registry
from cds_server.store.store import Store
from models.errors import CdsError
from models.nouns import ClinicianAction, Outcome

if TYPE_CHECKING:
    from cds_server.feeds import FeedSource
    from cds_server.hl7_sampling import Report
    from cds_server.ledger_doors import LedgerWatch
    from cds_server.outbox import Counted
    from cds_server.silence import Heard

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Where several workers keep their counts, so that any of them answers for all; prometheus_client reads it when it is
imported."""


@dataclass(frozen=True, slots=True)
class OfService:
    """The counters of one service, looked up once: what a call counts, it counts without a look-up."""

    answered: Counter
    refused: Counter
    failed: Counter
    cards: Counter
    degraded: Counter
    timeouts: Counter
    latency: Histogram


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
        self.overrides = Counter(
            "cds_overrides_total",
            "Overrides by HL7 category of their reason; other: a code that is neither HL7's nor ours; none: no code.",
            ("service", "category"),
            registry=self.registry,
        )
        self.suppressed = Counter(
            "cds_suppressed_cards_total",
            "Cards that alert hygiene held back, by rule.",
            ("service", "rule"),
            registry=self.registry,
        )
        self.degraded = Counter(
            "cds_degraded_total",
            "Answers for which something was missing or unreadable, and that say so.",
            ("service",),
            registry=self.registry,
        )
        self.shed = Counter(
            "cds_shed_calls_total", "Calls shed under overload, before they were read.", registry=self.registry
        )
        self.timeouts = Counter(
            "cds_timeouts_total",
            "Calls that were not answered in full within the deadline.",
            ("service",),
            registry=self.registry,
        )
        self.unauthenticated = Counter(
            "cds_unauthenticated_total", "Requests whose caller was not believed (401).", registry=self.registry
        )
        self.latency = Histogram(
            "cds_call_seconds",
            "Time of a hook call, from the checked request to its answer or its error.",
            ("service",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self.flags = self._gauge("cds_open_flags", "Open flags by kind.", "kind")
        self.entries = self._gauge("cds_ledger_entries", "Entries in the ledger.")
        self.undigested = self._gauge("cds_undigested_landings", "Deliveries of which no reader has seen every part.")
        self.unvalidated = self._gauge("cds_unvalidated_resources", "Resources that wait for R4 validation.")
        self.pulled = self._gauge(
            "cds_pull_cursor_seconds",
            "Time, in seconds since 1970, up to which a source was pulled without a fault.",
            "source",
        )
        self.silence = self._gauge("cds_feed_silence_seconds", "Since the last message of a feed.", "source")
        self.waiting = self._gauge(
            "cds_feed_waiting_messages", "Messages of a feed that wait for their digest.", "source"
        )
        self.checked = self._gauge(
            "cds_hl7_checked_messages", "Messages of a feed's sample that were held against their version.", "source"
        )
        self.unchecked = self._gauge(
            "cds_hl7_unchecked_messages", "Messages of a feed's sample that were not: no time, or a fault.", "source"
        )
        self.findings = self._gauge(
            "cds_hl7_findings", "Places of checked messages that do not keep to their version.", "source"
        )
        self.events = self._gauge(
            "cds_feed_events",
            "What happened on a feed since it is there: connections, messages, objects, answers, junk, what was odd.",
            "source",
            "event",
        )
        self.present = self._gauge(
            "cds_feed_present", "What there is of a feed at present: open associations.", "source", "what"
        )
        self.outgoing = self._gauge(
            "cds_send_results", "Results on their way to a destination, by state.", "destination", "state"
        )
        self.oldest = self._gauge(
            "cds_send_oldest_seconds", "Age of the oldest result that waits for a destination.", "destination"
        )
        self.pulls = self._gauge("cds_pull_jobs", "Jobs of the last run of a source, by state.", "source", "state")

        self.unsigned = self._gauge("cds_ledger_unsigned_entries", "Entries that no checkpoint covers.")
        self.unsigned_age = self._gauge("cds_ledger_unsigned_seconds", "Age of the oldest of them.")
        self.refused = self._gauge("cds_ledger_signing_refused", "1 where the log is not signed: something is wrong.")
        self.unwitnessed = self._gauge(
            "cds_witness_unsigned_entries", "Entries under no checkpoint that this witness signed.", "witness"
        )
        self.witness_trouble = self._gauge(
            "cds_witness_trouble", "1 where the last try with this witness failed.", "witness"
        )
        self.unanchored = self._gauge(
            "cds_anchor_unanchored_entries", "Entries that this anchor has no receipt for.", "anchor"
        )
        self.anchor_age = self._gauge("cds_anchor_receipt_seconds", "Age of the last receipt of this anchor.", "anchor")
        self.anchor_trouble = self._gauge(
            "cds_anchor_trouble", "1 where the last try with this anchor failed.", "anchor"
        )

    def ledger(self, watch: LedgerWatch) -> None:
        entries, seconds, refused, witnesses = watch.figures()
        self.unsigned.set(entries)
        self.unsigned_age.set(seconds)
        self.refused.set(refused)
        for name, (behind, trouble) in witnesses.items():
            self.unwitnessed.labels(name).set(behind)
            self.witness_trouble.labels(name).set(trouble)
        for name, (behind, age, trouble) in watch.anchored().items():
            self.unanchored.labels(name).set(behind)
            self.anchor_age.labels(name).set(age)
            self.anchor_trouble.labels(name).set(trouble)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        """What the store says when it is asked: of several workers, the last that asked is right."""
        return Gauge(name, what, labels, registry=self.registry, multiprocess_mode="mostrecent")

    def of(self, service: str) -> OfService:
        return OfService(
            answered=self.calls.labels(service, "answered"),
            refused=self.calls.labels(service, "refused"),
            failed=self.calls.labels(service, "failed"),
            cards=self.cards.labels(service),
            degraded=self.degraded.labels(service),
            timeouts=self.timeouts.labels(service),
            latency=self.latency.labels(service),
        )

    def acted(self, service: str, action: ClinicianAction) -> None:
        """Count what a clinician did, the first time that it is said."""
        self.actions.labels(service, action.outcome.value).inc()
        if action.outcome is Outcome.OVERRIDDEN:
            self.overrides.labels(service, category(action.reason)).inc()

    def text(self) -> bytes:
        """What `/metrics` answers: of all workers together, where there are several."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


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


def _sending(store: Store, destinations: Sequence[str]) -> Sequence[Counted]:
    if not destinations:
        return ()
    from cds_server.outbox import waiting

    return waiting(store, destinations)


def _heard(store: Store, feeds: Sequence[FeedSource]) -> Sequence[Heard]:
    if not feeds:
        return ()
    from cds_server.silence import heard

    return heard(store, feeds)


def _reports(store: Store, feeds: Sequence[FeedSource]) -> Sequence[Report]:
    if not feeds:
        return ()
    from cds_server.hl7_sampling import reports

    return reports(store)


def router(
    store: Store,
    registry: Registry,
    metrics: Metrics,
    operators: Operators,
    feeds: Sequence[FeedSource] = (),
    destinations: Sequence[str] = (),
    watch: LedgerWatch | None = None,
) -> APIRouter:
    began = time.monotonic()

    async def healthz(_: Request) -> Response:
        return wire.json_response({"status": "alive", "seconds": round(time.monotonic() - began)})

    async def readyz(_: Request) -> Response:
        checks = readiness(store, registry)
        ready = all(state == "ok" for state in checks.values())
        answer: dict[str, Any] = {"status": "ready" if ready else "not ready", "checks": checks}
        if watch is not None and (warnings := watch.warnings()):
            answer["warnings"] = dict(warnings)
        return wire.json_response(answer, 200 if ready else 503)

    async def metrics_text(request: Request) -> Response:
        operators.check(request)
        for kind, count in store.reads.open_flags().items():
            metrics.flags.labels(kind).set(count)
        metrics.entries.set(store.reads.head()[0])
        metrics.undigested.set(len(store.reads.undigested()))
        metrics.unvalidated.set(store.reads.unvalidated_count())
        for each in _heard(store, feeds):
            metrics.waiting.labels(each.source).set(each.waiting)
            if each.seconds is not None:
                metrics.silence.labels(each.source).set(each.seconds)
        for report in _reports(store, feeds):
            metrics.checked.labels(report.source).set(report.checked)
            metrics.unchecked.labels(report.source).set(report.passed_over + report.failed)
            metrics.findings.labels(report.source).set(report.times)
        for counted in counts(store):
            if counted.what.startswith(NOW):
                metrics.present.labels(counted.source, counted.what.removeprefix(NOW)).set(counted.times)
            else:
                metrics.events.labels(counted.source, counted.what).set(counted.times)
        for sent in _sending(store, destinations):
            metrics.outgoing.labels(sent.destination, "waiting").set(sent.waiting)
            metrics.outgoing.labels(sent.destination, "refused").set(sent.parked)
            metrics.oldest.labels(sent.destination).set(sent.seconds)
        if watch is not None:
            metrics.ledger(watch)
        for pulled in pull_states(store):
            if pulled.cursor is not None:
                metrics.pulled.labels(pulled.source).set(datetime.fromisoformat(pulled.cursor).timestamp())
            for state in (EXPORT if pulled.kind == "fhir-bulk" else PULL).moves:
                metrics.pulls.labels(pulled.source, state).set(pulled.states.get(state, 0))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    api = APIRouter(redirect_slashes=False)
    api.add_route("/healthz", healthz, methods=["GET"])
    api.add_route("/readyz", readyz, methods=["GET"])
    api.add_route("/metrics", metrics_text, methods=["GET"])
    return api
