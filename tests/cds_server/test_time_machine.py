"""What would have been said at a time, with what was known then, and why it is something else now."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from adapters.readers.fhir import ENTRY
from cds_server.__main__ import main
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.time_machine import Comparison, compare
from cds_server.tracing import Cause, Difference
from models.nouns import instant
from tests.cds_server.stores import JOINING, land_parts, learn
from tests.cds_server.test_continuous import UNITS, WELL
from tests.cds_server.test_decisions import SERVICE, hook
from tests.cds_server.test_recalls import WITHDRAWN, size

NAME = "breast-cancer-prognosis"


@pytest.fixture
def parts(sqlite_settings: Settings) -> Iterator[Parts]:
    built = build(sqlite_settings)
    yield built
    built.close()
    assert audit(sqlite_settings.data_dir, sqlite_settings.database_url, deep=True).findings == ()


def call(parts: Parts, body: dict[str, Any]) -> dict[str, Any]:
    """Through the whole application, and what it brought is digested."""
    client = TestClient(create_app(parts), client=("127.0.0.1", 5000))
    answer = client.post(SERVICE, json=body)
    assert answer.status_code == 200
    digest_backlog(parts.store, JOINING, "system")
    return dict(answer.json())


def jenny(parts: Parts) -> RecordRow:
    record = parts.store.reads.record("sandbox", "jenny-m")
    assert record is not None
    return record


def moment() -> str:
    """Now, and what follows is later."""
    at = now()
    time.sleep(0.002)
    return at


def look(parts: Parts, at: str, **more: Any) -> Comparison:
    return compare(parts, NAME, jenny(parts), at, **more)


def without(*prefixes: str) -> dict[str, Any]:
    """Jenny M's call, without some of her observations."""
    body = copy.deepcopy(hook(2.5))
    entries = body["prefetch"]["observations"]["entry"]
    entries[:] = [entry for entry in entries if not entry["resource"]["id"].startswith(prefixes)]
    return body


def of_feature(found: tuple[Difference, ...], feature: str) -> Difference:
    (one,) = [each for each in found if each.feature == feature and each.model == "predict-breast"]
    return one


def test_a_correction_is_traced_to_the_version_that_brought_it(parts: Parts) -> None:
    card = call(parts, hook(2.5))["cards"][0]
    at = moment()
    learn(parts.store, size(4.5), namespace="sandbox")
    found = look(parts, at)
    assert found.said is not None
    assert [each["uuid"] for each in found.said.cards] == [card["uuid"]]
    assert found.said.summary == found.then.summary == card["summary"]
    assert found.now.summary != card["summary"]
    assert found.said.score == found.then.score
    assert found.until_then == ()
    changed = of_feature(found.since_then, "size")
    assert (changed.title, changed.before, changed.after) == ("Tumour size", "25 mm", "45 mm")
    assert changed.causes == (Cause.CORRECTED,)
    (trace,) = changed.traces
    assert trace.fact.known_from > at
    assert trace.known_to is None
    assert (trace.source, trace.fact.source.resource) == ("test of sandbox", f"Observation/{size(4.5)['id']}")
    assert len(trace.fact.source.landing) == 32


def test_a_result_that_arrived_late_is_told_from_one_that_is_new(parts: Parts) -> None:
    call(parts, without("ki67", "tumor-size"))
    at = moment()
    learn(parts.store, size(2.5), namespace="sandbox")
    late = of_feature(look(parts, at).since_then, "size")
    assert (late.before, late.after, late.causes) == ("unknown", "25 mm", (Cause.LATE,))


def vital(code: str, at: str, **value: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"{code}-{at[11:19].replace(':', '-')}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/ward-1"},
        "effectiveDateTime": at,
        **value,
    }


def measured(code: str, at: str, number: str) -> dict[str, Any]:
    unit = {"system": "http://unitsofmeasure.org", "code": UNITS[code]}
    return vital(code, at, valueQuantity={"value": float(number), **unit})


