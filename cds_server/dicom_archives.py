"""What a `[[source]]` of DICOM objects says of its archive: whose numbers they carry, and where its clocks stand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict

from adapters.dicom.archive import Archive
from cds_server.configured import Table, reachable
from cds_server.feeds import systems_of, zone_of
from cds_server.reading import Rules, SourceRules
from cds_server.settings import Settings, SourceSetting
from models.canonical import canonical

QUIET = 60
"""Seconds without anything new after which a study is taken for settled (D13)."""
LOOKING = frozenset({"regions_by_rule", "key_pictures", "max_voxels", "encoder", "radiomics"})
"""What is made of its studies (`imaging.choices`)."""
KEYS = frozenset({"issuer", "accession_issuer", "zone", "systems", "wado_base", "quiet_seconds"}) | LOOKING
"""Keys of every `[[source]]` whose kind begins with `dicom`, beside its own."""
KINDS = "dicom"


def archive_of(source: SourceSetting, settings: Settings) -> Archive:
    """Raises: Misconfigured, one sentence that names the key and the file."""
    table = Table(source.options, f"[[source]] {source.name!r}", settings.origin)
    base = table.text("wado_base") or ""
    if base and not reachable(base):
        raise table.wrong("wado_base", "is not an https URL (http only on loopback)")
    return Archive(
        namespace=source.namespace,
        zone=zone_of(table),
        systems=systems_of(table),
        issuer=table.text("issuer") or "",
        accession_issuer=table.text("accession_issuer") or "",
        wado_base=base.rstrip("/"),
    )


def rules_of(settings: Settings) -> SourceRules:
    """How the objects of each archive are read. Raises: Misconfigured."""
    archives = {each.name: archive_of(each, settings) for each in settings.sources if each.kind.startswith(KINDS)}
    return {name: Rules(of, hashlib.sha256(canonical(asdict(of))).hexdigest()) for name, of in archives.items()}


def quiet_of(settings: Settings) -> Mapping[str, float]:
    """Name of a source -> seconds after which a study from it has settled. Raises: Misconfigured."""
    return {
        each.name: float(
            Table(each.options, f"[[source]] {each.name!r}", settings.origin).seconds("quiet_seconds", QUIET, 1, 86_400)
        )
        for each in settings.sources
        if each.kind.startswith(KINDS)
    }
