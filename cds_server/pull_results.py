"""What a job's deliveries came to: faults, counts, who was in a group.

Read from the record, not from memory: a job that was taken up again knows as much as one that ran through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from adapters.bulk.fetching import file_key
from adapters.bulk.lineage import Written
from adapters.bulk.manifest import FileKind, parse
from adapters.sources.fhir_bulk import manifest_key
from cds_server.store.reads import LandingRow, marks
from cds_server.store.store import Store
from cds_server.store.writer import Tx

_MOST_FILES = 1 << 31
_BAD = ("fatal", "error")
_ANYWHERE = "https://relative.invalid/"
"""Links are not followed here: what relative ones are relative to does not matter."""


def landing_of(store: Store, namespace: str, key: bytes) -> LandingRow | None:
    """The landing with this key of the sender."""
    row = store.reads.one("SELECT id FROM landing WHERE dedup = ?", (store.vault.index("landing", namespace, key),))
    return store.reads.landing(row[0]) if row else None


@dataclass(frozen=True, slots=True)
class Delivered:
    """One file of a job: what the manifest of the export calls it, and its landing."""

    kind: FileKind
    type: str | None
    landing: int
    """Row id: the row itself may hold the file's bytes, and there may be tens of thousands."""
    learnt: Mapping[str, Any]
    """Of its landing's manifest: counts, digest, problems."""

    @property
    def name(self) -> str:
        return str(self.learnt.get("name") or f"file {self.learnt.get('file')}")

    @property
    def faults(self) -> list[str]:
        """In our words. Lines that cannot be read are counted by the digest, each with its Flag."""
        found = [str(each) for each in self.learnt.get("problems", [])]
        bad = {name: int(count) for name, count in self.learnt.get("severities", {}).items() if name in _BAD and count}
        if bad:
            told = ", ".join(f"{count} of severity {name}" for name, count in bad.items())
            found.append(f"the server reports errors of the export: {told}")
        return found


def manifests(store: Store, namespace: str, batch: str, pages: int) -> Iterator[tuple[int, LandingRow]]:
    """The pages of a job's manifest that are durable, by their number."""
    for page in range(pages):
        landing = landing_of(store, namespace, manifest_key(batch, page))
        if landing is not None:
            yield page, landing


def deliveries(store: Store, namespace: str, batch: str, pages: int) -> Iterator[Delivered]:
    """The files of a job's kick-off that are durable, in the order of its manifest."""
    for page, manifest in manifests(store, namespace, batch, pages):
        stated = parse(store.part(manifest, 0), _ANYWHERE, most_files=_MOST_FILES)
        for number, entry in enumerate(stated.files):
            landing = landing_of(store, namespace, file_key(batch, page, number))
            if landing is not None:
                learnt = json.loads(store.manifest(landing))
                yield Delivered(entry.kind, entry.type, landing.id, learnt)


@dataclass(slots=True)
class Result:
    """What a job's files say together."""

    files: int = 0
    lines: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    flagged: list[tuple[int | None, str]] = field(default_factory=list)
    written: dict[str, Written] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "lines": self.lines,
            "bytes": self.bytes,
            "faults": self.faults[:100],
            "types": {name: each.rows for name, each in self.written.items()},
        }


def result(store: Store, delivered: Sequence[Delivered], missing: Sequence[str]) -> Result:
    """`missing`: files that could not be had, in our words."""
    found = Result(faults=list(missing), flagged=[(None, each) for each in missing])
    for each in delivered:
        lines, size = int(each.learnt.get("lines", 0)), int(each.learnt.get("bytes", 0))
        found.files += 1
        found.lines += lines
        found.bytes += size
        if each.kind is FileKind.OUTPUT:
            kind = each.type or "any type"
            before = found.written.get(kind, Written(0, 0, 0))
            found.written[kind] = Written(before.rows + lines, before.bytes + size, before.files + 1)
        for fault in each.faults:
            found.faults.append(f"{each.name}: {fault}")
            found.flagged.append((each.landing, fault))
    quarantined = _quarantined(store, [each.landing for each in delivered])
    if quarantined:
        found.faults.append(f"{quarantined} lines could not be read: they are in quarantine")
    return found


def _quarantined(store: Store, landings: Sequence[int]) -> int:
    total = 0
    for chunk in (landings[i : i + 400] for i in range(0, len(landings), 400)):
        rows = store.reads.query(f"SELECT SUM(quarantined) FROM digestion WHERE landing_id IN ({marks(chunk)})", chunk)
        total += int(rows[0][0] or 0)
    return total


def flag(store: Store, job: str, found: Result, actor: str) -> None:
    """A Flag for each fault that is not a line's: once, however often the job is taken up."""
    if not found.flagged:
        return

    def act(tx: Tx) -> None:
        added = 0
        for landing, fault in found.flagged[:1000]:
            detail = f"job {job}: {fault}"
            known = tx.read("SELECT 1 FROM flag WHERE reason = 'bulk-fault' AND detail = ?", (detail,))
            if not known:
                tx.add(
                    "flag",
                    kind="flag",
                    reason="bulk-fault",
                    landing_id=landing,
                    detail=detail,
                    at=tx.now,
                )
                added += 1
        if added:
            tx.entry("flag", actor, {"job": job, "faults": added})

    store.writer.submit(act).result()


def patients(store: Store, delivered: Sequence[Delivered]) -> list[str]:
    """The ids of the Patients that these files state, in order."""
    found: dict[str, None] = {}
    for each in delivered:
        if each.kind is not FileKind.OUTPUT or each.type not in (None, "Patient"):
            continue
        landing = store.reads.landing(each.landing)
        for _, body in store.parts(landing) if landing is not None else ():
            try:
                resource = orjson.loads(body)
            except orjson.JSONDecodeError:
                continue  # in quarantine
            if isinstance(resource, dict) and resource.get("resourceType") == "Patient":
                local_id = resource.get("id")
                if isinstance(local_id, str):
                    found[local_id] = None
    return list(found)


def held(store: Store, source: str) -> dict[str, int]:
    """How many resources of each type a source's deliveries hold open."""
    rows = store.reads.query(
        "SELECT r.type, COUNT(*) FROM resource r JOIN landing l ON l.id = r.landing_id "
        "LEFT JOIN resource_closing c ON c.resource_id = r.id "
        "WHERE l.source = ? AND c.id IS NULL GROUP BY r.type ORDER BY r.type",
        (source,),
    )
    return {row[0]: int(row[1]) for row in rows}
