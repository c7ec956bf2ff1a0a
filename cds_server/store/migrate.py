"""Bring a database to the schema of this version: alembic, from the first day."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import inspect

from cds_server.store.engine import Database
from cds_server.store.tables import DERIVED, GOVERNED
from models.errors import Misconfigured

HEAD = "0018"


def current(database: Database) -> str | None:
    """Revision of the database; None for an empty one. Asked on every start, so without loading alembic."""
    with database.reading() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None


def migrate(database: Database) -> None:
    """Apply what is missing. Raises Misconfigured when the database is newer than this program."""
    found = current(database)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    if found is not None and found not in {s.revision for s in ScriptDirectory.from_config(config).walk_revisions()}:
        raise Misconfigured(
            f"the database has schema revision {found}, which this version does not know: upgrade the program"
        )
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def withhold(database: Database) -> None:
    """PostgreSQL: take the right to change rows from everybody, the owner too, as migration 0001 does.

    For a database that came from a dump: grants name roles of the server it was taken from, so a dump carries none.
    """
    if database.sqlite:
        return
    with database.writing() as connection:
        for table in ("instance", "ledger_entry", *GOVERNED, *DERIVED):
            connection.exec_driver_sql(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM PUBLIC, CURRENT_USER")
