"""Several server processes on one PostgreSQL, all killed at once: one log, no gap, nothing lost that was acknowledged.

The long form: `python -m tests.soak.kills --kills 1000 --workers 3 --postgres`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.postgres import PostgresServer, started
from tests.peers.server import Server
from tests.soak.kills import ended, rounds

KILLS = int(os.environ.get("CDS_TEST_KILLS", "1"))

Make = Callable[..., Server]


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    """What is killed while it syncs has a disk to sync."""
    return on_disk


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """The same of the database."""
    with started(None) as server:
        yield server


def test_processes_share_one_log_on_postgresql_also_when_killed(migrated_postgres_url: str, servers: Make) -> None:
    server = servers(database_url=migrated_postgres_url, workers=2)
    done = rounds(server, KILLS, every=KILLS)
    assert done.findings == []
    assert done.kept.inferences
    numbers = Counter([*(item["seq"] for item in done.kept.inferences), *done.kept.actions])
    assert max(numbers.values()) == 1  # two processes never gave one number to two acts
    assert ended(server, done) == []
