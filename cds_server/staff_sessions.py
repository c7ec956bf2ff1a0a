"""Sessions of staff, in the store, for all workers: the cookie is random, the store has its keyed digest and, sealed,
who it is. What somebody may is worked out from the configuration at each request; a session only says who they are.

    GET  /staff             who is signed in: a page, or JSON for a program
    POST /staff/sign-out    the session is gone, for all workers, and the key of what it said
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cds_server import wire
from cds_server.access.log import Access
from cds_server.access.roles import Act, may
from cds_server.settings import Settings
from cds_server.store.entropy import new_ref
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import KeysUnavailable, NotAllowed, Unauthenticated
from smart_app import rendering
from smart_app.desk import Role, Viewer
from smart_app.sessions import FORM
from smart_app.staffed import posted
from smart_app.texts import t

SESSION_SECONDS = 8 * 3600
STAFF = b"w"
"""Kind of a sealed payload: the first letter of its key reference."""
LEADS = ("/staff", "/metrics", "/ledger/", "/board", "/work", "/app")
"""Where a sign-in may lead: places of our own, by name."""
_TOUCH = 60
"""Seconds between two notes that a session is used."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in, as their door told."""

    subject: str
    name: str = ""
    values: tuple[str, ...] = ()
    """Of the claim that `[staff]` names."""
    operator: bool = False
    """May look at metrics and ledger (`[staff] allow`)."""
    roles: tuple[str, ...] = ()
    """Of the sandbox's own people only; everybody else's come from the configuration, each time."""


