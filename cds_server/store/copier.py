"""Copies the write-ahead log into the database, beside the commits and a little at a time."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor

from cds_server.store.engine import Database
from models.errors import CdsError

AFTER, AFTER_IN_A_THREAD = 100, 1500
"""Rows after which it is copied: of a dozen calls; of digests, some 3 MB."""
_APART = 0.025
"""Seconds between two copies: each syncs the same disk that commits wait for, however little a row holds."""


class Copier:
    """A thread that is asked now and then."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cds-copy")
        self._last: Future[None] | None = None
        self._from = 0.0
        self._rows = 0

    def wrote(self, rows: int, after: int) -> None:
        """So many rows were committed; copy where there are `after` now, and nobody copies yet."""
        self._rows += rows
        if self._rows < after or (self._last is not None and not self._last.done()):
            return
        now = time.monotonic()
        if now >= self._from:
            self._rows, self._from = 0, now + _APART
            self._last = self._thread.submit(self._copy)

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _copy(self) -> None:
        with contextlib.suppress(CdsError):  # what is wrong with the disk, the next commit says
            self._database.checkpoint()
