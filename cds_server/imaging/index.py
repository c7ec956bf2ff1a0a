"""Digesting DICOM objects: what one object says by itself, and its place in the index of studies.

An image says nothing about the record: a study of a thousand would be a thousand versions of one ImagingStudy. It is
indexed, and `studies` puts the study together. Documents (reports, segmentations, PDFs) state what they state at once.
An object is read from its sealed frames and never held whole, unless it is a document.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header, header_of
from adapters.dicom.objects import reading_of
from adapters.dicom.people import patient_id
from cds_server.reading import PartRead, Rules, read_part
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from models.canonical import Noun, spell
from models.errors import BadInput, TooLarge
from models.nouns import Part

if TYPE_CHECKING:
    from cds_server.digest import Reducer

DOCUMENT = 64 << 20
"""Bytes of a document that is read whole."""


class Image(Noun, frozen=True):
    """An object and whose it claims to be."""

    header: Header
    patient: str | None
    """Local id of the patient record; None where it names nobody."""


def archive_of(rules: Rules | None, namespace: str) -> Archive:
    """What the site says of the archive that an object came from."""
    return rules.feed if rules is not None and isinstance(rules.feed, Archive) else Archive(namespace=namespace)


def read_object(store: Store, landing: LandingRow, ordinal: int, rules: Rules | None = None) -> PartRead:
    """One object of a landing. What is wrong with it is the result. Raises: RecordUnavailable (its bytes are gone)."""
    archive = archive_of(rules, landing.namespace)
    image: Image | None = None
    try:
        with store.stream(landing, ordinal) as stream:
            buffered = io.BufferedReader(stream, 1 << 16)
            header = header_of(buffered)
            buffered.detach()  # or its end would close the stream, which is read again below
            image = Image(header, patient_id(header.patient, archive) if header.patient.id is not None else None)
            if reading_of(header.sop_class) is None:
                return PartRead(ordinal, image=image)
            if stream.size > DOCUMENT:
                raise TooLarge(f"a document of more than {DOCUMENT >> 20} MiB")
            stream.seek(0)
            body = stream.read()
    except BadInput as error:
        return PartRead(ordinal, problem=error.what, pointer=error.where, image=image)
    part = Part(landing.ref, ordinal, landing.namespace, landing.media_type, landing.received_at, body)
    return read_part(part, Rules(archive, "")).but(image=image)


def index_image(reducer: Reducer, part: int, image: Image) -> None:
    """The object's row, unless it has one; a Flag where it names no patient, or comes under another's UID."""
    tx, where, header = reducer.tx, reducer.where, image.header
    sop = tx.vault.index("sop", where.namespace, header.sop_uid)
    tx.flush()  # another object of this very act may be under the same UID
    known = tx.read("SELECT landing_id, part FROM dicom_object WHERE sop = ?", (sop,))
    if (where.landing_id, part) in {(row[0], row[1]) for row in known}:
        return
    record = reducer.record(image.patient) if image.patient is not None else None
    if record is None:
        reducer.flag("unmatched", "subject", part, None, "an object without a patient's number (0010,0020)")
        reducer.tally.unmatched += 1
    if known:
        detail = "another object came before under the same SOP Instance UID: this one is kept, and not used"
        reducer.flag("flag", "conflict", part, None, detail, record[0] if record else None)
    tx.add(
        "dicom_object",
        landing_id=where.landing_id,
        part=part,
        record_id=record[0] if record else None,
        namespace=where.namespace,
        study=tx.vault.index("study", where.namespace, header.study_uid),
        series=tx.vault.index("series", where.namespace, header.series_uid),
        sop=sop,
        modality=header.series.modality[:16],
        header=tx.vault.seal_of_record(record[1], spell(header.plain())) if record else None,
        other=bool(known),
    )
