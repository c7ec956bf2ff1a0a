"""The page "then and now": three answers beside each other, each difference with its facts, labels respected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cds_server import wire
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.settings import Settings
from cds_server.then_desk import then_routes
from cds_server.tracing import Cause
from smart_app import rendering
from smart_app.desk import Role
from smart_app.texts import t
from smart_app.then import CAUSES
from smart_app.then_pages import field_of, moment
from tests.cds_server.case_app import ANNA, GivenSessions
from tests.cds_server.stores import learn
from tests.cds_server.test_decisions import hook
from tests.cds_server.test_recalls import size
from tests.cds_server.test_time_machine import call
from tests.cds_server.test_time_machine import moment as later


@pytest.fixture
def parts(sqlite_settings: Settings) -> Iterator[Parts]:
    built = build(sqlite_settings)
    yield built
    built.close()
    assert audit(sqlite_settings.data_dir, sqlite_settings.database_url, deep=True).findings == ()


def page(parts: Parts, query: str = "", **viewer: Any) -> Any:
    sessions = GivenSessions()
    routes = [*then_routes(parts, parts.settings, parts.access, sessions), *rendering.routes()]
    app = Starlette(routes=routes)
    wire.install(app)
    case = sessions.open(parts, "jenny-m", replace(ANNA, **viewer))
    return TestClient(app).get(f"/app/{case.id}/then{query}")


def test_the_three_stand_beside_each_other_with_what_lies_between(parts: Parts) -> None:
    card = call(parts, hook(2.5))["cards"][0]
    at = later()
    learn(parts.store, size(4.5), namespace="sandbox")
    answer = page(parts, f"?at={at[:-1]}")
    assert answer.status_code == 200, answer.text
    text = answer.text
    for said in (t("then.stand.said"), t("then.stand.then"), t("then.stand.now"), "25 mm", "45 mm", "corrected"):
        assert said in text
    assert card["summary"].split(",")[0] in text
    assert "No input differs." in text  # between what it said and what was known then
    assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in answer.headers["content-security-policy"]
    looks = parts.store.reads.query("SELECT act, outcome, detail FROM access ORDER BY id")
    assert [tuple(each) for each in looks] == [("case", "seen", '{"section": "then"}')]


def test_without_a_time_it_is_when_something_was_last_said(parts: Parts) -> None:
    call(parts, hook(2.5))
    learn(parts.store, size(4.5), namespace="sandbox")
    for query in ("", "?at=", "?at=next+Tuesday"):
        text = page(parts, query).text
        assert "45 mm" in text
        assert (t("then.wrong") in text) == ("Tuesday" in query)


def test_what_a_label_withholds_is_not_told_by_its_difference(parts: Parts) -> None:
    """The EHR's own call may use what it brought; whoever looks later is shown neither the fact nor its value."""
    body = hook(2.5)
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    for entry in body["prefetch"]["observations"]["entry"]:
        if entry["resource"]["id"].startswith("tumor-size"):
            entry["resource"]["meta"] = {"security": [label]}
    call(parts, body)
    text = page(parts).text
    assert "25 mm" not in text
    assert f"<td>{t('then.withheld')}</td>" in text
    assert "data withheld from you are not shown" in text


def test_who_has_no_role_sees_nothing_and_nobody_is_made_up(parts: Parts) -> None:
    learn(parts.store, {"resourceType": "Patient", "id": "jenny-m"}, namespace="sandbox")
    assert t("then.nothing") in page(parts).text
    assert page(parts, roles=frozenset()).status_code == 403
    assert page(parts, roles=frozenset({Role.DATA_SCIENTIST})).status_code == 403


def test_the_server_has_the_page_where_a_case_can_be_opened(parts: Parts) -> None:
    """And the page's words know every cause."""
    assert set(CAUSES) == {cause.value for cause in Cause}
    assert all(t(f"then.cause.{each}") for each in CAUSES)
    paths = [getattr(each, "path", "") for each in create_app(parts).routes]
    if "/app/{launch_id}/" in paths:
        assert paths.index("/app/{launch_id}/then") < len(paths)


def test_a_time_without_a_zone_is_in_utc() -> None:
    assert moment("2026-11-21T10:00") == ("2026-11-21T10:00:00.000000Z", False)
    assert moment("2026-11-21T10:00:00+01:00") == ("2026-11-21T09:00:00.000000Z", False)
    assert moment(" ") == (None, False)
    assert field_of("2026-11-21T09:00:00.000001Z") == "2026-11-21T09:00:01"
    assert field_of("2026-11-21T09:00:00.000000Z") == "2026-11-21T09:00:00"
    assert moment("0001-01-01T00:00:00+14:00")[0] is None
