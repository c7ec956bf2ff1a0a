"""Behind the work queue's pages: what waits, who handles it, and the verbs of `cds work`, each on record.

Insert-only: who handles a flag is the last row of `flag_claim`; that it is resolved is a row of `flag_closing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.routing import Route

from cds_server.access.log import OPERATIONS, Access, Look, actor_of
from cds_server.access.roles import Act, may
from cds_server.backlog import retry
from cds_server.outbox import drop, job_of
from cds_server.recalls import CORRECTED, RECALL
from cds_server.results_due import send_again
from cds_server.settings import Settings
from cds_server.source_rules import rules_of
from cds_server.staff_sessions import StaffSessions
from cds_server.store.entropy import new_ref
from cds_server.store.reads import FOREVER
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import BadInput, CdsError, Conflict, NotAllowed, NotFound
from models.nouns import instant
from smart_app.desk import Viewer
from smart_app.queue import KINDS, RESOLUTION, Asked, Count, Detail, Event, Shown, Waiting
from smart_app.queue_pages import QueuePages

CLAIM = b"q"
"""Kind of a sealed payload: the first letter of its key reference."""
PAGE = 50
GLASS = "break-glass"
_RECALLS = (CORRECTED, RECALL)
_OPEN = (
    "SELECT f.id, f.kind, f.reason, f.at, f.landing_id, f.part, f.pointer, f.detail, f.inference_id, "
    "k.ref, k.who, k.sealed FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
    "LEFT JOIN flag_claim k ON k.id = (SELECT MAX(x.id) FROM flag_claim x WHERE x.flag_id = f.id) "
    "WHERE c.id IS NULL AND f.id > ? AND f.at < ? AND (? = '' OR f.reason = ?) AND "
    "(? = '' OR (? = 'recall' AND f.kind = 'flag' AND f.reason IN ('corrected', 'recall')) "
    "OR (? <> 'recall' AND f.kind = ? AND f.reason NOT IN ('corrected', 'recall'))) AND "
    "(? = '' OR (? = 'nobody' AND k.who IS NULL) OR (? = 'mine' AND k.who = ?)) ORDER BY f.id LIMIT ?"
)
_ONE = (
    "SELECT f.id, f.kind, f.reason, f.at, f.landing_id, f.part, f.pointer, f.detail, f.inference_id, "
    "k.ref, k.who, k.sealed FROM flag f "
    "LEFT JOIN flag_claim k ON k.id = (SELECT MAX(x.id) FROM flag_claim x WHERE x.flag_id = f.id) WHERE f.id = ?"
)
_COUNTS = (
    "SELECT f.kind, f.reason, COUNT(*), MIN(f.at) FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
    "WHERE c.id IS NULL GROUP BY f.kind, f.reason"
)


def resolve(store: Store, tx: Tx, flag_id: int, pointer: str | None, resolution: str) -> None:
    """As part of an act: the flag is done, and a result that waited for it is not sent. Errors: NotFound."""
    if tx.read("SELECT 1 FROM flag_closing WHERE flag_id = ?", (flag_id,)):
        raise NotFound("this flag is resolved already")
    tx.add("flag_closing", flag_id=flag_id, resolution=resolution, at=tx.now)
    if job := job_of(pointer):
        drop(store, tx, job)


def handlers(store: Store) -> dict[int, str]:
    """Flag -> who handles it, of those that somebody does."""
    rows = store.reads.query(
        "SELECT k.flag_id, k.ref, k.sealed FROM flag_claim k WHERE k.who IS NOT NULL AND k.id = "
        "(SELECT MAX(x.id) FROM flag_claim x WHERE x.flag_id = k.flag_id)"
    )
    return {flag: name_of(store, ref, sealed) for flag, ref, sealed in rows}


def name_of(store: Store, ref: str, sealed: bytes) -> str:
    """Who a claim names."""
    try:
        return str(store.reads.open_payload(CLAIM, ref, bytes(sealed))["name"])
    except CdsError:
        return "somebody"


class WorkQueue:
    """Implements `smart_app.queue.Queue`."""

    def __init__(self, store: Store, settings: Settings, access: Access, staff: StaffSessions) -> None:
        self._store = store
        self._settings = settings
        self._access = access
        self._staff = staff

    # -- looking -------------------------------------------------------------------------------------------------------

    async def waiting(self, viewer: Viewer, asked: Asked) -> Shown:
        counts, reasons = self._counts()
        before = instant(datetime.now(UTC) - timedelta(days=asked.days)) if asked.days else FOREVER
        rows = self._store.reads.query(
            _OPEN,
            (
                *(asked.after, before, asked.reason, asked.reason),
                *(asked.kind,) * 4,
                *(asked.handled,) * 3,
                *(self._access.who(viewer), PAGE + 1),
            ),
        )
        items = [self._item(viewer, row) for row in rows[:PAGE]]
        await self._access.look(Look(viewer, Act.QUEUE, None, OPERATIONS, {"items": len(items)}))
        return Shown(counts, reasons, items, items[-1].id if len(rows) > PAGE else 0)

    async def one(self, viewer: Viewer, flag: int) -> Detail:
        row = self._row(flag)
        item = self._item(viewer, row)
        await self._access.look(Look(viewer, Act.QUEUE, None, OPERATIONS, {"flag": str(flag)}))
        history = self._history(flag, row[3])
        closed = any(event.verb == "resolve" for event in history)
        people = () if closed or not item.may else self._people(row)
        return Detail(item, self._facts(row), history, people, closed)

    def _counts(self) -> tuple[list[Count], list[str]]:
        found: dict[str, tuple[int, str]] = {}
        reasons = set()
        for kind, reason, number, oldest in self._store.reads.query(_COUNTS):
            shown = _kind(kind, reason)
            before = found.get(shown, (0, FOREVER))
            found[shown] = before[0] + number, min(before[1], oldest)
            reasons.add(reason)
        return [
            Count(kind, found[kind][0], _seconds(found[kind][1])) if kind in found else Count(kind, 0) for kind in KINDS
        ], sorted(reasons)

    def _row(self, flag: int) -> Any:
        rows = self._store.reads.query(_ONE, (flag,))
        if not rows:
            raise NotFound("there is no such flag")
        return rows[0]

    def _item(self, viewer: Viewer, row: Any) -> Waiting:
        flag, kind, reason, at, landing, part, pointer, detail, _, claim, who, sealed = row
        place = f"landing {landing >> 20}" if landing is not None else ""
        place += f" part {part}" if landing is not None and part is not None else ""
        job = job_of(pointer)
        place += f" {pointer}" if landing is not None and pointer and job is None else ""
        return Waiting(
            id=flag,
            kind=_kind(kind, reason),
            reason=reason,
            since=at,
            seconds=_seconds(at),
            where=place,
            what=detail or reason,
            handler=name_of(self._store, claim, sealed) if who is not None else "",
            mine=who is not None and bytes(who) == self._access.who(viewer),
            claim=claim or "",
            may=self._may(viewer, kind, reason),
            again=(kind in ("quarantine", "dead-letter") and part is not None) or job is not None,
        )

    @staticmethod
    def _may(viewer: Viewer, kind: str, reason: str) -> bool:
        """Broken glass is reviewed by whoever reviews; what somebody saw on a card by those who treat, too."""
        if reason == GLASS:
            return may(viewer, Act.REPORT) and may(viewer, Act.RECALL_HANDLE)
        return may(viewer, Act.QUEUE_HANDLE) or (kind == "flag" and may(viewer, Act.RECALL_HANDLE))

    def _facts(self, row: Any) -> Mapping[str, str]:
        facts: dict[str, str] = {}
        landing = self._store.reads.landing(row[4]) if row[4] is not None else None
        if landing is not None:
            facts |= {"landing": landing.ref, "source": landing.source, "namespace": landing.namespace}
            facts["media_type"] = landing.media_type
        if row[8] is not None:
            (service, model, cards, actions) = self._store.reads.query(
                "SELECT i.service, i.model, (SELECT COUNT(*) FROM card c WHERE c.inference_id = i.id), "
                "(SELECT COUNT(*) FROM action a WHERE a.inference_id = i.id) FROM inference i WHERE i.id = ?",
                (row[8],),
            )[0]
            facts |= {"service": service, "model": model, "cards": str(cards), "actions": str(actions)}
        return facts

    def _history(self, flag: int, since: str) -> list[Event]:
        events = [Event("noticed", "", since)]
        closing = self._store.reads.query("SELECT resolution FROM flag_closing WHERE flag_id = ?", (flag,))
        resolved = False
        for verb, ref, sealed, at in self._store.reads.query(
            "SELECT verb, ref, sealed, at FROM flag_claim WHERE flag_id = ? ORDER BY id", (flag,)
        ):
            resolved = resolved or verb == "resolve"
            words = str(closing[0][0]) if verb == "resolve" and closing else ""
            events.append(Event(verb, name_of(self._store, ref, sealed) if sealed is not None else "", at, words))
        if closing and not resolved:
            events.append(Event("resolve", "a command", since, str(closing[0][0])))
        return events

    def _people(self, row: Any) -> list[tuple[str, str]]:
        """Who is signed in now and may handle it, besides whoever does."""
        viewers = [viewer for viewer in self._staff.present() if self._may(viewer, row[1], row[2])]
        people = {self._access.who(each): each.name for each in viewers}
        handler = bytes(row[10]) if row[10] is not None else b""
        return sorted(((who.hex(), name) for who, name in people.items() if who != handler), key=lambda one: one[1])

    # -- handling ------------------------------------------------------------------------------------------------------

    async def claim(self, viewer: Viewer, flag: int, claim: str) -> None:
        await self._handled(viewer, flag, "claim", claim, viewer)

    async def release(self, viewer: Viewer, flag: int, claim: str) -> None:
        await self._handled(viewer, flag, "release", claim, None)

    async def give(self, viewer: Viewer, flag: int, claim: str, to: str) -> None:
        row = self._row(flag)
        for each in self._staff.present():
            if self._access.who(each).hex() == to and self._may(each, row[1], row[2]):
                await self._handled(viewer, flag, "claim", claim, each)
                return
        raise NotFound("nobody of that name is signed in and may handle this")

    async def again(self, viewer: Viewer, flag: int) -> str:
        row = self._row(flag)
        await self._allowed(viewer, row, "again")
        landing, part, pointer = row[4], row[5], row[6]

        def work() -> str:
            actor = actor_of(viewer)
            if landing is not None and part is not None:
                retry(self._store, self._settings.joining_systems, actor, [landing], rules=rules_of(self._settings))
            _, problems = send_again(self._store, self._settings, {flag: pointer}, actor)
            return "; ".join(problems)

        return await asyncio.to_thread(work)

    async def resolve(self, viewer: Viewer, flag: int, words: str) -> None:
        told = " ".join(words.split())
        if not RESOLUTION[0] <= len(told) <= RESOLUTION[1]:
            raise BadInput(f"say what was done, in {RESOLUTION[0]} to {RESOLUTION[1]} characters", where="words")
        row = self._row(flag)
        await self._allowed(viewer, row, "resolve")

        def act(tx: Tx) -> None:
            resolve(self._store, tx, flag, row[6], told)
            self._add(tx, flag, "resolve", viewer)
            tx.entry("resolve", actor_of(viewer), {"flag": str(flag), "kind": row[1]})

        await self._store.writer.write(act)

    async def _handled(self, viewer: Viewer, flag: int, verb: str, claim: str, to: Viewer | None) -> None:
        row = self._row(flag)
        await self._allowed(viewer, row, verb)

        def act(tx: Tx) -> None:
            if tx.read("SELECT 1 FROM flag_closing WHERE flag_id = ?", (flag,)):
                raise Conflict("this is resolved already")
            last = tx.read("SELECT ref FROM flag_claim WHERE flag_id = ? ORDER BY id DESC LIMIT 1", (flag,))
            if (last[0][0] if last else "") != claim:
                raise Conflict("somebody else was first: load the page anew")
            self._add(tx, flag, verb, to)
            tx.entry(verb, actor_of(viewer), {"flag": str(flag), "kind": row[1]})

        await self._store.writer.write(act)

    def _add(self, tx: Tx, flag: int, verb: str, of: Viewer | None) -> None:
        ref = new_ref()
        sealed = who = None
        if of is not None:
            payload = canonical({"subject": of.subject, "name": of.name})
            sealed, who = tx.vault.seal(object_ref(CLAIM, ref), payload, tx.fresh_keys).cipher, self._access.who(of)
        tx.add("flag_claim", flag_id=flag, verb=verb, ref=ref, who=who, sealed=sealed, at=tx.now)

    async def _allowed(self, viewer: Viewer, row: Any, verb: str) -> None:
        """On record, let or refused. Errors: NotAllowed."""
        act = Act.RECALL_HANDLE if row[1] == "flag" and not may(viewer, Act.QUEUE_HANDLE) else Act.QUEUE_HANDLE
        await self._access.look(Look(viewer, act, None, OPERATIONS, {"flag": str(row[0]), "verb": verb}))
        if not self._may(viewer, row[1], row[2]):
            raise NotAllowed("your role does not include handling this")


def _kind(kind: str, reason: str) -> str:
    return "recall" if kind == "flag" and reason in _RECALLS else kind


def _seconds(since: str) -> int:
    return max(0, int((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()))


def pages(store: Store, settings: Settings, access: Access, staff: StaffSessions) -> list[Route]:
    """The doors of the work queue."""
    queue = WorkQueue(store, settings, access, staff)
    return QueuePages(staff, queue, lambda viewer: may(viewer, Act.BOARD_WORKLIST)).routes()
