"""What a source's configuration says of its HL7 v2 messages: names, zone, code systems, policies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from models.nouns import Coding

_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class CodeMaps(Protocol):
    """The port behind which a source's code maps stand (CSV files, ConceptMaps)."""

    def codings(self, system: str, code: str) -> Sequence[Coding]:
        """What `code` of `system` is in other code systems, best first; empty where nobody mapped it.

        `system` is the URI that the reader gives it: a standard one, or `urn:id:<feed>:<name>`; empty where the message
        named none. Pure: the same answer as long as the map's version is the same.
        """


class NoMaps:
    """No map at all."""

    def codings(self, system: str, code: str) -> Sequence[Coding]:
        return ()


@dataclass(frozen=True, slots=True)
class Feed:
    """One source of messages. Every field has a default: a message can be read with none of this known."""

    namespace: str = "hl7v2"
    charset: str | None = None
    """Of messages whose MSH-18 is empty; None: UTF-8, else cp1252."""
    zone: str | None = None
    """IANA name, for times without an offset. None: such a time is kept as a date."""
    systems: Mapping[str, str] = field(default_factory=dict)
    """Assigning authority (namespace id or universal id), or name of a code system -> URI."""
    maps: CodeMaps = field(default_factory=NoMaps)
    patient_types: tuple[str, ...] = ("MR", "PI")
    """Types (table 0203) of the identifier in PID-3 that names the record, the first one that is there; else the first
    identifier of all."""
    unit_system: str = "http://unitsofmeasure.org"
    """What OBX-6 is written in where it names no system (2.7 and later ask for UCUM); empty: nothing is assumed."""
    accept_claims: bool = False
    """Whether diagnoses and procedures of DFT and BAR are taken, as evidence of claims; else they say nothing."""
    groups: str = "snapshot"
    """AL1, DG1 and PR1 of ADT: `snapshot`, those of a message replace the ones before (2.10.4.1); `add`, they come
    besides them, for senders that repeat only what is new."""

    def authority(self, name: str, universal_id: str = "", kind: str = "") -> str:
        """The URI of an assigning authority (HD): as configured, by its OID or UUID, else `urn:id:<feed>:<name>`."""
        for key in (name, universal_id):
            if key and key in self.systems:
                return self.systems[key]
        if universal_id:
            if _OID.fullmatch(universal_id):
                return f"urn:oid:{universal_id}"
            if _UUID.fullmatch(universal_id):
                return f"urn:uuid:{universal_id.lower()}"
            if kind == "URI" and ":" in universal_id and not any(c.isspace() for c in universal_id):
                return universal_id
        if name and _OID.fullmatch(name) and name.count(".") > 2:
            return f"urn:oid:{name}"
        return self.local(name or universal_id)

    def local(self, name: str) -> str:
        """A URI below this feed, for what only its sender names."""
        return f"urn:id:{quote(self.namespace, safe='')}:{quote(name, safe='')}"


DEFAULT = Feed()
