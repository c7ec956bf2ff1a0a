"""What a site wants made of the studies of a source: keys of its `[[source]]`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.imaging import full_set
from adapters.imaging.examine import Looking
from adapters.imaging.full_set import FullSet
from cds_server.configured import Table
from cds_server.dicom_archives import KINDS
from cds_server.settings import Settings, SourceSetting
from models import encoders
from models.errors import CdsError, Misconfigured

MOST_VOXELS = 1 << 30


def looking_of(source: SourceSetting, settings: Settings) -> Looking:
    """Raises: Misconfigured, one sentence that names the key and the file."""
    table, plain = Table(source.options, f"[[source]] {source.name!r}", settings.origin), Looking()
    encoder = None
    if (path := table.text("encoder")) is not None:
        try:
            encoder = encoders.load(Path(path))
        except (CdsError, OSError) as error:
            what = error.what if isinstance(error, CdsError) else "it cannot be read"
            raise table.wrong("encoder", f"names no encoder: {what}") from None
    return Looking(
        max_voxels=table.whole("max_voxels", plain.max_voxels, 1, MOST_VOXELS),
        rules=table.flag("regions_by_rule") if "regions_by_rule" in table.entries else plain.rules,
        pictures=table.whole("key_pictures", plain.pictures, 0, 32),
        encoder=encoder,
        full=_full_set(table),
    )


def _full_set(table: Table) -> FullSet | None:
    if not table.flag("radiomics"):
        return None
    try:
        return full_set.load()
    except Misconfigured as error:
        raise table.wrong("radiomics", f"cannot be had: {error.what}") from None


def choices(settings: Settings) -> Mapping[str, Looking]:
    """By name of the source. Raises: Misconfigured."""
    return {each.name: looking_of(each, settings) for each in settings.sources if each.kind.startswith(KINDS)}
