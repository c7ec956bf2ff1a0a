"""In time or not at all: slow models, slow disks, too many calls, stops; none of them a trouble to its neighbours."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.deadline import Clock, Gate
from cds_server.panel import QUICK, Bench
from cds_server.reception import Known
from cds_server.settings import Settings
from cds_server.store import writer
from models.errors import NotFound, Overloaded
from models.modalities import expression
from models.scoring import Scorer
from models.shelf import Shelf
from tests.cds_server.stores import learn
from tests.cds_server.test_decisions import SERVICE, hook
from tests.peers import ROOT

NEWS = "/cds-services/deterioration-news2"
RECURRENCE = "breast-cancer-recurrence"


@pytest.fixture
def url(data_dir: Path) -> str:
    return f"sqlite:///{data_dir / 'cds.db'}"


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., tuple[TestClient, Parts]]]:
    opened: list[TestClient] = []

    def start_(**changes: Any) -> tuple[TestClient, Parts]:
        parts = build(replace(settings, **changes))
        parts.decisions.warm()
        client = TestClient(create_app(parts), base_url="http://127.0.0.1", client=("127.0.0.1", 5000))
        opened.append(client.__enter__())
        return client, parts

    yield start_
    for client in opened:
        client.__exit__(None, None, None)
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], threading.Event]]:
    """Makes a model think until the event is set."""
    judge = Scorer.judge
    release = threading.Event()

    def hold_(name: str) -> threading.Event:
        def slow(self: Scorer, snapshot: Any) -> Any:
            if self.model.name == name and snapshot.facts:
                release.wait(30)
            return judge(self, snapshot)

        monkeypatch.setattr(Scorer, "judge", slow)
        return release

    yield hold_
    release.set()


def slow_from_now(parts: Parts, name: str) -> None:
    """As after a call that took long."""
    bench = parts.decisions._bench
    for model, pace in bench._paces.items():
        if model.startswith(name + "@"):
            pace.longest = 1.0


def outcomes(parts: Parts) -> list[tuple[str, int]]:
    return [(row[0], row[1]) for row in parts.store.reads.query("SELECT outcome, status FROM call ORDER BY id")]


def genomic() -> dict[str, Any]:
    """A call whose record answers the fused model, too."""
    call = hook(2.5)
    subtype = {
        "resourceType": "Observation",
        "id": "pam50",
        "status": "final",
        "subject": {"reference": "Patient/jenny-m"},
    }
    (system, code) = sorted(expression.SUBTYPE.codes.codes)[0]
    subtype["code"] = {"coding": [{"system": system, "code": code}]}
    subtype["valueCodeableConcept"] = {"text": "LumA"}
    call["prefetch"]["observations"]["entry"].append({"resource": subtype})
    return call


# ---- slow models -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("cds-hooks_2.0", "27")
def test_a_slow_model_of_its_own_is_503_and_blocks_nobody(start: Any, hold: Any) -> None:
    client, parts = start(deadline_ms=1500)
    release = hold("predict-breast")
    slow_from_now(parts, "predict-breast")
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(client.post, SERVICE, json=hook(2.5))
        others = [client.post(NEWS, json=vital_signs()) for _ in range(3)]
        assert not slow.done()
        assert [other.status_code for other in others] == [200] * 3
        answer = slow.result()
    release.set()
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json()["issue"][0]["code"] == "timeout"
    client.portal.call(parts.decisions.settle)
    assert ("failed", 503) in outcomes(parts)
    assert 'cds_timeouts_total{service="breast-cancer-prognosis"} 1.0' in client.get("/metrics").text


def test_a_slow_model_beside_leaves_a_partial_answer_that_says_so(start: Any, hold: Any) -> None:
    client, parts = start(deadline_ms=2500)
    assert "Recurrence within five years" in client.post(SERVICE, json=genomic()).json()["cards"][0]["detail"]
    release = hold(RECURRENCE)
    slow_from_now(parts, RECURRENCE)
    (card,) = client.post(SERVICE, json=genomic()).json()["cards"]
    release.set()
    assert card["summary"].startswith("Estimated 10-year survival")
    assert "**Partial answer:** The model breast\N{HYPHEN-MINUS}cancer" in card["detail"].replace("&#45;", "-")
    assert "did not answer in time and had no part in this" in card["detail"]
    assert "Recurrence within five years" not in card["detail"]


@pytest.mark.parametrize(("clock", "quick"), [(time.monotonic, True), (time.thread_time, False)])
def test_a_model_is_slow_by_its_own_work_not_because_others_held_it_up(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float], quick: bool
) -> None:
    def judge(self: Scorer, snapshot: Any) -> None:
        until = clock() + 2 * QUICK
        while clock() < until:
            if quick:
                time.sleep(QUICK)

    monkeypatch.setattr(Scorer, "judge", judge)
    model, bench = Shelf().get("khorana"), Bench()
    scorer = Scorer(model, Shelf().path(model))
    bench.warm(scorer, Known(person="0", records=(), facts=(), at="2026-11-22T00:00:00.000000Z"))
    assert bench._pace(scorer).quick is quick


def test_a_quick_model_runs_where_the_call_runs(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = start()
    where: list[str] = []
    judge = Scorer.judge

    def watched(self: Scorer, snapshot: Any) -> Any:
        where.append(threading.current_thread().name)
        return judge(self, snapshot)

    monkeypatch.setattr(Scorer, "judge", watched)
    assert client.post(SERVICE, json=hook(2.5)).status_code == 200
    assert where
    assert not any(name.startswith("cds-model") for name in where)


# ---- slow disks ------------------------------------------------------------------------------------------------------


def test_a_record_that_comes_too_late_takes_its_cards_back(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes its time over the inference: the answer is 503 before, and the log says what was never sent."""
    client, parts = start(deadline_ms=1000)
    assert client.post(SERVICE, json=hook(2.5)).status_code == 200
    sync, stalled, release = writer._Group.sync, threading.Event(), threading.Event()

    def slow(group: Any) -> None:
        if any(isinstance(result, tuple) for _, result, _ in group.outcomes):  # the act of an inference
            stalled.set()
            release.wait(30)
        sync(group)

    monkeypatch.setattr(writer._Group, "sync", slow)
    answer = client.post(SERVICE, json=hook(2.5))
    assert stalled.is_set()
    assert answer.status_code == 503
    assert "cards" not in answer.text
    monkeypatch.setattr(writer._Group, "sync", sync)
    release.set()
    client.portal.call(parts.decisions.settle)
    kinds = [entry_kind(parts, row[0]) for row in parts.store.reads.query("SELECT seq FROM ledger_entry ORDER BY seq")]
    assert kinds.count("undelivered") == 1
    assert outcomes(parts)[-1] == ("failed", 503)


