"""The record of each look: who, at whose data, what for, and whether they were let. One durable entry a page.

`Access.look` is the one door: it asks `roles` and `allowed`, writes, and only then lets the caller go on. A refusal is
an entry too. No record, no look: where the entry cannot be written nothing is shown.

The ledger entry (kind `access`) names the act, the outcome, the door and random references; who looked is sealed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from cds_server.access.allowed import Allowed, Clock, Refusal, check, utc_now
from cds_server.access.roles import Act, check_may, roles_by_ehr, roles_of_staff
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.store.ready import Names
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import BadInput, NotAllowed, NotFound
from models.nouns import Fact, instant
from smart_app.desk import Door, Role, Viewer

KIND = "access"
"""Of the ledger entry."""
ACCESS = b"v"
"""Kind of a sealed payload: the first letter of its key reference."""
TREAT, EMERGENCY, OPERATIONS, RESEARCH = "TREAT", "ETREAT", "HOPERAT", "HRESCH"
"""v3-PurposeOfUse."""
SEEN, REFUSED, BROKEN = "seen", "refused", "broken"
REASON = (10, 1000)
"""Characters of a reason for breaking the glass, at least and at most: one letter is none."""
MOST_RECORDS = 500
"""Patients of one look: their references stand in its entry's rows, not in its body."""


