"""What the configuration says about the log: `[ledger]`, `[[witness]]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cds_server.configured import Table
from cds_server.ledger.verifier import WITNESS, Key, Wrong, parse_key
from models.errors import Misconfigured

CHECKPOINT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class WitnessSetting:
    """Another machine that signs the log's heads as it sees them grow."""

    url: str
    """Its submission prefix (c2sp.org/tlog-witness)."""
    key: Key

    @property
    def name(self) -> str:
        return self.key.name


def read_ledger(table: Any, origin: str) -> int:
    """`checkpoint_seconds`. Errors: Misconfigured."""
    if not isinstance(table, dict):
        raise Misconfigured(f"ledger in {origin} is not a table: write [ledger]")
    ledger = Table(table, "[ledger]", origin)
    ledger.known_only(frozenset({"checkpoint_seconds"}))
    return ledger.seconds("checkpoint_seconds", CHECKPOINT_SECONDS, 0, 86_400)


def read_witnesses(tables: Sequence[Mapping[str, Any]], origin: str) -> tuple[WitnessSetting, ...]:
    """Errors: Misconfigured (no URL, a key that is none or not a witness's, two of one name)."""
    found = tuple(_witness(Table(entry, f"[[witness]] number {n}", origin)) for n, entry in enumerate(tables, 1))
    if len({each.name for each in found}) != len(found):
        raise Misconfigured(f"two [[witness]] tables in {origin} have keys of the same name")
    return found


def _witness(table: Table) -> WitnessSetting:
    table.known_only(frozenset({"url", "key"}))
    table.required("url")
    try:
        key = parse_key(table.required("key"))
    except Wrong:
        raise table.wrong("key", "is not what `cds witness` prints: name+hash+base64") from None
    if key.kind != WITNESS:
        raise table.wrong("key", "is the key of a log, not of a witness")
    return WitnessSetting(str(table.url("url")).rstrip("/"), key)
