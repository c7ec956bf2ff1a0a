"""A board in a test: people who sign in at a real app over a real store, and what they click."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.testclient import TestClient

from cds_server.app import Parts, build, create_app
from cds_server.backlog import digest_backlog
from cds_server.settings import Settings
from tests.cds_server.stores import land

FIXTURES = Path(__file__).parents[2] / "fixtures"
HERE = "http://127.0.0.1:8000"
CHAIR, CLINICIAN, COMPLIANCE = "chair", "clinician", "compliance"
WORDS = {
    "recommendation": "Letrozole for five years <b>now</b>",
    "rationale": "pN0, ER positive",
    "dissent": "Dr Meyer would wait for the germline result",
    "follow_up": "Germline panel\n\nBone density scan",
    "participants": "Prof. Brandt, chair\nDr Osei, oncology",
}


class Room:
    """One server with the fixture patients that a test asks for, and scores of them."""

    def __init__(self, settings: Settings, *patients: str) -> None:
        self.parts: Parts = build(settings)
        self.app: FastAPI = create_app(self.parts)
        resources = [each for name in patients for each in resources_of(name)]
        if resources:
            land(self.parts.store, *resources, namespace="sandbox")
            digest_backlog(self.parts.store, settings.joining_systems, "user:test")
        self._first = TestClient(self.app, base_url=HERE, client=("127.0.0.1", 50000))
        self._first.__enter__()
        for name in patients:
            if (FIXTURES / "hooks" / f"{name}.patient-view.json").exists():
                body = json.loads((FIXTURES / "hooks" / f"{name}.patient-view.json").read_bytes())
                asked = {**body, "hookInstance": str(uuid.uuid4())}
                assert self._first.post("/cds-services/breast-cancer-prognosis", json=asked).status_code == 200

    def close(self) -> None:
        self._first.__exit__(None, None, None)

    def person(self, who: str) -> Person:
        return Person(TestClient(self.app, base_url=HERE, client=("127.0.0.1", 50000)), who, self._first)

    def kinds(self) -> list[str]:
        """Of the ledger's entries that are the board's."""
        bodies = (json.loads(entry.body) for entry in self.parts.store.reads.entries())
        return [body["kind"] for body in bodies if body["kind"].startswith("board-")]

    def looks(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self.parts.store.reads.query("SELECT act, outcome FROM access ORDER BY id")]


class Person:
    """Somebody who signed in, with cookies of their own; all run on the loop of the first client, as in one process."""

    def __init__(self, client: TestClient, who: str, first: TestClient) -> None:
        self.client = client
        client.portal = first.portal
        page = client.get("/staff/sign-in?next=/board").text
        (form,) = [each for each in re.findall(r"<form.*?</form>", page, re.DOTALL) if f'value="{who}"' in each]
        self.shown = client.post("/staff/sign-in", data=dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)))

    @property
    def csrf(self) -> str:
        return found(r'name="csrf" value="([0-9a-f]+)"', self.client.get("/board").text)

    def post(self, path: str, **form: str) -> httpx.Response:
        answer: httpx.Response = self.client.post(path, data={"csrf": self.csrf, **form})
        return answer

    def plan(self, title: str = "Breast board", held_on: str = "2026-11-24") -> str:
        """A meeting; gives its path."""
        answer = self.post("/board", title=title, held_on=held_on, place="Room 4")
        assert answer.status_code == 200, answer.text
        return answer.url.path

    def add(self, meeting: str, identifier: str, question: str = "") -> httpx.Response:
        asked = self.post(f"{meeting}/find", identifier=identifier)
        assert asked.status_code == 200, asked.text
        record = found(r'name="record" value="(\w+)"', asked.text)
        return self.post(f"{meeting}/add", record=record, question=question)

    def cases(self, meeting: str) -> list[str]:
        return list(dict.fromkeys(re.findall(r'name="case" value="(\w+)"', self.client.get(meeting).text)))

    def open(self, meeting: str, case: str) -> OpenedCase:
        answer = self.post(f"{meeting}/open", case=case)
        assert answer.status_code == 200, answer.text
        return OpenedCase(self, answer.url.path, answer.text)


class OpenedCase:
    def __init__(self, person: Person, path: str, page: str) -> None:
        self.person = person
        self.path = path
        self.page = page

    def read(self) -> str:
        self.page = self.person.client.get(self.path).text
        return self.page

    def post(self, what: str, **form: str) -> httpx.Response:
        token = found(r'action="/board/case/[^"]+">\s*<input type="hidden" name="csrf" value="(\w+)"', self.read())
        answer: httpx.Response = self.person.client.post(f"{self.path}{what}", data={"csrf": token, **form})
        return answer

    def get(self, what: str) -> httpx.Response:
        answer: httpx.Response = self.person.client.get(f"{self.path}{what}")
        return answer


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, pattern
    return match[1]


def resources_of(name: str) -> list[dict[str, Any]]:
    path = next((FIXTURES / "patients").glob(f"{name}.*"))
    if path.suffix == ".ndjson":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]
