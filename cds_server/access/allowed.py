"""What is allowed now, whoever asks and whatever their role: namespaces, labels, opt-out, broken glass, session age.

Each rule is a pair: `x` answers, `check` raises. Reads only; the record of a look is `log`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cds_server.access.consents import EVERYTHING, denied, denies
from cds_server.ehrs import RESTRICTED
from cds_server.reading import read_part
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models.errors import CdsError, NotAllowed, Unauthenticated
from models.nouns import Fact, Part, instant
from smart_app.desk import Door, Role, Viewer

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a look is not allowed, as a page may say it."""

    why: str
    glass: bool = False
    """Whether breaking the glass lifts it."""


LABELLED = Refusal("this patient's record is marked as restricted", glass=True)
OPTED_OUT = Refusal("this patient has opted out of having their data looked at here", glass=True)
ELSEWHERE = Refusal("this patient's record belongs to an organisation whose data you may not see")


_PATIENT_LABELS = (
    "SELECT r.labels FROM patient_record p JOIN resource r ON r.local_digest = p.local_digest "
    "LEFT JOIN resource_closing c ON c.resource_id = r.id WHERE p.id = ? AND r.labels <> '' AND c.id IS NULL"
)
"""By the digest that a Patient resource shares with its record: not by way of all else that is known of it."""
_CONSENTS = (
    "SELECT r.landing_id, r.part, r.pointer FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
    "WHERE r.record_id = ? AND r.code IS NULL AND r.type = 'Consent' AND c.id IS NULL ORDER BY r.id"
)
_BROKEN = (
    "SELECT a.until, r.record_id FROM access a JOIN access_record r ON r.access_id = a.id "
    "WHERE a.until > ? AND a.who = ?"
)


class Allowed:
    def __init__(self, store: Store, settings: Settings, clock: Clock = utc_now) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    # -- how old a session may be --------------------------------------------------------------------------------------

    def idle_seconds(self, roles: Iterable[Role]) -> int:
        """How long a session of somebody with these roles may lie unused: the shortest of theirs."""
        minutes = self._settings.access.idle_minutes
        return 60 * min((minutes[role] for role in roles), default=min(minutes.values()))

    def check_age(self, roles: Iterable[Role], unused: float) -> None:
        """`unused`: seconds since the session's last request. Errors: Unauthenticated."""
        if unused > self.idle_seconds(roles):
            raise Unauthenticated(cause="the session was not used for too long")

    # -- whose records -------------------------------------------------------------------------------------------------

    def of_person(self, record: RecordRow) -> tuple[RecordRow, ...]:
        """All records of the person behind one."""
        ids = self._store.reads.person(record.id)
        return (record,) if ids == (record.id,) else tuple(self._store.reads.records(ids))

    def sees_namespace(self, viewer: Viewer, namespace: str) -> bool:
        """Whom an EHR vouches for sees what that EHR's calls see; staff and commands see all namespaces."""
        return viewer.ehr is None or namespace == viewer.ehr or namespace in self._settings.ehr(viewer.ehr).sees

    def visible(self, viewer: Viewer, records: Iterable[RecordRow]) -> tuple[RecordRow, ...]:
        return tuple(each for each in records if self.sees_namespace(viewer, each.namespace))

    # -- labels --------------------------------------------------------------------------------------------------------

    def withheld_labels(self, viewer: Viewer) -> frozenset[str]:
        """Labels (meta.security) of what this viewer does not see without breaking the glass."""
        if viewer.door is Door.COMMAND or not viewer.roles.isdisjoint(self._settings.access.restricted_roles):
            return frozenset()
        return RESTRICTED if viewer.ehr is None else self._settings.ehr(viewer.ehr).withhold

    def labels_of(self, record_ids: Sequence[int]) -> frozenset[str]:
        """Labels of the Patient resources themselves: they are labels of the whole record."""
        rows = (self._store.reads.query(_PATIENT_LABELS, (each,)) for each in record_ids)
        return frozenset(label for of in rows for row in of for label in row[0].split())

    # -- a patient's opt-out -------------------------------------------------------------------------------------------

    def denied_purposes(self, record_ids: Sequence[int]) -> frozenset[str]:
        """What the Consents of a person deny now (`consents` has the rule)."""
        rows = (row for each in record_ids for row in self._store.reads.query(_CONSENTS, (each,)))
        return frozenset[str]().union(*(self._denied(*row) for row in rows))

    def opted_out(self, record_ids: Sequence[int], purpose: str = EVERYTHING) -> bool:
        """Whether a person may not be looked at for this purpose; by default, whether they denied anything at all (as
        for a pool of patients that others are compared with)."""
        purposes = self.denied_purposes(record_ids)
        return bool(purposes) if purpose == EVERYTHING else denies(purposes, purpose)

    def _denied(self, landing_id: int, part: int, pointer: str) -> frozenset[str]:
        """Of one Consent. What cannot be read denies everything."""
        landing = self._store.reads.landing(landing_id)
        if landing is None:
            return frozenset({EVERYTHING})
        try:
            body = self._store.part(landing, part)
        except CdsError:
            return frozenset({EVERYTHING})
        read = read_part(Part(landing.ref, part, landing.namespace, landing.media_type, landing.received_at, body))
        for each in read.reads:
            if each.statement.pointer == pointer and each.statement.body is not None:
                return denied(each.statement.body, self.now())
        return frozenset({EVERYTHING})

    # -- broken glass --------------------------------------------------------------------------------------------------

    def glass(self, who: bytes, record_ids: Sequence[int]) -> str | None:
        """Until when this viewer has broken the glass over one of these records; None: it is whole."""
        rows = self._store.reads.query(_BROKEN, (self.now(), who))
        return max((until for until, record_id in rows if record_id in record_ids), default=None)

    # -- all of it -----------------------------------------------------------------------------------------------------

    def refusal(self, viewer: Viewer, record: RecordRow, person: Sequence[RecordRow], purpose: str) -> Refusal | None:
        """Why this viewer may not look at a person for this purpose now, the glass being whole; None: they may."""
        if viewer.door is Door.COMMAND:
            return None
        if not self.sees_namespace(viewer, record.namespace):
            return ELSEWHERE
        ids = [each.id for each in person]
        if not self.labels_of(ids).isdisjoint(self.withheld_labels(viewer)):
            return LABELLED
        if denies(self.denied_purposes(ids), purpose):
            return OPTED_OUT
        return None

    def sees(self, viewer: Viewer, facts: Iterable[Fact], broken: Collection[str] = ()) -> tuple[list[Fact], int]:
        """The facts that a viewer may see, and how many a label withholds. `broken`: records whose glass they broke.
        Test data is left out, uncounted, for whomever an EHR vouches that is none for tests (as for its calls)."""
        withheld = self.withheld_labels(viewer)
        tests = viewer.ehr is None or self._settings.ehr(viewer.ehr).test
        visible: list[Fact] = []
        hidden = 0
        for fact in facts:
            if fact.test and not tests:
                continue
            if fact.labels and fact.record not in broken and not withheld.isdisjoint(fact.labels):
                hidden += 1
            else:
                visible.append(fact)
        return visible, hidden

    def now(self) -> str:
        return instant(self._clock())


def check(refusal: Refusal | None) -> None:
    """Errors: NotAllowed, which knows whether breaking the glass would help."""
    if refusal is not None:
        raise NotAllowed(refusal.why, glass=refusal.glass)
