"""The EHR's side: its fixture patients, and CDS Hooks as a client speaks it (discovery, call, feedback)."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cds_server import wire
from cds_server.hooks.routes import LEDGER_HEADER
from cds_server.sandbox import render
from models.errors import Misconfigured, PeerFailed
from models.nouns import JSON


class Reply(Protocol):
    """What the HTTP client answers with."""

    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Client(Protocol):
    """The HTTP client that is handed in (`cds_server.http.client`)."""

    async def request(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """A fixture patient, with one ready request for each hook."""

    id: str
    requests: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Called:
    """One service that was asked, and what it said."""

    service: str
    status: int
    milliseconds: int
    sent: JSON
    answer: Any
    cards: tuple[render.Shown, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A ledger entry as the server shows it."""

    seq: int
    leaf: str
    act: str
    shown: str
    """The whole entry, as JSON to read."""


def load_cases(fixtures: Path) -> dict[str, Case]:
    """`fixtures/hooks/PATIENT.HOOK.json`, grouped by patient. Errors: Misconfigured when there is none."""
    grouped: dict[str, dict[str, JSON]] = {}
    for path in sorted((fixtures / "hooks").glob("*.json")):
        patient, _, _ = path.name.partition(".")
        request = json.loads(path.read_bytes())
        grouped.setdefault(patient, {})[request["hook"]] = request
    if not grouped:
        raise Misconfigured("the sandbox found no hook requests", where=str(fixtures / "hooks"))
    order = sorted(grouped, key=lambda patient: (-len(grouped[patient]), patient != "jenny-m", patient))
    return {patient: Case(patient, dict(sorted(grouped[patient].items(), reverse=True))) for patient in order}


Authorize = Callable[[str], JSON]
"""Patient -> the members of a request by which a service may read more (CDS Hooks 2.0.1, FHIR Resource Access)."""
Look = Callable[[str], Any]
"""A read or search, relative to the FHIR base -> what the FHIR server has."""
Sign = Callable[[str], str]
"""URL of a CDS service -> a token that says who calls it."""
TOKEN_HIDDEN = "(a token of this call)"  # noqa: S105 - what stands in its place


class Ehr:
    """The EHR's side of CDS Hooks: discovery, call, feedback, and a look into the ledger."""

    def __init__(self, cds_url: str, client: Client, look: Look, authorize: Authorize, sign: Sign) -> None:
        self._base = cds_url.rstrip("/")
        self._client = client
        self._look = look
        self._authorize = authorize
        self._sign = sign

    async def fire(self, hook: str, request: JSON) -> list[Called]:
        """Ask every service of this hook, each with its own hook instance and only the prefetch that it asked for.

        What the request does not bring of that is looked up in the EHR's own records.
        """
        _, reply = await self._send("GET", "/cds-services")
        listed = _json(reply).get("services", []) if reply.status_code == 200 else []
        services = [each for each in listed if each.get("hook") == hook]
        if not services:
            raise PeerFailed("the CDS server offers no service for this hook")
        return [await self._call(service, request) for service in services]

    async def _call(self, service: JSON, request: JSON) -> Called:
        sent = {name: value for name, value in request.items() if name != "extension"}
        sent |= {"hookInstance": str(uuid.uuid4()), **self._authorize(request["context"]["patientId"])}
        brought = request.get("prefetch", {})
        sent["prefetch"] = {
            key: brought[key] if key in brought else self._look(_filled(template, request["context"]))
            for key, template in service.get("prefetch", {}).items()
        }
        took, reply = await self._send("POST", f"/cds-services/{service['id']}", sent)
        if "fhirAuthorization" in sent:  # the page shows what was sent
            sent["fhirAuthorization"] = {**sent["fhirAuthorization"], "access_token": TOKEN_HIDDEN}
        answer = _json(reply)
        if reply.status_code != 200:
            return Called(service["id"], reply.status_code, took, sent, answer, (), _diagnostics(answer))
        return Called(service["id"], 200, took, sent, answer, tuple(map(render.show, answer.get("cards", []))))

    async def feedback(self, service: str, item: JSON) -> list[int]:
        """Report one outcome; the numbers of the entries that the server made of it, where it tells."""
        _, reply = await self._send("POST", f"/cds-services/{service}/feedback", {"feedback": [item]})
        if reply.status_code != 200:
            raise PeerFailed(f"the feedback was refused ({reply.status_code}): {_diagnostics(_json(reply))}")
        return [int(number) for number in reply.headers.get(LEDGER_HEADER, "").split(",") if number.strip().isdecimal()]

    async def entry(self, seq: int) -> Entry | None:
        _, reply = await self._send("GET", f"/ledger/proof/{seq}")
        if reply.status_code != 200:
            return None
        proof = _json(reply)
        body = proof.get("entry") or {}
        return Entry(
            seq, str(proof.get("leaf", "")), str(body.get("act") or body.get("kind") or "entry"), render.pretty(proof)
        )

    async def _send(self, method: str, path: str, body: Any = None) -> tuple[int, Reply]:
        content = None if body is None else wire.encode(body)
        headers = {"content-type": wire.JSON_TYPE} if content is not None else {}
        if path.startswith("/cds-services"):
            headers["authorization"] = f"Bearer {self._sign(self._base + path)}"
        began = time.perf_counter()
        try:
            reply = await self._client.request(method, self._base + path, content=content, headers=headers)
        except Exception as error:  # noqa: BLE001 - whatever the client that was handed in raises
            raise PeerFailed(f"the CDS server does not answer ({type(error).__name__})") from None
        return round((time.perf_counter() - began) * 1000), reply


def _filled(template: str, context: JSON) -> str:
    """A prefetch template with the context in it (CDS Hooks 2.0.1, Prefetch tokens)."""
    return re.sub(r"\{\{context\.(\w+)\}\}", lambda token: str(context.get(token[1], "")), template)


def _json(reply: Reply) -> dict[str, Any]:
    try:
        value = json.loads(reply.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _diagnostics(answer: JSON) -> str:
    issues = answer.get("issue") or [{}]
    return str(issues[0].get("diagnostics", "no reason was given"))
