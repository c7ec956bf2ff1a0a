"""What clinicians did, as EHRs tell it: batches, repeats, late, unknown, of another EHR, with reasons of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.testclient import TestClient

from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.hooks.feedback import MAX_ITEMS
from cds_server.hooks.reasons import HL7
from cds_server.hooks.routes import INFERENCES, LEDGER_HEADER
from cds_server.reproduce import cards_of, load
from cds_server.settings import load as settings_of
from tests.cds_server.played import request

PROGNOSIS, SIGNING = "breast-cancer-prognosis", "breast-cancer-prognosis-order-sign"
AT = "2026-11-21T10:00:00Z"


@dataclass
class Door:
    """One EHR's way to the server; several share an instance."""

    parts: Parts
    client: TestClient

    def call(self, fixture: str = "jenny-m.patient-view", service: str = PROGNOSIS) -> dict[str, Any]:
        body = {**request(fixture), "hookInstance": str(uuid4())}
        answer = self.client.post(f"/cds-services/{service}", json=body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def card(self) -> dict[str, Any]:
        (card,) = self.call()["cards"]
        return dict(card)

    def tell(self, *items: dict[str, Any], service: str = PROGNOSIS) -> httpx.Response:
        return self.client.post(f"/cds-services/{service}/feedback", json={"feedback": list(items)})

    def told(self, *items: dict[str, Any], service: str = PROGNOSIS) -> list[int]:
        """The entries of the items."""
        answer = self.tell(*items, service=service)
        assert (answer.status_code, answer.content) == (200, b"")
        return [int(number) for number in answer.headers[LEDGER_HEADER].split(", ")]

    def count(self, table: str) -> int:
        return int(self.parts.store.reads.query(f'SELECT COUNT(*) FROM "{table}"')[0][0])

    def actions(self, card: dict[str, Any]) -> list[dict[str, Any]]:
        store = self.parts.store
        (found,) = cards_of(store, load(store, card["uuid"]).id)
        return list(found["actions"])


def overridden(uuid: str, **changes: Any) -> dict[str, Any]:
    reason = {"reason": {"system": HL7, "code": "need-more-info"}}
    item = {"card": uuid, "outcome": "overridden", "outcomeTimestamp": AT, "overrideReason": reason, **changes}
    return {name: member for name, member in item.items() if member is not ...}


@pytest.fixture
def open_door(data_dir: Path, url: str) -> Iterator[Callable[[str], Door]]:
    """Gives the door of an EHR by its namespace; all lead to one instance, whose log is walked at the end."""
    with ExitStack() as stack:

        def door(namespace: str) -> Door:
            config = data_dir / f"{namespace}.toml"
            config.write_text(f"[[ehr]]\nnamespace = '{namespace}'\n")
            named = {"CDS_CONFIG": str(config)}
            settings = settings_of(named, data_dir=data_dir, database_url=url, trust="open", deadline_ms=20_000)
            parts = build(settings)
            return Door(parts, stack.enter_context(TestClient(create_app(parts), client=("127.0.0.1", 5000))))

        yield door
    assert audit(data_dir, url, deep=True).findings == ()


@pytest.fixture
def door(open_door: Callable[[str], Door]) -> Door:
    return open_door("a")


on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.mark.requirement("cds-hooks_2.0", "148", "151", "152", "154", "155", "156", "158", "159", "162", "165", "166")
def test_a_batch_about_several_calls_is_one_action_an_item(door: Door) -> None:
    first, second = door.call(), door.call()
    (one,), (two,) = first["cards"], second["cards"]
    chosen = [{"id": one["suggestions"][0]["uuid"]}]
    numbers = door.told(
        {"card": one["uuid"], "outcome": "accepted", "outcomeTimestamp": AT, "acceptedSuggestions": chosen},
        overridden(two["uuid"], overrideReason={"userComment": "Die Patientin möchte das nicht \U0001f469\u200d⚕️"}),
        overridden(two["uuid"], outcomeTimestamp="2026-11-21T10:00:01Z"),
    )
    assert len(set(numbers)) == 1  # one batch, one entry
    (accepted,) = door.actions(one)
    assert (accepted["outcome"], accepted["suggestions"], accepted["seq"]) == (
        "accepted",
        [chosen[0]["id"]],
        numbers[0],
    )
    comment, reason = door.actions(two)
    assert comment["comment"].startswith("Die Patientin möchte")
    assert reason["reason"] == {"system": HL7, "code": "need-more-info"}
    inferences = [told["extension"][INFERENCES]["items"][0]["id"] for told in (first, second, second)]
    tied = door.parts.store.reads.query(
        "SELECT i.ref FROM action a JOIN inference i ON i.id = a.inference_id ORDER BY a.id"
    )
    assert [row[0] for row in tied] == inferences
    kinds = door.parts.store.reads.query("SELECT outcome, reason FROM action ORDER BY id")
    assert [tuple(row) for row in kinds] == [("accepted", None), ("overridden", "comment"), ("overridden", "coded")]


def test_what_is_said_again_is_what_was_said(door: Door) -> None:
    """In the same batch, in another, with the instant in another zone, with members that nobody knows."""
    card = door.card()["uuid"]
    (seq,) = door.told(overridden(card))
    again = overridden(card, outcomeTimestamp="2026-11-21t12:00:00.000+02:00", note="resent")
    assert door.told(again, overridden(card), again) == [seq] * 3
    assert door.count("action") == 1
    later = overridden(card, outcomeTimestamp="2026-11-21T11:00:00Z")
    other, repeated, third = door.told(later, overridden(card), later)
    assert (other, repeated, third) == (other, seq, other)
    assert other > seq
    assert door.count("action") == 2
    metrics = door.parts.metrics.text().decode()
    assert f'cds_actions_total{{outcome="overridden",service="{PROGNOSIS}"}} 2.0' in metrics
    assert f'cds_overrides_total{{category="cds-suboptimal-context",service="{PROGNOSIS}"}} 2.0' in metrics


def test_two_processes_that_hear_the_same_keep_it_once(open_door: Callable[[str], Door]) -> None:
    first, second = open_door("a"), open_door("a")
    item = overridden(first.card()["uuid"])
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda door: door.told(item)[0], [first, second] * 8))
    assert len(set(numbers)) == 1
    assert first.count("action") == 1


