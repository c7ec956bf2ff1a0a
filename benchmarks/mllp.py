"""Feeds over MLLP: durable acknowledgements a second on eight connections, and whether facts keep up with results.

The first beside the same bytes appended to a plain SQLite table, as many of them a commit as the listener had. Sender
and listener are processes of their own; every positive answer is for what is synced to disk. The second twice: the feed
alone, and with hook calls meanwhile, whose time counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks import _bench
from benchmarks._load import drive, warm
from benchmarks._mllp_load import Load, load
from cds_server.serve import program

CONNECTIONS, ROUNDS = 8, 3
RATE = 2000
P99 = 20.0
"""Milliseconds."""
RESULTS = 300
"""Messages of 20 results, a second."""
LAG = 5.0
"""Seconds from landing to facts."""
CALLS, CALL_P99 = 5.0, 60.0
"""Hook calls a second beside the feed, and milliseconds: the limit of `hooks.py`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="of ADT, and of results beside hook calls")
    parser.add_argument("--sustained", type=float, default=60.0, help="seconds of results alone")
    parser.add_argument("--results", type=float, default=RESULTS, help="messages of 20 results, a second")
    args = parser.parse_args()
    with _bench.scratch() as scratch:
        kept = _acknowledged(scratch, args.seconds)
    with _bench.scratch() as scratch:
        kept = _keeping_up(scratch, args.sustained, args.results) and kept
    with _bench.scratch() as scratch:
        kept = _keeping_up(scratch, args.seconds, args.results, CALLS) and kept
    return 0 if kept else 1


# ---- acknowledgements ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """A load, and the bare appends right after it: what a sync costs on this disk changes by the minute."""

    seen: Load
    group: float
    plain: float


def _acknowledged(scratch: Path, seconds: float) -> bool:
    rounds = [_round(scratch / str(number), seconds / ROUNDS) for number in range(ROUNDS)]
    for each in rounds:
        print(
            f"{each.seen.acknowledged} messages of {each.seen.message_bytes} bytes in {each.seen.seconds:.1f} s, "
            f"{each.group:.1f} a commit, {each.seen.failed} failed; acknowledged in {each.seen.p50:.1f} ms (p50), "
            f"{each.seen.p99:.1f} (p99), {each.seen.worst:.0f} at worst; plain {each.plain:.0f}/s   {_bench.machine()}"
        )
    failed = sum(each.seen.failed for each in rounds)
    rate, p99 = statistics.median(each.seen.rate for each in rounds), statistics.median(e.seen.p99 for e in rounds)
    plain = statistics.median(each.plain for each in rounds)
    fast = _bench.figure(
        f"ADT acknowledged on disk, {CONNECTIONS} connections",
        rate,
        "messages/s",
        against=f"plain SQLite, as many appends a commit: {plain:.0f}/s",
        ratio=statistics.median(each.seen.rate / each.plain for each in rounds),
        goal=f">= {RATE}/s",
        ok=rate >= RATE and not failed,
    )
    prompt = _bench.figure(
        "ADT acknowledged on disk: p99",
        p99,
        "ms",
        against=f"{rate:.0f} messages/s",
        goal=f"< {P99:.0f} ms",
        ok=p99 < P99 and not failed,
    )
    return fast and prompt


def _round(scratch: Path, seconds: float) -> Round:
    scratch.mkdir()
    port = _bench.free_port()
    with _listening(scratch, port):
        seen = load(port, seconds, connections=CONNECTIONS)
    group = _a_commit(scratch)
    return Round(seen, group, _appends(scratch / "plain.db", seconds / 4, seen.message_bytes, round(group)))


@contextlib.contextmanager
def _listening(scratch: Path, port: int) -> Iterator[None]:
    environment = _bench.environment(scratch / "var", CDS_CONFIG=str(_configured(scratch, port)), CDS_LOG_LEVEL="info")
    with (scratch / "listen.err").open("wb") as errors:
        process = subprocess.Popen([*program(), "listen"], env=environment, stderr=errors)
        try:
            _wait(port)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _a_commit(scratch: Path) -> float:
    """How many acts the listener wrote a commit: it says so at its end."""
    for line in (scratch / "listen.err").read_text().splitlines():
        told = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == "listened":
            return float(told["count"]) / int(told["what"].split()[2])
    sys.exit("benchmarks: the listener did not say how many commits it made")


