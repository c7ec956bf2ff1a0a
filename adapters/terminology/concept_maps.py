"""A source's local codes in the terms of everybody: ConceptMap files (FHIR R4 JSON) or CSV tables, read once.

CSV: a header, then `source_system,source_code,target_system,target_code,target_display,equivalence`; the last two may
be left out. Only what is said to be the same counts (`equal`, `equivalent`, R4 concept-map-equivalence): a wider or a
narrower code is another statement, and nothing is guessed. Other rows are counted, so that a report can show them.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models import strict
from models.errors import BadInput, Misconfigured
from models.nouns import Coding

SAME = frozenset({"equal", "equivalent"})
_EQUIVALENCES = SAME | {
    "relatedto",
    "wider",
    "subsumes",
    "narrower",
    "specializes",
    "inexact",
    "unmatched",
    "disjoint",
}
_REQUIRED = ("source_system", "source_code", "target_system", "target_code")
_MOST = 64 << 20


class ConceptMaps:
    """Some files together, in the order in which they were named: the first that knows a code is believed."""

    def __init__(self, files: Iterable[tuple[str, bytes]]) -> None:
        """`files`: name and bytes. Errors: Misconfigured, naming the file and the row."""
        digest = hashlib.sha256()
        self._known: dict[tuple[str, str], list[Coding]] = {}
        self.skipped: dict[str, int] = {}
        """File -> rows that say something else than `the same`."""
        for name, body in files:
            digest.update(hashlib.sha256(body).digest())
            found: dict[tuple[str, str], list[Coding]] = {}
            for key, coding, equivalence in _rows(name, body):
                if equivalence in SAME:
                    found.setdefault(key, []).append(coding)
                else:
                    self.skipped[name] = self.skipped.get(name, 0) + 1
            self._known = found | self._known
        self.digest = digest.hexdigest()
        """Of all files: what was read with another one may be read anew."""

    @classmethod
    def read(cls, paths: Sequence[Path]) -> ConceptMaps:
        """Errors: Misconfigured, for a file that cannot be read too."""
        files = []
        for path in paths:
            try:
                body = path.read_bytes()
            except OSError:
                raise Misconfigured(f"the concept map {path.name} cannot be read") from None
            if len(body) > _MOST:
                raise Misconfigured(f"the concept map {path.name} is longer than {_MOST} bytes")
            files.append((path.name, body))
        return cls(files)

    def __len__(self) -> int:
        return len(self._known)

    def codings(self, system: str, code: str) -> Sequence[Coding]:
        """What a code is elsewhere, in the order of the file; none where nobody mapped it. `adapters.hl7v2.feed`."""
        return self._known.get((system, code), ())


def _rows(name: str, body: bytes) -> Iterator[tuple[tuple[str, str], Coding, str]]:
    if name.endswith(".json"):
        yield from _concept_map(name, body)
        return
    if not name.endswith(".csv"):
        raise Misconfigured(f"the concept map {name} is neither .csv nor .json")
    try:
        text = body.decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = table.fieldnames or []
        if lacking := [column for column in _REQUIRED if column not in header]:
            raise Misconfigured(f"the concept map {name} has no column {lacking[0]}")
        for number, row in enumerate(table, 2):
            cells = {column: (row.get(column) or "").strip() for column in header}
            if not cells["source_code"] or not cells["target_system"] or not cells["target_code"]:
                raise Misconfigured(f"row {number} of the concept map {name} lacks a code or a system")
            equivalence = cells.get("equivalence") or "equivalent"
            _check(equivalence, f"row {number} of the concept map {name}")
            coding = Coding(cells["target_system"], cells["target_code"], cells.get("target_display") or None)
            yield (cells["source_system"], cells["source_code"]), coding, equivalence
    except (UnicodeDecodeError, csv.Error):
        raise Misconfigured(f"the concept map {name} is no CSV in UTF-8") from None


def _concept_map(name: str, body: bytes) -> Iterator[tuple[tuple[str, str], Coding, str]]:
    try:
        resource = strict.loads(body)
    except BadInput as error:
        raise Misconfigured(f"the concept map {name} is no JSON: {error.what}") from None
    if not isinstance(resource, Mapping) or resource.get("resourceType") != "ConceptMap":
        raise Misconfigured(f"the concept map {name} is no ConceptMap of FHIR R4")
    for place, group in enumerate(_objects(resource.get("group"))):
        source, target = _text(group.get("source")), _text(group.get("target"))
        for element in _objects(group.get("element")):
            code = _text(element.get("code"))
            for each in _objects(element.get("target")):
                equivalence, to = _text(each.get("equivalence")), _text(each.get("code"))
                _check(equivalence, f"group {place} of the concept map {name}")
                if code and to and target:
                    yield (source, code), Coding(target, to, _text(each.get("display")) or None), equivalence


def _check(equivalence: str, where: str) -> None:
    if equivalence not in _EQUIVALENCES:
        raise Misconfigured(f"{where} states an equivalence that R4 does not have")


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