def entry_kind(parts: Parts, seq: int) -> str:
    entry = parts.store.reads.entry(seq)
    assert entry is not None
    return str(orjson.loads(entry.body)["kind"])


# ---- too many calls --------------------------------------------------------------------------------------------------


def test_the_gate_narrows_when_calls_take_long_and_opens_again() -> None:
    gate = Gate(0.5, first=20)

    def call(own: float, waited: float = 0.0) -> Clock:
        return Clock(time.monotonic() - own - waited, 0.5, waited)

    for _ in range(20):
        gate.enter()
    with pytest.raises(Overloaded):
        gate.check()
    assert gate.shed == 1
    gate.leave(call(own=0.4))
    assert gate.limit == 18
    gate.leave(call(own=0.4))  # one bad moment is one
    assert gate.limit == 18
    for _ in range(50):
        gate.leave(call(own=0.001))
        gate.enter()
    assert gate.limit > 18
    limit = gate.limit
    gate.leave(call(own=0.001, waited=0.45))  # a FHIR server was slow, we were not
    assert gate.limit >= limit
    gate.inside = 0
    for _ in range(200):
        gate._cut_at = float("-inf")
        gate.enter()
        gate.leave(call(own=0.4))
    assert gate.limit == Gate.LEAST


def test_what_is_too_much_is_shed_before_it_is_read(start: Any) -> None:
    client, parts = start()
    gate = desk_of(client)._gate
    gate.inside = gate.limit
    answer = client.post(SERVICE, content=b"this is not even read", headers={"Content-Type": "text/plain"})
    gate.inside = 0
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json()["issue"][0]["code"] == "throttled"
    assert outcomes(parts) == []
    assert "cds_shed_calls_total 1.0" in client.get("/metrics").text
    assert client.post(SERVICE, json=hook(2.5)).status_code == 200


def desk_of(client: TestClient) -> Any:
    (route,) = [route for route in client.app.routes if getattr(route, "path", "") == "/cds-services/{service}"]
    return next(
        cell.cell_contents for cell in route.endpoint.__closure__ if type(cell.cell_contents).__name__ == "Desk"
    )


