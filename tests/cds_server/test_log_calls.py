"""Every line that the server logs, found in its source: a name of ours, and fields from the list only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from cds_server.logs import _EVENT, ALLOWED
from tests.peers import ROOT

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
ROOMS = ("adapters", "cds_server", "models", "smart_app")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """(place, the call) of each `log().level(...)`."""
    for path in (each for room in ROOMS for each in sorted((ROOT / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            holder = node.func.value
            if isinstance(holder, ast.Call) and isinstance(holder.func, ast.Name) and holder.func.id == "log":
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def imported(path: Path) -> Iterator[str]:
    """The libraries that a file imports from."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


CALLS = dict(calls())


def test_there_are_such_calls() -> None:
    assert len(CALLS) >= 4


@pytest.mark.parametrize("place", CALLS)
def test_an_event_has_a_fixed_name_and_listed_fields(place: str) -> None:
    call = CALLS[place]
    (event,) = call.args
    assert isinstance(event, ast.Constant), "the name of an event is never put together"
    assert _EVENT.fullmatch(str(event.value))
    fields = [keyword.arg for keyword in call.keywords]
    assert None not in fields, "no **fields: what they hold cannot be read here"
    assert set(fields) <= ALLOWED


def test_the_list_holds_no_field_that_is_about_a_person() -> None:
    about_a_person = {
        "patient",
        "person",
        "user",
        "subject",
        "body",
        "url",
        "query",
        "card",
        "detail",
        "token",
        "value",
    }
    assert not ALLOWED & about_a_person


@pytest.mark.parametrize("room", ROOMS)
def test_nobody_logs_around_the_list(room: str) -> None:
    """`print` is for commands (ruff T20); `logging` reaches the log by the bridge, which drops every text."""
    for path in sorted((ROOT / room).rglob("*.py")):
        if path == ROOT / "cds_server" / "logs.py":
            continue
        assert "structlog" not in set(imported(path)), path.name
