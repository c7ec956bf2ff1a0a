"""Room in SQLite's write-ahead log, made ahead: a commit that lengthens a file waits for its inode, too.

The log grows until all of it is copied into the database and begins anew then, from its start: of a process that writes
without a pause, or on a new instance, nearly each commit lengthens it. Where the file is there already, a commit has
only its own pages to write: 0.24 ms instead of 0.34 with six of them on a quiet disk, a quarter less on a busy one.

The room is made by SQLite itself: a transaction that is too large for its cache writes pages to the log before it is
decided, and is rolled back then. What they left is overwritten, and believed by nobody (sqlite.org/fileformat2, 4.3).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cds_server.store.engine import Database
from models.errors import CdsError

ROOM = 16 << 20
"""Bytes: some 650 objects."""
_CACHE, _KEPT = 16, -65536
"""Pages that the transaction may hold, and the cache of all others (`engine`)."""
_LEFT = 4 * _CACHE * 4096
"""Bytes more: its last pages stay in the cache."""


def make_log_room(database: Database, size: int = ROOM) -> None:
    """See to it that the log's file has `size` bytes. Takes some 60 ms, once; where it cannot be had, nothing is lost.

    SQLite only. Nobody else writes meanwhile.
    """
    path = database.engine.url.database
    if not database.sqlite or path is None:
        return
    log = Path(f"{path}-wal")
    with contextlib.suppress(CdsError, OSError):  # what is wrong with the disk, the first commit says
        if log.stat().st_size >= size:
            return
        with contextlib.suppress(_RolledBack), database.writing() as connection:
            connection.exec_driver_sql(f"PRAGMA cache_size={_CACHE}")
            try:
                connection.exec_driver_sql("CREATE TABLE log_room (zeros BLOB)")
                connection.exec_driver_sql(
                    "INSERT INTO log_room VALUES (zeroblob(?))", (size - log.stat().st_size + _LEFT,)
                )
            finally:
                connection.exec_driver_sql(f"PRAGMA cache_size={_KEPT}")
            raise _RolledBack
        with open(log, "rb") as file:
            os.fdatasync(file.fileno())


class _RolledBack(Exception):
    """Ends a transaction of which nothing is to stay."""
