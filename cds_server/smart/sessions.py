"""Sessions of the app: a row that each worker reads, a cookie per launch that proves it, a case that is checked anew.

Implements `smart_app.sessions.Sessions`. The path chooses the row and the cookie of that very launch opens it: there is
no newest launch and no current patient, so two patients in two windows of one browser have nothing in common.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.requests import Request

from cds_server.access.log import Access
from cds_server.access.roles import Act
from cds_server.logs import log
from cds_server.smart.pending import destroy
from cds_server.smart.sweeping import SESSION, TOKEN, ended, sessions_over
from cds_server.store.reads import RecordRow
from cds_server.store.ready import Names
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models import strict
from models.canonical import canonical
from models.errors import KeysUnavailable, NotAllowed, NotFound, Unauthenticated
from smart_app import cookies
from smart_app.desk import Case, Door, Role, Viewer
from smart_app.granted import Context
from smart_app.registered import Registered

TOUCH = 20
"""Seconds after which a look moves the idle time on: not each of them is worth a write."""
_ID = re.compile(r"[0-9a-f]{32}")
_ROW = "SELECT id, cookie, namespace, record, idle, seen, until, ref, sealed FROM app_session WHERE id = ?"
_DISAGREE = "the patients of this session do not agree: it was ended, and nothing is shown"


@dataclass(frozen=True, slots=True)
class Session:
    """What a session is about, settled when it was opened and never changed."""

    viewer: Viewer
    record: str
    patient: str = field(repr=False)
    """Local id in the record's namespace: what the EHR said, and what the record must say on every page."""
    csrf: str = field(repr=False)
    inference: str | None = None
    banner: bool = True
    encounter: str | None = None
    intent: str | None = None
    context: tuple[Context, ...] = ()
    style: Mapping[str, str] = field(default_factory=dict)
    ancestors: tuple[str, ...] = ()
    token_url: str | None = None
    algorithms: tuple[str, ...] | None = None

    def plain(self) -> dict[str, Any]:
        viewer = self.viewer
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("viewer", "style")},
            "style": dict(self.style),
            "viewer": {
                "subject": viewer.subject,
                "name": viewer.name,
                "roles": sorted(viewer.roles),
                "door": viewer.door.value,
                "ehr": viewer.ehr,
            },
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Session:
        told = plain["viewer"]
        roles = frozenset(Role(each) for each in told["roles"])
        lists = {"ancestors": tuple(plain["ancestors"])}
        if plain["algorithms"] is not None:
            lists["algorithms"] = tuple(plain["algorithms"])
        return cls(
            **{
                **plain,
                **lists,
                "viewer": Viewer(told["subject"], told["name"], roles, Door(told["door"]), told["ehr"]),
                "context": tuple(Context(**each) for each in plain["context"]),
            }
        )


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """`smart_app.ports.Opened`."""

    id: str
    cookie: str = field(repr=False)
    seconds: int


