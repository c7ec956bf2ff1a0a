"""A small act through the store's writer, sixteen at a time, beside the same bytes appended to a plain SQLite table.

Both in one process, write-ahead log and full sync. An act adds a row and its ledger entry (canonical JSON, leaf, chain)
and shares one commit with whatever queued meanwhile; the plain table gets one blob of as many bytes, once with a commit
each, and once in groups of the sizes that ours had.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import _bench
from cds_server import logs
from cds_server.settings import load
from cds_server.store.store import Store
from cds_server.store.writer import Tx, _Group

TOGETHER = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=4000, help="acts")
    args = parser.parse_args()
    logs.configure("warning")
    with _bench.scratch() as scratch:
        ours, size, groups = asyncio.run(_acts(scratch / "var", args.count))
        plain = _appends(scratch / "plain.db", [1] * args.count, size)
        grouped = _appends(scratch / "grouped.db", groups, size)
    print(f"{size} bytes of entry an act, {args.count / len(groups):.1f} acts a commit   {_bench.machine()}")
    kept = [
        _bench.figure(
            "acts on record, sixteen at a time",
            args.count / ours,
            "acts/s",
            against=f"plain SQLite, {against}: {args.count / seconds:.0f}/s",
            ratio=seconds / ours,
            goal=f">= {goal}",
            ok=seconds / ours >= goal,
        )
        for against, seconds, goal in (
            ("one append a commit", plain, 1),
            ("as many appends a commit", grouped, 0.3),
        )
    ]
    return 0 if all(kept) else 1


async def _acts(instance: Path, count: int) -> tuple[float, int, list[int]]:
    """Seconds, bytes of an entry, and how many acts each commit had."""
    settings = load({"CDS_DATA_DIR": str(instance), "CDS_TRUST": "open"})
    store = Store.open(settings.data_dir, settings.database_url)
    waiting = iter(range(count))
    sizes: list[int] = []
    answered = store.writer._answer

    def counted(group: _Group) -> None:
        sizes.append(len(group.outcomes))
        answered(group)

    store.writer._answer = counted  # type: ignore[method-assign]

    def act(tx: Tx) -> int:
        tx.add("service_state", service="benchmark", state="started", reason=None, at=tx.now)
        entry = tx.entry("service-started", "user:benchmark", {"service": "benchmark"})
        return len(entry.body) + len(entry.leaf) + len(entry.chain) + len(entry.row_leaves)

    async def one_after_another() -> int:
        size = 0
        for _ in waiting:
            size = await store.writer.write(act)
        return size

    try:
        sizes.clear()
        began = time.perf_counter()
        entries = await asyncio.gather(*(one_after_another() for _ in range(TOGETHER)))
        return time.perf_counter() - began, max(entries), sizes
    finally:
        store.close()


def _appends(path: Path, groups: Sequence[int], size: int) -> float:
    """Seconds for so many appends a commit."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        body, began = b"x" * size, time.perf_counter()
        for count in groups:
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(count):
                connection.execute("INSERT INTO log (body) VALUES (?)", (body,))
            connection.execute("COMMIT")
        return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