class StaffSessions:
    """Implements `smart_app.staffed.Staffed`."""

    def __init__(
        self, store: Store, settings: Settings, access: Access, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._access = access
        self._clock = clock
        self._open = settings.trust == "open" and settings.staff is None
        self._secure = settings.public_url.startswith("https:")
        self._cookie = "__Host-cds-staff" if self._secure else "cds-staff"

    # -- who is it -----------------------------------------------------------------------------------------------------

    def person(self, request: Request) -> Person | None:
        """Who is signed in with this request's cookie; None: nobody."""
        found = self._found(request)
        return found[0] if found else None

    async def viewer(self, request: Request) -> Viewer:
        found = self._found(request)
        if found is None:
            raise Unauthenticated(cause="nobody of the staff is signed in")
        person, digest, used = found
        if self._clock() - used >= _TOUCH:
            now = int(self._clock())
            await self._store.writer.write(
                lambda tx: tx.execute("UPDATE staff_session SET used = ? WHERE digest = ?", (now, digest))
            )
        return self.viewer_of(person)

    def viewer_of(self, person: Person) -> Viewer:
        viewer = self._access.by_staff(person.subject, person.name, person.values)
        if person.roles and self._open:
            return replace(viewer, roles=frozenset(map(Role, person.roles)))
        return viewer

    def operates(self, person: Person) -> bool:
        """Whether metrics and ledger are open to somebody: `[staff] allow` says so, or they review what others do."""
        return person.operator or may(self.viewer_of(person), Act.REPORT)

    def present(self) -> list[Viewer]:
        """Who is signed in now."""
        rows = self._store.reads.query(
            "SELECT ref, sealed FROM staff_session WHERE until > ? AND ref IS NOT NULL", (int(self._clock()),)
        )
        people = {person for ref, sealed in rows if (person := self._opened(ref, sealed)) is not None}
        return [self.viewer_of(person) for person in people]

    def csrf(self, request: Request) -> str:
        return self._store.vault.index("staff-csrf", request.cookies.get(self._cookie, "")).hex()

    def _found(self, request: Request) -> tuple[Person, bytes, int] | None:
        cookie = request.cookies.get(self._cookie)
        if not cookie:
            return None
        digest = self._digest(cookie)
        rows = self._store.reads.query(
            "SELECT ref, sealed, used FROM staff_session WHERE digest = ? AND until > ?", (digest, int(self._clock()))
        )
        if not rows or rows[0][0] is None:
            return None
        ref, sealed, used = rows[0]
        person = self._opened(ref, sealed)
        if person is None or self._clock() - used > self._access.allowed.idle_seconds(self.viewer_of(person).roles):
            return None
        return person, digest, int(used)

    def _opened(self, ref: str, sealed: bytes) -> Person | None:
        try:
            said = self._store.reads.open_payload(STAFF, ref, bytes(sealed))
        except KeysUnavailable:
            return None
        lists = {name: tuple(said[name]) for name in ("values", "roles")}
        return Person(**{**said, **lists})

    def _digest(self, cookie: str) -> bytes:
        return self._store.vault.index("staff", cookie)

    # -- in and out ----------------------------------------------------------------------------------------------------

    async def begin(self, person: Person, to: str) -> Response:
        """A new session, on record, and the way on. Errors: NotAllowed, on record too, for somebody without a role who
        is no operator either."""
        viewer = self.viewer_of(person)
        if not viewer.roles and not person.operator:
            error = NotAllowed("you are signed in, but nothing here is open to you")
            await self._store.writer.write(lambda tx: self._access.signed(tx, viewer, Act.SIGN_IN, error))
            raise error
        cookie, ref, now = secrets.token_urlsafe(32), new_ref(), int(self._clock())

        def act(tx: Tx) -> list[str]:
            gone = [row[0] for row in tx.read("SELECT ref FROM staff_session WHERE until <= ?", (now,)) if row[0]]
            tx.execute("DELETE FROM staff_session WHERE until <= ?", (now,))
            sealed = tx.vault.seal(object_ref(STAFF, ref), canonical(asdict(person)), tx.fresh_keys)
            tx.execute(
                "INSERT INTO staff_session (digest, subject, until, ref, sealed, used) VALUES (?, '', ?, ?, ?, ?)",
                (self._digest(cookie), now + SESSION_SECONDS, ref, sealed.cipher, now),
            )
            self._access.signed(tx, viewer, Act.SIGN_IN)
            return gone

        await self._forget(await self._store.writer.write(act))
        response = RedirectResponse(to, 303, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        self.set(response, self._cookie, cookie, SESSION_SECONDS)
        return response

    async def sign_out(self, request: Request) -> Response:
        found = self._found(request)
        page = request.headers.get("content-type", "").startswith(FORM)
        if page and found is not None:
            await posted(request, self)
        if found is not None:
            person, digest, _ = found

            def act(tx: Tx) -> list[str]:
                gone = [row[0] for row in tx.read("SELECT ref FROM staff_session WHERE digest = ?", (digest,))]
                tx.execute("DELETE FROM staff_session WHERE digest = ?", (digest,))
                self._access.signed(tx, self.viewer_of(person), Act.SIGN_OUT)
                return gone

            await self._forget(await self._store.writer.write(act))
        response: Response = Response(status_code=204)
        if page:  # a form may not lead to the provider, by way of whatever redirects (CSP, form-action)
            response = rendering.page(
                "staff/out.html", title=t("staff.out_title"), language=request.headers.get("accept-language")
            )
        response.delete_cookie(self._cookie, secure=self._secure, httponly=True)
        return response

    async def _forget(self, refs: Sequence[str]) -> None:
        if refs:
            await asyncio.to_thread(self._store.vault.keys.destroy, [object_ref(STAFF, ref) for ref in refs])

    async def who(self, request: Request) -> Response:
        viewer = await self.viewer(request)
        told: dict[str, Any] = {"subject": viewer.subject, "name": viewer.name, "roles": sorted(viewer.roles)}
        if "text/html" not in request.headers.get("accept", ""):
            return wire.json_response(told)
        return rendering.page(
            "staff/who.html",
            title=t("staff.title"),
            language=request.headers.get("accept-language"),
            viewer=viewer,
            roles=sorted(viewer.roles),
            board=may(viewer, Act.BOARD_WORKLIST),
            queue=may(viewer, Act.QUEUE),
            csrf=self.csrf(request),
        )

    # -- cookies -------------------------------------------------------------------------------------------------------

    def set(self, response: Response, name: str, value: str, seconds: int, path: str = "/") -> None:
        response.set_cookie(name, value, max_age=seconds, path=path, secure=self._secure, httponly=True, samesite="lax")

    def token(self, purpose: str, value: str) -> str:
        """A keyed digest that ties a form to a cookie of this browser."""
        return self._store.vault.index(purpose, value).hex()

    def holds(self, purpose: str, value: str, token: str) -> bool:
        return hmac.compare_digest(self.token(purpose, value).encode(), token.encode())


def lead(wanted: str) -> str:
    """Where a sign-in leads: the wanted place, where it is one of our own."""
    return wanted if wanted.startswith(LEADS) and wanted.isascii() and wanted.isprintable() else "/staff"
