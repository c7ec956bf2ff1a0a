"""C-FIND: a question, and the answers one by one, however many, however strange (D7)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from adapters.dicom.answers import match_of
from adapters.dicom.association import MESSAGE, PENDING, Link, context
from adapters.dicom.peers import DicomPeer, Level, Root
from adapters.dicom.query import Match, Query, halves
from adapters.dicom.reconcile import Expected
from models.errors import BadInput, PeerFailed

MOST = 100_000
"""Answers to one question that are taken, unless the caller says otherwise."""
_RESOURCES = 0xA700
_CANCELLED = 0xFE00
_FIRST_DAY = "18950101-"
"""Where a question has no date and must be asked in windows: no image is older (the first is of November 1895)."""
_FLAWS = 20


class Ended(StrEnum):
    """How an exchange of ours came to its end."""

    DONE = "done"
    CUT = "cut off at our limit"
    REFUSED = "refused"
    """A final status that is no success."""
    CANCELLED = "cancelled"
    BROKEN = "broken off"
    """The connection was lost or aborted."""
    STALLED = "stalled"
    """We gave it up: nothing came for too long, or too much came that was nothing."""


@dataclass(slots=True)
class Found:
    matches: list[Match] = field(default_factory=list)
    ended: Ended = Ended.DONE
    status: int | None = None
    undecodable: int = 0
    """Answers that could not be read at all."""
    flaws: list[str] = field(default_factory=list)
    """The first few of what was wrong with single answers: keywords, no values."""
    questions: int = 1
    """How many it took: an archive that limits its answers is asked in windows of dates."""

    def whole(self, peer: str) -> list[Match]:
        """The matches. Raises PeerFailed, unless that is all that the archive has to say."""
        if self.ended is not Ended.DONE:
            said = f" with status {self.status:04X}" if self.status else ""
            raise PeerFailed(f"the C-FIND ended otherwise than it should ({self.ended}){said}", where=peer)
        if self.undecodable:
            raise PeerFailed(f"{self.undecodable} answers to the C-FIND cannot be read", where=peer)
        return self.matches


def find(
    peer: DicomPeer,
    query: Query,
    *,
    most: int = MOST,
    today: date | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Found:
    """Ask it; blocking. Where the archive is known to limit its answers (`Quirks.most_matches`) and the level is STUDY,
    the question is asked in windows of StudyDate until each window's answer is below the limit.

    Raises: Malformed, Misconfigured (the question; nothing was sent), NoAssociation.
    """
    query.checked(peer.root, uid_lists=peer.quirks.uid_lists)
    with asking(peer) as link:
        found = _ask(link, peer, query, most, tell)
        limit = peer.quirks.most_matches
        if not limit or query.level is not Level.STUDY or not _limited(found, limit):
            return found
        return _in_windows(link, peer, query, most, today or datetime.now(UTC).date(), tell)


def asking(peer: DicomPeer) -> Link:
    """An association for questions."""
    return Link(peer, [context(_model(peer.root))], answer=peer.timeouts.answer)


def listed(peer: DicomPeer, study: str, patient: str = "", *, most: int = MOST) -> Expected:
    """What it has of one study: its series, and the instances of each, over one association; blocking. The unique keys
    of the upper levels are in each question (PS3.4, C.4.1.2.1).

    Raises: PeerFailed (it does not say, or does not say all of it), NoAssociation, Malformed, Misconfigured.
    """
    above: dict[str, str | tuple[str, ...]] = {"StudyInstanceUID": study}
    if peer.root is Root.PATIENT:
        above["PatientID"] = patient
    counted = ("StudyInstanceUID", "NumberOfStudyRelatedInstances") if peer.quirks.image_counts else ()
    series: dict[str, frozenset[str]] = {}
    classes: set[str] = set()
    seen: set[str] = set()
    stated, unaskable = None, 0
    with asking(peer) as link:

        def ask(query: Query) -> list[Match]:
            query.checked(peer.root)
            return _ask(link, peer, query, most, lambda _: None).whole(peer.name)

        if counted:
            for match in ask(Query(Level.STUDY, above, counted)):
                if match.text("StudyInstanceUID") == study:
                    stated = match.whole("NumberOfStudyRelatedInstances")
        for match in ask(Query(Level.SERIES, above)):
            uid = match.text("SeriesInstanceUID")
            if not uid:
                unaskable += 1
                continue
            images: set[str] = set()
            for image in ask(Query(Level.IMAGE, {**above, "SeriesInstanceUID": uid})):
                sop = image.text("SOPInstanceUID")
                if not sop or (sop in seen and sop not in images):
                    unaskable += 1
                    continue
                seen.add(sop)
                images.add(sop)
                classes.update(filter(None, (image.text("SOPClassUID"),)))
            series[uid] = series.get(uid, frozenset()) | images
    named = patient if peer.root is Root.PATIENT else ""
    return Expected(study, series, named, stated, frozenset(classes), unaskable)


def _limited(found: Found, limit: int) -> bool:
    """Cut off silently, or by A700 after as many answers as it gives."""
    if found.ended is Ended.REFUSED:
        return found.status == _RESOURCES
    return found.ended is Ended.DONE and len(found.matches) >= limit


def _in_windows(
    link: Link, peer: DicomPeer, query: Query, most: int, today: date, tell: Callable[[int], None]
) -> Found:
    """By halves of the time. A window of one day that is still over the limit is all that can be had: `CUT`."""
    limit, total = peer.quirks.most_matches, Found(questions=1)
    seen: set[str] = set()
    dates = query.keys.get("StudyDate") or _FIRST_DAY
    waiting = [dates if isinstance(dates, str) else _FIRST_DAY]
    while waiting:
        window = waiting.pop()
        asked = replace(query, keys={**query.keys, "StudyDate": window})
        found = _ask(link, peer, asked, most - len(total.matches), tell)
        total.questions += 1
        total.undecodable += found.undecodable
        total.flaws = (total.flaws + found.flaws)[:_FLAWS]
        if _limited(found, limit):
            parts = halves(window, today)
            if parts is not None:
                waiting += reversed(parts)
                continue
            total.ended, total.status = Ended.CUT, found.status
        for match in found.matches:
            if (uid := match.text("StudyInstanceUID")) not in seen:
                seen.add(uid)
                total.matches.append(match)
        if found.ended is not Ended.DONE and not _limited(found, limit):
            total.ended, total.status = found.ended, found.status
            return total
    return total


def _ask(link: Link, peer: DicomPeer, query: Query, most: int, tell: Callable[[int], None]) -> Found:
    found, asked = Found(), query.asked()
    request = C_FIND()
    request.AffectedSOPClassUID = UID(_model(peer.root))
    cancelled_at: float | None = None
    dropped = 0
    for response, syntax in link.responses(request, _identifier(asked, query.level, peer)):
        if response is None:
            ours = Ended.STALLED if link.aborted else Ended.BROKEN
            found.ended = Ended.CUT if cancelled_at is not None else ours
            break
        value = found.status = int(response.Status)
        if value in PENDING:
            if cancelled_at is not None:  # they come late: hundreds after the cancel
                dropped += 1
                if time.monotonic() - cancelled_at > peer.timeouts.cancel:
                    link.abort()
                    found.ended = Ended.CUT
                    break
                continue
            try:
                raw = response.Identifier.getvalue() if response.Identifier else b""
                match = match_of(raw, syntax, asked, charset=peer.quirks.charset)
            except BadInput:
                found.undecodable += 1
                continue
            found.matches.append(match)
            if match.flaws and len(found.flaws) < _FLAWS:
                found.flaws += match.flaws
            tell(len(found.matches))
            if len(found.matches) >= most:
                cancelled_at = time.monotonic()
                link.association.send_c_cancel(MESSAGE, query_model=request.AffectedSOPClassUID)
            continue
        if cancelled_at is not None:
            found.ended = Ended.DONE if value == 0 and not dropped else Ended.CUT  # our limit was all that it had
        elif value == 0:
            found.ended = Ended.DONE
        else:
            found.ended = Ended.CANCELLED if value == _CANCELLED else Ended.REFUSED
        break
    return found


def _model(root: Root) -> str:
    if root is Root.PATIENT:
        return str(PatientRootQueryRetrieveInformationModelFind)
    return str(StudyRootQueryRetrieveInformationModelFind)


def _identifier(asked: dict[str, str | list[str]], level: Level, peer: DicomPeer) -> Dataset:
    identifier = identifier_of(level, asked)
    words = "".join(each if isinstance(each, str) else "" for each in asked.values())
    if not words.isascii():
        identifier.SpecificCharacterSet = peer.quirks.ask_in
    return identifier


def identifier_of(level: Level, asked: Mapping[str, str | Sequence[str]]) -> Dataset:
    """As it is sent. Archives hold UIDs that are none (D17): pydicom would warn of them, with the UID, on stderr."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = str(level)
    for keyword, value in asked.items():
        tag = tag_for_keyword(keyword) or 0
        held = value if isinstance(value, str) else list(value)
        identifier.add(DataElement(tag, dictionary_VR(tag), held, validation_mode=IGNORE))
    return identifier