@on_sqlite
def test_late_is_not_too_late(door: Door) -> None:
    """A card that nobody touched may be acted on any time, also when its service has been stopped since."""
    card = door.card()
    door.parts.registry.switch(PROGNOSIS, "stopped", None, "user:test")
    door.told(overridden(card["uuid"], outcomeTimestamp="2031-01-01T00:00:00+00:00"))
    (action,) = door.actions(card)
    assert action["at"] == "2031-01-01T00:00:00.000000Z"


def test_an_unknown_card_and_one_of_another_ehr_answer_alike(open_door: Callable[[str], Door]) -> None:
    """Nobody can find out which cards there are; and what another EHR says is tied to no one's inference."""
    mine, other = open_door("a"), open_door("b")
    card = mine.card()
    answers = [
        other.tell(overridden(card["uuid"])),
        other.tell(overridden(str(uuid4()))),
        other.tell(overridden("no uuid at all")),
        other.tell(overridden(card["uuid"]), service=SIGNING),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {b""}
    assert len({frozenset(answer.headers) for answer in answers}) == 1
    assert mine.actions(card) == []
    assert mine.parts.store.reads.open_flags() == {"unmatched": 4}
    unmatched = mine.parts.store.reads.query("SELECT card_id, inference_id FROM action")
    assert {tuple(row) for row in unmatched} == {(None, None)}
    mine.told(overridden(card["uuid"]))
    assert len(mine.actions(card)) == 1


@on_sqlite
def test_what_was_told_to_the_wrong_service_can_be_told_again_to_the_right_one(door: Door) -> None:
    card = door.card()
    door.told(overridden(card["uuid"]), service=SIGNING)
    assert door.actions(card) == []
    door.told(overridden(card["uuid"]))
    assert len(door.actions(card)) == 1


@on_sqlite
@pytest.mark.requirement("cds-hooks_2.0", "102", "160", "167")
def test_reasons_of_the_client_are_taken(door: Door) -> None:
    """With or without words for them; what they are called never becomes the label of a metric."""
    card = door.card()
    own = {"system": "https://ehr.example.org/reasons", "code": "jenny-said-no"}
    door.told(
        overridden(card["uuid"], overrideReason={"reason": own}),
        overridden(card["uuid"], overrideReason={"reason": {**own, "display": "She said no"}, "userComment": "really"}),
        overridden(card["uuid"], overrideReason=...),
    )
    given = [action.get("reason") for action in door.actions(card)]
    assert given == [own, {**own, "display": "She said no"}, None]
    metrics = door.parts.metrics.text().decode()
    assert f'cds_overrides_total{{category="other",service="{PROGNOSIS}"}} 2.0' in metrics
    assert f'cds_overrides_total{{category="none",service="{PROGNOSIS}"}} 1.0' in metrics
    assert "jenny-said-no" not in metrics


@on_sqlite
@pytest.mark.requirement("cds-hooks_2.0", "161")
@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00.000000Z"),
        ("2026-11-21T10:00:00.123456789Z", "2026-11-21T10:00:00.123456Z"),
        ("2026-11-21T12:00:00+02:00", "2026-11-21T10:00:00.000000Z"),
        ("2026-11-20T23:30:00-10:30", "2026-11-21T10:00:00.000000Z"),
    ],
)
def test_the_moment_is_kept_as_an_instant(door: Door, said: str, kept: str) -> None:
    card = door.card()
    door.told(overridden(card["uuid"], outcomeTimestamp=said))
    assert [action["at"] for action in door.actions(card)] == [kept]


