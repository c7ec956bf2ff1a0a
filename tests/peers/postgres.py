"""A real PostgreSQL that the tests start: free port, temporary directory, unprivileged account, loopback, fsync on."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cds_server.store.engine import Database
from cds_server.store.migrate import migrate
from tests.peers import memory, require

OWNER = "cds"
"""Role that owns the databases: not a superuser, as in production, so that grants and triggers bind it."""
ADMIN = "postgres"
START_SECONDS = 60


@dataclass(slots=True)
class PostgresServer:
    programs: Path
    home: Path
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _migrated: str | None = None
    _given_back: list[str] = field(default_factory=list)
    _as_made: list[tuple[Any, ...]] = field(default_factory=list)

    def url(self, database: str, user: str = OWNER) -> str:
        """SQLAlchemy URL of a database, in the form of the contract."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template1") -> str:
        """Name of a new database that `OWNER` owns: empty, or as the template is."""
        name = f"cds_{uuid.uuid4().hex}"
        self._admin(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template}")
        return name

    def create_migrated(self) -> str:
        """The same, with the schema of this version: migrated once, then copied in a tenth of the time, or one that was
        given back."""
        if self._migrated is None:
            name = self.create_database()
            migrated(self.url(name), self.home)
            self._migrated = name
            with self._connect(name) as connection:
                self._as_made = _schema(connection)
                assert _filled(connection) == ["alembic_version"], "a migration adds rows, which `give_back` takes out"
        return self._given_back.pop() if self._given_back else self.create_database(self._migrated)

    def give_back(self, name: str) -> None:
        """Empty a database of `create_migrated` for the next one, in a third of the CPU time that a new one takes until
        it is known to its first client. One whose schema, triggers or grants are not what they were is dropped."""
        with self._connect(name) as connection:  # one for all of it: each new one costs the server five milliseconds
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            as_made = _schema(connection) == self._as_made
            if as_made:
                connection.execute("SET session_replication_role = replica")  # the triggers refuse it otherwise
                if filled := [table for table in _filled(connection) if table != "alembic_version"]:
                    connection.execute(f"TRUNCATE {', '.join(filled)} CASCADE".encode())
                connection.execute(
                    "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) "
                    "FROM pg_sequences WHERE last_value IS NOT NULL"
                )
        if as_made:
            self._given_back.append(name)
        else:
            self.drop_database(name)

    def drop_database(self, name: str) -> None:
        self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def start(self) -> None:
        subprocess.run(
            [
                self.programs / "initdb",
                "-D",
                self.home / "db",
                "-U",
                ADMIN,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **_unprivileged(),
        )
        for _ in range(5):  # between our look and its bind, somebody else may take the port
            self.port = _free_port()
            if self._serve():
                self._admin(f"CREATE ROLE {OWNER} LOGIN")
                return
        raise RuntimeError(f"PostgreSQL did not start; its log: {(self.home / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Fast shutdown (SIGINT), then wait."""
        if self._process:
            self._process.send_signal(2)
            self._process.wait(timeout=START_SECONDS)

    def _serve(self) -> bool:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on",
            "synchronous_commit": "on",
            "max_connections": "60",
            "shared_buffers": "32MB",
        }
        # setpriv: if this test process is killed, the server goes with it.
        command: list[str | Path] = [
            "setpriv",
            "--pdeathsig",
            "INT",
            self.programs / "postgres",
            "-D",
            self.home / "db",
        ]
        command += [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with (self.home / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(command, stdout=log, stderr=log, **_unprivileged())
        self._process = process
        give_up = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < give_up:
            try:
                self._admin("SELECT 1")
                return True
            except psycopg.OperationalError:
                time.sleep(0.05)
        return False

    def _admin(self, statement: str) -> None:
        with self._connect("postgres") as connection:
            connection.execute(statement.encode())

    def _connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        where = f"host=127.0.0.1 port={self.port} user={ADMIN} dbname={database} connect_timeout=5"
        return psycopg.connect(where, autocommit=True)


def _schema(connection: psycopg.Connection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What tells one schema from another: its revision, relations, triggers, functions, grants and settings."""
    return connection.execute(
        "SELECT relname, relkind, relacl::text, relowner::regrole::text, relhastriggers, relnatts, relchecks "
        "FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "UNION ALL SELECT version_num, 'v', '', '', false, 0, 0 FROM alembic_version "
        "UNION ALL SELECT tgname, tgenabled, tgtype::text, tgrelid::regclass::text, true, tgnargs, 0 "
        "FROM pg_trigger WHERE NOT tgisinternal "
        "UNION ALL SELECT proname, prokind, prosrc, proowner::regrole::text, prosecdef, pronargs, 0 "
        "FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
        "UNION ALL SELECT 'public', 'n', nspacl::text, nspowner::regrole::text, false, 0, 0 FROM pg_namespace "
        "WHERE nspname = 'public' "
        "UNION ALL SELECT 'setting', 's', setconfig::text, '', false, 0, 0 FROM pg_db_role_setting "
        "WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "ORDER BY 1, 2, 3, 4"
    ).fetchall()


def _filled(connection: psycopg.Connection[tuple[Any, ...]]) -> list[str]:
    """The tables that have rows, or had some: whose file is not empty. (To ask each for a row takes the server ten
    times as long: it would read what it knows of all their indexes.)"""
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
        "AND pg_relation_size(oid) > 0 ORDER BY 1"
    )
    return [table for (table,) in found]


def migrated(url: str, lock_dir: Path) -> None:
    """Bring an empty database to the schema of this version; there is no instance in it yet."""
    database = Database(url, lock_dir)
    migrate(database)
    database.close()


def _unprivileged() -> dict[str, Any]:
    """Arguments of a process as the account that the server runs as: initdb and postgres refuse root."""
    account = _account()
    return (
        {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"} if os.geteuid() == 0 else {}
    )


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("neither the account postgres nor nobody exists")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(place: Path | None) -> Iterator[PostgresServer]:
    """A server whose files lie in a folder of their own below `place` (None: on the disk)."""
    programs = require("postgres")
    home = Path(tempfile.mkdtemp(prefix="cds-postgres-", dir=place))
    if os.geteuid() == 0:
        os.chown(home, _account().pw_uid, _account().pw_gid)
    server = PostgresServer(programs, home)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for this test process (each xdist worker has its own), in memory where there is room for it. A module
    that kills what commits has one of its own on the disk."""
    with started(memory()) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """`postgresql+psycopg://...` of a fresh database, dropped after the test."""
    database = postgres_server.create_database()
    yield postgres_server.url(database)
    postgres_server.drop_database(database)


@pytest.fixture
def migrated_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The same of a database with the schema of this version, and no instance in it."""
    database = postgres_server.create_migrated()
    yield postgres_server.url(database)
    postgres_server.give_back(database)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema of this version, and no instance in it: to be copied."""
    home = tmp_path_factory.mktemp("migrated")
    migrated(f"sqlite:///{home / 'cds.db'}", home)
    return home / "cds.db"
