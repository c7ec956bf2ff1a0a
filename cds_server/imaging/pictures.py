"""The pictures that go with what was measured: who may see a record may see its pictures, and nobody else.

A picture lies beside the Bundle that it landed with; its Media says its digest, and what is read is held against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from cds_server.store.reads import FOREVER, marks
from cds_server.store.store import Store
from models import strict
from models.errors import RecordUnavailable

SHA_256 = "urn:cds-server:sha-256"


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as its Media describes it."""

    media: str
    """Local id of the Media, by which facts name it (`Fact.derived_from`)."""
    title: str
    note: str
    digest: str
    """SHA-256 hex of the PNG."""
    landing: int
    part: int


def pictures(store: Store, records: Collection[int], as_of: str = FOREVER) -> list[Shown]:
    """The pictures of these patient records, as known then, in the order in which their studies were put together."""
    if not records:
        return []
    landings = [
        row[0]
        for row in store.reads.query(
            "SELECT DISTINCT r.landing_id FROM resource r "
            "LEFT JOIN resource_closing c ON c.resource_id = r.id AND c.known_to <= ? "
            f"WHERE r.record_id IN ({marks(records)}) AND r.type = 'Media' AND r.known_from <= ? AND c.id IS NULL "
            "ORDER BY r.landing_id",
            (as_of, *records, as_of),
        )
    ]
    return [each for landing in landings for each in _of(store, landing)]


def _of(store: Store, landing_id: int) -> list[Shown]:
    """Those of one landing: the first part is the Bundle, the others are the pictures in the order of their Media."""
    landing = store.reads.landing(landing_id)
    if landing is None:
        return []
    bundle = strict.loads(store.part(landing, 0))
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else []
    media = [each["resource"] for each in entries if each["resource"]["resourceType"] == "Media"]
    if len(media) != landing.parts - 1:  # Media of somebody else's making, without pictures of ours
        return []
    return [
        Shown(
            media=each["id"],
            title=each["content"].get("title", ""),
            note=" ".join(note["text"] for note in each.get("note", ())),
            digest=next(one["value"] for one in each["identifier"] if one["system"] == SHA_256),
            landing=landing_id,
            part=part,
        )
        for part, each in enumerate(media, 1)
    ]


def png(store: Store, shown: Shown) -> bytes:
    """The picture. Raises: RecordUnavailable (it is not there, or not the one that its Media describes)."""
    landing = store.reads.landing(shown.landing)
    if landing is None:
        raise RecordUnavailable("the landing of a picture is missing")
    body = store.part(landing, shown.part)
    if hashlib.sha256(body).hexdigest() != shown.digest:
        raise RecordUnavailable("a picture is not the one that its description names", where=f"part {shown.part}")
    return body
