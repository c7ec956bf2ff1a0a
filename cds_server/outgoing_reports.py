"""A result as a DICOM object for one archive: which study it rests on, and whose that is.

The study is found by the facts that were scored: their landings are objects of it, or what was put together from them.
It must be of the very person who was scored, and of the archive's own namespace; else nothing goes out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from adapters.dicom.headers import Header, header_of
from adapters.dicom.library import LISTED
from adapters.dicom.report import SEGMENTATION, Region, Report, Software, compose, uid_from
from adapters.hl7v2.composed import Code, Result, Value
from cds_server import __version__
from cds_server.destinations import Destination
from cds_server.outgoing import Composed, Held
from cds_server.reproduce import Recorded
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models.canonical import reader_of
from models.errors import NotAllowed, RecordUnavailable

MOST = 4000
"""Objects of a study whose headers are opened; a report lists fewer."""
STUDIES = 8
"""Of one result."""
SOFTWARE = Software("cds-server", __version__, "cds-server")
_SEGMENT = re.compile(r"/00620002/(\d+)")
_header = reader_of(Header)


def report_of(
    store: Store,
    destination: Destination,
    recorded: Recorded,
    person: Sequence[RecordRow],
    result: Result,
    earlier: Sequence[bytes],
) -> Composed | Held | None:
    """The object; None where the score rests on no study. Raises: BadInput, RecordUnavailable and their kinds."""
    own = next(iter(store.reads.query("SELECT record_id FROM inference WHERE id = ?", (recorded.id,))))[0]
    studies = _studies(store, recorded)
    if not studies:
        return None
    if any(namespace != destination.namespace for namespace, _ in studies):
        return Held(f"the study that it rests on is not of the namespace {destination.namespace}", own)
    known = {each.id: each for each in person}
    rows = [row for _, study in studies for row in _objects(store, study)]
    owners = {row[0] for row in rows}
    if not owners <= set(known):
        return Held("the study that it rests on is another patient's, or nobody's", own)
    headers = [_opened(store, row) for row in rows]
    report = Report(
        result=result,
        sources=tuple(each for each in headers if not _ours(each)),
        software=SOFTWARE,
        uid_of=lambda *words: uid_from(store.vault.index("uid", destination.name, *words)),
        contributions=tuple(_contributions(recorded)),
        parameters=(f"inference {recorded.ref}", f"model digest {recorded.model_digest}"),
        region=_region(store, recorded, headers),
        earlier=tuple(header_of(each) for each in earlier),
        conducted="research" if destination.production else "test",
    )
    try:
        made = compose(report)
    except NotAllowed as error:
        return Held(error.what, own)
    return Composed(made, known[rows[0][0]].ref, binary=True)


def _studies(store: Store, recorded: Recorded) -> list[tuple[str, bytes]]:
    """(namespace, keyed study), the one that came last first."""
    found: dict[bytes, tuple[int, str]] = {}
    for ref in dict.fromkeys(fact.source.landing for fact in recorded.snapshot.facts):
        for study, namespace, last in store.reads.query(
            "SELECT o.study, o.namespace, MAX(o.id) FROM dicom_object o WHERE o.study IN ("
            "SELECT d.study FROM dicom_object d JOIN landing l ON l.id = d.landing_id WHERE l.ref = ? "
            "UNION SELECT e.study FROM examined_study e JOIN landing l ON l.id = e.landing_id WHERE l.ref = ?) "
            "GROUP BY o.study, o.namespace",
            (ref, ref),
        ):
            found[bytes(study)] = (int(last), str(namespace))
    newest = sorted(found.items(), key=lambda each: each[1], reverse=True)
    return [(namespace, study) for study, (_, namespace) in newest[:STUDIES]]


def _objects(store: Store, study: bytes) -> list[Any]:
    """(record, reference of it, sealed header) of the objects that are used; of a long series some, evenly, and its
    last one."""
    return list(
        store.reads.query(
            "SELECT o.record_id, r.ref, o.header FROM (SELECT id, record_id, header, "
            "ROW_NUMBER() OVER (PARTITION BY series ORDER BY id) AS place, "
            "COUNT(*) OVER (PARTITION BY series) AS many FROM dicom_object WHERE study = ? AND NOT other) o "
            "LEFT JOIN patient_record r ON r.id = o.record_id "
            "WHERE o.place = o.many OR (o.place - 1) / (1 + o.many / ?) * (1 + o.many / ?) = o.place - 1 "
            "ORDER BY o.id LIMIT ?",
            (study, LISTED, LISTED, MOST),
        )
    )


def _opened(store: Store, row: Any) -> Header:
    if row[2] is None:
        raise RecordUnavailable("an object of the study has no header")
    return _header(store.vault.open_of_record(row[1], bytes(row[2])))


def _ours(header: Header) -> bool:
    """What we sent ourselves, and the archive gave back: a result does not rest on a result."""
    return header.scanner.manufacturer == SOFTWARE.manufacturer and header.scanner.model == SOFTWARE.name


def _region(store: Store, recorded: Recorded, headers: Sequence[Header]) -> Region | None:
    """The segment that was measured, where the facts that were scored are of one segment of one segmentation.

    Segments are numbered from 1 in their order (PS3.3 C.8.20.4), but for label maps.
    """
    found: set[tuple[str, int]] = set()
    for fact in recorded.snapshot.facts:
        if (segment := _SEGMENT.match(fact.source.pointer)) is None:
            continue
        for sealed, record in store.reads.query(
            "SELECT o.header, r.ref FROM dicom_object o JOIN landing l ON l.id = o.landing_id "
            "JOIN patient_record r ON r.id = o.record_id WHERE l.ref = ? AND o.part = ? AND NOT o.other",
            (fact.source.landing, fact.source.part),
        ):
            header = _header(store.vault.open_of_record(record, bytes(sealed)))
            if header.sop_class == SEGMENTATION:
                found.add((header.sop_uid, int(segment[1]) + 1))
    if len(found) != 1:
        return None
    ((uid, number),) = found
    return next((Region(each, number) for each in headers if each.sop_uid == uid), None)


def _contributions(recorded: Recorded) -> list[Value]:
    """What each modality added to the logit, where the score says so."""
    model = recorded.model.partition("@")[0]
    rows = recorded.plain()["score"].get("contributions") or ()
    return [
        Value(
            Code(f"{model}.contribution.{each['modality']}", f"Contribution of {each['modality']} (logit)"),
            number=float(each["amount"]),
            unit="1",
        )
        for each in rows
    ]
