"""Backup and restore: database, files and keys as three things, because they must not be kept together.

    DIR/database/cds.db        (PostgreSQL: cds.sql, by pg_dump)
    DIR/blobs/…                sealed bytes of large landings
    DIR/models/…               enrolled and recalibrated ModelVersions
    DIR/keys/keys.db           the keys: store them elsewhere

Order of copying: database, then blobs, then keys. A blob and a key are written before the row that needs them, so
whatever the copied database names is in the copied files and keys, also while the server runs. A segment that grows
meanwhile is copied with more than that: what a row names is not written again.

The file `checkpoint` is not copied, on purpose: it says how far the log went, and a backup must not vouch for itself.
Nor is `erasures`: it says what a backup must not bring back, and is given to a restore.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cds_server.audit import audit
from cds_server.erasure import apply_again, read_receipts
from cds_server.settings import Settings
from cds_server.store.engine import copy_sqlite
from cds_server.store.migrate import withhold
from cds_server.store.store import Store
from models.errors import LedgerBroken, Misconfigured, PeerFailed

_SQLITE = "sqlite:///"


def backup(settings: Settings, to: Path) -> dict[str, Any]:
    """Copy a running or stopped instance. Raises Misconfigured when the folder is not empty."""
    if to.exists() and any(to.iterdir()):
        raise Misconfigured("the folder for a backup must be empty", where="DIR")
    for folder in ("database", "blobs", "models", "keys"):
        (to / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    if settings.database_url.startswith(_SQLITE):
        copy_sqlite(Path(settings.database_url.removeprefix(_SQLITE)), to / "database" / "cds.db")
    else:
        file = str(to / "database" / "cds.sql")
        _run_peer("pg_dump", settings.database_url, "--no-owner", "--no-privileges", "--file", file)
    blobs = _copy_tree(settings.data_dir / "blobs", to / "blobs")
    _copy_tree(settings.data_dir / "models", to / "models")
    copy_sqlite(settings.data_dir / "keys.db", to / "keys" / "keys.db")
    entries = audit(to, f"{_SQLITE}{to}/database/cds.db").entries if settings.database_url.startswith(_SQLITE) else None
    return {"directory": to.name, "entries": entries, "blobs": blobs}


def restore(
    settings: Settings, source: Path, keys: Path | None = None, erasures: Sequence[Path] = (), actor: str = "system"
) -> dict[str, Any]:
    """Put a backup back, do again what was erased since, and verify it. `erasures`: receipts, or files of them; what
    the restored record itself says was erased is done again from it, where the keys are older.

    Raises: BadInput (a receipt that is none of this instance), Misconfigured (the data directory holds an instance, or
    DIR is no backup), LedgerBroken (the restored log does not verify; what was restored stays, so that it can be looked
    at), KeysUnavailable (the keys are those of another instance), PeerFailed (psql).
    """
    data = settings.data_dir
    key_file = (keys or source / "keys") / "keys.db"
    if not key_file.is_file():
        raise Misconfigured("the backup has no keys: name their folder with --keys", where="keys/keys.db")
    receipts = [receipt for path in erasures for receipt in read_receipts(path)]
    if (data / "keys.db").exists() or (data / "cds.db").exists():
        raise Misconfigured("the data directory already holds an instance; restore into an empty one", where="data_dir")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if settings.database_url.startswith(_SQLITE):
        copied = source / "database" / "cds.db"
        if not copied.is_file():
            raise Misconfigured("this folder is no backup of a SQLite instance", where="database/cds.db")
        copy_sqlite(copied, Path(settings.database_url.removeprefix(_SQLITE)))
    else:
        copied = source / "database" / "cds.sql"
        if not copied.is_file():
            raise Misconfigured("this folder is no backup of a PostgreSQL instance", where="database/cds.sql")
        options = ("--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1")
        _run_peer("psql", settings.database_url, *options, "--file", str(copied))
    _copy_tree(source / "blobs", data / "blobs")
    _copy_tree(source / "models", data / "models")
    copy_sqlite(key_file, data / "keys.db")
    store = Store.open(data, settings.database_url, settings.master)  # refuses keys that are not this database's
    try:
        withhold(store.database)
        again = apply_again(store, receipts, actor)
    finally:
        store.close()
    report = audit(data, settings.database_url, deep=True)
    if report.findings:
        raise LedgerBroken(f"the restored log does not verify: {report.findings[0]}")
    return {"entries": report.entries, "head": report.head, "signed": report.signed, "erased_again": again}


def _copy_tree(source: Path, to: Path) -> int:
    if not source.is_dir():
        return 0
    shutil.copytree(source, to, copy_function=_copy, dirs_exist_ok=True)
    return sum(1 for path in to.rglob("*") if path.is_file())


def _copy(source: str, to: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # bytes of nobody: of a landing that was known, a segment never used
        shutil.copy2(source, to)


def _run_peer(program: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs on a database; the password goes by the environment, never the command
    line.
    """
    parts = urlsplit(url)
    account = f"{parts.username}@" if parts.username else ""
    place = "postgresql://" + account + parts.netloc.rpartition("@")[2] + parts.path
    place += f"?{parts.query}" if parts.query else ""
    environment = {**os.environ, **({"PGPASSWORD": unquote(parts.password)} if parts.password else {})}
    try:
        done = subprocess.run(  # noqa: S603 (a fixed program, a list of arguments, no shell)
            [program, *arguments, place], check=False, capture_output=True, text=True, env=environment
        )
    except FileNotFoundError:
        raise PeerFailed(f"{program} of PostgreSQL is needed for this and is not installed", where=program) from None
    if done.returncode:
        raise PeerFailed(f"{program} failed with exit code {done.returncode}", where=parts.hostname or program)
