"""Launches under way: kept for whichever worker gets the callback, and taken once.

A row is found by a keyed digest of its state; who may go on with it is known by a keyed digest of a cookie. What it
holds is sealed, and its key is destroyed when it is taken: a copy of the database opens no launch.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable, Sequence

from cds_server.smart.sweeping import LAUNCH, launches_over
from cds_server.store.ready import Names
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models import strict
from models.canonical import canonical
from models.errors import CdsError, NotFound, Overloaded
from smart_app.launch import Pending

SECONDS = 600
"""For somebody to sign in at their EHR."""
MOST = 5000
"""Launches of one EHR that may be under way: whoever knows its base URL can begin one."""
_UNKNOWN = "this launch is not known here: it was used, or took too long"


class Launching:
    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def keep(self, pending: Pending, cookie: str) -> None:
        """Durable when it returns. Errors: Overloaded, RecordUnavailable."""
        now = int(self._clock())
        names = Names(self._store.vault.ready)
        payload = canonical(pending.plain())

        def act(tx: Tx) -> Sequence[bytes]:
            old = launches_over(tx, now)
            ((under_way,),) = tx.read("SELECT COUNT(*) FROM app_launch WHERE namespace = ?", (pending.namespace,))
            if under_way >= MOST:
                raise Overloaded("too many launches of this EHR are under way")
            sealed = tx.vault.seal(object_ref(LAUNCH, pending.ref), payload, tx.fresh_keys, names)
            tx.execute(
                "INSERT INTO app_launch (state, ref, browser, namespace, until, sealed) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    self._state(pending.state),
                    pending.ref,
                    self._browser(pending.ref, cookie),
                    pending.namespace,
                    now + SECONDS,
                    sealed.cipher,
                ),
            )
            return old

        await destroy(self._store, await self._store.writer.write(act))
        names.done()

    async def kept(self, ref: str, cookie: str | None) -> tuple[Pending, bool]:
        """Without taking it; whether the cookie is its own. Errors: NotFound."""
        row = self._store.reads.one(
            "SELECT ref, browser, sealed FROM app_launch WHERE ref = ? AND until > ?", (ref, int(self._clock()))
        )
        if row is None:
            raise NotFound(_UNKNOWN)
        return self._opened(row[0], row[2]), self._mine(row[0], row[1], cookie)

    async def ref_of(self, state: str) -> str:
        """Errors: NotFound."""
        row = self._store.reads.one(
            "SELECT ref FROM app_launch WHERE state = ? AND until > ?", (self._state(state), int(self._clock()))
        )
        if row is None:
            raise NotFound(_UNKNOWN)
        return str(row[0])

    async def take(self, state: str, cookie: str | None) -> tuple[Pending, bool]:
        """Its row is gone for every worker when this returns; of two that ask at once, one gets it.

        Errors: NotFound.
        """
        digest, now = self._state(state), int(self._clock())

        def act(tx: Tx) -> tuple[str, bytes, bytes] | None:
            rows = tx.read("SELECT ref, browser, sealed, until FROM app_launch WHERE state = ?", (digest,))
            if not rows or tx.execute("DELETE FROM app_launch WHERE state = ?", (digest,)) != 1 or rows[0][3] <= now:
                return None
            return str(rows[0][0]), bytes(rows[0][1]), bytes(rows[0][2])

        found = await self._store.writer.write(act)
        if found is None:
            raise NotFound(_UNKNOWN)
        ref, browser, sealed = found
        pending = self._opened(ref, sealed)
        await destroy(self._store, [object_ref(LAUNCH, ref)])
        return pending, self._mine(ref, browser, cookie)

    def _opened(self, ref: str, sealed: bytes) -> Pending:
        return Pending.of(strict.loads(self._store.vault.open(object_ref(LAUNCH, ref), bytes(sealed))))

    def _mine(self, ref: str, browser: bytes, cookie: str | None) -> bool:
        return cookie is not None and hmac.compare_digest(bytes(browser), self._browser(ref, cookie))

    def _state(self, state: str) -> bytes:
        return self._store.vault.index("app-state", state)

    def _browser(self, ref: str, cookie: str) -> bytes:
        return self._store.vault.index("app-browser", ref, cookie)


async def destroy(store: Store, refs: Sequence[bytes]) -> None:
    """Take keys out of the key store, where nobody waits for its disk but the caller."""
    if refs:
        with contextlib.suppress(CdsError):
            await asyncio.to_thread(store.vault.keys.destroy, list(refs))
