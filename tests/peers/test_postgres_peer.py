"""The peer itself: a real server, durable, that binds its owner by grants."""

from __future__ import annotations

import psycopg
import pytest

from tests.peers.postgres import ADMIN, PostgresServer


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"))


def value(connection: psycopg.Connection[tuple[object, ...]], query: bytes) -> object:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_it_is_postgresql(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        assert str(value(connection, b"SELECT version()")).startswith("PostgreSQL ")


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
def test_a_commit_is_durable(postgres_url: str, setting: str) -> None:
    with connect(postgres_url) as connection:
        assert value(connection, f"SHOW {setting}".encode()) == "on"


def test_it_listens_on_loopback_only(postgres_server: PostgresServer) -> None:
    with connect(postgres_server.url("postgres", user=ADMIN)) as connection:
        assert value(connection, b"SHOW listen_addresses") == "127.0.0.1"
        assert value(connection, b"SHOW unix_socket_directories") == ""


def test_the_owner_is_no_superuser(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        assert value(connection, b"SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


def test_each_test_has_a_database_of_its_own(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        assert value(connection, b"SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        connection.execute(b"CREATE TABLE planted (id int)")


def test_and_the_next_one_is_empty_again(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        assert value(connection, b"SELECT to_regclass('planted')") is None


ROWS = b"SELECT count(*) FROM instance"
GIVEN: list[str] = []


@pytest.mark.parametrize("turn", ["made", "given back", "given back with another schema", "made again"])
def test_what_is_given_back_is_as_new(migrated_postgres_url: str, turn: str) -> None:
    """No rows, sequences from their beginning, the grants and triggers of the schema; else it is another database."""
    with connect(migrated_postgres_url) as connection:
        assert value(connection, ROWS) == 0
        assert value(connection, b"SELECT count(*) FROM pg_sequences WHERE last_value IS NOT NULL") == 0
        assert value(connection, b"SELECT to_regclass('planted')") is None
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(b"DELETE FROM instance")
    assert (migrated_postgres_url in GIVEN) == turn.startswith("given back")
    GIVEN.append(migrated_postgres_url)
    with connect(migrated_postgres_url) as connection:
        connection.execute(b"INSERT INTO instance (id, created_at) VALUES ('planted', '')")
        if turn == "given back with another schema":
            connection.execute(b"CREATE TABLE planted (id int)")