@dataclass(frozen=True, slots=True)
class Look:
    """What somebody is about to see or do."""

    viewer: Viewer
    act: str
    """One of `roles.Act`."""
    record: str | None
    """Reference of the patient record; None: nobody's."""
    purpose: str = TREAT
    detail: Mapping[str, int | str] = field(default_factory=dict)
    """Counts, and words of ours (a section, a format). Never a value from outside: it stands in clear."""
    others: tuple[str, ...] = ()
    """Further records that the same page shows (a worklist): refused ones among them refuse nobody else's."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look may show. Its entry is durable."""

    seq: int
    """Of the ledger entry."""
    records: tuple[RecordRow, ...] = ()
    """The person's records that this viewer may see: the one that was asked for, and those that it is joined with."""
    refused: frozenset[str] = frozenset()
    """Of `others`: those that may not be shown."""
    glass: str | None = None
    """Until when the glass is broken; None: it is whole."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """A look with everything that was found about it, before it is written."""

    look: Look
    error: NotAllowed | None
    records: tuple[RecordRow, ...] = ()
    shown: tuple[tuple[int, str], ...] = ()
    """(record id, outcome)"""
    refused: frozenset[str] = frozenset()
    glass: str | None = None
    purpose: str = TREAT


class Access:
    """Who may look, and the record of it. One a process, over its store."""

    def __init__(self, store: Store, settings: Settings, clock: Clock = utc_now) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self.allowed = Allowed(store, settings, clock)

    # -- who is that ---------------------------------------------------------------------------------------------------

    def by_ehr(self, namespace: str, subject: str, name: str = "") -> Viewer:
        """Somebody whom an EHR vouches for (fhirUser or `sub`), with the roles that the configuration gives them."""
        roles = roles_by_ehr(self._settings.access.grants, namespace, subject)
        return Viewer(subject, name or subject, roles, Door.SMART_APP, namespace)

    def by_staff(self, subject: str, name: str = "", values: Iterable[str] = (), door: Door = Door.STAFF) -> Viewer:
        """Somebody who signed in at the identity provider."""
        return Viewer(subject, name or subject, roles_of_staff(self._settings.access.grants, subject, values), door)

    # -- looking -------------------------------------------------------------------------------------------------------

    async def look(self, look: Look) -> Seen:
        """Check role and what is allowed now, and put the look on record: one durable entry, also of a refusal.

        Errors: NotAllowed (its `glass` says whether breaking the glass would help; its text may be shown), NotFound (no
        such record), RecordUnavailable and its kinds (then nothing may be shown).
        """
        judged = self._judge(look)
        names = Names(self._store.vault.ready)
        seq = await self._store.writer.write(lambda tx: self._write(tx, judged, names))
        names.done()
        return _answer(judged, seq)

    def look_now(self, look: Look) -> Seen:
        """The same for a thread or a command."""
        judged = self._judge(look)
        names = Names(self._store.vault.ready)
        seq = self._store.writer.submit(lambda tx: self._write(tx, judged, names)).result()
        names.done()
        return _answer(judged, seq)

    async def break_glass(self, viewer: Viewer, record: str, reason: str) -> Seen:
        """From now on, for a limited time, this viewer sees of this person what labels and opt-out withhold.

        On record with its reason, with a flag that somebody reviews. Errors: NotAllowed (no role that treats patients,
        another organisation's patient), BadInput (no reason), NotFound.
        """
        words = " ".join(reason.split())
        if not REASON[0] <= len(words) <= REASON[1]:
            raise BadInput(f"say why, in {REASON[0]} to {REASON[1]} characters", where="reason")
        judged = self._judge(Look(viewer, Act.BREAK_GLASS, record, EMERGENCY))
        until = instant(self._clock() + timedelta(minutes=self._settings.access.glass_minutes))
        names = Names(self._store.vault.ready)
        seq = await self._store.writer.write(lambda tx: self._write(tx, judged, names, words, until))
        names.done()
        seen = _answer(judged, seq)
        return Seen(seq, seen.records, glass=until)

    def sees(self, viewer: Viewer, facts: Sequence[Fact]) -> tuple[list[Fact], int]:
        """The facts that a viewer may see now, and how many a label withholds from them."""
        labelled = {fact.record for fact in facts if fact.labels}
        return self.allowed.sees(viewer, facts, frozenset(ref for ref in labelled if self._broken(viewer, ref)))

    def _broken(self, viewer: Viewer, ref: str) -> bool:
        """Whether this viewer has broken the glass over the person of a record."""
        row = self._store.reads.record_by_ref(ref)
        if row is None:
            return False
        return self.allowed.glass(self.who(viewer), [each.id for each in self.allowed.of_person(row)]) is not None

    def signed(self, tx: Tx, viewer: Viewer, act: Act, error: NotAllowed | None = None) -> int:
        """The row and the entry of a sign-in or a sign-out (or of one that is refused), in the act of its session."""
        return self._write(
            tx, _Judged(Look(viewer, act, None, OPERATIONS), error), Names(tx.vault.ready), kind=act.value
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    def _judge(self, look: Look) -> _Judged:
        if len(look.others) > MOST_RECORDS:
            raise ValueError("too many patients for one look")
        rows = {ref: self._row(ref) for ref in dict.fromkeys([*([look.record] if look.record else []), *look.others])}
        outcomes: list[tuple[int, str]] = []
        refused: set[str] = set()
        records: tuple[RecordRow, ...] = ()
        glass: str | None = None
        error: NotAllowed | None = None
        try:
            check_may(look.viewer, look.act)
        except NotAllowed as not_allowed:
            error = not_allowed
        purpose = look.purpose
        for ref, row in rows.items():
            refusal, until, person = (None, None, (row,)) if error else self._of(look, row)
            own = ref == look.record
            if own:
                records, glass = self.allowed.visible(look.viewer, person), until
                purpose = EMERGENCY if until and look.purpose == TREAT else look.purpose
            if refusal is not None and own:
                error = _error(refusal)
            elif refusal is not None:
                refused.add(ref)
            outcomes.append((row.id, REFUSED if refusal is not None or error is not None else SEEN))
        return _Judged(look, error, records, tuple(outcomes), frozenset(refused), glass, purpose)

    def _of(self, look: Look, row: RecordRow) -> tuple[Refusal | None, str | None, tuple[RecordRow, ...]]:
        """What stands against looking at one person, and until when the glass that stood before it is broken."""
        person = self.allowed.of_person(row)
        refusal = self.allowed.refusal(look.viewer, row, person, look.purpose)
        until = self.allowed.glass(self.who(look.viewer), [each.id for each in person])
        if refusal is not None and refusal.glass and (until is not None or look.act == Act.BREAK_GLASS):
            refusal = None
        return refusal, until, person

    def _row(self, ref: str) -> RecordRow:
        row = self._store.reads.record_by_ref(ref)
        if row is None:
            raise NotFound("no such patient is known")
        return row

    def who(self, viewer: Viewer) -> bytes:
        """A keyed digest that stands for a viewer wherever rows must be compared."""
        return self._store.vault.index("viewer", viewer.ehr or "", viewer.subject)

    def _write(
        self,
        tx: Tx,
        judged: _Judged,
        names: Names,
        reason: str = "",
        until: str | None = None,
        kind: str = KIND,
    ) -> int:
        look, viewer = judged.look, judged.look.viewer
        outcome = REFUSED if judged.error is not None else BROKEN if until else SEEN
        ref = names.ref(ACCESS)
        payload = {"subject": viewer.subject, "name": viewer.name, **({"reason": reason} if reason else {})}
        sealed = tx.vault.seal(object_ref(ACCESS, ref), canonical(payload), tx.fresh_keys, names)
        access_id = tx.add(
            "access",
            ref=ref,
            act=str(look.act),
            outcome=outcome,
            purpose=judged.purpose if judged.shown else look.purpose,
            door=viewer.door.value,
            ehr=viewer.ehr,
            roles=" ".join(sorted(viewer.roles)),
            who=self.who(viewer),
            sealed=sealed.cipher,
            commitment=sealed.commitment,
            detail=json.dumps(dict(look.detail), sort_keys=True) if look.detail else None,
            until=until if outcome == BROKEN else None,
            at=tx.now,
        )
        for record_id, seen in judged.shown:
            tx.add("access_record", access_id=access_id, record_id=record_id, outcome=seen)
        if outcome == BROKEN:
            tx.add(
                "flag",
                kind="flag",
                reason="break-glass",
                record_id=judged.shown[0][0],
                detail="somebody broke the glass over this patient: read why in `cds ledger report`",
                at=tx.now,
            )
        entry = tx.entry(
            kind,
            actor_of(viewer),
            {
                "act": str(look.act),
                "outcome": outcome,
                "door": viewer.door.value,
                "patients": len(judged.shown),
                "viewer": sealed.commitment.hex(),
                **({"record": look.record} if look.record else {}),
            },
        )
        return entry.seq


def actor_of(viewer: Viewer) -> str:
    """Who acts, as a ledger entry may say it in clear: the EHR, staff, or the user of the machine."""
    if viewer.door is Door.COMMAND:
        return viewer.subject
    return "staff" if viewer.ehr is None else f"ehr:{viewer.ehr}"


def by_command(actor: str) -> Viewer:
    """The user of the machine who runs a command (`opening.actor_of`)."""
    return Viewer(actor, actor.removeprefix("user:"), frozenset[Role](), Door.COMMAND)


def _error(refusal: Refusal) -> NotAllowed | None:
    try:
        check(refusal)
    except NotAllowed as error:
        return error
    return None


def _answer(judged: _Judged, seq: int) -> Seen:
    if judged.error is not None:
        raise judged.error
    return Seen(seq, judged.records, judged.refused, judged.glass)
