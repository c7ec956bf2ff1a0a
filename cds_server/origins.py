"""Where things came from: of a card's facts, source by source, as of when; of a part, the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from adapters.bulk.files import line_of
from cds_server.reading import PartRead
from cds_server.reception import EHR_SOURCE, Landed
from cds_server.store.store import Store
from models.nouns import Fact

_REMEMBERED = 10_000
"""Landings of which it is kept in memory where they came from and when: they never change."""
_OF_PART = {0: "this request", 1: "read for this request"}
"""What a card says of the parts of a call's own landing."""


class Origins:
    """Knows where landings came from, and when."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[str, str, str]] = {}

    def of(self, facts: Iterable[Fact], landed: Landed) -> dict[str, str]:
        """Source -> as of when its data stand: the newest arrival of what these facts rest on.

        What the call restates is of now, wherever it was learnt first.
        """
        newest: dict[str, str] = {}
        restated: dict[str, int] | None = None
        own, received = landed.landing, landed.received
        for fact in facts:
            source = fact.source
            if source.landing == own:
                newest[_OF_PART[source.part]] = received
                continue
            if restated is None:
                restated = _names(landed.brought.parts if landed.brought else ())
            part = restated.get(source.resource) if fact.record == landed.record.ref else None
            if part is not None:
                newest[_OF_PART[part]] = received
                continue
            label, at = self._whence(source.landing, landed.record.namespace)
            newest[label] = max(newest.get(label, ""), at)
        return newest

    def _whence(self, landing: str, namespace: str) -> tuple[str, str]:
        """What a card calls the source of an earlier landing, and when that came."""
        known = self._known.get(landing)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[landing] = self._store.reads.origin(landing) or ("the record", namespace, "")
        source, of, at = known
        label = "earlier requests" if source == EHR_SOURCE else source
        return label if of == namespace else f"{label} of {of}", at


def _names(parts: Sequence[PartRead]) -> dict[str, int]:
    """`Type/id` of each resource that a call states -> the part that states it last."""
    return {
        f"{read.statement.resource_type}/{read.statement.local_id}": part.ordinal
        for part in parts
        for read in part.reads
    }


def place_of(manifest: bytes, part: int | None) -> str | None:
    """`file, line n` of a part of a file of lines, as its landing's manifest knows it."""
    known = json.loads(manifest)
    name = known.get("name") or known.get("file")
    if not isinstance(name, str):
        return None
    if isinstance(known.get("type"), str):
        name = f"{known['type']} file {name}"
    lines = known.get("form") == "ndjson" or "blank_lines" in known
    if part is None or not lines:
        return name
    exact = "blank_lines" in known  # of files from a disk, blank lines are not counted
    return f"{name}, line {line_of(part, known['blank_lines'])}" if exact else f"{name}, line {part + 1} of its content"
