"""What a full export no longer holds is no longer known, within bounds.

A server may leave deletions untold (Bulk Data 2.0.0, 2.5.4: a deleted file MAY be missing), so now and then
everything is pulled, and what this source said before and the export lacks is closed. Never what is not the export's to
say: types with a filter, patients who left the group, what came by another way or after the kick-off. And never much at
once: a server that loses half a type has a fault, and a person must look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson

from cds_server.digest import Open, Reducer, where_of
from cds_server.store.reads import LandingRow, marks
from cds_server.store.store import Store
from cds_server.store.writer import Tx

CAUSE = "not in the full export"
FEW = 20
"""So many of a type may always be closed: a percentage of little says nothing."""
_ACT = 100
_PAGE = 5000


@dataclass(slots=True)
class Reconciled:
    closed: int = 0
    held_back: dict[str, int] = field(default_factory=dict)
    """Type -> how many would have been closed, were that not too many."""


@dataclass(frozen=True, slots=True)
class _Held:
    id: int
    local: bytes
    type: str
    record_id: int | None
    known_from: str


def reconcile(
    store: Store,
    source: str,
    landings: Iterable[LandingRow],
    *,
    before: str,
    types: Sequence[str],
    filtered: frozenset[str],
    members_only: bool,
    most: int,
    joining: frozenset[str],
    actor: str,
) -> Reconciled:
    """Close what `source` said before the instant `before` and what these landings, a whole full export, do not say.

    `types`: that were asked for; none: all. `filtered`: types of which only a part was asked for. `members_only`: only
    of patients who are in the export. `most`: percent of a type that may be closed; of an export without a single file,
    nothing is.
    """
    if not next(iter(_open_versions(store, source, before)), None):
        return Reconciled()  # the first export of all: there is nothing that it could lack
    said, members, last = _said(store, landings)
    missing: dict[str, list[_Held]] = {}
    held: dict[str, int] = {}
    for one in _open_versions(store, source, before):
        if (types and one.type not in types) or one.type in filtered:
            continue
        held[one.type] = held.get(one.type, 0) + 1
        if not _within(said, one.local):
            missing.setdefault(one.type, []).append(one)
    if members_only:
        ours = _records(store, members)
        missing = {kind: [one for one in found if one.record_id in ours] for kind, found in missing.items()}
    outcome = Reconciled()
    for kind, found in missing.items():
        if last is None or (len(found) > FEW and len(found) * 100 > most * held[kind]):
            outcome.held_back[kind] = len(found)
            continue
        for chunk in (found[i : i + _ACT] for i in range(0, len(found), _ACT)):
            outcome.closed += _close(store, last, chunk, joining, actor)
    return outcome


def _said(store: Store, landings: Iterable[LandingRow]) -> tuple[np.ndarray, list[bytes], LandingRow | None]:
    """What the export names, as the first eight bytes of the keyed digests of type and id, sorted; its patients; its
    last landing.

    Eight bytes each keep a population of millions in memory. Two that are alike leave a resource open, never the other
    way round.
    """
    found: list[np.ndarray] = []
    patients: list[bytes] = []
    last: LandingRow | None = None
    for landing in landings:
        last = landing
        digests: list[bytes] = []
        for _, body in store.parts(landing):
            try:
                resource = orjson.loads(body)
                kind, local_id = resource["resourceType"], resource["id"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue
            digest = store.vault.index("local", landing.namespace, str(kind), str(local_id))
            digests.append(digest[:8])
            if kind == "Patient":
                patients.append(digest)
        if digests:
            found.append(np.frombuffer(b"".join(digests), dtype=">u8"))
    said = np.unique(np.concatenate(found)) if found else np.array([], dtype=">u8")
    return said, patients, last


def _within(said: np.ndarray, local: bytes) -> bool:
    value = np.frombuffer(local[:8], dtype=">u8")[0]
    place = int(np.searchsorted(said, value))
    return place < len(said) and said[place] == value


def _open_versions(store: Store, source: str, before: str) -> Iterable[_Held]:
    last = 0
    while True:
        rows = store.reads.query(
            "SELECT r.id, r.local_digest, r.type, r.record_id, r.known_from FROM resource r "
            "JOIN landing l ON l.id = r.landing_id LEFT JOIN resource_closing c ON c.resource_id = r.id "
            "WHERE r.id > ? AND l.source = ? AND r.known_from < ? AND c.id IS NULL ORDER BY r.id LIMIT ?",
            (last, source, before, _PAGE),
        )
        yield from (_Held(row[0], bytes(row[1]), row[2], row[3], row[4]) for row in rows)
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]


def _records(store: Store, patients: Sequence[bytes]) -> frozenset[int]:
    found: set[int] = set()
    for chunk in (patients[i : i + 400] for i in range(0, len(patients), 400)):
        rows = store.reads.query(f"SELECT id FROM patient_record WHERE local_digest IN ({marks(chunk)})", chunk)
        found.update(row[0] for row in rows)
    return frozenset(found)


def _close(store: Store, landing: LandingRow, chunk: Sequence[_Held], joining: frozenset[str], actor: str) -> int:
    """One act over some versions; those that another act closed meanwhile are left."""

    def act(tx: Tx) -> int:
        ids = [one.id for one in chunk]
        closed = {
            row[0]
            for row in tx.read(
                f"SELECT resource_id FROM resource_closing WHERE resource_id IN ({marks(ids)})", tuple(ids)
            )
        }
        reducer = Reducer(tx, where_of(landing), joining)
        for one in chunk:
            if one.id not in closed:
                reducer.versions[one.local] = Open(one.id, b"", one.record_id, one.known_from)
                reducer.void(one.type, one.local, CAUSE)
        if reducer.tally.voided:
            tx.entry("reconcile", actor, {"landing": landing.ref, "closed": reducer.tally.voided})
        return reducer.tally.voided

    return store.writer.submit(act).result()