BROKEN: list[dict[str, Any]] = [
    {"card": ...},
    {"card": ""},
    {"card": 7},
    {"card": "x" * 257},
    {"outcome": ...},
    {"outcome": "maybe"},
    {"outcome": "accepted"},
    {"outcome": "accepted", "acceptedSuggestions": {"id": "x"}},
    {"outcome": "accepted", "acceptedSuggestions": [{}]},
    {"outcome": "accepted", "acceptedSuggestions": ["x"]},
    {"outcomeTimestamp": ...},
    {"outcomeTimestamp": "2026-11-21"},
    {"outcomeTimestamp": "2026-11-21T10:00:00"},
    {"outcomeTimestamp": "2026-11-21T25:00:00Z"},
    {"outcomeTimestamp": "0001-01-01T00:00:00+14:00"},
    {"outcomeTimestamp": 1763719200},
    {"overrideReason": {}},
    {"overrideReason": "need-more-info"},
    {"overrideReason": {"reason": {"code": "need-more-info"}}},
    {"overrideReason": {"reason": {"system": HL7, "code": ""}}},
    {"overrideReason": {"userComment": ""}},
    {"overrideReason": {"userComment": "x" * 4001}},
]


@on_sqlite
def test_one_broken_item_refuses_the_batch_and_nothing_is_stored(door: Door) -> None:
    card = door.card()["uuid"]
    before = door.parts.store.reads.head()
    secret = {"overrideReason": {"userComment": "Jenny M. called"}}
    for changes in BROKEN:
        answer = door.tell(overridden(card, **secret), overridden(card, **changes), overridden(card))
        assert answer.status_code == 400, changes
        assert answer.json()["issue"][0]["diagnostics"].partition("(at ")[2].startswith("feedback[1]")
        assert "Jenny" not in answer.text
        assert "maybe" not in answer.text
    assert (door.count("action"), door.parts.store.reads.head()) == (0, before)
    assert door.told(overridden(card))


@on_sqlite
def test_a_batch_has_a_size(door: Door) -> None:
    card = door.card()
    items = [overridden(card["uuid"], overrideReason={"userComment": str(n)}) for n in range(MAX_ITEMS + 1)]
    assert door.tell(*items).status_code == 413
    assert door.count("action") == 0
    assert len(set(door.told(*items[1:]))) == 1
    assert len(door.actions(card)) == MAX_ITEMS


@on_sqlite
def test_a_service_that_does_not_exist_takes_no_feedback(door: Door) -> None:
    answer = door.tell(overridden("x"), service="no-such-service")
    assert answer.status_code == 404
    assert json.loads(answer.content)["resourceType"] == "OperationOutcome"
