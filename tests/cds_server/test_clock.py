"""Fixtures about the last hours, played at another time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cds_server.hooks.context import parse
from cds_server.sandbox.clock import redated

HOOKS = Path(__file__).parents[2] / "fixtures" / "hooks"


def request(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((HOOKS / f"{name}.json").read_bytes())
    return body


def times(body: dict[str, Any]) -> dict[str, str]:
    entries = body["prefetch"]["observations"]["entry"]
    return {each["resource"]["id"]: each["resource"]["effectiveDateTime"] for each in entries}


def test_days_and_instants_move_with_the_clock_and_a_birth_date_does_not() -> None:
    played = redated(
        request("tomas-v.order-sign"), datetime(2027, 3, 1, 12, 30, tzinfo=UTC)
    )  # 101 days, 2.5 hours later
    assert times(played)["tomas-v-platelets"] == "2027-02-27T10:10:00Z"
    assert times(played)["tomas-v-weight"] == "2027-02-26"
    conditions = {each["resource"]["id"]: each["resource"] for each in played["prefetch"]["conditions"]["entry"]}
    assert conditions["tomas-v-copd"]["onsetDateTime"] == "2015-03"  # a month stays
    assert played["prefetch"]["patient"]["birthDate"] == "1958-02-11"
    assert played["context"]["draftOrders"]["entry"][0]["resource"]["authoredOn"] == "2027-03-01"


def test_at_its_own_time_a_request_is_what_it_is() -> None:
    body = request("nils-d.patient-view")
    assert redated(body, datetime(2026, 11, 20, 10, tzinfo=UTC)) == body


def test_a_request_without_a_clock_is_played_as_it_stands() -> None:
    body = request("jenny-m.patient-view")
    assert redated(body, datetime(2031, 1, 1, tzinfo=UTC)) == body


def test_what_is_played_keeps_the_contract() -> None:
    for path in HOOKS.glob("*.json"):
        played = redated(json.loads(path.read_bytes()), datetime(2031, 1, 1, tzinfo=UTC))
        assert parse(json.dumps(played).encode(), played).unknown == ()
