"""Who sits at the board, and which cases they have open: contexts of their own, each of one sign-in, for a while."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from starlette.requests import Request

from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import NotFound, Unauthenticated
from smart_app.boards import Seat
from smart_app.desk import Door
from smart_app.staffed import Staffed

OPEN_SECONDS = 2 * 3600
"""After that a case is opened anew, with an access entry of its own."""


class Seats:
    def __init__(self, store: Store, staffed: Staffed, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._staffed = staffed
        self._clock = clock

    async def seat(self, request: Request) -> Seat:
        """Errors: Unauthenticated."""
        viewer = await self._staffed.viewer(request)
        csrf = self._staffed.csrf(request)
        return Seat(replace(viewer, door=Door.BOARD), csrf, self._store.vault.index("board-session", csrf))

    async def open(self, seat: Seat, case_id: int) -> str:
        """A new context: the id that goes into the path, which proves nothing without the sign-in that opened it."""
        name, now = secrets.token_urlsafe(18), int(self._clock())

        def act(tx: Tx) -> None:
            tx.execute("DELETE FROM board_context WHERE until <= ?", (now,))
            tx.execute(
                "INSERT INTO board_context (digest, session, case_id, until) VALUES (?, ?, ?, ?)",
                (self._digest(name), seat.session, case_id, now + OPEN_SECONDS),
            )

        await self._store.writer.write(act)
        return name

    def case_of(self, seat: Seat, name: str) -> int:
        """The case of a context. Errors: NotFound (none, swept, or somebody else's: alike), Unauthenticated (over)."""
        row = self._store.reads.one(
            "SELECT case_id, until FROM board_context WHERE digest = ? AND session = ?",
            (self._digest(name), seat.session),
        )
        if row is None:
            raise NotFound("this case is not open in this session")
        if int(row[1]) <= self._clock():
            raise Unauthenticated("this case was open for too long: open it again from its worklist")
        return int(row[0])

    def csrf(self, seat: Seat, name: str) -> str:
        return self._store.vault.index("board-case", seat.session, name).hex()

    def _digest(self, name: str) -> bytes:
        return self._store.vault.index("board-context", name)
