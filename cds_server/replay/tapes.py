"""Where recorded requests stand: a folder of request bodies, or HAR files as a browser or a proxy saves them.

    NAME.json                        the body of a hook call, as an EHR sent it
    answers/NAME.SERVICE.json        beside it: how a service answered when it was recorded
    NAME.har                         HAR 1.2: calls and feedback with their answers, in the order they were made

A folder may hold folders. What is neither a hook call nor a HAR is left alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from cds_server.sandbox.clock import redated
from models.errors import Malformed, Misconfigured

ANSWERS = "answers"
JSON_TYPE = "application/json"
_DOOR = re.compile(r"/cds-services(?:/[^/?#]+(?:/feedback)?)?$")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to one request."""

    status: int
    body: Any = None
    """JSON where it is JSON, else text; None: nothing."""
    origin: str = ""
    """Base URL of the server that said it: its own links carry it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, and how it was answered when it was recorded."""

    name: str
    method: str
    path: str
    """Below the server's base URL."""
    body: bytes | None = field(default=None, repr=False)
    media_type: str = JSON_TYPE
    recorded: Answer | None = None
    redated: bool = False
    """Its days were moved to the present: they are not compared."""
    ordinal: int = 0
    """Place within its tape."""


class Tape(Protocol):
    """One recording."""

    name: str

    def exchanges(self, services: Sequence[Mapping[str, Any]]) -> Iterator[Exchange]:
        """What to play, in order. `services` are those that the server's discovery lists."""

    def keep(self, exchange: Exchange, answer: Answer) -> None:
        """Take an answer as the recorded one."""

    def save(self) -> None:
        """Write what was kept."""


def tapes(place: Path) -> list[Tape]:
    """The recordings in a folder, or the one in a file, in order of name. Errors: Misconfigured, Malformed."""
    if not place.exists():
        raise Misconfigured("there is no such folder or file", where=str(place))
    root = place if place.is_dir() else place.parent
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    found: list[Tape] = []
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        if ANSWERS in path.relative_to(root).parts[:-1] or not path.is_file():
            continue
        if path.suffix == ".har":
            found.append(HarFile(name, path))
        elif path.suffix == ".json":
            body = _json(path)
            if isinstance(body, dict) and "log" in body and "hook" not in body:
                found.append(HarFile(name, path))
            elif isinstance(body, dict) and isinstance(body.get("hook"), str):
                found.append(HookFile(name, path, body))
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Malformed(f"{path.name} is not JSON (line {getattr(error, 'lineno', 1)})") from None


class HookFile:
    """The body of one hook call; played to each service of its hook."""

    def __init__(self, name: str, path: Path, body: Mapping[str, Any]) -> None:
        self.name = name
        self.hook = str(body["hook"])
        self._path = path
        self._body = body
        self._kept: dict[Path, Answer] = {}

    def exchanges(self, services: Sequence[Mapping[str, Any]]) -> Iterator[Exchange]:
        raw = self._path.read_bytes()
        played = redated(self._body, datetime.now(UTC))
        moved = played != self._body
        for service in (str(each["id"]) for each in services if each.get("hook") == self.hook):
            yield Exchange(
                name=f"{self.name} -> {service}",
                method="POST",
                path=f"/cds-services/{service}",
                body=json.dumps(played).encode() if moved else raw,
                recorded=_answer_in(self._file(service)),
                redated=moved,
            )

    def keep(self, exchange: Exchange, answer: Answer) -> None:
        self._kept[self._file(exchange.path.rpartition("/")[2])] = answer

    def save(self) -> None:
        for path, answer in self._kept.items():
            path.parent.mkdir(exist_ok=True)
            told = {"status": answer.status, "origin": answer.origin, "body": answer.body}
            path.write_text(
                json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
            )

    def _file(self, service: str) -> Path:
        return self._path.parent / ANSWERS / f"{self._path.stem}.{re.sub(r'[^A-Za-z0-9._-]', '_', service)}.json"


def _answer_in(path: Path) -> Answer | None:
    if not path.is_file():
        return None
    told = _json(path)
    if not isinstance(told, dict) or not isinstance(told.get("status"), int):
        raise Malformed(f"{path.name} is not a recorded answer: it has no status")
    return Answer(told["status"], told.get("body"), str(told.get("origin", "")))


class HarFile:
    """An HTTP archive: its calls, feedback and discovery; preflights and whatever else was loaded are left alone."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._archive = _json(path)
        entries = self._archive.get("log", {}).get("entries") if isinstance(self._archive, dict) else None
        if not isinstance(entries, list):
            raise Malformed(f"{path.name} is not a HAR: it has no log.entries")
        self._entries: list[Any] = entries
        self._changed = False

    def exchanges(self, services: Sequence[Mapping[str, Any]]) -> Iterator[Exchange]:
        for ordinal, entry in enumerate(self._entries):
            exchange = self._exchange(ordinal, entry)
            if exchange is not None:
                yield exchange

    def _exchange(self, ordinal: int, entry: Any) -> Exchange | None:
        try:
            request, response = entry["request"], entry["response"]
            url, method = str(request["url"]).split("?")[0].split("#")[0], str(request["method"]).upper()
            door = _DOOR.search(url)
            if door is None or method not in ("GET", "POST"):
                return None
            posted = request.get("postData") or {}
            return Exchange(
                name=f"{self.name} #{ordinal + 1} {method} {door[0]}",
                method=method,
                path=door[0],
                body=str(posted["text"]).encode() if "text" in posted else None,
                media_type=str(posted.get("mimeType") or JSON_TYPE),
                recorded=_answered(response, url[: door.start()]),
                ordinal=ordinal,
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise Malformed(f"entry {ordinal + 1} of {self._path.name} is not a HAR entry") from None

    def keep(self, exchange: Exchange, answer: Answer) -> None:
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body, ensure_ascii=False)
        response = self._entries[exchange.ordinal]["response"]
        # its links go on naming the server that the archive's own URLs name
        recorded = exchange.recorded.origin if exchange.recorded else ""
        text = "" if answer.body is None else text.replace(answer.origin, recorded) if recorded else text
        content = {"mimeType": JSON_TYPE, **response.get("content", {}), "size": len(text.encode()), "text": text}
        content.pop("encoding", None)
        response.update(status=answer.status, content=content)
        self._changed = True

    def save(self) -> None:
        if self._changed:
            self._path.write_text(
                json.dumps(self._archive, indent=2, ensure_ascii=False) + "\n",
                encoding="utf-8",
                errors="backslashreplace",
            )


def _answered(response: Mapping[str, Any], origin: str) -> Answer | None:
    """The recorded answer; None where the archive has none (status 0: the request was never answered)."""
    status = int(response.get("status", 0))
    if not status:
        return None
    content = response.get("content") or {}
    text = str(content.get("text", ""))
    if content.get("encoding") == "base64":
        try:
            text = base64.b64decode(text, validate=True).decode()
        except binascii.Error:
            raise ValueError("not base64") from None
    return replace(read_answer(status, text), origin=origin)


def read_answer(status: int, text: str) -> Answer:
    """A body as JSON where it is that."""
    if not text:
        return Answer(status)
    try:
        return Answer(status, json.loads(text))
    except json.JSONDecodeError:
        return Answer(status, text)