def test_the_gate_counts_out_whom_it_counted_in(start: Any) -> None:
    """Answered, refused, broken: after each of them nobody is left inside."""
    client, _ = start()
    gate = desk_of(client)._gate
    for body in (hook(2.5), {**hook(2.5), "prefetch": {}}, {**hook(2.5), "hook": "order-sign"}, {}):
        client.post(SERVICE, json=body)
    assert gate.inside == 0


# ---- stopped ---------------------------------------------------------------------------------------------------------


def test_a_stop_in_the_middle_of_a_call_holds_its_cards_back(start: Any, hold: Any, settings: Settings) -> None:
    """Another process stops the service while the model thinks: what it thought is not shown."""
    client, parts = start()
    release = hold("predict-breast")
    slow_from_now(parts, "predict-breast")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, SERVICE, json=hook(2.5))
        while not parts.store.reads.query("SELECT 1 FROM landing"):
            time.sleep(0.01)
        other = build(settings)
        other.registry.switch("breast-cancer-prognosis", "stopped", "a test", "user:test")
        other.close()
        time.sleep(0.3)  # what a switch takes to be seen
        release.set()
        answer = waiting.result()
    assert (answer.status_code, answer.json()["cards"]) == (200, [])
    assert outcomes(parts) == [("stopped", 200)]
    assert parts.store.reads.query("SELECT COUNT(*) FROM inference") == [(0,)]


def test_a_stopped_model_silences_the_services_that_speak_by_it(start: Any) -> None:
    client, parts = start()
    switch = parts.registry.switch_model
    assert len(client.post(SERVICE, json=hook(2.5)).json()["cards"]) == 1
    seq = switch("predict-breast", "stopped", "recalled", "user:test")
    assert entry_kind(parts, seq) == "model-stopped"
    assert client.post(SERVICE, json=hook(2.5)).json()["cards"] == []
    assert outcomes(parts)[-1] == ("stopped", 200)
    switch("predict-breast", "started", None, "user:test")
    assert len(client.post(SERVICE, json=hook(2.5)).json()["cards"]) == 1
    version = parts.registry.pins()["breast-cancer-prognosis", "predict-breast"]
    switch(f"predict-breast@{version}", "stopped", None, "user:test")
    assert client.post(SERVICE, json=hook(2.5)).json()["cards"] == []
    with pytest.raises(NotFound):
        switch("nobody", "stopped", None, "user:test")


def test_a_stopped_model_beside_leaves_a_partial_answer_that_says_so(start: Any) -> None:
    client, parts = start()
    parts.registry.switch_model(RECURRENCE, "stopped", None, "user:test")
    (card,) = client.post(SERVICE, json=genomic()).json()["cards"]
    assert "was stopped and had no part in this" in card["detail"]
    assert "Recurrence within five years" not in card["detail"]


# ---- data as of ------------------------------------------------------------------------------------------------------


def test_each_source_has_its_own_age_on_the_card(start: Any) -> None:
    client, parts = start()
    entries = hook(2.5)["prefetch"]["observations"]["entry"]
    landed = [entry["resource"] for entry in entries if entry["resource"]["id"].startswith("tumor-size")]
    learn(parts.store, *landed, namespace="sandbox")
    bare = hook(2.5)
    bare["prefetch"]["observations"]["entry"] = [
        entry for entry in entries if not entry["resource"]["id"].startswith("tumor-size")
    ]
    (card,) = client.post(SERVICE, json=bare).json()["cards"]
    told = last_line(card)
    assert "UTC (this request)" in told
    assert "UTC (test)" in told  # the name of the source that the file was landed under
    bare["prefetch"]["observations"]["entry"] = []
    (card,) = client.post(SERVICE, json=bare).json()["cards"]
    assert "UTC (earlier requests)" in last_line(card)
    (card,) = client.post(SERVICE, json=hook(2.5)).json()["cards"]
    assert "(test)" not in last_line(card)  # restated: as of now


def last_line(card: dict[str, Any]) -> str:
    return str(card["detail"].rpartition("\n\n")[2]).replace("&#40;", "(").replace("&#41;", ")")


def vital_signs() -> dict[str, Any]:
    call: dict[str, Any] = json.loads((ROOT / "fixtures/hooks/nils-d.patient-view.json").read_bytes())
    return call


def test_the_clock_gives_each_its_share() -> None:
    clock = Clock.start(10.0)
    assert 0 < clock.left(0.6) <= 6.0
    assert Clock(time.monotonic() - 20, 10.0).left(0.95) == 0.0
