"""One object on its way in: from the command that announces it to the status that answers for it.

    command -> `Storing.begin` -> the data set, fragment by fragment, sealed as it comes -> `Incoming.end` -> status

Used by the C-STORE door and by C-GET alike. 0000 means durable. The bytes are not decoded and not understood but for
the two UIDs by which command and object must agree. Ids such as D12 name rows of the list in docs/dicom-storage.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum

from adapters.dicom import part10
from adapters.dicom.identity import Identity, IdentitySearch, plausible, unpadded
from adapters.source import Arrival, Intake, Staged
from models.errors import CdsError, DiskFull, Malformed
from models.nouns import JSON, LandingMeta, instant

KEEP, REFUSE = "keep", "refuse"
LOOK_AGAIN = 64 << 20
"""Bytes of one object after which the room on the disk is looked at again."""


class Status(IntEnum):
    """Of a C-STORE (PS3.4 table B.2-1, PS3.7 9.1.1.1.9 and annex C)."""

    SUCCESS = 0x0000
    FAILED = 0x0110
    """Processing failure: the store refused for a reason that is not its room."""
    DUPLICATE = 0x0111
    INVALID_INSTANCE = 0x0117
    NO_RESOURCES = 0xA700
    MISMATCH = 0xA900
    UNREADABLE = 0xC000


@dataclass(frozen=True, slots=True)
class Offer:
    """What is said about an object before its bytes."""

    sop_class: bytes
    """Affected SOP Class UID, as it stands in the command."""
    sop_instance: bytes
    context_class: str
    """Abstract syntax of the presentation context that it comes through."""
    syntax: str
    """Transfer syntax UID that was negotiated for it."""
    calling: str = ""
    called: str = ""
    address: str = ""
    move_originator: str | None = None
    move_message_id: int | None = None

    def manifest(self) -> JSON:
        said = {
            "calling_ae_title": self.calling,
            "called_ae_title": self.called,
            "address": self.address,
            "move_originator_ae_title": self.move_originator,
            "move_originator_message_id": self.move_message_id,
            "transfer_syntax": self.syntax,
        }
        return {name: value for name, value in said.items() if value not in (None, "")}


@dataclass(slots=True)
class Storing:
    """How the objects of one source are taken."""

    source: str
    namespace: str
    on_conflict: str = KEEP
    """Other bytes under a SOP Instance UID that is known (D12). `keep`: stored under a second key, said in the
    manifest, flagged, and answered 0000: what is durable is no failure, and an archive that hears 0111 gives up the
    whole move. `refuse`: 0111, flagged, nothing stored."""
    free: Callable[[], int] | None = None
    """Bytes free where objects are written."""
    min_free: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def begin(self, offer: Offer, intake: Intake) -> Incoming:
        return Incoming(self, offer, intake)

    @property
    def full(self) -> bool:
        return self.free is not None and self.free() < self.min_free


class Incoming:
    """`write` each fragment, then `end`; or `abandon`. A refused object is read to its end, and kept nowhere."""

    def __init__(self, storing: Storing, offer: Offer, intake: Intake) -> None:
        self._storing, self._offer = storing, offer
        self._said = Identity(unpadded(offer.sop_class), unpadded(offer.sop_instance))
        self._search = IdentitySearch(offer.syntax)
        self._staged: Staged | None = None
        self._unseen = 0
        self._began = False
        self.refusal: tuple[Status, str] | None = self._refused()
        """Status and, in our own words, why."""
        if self.refusal is None:
            meta = LandingMeta(
                storing.source,
                storing.namespace,
                part10.MEDIA_TYPE,
                instant(datetime.now(UTC)),
                offer.manifest(),
            )
            try:
                self._staged = intake.stage(meta)
            except (CdsError, OSError) as error:
                self.refusal = _of_store(error)

    def _refused(self) -> tuple[Status, str] | None:
        """What the command alone decides."""
        if not plausible(self._said.sop_instance):
            return Status.INVALID_INSTANCE, "the SOP Instance UID is no UID"
        if not plausible(self._said.sop_class) or self._said.sop_class != self._offer.context_class.encode():
            return Status.MISMATCH, "the SOP Class is not that of the presentation context"
        if self._storing.full:
            return Status.NO_RESOURCES, "the disk is nearly full"
        return None

    async def write(self, data: bytes) -> None:
        """A fragment of the data set. Raises nothing that is of the object's making."""
        if self._staged is None:
            return
        try:
            if not self._began:
                self._began = True
                said = self._said
                await self._staged.write(part10.head(said.sop_class, said.sop_instance, self._offer.syntax.encode()))
            await self._staged.write(data)
            if self._search.found is None:
                self._compare(self._search.feed(data))
        except (CdsError, OSError) as error:
            self.refusal = _of_store(error)
        self._unseen += len(data)
        if self._unseen >= LOOK_AGAIN:
            self._unseen = 0
            if self._storing.full:
                self.refusal = Status.NO_RESOURCES, "the disk is nearly full"
        if self.refusal is not None:
            await self.abandon()

    def _compare(self, found: Identity | None) -> None:
        if found is None:
            return
        if found.sop_instance != self._said.sop_instance:
            self.refusal = Status.MISMATCH, "the SOP Instance UID of the data set is another"
        elif found.sop_class != self._said.sop_class:
            self.refusal = Status.MISMATCH, "the SOP Class UID of the data set is another"

    async def end(self) -> Status:
        """The status to answer with; 0000 only once the object is on disk."""
        if self._staged is not None:
            try:
                if self._search.found is None:
                    self._compare(self._search.feed(b"", last=True))
                if self.refusal is None:
                    return self._counted(await self._commit(self._staged))
            except (CdsError, OSError) as error:
                self.refusal = _of_store(error)
            await self.abandon()
        return self._counted(self.refusal[0] if self.refusal is not None else Status.FAILED)

    async def _commit(self, staged: Staged) -> Status:
        key = key_of(self._storing.source, self._said.sop_instance)
        beside = {"conflict": "the same SOP Instance UID, other bytes"} if self._storing.on_conflict == KEEP else None
        receipt = await staged.commit(key, beside=beside)
        self._staged = None
        counts = self._storing.counts
        if receipt.arrival is Arrival.CONFLICT:
            counts["conflicts"] += 1
            self.refusal = Status.DUPLICATE, "this SOP Instance UID was used for other bytes"
            return Status.DUPLICATE
        counts["kept beside"] += receipt.beside is not None
        counts["duplicates" if receipt.arrival is Arrival.DUPLICATE else "stored"] += 1
        return Status.SUCCESS

    def _counted(self, status: Status) -> Status:
        self._storing.counts[f"answered {status:04X}"] += 1
        return status

    async def abandon(self) -> None:
        """Nothing of it stays. Safe at any time."""
        staged, self._staged = self._staged, None
        if staged is not None:
            await staged.abandon()


def key_of(source: str, sop_instance: bytes) -> bytes:
    """The sender's key of an object: by it whoever asks an archive sees what is stored."""
    return b"\x1f".join((b"dicom", source.encode(), sop_instance))


def _of_store(error: CdsError | OSError) -> tuple[Status, str]:
    if isinstance(error, Malformed):
        return Status.UNREADABLE, error.what
    if isinstance(error, DiskFull):
        return Status.NO_RESOURCES, "the disk is full"
    return Status.FAILED, "the object could not be stored"
