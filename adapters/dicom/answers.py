"""An archive's answer as a `Match`: text in whatever character set it says, or does not say, and nothing is trusted.

Only what was asked for is looked at; the rest of an answer, private elements and sequences too, is left where it is.
"""

from __future__ import annotations

from collections.abc import Collection

from pydicom import dataset as pydicom_dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from adapters.dicom.query import Match, sound_uid
from adapters.dicom.values import CHARACTER_SET, Dataset, Element

LONGEST = 4096
"""Bytes of one value that are looked at: what is asked for is a name, a code, a date, a UID."""
VALUES = 64
_NUMBERS = frozenset({"US", "SS", "UL", "SL"})


def match_of(
    identifier: pydicom_dataset.Dataset, keywords: Collection[str], *, charset: str = "", most: int = VALUES
) -> Match:
    """What an answer says about the keywords. Never raises for what stands in it: a flaw is named, its text is as near
    as can be. `charset`: a defined term of (0008,0005) for answers that name none."""
    held, flaws = Dataset(), []
    named = _raw(identifier, CHARACTER_SET) or charset.encode("ascii", "ignore")
    if named:
        held.elements[CHARACTER_SET] = Element("CS", named)
    tags = {keyword: tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None}
    for keyword, tag in tags.items():
        raw = _raw(identifier, tag)
        if len(raw) > (longest := max(LONGEST, most * 65)):
            flaws.append(f"{keyword}: longer than {longest} bytes")
            raw = raw[:longest]
        if raw:
            held.elements[tag] = Element(dictionary_VR(tag), raw)
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


def _raw(identifier: pydicom_dataset.Dataset, tag: int) -> bytes:
    """The bytes of an element as they came; b"" where there are none."""
    try:
        element = identifier.get_item(tag)
    except Exception:  # noqa: BLE001 (whatever pydicom makes of it)
        return b""
    value = getattr(element, "value", None)
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):  # already read, as the character set is
        return value.encode("ascii", "replace")
    if value is None or isinstance(value, pydicom_dataset.Dataset):
        return b""
    try:
        return "\\".join(str(each) for each in value).encode("ascii", "replace")
    except TypeError:
        return str(value).encode("ascii", "replace")
