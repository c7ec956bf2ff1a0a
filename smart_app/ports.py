"""What a launch needs of the server. `cds_server.smart` builds what stands behind it and hands it in.

Door     one EHR's hosts over HTTP, and no others
Signer   signs for us, with keys that nobody here sees
Launches what lasts between the requests of a launch, for all workers; and what a launch becomes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from models.errors import CdsError
    from smart_app.desk import Case
    from smart_app.discovery import Endpoints
    from smart_app.granted import Granted
    from smart_app.launch import Pending
    from smart_app.registered import Registered


class Door(Protocol):
    def refuses(self, url: str) -> str | None:
        """Why this URL would not be asked, in our words; None where it would. No request, no look-up."""

    async def get(self, url: str, headers: Mapping[str, str], *, limit: int) -> bytes:
        """The body of a 200 answer in JSON. No redirect is followed. Errors: NotAllowed (nothing was sent),
        PeerFailed."""


class Signer(Protocol):
    def algorithms(self) -> Sequence[str]:
        """What there is a key for, the preferred one first: RS384, ES384."""

    def sign(self, claims: Mapping[str, Any], algorithm: str) -> str:
        """A compact JWS whose header has `alg`, `kid` and `typ`: JWT. Errors: Misconfigured."""


class Launches(Protocol):
    """A launch, from its first request to its open case."""

    def registered(self) -> Mapping[str, Registered]:
        """Every EHR that launches the app, by namespace."""

    async def endpoints(self, app: Registered) -> Endpoints:
        """What the EHR says of its authorization server, checked. Errors: PeerFailed."""

    async def keep(self, pending: Pending, cookie: str) -> None:
        """Remember a launch that this browser begins; durable when it returns. Errors: Overloaded."""

    async def kept(self, ref: str, cookie: str | None) -> tuple[Pending, bool]:
        """Look at a launch without taking it; whether the cookie is its own. Errors: NotFound."""

    async def ref_of(self, state: str) -> str:
        """Which launch a state belongs to. Errors: NotFound (never begun here, used, too old)."""

    async def take(self, state: str, cookie: str | None) -> tuple[Pending, bool]:
        """Take a launch: its state is worth nothing afterwards, for any worker, whatever comes of it. Whether the
        cookie is its own. Errors: NotFound."""

    async def tokens_for(
        self, app: Registered, url: str, form: Mapping[str, str], algorithms: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Ask the token endpoint, authenticated as registered; `algorithms`: what it takes assertions by, None where it
        does not say. Errors: PeerFailed (`granted.Refused` where it says no), Misconfigured (no key)."""

    async def open(self, app: Registered, pending: Pending, granted: Granted) -> Opened:
        """Make the case: who looks is proved and has a role, patient, card and EHR context agree; or nothing is opened.

        Errors: Unauthenticated, NotAllowed, WrongPatient (on record as a safety event), PeerFailed, RecordUnavailable.
        """

    async def disagree(self, namespace: str, where: str) -> None:
        """Put a launch whose patients do not agree on record, as a safety event."""

    async def signed_out(self, case: Case) -> None:
        """The session is gone, for all workers, and the keys of what it kept; on record. Safe to call again."""

    def refused(self, error: CdsError) -> None:
        """Tell the log why somebody got a page of refusal."""

    async def living(self, launch_ids: Sequence[str]) -> frozenset[str]:
        """Which of these sessions are not over."""


class Opened(Protocol):
    @property
    def id(self) -> str:
        """The launch id of the path: made now, never known to the browser before."""

    @property
    def cookie(self) -> str:
        """What proves it."""

    @property
    def seconds(self) -> int:
        """The longest that it lasts."""