def _configured(scratch: Path, port: int) -> Path:
    config = scratch / "cds.toml"
    config.write_text(
        f"[[source]]\nname = 'lab'\nkind = 'hl7v2-mllp'\nnamespace = 'hosp'\nlisten = '127.0.0.1:{port}'\n"
    )
    return config


def _wait(port: int, seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                sys.exit("benchmarks: the feed does not listen")
            time.sleep(0.05)


def _appends(path: Path, seconds: float, size: int, group: int) -> float:
    """A second, full sync, `group` a commit."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        body, began, done = b"x" * size, time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(max(1, group)):
                connection.execute("INSERT INTO log (body) VALUES (?)", (body,))
                done += 1
            connection.execute("COMMIT")
        return done / (time.perf_counter() - began)


# ---- facts -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Digested:
    """What a look into the store says, again and again."""

    database: Path
    lag: float = 0.0
    """Seconds that the oldest message waited that was not digested: the highest of all looks."""
    waiting: int = 0
    """Messages that were not digested, at the last look."""
    _done: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as connection:
            while not self._done.wait(0.25):
                (last,) = connection.execute("SELECT COALESCE(MAX(landing_id), 0) FROM digestion").fetchone()
                self.waiting, oldest = connection.execute(
                    "SELECT COUNT(*), MIN(received_at) FROM landing WHERE id > ?", (last,)
                ).fetchone()
                if oldest is not None:
                    self.lag = max(self.lag, (datetime.now(UTC) - datetime.fromisoformat(oldest)).total_seconds())

    def __enter__(self) -> Digested:
        self._thread = threading.Thread(target=self.look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    _thread: threading.Thread = field(default_factory=threading.Thread)


def _keeping_up(scratch: Path, seconds: float, rate: float, calls: float = 0.0) -> bool:
    """`cds serve` as it ships: the feed in its process, the background work in another."""
    port = _bench.free_port()
    with _bench.serving(scratch / "var", CDS_CONFIG=str(_configured(scratch, port))) as (door, _):
        _wait(port)
        if calls:
            warm(partial(drive, door, 1.0, connections=2))
        time.sleep(1.0)  # the background has its units in memory
        with ThreadPoolExecutor(1) as beside, Digested(scratch / "var" / "cds.db") as digested:
            asked = beside.submit(drive, door, seconds, connections=2, rate=calls) if calls else None
            seen: Load = load(port, seconds, connections=CONNECTIONS, rate=rate, kind="oru")
            left, began = digested.waiting, time.monotonic()
            while digested.waiting and time.monotonic() - began < max(10.0, seconds):
                time.sleep(0.25)
            answered = asked.result() if asked is not None else None
    print(
        f"{seen.acknowledged} messages of 20 results at {seen.rate:.0f}/s ({rate:.0f} asked), {seen.failed} failed, "
        f"p99 {seen.p99:.1f} ms; {left} waited at the end, gone {time.monotonic() - began:.1f} s later   "
        f"{_bench.machine()}"
    )
    beside_it = f", {calls:.0f} hook calls/s beside" if calls else ""
    kept = _bench.figure(
        f"landing to facts at {rate:.0f} ORU/s for {seconds:.0f} s{beside_it}: highest lag",
        max(digested.lag, 0.001),
        "s",
        against=f"{left} messages waited at the end; {seen.rate:.0f}/s were sent",
        goal=f"< {LAG:.0f} s",
        ok=digested.lag < LAG and not seen.failed and seen.rate >= 0.95 * rate,
    )
    if answered is None:
        return kept
    return kept & _bench.figure(
        f"hook call beside {rate:.0f} ORU/s: p99",
        answered.p99,
        "ms",
        against=f"p50 {answered.p50:.1f} ms, {answered.answered} answered, {answered.shed} shed",
        goal=f"< {CALL_P99:.0f} ms",
        ok=bool(answered.answered) and answered.p99 < CALL_P99 and not answered.failed,
    )


if __name__ == "__main__":
    sys.exit(main())