def test_what_was_measured_since_is_new_and_what_was_measured_before_is_late(parts: Parts) -> None:
    hour, half = (instant(datetime.now(UTC) - timedelta(minutes=minutes)) for minutes in (60, 30))
    alert = {"coding": [{"system": "http://loinc.org", "code": "LA9340-6"}]}
    first = [measured(code, hour, value) for code, value in WELL.items()]
    born = {"resourceType": "Patient", "id": "ward-1", "birthDate": "1950-03-01", "gender": "female"}
    learn(parts.store, born, *first, vital("67775-7", hour, valueCodeableConcept=alert), namespace="sandbox")
    record = parts.store.reads.record("sandbox", "ward-1")
    assert record is not None
    at = moment()
    learn(parts.store, measured("8867-4", half, "120"), measured("9279-1", now(), "26"), namespace="sandbox")
    found = compare(parts, "deterioration-news2", record, at)
    causes = {each.feature: (each.before, each.after, each.causes) for each in found.since_then if each.feature}
    assert causes["pulse"] == ("70 a minute", "120 a minute", (Cause.LATE,))
    assert causes["respiration"] == ("14 a minute", "26 a minute", (Cause.NEW,))


def test_what_came_after_the_card_and_before_the_time_stands_apart(parts: Parts) -> None:
    call(parts, hook(2.5))
    learn(parts.store, size(3.5), namespace="sandbox")
    at = moment()
    learn(parts.store, size(4.5), namespace="sandbox")
    found = look(parts, at)
    assert of_feature(found.until_then, "size").after == "35 mm"
    assert of_feature(found.since_then, "size").before == "35 mm"
    assert of_feature(found.since_then, "size").after == "45 mm"


def test_what_was_withdrawn_is_told(parts: Parts) -> None:
    call(parts, hook(2.5))
    at = moment()
    land_parts(parts.store, [WITHDRAWN % size(2.5)["id"].encode()], namespace="sandbox", media_type=ENTRY)
    digest_backlog(parts.store, JOINING, "system")
    changed = of_feature(look(parts, at).since_then, "size")
    assert (changed.before, changed.after, changed.causes) == ("25 mm", "unknown", (Cause.WITHDRAWN,))
    assert changed.traces[0].known_to is not None
    assert changed.traces[0].known_to > at


def test_before_anybody_knew_anything_nothing_was_said(parts: Parts) -> None:
    at = moment()
    call(parts, hook(2.5))
    found = look(parts, at)
    assert found.said is None
    assert "nothing was said about this patient before that time" in found.notes
    assert "abstained" in found.then.score
    assert found.now.summary.startswith("Estimated 10-year survival")
    (whole,) = [each for each in found.since_then if each.feature is None and each.model == "predict-breast"]
    assert (whole.modality, whole.after) == ("clinical", "spoke")
    assert {trace.cause for trace in whole.traces} == {Cause.LATE}


def test_a_stopped_service_and_an_earlier_pin_are_told(parts: Parts) -> None:
    early = "2020-01-01T00:00:00.000000Z"
    call(parts, hook(2.5))
    assert any("no version of predict-breast was pinned yet" in note for note in look(parts, early).notes)
    parts.registry.switch(NAME, "stopped", "a test", "user:test")
    at = moment()
    assert any("the service was stopped" in note for note in look(parts, at).notes)


def test_two_looks_at_one_time_say_the_same(parts: Parts) -> None:
    """Whatever is learnt in between: what was known then is known to have been known then."""
    call(parts, hook(2.5))
    at = moment()
    first = look(parts, at)
    learn(parts.store, size(4.5), namespace="sandbox")
    again = look(parts, at)
    assert {name: side.judged for name, side in first.then.sides.items()} == {
        name: side.judged for name, side in again.then.sides.items()
    }


def test_the_command(parts: Parts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CDS_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("CDS_TRUST", "open")
    call(parts, hook(2.5))
    at = moment()
    learn(parts.store, size(4.5), namespace="sandbox")
    words = ["score", NAME, "--patient", "sandbox/jenny-m", "--as-of", at]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "from what it said to what was known then: no input differs" in out
    assert "corrected" in out
    assert "25 mm" in out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (changed,) = [
        each
        for each in found["compared"]["since_then"]
        if each["feature"] == "size" and each["model"] == "predict-breast"
    ]
    assert changed["facts"][0]["cause"] == "corrected"
    assert found["score"] == found["compared"]["then"]["score"] == found["compared"]["said"]["score"]
