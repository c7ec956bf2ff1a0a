"""One study -> what is made of it: the study itself, findings about its quality, features, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header

Resource = dict[str, Any]
Opener = Callable[[Header], BinaryIO]
"""The object behind a header, as a Part 10 file that can be read and sought in; the caller of it closes it."""


@dataclass(frozen=True, slots=True)
class Looking:
    """What a site wants looked at."""


@dataclass(frozen=True, slots=True)
class Examination:
    resources: list[Resource]
    """The study's own, then what was made of it."""
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    """(local id of its Media, PNG)"""


def examine(
    study: Sequence[Resource], headers: Sequence[Header], open_object: Opener, archive: Archive, looking: Looking
) -> Examination:
    """Everything that is made of a study's images. The same objects and choices give the same bytes."""
    return Examination(list(study))
