"""The tumor board: its nouns, and the port behind its pages.

A session of the board holds no patient. A meeting has a worklist; to look at one of its cases is to open it, and that
makes a context of its own: a `Case` with its own id and its own token, for this session only, which ends by itself.
What the board recommends is written in versions; people sign a version, and a change is a new version that nobody has
signed. Nothing is decided by the software.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from starlette.requests import Request

from models.errors import BadInput
from smart_app.banners import Banner
from smart_app.board_summary import Summary
from smart_app.desk import Case, Role, Viewer

LONGEST = 4000
"""Characters of any text that somebody writes down."""
MOST_PEOPLE = 40


class Unfit(BadInput):
    """What somebody typed cannot be taken; says which field, never what stood in it."""

    def __init__(self, key: str) -> None:
        super().__init__("a field of the form cannot be taken", where=key)
        self.key = key
        """Key of the text that tells them."""


class Stage(StrEnum):
    """How far a case is."""

    WAITING = "waiting"
    DRAFTED = "drafted"
    """There is a recommendation, and nobody signed its newest version."""
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class Seat:
    """Somebody at the board, signed in: no patient belongs to it."""

    viewer: Viewer
    csrf: str
    session: bytes
    """Names the sign-in, for the server; worth nothing to anybody else."""

    @property
    def chair(self) -> bool:
        """Calls meetings, orders and closes them, gives out the minutes."""
        return Role.BOARD_CHAIR in self.viewer.roles


@dataclass(frozen=True, slots=True)
class MeetingLine:
    """A meeting in the list of meetings. No patient in it."""

    ref: str
    title: str
    place: str
    held_on: str
    closed: bool
    cases: int
    signed: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A case on a worklist."""

    ref: str
    number: int
    """Its place, from 1."""
    banner: Banner | None
    """None: this viewer may not see whose it is, and `withheld` says why."""
    withheld: str | None
    diagnosis: str
    extent: str
    """Stage or TNM, as recorded."""
    score: str
    """The newest number or abstention, in a few words; empty: none."""
    lacking: int
    """Modalities that had nothing to say."""
    disagree: bool
    question: str
    asked_by: str
    stage: Stage
    version: int
    """Of the newest recommendation; 0: none."""
    signatures: int


