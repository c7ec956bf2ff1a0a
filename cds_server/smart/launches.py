"""What a launch becomes: a case whose patient, card and EHR context agree, or nothing, on record.

Implements `smart_app.ports.Launches`. In this order: who looks (the ID token), whether they have a role here, whose
case (the token answer, the FHIR server, our record, the card's inference), and only then a session.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cds_server.access.log import Access
from cds_server.access.roles import Act
from cds_server.http import authorities
from cds_server.keys import KeySigner
from cds_server.logs import log
from cds_server.settings import Settings
from cds_server.smart.ehr_door import EhrDoor
from cds_server.smart.identities import Identities
from cds_server.smart.patients import check, land
from cds_server.smart.pending import Launching
from cds_server.smart.sessions import OpenedSession, Session, StoreSessions, wrong_patient
from cds_server.smart.tokens import EhrReads, Tokens, read, token_of
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import CdsError, NotAllowed, PeerFailed, Unauthenticated, WrongPatient
from models.nouns import instant
from smart_app.desk import Case, Viewer
from smart_app.discovery import Discovery, Endpoints
from smart_app.ehr_style import filtered
from smart_app.granted import Granted, may
from smart_app.launch import Pending, Who, authenticated, check_claims
from smart_app.registered import Registered
from smart_app.users import FhirUser, claimed_name, fhir_user, name_in

_STYLES = 64
_NOBODY = "you are signed in at the EHR, but have no role here: ask whoever runs this system to give you one"


@dataclass(frozen=True, slots=True)
class _Peer:
    """What talks to one EHR."""

    door: EhrDoor
    discovery: Discovery
    identities: Identities
    signer: KeySigner


class EhrLaunches:
    """All EHRs that launch the app. One event loop."""

    def __init__(
        self,
        settings: Settings,
        apps: Mapping[str, Registered],
        store: Store,
        access: Access,
        sessions: StoreSessions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._access = access
        self._sessions = sessions
        self._clock = clock
        self._apps = apps
        self._peers: dict[str, _Peer] = {}
        self._styles: OrderedDict[tuple[str, str], Mapping[str, str]] = OrderedDict()
        self._under_way = Launching(store, clock)
        self.tokens = Tokens(store, sessions, self._again, clock)
        self.reads = EhrReads(self.tokens, sessions, self._base_and_door)
        self.keep = self._under_way.keep
        self.kept = self._under_way.kept
        self.ref_of = self._under_way.ref_of
        self.take = self._under_way.take
        self.living = sessions.living

    async def aclose(self) -> None:
        for peer in self._peers.values():
            await peer.door.aclose()

    def _peer(self, namespace: str) -> _Peer:
        """What talks to an EHR, made at its first launch: an EHR that nobody launches from costs nothing."""
        if namespace not in self._peers:
            app = self._apps[namespace]
            door = EhrDoor(app, verify=authorities(self._settings.ca_file))
            self._peers[namespace] = _Peer(
                door,
                Discovery(door, app.base, _told(namespace), _failed(namespace)),
                Identities(door, published_keys=self._settings.ehr(namespace).published_keys),
                KeySigner(self._store, app.keys),
            )
        return self._peers[namespace]

    def _base_and_door(self, namespace: str) -> tuple[str, EhrDoor] | None:
        return (self._apps[namespace].base, self._peer(namespace).door) if namespace in self._apps else None

    def registered(self) -> Mapping[str, Registered]:
        return self._apps

    async def endpoints(self, app: Registered) -> Endpoints:
        return await self._peer(app.namespace).discovery.endpoints()

    async def signed_out(self, case: Case) -> None:
        await self._sessions.end(case.id, viewer=case.viewer)

    def refused(self, error: CdsError) -> None:
        what = error.cause if isinstance(error, Unauthenticated) and error.cause else error.what
        log().warning("a launch was refused", status=error.status, what=what, where=error.where)

    # -- tokens --------------------------------------------------------------------------------------------------------

    async def tokens_for(
        self, app: Registered, url: str, form: Mapping[str, str], algorithms: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Ask the token endpoint. Errors: Refused, PeerFailed, Misconfigured."""
        peer = self._peer(app.namespace)
        whole, header = authenticated(app, form, peer.signer, url, algorithms, int(self._clock()))
        return await peer.door.tokens(url, whole, header)

    async def _again(self, namespace: str, session: Session, form: Mapping[str, str]) -> Mapping[str, Any]:
        if session.token_url is None or namespace not in self._apps:
            raise PeerFailed("this EHR launches the app no longer")
        return await self.tokens_for(self._apps[namespace], session.token_url, form, session.algorithms)

    # -- opening -------------------------------------------------------------------------------------------------------

    async def claims(self, app: Registered, pending: Pending, token: str) -> tuple[Mapping[str, Any], str]:
        return await self._peer(app.namespace).identities.claims(pending.issuer, pending.jwks, token)

    async def open(self, app: Registered, pending: Pending, granted: Granted) -> OpenedSession:
        """The case of a token answer. Errors: Unauthenticated (who looks is not proved), NotAllowed (no role),
        WrongPatient (patients do not agree), PeerFailed, RecordUnavailable."""
        if granted.id_token is None:
            raise NotAllowed("the EHR did not say who is looking")
        claims, alg = await self.claims(app, pending, granted.id_token)
        who = check_claims(app, pending, claims, alg, granted.access, int(self._clock()))
        user = fhir_user(who.claims, app.base)
        viewer = await self._viewer(app, who, user, granted)
        body, style = await asyncio.gather(self._patient(app, granted, viewer), self._style(app, granted.style_url))
        now = instant(datetime.now(UTC))
        joining = self._settings.joining_systems
        record = await land(self._store, app.namespace, granted.patient, body, now, joining)
        await self._check_card(app, granted, record)
        session = Session(
            viewer=viewer,
            record=record.ref,
            patient=granted.patient,
            csrf=secrets.token_urlsafe(32),
            inference=granted.inference,
            banner=granted.banner,
            encounter=granted.encounter,
            intent=granted.intent,
            context=granted.context,
            style=style,
            ancestors=app.ancestors,
            token_url=pending.token,
            algorithms=pending.algorithms,
        )
        token = token_of(granted, self._clock())
        return await self._sessions.open(session, idle=app.idle, longest=app.longest, token=token)

    async def _viewer(self, app: Registered, who: Who, user: FhirUser | None, granted: Granted) -> Viewer:
        """Who looks, with the roles that the configuration gives them. Nobody's data are read for whom has none."""
        subject = user.url if user is not None else who.subject
        viewer = self._access.by_ehr(app.namespace, subject, claimed_name(who.claims) or "")
        if not viewer.roles:
            error = NotAllowed(_NOBODY)
            await self._store.writer.write(lambda tx: self._access.signed(tx, viewer, Act.SIGN_IN, error))
            raise error
        if user is not None and user.here and may(granted.scopes, user.kind, "r") != "no":
            try:
                reading = await read(self._peer(app.namespace).door, app.base, granted.access, user.relative)
                name = name_in(reading.pages[0][1], user)
            except PeerFailed as error:  # a name is a courtesy; who it is was signed
                log().info("user resource not read", ehr=app.namespace, what=error.what)
                name = None
            if name is not None:
                viewer = self._access.by_ehr(app.namespace, subject, name)
        return viewer

    async def _patient(self, app: Registered, granted: Granted, viewer: Viewer) -> bytes | None:
        """The Patient as its FHIR server has it now; None where that cannot be had."""
        if may(granted.scopes, "Patient", "r") == "no":
            log().info(
                "the patient was not read", ehr=app.namespace, what="the scope patient/Patient.r was not granted"
            )
            return None
        url = f"Patient/{granted.patient}"
        try:
            reading = await read(self._peer(app.namespace).door, app.base, granted.access, url)
            return check(reading, granted.patient)
        except PeerFailed as error:
            log().warning("the patient was not read", ehr=app.namespace, what=error.what)
            return None
        except WrongPatient:
            await self.disagree(app.namespace, "of a launch and of the resource that its EHR gave")
            raise

    async def _check_card(self, app: Registered, granted: Granted, record: RecordRow) -> None:
        """The inference whose card led here is about this very record, and was shown to this EHR."""
        if granted.inference is None:
            return
        row = self._store.reads.one(
            "SELECT i.id, i.record_id, c.ehr FROM inference i JOIN call c ON c.id = i.call_id WHERE i.ref = ?",
            (granted.inference,),
        )
        if row is None:
            raise NotAllowed("the card that led here is not known here")
        if row[1] != record.id or row[2] != app.namespace:
            await self.disagree(app.namespace, "of a launch and of the card that led to it", record.id, int(row[0]))
            raise WrongPatient("the card that led here is about another patient than the launch")

    async def disagree(
        self, namespace: str, where: str, record_id: int | None = None, inference_id: int | None = None
    ) -> None:
        """Put a launch whose patients do not agree on record, as a safety event."""
        log().error("the patients of a launch do not agree", ehr=namespace)

        def act(tx: Tx) -> None:
            wrong_patient(tx, namespace, where, record_id, inference_id)

        await self._store.writer.write(act)

    async def _style(self, app: Registered, url: str | None) -> Mapping[str, str]:
        """The EHR's look, asked once for each URL, without any token (SMART: a new look has a new URL)."""
        if url is None:
            return {}
        known = self._styles.get((app.namespace, url))
        if known is None:
            try:
                known = filtered(await self._peer(app.namespace).door.style(url))
            except CdsError as error:
                log().info("style not taken", ehr=app.namespace, what=error.what)
                return {}
            self._styles[app.namespace, url] = known
            if len(self._styles) > _STYLES:
                self._styles.popitem(last=False)
        return known


def _told(namespace: str) -> Callable[[Endpoints], None]:
    def tell(found: Endpoints) -> None:
        log().info("smart configuration read", ehr=namespace, what="; ".join(found.odd) or None)

    return tell


def _failed(namespace: str) -> Callable[[str], None]:
    def tell(what: str) -> None:
        log().warning("smart configuration not read", ehr=namespace, what=what)

    return tell
