"""An archive as a site configures it: where it is, under which names the two of us speak, and what it does otherwise
than the standard lets one hope. Data, one named switch each: the flow asks a switch, never a vendor's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, time, timedelta, tzinfo
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from models.errors import Misconfigured

_AE_TITLE = re.compile(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )")
"""PS3.5, 6.2: at most 16 characters, no backslash, no control character; blanks at its ends do not count."""
_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


class Root(StrEnum):
    """The information model of the questions (PS3.4, C.3)."""

    PATIENT = "patient"
    STUDY = "study"


class Moves(StrEnum):
    SYNC = "sync"
    """The final response comes when the archive has sent (PS3.4, C.4.2.3)."""
    ASYNC = "async"
    """It comes at once, and says nothing about what is sent afterwards."""


class Retrieve(StrEnum):
    MOVE = "move"
    """The archive connects to our storage."""
    GET = "get"
    """Everything comes over the connection that we opened: where nobody can connect to us."""


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), from the top."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def depth(self) -> int:
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    connect: float = 10.0
    accept: float = 30.0
    """From our A-ASSOCIATE-RQ to its answer, and for the release (ACSE)."""
    answer: float = 60.0
    """Between two responses to a C-ECHO or C-FIND."""
    stall: float = 300.0
    """A retrieval without a response and without an arrival. A response that says no more than "pending" counts: an
    archive that fetches from tape says nothing else. The DIMSE timeout of 30 s that is usual cuts such moves off."""
    idle_pendings: float = 3600.0
    """A retrieval whose responses go on, while their counts stand still and nothing arrives."""
    longest: float = 6 * 3600.0
    """One retrieval, whatever it says."""
    settle: float = 3.0
    """After the last final response, until nothing more has come for that long: stores may come after it (D10)."""
    settle_async: float = 60.0
    """The same where the archive answers first and sends afterwards."""
    cancel: float = 10.0
    """From our C-CANCEL to the end, which may be late: hundreds of responses have come after one."""


@dataclass(frozen=True, slots=True)
class PeerTls:
    """Whom we believe, and who we are (PS3.15, B: BCP 195)."""

    ca_file: Path | None = None
    """None: the system's authorities."""
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None
    """The name in its certificate, where it is not `host`."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """The switches; their defaults are an archive that keeps to PS3.4."""

    most_matches: int = 0
    """It cuts a longer answer off, silently or by A700 (out of resources); 0: no such limit is known."""
    uid_lists: bool = True
    """It takes a list of UIDs in one request (PS3.4, C.2.2.2.2)."""
    start_at: str = "study"
    """What is asked for first. `series` or `image` where one object that cannot be sent fails its whole study."""
    charset: str = ""
    """Of answers that name no Specific Character Set though they carry text of one."""
    ask_in: str = "ISO_IR 192"
    """The character set that questions are asked in, where ASCII does not do."""
    image_counts: bool = True
    """It can say how many instances a study has (0020,1208)."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Switch -> where its value is known from."""


QUIRKS: Mapping[str, Quirks] = MappingProxyType(
    {
        "generic": Quirks(),
        "orthanc": Quirks(
            sources={"start_at": "Orthanc 1.10.1: a move ends with C000 at the first object that it cannot transcode"}
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the day at which retrievals may begin; one that ends before it begins reaches over midnight."""

    begins: time
    ends: time

    @classmethod
    def read(cls, text: str) -> Window:
        """`22:00-06:00`. Raises Misconfigured."""
        found = _WINDOW.fullmatch(text)
        if found is None or found[1] + found[2] == found[3] + found[4]:
            raise Misconfigured("is not a span of hours as 22:00-06:00")
        begin, end = (time(int(found[at]), int(found[at + 1])) for at in (1, 3))
        return cls(begin, end)

    def holds(self, moment: time) -> bool:
        if self.begins < self.ends:
            return self.begins <= moment < self.ends
        return moment >= self.begins or moment < self.ends


@dataclass(frozen=True, slots=True)
class DicomPeer:
    """One archive. `destination`: the AE title that its C-MOVE sends to; it knows that title's address, we do not."""

    name: str
    host: str
    port: int
    ae_title: str
    our_ae_title: str
    root: Root = Root.STUDY
    moves: Moves = Moves.SYNC
    retrieve: Retrieve = Retrieve.MOVE
    destination: str = ""
    tls: PeerTls | None = None
    max_pdu: int = 131_072
    """Bytes that we take in one P-DATA; 0: as many as come."""
    timeouts: Timeouts = Timeouts()
    concurrency: int = 1
    """Retrievals at a time: they are heavy for an archive."""
    windows: tuple[Window, ...] = ()
    """When retrievals may begin; none: at any time."""
    quirks: Quirks = Quirks()

    def __post_init__(self) -> None:
        named = {"ae_title": self.ae_title, "our_ae_title": self.our_ae_title}
        if self.retrieve is Retrieve.MOVE or self.destination:
            named["destination"] = self.destination
        for key, title in named.items():
            if not _AE_TITLE.fullmatch(title):
                raise Misconfigured("is no AE title: 1 to 16 characters of ASCII, no backslash", where=key)
        if not 0 < self.port <= 65_535:
            raise Misconfigured("is no port", where="port")

    def open_at(self, moment: datetime) -> bool:
        """Whether a retrieval may begin (`moment` in the site's zone)."""
        return not self.windows or any(each.holds(moment.time()) for each in self.windows)

    def opens_in(self, moment: datetime, zone: tzinfo | None = None) -> float:
        """Seconds until a retrieval may begin; 0: now."""
        local = moment.astimezone(zone) if zone else moment
        if self.open_at(local):
            return 0.0
        waits = []
        for each in self.windows:
            opening = local.replace(hour=each.begins.hour, minute=each.begins.minute, second=0, microsecond=0)
            waits.append((opening if opening > local else opening + timedelta(days=1)) - local)
        return min(waits).total_seconds()


def overridden(quirks: Quirks, values: Mapping[str, Any]) -> Quirks:
    """With single switches set otherwise. Raises Misconfigured (no such switch, no such value), naming the switch."""
    known = {each.name for each in fields(Quirks)} - {"sources"}
    kinds = get_type_hints(Quirks)
    for name, value in values.items():
        if name not in known:
            raise Misconfigured("is no switch", where=name)
        if type(value) is not kinds[name]:
            raise Misconfigured("is of the wrong type", where=name)
    changed = replace(quirks, **values)
    if changed.start_at not in ("study", "series", "image"):
        raise Misconfigured("is none of study, series, image", where="start_at")
    if changed.most_matches < 0:
        raise Misconfigured("is below 0", where="most_matches")
    return changed
