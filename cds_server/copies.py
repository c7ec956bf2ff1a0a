"""Backup and restore: database, files and keys as three things, because they must not be kept together.

    DIR/database/cds.db        (PostgreSQL: cds.sql, by pg_dump)
    DIR/blobs/…                sealed bytes of large landings
    DIR/models/…               enrolled and recalibrated ModelVersions
    DIR/keys/keys.db           the keys: store them elsewhere

Order of copying: database, then blobs, then keys. A blob and a key are written before the row that needs them, so whatever the
copied database names is in the copied files and keys, also while the server runs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cds_server.audit import audit
from cds_server.settings import Settings
from models.errors import LedgerBroken, Misconfigured, PeerFailed

_SQLITE = "sqlite:///"


def backup(settings: Settings, to: Path) -> dict[str, Any]:
    """Copy a running or stopped instance. Raises Misconfigured when the folder is not empty."""
    if to.exists() and any(to.iterdir()):
        raise Misconfigured("the folder for a backup must be empty", where="DIR")
    for folder in ("database", "blobs", "models", "keys"):
        (to / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    if settings.database_url.startswith(_SQLITE):
        _copy_sqlite(Path(settings.database_url.removeprefix(_SQLITE)), to / "database" / "cds.db")
    else:
        _run_peer("pg_dump", "--no-owner", "--file", str(to / "database" / "cds.sql"), _libpq(settings.database_url))
    blobs = _copy_tree(settings.data_dir / "blobs", to / "blobs")
    _copy_tree(settings.data_dir / "models", to / "models")
    _copy_sqlite(settings.data_dir / "keys.db", to / "keys" / "keys.db")
    entries = audit(to, f"{_SQLITE}{to}/database/cds.db").entries if settings.database_url.startswith(_SQLITE) else None
    return {"directory": to.name, "entries": entries, "blobs": blobs}


def restore(settings: Settings, source: Path, keys: Path | None = None) -> dict[str, Any]:
    """Put a backup back and verify it.

    Raises: Misconfigured (the data directory holds an instance, or DIR is no backup), LedgerBroken (the restored log does not
    verify; what was restored stays, so that it can be looked at).
    """
    data = settings.data_dir
    key_file = (keys or source / "keys") / "keys.db"
    if not key_file.is_file():
        raise Misconfigured("the backup has no keys: name their folder with --keys", where="keys/keys.db")
    if (data / "keys.db").exists() or (data / "cds.db").exists():
        raise Misconfigured("the data directory already holds an instance; restore into an empty one", where="data_dir")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if settings.database_url.startswith(_SQLITE):
        copied = source / "database" / "cds.db"
        if not copied.is_file():
            raise Misconfigured("this folder is no backup of a SQLite instance", where="database/cds.db")
        _copy_sqlite(copied, Path(settings.database_url.removeprefix(_SQLITE)))
    else:
        _run_peer(
            "psql",
            "--quiet",
            "--set",
            "ON_ERROR_STOP=1",
            "--file",
            str(source / "database" / "cds.sql"),
            _libpq(settings.database_url),
        )
    _copy_tree(source / "blobs", data / "blobs")
    _copy_tree(source / "models", data / "models")
    _copy_sqlite(key_file, data / "keys.db")
    report = audit(data, settings.database_url, deep=True)
    if report.findings:
        raise LedgerBroken(f"the restored log does not verify: {report.findings[0]}")
    return {"entries": report.entries, "head": report.head}


def _copy_sqlite(source: Path, to: Path) -> None:
    """A consistent copy through SQLite's own backup, which also takes what is still in the write-ahead log."""
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as original, closing(sqlite3.connect(to)) as copy:
        original.backup(copy)
    os.chmod(to, 0o600)


def _copy_tree(source: Path, to: Path) -> int:
    if not source.is_dir():
        return 0
    shutil.copytree(source, to, dirs_exist_ok=True)
    return sum(1 for path in to.rglob("*") if path.is_file())


def _libpq(url: str) -> str:
    return "postgresql" + url[url.index("://") :]


def _run_peer(program: str, *arguments: str) -> None:
    try:
        done = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise PeerFailed(f"{program} of PostgreSQL is needed for this and is not installed", where=program) from None
    if done.returncode:
        raise PeerFailed(
            f"{program} failed with exit code {done.returncode}", where=urlsplit(arguments[-1]).hostname or program
        )
