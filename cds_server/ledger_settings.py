"""What the configuration says about the log: `[ledger]`, `[[witness]]`, `[[anchor]]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cds_server.configured import Table
from cds_server.ledger.verifier import WITNESS, Key, Wrong, parse_key
from models.errors import Misconfigured

CHECKPOINT_SECONDS = 10
ANCHOR_KINDS = ("rfc3161", "file", "command")
_ANCHOR_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class WitnessSetting:
    """Another machine that signs the log's heads as it sees them grow."""

    url: str
    """Its submission prefix (c2sp.org/tlog-witness)."""
    key: Key

    @property
    def name(self) -> str:
        return self.key.name


@dataclass(frozen=True, slots=True)
class AnchorSetting:
    """Somebody outside who is given heads of the log (`anchors`)."""

    name: str
    kind: str
    url: str = ""
    """Of a time-stamping authority."""
    ca_file: Path | None = None
    """Certificates by which its stamps are believed."""
    folder: Path | None = None
    command: tuple[str, ...] = ()
    every: int = 3600
    """Seconds between two heads."""
    seconds: int = 20
    """That it is given for an answer."""


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


def read_anchors(tables: Sequence[Mapping[str, Any]], origin: str) -> tuple[AnchorSetting, ...]:
    """Errors: Misconfigured."""
    found = tuple(_anchor(Table(entry, f"[[anchor]] number {n}", origin)) for n, entry in enumerate(tables, 1))
    if len({each.name for each in found}) != len(found):
        raise Misconfigured(f"two [[anchor]] tables in {origin} have the same name")
    return found


def _anchor(table: Table) -> AnchorSetting:
    kind, name = table.required("kind"), table.required("name")
    own = {"rfc3161": {"url", "ca_file"}, "file": {"folder"}, "command": {"command"}}
    if kind not in own:
        raise table.wrong("kind", f"is none of {', '.join(ANCHOR_KINDS)}")
    if not _ANCHOR_NAME.fullmatch(name):
        raise table.wrong("name", "is not 1 to 32 lower-case letters, digits and hyphens")
    table.known_only(frozenset({"name", "kind", "every_seconds", "seconds", *own[kind]}))
    made = AnchorSetting(
        name,
        kind,
        every=table.seconds("every_seconds", 3600, 10, 7 * 86_400),
        seconds=table.seconds("seconds", 20, 1, 300),
    )
    if kind == "rfc3161":
        table.required("url")
        ca = table.text("ca_file")
        if ca is not None and not Path(ca).is_file():
            raise table.wrong("ca_file", "names no file")
        return replace(made, url=str(table.url("url")), ca_file=Path(ca) if ca else None)
    if kind == "file":
        folder = Path(table.required("folder"))
        if not folder.is_dir():
            raise table.wrong("folder", "names no folder")
        return replace(made, folder=folder)
    command = table.texts("command")
    if not command:
        raise table.wrong("command", "is empty: write the program and its arguments")
    return replace(made, command=command)
