"""One object's elements, one by one: what is left out, emptied, replaced, kept. The original is only read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from adapters.dicom.deidentify.profile import Profile, resolved, safe_private
from adapters.dicom.deidentify.project import Project, hour, moved
from adapters.dicom.deidentify.words import MARK, Words
from adapters.dicom.values import place
from models.errors import Malformed

MAX_DEPTH = 32
OLDEST = 90
"""Years: ages above 89 are one group (45 CFR 164.514(b)(2)(i)(C))."""
_TEXT = frozenset(("AE", "AS", "CS", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"))
_WORDS = {"OW": 2, "OL": 4, "OF": 4, "OV": 8, "OD": 8}
"""Bytes of a number, where a big endian object is written anew."""
_FREE = frozenset(("LT", "ST", "UT", "UC", "UR", "AE"))
_DATES = frozenset(("DA", "DT", "TM"))
_NUMBERS = frozenset(("AS", "DS", "IS", "TM"))
_NUMBER = re.compile(r"\s*[\d.:+\-eE]*[DWMY]?\s*")
_LONGEST = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
_DUMMIES: dict[str, Any] = {
    "AE": "REMOVED",
    "AS": "000Y",
    "CS": "REMOVED",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "LO": MARK,
    "LT": MARK,
    "PN": "REMOVED",
    "SH": MARK,
    "ST": MARK,
    "TM": "000000",
    "UC": MARK,
    "UR": "urn:none",
    "UT": MARK,
    "OB": b"\0\0",
    "OW": b"\0\0",
    "US": 0,
    "SS": 0,
    "UL": 0,
    "SL": 0,
    "FL": 0.0,
    "FD": 0.0,
    "OF": b"\0" * 4,
    "OD": b"\0" * 8,
    "OL": b"\0" * 4,
    "OV": b"\0" * 8,
    "SV": 0,
    "UV": 0,
}
_BINARY = frozenset(  # what an image is computed from: tables, palettes, waveforms, spectra. Any other OB or OW goes
    {0x00281200, 0x00281201, 0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223, 0x00283006, 0x54000110}
    | {0x54000112, 0x5400100A, 0x54001010, 0x00282000, 0x00281408, 0x00480100, 0x006A000E, 0x00660040}
)
_SETTLED = frozenset(  # values of the standard itself: replacing them would make another object of it
    {0x00080005, 0x00080008, 0x00080060, 0x00080064, 0x00280004, 0x0040A010, 0x0040A040, 0x0040A050, 0x00080102}
    | {0x00080105, 0x0008010F, 0x0040DB00, 0x00089007}
)
_CODE_VALUES = frozenset((0x00080100, 0x00080119))
_PERSON = frozenset((0x00100010, 0x00100020))
_VERSIONS = frozenset((0x00080106, 0x00080107, 0x0040DB06, 0x0040DB07, 0x00080201))
"""Dates of a table or template, and the time zone: no day of the patient's."""
_TEXT_VALUE, _CONTENT, _GRAPHIC, _GRAPHIC_DATA = 0x0040A160, 0x0040A730, 0x00700001, 0x00700022
_STRUCTURED = frozenset((_CONTENT, 0x00400555, 0x00400610))
_KEPT_UIDS = frozenset((0x0008010C, 0x00080117, 0x00080118, 0x00081196))
"""Coding schemes, context groups and mapping resources: whose vocabulary, not whose image."""


