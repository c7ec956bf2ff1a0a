"""An archive's answer as a `Match`: text in whatever character set it says, or does not say, and nothing is trusted.

Only what was asked for is looked at; the rest of an answer, private elements and sequences too, is left where it is.
"""

from __future__ import annotations

from collections.abc import Collection

from pydicom.datadict import dictionary_VR, tag_for_keyword

from adapters.dicom import part10
from adapters.dicom.elements import parse
from adapters.dicom.query import Match, sound_uid
from adapters.dicom.values import CHARACTER_SET, Element

LONGEST = 4096
"""Bytes of one value that are looked at: what is asked for is a name, a code, a date, a UID."""
VALUES = 64
_NUMBERS = frozenset({"US", "SS", "UL", "SL"})


def match_of(
    identifier: bytes, syntax: str, keywords: Collection[str], *, charset: str = "", most: int = VALUES
) -> Match:
    """What an answer says about the keywords: a flaw is named, its text is as near as can be.

    `identifier`: a data set in that transfer syntax; `charset`: a defined term of (0008,0005) for answers that name
    none; `most`: values of one element. Raises: Malformed, TooLarge (it is no data set).
    """
    flaws: list[str] = []
    tags = {keyword: tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None}
    file = part10.head(b"1", b"1", syntax.encode()) + identifier
    held = parse(file, keep=frozenset(tags.values()) | {CHARACTER_SET}, inside=frozenset()).data
    if CHARACTER_SET not in held and charset:
        held.elements[CHARACTER_SET] = Element("CS", charset.encode("ascii", "ignore"))
    for keyword, tag in tags.items():
        if tag not in held:
            continue
        raw = held.elements[tag].raw
        if len(raw) > (longest := max(LONGEST, most * 65)):
            flaws.append(f"{keyword}: longer than {longest} bytes")
            raw = raw[:longest]
        held.elements[tag] = Element(dictionary_VR(tag), raw)  # whatever VR it says
    values: dict[str, tuple[str, ...]] = {}
    for keyword, tag in tags.items():
        if tag not in held:
            continue
        vr = held.elements[tag].vr
        if vr in _NUMBERS:
            whole = held.whole(tag)
            found: tuple[str, ...] = (str(whole),) if whole is not None else ()
        else:
            found = held.texts(tag, most)
        if vr == "UI" and (unsound := [each for each in found if not sound_uid(each)]):
            flaws.append(f"{keyword}: no UID, {len(unsound)} of {len(found)}")
            found = tuple(each for each in found if sound_uid(each))
        if any(found):
            values[keyword] = found
    names = {tag: keyword for keyword, tag in tags.items()} | {CHARACTER_SET: "SpecificCharacterSet"}
    flaws += [f"{names[tag]}: not of its kind or character set" for tag in sorted(held.problems) if tag in names]
    return Match(values, tuple(flaws))
