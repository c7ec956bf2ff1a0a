"""The patient's own values, looked for wherever text is kept: names and numbers get into descriptions, protocol names,
private elements and code meanings, whatever the table says of these attributes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from pydicom.valuerep import PersonName

from adapters.dicom.deidentify.profile import Profile

MARK = "REMOVED"
_IDS = {
    *(0x00080050, 0x00100020, 0x00100050, 0x00101000, 0x00101040, 0x00101090, 0x00102154, 0x00102155, 0x00200010),
    *(0x00321064, 0x00380010, 0x00380060, 0x00400009, 0x00400253, 0x00401001, 0x00402016, 0x00402017, 0x0040A0B0),
    *(0x00104000, 0x00081080, 0x00101060, 0x00102297, 0x00400275, 0x00100021, 0x00080094, 0x00080092, 0x00402009),
}  # fmt: skip
_INSTITUTION = {0x00080080, 0x00080081, 0x00081040, 0x00081041}
_DEVICE = {0x00081010, 0x00181000}
_WRITTEN_OUT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ø": "oe", "å": "aa", "æ": "ae"}
)
_LATIN = re.compile(r"[\x00-\u024f]+")
_PLAIN = frozenset(
    (
        "DR",
        "MR",
        "MRS",
        "MS",
        "MD",
        "PROF",
        "JR",
        "SR",
        "VAN",
        "VON",
        "DER",
        "DEN",
        "DE",
        "DA",
        "LA",
        "LE",
        "THE",
        "OF",
        "AND",
        "NONE",
        "UNKNOWN",
        "NULL",
        "TEST",
    )
)
_PATTERNS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # an address of e-mail
    r"|https?://\S+|www\.\S+"
    r"|(?<!\d)\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?!\d)"  # a date
    r"|\+?\d[\d ()/-]{5,}\d"  # a telephone number, a record number
    r"|(?<!\d)\d{5,}(?!\d)"
    r"|\b(?:Dr|Mr|Mrs|Ms|Miss|Prof|Herr|Frau|Mme|Sr|Sra)\b\.?\s+\w[\w'-]*(?:\s+[A-Z]\w+)?"
    r"|\b\w+\^\w*"  # a name as DICOM writes it
    r"|\b(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\b",
    re.IGNORECASE,
)
_STANDARD = "1.2.840.10008."
_UID = re.compile(r"(?<![\w.])[0-2](?:\.\d+){5,}(?![\w.])")


class Words:
    """What must not be in any text, of one object. `uids`: UIDs that stand in a text are replaced, too."""

    def __init__(self, found: Iterable[str], dates: Iterable[str] = (), *, uids: bool = True) -> None:
        self.found = frozenset(found)
        self._uids = uids
        every = self.found | {spelling for each in dates for spelling in _spellings(each)}
        ordered = sorted(every, key=lambda word: (-len(word), word))
        self._own = re.compile("|".join(map(_pattern, ordered)), re.IGNORECASE) if ordered else None

    def replaced(self, text: str, *, patterns: bool = False) -> tuple[str, int]:
        """The text without the patient's own values (`patterns`: nor anything that looks like a date, a number of a
        record, an address, a person with a title), and how many were replaced."""
        count = 0
        if self._own is not None:
            text, count = self._own.subn(MARK, text)
        if self._uids and text.count(".") >= 5:
            text, more = _UID.subn(lambda found: found[0] if found[0].startswith(_STANDARD) else MARK, text)
            count += more
        if patterns:
            text, more = _PATTERNS.subn(MARK, text)
            count += more
        return text, count

    def left_in(self, raw: bytes) -> bool:
        """Whether a value of five characters or more stands in the bytes of a file, as UTF-8."""
        return any(
            re.search(rb"(?<![\w.])" + re.escape(word.encode("utf-8", "replace")) + rb"(?![\w.])", raw)
            for word in self.found
            if len(word) >= (6 if word.isdigit() else 5)
        )

    def is_own(self, number: str) -> bool:
        """Whether a number, as a whole, is one of the patient's: shorter ones are anything's."""
        return len(number) >= 6 and number in self.found


def words_of(elements: Iterable[Any], profile: Profile) -> Words:
    """Collected from every element of an object, whatever it is nested in (pydicom's DataElements)."""
    wanted = set(_IDS)
    if "institution-identity" not in profile:
        wanted |= _INSTITUTION
    if "device-identity" not in profile:
        wanted |= _DEVICE
    found: set[str] = set()
    dates: set[str] = set()
    for element in elements:
        if element.VR == "PN":
            for name in _values(element):
                for group in name.split("="):
                    components = [each.strip() for each in re.split(r"[\^,;]", group) if each.strip()]
                    joined = ["".join(each) for pair in pairwise(components) for each in (pair, pair[::-1])]
                    parts = [part for component in components for part in _parts(component)]
                    found.update(spelling for part in (*joined, *parts) for spelling in _unaccented(part))
        elif element.tag in wanted and element.VR not in ("SQ", "OB", "OW", "UN"):
            for value in _values(element):
                if any(map(str.isdigit, value)) or element.tag in _INSTITUTION:
                    found.add(value.strip())
        elif element.VR in ("DA", "DT") and "full-dates" not in profile:
            dates.update(value.strip()[:8] for value in _values(element))
    return Words((word for word in found if _telling(word)), dates, uids="uids" not in profile)


def _values(element: Any) -> Iterator[str]:
    value = element.value
    if value is None:
        return
    many = hasattr(value, "__iter__") and not isinstance(value, str | bytes | PersonName)
    for each in value if many else [value]:
        if isinstance(each, bytes):
            each = each.decode("latin-1")
        yield str(each).strip(" \0")


def _parts(component: str) -> Iterator[str]:
    text = component.strip()
    yield text
    yield from re.split(r"[\s\-.]+", text)


def _unaccented(word: str) -> Iterator[str]:
    """As it stands, and as systems write it that know no accents: Müller, Muller, Mueller."""
    yield word
    if not word.isascii() and _LATIN.fullmatch(word):
        yield "".join(each for each in unicodedata.normalize("NFKD", word) if not unicodedata.combining(each))
        yield word.translate(_WRITTEN_OUT)


def _telling(word: str) -> bool:
    if word.upper() in _PLAIN or not any(map(str.isalnum, word)):
        return False
    if word.isdigit():
        return len(word) >= 4
    return len(word) >= (3 if _LATIN.fullmatch(word) else 1 if not word.isascii() and len(word) > 1 else 2)


def _pattern(word: str) -> str:
    escaped = re.escape(word)
    if _LATIN.fullmatch(word) is None:  # scripts that set no blanks between words
        return escaped
    return rf"(?<![^\W_]){escaped}(?![^\W_])"


def _spellings(day: str) -> Iterator[str]:
    if not re.fullmatch(r"\d{8}", day) or day[:4] < "1850":
        return
    year, month, of_month = day[:4], day[4:6], day[6:]
    yield from (day, f"{year}-{month}-{of_month}", f"{year}/{month}/{of_month}", f"{year}.{month}.{of_month}")
    for first, second in ((of_month, month), (month, of_month)):
        for sign in "./-":
            yield f"{first}{sign}{second}{sign}{year}"
            yield f"{int(first)}{sign}{int(second)}{sign}{year}"