class Walk:
    """Makes the copy. `tally`: (tag, action) -> how often; `cleaned`: tags in which a value of the patient stood."""

    def __init__(
        self,
        profile: Profile,
        project: Project,
        words: Words,
        sop_class: str,
        who: tuple[str, str],
        *,
        swap: bool = False,
    ) -> None:
        self.profile = profile
        self.project = project
        self.words = words
        self.sop_class = sop_class
        self.swap = swap
        self.pseudonym = project.pseudonym(*who)
        self.days = project.days(*who)
        self.tally: Counter[tuple[str, str]] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.flags: set[str] = set()
        self.uids: set[str] = set()

    def dataset(self, data: Dataset, path: tuple[int, ...] = (), *, dummy: bool = False) -> Dataset:
        """A new data set. Raises: Malformed (nested deeper than 32)."""
        if len(path) > MAX_DEPTH:
            raise Malformed(f"sequences are nested deeper than {MAX_DEPTH}", where=place(path[-1]))
        made = Dataset()
        for tag in sorted(data.keys()):
            number = int(tag)
            try:
                element = data[tag]
                VR, value = str(element.VR), element.value
            except RecursionError:
                raise Malformed("sequences are nested too deep", where=place(number)) from None
            except Exception:  # noqa: BLE001 (pydicom raises what it likes where a value is none of its VR)
                self._did(number, "unreadable")
                continue
            self._element(made, data, number, VR, value, path, dummy)
        return made

    def _did(self, tag: int, action: str) -> None:
        self.tally[place(tag), action] += 1

    def _element(
        self, made: Dataset, data: Dataset, tag: int, VR: str, value: Any, path: tuple[int, ...], dummy: bool
    ) -> None:
        group = tag >> 16
        if tag == 0x00080005:  # what is written is UTF-8, whatever was read
            return
        if tag & 0xFFFF == 0 or group in (0x0000, 0x0002, 0x0004) or group == 0xFFFE:
            self._did(tag, "X")
        elif group % 2:
            self._private(made, data, tag, VR, value, path)
        elif 0x5000 <= group <= 0x501E or 0x6000 <= group <= 0x601E or (group == 0x7FE0 and (path or tag & 0xFFFF > 3)):
            self._did(tag, "X")
        elif VR == "UN" or not (dictionary_has_tag(tag) or self.profile.action(tag)):
            self._did(tag, "unknown")
        elif VR in _TEXT and dictionary_has_tag(tag) and not _may_be_text(tag):
            self._did(tag, "unreadable")
        else:
            action = self._action(tag, VR, value, path)
            if dummy and action in ("K", "C", "keep", "U*"):
                action = "U" if VR == "UI" else "D"
            moved_on = action == "C" and VR in _DATES and tag not in _VERSIONS
            self._did(tag, "pseudonym" if tag in _PERSON else "moved" if moved_on else action)
            self._carry(made, tag, VR, value, action, path, dummy)

    def _private(self, made: Dataset, data: Dataset, tag: int, VR: str, value: Any, path: tuple[int, ...]) -> None:
        group, number = tag >> 16, tag & 0xFFFF
        block = group << 16 | number >> 8
        if 0x10 <= number <= 0xFF:  # a creator is written where something of its block is kept
            return
        try:
            creator = str(data[BaseTag(block)].value).strip()
        except Exception:  # noqa: BLE001 (without a readable creator nobody knows what it is)
            creator = ""
        known = "safe-private" in self.profile and (group, number & 0xFF, creator) in safe_private()
        if not known or VR == "UN":
            self._did(tag, "X")
            return
        made.add(DataElement(BaseTag(block), "LO", creator))
        self.flags.add("private-kept")
        self._did(tag, "safe private")
        self._carry(made, tag, VR, value, "K", path, False)

    # -- which action --------------------------------------------------------------------------------------------------

    def _action(self, tag: int, VR: str, value: Any, path: tuple[int, ...]) -> str:
        listed = self.profile.action(tag)
        if listed:
            action = resolved(listed, tag, self.sop_class, top=not path)
            return "D" if action == "K" and VR == "PN" else action
        if tag == _TEXT_VALUE:  # what Clean Structured Content is about (PS3.15 E.3.4)
            return "C" if "clean-structured-content" in self.profile else "D"
        if tag == _GRAPHIC_DATA and "clean-graphics" not in self.profile:
            return "D"
        return self._unlisted(tag, VR)

    def _unlisted(self, tag: int, VR: str) -> str:
        """Of what Table E.1-1 does not name. Stricter than it has to be: people, days and long text go, too."""
        if VR == "PN":
            return "Z"
        if VR in ("DA", "DT", "TM"):
            if tag in _VERSIONS:
                return "keep"
            if "full-dates" in self.profile:
                return "K"
            return "C" if "modified-dates" in self.profile else "X"
        if VR == "UI":
            fixed = tag in _KEPT_UIDS or keyword_for_tag(tag).endswith(("ClassUID", "SyntaxUID", "ClassesSupported"))
            return "keep" if fixed or "uids" in self.profile else "U"
        if VR in _FREE and tag not in _CODE_VALUES:
            return "C" if "clean-descriptors" in self.profile and VR not in ("UR", "AE") else "X"
        if VR in ("OB", "OW") and tag not in _BINARY and tag >> 16 != 0x7FE0:
            return "X"
        return "keep"

    # -- doing it ------------------------------------------------------------------------------------------------------

    def _carry(
        self, made: Dataset, tag: int, VR: str, value: Any, action: str, path: tuple[int, ...], dummy: bool
    ) -> None:
        if action == "X":
            return
        if VR == "SQ":
            items: list[Dataset] = []
            if action != "Z":
                inside = (action == "D" and tag not in _STRUCTURED and tag != _GRAPHIC) or dummy
                items = [self.dataset(item, (*path, tag), dummy=inside) for item in value or ()]
            made.add(DataElement(BaseTag(tag), "SQ", Sequence(items)))
            return
        found = self._made(tag, VR, value, action)
        if VR == "PN" and found is not None:
            found = PersonName(found)
        if found is not None:
            made.add(DataElement(BaseTag(tag), VR, found, already_converted=True))

    def _made(self, tag: int, VR: str, value: Any, action: str) -> Any:
        """The value that takes its place; None: it is left out."""
        empty = value is None or (hasattr(value, "__len__") and len(value) == 0)
        if tag in _PERSON:
            return self.pseudonym
        if action == "Z" or (empty and VR != "UI"):
            return b"" if VR[0] == "O" else ""
        if action == "D" and tag == _GRAPHIC_DATA:
            return [0.0] * (len(value) if hasattr(value, "__len__") else 2)
        if action in ("U", "U*"):
            return self._each(value, self._uid)
        if action == "D":
            return "" if VR == "UI" else _DUMMIES.get(VR[:2])  # `US or SS`: the first
        if action == "C" and VR in _DATES and tag not in _VERSIONS:
            return self._each(value, lambda each: self._moment(VR, each))
        if VR in ("DT", "TM") and self.profile.coarse and tag not in _VERSIONS:
            return self._each(value, hour)
        if VR == "UI" and action == "C":
            return self._each(value, self._uid)
        if tag == 0x00101010:
            return self._each(value, self._age)
        if VR in _TEXT and tag not in _SETTLED:
            patterns = action == "C"
            return self._each(value, lambda each: self._text(tag, VR, each, patterns=patterns))
        if self.swap and VR in _WORDS and isinstance(value, bytes):
            return (
                np.frombuffer(value[: len(value) // _WORDS[VR] * _WORDS[VR]], f">u{_WORDS[VR]}")
                .astype(f"<u{_WORDS[VR]}")
                .tobytes()
            )
        return _plain(value)

    def _each(self, value: Any, act: Callable[[str], str]) -> Any:
        if isinstance(value, str | bytes | PersonName) or not hasattr(value, "__iter__"):
            return act(_str(value))
        return [act(_str(each)) for each in value]

    def _uid(self, uid: str) -> str:
        text = uid.strip(" \0")
        if not text or text in UID_dictionary or text.startswith("1.2.840.10008."):
            return text
        self.uids.add(text)
        return self.project.uid(text)

    def _moment(self, VR: str, value: str) -> str:
        found = value if VR == "TM" else moved(value, self.days)
        return hour(found) if self.profile.coarse and VR != "DA" else found

    def _age(self, value: str) -> str:
        if re.fullmatch(r"\d{3}Y", value.strip()) and int(value.strip()[:3]) >= OLDEST:
            self.flags.add("age-over-89")
            return f"{OLDEST:03}Y"
        return value.strip() if re.fullmatch(r"\d{3}[DWMY]", value.strip()) else ""

    def _text(self, tag: int, VR: str, text: str, *, patterns: bool) -> str:
        if VR in _NUMBERS:
            if self.words.is_own(text.strip()) or not _NUMBER.fullmatch(text):
                self.cleaned[place(tag)] += 1
                return ""
            return text
        found, count = self.words.replaced(text, patterns=patterns)
        if not count or (tag in _CODE_VALUES and len(text) < 5):
            return text
        self.cleaned[place(tag)] += count
        return found[: _LONGEST.get(VR, len(found))]


def every_element(data: Dataset, depth: int = 0) -> Iterator[DataElement]:
    """Every readable element, also of its sequences and of private ones. Raises: Malformed."""
    if depth > MAX_DEPTH:
        raise Malformed(f"sequences are nested deeper than {MAX_DEPTH}")
    for tag in data.keys():  # noqa: SIM118 (a Dataset's iterator reads its values, which may raise)
        try:
            element = data[tag]
            items = element.value if element.VR == "SQ" else None
        except RecursionError:
            raise Malformed("sequences are nested too deep") from None
        except Exception:  # noqa: BLE001, S112 (the walk says which could not be read)
            continue
        if items is None:
            yield element
        else:
            for item in items:
                yield from every_element(item, depth + 1)


def _may_be_text(tag: int) -> bool:
    """Whether the dictionary has words there: text in a place for numbers is somebody else's."""
    return dictionary_VR(tag)[:2] in _TEXT | {"DA", "DT", "UI"}


def _str(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    original = getattr(value, "original_string", None)  # a DS or IS keeps its digits
    return original if isinstance(original, str) else str(value)


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else value
