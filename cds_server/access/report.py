"""What a reviewer asks of the access log (HIPAA 164.308(a)(1)(ii)(D)), and what a patient may ask (164.528).

`review`        top readers, after hours, broken glass, refusals, restricted records
`disclosures`   to whom outside data of one person went: date, recipient, what, what for
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from cds_server.access.allowed import Allowed
from cds_server.access.happenings import HOOK, LOOK, SENT, Happening, Span, calls, looks, sends
from cds_server.access.log import BROKEN, REFUSED, SEEN
from cds_server.access.roles import Act
from cds_server.access.settings import AccessSettings
from cds_server.ehrs import RESTRICTED
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store

MOST = 20
"""Readers of one list."""


@dataclass(slots=True)
class Reader:
    """What one viewer did."""

    name: str
    subject: str
    through: str
    """The EHR that vouches for them, or their door."""
    roles: str
    looks: int = 0
    patients: int = 0
    after_hours: int = 0
    refused: int = 0
    broken: int = 0
    restricted: int = 0
    """Looks at records that are labelled R or V."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The glass was broken."""

    at: str
    seq: int
    name: str
    subject: str
    patient: str
    reason: str
    looks: int
    """What this viewer looked at of this patient as an emergency, in the span."""
    open: bool
    """Nobody has reviewed it yet."""


@dataclass(frozen=True, slots=True)
class Review:
    since: str
    until: str
    looks: int
    people: int
    patients: int
    refused: int
    after_hours: int
    readers: list[Reader] = field(default_factory=list)
    """Most patients first."""
    late: list[Reader] = field(default_factory=list)
    """Most looks after hours first."""
    denied: list[Reader] = field(default_factory=list)
    """Most refusals first."""
    broken: list[Broken] = field(default_factory=list)
    hours: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Disclosure:
    at: str
    seq: int
    to: str
    what: str
    purpose: str


def review(store: Store, settings: AccessSettings, span: Span, allowed: Allowed) -> Review:
    readers: dict[tuple[str, str], Reader] = {}
    seen: dict[tuple[str, str], set[int]] = defaultdict(set)
    emergencies: Counter[tuple[str, str, int]] = Counter()
    glass: list[Happening] = []
    labelled: dict[int, bool] = {}
    total, everybody = 0, set[int]()
    zone = ZoneInfo(settings.timezone)
    for each in looks(store, span):
        if each.act in (Act.SIGN_IN, Act.SIGN_OUT) and each.outcome == SEEN:
            continue
        key = (each.ehr or each.door, each.subject)
        reader = readers.setdefault(key, Reader(each.name, each.subject, key[0], " ".join(each.roles)))
        if each.outcome == BROKEN:
            glass.append(each)
            reader.broken += 1
            continue
        if each.outcome == REFUSED:
            reader.refused += 1
            continue
        total += 1
        reader.looks += 1
        reader.after_hours += after_hours(each.at, settings.after_hours, zone)
        ids = {whose.id for whose in each.whose if whose.outcome == SEEN}
        seen[key] |= ids
        everybody |= ids
        for record in ids:
            if record not in labelled:
                labelled[record] = not allowed.labels_of([record]).isdisjoint(RESTRICTED)
            reader.restricted += labelled[record]
            emergencies[(*key, record)] += each.purpose == "ETREAT"
    for key, reader in readers.items():
        reader.patients = len(seen[key])
    everyone = list(readers.values())
    return Review(
        since=span.since,
        until=span.until,
        looks=total,
        people=len(everyone),
        patients=len(everybody),
        refused=sum(reader.refused for reader in everyone),
        after_hours=sum(reader.after_hours for reader in everyone),
        readers=_top(everyone, "patients", "looks"),
        late=_top(everyone, "after_hours"),
        denied=_top(everyone, "refused"),
        broken=[_broken(store, each, emergencies) for each in glass],
        hours=f"{settings.after_hours[0]:%H:%M}-{settings.after_hours[1]:%H:%M} {settings.timezone}",
    )


def after_hours(at: str, hours: tuple[time, time], zone: ZoneInfo) -> bool:
    """Whether an instant lies in these hours of the day, which may go over midnight."""
    then = datetime.fromisoformat(at).astimezone(zone).time()
    start, end = hours
    return start <= then < end if start <= end else then >= start or then < end


def disclosures(store: Store, record: RecordRow, records: list[int], span: Span) -> list[Disclosure]:
    """Whom data of this person went to outside: receivers of results, EHRs of other namespaces than the record's own
    (their calls, and whom they vouch for), exports. What the record's own organisation saw for treatment is no
    disclosure that has to be accounted for (164.528(a)(1)(i))."""
    of = Span(span.since, span.until, frozenset(records))
    found = [
        Disclosure(each.at, each.seq, _to(each), _what(each), each.purpose)
        for of_kind in (looks, calls, sends)
        for each in of_kind(store, of)
        if each.outcome != REFUSED
        and (
            each.kind == SENT
            or (each.ehr is not None and each.ehr != record.namespace)
            or (each.kind == LOOK and each.act == Act.EXPORT)
        )
    ]
    return sorted(found, key=lambda each: (each.at, each.seq))


def _top(readers: list[Reader], *by: str) -> list[Reader]:
    told = [reader for reader in readers if getattr(reader, by[0]) or (len(by) > 1 and getattr(reader, by[1]))]
    return sorted(told, key=lambda reader: (*(-getattr(reader, name) for name in by), reader.name))[:MOST]


def _broken(store: Store, what: Happening, emergencies: Counter[tuple[str, str, int]]) -> Broken:
    whose = what.whose[0] if what.whose else None
    waiting = store.reads.query(
        "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE f.entry = ? AND f.reason = 'break-glass' AND c.id IS NULL",
        (what.seq,),
    )
    looked = emergencies[(what.ehr or what.door, what.subject, whose.id)] if whose else 0
    patient = whose.ref if whose else ""
    return Broken(what.at, what.seq, what.name, what.subject, patient, what.reason, looked, bool(waiting))


def _to(what: Happening) -> str:
    if what.kind == SENT:
        return what.recipient or ""
    return what.ehr or f"{what.name} ({what.door})"


def _what(what: Happening) -> str:
    if what.kind == HOOK:
        return f"cards of {what.what}"
    return what.what or str(what.detail.get("what") or what.act)
