"""Plays recorded requests to a server, one after the other, and says of each whether the answer is the recorded one.

A request goes out byte for byte as it was recorded, but for what must be new: its hookInstance, and the uuids of cards
and suggestions that the server just made where recorded feedback names those of that time.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from cds_server.replay.compare import IGNORED, difference
from cds_server.replay.tapes import Answer, Exchange, HookFile, Tape, read_answer
from models.errors import PeerFailed

DISCOVERY = "/cds-services"
_INSTANCE = re.compile(rb'("hookInstance"\s*:\s*")([^"\\]*)(")')


class Reply(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def text(self) -> str: ...


class Client(Protocol):
    """The HTTP client that is handed in (`cds_server.http.blocking_client`)."""

    def request(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply: ...


class Verdict(StrEnum):
    SAME = "same"
    DIFFERENT = "different"
    NEW = "new"
    """There is no recorded answer to compare with."""
    RECORDED = "recorded"
    UNSERVED = "unserved"
    """The server has no service for this hook."""

    @property
    def good(self) -> bool:
        return self in (Verdict.SAME, Verdict.RECORDED, Verdict.UNSERVED)


@dataclass(frozen=True, slots=True)
class Played:
    name: str
    verdict: Verdict
    status: int = 0
    seconds: float = 0.0
    diff: tuple[str, ...] = ()


Token = Callable[[str], str | None]
"""The bearer token for the URL of one request; None: none."""


def no_token(_: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Player:
    """One server to play to."""

    client: Client
    base: str
    """Its base URL, without a slash at the end."""
    ignored: Sequence[str] = IGNORED
    token: Token = no_token

    def play(self, tapes: Iterable[Tape], *, record: bool = False) -> Iterator[Played]:
        """Every exchange of every tape; `record`: what differs becomes the recorded answer. Errors: PeerFailed."""
        services = self._services()
        for tape in tapes:
            known: dict[str, str] = {}
            """Uuid of the recording -> uuid of today."""
            played_any = False
            for exchange in tape.exchanges(services):
                played_any = True
                played, answer = self._one(exchange, known)
                if record and played.verdict in (Verdict.DIFFERENT, Verdict.NEW):
                    tape.keep(exchange, _with_recorded_uuids(answer, known))
                    played = replace(played, verdict=Verdict.RECORDED)
                yield played
            if not played_any and isinstance(tape, HookFile):
                yield Played(f"{tape.name} ({tape.hook})", Verdict.UNSERVED)
            tape.save()

    def _one(self, exchange: Exchange, known: dict[str, str]) -> tuple[Played, Answer]:
        body = exchange.body
        if body is not None:
            body = _INSTANCE.sub(rb"\g<1>%s\g<3>" % str(uuid.uuid4()).encode(), body, count=1)
            body = _substituted(body.decode(), known).encode()
        began = time.perf_counter()
        answer = self._ask(exchange.method, exchange.path, body, exchange.media_type)
        seconds = time.perf_counter() - began
        if exchange.recorded is None:
            return Played(exchange.name, Verdict.NEW, answer.status, seconds), answer
        known.update(_pairs(exchange.recorded.body, answer.body))
        diff = difference(exchange.recorded, answer, days=exchange.redated, ignored=self.ignored)
        verdict = Verdict.DIFFERENT if diff else Verdict.SAME
        return Played(exchange.name, verdict, answer.status, seconds, diff), answer

    def _services(self) -> list[Mapping[str, Any]]:
        answer = self._ask("GET", DISCOVERY)
        listed = answer.body.get("services") if isinstance(answer.body, dict) else None
        if answer.status != 200 or not isinstance(listed, list):
            raise PeerFailed(f"discovery was answered {answer.status}, without a list of services", where=self.base)
        return [each for each in listed if isinstance(each, dict) and "id" in each]

    def _ask(self, method: str, path: str, body: bytes | None = None, media_type: str = "") -> Answer:
        url = self.base + path
        headers = {"Content-Type": media_type} if body is not None else {}
        if token := self.token(url):
            headers["Authorization"] = f"Bearer {token}"
        try:
            reply = self.client.request(method, url, content=body, headers=headers)
        except Exception as error:  # noqa: BLE001 - whatever the client that was handed in raises
            raise PeerFailed(f"no answer ({type(error).__name__})", where=url) from None
        return replace(read_answer(reply.status_code, reply.text), origin=self.base)


def _pairs(then: Any, now: Any) -> Iterator[tuple[str, str]]:
    """Uuids of cards and suggestions at the same places: recorded, and of today."""
    for old, new in zip(_objects(then, "cards"), _objects(now, "cards"), strict=False):
        for before, after in (
            (old, new),
            *zip(_objects(old, "suggestions"), _objects(new, "suggestions"), strict=False),
        ):
            if isinstance(before.get("uuid"), str) and isinstance(after.get("uuid"), str):
                yield before["uuid"], after["uuid"]


def _objects(holder: Any, name: str) -> list[dict[str, Any]]:
    members = holder.get(name) if isinstance(holder, dict) else None
    return [each for each in members if isinstance(each, dict)] if isinstance(members, list) else []


def _with_recorded_uuids(answer: Answer, known: Mapping[str, str]) -> Answer:
    """So that feedback which stands later in the recording goes on naming what stands before it."""
    back = {today: then for then, today in known.items()}
    return replace(answer, body=json.loads(_substituted(json.dumps(answer.body), back)))


def _substituted(text: str, uuids: Mapping[str, str]) -> str:
    if not uuids:
        return text
    return re.sub("|".join(map(re.escape, uuids)), lambda found: uuids[found[0]], text)
