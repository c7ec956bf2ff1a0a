"""An EHR's tokens after the launch: sealed, refreshed by one worker at a time, and used for nothing but its FHIR base.

A refresh token may be good once: of all workers that find the access token spent, one takes the row's lease and asks,
the others wait for what it writes (SMART App Launch 2.2, Refresh access token; RFC 6749, 6 and 10.4). What the server
repeats of the context is held against the session: another patient ends it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from adapters.fhir_read import FhirServer, Reading
from cds_server.hooks.context import set_aside
from cds_server.jobs import holder
from cds_server.logs import log
from cds_server.smart.ehr_door import Answered, EhrDoor
from cds_server.smart.pending import destroy
from cds_server.smart.sessions import Session, StoreSessions
from cds_server.smart.sweeping import TOKEN
from cds_server.store.ready import Names
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models import strict
from models.canonical import canonical
from models.errors import KeysUnavailable, NotAllowed, NotFound, PeerFailed, Unauthenticated
from smart_app.granted import Granted, Refused, access_of, may, refresh_of, scopes_of, seconds_of
from smart_app.launch import refresh_form

EARLY = 30
"""Seconds before its end from which a token is not used any more."""
LEASE = 20
"""Seconds that one worker has for a refresh: twice what the door lets it wait."""
WAIT, PATIENCE = 0.1, 25.0
BUDGET = 4 << 20
"""Bytes of one read."""
_TOKENS = "SELECT turn, token_ref, token, refreshing, refreshing_until FROM app_session WHERE id = ?"
_OVER = "the EHR's access for this session is over: open the app again from the EHR"

Ask = Callable[[str, Session, Mapping[str, str]], Awaitable[Mapping[str, Any]]]
"""Namespace, session, form -> what its token endpoint answers."""
Doors = Callable[[str], tuple[str, EhrDoor] | None]
"""Namespace -> its FHIR base and its door; None where it launches no app."""


def token_of(granted: Granted, now: float) -> dict[str, Any]:
    """What is kept of a token answer."""
    return {
        "access": granted.access,
        "refresh": granted.refresh,
        "until": int(now) + granted.seconds,
        "scopes": list(granted.scopes),
    }


class Tokens:
    def __init__(self, store: Store, sessions: StoreSessions, ask: Ask, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._sessions = sessions
        self._ask = ask
        self._clock = clock
        self._holder = holder()

    async def usable(self, launch_id: str, *, after: str | None = None) -> Mapping[str, Any]:
        """A token that is good for a while yet; another one than `after`, which the server did not take.

        Errors: Unauthenticated (there is none, and no other can be had: the app must be opened again), PeerFailed.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            turn, token, free = self._kept(launch_id)
            if token["access"] != after and token["until"] - EARLY > self._clock():
                return token
            if token["refresh"] is None:
                raise Unauthenticated(_OVER, cause="app: the EHR's token is spent, and it gave none to refresh it")
            if free and await self._taken(launch_id, turn):
                return await self._refreshed(launch_id, turn, token)
            await asyncio.sleep(WAIT)
        raise PeerFailed("another worker did not finish asking the EHR for a token")

    def _kept(self, launch_id: str) -> tuple[int, Mapping[str, Any], bool]:
        """Turn, tokens, and whether nobody refreshes them now."""
        for _ in range(2):
            row = self._store.reads.one(
                "SELECT turn, token_ref, token, refreshing, refreshing_until FROM app_session WHERE id = ?",
                (launch_id,),
            )
            if row is None or row[1] is None:
                break
            try:
                token = strict.loads(self._store.vault.open(object_ref(TOKEN, row[1]), bytes(row[2])))
            except KeysUnavailable:  # replaced between the row and its key: the next look sees the new one
                continue
            return int(row[0]), token, row[3] is None or row[4] <= self._clock()
        raise Unauthenticated(_OVER, cause="app: the session is over, or has no token")

    async def _taken(self, launch_id: str, turn: int) -> bool:
        """Whether this worker may refresh now: the tokens are still those of that turn, and nobody else is at it."""
        now = int(self._clock())

        def act(tx: Tx) -> bool:
            changed = tx.execute(
                "UPDATE app_session SET refreshing = ?, refreshing_until = ? "
                "WHERE id = ? AND turn = ? AND (refreshing IS NULL OR refreshing_until <= ?)",
                (self._holder, now + LEASE, launch_id, turn, now),
            )
            return changed == 1

        return await self._store.writer.write(act)

    async def _refreshed(self, launch_id: str, turn: int, token: Mapping[str, Any]) -> Mapping[str, Any]:
        session = self._sessions.session(launch_id)
        try:
            answer = await self._ask(str(session.viewer.ehr), session, refresh_form(token["refresh"]))
            new = {
                "access": access_of(answer),
                "refresh": refresh_of(answer) or token["refresh"],
                "until": int(self._clock()) + seconds_of(answer),
                "scopes": list(scopes_of(answer, token["scopes"])),
            }
        except Refused as refused:
            if refused.said not in ("invalid_grant", "invalid_token"):
                await self._given_back(launch_id)
                raise
            log().warning("a session of the app cannot be refreshed", ehr=session.viewer.ehr, what=refused.what)
            await self._sessions.end(launch_id)
            raise Unauthenticated(_OVER, cause="app: the EHR ended the access") from None
        except BaseException:
            await self._given_back(launch_id)
            raise
        if answer.get("patient", session.patient) != session.patient:
            record = self._store.reads.record_by_ref(session.record)
            await self._sessions.disagrees(launch_id, session, record)
            raise NotAllowed("the EHR's session went on to another patient: open the app again from the EHR")
        await self._keep(launch_id, turn, new)
        return new

    async def _keep(self, launch_id: str, turn: int, token: Mapping[str, Any]) -> None:
        names = Names(self._store.vault.ready)
        ref, body = names.ref(TOKEN), canonical(dict(token))

        def act(tx: Tx) -> list[bytes]:
            rows = tx.read("SELECT token_ref FROM app_session WHERE id = ? AND turn = ?", (launch_id, turn))
            sealed = tx.vault.seal(object_ref(TOKEN, ref), body, tx.fresh_keys, names)
            changed = tx.execute(
                "UPDATE app_session SET token_ref = ?, token = ?, turn = turn + 1, refreshing = NULL, "
                "refreshing_until = 0 WHERE id = ? AND turn = ?",
                (ref, sealed.cipher, launch_id, turn),
            )
            return [object_ref(TOKEN, row[0]) for row in rows] if changed == 1 else [object_ref(TOKEN, ref)]

        await destroy(self._store, await self._store.writer.write(act))
        names.done()

    async def _given_back(self, launch_id: str) -> None:
        free = "UPDATE app_session SET refreshing = NULL, refreshing_until = 0 WHERE id = ? AND refreshing = ?"
        await self._store.writer.write(lambda tx: tx.execute(free, (launch_id, self._holder)))


