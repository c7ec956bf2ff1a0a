"""What happens on a feed is counted where it happens and told where it is asked for."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from adapters.hl7v2.oddities import CODES
from adapters.readers.hl7v2 import MESSAGE
from adapters.source import Arrival
from adapters.sources.hl7v2_mllp import Counts
from cds_server import feed_counts, listening
from cds_server.app import build, create_app
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.feed_counts import add, counts, say
from cds_server.intake import StoreIntake
from cds_server.settings import load
from cds_server.store.store import Store
from models.nouns import LandingMeta
from tests.adapters.hl7v2_senders import until
from tests.cds_server.stores import ACTOR, flags, land_parts

ODD = (
    "MSH|^~\\&|LAB|HOSP|CDS|X|20260301090000+0100||ORU^R01|M1|P|2.9\r"
    "PID|1||1^^^HOSP^MR||DOE\rOBR|1||F1|S^x^L|||20260301\r"
    "OBX|1|NM|K^k^L||<5|mmol/L|||||F\rOBX|2|ST|C^c^L||a\\ZZ9\\b\\.br\\c||||||F\rOBX|3|NM|N^n^L||1,2||||||F\r"
)


def told(store: Store) -> dict[tuple[str, str], int]:
    return {(source, what): times for source, what, times in counts(store)}


def test_what_is_odd_about_a_message_is_counted_once_a_message(store: Store) -> None:
    latin = ODD.replace("DOE", "MÜLLER").replace("|M1|", "|M2|").encode("latin-1")
    land_parts(store, [ODD.encode(), latin], media_type=MESSAGE)
    digest_backlog(store, frozenset(), ACTOR, validate=False)
    found = told(store)
    assert found == {
        ("test", "odd: number-as-text"): 2,
        ("test", "odd: escape-unknown"): 2,
        ("test", "odd: version-unknown"): 2,
        ("test", "odd: charset-not-declared"): 1,
    }
    assert {what.removeprefix("odd: ") for _, what in found} <= CODES


def test_counts_only_grow(store: Store) -> None:
    for more in ({"messages": 2}, {"messages": 3, "duplicates": 1}):
        store.writer.submit(functools.partial(add, source="lab", more=more)).result()
    assert told(store) == {("lab", "messages"): 5, ("lab", "duplicates"): 1}


def test_a_listener_keeps_its_counts_while_it_runs_and_at_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_counts, "COUNT", 0.01)

    async def story() -> None:
        seen = Counts()
        task = asyncio.create_task(feed_counts.keep(store, "lab", seen.of, listening.TOLD))
        seen.of["skipped bytes"] += 7
        await until(lambda: bool(told(store)))
        monkeypatch.setattr(feed_counts, "COUNT", 60.0)
        await asyncio.sleep(0.05)
        seen.of["skipped bytes"] += 1
        seen.of["oversize"] += 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    assert told(store) == {("lab", "skipped bytes"): 8, ("lab", "oversize"): 1}


def test_what_comes_and_goes_is_told_as_it_is_and_is_nothing_at_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_counts, "COUNT", 0.01)
    open_now = [3]

    async def story() -> None:
        nothing: Counter[str] = Counter()
        task = asyncio.create_task(
            feed_counts.keep(store, "pacs", nothing, present={"open associations": lambda: open_now[0]})
        )
        for count in (3, 1):
            open_now[0] = count
            await until(lambda: told(store).get(("pacs", "now: open associations")) == open_now[0])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    assert told(store) == {("pacs", "now: open associations"): 0}


def test_other_bytes_under_a_number_are_kept_and_told_once(store: Store) -> None:
    """(C1): a Flag until somebody resolves it, however many such messages there are."""

    async def story() -> list[Any]:
        receipts = []
        for body in (b"MSH|1", b"MSH|2", b"MSH|3", b"MSH|2"):
            staged = StoreIntake(store, ACTOR).stage(LandingMeta("lab", "hosp", MESSAGE, now()))
            await staged.write(body)
            receipts.append(await staged.commit(b"key", other=b"key" + body))
        return receipts

    first, second, third, again = asyncio.run(story())
    assert [each.arrival for each in (first, second, third, again)] == [Arrival.STORED] * 3 + [Arrival.DUPLICATE]
    assert (first.beside, second.beside, third.beside) == (None, first.landing, first.landing)
    assert (again.landing, again.beside) == (second.landing, None)
    assert flags(store) == [("flag", "number-used-again")]


def test_metrics_tell_what_happened_on_each_feed(tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    config.write_text('[[source]]\nname = "lab"\nkind = "hl7v2-mllp"\nnamespace = "hosp"\nlisten = "127.0.0.1:0"\n')
    parts = build(load({"CDS_CONFIG": str(config)}, data_dir=tmp_path / "var", trust="open"), ACTOR)
    try:
        parts.store.writer.submit(lambda tx: add(tx, "lab", {"answered AR": 3})).result()
        parts.store.writer.submit(lambda tx: say(tx, "pacs", "open associations", 2)).result()
        with TestClient(create_app(parts), base_url="http://127.0.0.1", client=("127.0.0.1", 5000)) as client:
            said = client.get("/metrics").text
        assert 'cds_feed_events{event="answered AR",source="lab"} 3.0' in said
        assert 'cds_feed_present{source="pacs",what="open associations"} 2.0' in said
    finally:
        parts.close()
