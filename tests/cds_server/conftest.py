"""Stores on SQLite and on a real PostgreSQL. Whoever opens one by `open_store` ends by verifying its ledger, deeply."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from cds_server.audit import audit
from cds_server.settings import Settings, load
from cds_server.store.store import Store

OpenStore = Callable[..., Store]

UNHURRIED = 30_000
"""Milliseconds: a test about something else than the deadline must not fail on a machine that is busy."""


@pytest.fixture(autouse=True)
def logging_ends_with_the_test() -> Iterator[None]:
    """A command sets up logging on the standard error of its test, which is closed after it."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """Database URL of one empty instance, once on each engine: the schema is there, which else each test would wait
    for. Where migrating is the question (test_store), the module has a `url` of its own."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), data_dir / "cds.db")
        return f"sqlite:///{data_dir / 'cds.db'}"
    return str(request.getfixturevalue("migrated_postgres_url"))


@pytest.fixture
def open_store(data_dir: Path, url: str) -> Iterator[OpenStore]:
    """Opens the instance (again and again, if asked); afterwards all are closed and the ledger must verify."""
    opened: list[Store] = []

    def open_() -> Store:
        opened.append(Store.open(data_dir, url))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()
    assert audit(data_dir, url, deep=True).findings == ()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


@pytest.fixture
def settings(data_dir: Path, url: str) -> Settings:
    """Settings of that instance: the sandbox's callers are let in, one system joins."""
    config = data_dir / "cds.toml"
    config.write_text('actors = ["auditor"]\n[identity]\njoining_systems = ["http://hl7.org/fhir/sid/us-ssn"]\n')
    return load({"CDS_CONFIG": str(config)}, data_dir=data_dir, database_url=url, trust="open", deadline_ms=UNHURRIED)


@pytest.fixture
def sqlite_settings(data_dir: Path) -> Settings:
    """The same on SQLite only, for what does not touch the engine."""
    url = f"sqlite:///{data_dir / 'cds.db'}"
    return load({}, data_dir=data_dir, database_url=url, trust="open", deadline_ms=UNHURRIED)
