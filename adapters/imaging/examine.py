"""One study -> what is made of it: the study itself, findings about its quality, features, pictures.

Series by series: quality first, then the regions that were drawn on it, else a stated rule. A series that cannot be
used is a finding, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header
from adapters.imaging.findings import Finding, Verdict, Weight, refused
from adapters.imaging.full_set import FullSet
from adapters.imaging.measuring import DISCRETISATIONS, MIN_VOXELS, measured
from adapters.imaging.observations import (
    Of,
    embedding_of,
    features_of,
    full_set_of,
    media_of,
    quality_of,
    refused_region,
)
from adapters.imaging.pictures import Picture, pictures_of
from adapters.imaging.planes import planes_of
from adapters.imaging.quality import looked_at
from adapters.imaging.regions import Region, by_rule, is_region, refers_to, regions_of
from adapters.imaging.texture import Discretisation
from adapters.imaging.tiles import Encoder, embedding
from adapters.imaging.volume import Volume, volume_of
from models.errors import BadInput

Resource = dict[str, Any]
Opener = Callable[[Header], BinaryIO]
"""The object behind a header, as a Part 10 file that can be read and sought in; the caller of it closes it."""


@dataclass(frozen=True, slots=True)
class Looking:
    """What a site wants looked at."""

    max_voxels: int = 1 << 27
    """Of one series; a voxel takes four bytes, and decoding one slice more."""
    rules: bool = True
    """Whether a series without a drawn region is measured by a rule (the body in CT, the foreground in MR)."""
    pictures: int = 3
    """Of each region, at most."""
    regions: int = 64
    """Of each series, at most; the others are named."""
    discretisation: Discretisation | None = None
    """Instead of the one for the images' scale."""
    encoder: Encoder | None = None
    """A site's own."""
    full: FullSet | None = None
    """Whether the full set of an established package is measured, too."""


@dataclass(frozen=True, slots=True)
class Examination:
    resources: list[Resource]
    """The study's own, then what was made of it."""
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    """(local id of its Media, PNG), in the order of the Media."""
    findings: list[Finding] = field(default_factory=list)


def examine(
    study: Sequence[Resource], headers: Sequence[Header], open_object: Opener, archive: Archive, looking: Looking
) -> Examination:
    """Everything that is made of a study's images. The same objects and choices give the same bytes.

    `study`: Patient, Endpoint and ImagingStudy, as `imaging_study` made them of the same headers; instances that it
    does not list (taken back) are not looked at. Raises: what `open_object` raises; ModelFault of the encoder.
    """
    made = Examination(list(study))
    whole = next((each for each in study if each["resourceType"] == "ImagingStudy"), None)
    if whole is None:
        return made
    listed = {instance["uid"] for row in whole.get("series", []) for instance in row.get("instance", [])}
    held = {header.sop_uid: header for header in headers if header.sop_uid in listed}
    drawn = sorted(filter(is_region, held.values()), key=lambda header: header.sop_uid)
    for row in whole.get("series", []):
        images = [held[each["uid"]] for each in row["instance"] if each["uid"] in held]
        images = [header for header in images if header.image is not None and not is_region(header)]
        if images:
            _Series(Of(whole, images[0], archive), images, drawn, open_object, looking, made).look()
    return made


@dataclass
class _Series:
    """One series, on its way."""

    of: Of
    images: Sequence[Header]
    drawn: Sequence[Header]
    open_object: Opener
    looking: Looking
    made: Examination

    def look(self) -> None:
        quality = looked_at(self.images, lambda: planes_of(self.images, self.open_object), self.looking.max_voxels)
        more: list[Finding] = []
        self.of = Of(self.of.study, self.of.header, self.of.archive, quality.scanners)
        resources: list[Resource] = []
        if quality.verdict is not Verdict.REFUSED:
            try:
                volume = volume_of(quality.planes, quality.step, self.open_object)
            except BadInput as error:
                more.append(refused("unreadable", error.what, error.where or ""))
            except MemoryError:
                more.append(refused("too-large", "not enough memory for the series"))
            else:
                resources = self._measured(volume, more)
        self.made.resources.append(quality_of(self.of, quality, more))
        self.made.resources.extend(resources)
        self.made.findings.extend((*quality.findings, *more))

    def _measured(self, volume: Volume, more: list[Finding]) -> list[Resource]:
        found: list[Resource] = []
        count = 0
        for region in self._regions(volume, more):
            count += 1
            if count > self.looking.regions:
                words = f"more than {self.looking.regions} regions: the others were not measured"
                more.append(Finding("many-regions", words))
                break
            found.extend(self._region(volume, region))
        if not count:
            more.append(Finding("no-region", "no region was drawn, and no rule applies", "", Weight.NOTE))
        return found

    def _regions(self, volume: Volume, more: list[Finding]) -> Iterator[Region]:
        drawn = False
        for header in self.drawn:
            if not refers_to(header, self.of.header.series_uid, volume.grid.frame_of_reference):
                continue
            drawn = True
            try:
                yield from regions_of(header, volume, self.open_object)
            except BadInput as error:
                words = "a segmentation or structure set cannot be read:"
                more.append(Finding("unreadable-region", f"{words} {error.what}", error.where or ""))
        if not drawn and self.looking.rules:
            region = by_rule(volume, self.of.header.series.modality)
            if region is not None:
                yield region

    def _region(self, volume: Volume, region: Region) -> Iterator[Resource]:
        self.made.findings.extend(region.findings)
        if region.empty:
            yield refused_region(self.of, region)
            return
        pictures: list[Picture] = []
        for picture in pictures_of(volume, region, self.looking.pictures):
            pictures.append(picture)
            if picture.id not in {each for each, _ in self.made.pictures}:
                self.made.pictures.append((picture.id, picture.png))
                yield media_of(self.of, region, picture)
        yield features_of(self.of, measured(volume, region, self.looking.discretisation), pictures)
        if self.looking.full is not None and region.mask.sum() >= MIN_VOXELS:
            yield from self._full_set(self.looking.full, volume, region, pictures)
        if self.looking.encoder is not None:
            vector = embedding(volume, region, self.looking.encoder)
            if vector is not None:
                yield embedding_of(self.of, region, self.looking.encoder, vector, pictures)

    def _full_set(
        self, full: FullSet, volume: Volume, region: Region, pictures: Sequence[Picture]
    ) -> Iterator[Resource]:
        how = self.looking.discretisation or DISCRETISATIONS[volume.scale]
        try:
            found = full.measures(
                volume.values[region.box],
                region.mask,
                volume.grid.spacing,
                bins=how.bins,
                width=how.width,
                lowest=how.lowest,
            )
        except BadInput as error:
            self.made.findings.append(Finding("no-full-set", error.what, error.where or "", Weight.NOTE))
            return
        yield full_set_of(self.of, region, full.version, volume.scale, str(how), found, pictures)
