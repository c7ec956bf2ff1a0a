"""Putting studies together: what is held of a study becomes ImagingStudy, findings about its quality, features and
pictures, as a landing of its own, once nothing more has come for a while or its pull has ended.

A study that grows is put together again: its resources have the same ids, so what was known is superseded, and what was
scored on it is flagged by the rules for every correction (`recalls`). The same objects give the same bytes, and these
land once.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header
from adapters.dicom.study import bundle_of, imaging_study
from adapters.imaging.examine import Examination, Looking, Resource, examine
from adapters.readers.examination import MEDIA_TYPE
from cds_server.imaging.index import archive_of
from cds_server.imaging.pulled import Brought
from cds_server.intake import add_landing
from cds_server.reading import SourceRules
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.canonical import canonical, reader_of
from models.errors import BadInput, RecordUnavailable
from models.nouns import LandingMeta


@dataclass(frozen=True, slots=True)
class Held:
    """One object of a study."""

    id: int
    landing_id: int
    part: int
    record_id: int | None
    header: Header | None


class Settling:
    """Which studies have something new, and for how long nothing more came."""

    def __init__(self, store: Store, quiet: float, by_source: Mapping[str, float]) -> None:
        """`quiet`: seconds, of sources that do not stand in `by_source`."""
        self._store, self._quiet, self._by_source = store, quiet, by_source
        self._cursor = 0
        self._pending: dict[bytes, float] = {}
        """Study -> the moment from which on it has settled."""

    def look(self) -> None:
        """Take note of what was indexed since the last look."""
        if not self._cursor:
            rows = self._store.reads.query(
                "SELECT o.study, MAX(o.id), MAX(l.source) FROM dicom_object o JOIN landing l ON l.id = o.landing_id "
                "LEFT JOIN (SELECT study, MAX(up_to) AS up_to FROM examined_study GROUP BY study) e "
                "ON e.study = o.study GROUP BY o.study, e.up_to HAVING e.up_to IS NULL OR MAX(o.id) > e.up_to",
            )
            newest = self._store.reads.one("SELECT MAX(id) FROM dicom_object")
            self._cursor = int(newest[0] or 0) if newest else 0
        else:
            rows = self._store.reads.query(
                "SELECT o.study, MAX(o.id), MAX(l.source) FROM dicom_object o JOIN landing l ON l.id = o.landing_id "
                "WHERE o.id > ? GROUP BY o.study",
                (self._cursor,),
            )
            self._cursor = max((row[1] for row in rows), default=self._cursor)
        now = time.monotonic()
        for row in rows:
            self._pending[bytes(row[0])] = now + self._by_source.get(row[2], self._quiet)

    def due(self, *, everything: bool = False) -> list[bytes]:
        """Studies for which nothing came for long enough; each is given once."""
        now = time.monotonic()
        found = [study for study, at in self._pending.items() if everything or at <= now]
        for study in found:
            del self._pending[study]
        return found

    def settle(self, study: bytes) -> None:
        """Nothing more is to be expected: its pull has ended."""
        if study in self._pending:
            self._pending[study] = float("-inf")


def put_together(
    store: Store, study: bytes, brought: Brought | None, rules: SourceRules, looking: Mapping[str, Looking], actor: str
) -> str | None:
    """Put one study together and land what came of it; gives the outcome, None where nothing is new. `brought`: what
    the last pull said of it.

    The landing and the row that says up to where the study was seen are one act: a process that is killed before it
    leaves a study that is still due.
    """
    held = list(_held(store, study))
    seen = store.reads.one("SELECT MAX(up_to) FROM examined_study WHERE study = ?", (study,))
    if not held or (seen is not None and (seen[0] or 0) >= held[-1].id):
        return None
    first = store.reads.landing(held[0].landing_id)
    if first is None:
        return None
    archive = archive_of(rules.get(first.source), first.namespace)
    made, detail = _made(store, held, archive, looking.get(first.source) or Looking())
    if made is not None and brought is not None and not brought.complete:
        _note(made.resources, f"the archive has {brought.missing} objects of this study that it did not send")
    return _land(store, study, held, first, made, detail, brought, actor)


def _note(resources: list[Resource], words: str) -> None:
    for each in resources:
        if each["resourceType"] == "ImagingStudy":
            each.setdefault("note", []).append({"text": words})


def _made(store: Store, held: list[Held], archive: Archive, looking: Looking) -> tuple[Examination | None, str | None]:
    """What came of a study; or why nothing did."""
    headers = [each.header for each in held if each.header is not None]
    if len(headers) < len(held):
        return None, "objects of the study name no patient (0010,0020)"
    place = {each.header.sop_uid: each for each in held if each.header is not None}
    try:
        study = imaging_study(headers, archive)
        return examine(study, headers, lambda header: _opened(store, place[header.sop_uid]), archive, looking), None
    except BadInput as error:
        return None, f"{error.what} {error.where or ''}".strip()


def _opened(store: Store, each: Held) -> BinaryIO:
    landing = store.reads.landing(each.landing_id)
    if landing is None:
        raise RecordUnavailable("the landing of an object is missing")
    return io.BufferedReader(store.stream(landing, each.part), 1 << 18)


def _held(store: Store, study: bytes) -> Iterator[Held]:
    """The objects of a study that are used, in the order in which they were indexed."""
    rows = store.reads.query(
        "SELECT o.id, o.landing_id, o.part, o.record_id, o.header, r.ref FROM dicom_object o "
        "LEFT JOIN patient_record r ON r.id = o.record_id WHERE o.study = ? AND NOT o.other ORDER BY o.id",
        (study,),
    )
    for row in rows:
        header = store.vault.open_of_record(row[5], bytes(row[4])) if row[4] is not None else None
        yield Held(row[0], row[1], row[2], row[3], _header(header) if header is not None else None)


_header = reader_of(Header)


def _land(
    store: Store,
    study: bytes,
    held: list[Held],
    first: LandingRow,
    made: Examination | None,
    detail: str | None,
    brought: Brought | None,
    actor: str,
) -> str:
    """The landing of what was made, and the row that says so."""
    pack = store.pack_writer()
    ref = pack.landing
    for part in (canonical(bundle_of(made.resources)), *(png for _, png in made.pictures)) if made is not None else ():
        pack.write(part)
        pack.end_part()
    inline, file = pack.settle(store.data_dir / "blobs") if made is not None else (None, None)
    records = {each.record_id for each in held}
    record = next(iter(records)) if len(records) == 1 else None
    outcome = "refused" if made is None else "examined"

    def act(tx: Tx) -> bool:
        """Whether the landing is new."""
        landing_id, fresh = None, False
        if made is not None:
            dedup = tx.vault.index("landing", first.namespace, pack.content)
            known = tx.read("SELECT id FROM landing WHERE dedup = ?", (dedup,))
            fresh = not known
            meta = LandingMeta(first.source, first.namespace, MEDIA_TYPE, tx.now)
            landing_id = known[0][0] if known else add_landing(tx, meta, pack, inline, file, dedup)
        else:
            tx.add(
                "flag",
                kind="unmatched" if len(records) > 1 else "quarantine",
                reason="study",
                landing_id=held[-1].landing_id,
                part=held[-1].part,
                record_id=record,
                detail=detail,
                at=tx.now,
            )
        tx.add(
            "examined_study",
            study=study,
            record_id=record,
            up_to=held[-1].id,
            objects=len(held),
            complete=brought.complete if brought is not None else None,
            outcome=outcome,
            landing_id=landing_id,
            detail=detail,
            at=tx.now,
        )
        detailed = {"landing": ref} if fresh else {}
        tx.entry("study", actor, {"outcome": outcome, "objects": len(held), **detailed})
        return fresh

    if not store.writer.submit(act, keys=pack.keys).result() and file is not None:
        (store.data_dir / "blobs" / file).unlink(missing_ok=True)
    return outcome
