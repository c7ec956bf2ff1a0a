"""Logs that PHI cannot slip into."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from cds_server import logs

NAME = "Qwertzenberg"


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("debug", stream)
    return stream


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_carries_its_listed_fields(out: io.StringIO) -> None:
    logs.log().info("call refused", service="breast-cancer-prognosis", status=400, where="/prefetch/patient")
    (line,) = lines(out)
    assert {key: line[key] for key in ("event", "level", "service", "status", "where")} == {
        "event": "call refused",
        "level": "info",
        "service": "breast-cancer-prognosis",
        "status": 400,
        "where": "/prefetch/patient",
    }
    assert line["timestamp"].endswith("Z")
    assert "dropped" not in line


@pytest.mark.parametrize("name", ["patient", "name", "birthDate", "body", "value", "exc_info", "user", "mrn"])
def test_a_field_that_is_not_listed_is_dropped_and_counted(out: io.StringIO, name: str) -> None:
    logs.log().info("call refused", **{name: NAME}, status=1)
    (line,) = lines(out)
    assert NAME not in out.getvalue()
    assert (line["dropped"], line["status"]) == (1, 1)


@pytest.mark.parametrize(
    "value",
    [
        {"family": NAME},
        [NAME],
        (NAME,),
        NAME.encode(),
        ValueError(NAME),
        f"{NAME}\nsecond line",
        f'{{"family": "{NAME}"}}',
        f"{NAME} née Ümlaut",
        NAME * 40,
    ],
)
def test_a_listed_field_takes_a_short_plain_text_only(out: io.StringIO, value: Any) -> None:
    logs.log().warning("call refused", what=value)
    assert NAME not in out.getvalue()
    assert lines(out)[0]["dropped"] == 1


@pytest.mark.parametrize("event", [f"refused {NAME}", "refused MRN 12345", "born 1961-07-23", "x" * 90, ""])
def test_an_event_is_a_name_not_a_sentence(out: io.StringIO, event: str) -> None:
    logs.log().warning(event)
    assert lines(out)[0]["event"] == "unnamed"


def test_other_libraries_lose_their_words(out: io.StringIO) -> None:
    try:
        raise ValueError(NAME)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("failed for %s", NAME)
    logging.getLogger("httpx").info("GET /Patient/%s", NAME)
    (line,) = lines(out)
    assert (line["event"], line["source"], line["error"], line["level"]) == (
        "library",
        "uvicorn.error",
        "ValueError",
        "warning",
    )
    assert NAME not in out.getvalue()
