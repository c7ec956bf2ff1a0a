"""What a DICOMweb server answers in JSON (PS3.18, annex F), as the matches of a C-FIND; nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydicom.datadict import tag_for_keyword

from adapters.dicom import quiet
from adapters.dicom.query import Match, sound_uid
from models import strict
from models.errors import BadInput, PeerFailed

quiet.silence()
VALUES, LONGEST = 64, 1024
"""Of one element, and characters of one value, that are looked at."""
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def tag_of(keyword: str) -> str:
    """Eight hexadecimal digits, as a member of the JSON model is called."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError("no keyword of the dictionary")
    return f"{tag:08X}"


def matches_of(body: bytes, keywords: Collection[str]) -> list[Match]:
    """One for each object of the array. Raises: PeerFailed (not such an array; never with what it holds)."""
    try:
        found = strict.loads(body, what="the answer")
    except BadInput as error:
        raise PeerFailed(f"answered with what is no JSON: {error.what}") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise PeerFailed("answered with JSON that is no list of objects")
    tags = {keyword: tag_of(keyword) for keyword in keywords}
    return [_match(each, tags) for each in found]


def _match(row: dict[str, Any], tags: dict[str, str]) -> Match:
    values: dict[str, tuple[str, ...]] = {}
    flaws: list[str] = []
    for keyword, tag in tags.items():
        element = row.get(tag)
        given = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(given, list):
            continue
        texts = [_text(each) for each in given[:VALUES]]
        kept = tuple(each for each in texts if each is not None and len(each) <= LONGEST)
        if keyword.endswith("UID"):
            kept = tuple(each for each in kept if sound_uid(each))
        if len(kept) < len(given):
            flaws.append(f"{keyword}: not of its kind")
        if any(kept):
            values[keyword] = kept
    return Match(values, tuple(flaws))


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value.rstrip("\0 ")
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, dict):  # a person's name, in up to three groups
        groups = [value.get(each) for each in _NAME_GROUPS]
        return "=".join(each if isinstance(each, str) else "" for each in groups).rstrip("=")
    return str(value) if isinstance(value, int) else None
