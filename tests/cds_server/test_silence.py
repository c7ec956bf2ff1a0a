"""A feed that says nothing is noticed, told once, and forgotten when it speaks again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.readers.hl7v2 import MESSAGE
from cds_server import silence
from cds_server.feeds import FeedSource, feed_sources
from cds_server.settings import load
from cds_server.silence import Silence, heard
from cds_server.store.store import Store
from tests.cds_server.stores import land_parts


@pytest.fixture
def ward(tmp_path: Path) -> FeedSource:
    config = tmp_path / "cds.toml"
    config.write_text(
        '[[source]]\nname = "test"\nkind = "hl7v2-mllp"\nnamespace = "ward"\nlisten = "127.0.0.1:0"\n'
        "silence_minutes = 5\n"
    )
    return feed_sources(load({"CDS_CONFIG": str(config)}))["test"]


def flags(store: Store) -> list[Any]:
    return [
        tuple(row)
        for row in store.reads.query(
            "SELECT f.detail, c.resolution FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id ORDER BY f.id"
        )
    ]


def test_silence_is_told_once_and_closed_by_the_next_message(
    store: Store, ward: FeedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LOOK", -1.0)
    watch = Silence(store, [ward])
    land_parts(store, [b"MSH|"], namespace="ward", media_type=MESSAGE)
    assert watch.look() == 0
    later = lambda *_: [silence.Heard("test", 301.0, 0)]  # noqa: E731
    monkeypatch.setattr(silence, "heard", later)
    assert (watch.look(), watch.look()) == (1, 0)
    assert flags(store) == [("no message from test for 5 minutes", None)]
    monkeypatch.setattr(silence, "heard", heard)
    assert watch.look() == 1
    assert flags(store) == [("no message from test for 5 minutes", "the feed speaks again")]


def test_what_waits_is_counted(store: Store, ward: FeedSource) -> None:
    assert heard(store, [ward]) == [silence.Heard("test", None, 0)]
    land_parts(store, [b"MSH|"], namespace="ward", media_type=MESSAGE)
    (found,) = heard(store, [ward])
    assert found.waiting == 1
    assert found.seconds is not None
    assert found.seconds < 60