class EhrReads:
    """Reads from the EHR of a session, with its token, below its FHIR base only."""

    def __init__(self, tokens: Tokens, sessions: StoreSessions, doors: Doors) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._doors = doors

    async def read(self, launch_id: str, url: str) -> Reading:
        """`Type/id`, or a search relative to the base, with all of its pages; for whom has proved the session.

        A token that the server does not take any more (401) is refreshed once. Errors: Unauthenticated (nor does it
        take the next), NotAllowed (403: which scope lacks), NotFound (no such session), PeerFailed.
        """
        namespace = self._sessions.session(launch_id).viewer.ehr
        found = self._doors(namespace) if namespace is not None else None
        if found is None:
            raise NotFound("this session was not opened from an EHR that launches the app")
        base, door = found
        token = await self._tokens.usable(launch_id)
        try:
            return await read(door, base, token["access"], url)
        except Answered as error:
            if error.answered != 401:
                raise self._refusal(error, url, token["scopes"]) from None
        token = await self._tokens.usable(launch_id, after=token["access"])
        try:
            return await read(door, base, token["access"], url)
        except Answered as error:
            if error.answered == 401:
                raise Unauthenticated(_OVER, cause="app: the EHR does not take its own new token") from None
            raise self._refusal(error, url, token["scopes"]) from None

    def _refusal(self, error: Answered, url: str, scopes: list[str]) -> Exception:
        if error.answered != 403:
            return error
        kind = url.partition("?")[0].partition("/")[0]
        letter = "s" if "?" in url else "r"
        lacks = f": patient/{kind}.{letter} lacks" if kind.isalpha() and may(scopes, kind, letter) != "all" else ""
        return NotAllowed(f"the EHR does not let the app read this{lacks}")


async def read(door: EhrDoor, base: str, token: str, url: str) -> Reading:
    """One read with a token, which is taken out of what is kept. Errors: Answered, PeerFailed, NotAllowed."""
    return await FhirServer(door, base, token, BUDGET, set_aside).read(url)