class StoreSessions:
    def __init__(
        self,
        store: Store,
        access: Access,
        apps: Mapping[str, Registered],
        *,
        secure: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`apps`: EHRs that launch the app now, by namespace. `secure`: pages travel by TLS."""
        self._store = store
        self._access = access
        self._apps = apps
        self._secure = secure
        self._clock = clock

    # -- the port ------------------------------------------------------------------------------------------------------

    async def case(self, request: Request) -> Case:
        """See `smart_app.sessions.Sessions`."""
        launch_id = str(request.path_params.get("launch_id", ""))
        cookie = request.cookies.get(cookies.session(launch_id, secure=self._secure))
        session, seen, named = self._proved(launch_id, cookie)
        record = self._store.reads.record_by_ref(named)
        if record is None or named != session.record or not self._agrees(session, record):
            await self.disagrees(launch_id, session, record)
            raise NotAllowed(_DISAGREE)
        viewer, ancestors = self._now(session)
        now = int(self._clock())
        if now - seen >= TOUCH:
            await self._store.writer.write(
                lambda tx: tx.execute(
                    "UPDATE app_session SET seen = ? WHERE id = ? AND seen < ?", (now, launch_id, now)
                )
            )
        return Case(
            id=launch_id,
            viewer=viewer,
            record=session.record,
            csrf=session.csrf,
            inference=session.inference,
            banner=session.banner,
            encounter=session.encounter,
            intent=session.intent,
            style=session.style,
            ancestors=ancestors,
        )

    def _now(self, session: Session) -> tuple[Viewer, tuple[str, ...]]:
        """Who looks and who may frame it, by the configuration as it is now: a role that was taken back is gone, an EHR
        that no longer launches the app has no sessions. Errors: Unauthenticated."""
        viewer = session.viewer
        if viewer.ehr is None:
            return viewer, session.ancestors
        if viewer.ehr not in self._apps:
            raise Unauthenticated(cause="app: the EHR of this session launches the app no longer")
        return self._access.by_ehr(viewer.ehr, viewer.subject, viewer.name), self._apps[viewer.ehr].ancestors

    def session(self, launch_id: str) -> Session:
        """What an open session is about, for whom has proved it. Errors: NotFound."""
        row = self._store.reads.one(_ROW, (launch_id,))
        if row is None:
            raise NotFound("there is no such launch")
        return self._opened(row[7], row[8])

    def _proved(self, launch_id: str, cookie: str | None) -> tuple[Session, int, str]:
        """The session, when it was last seen, and whose record its row names."""
        row = self._store.reads.one(_ROW, (launch_id,)) if _ID.fullmatch(launch_id) else None
        if row is None:
            raise Unauthenticated(cause="app: there is no such session, or it was ended")
        _, kept, _, record, idle, seen, until, ref, sealed = row
        if cookie is None or not hmac.compare_digest(bytes(kept), self._digest(launch_id, cookie)):
            raise Unauthenticated(cause="app: the cookie of this launch is missing or another one's")
        now = self._clock()
        if until <= now or seen + idle <= now:
            raise Unauthenticated(cause="app: the session is over")
        try:
            session = self._opened(ref, sealed)
        except KeysUnavailable:  # ended by another worker a moment ago
            raise Unauthenticated(cause="app: the session was ended") from None
        return session, int(seen), str(record)

    def _agrees(self, session: Session, record: RecordRow) -> bool:
        """Whether the record is the patient's that the EHR named, and the card's inference is about that record."""
        if self._store.reads.local_id(record) != session.patient:
            return False
        if session.viewer.ehr is not None and record.namespace != session.viewer.ehr:
            return False
        if session.inference is None:
            return True
        row = self._store.reads.one("SELECT record_id FROM inference WHERE ref = ?", (session.inference,))
        return row is not None and row[0] == record.id

    # -- opening and ending --------------------------------------------------------------------------------------------

    async def open(
        self, session: Session, *, idle: int, longest: int, token: Mapping[str, Any] | None = None
    ) -> OpenedSession:
        """A new session, with the entry of its sign-in; durable when this returns. `token`: what the EHR granted."""
        opened = OpenedSession(secrets.token_hex(16), secrets.token_urlsafe(32), longest)
        idle = min(idle, self._access.allowed.idle_seconds(session.viewer.roles))
        names, now = Names(self._store.vault.ready), int(self._clock())
        ref, token_ref = names.ref(SESSION), names.ref(TOKEN) if token is not None else None
        body, token_body = canonical(session.plain()), canonical(dict(token)) if token is not None else None

        def act(tx: Tx) -> list[bytes]:
            old = sessions_over(tx, now)
            sealed = tx.vault.seal(object_ref(SESSION, ref), body, tx.fresh_keys, names)
            sealed_token = None
            if token_ref is not None and token_body is not None:
                sealed_token = tx.vault.seal(object_ref(TOKEN, token_ref), token_body, tx.fresh_keys, names).cipher
            tx.execute(
                "INSERT INTO app_session (id, cookie, namespace, record, idle, seen, until, ref, sealed, token_ref, "
                "token, turn, refreshing, refreshing_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL, 0)",
                (
                    opened.id,
                    self._digest(opened.id, opened.cookie),
                    session.viewer.ehr,
                    session.record,
                    idle,
                    now,
                    now + longest,
                    ref,
                    sealed.cipher,
                    token_ref,
                    sealed_token,
                ),
            )
            self._access.signed(tx, session.viewer, Act.SIGN_IN)
            return old

        await destroy(self._store, await self._store.writer.write(act))
        names.done()
        return opened

    async def end(self, launch_id: str, *, viewer: Viewer | None = None) -> None:
        """Gone for all workers, and its keys destroyed. `viewer`: who signed out, which is on record."""

        def act(tx: Tx) -> list[bytes]:
            refs = ended(tx, launch_id)
            if refs and viewer is not None:
                self._access.signed(tx, viewer, Act.SIGN_OUT)
            return refs

        await destroy(self._store, await self._store.writer.write(act))

    async def disagrees(self, launch_id: str, session: Session, record: RecordRow | None) -> None:
        """End a session whose patients no longer agree; a safety event, on record."""
        log().error("the patients of a session of the app do not agree", ehr=session.viewer.ehr)

        def act(tx: Tx) -> list[bytes]:
            refs = ended(tx, launch_id)
            if refs:
                wrong_patient(tx, session.viewer.ehr, "of an open session of the app", record.id if record else None)
            return refs

        await destroy(self._store, await self._store.writer.write(act))

    async def living(self, launch_ids: Sequence[str]) -> frozenset[str]:
        """Which of these are not over."""
        now = self._clock()
        rows = (self._store.reads.one(_ROW, (each,)) for each in launch_ids[:50] if _ID.fullmatch(each))
        return frozenset(row[0] for row in rows if row is not None and row[6] > now and row[5] + row[4] > now)

    def _opened(self, ref: str, sealed: bytes) -> Session:
        return Session.of(strict.loads(self._store.vault.open(object_ref(SESSION, ref), bytes(sealed))))

    def _digest(self, launch_id: str, cookie: str) -> bytes:
        return self._store.vault.index("app-session", launch_id, cookie)


def wrong_patient(
    tx: Tx, namespace: str | None, where: str, record_id: int | None, inference_id: int | None = None
) -> None:
    """The safety event: a flag that somebody must look at, and its entry. No reference of a patient stands in either
    but rows of ours."""
    tx.add(
        "flag",
        kind="flag",
        reason="wrong-patient",
        record_id=record_id,
        inference_id=inference_id,
        detail=f"the patients {where} do not agree; nothing was shown",
        at=tx.now,
    )
    tx.entry("safety", f"ehr:{namespace}" if namespace else "app", {"door": Door.SMART_APP.value})