@dataclass(frozen=True, slots=True)
class Meeting:
    line: MeetingLine
    listed: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A patient that an identifier names, to be looked at before they are put on a worklist."""

    record: str
    """Random reference."""
    banner: Banner
    twice: bool
    """On this worklist already."""


@dataclass(frozen=True, slots=True)
class Participant:
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What the board recommends, in its own words."""

    recommendation: str
    rationale: str = ""
    dissent: str = ""
    follow_up: tuple[str, ...] = ()
    """What is to be done next, one act a line: each becomes a draft of a ServiceRequest."""
    participants: tuple[Participant, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    name: str
    role: str
    at: str
    seq: int
    """Of its ledger entry."""
    note: str = ""
    mine: bool = False


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One version."""

    ref: str
    version: int
    draft: Draft
    written_by: str
    at: str
    seq: int
    inferences: tuple[str, ...]
    """That were on the screen when it was written."""
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenCase:
    """A case that somebody has open."""

    case: Case
    ref: str
    meeting: MeetingLine
    number: int
    of: int
    banner: Banner
    question: str
    asked_by: str
    versions: tuple[Recommendation, ...]
    """The newest first."""
    previous: str | None
    """Reference of the case before it on the worklist; None: it is the first."""
    next: str | None
    chair: bool

    @property
    def newest(self) -> Recommendation | None:
        return self.versions[0] if self.versions else None

    @property
    def writable(self) -> bool:
        return not self.meeting.closed


class Boards(Protocol):
    """The port. Each call that shows or changes something of a patient writes an access entry, or refuses on record."""

    async def seat(self, request: Request) -> Seat:
        """Who is signed in. Errors: Unauthenticated (nobody), NotAllowed (no role that opens the board)."""
        ...

    async def meetings(self, seat: Seat) -> tuple[MeetingLine, ...]:
        """The newest first."""
        ...

    async def call(self, seat: Seat, title: str, held_on: str, place: str) -> str:
        """A new meeting on a day `YYYY-MM-DD`; gives its reference. Errors: NotAllowed (the chair's), Unfit."""
        ...

    async def meeting(self, seat: Seat, ref: str) -> Meeting:
        """A worklist in its order. Errors: NotFound."""
        ...

    async def close(self, seat: Seat, ref: str, *, closed: bool) -> None:
        """Close a meeting, or open it again. Doing it twice does it once. Errors: NotFound, NotAllowed."""
        ...

    async def find(self, seat: Seat, ref: str, identifier: str) -> Found:
        """Whom `system|value` or `NAMESPACE/ID` names. Errors: NotFound (nobody, or several), NotAllowed, Conflict."""
        ...

    async def add(self, viewer: Viewer, ref: str, record: str, question: str) -> None:
        """Put a patient on a worklist, once. Errors: NotFound, NotAllowed, Conflict (a closed meeting), Unfit."""
        ...

    async def upcoming(self, viewer: Viewer) -> tuple[MeetingLine, ...]:
        """Meetings that take cases, for somebody who comes from a case page. Errors: NotAllowed."""
        ...

    async def reorder(self, seat: Seat, ref: str, case: str, by: int) -> None:
        """Move a case so many places. Errors: NotFound, NotAllowed (the chair's), Conflict."""
        ...

    async def withdraw(self, seat: Seat, ref: str, case: str) -> None:
        """Take a case off the worklist; what was written about it stays. Errors: NotFound, NotAllowed, Conflict."""
        ...

    async def open(self, seat: Seat, case: str) -> str:
        """Open a case of a worklist: gives the id of a new context for it, and writes the access entry.

        Errors: NotFound, NotAllowed.
        """
        ...

    async def opened(self, request: Request) -> OpenCase:
        """The case of a request to `/board/case/{case_id}/...`, proved anew: its context is of this very sign-in, and
        not over. Errors: NotFound, Unauthenticated, NotAllowed."""
        ...

    async def break_glass(self, seat: Seat, case: str, reason: str) -> None:
        """See for a limited time what labels or an opt-out withhold; recorded and reviewed. Errors: BadInput (no
        reason), NotAllowed, NotFound."""
        ...

    async def summary(self, opened: OpenCase) -> Summary:
        """What is known, for one screen. Errors: NotAllowed."""
        ...

    async def picture(self, opened: OpenCase, number: int) -> bytes:
        """A picture of the summary as PNG. Errors: NotFound, NotAllowed."""
        ...

    async def recommend(self, opened: OpenCase, draft: Draft, after: int) -> None:
        """Write a version down. `after`: the version that the writer saw last, 0 for none.

        Errors: NotAllowed (the chair's), Conflict (somebody else wrote one meanwhile, or the meeting is closed), Unfit.
        """
        ...

    async def sign(self, opened: OpenCase, version: int, note: str) -> Signature:
        """Sign the newest version, once; signing again gives the first signature.

        Errors: Conflict (there is a newer one, or the meeting is closed), NotFound.
        """
        ...

    async def minutes(self, opened: OpenCase) -> bytes:
        """The minutes of this case as PDF: those that were given out, or a draft that says so. Errors: NotFound."""
        ...

    async def give_out(self, opened: OpenCase) -> bytes:
        """Keep the PDF of the newest version, signed by the chair among others, as the minutes; once a version.

        Errors: NotAllowed (the chair's), Conflict (not signed yet).
        """
        ...

    async def given_out(self, opened: OpenCase) -> bool:
        """Whether minutes of the newest version were given out."""
        ...

    async def fhir(self, opened: OpenCase) -> bytes:
        """The same as a FHIR R4 Bundle of drafts, valid by fhir.resources. Errors: NotFound."""
        ...

    async def meeting_minutes(self, seat: Seat, ref: str) -> bytes:
        """The minutes of all cases of a meeting that this viewer may see, as PDF. Errors: NotFound."""
        ...
