"""The objects of one study that are held: for whoever exports them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models.errors import Misconfigured, NotFound, RecordUnavailable

_OBJECTS = "SELECT landing_id, part, record_id FROM dicom_object WHERE study = ? AND other = ? ORDER BY series, sop, id"


@dataclass(frozen=True, slots=True)
class Held:
    """A study: its patient records (one, or nobody's), and what opens each object as a Part 10 file."""

    records: tuple[RecordRow, ...]
    openers: Sequence[Callable[[], BinaryIO]]


class _Object(io.BufferedReader):
    name = ""
    """pydicom asks every BufferedReader for its file's name; this one has no file."""


def study(store: Store, uid: str, namespace: str | None = None) -> Held:
    """All objects of a study, those left out that came under another's UID.

    Errors: NotFound; Misconfigured, where several namespaces hold a study of that UID and none is named.
    """
    namespaces = [row[0] for row in store.reads.query("SELECT DISTINCT namespace FROM dicom_object ORDER BY namespace")]
    found = {}
    for each in namespaces if namespace is None else [namespace]:
        if rows := store.reads.query(_OBJECTS, (store.vault.index("study", each, uid), False)):
            found[each] = rows
    if not found:
        raise NotFound("no object of this study is held", where="--study")
    if len(found) > 1:
        raise Misconfigured(f"several namespaces hold it, name one: {', '.join(found)}", where="--namespace")
    (rows,) = found.values()
    records = store.reads.records({row[2] for row in rows if row[2] is not None})
    return Held(tuple(records), [_opener(store, landing, part) for landing, part, _ in rows])


def _opener(store: Store, landing_id: int, part: int) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        landing = store.reads.landing(landing_id)
        if landing is None:
            raise RecordUnavailable("the landing of an object is missing")
        return _Object(store.stream(landing, part), 1 << 20)

    return opened
