"""What a site says of an archive: whose numbers of patients and orders its objects carry, where its clocks stand, under
which URL its objects are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters.hl7v2.feed import Feed


@dataclass(frozen=True, slots=True)
class Archive:
    """One source of DICOM objects. Every field has a default: an object can be read with none of this known."""

    namespace: str = "dicom"
    zone: str | None = None
    """IANA name, for objects without (0008,0201). None: their times are kept as dates."""
    systems: Mapping[str, str] = field(default_factory=dict)
    """Issuer (its name or its universal id) or coding scheme -> URI. The same table as an HL7 v2 feed's, so that one
    assigner's numbers are one system whichever way they come."""
    issuer: str = ""
    """Who issued the patient ids of objects that name nobody (0010,0021): as PID-3.4 would name it."""
    accession_issuer: str = ""
    """The same for accession numbers (0008,0051)."""
    wado_base: str = ""
    """Base URL of the DICOMweb service where the objects are found; empty: no Endpoint is stated."""

    def authority(self, name: str, universal: str = "", kind: str = "") -> str:
        """The URI of an issuer, by the rule for an HD of HL7 v2 (PID-3.4). DICOM's ISO is its OID."""
        return Feed(self.namespace, systems=self.systems).authority(name, universal, kind)

    def local(self, name: str) -> str:
        return Feed(self.namespace).local(name)


DEFAULT = Archive()
