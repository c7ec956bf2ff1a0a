"""What a server is asked for its counts, and what is made of its answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.bulk.counting import ONLY_SOME, UNSAID, Count, counts, members
from models.errors import Misconfigured, NotAllowed, PeerFailed

BASE = "https://ehr.example/fhir"


@dataclass
class Answer:
    status: int
    raw: bytes
    url: str = BASE
    headers: Mapping[str, str] = field(default_factory=dict)

    async def body(self, limit: int) -> bytes:
        if len(self.raw) > limit:
            raise PeerFailed("answered with a body over the limit")
        return self.raw

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.raw


@dataclass
class FakeDoor:
    """Answers by the URL below the base; what is not listed is a 404."""

    answers: Mapping[str, Any]
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    @asynccontextmanager
    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> AsyncIterator[Answer]:
        below = url.removeprefix(BASE + "/")
        self.asked.append((method, below, headers or {}))
        answer = self.answers.get(below, 404)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            yield Answer(answer, b'{"resourceType": "OperationOutcome"}')
        else:
            yield Answer(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def refuses(self, url: str) -> str | None:
        return None


def bundle(**members: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", **members}


async def token() -> str:
    return "secret"


def counted(door: FakeDoor, *types: str, **options: Any) -> dict[str, Count]:
    return dict(asyncio.run(counts(door, token, BASE, types, **options)))


def test_each_type_is_counted_by_a_search_without_entries() -> None:
    door = FakeDoor({"Patient?_summary=count": bundle(total=615), "Goal?_summary=count": bundle(total=0)})
    assert counted(door, "Patient", "Goal") == {"Patient": Count(615), "Goal": Count(0)}
    assert [(method, url) for method, url, _ in door.asked] == [
        ("GET", "Patient?_summary=count"),
        ("GET", "Goal?_summary=count"),
    ]
    assert all(headers["Authorization"] == "Bearer secret" for _, _, headers in door.asked)


def test_an_open_server_gets_no_token() -> None:
    door = FakeDoor({"Patient?_summary=count": bundle(total=1)})
    asyncio.run(counts(door, None, BASE, ["Patient"]))
    assert "Authorization" not in door.asked[0][2]


@pytest.mark.parametrize("first", [bundle(), bundle(total="many"), bundle(total=True), 400])
def test_where_there_is_no_total_it_is_demanded(first: Any) -> None:
    door = FakeDoor({"Patient?_summary=count": first, "Patient?_total=accurate&_count=0": bundle(total=7)})
    assert counted(door, "Patient") == {"Patient": Count(7)}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, "the server does not know this type (404)"),
        ({"Patient?_summary=count": 403}, "refused (403)"),
        ({"Patient?_summary=count": 503}, "answered 503"),
        ({"Patient?_summary=count": b"<html>"}, "answered with what cannot be read"),
        ({"Patient?_summary=count": [1]}, "answered with no resource"),
        ({"Patient?_summary=count": PeerFailed("no answer: ReadTimeout")}, "no answer: ReadTimeout"),
        ({"Patient?_summary=count": NotAllowed("this host is not listed")}, "this host is not listed"),
        (
            {"Patient?_summary=count": bundle(), "Patient?_total=accurate&_count=0": bundle()},
            "answered without a total",
        ),
        (
            {"Patient?_summary=count": {"resourceType": "Patient"}, "Patient?_total=accurate&_count=0": 400},
            "answered 400",
        ),
    ],
)
def test_a_type_without_a_number_has_a_reason(answers: Mapping[str, Any], reason: str) -> None:
    assert counted(FakeDoor(answers), "Patient") == {"Patient": Count(reason=reason)}


def test_one_type_that_fails_does_not_keep_the_others_from_being_counted() -> None:
    door = FakeDoor({"Patient?_summary=count": PeerFailed("cut off"), "Goal?_summary=count": bundle(total=2)})
    assert counted(door, "Patient", "Goal") == {"Patient": Count(reason="cut off"), "Goal": Count(2)}


def test_a_setting_of_ours_that_is_wrong_is_raised() -> None:
    async def no_key() -> str:
        raise Misconfigured("there is no key to sign with")

    with pytest.raises(Misconfigured):
        asyncio.run(counts(FakeDoor({}), no_key, BASE, ["Patient"]))


def test_what_changed_since_an_instant_is_encoded_once() -> None:
    door = FakeDoor({})
    counted(door, "Patient", since="2026-11-21T10:00:00.000000+01:00")
    assert door.asked[0][1] == "Patient?_summary=count&_lastUpdated=ge2026-11-21T10%3A00%3A00.000000%2B01%3A00"


def test_a_name_that_is_no_type_is_not_put_into_a_url() -> None:
    door = FakeDoor({})
    assert counted(door, "Patient?_id=1")["Patient?_id=1"].reason == "that is no resource type"
    assert door.asked == []


def test_ids_of_patients_are_never_put_into_a_url() -> None:
    door = FakeDoor({})
    assert counted(door, "Patient", patients=("p1", "p2")) == {"Patient": Count(reason=ONLY_SOME)}
    assert door.asked == []


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"member": [{"entity": {}}, {"entity": {}, "inactive": True}, {"entity": {}, "inactive": False}]}, Count(2)),
        ({"member": [{"inactive": True}]}, Count(0)),
        ({"quantity": 40}, Count(40)),
        ({}, Count(reason=UNSAID)),
        ({"quantity": -1}, Count(reason=UNSAID)),
        ({"resourceType": "Bundle"}, Count(reason="answered with no Group")),
    ],
)
def test_members_of_a_group(group: dict[str, Any], expected: Count) -> None:
    door = FakeDoor({"Group/g1": {"resourceType": "Group", **group}})
    assert asyncio.run(members(door, token, BASE, "g1")) == expected


def test_of_a_group_only_the_members_are_counted() -> None:
    door = FakeDoor({"Group/g1": {"resourceType": "Group", "quantity": 3}})
    assert counted(door, "Patient", "Observation", group="g1") == {
        "Patient": Count(3),
        "Observation": Count(reason=UNSAID),
    }
    assert counted(door, "Observation", group="g1")["Observation"].number is None
    assert len(door.asked) == 1


def test_a_group_that_is_not_there_is_named_as_such() -> None:
    assert asyncio.run(members(FakeDoor({}), token, BASE, "g1")).reason == "the server does not know this group (404)"
    assert asyncio.run(members(FakeDoor({}), token, BASE, "../Patient")).reason == "that is no id of a group"


@pytest.mark.parametrize("made", [{}, {"number": 1, "reason": "both"}])
def test_a_count_is_either_a_number_or_a_reason(made: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either"):
        Count(**made)
