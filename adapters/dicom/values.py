"""What elements say: text in its character set, numbers, codes, dates. A value that is not of its kind is none."""

from __future__ import annotations

import math
import re
import struct
import warnings
from typing import NamedTuple

from pydicom.charset import convert_encodings, decode_bytes, python_encoding

MAX_TEXT = 1024
"""Characters of one value of a header; longer ones are cut."""
MAX_VALUES = 4096
CHARACTER_SET = 0x00080005

_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_IN_CHARACTER_SET = frozenset(("SH", "LO", "ST", "LT", "UT", "UC", "PN"))
_WHOLE_TEXT = frozenset(("ST", "LT", "UT", "UR"))
_NUMBER = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII)
_CONTROLS = {code: None for code in range(32) if code not in (9, 10, 12, 13)}
_DELIMITERS = set(b"\\^=\r\n\f\t")
_UID = re.compile(r"[0-9A-Za-z.\-]{1,64}", re.ASCII)


class Element(NamedTuple):
    vr: str
    raw: bytes
    items: tuple[Dataset, ...] = ()


class Code(NamedTuple):
    """One item of a code sequence (PS3.3 8.8)."""

    value: str
    scheme: str
    """Coding Scheme Designator: SCT, DCM, LN, 99LOCAL, ..."""
    meaning: str
    scheme_uid: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.scheme, self.value


def place(tag: int) -> str:
    """`(0010,0020)`."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def is_uid(uid: str) -> bool:
    """Whether it can be a UID. Some are not conformant; none holds a path or is longer than 64 characters."""
    return bool(_UID.fullmatch(uid))


class Dataset:
    """Elements by tag (`0x00100020`). Asked for something that is not there or not readable, it gives nothing; tags
    whose value is not of its kind are added to `problems`."""

    __slots__ = ("_encodings", "elements", "little", "problems")

    def __init__(self, little: bool = True) -> None:
        self.elements: dict[int, Element] = {}
        self.little = little
        self.problems: set[int] = set()
        self._encodings: list[str] | None = None

    def __contains__(self, tag: int) -> bool:
        return tag in self.elements

    # -- text ----------------------------------------------------------------------------------------------------------

    @property
    def encodings(self) -> list[str]:
        """Python's names of the character sets (PS3.3 C.12.1.1.2); none: the default repertoire."""
        if self._encodings is None:
            declared = self.elements.get(CHARACTER_SET)
            names = [part.strip() for part in declared.raw.decode("latin-1").split("\\")][:16] if declared else []
            if not any(names):
                self._encodings = []
            elif len(names) == 1:
                found = python_encoding.get(names[0].strip("\0"))
                if found is None:
                    self.problems.add(CHARACTER_SET)
                self._encodings = [found] if found else []
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        self._encodings = list(convert_encodings([name.strip("\0") for name in names]))
                    except (LookupError, ValueError, TypeError):
                        self.problems.add(CHARACTER_SET)
                        self._encodings = []
        return self._encodings

    def inherit(self, encodings: list[str]) -> None:
        """The character set of what holds it, where it has none of its own."""
        if CHARACTER_SET not in self.elements:
            self._encodings = encodings

    def decoded(self, tag: int, element: Element) -> str:
        raw = element.raw.rstrip(b"\0 ")
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii").translate(_CONTROLS)
        encodings = self.encodings if element.vr in _IN_CHARACTER_SET else []
        if not encodings:  # writers who declare nothing write UTF-8 or Latin-1
            try:
                return raw.decode("utf-8").translate(_CONTROLS)
            except UnicodeDecodeError:
                return raw.decode("latin-1").translate(_CONTROLS)
        try:
            if b"\x1b" not in raw and (len(encodings) == 1 or encodings[0] != "iso8859"):
                return raw.decode(encodings[0]).translate(_CONTROLS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                words = decode_bytes(raw, encodings, _DELIMITERS)
        except (LookupError, ValueError):
            self.problems.add(tag)
            words = raw.decode("utf-8", "replace")
        return words.encode("utf-8", "replace").decode().translate(_CONTROLS)

    def texts(self, tag: int, most: int = MAX_VALUES) -> tuple[str, ...]:
        """Each value, without the blanks around it."""
        element = self.elements.get(tag)
        if element is None or not element.raw or element.vr in _BINARY:
            return ()
        words = self.decoded(tag, element)
        if element.vr in _WHOLE_TEXT or "\\" not in words:
            return (words.strip(),)
        return tuple(part.strip() for part in words.split("\\")[:most])

    def text(self, tag: int, longest: int = MAX_TEXT) -> str:
        """The first value that is not empty."""
        return next((words[:longest] for words in self.texts(tag) if words), "")

    def uid(self, tag: int) -> str:
        """A UID as it stands; empty where it cannot be one."""
        found = self.text(tag)
        if found and not is_uid(found):
            self.problems.add(tag)
            return ""
        return found

    # -- numbers -------------------------------------------------------------------------------------------------------

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Finite numbers, whatever VR they are written in; none at all where one of them is none."""
        element = self.elements.get(tag)
        if element is None or not element.raw:
            return ()
        letter = _BINARY.get(element.vr)
        if letter is not None:
            size = struct.calcsize(letter := ("<" if self.little else ">") + letter)
            found = [each[0] for each in struct.iter_unpack(letter, element.raw[: len(element.raw) // size * size])]
        else:
            try:
                found = [float(part) for part in self.texts(tag) if (part and _NUMBER.fullmatch(part)) or _bad()]
            except ValueError:
                found = [math.nan]
        if not found or not all(math.isfinite(each) for each in found):
            self.problems.add(tag)
            return ()
        return tuple(float(each) for each in found[:MAX_VALUES])

    def number(self, tag: int) -> float | None:
        found = self.numbers(tag)
        return found[0] if found else None

    def whole(self, tag: int) -> int | None:
        """A whole number."""
        found = self.number(tag)
        if found is None:
            return None
        if not found.is_integer():
            self.problems.add(tag)
            return None
        return int(found)

    def decimal(self, tag: int) -> str:
        """The first number as it was written (a DS keeps its digits)."""
        element = self.elements.get(tag)
        if element is None or self.number(tag) is None:
            return ""
        if element.vr in _BINARY:
            return repr(self.number(tag)).removesuffix(".0")
        return self.text(tag)

    # -- what is inside ------------------------------------------------------------------------------------------------

    def items(self, tag: int) -> tuple[Dataset, ...]:
        element = self.elements.get(tag)
        if element is None:
            return ()
        for item in element.items:
            item.inherit(self.encodings)
            item.problems = self.problems
        return element.items

    def item(self, tag: int) -> Dataset:
        """The first item; an empty one where there is none."""
        found = self.items(tag)
        return found[0] if found else NOTHING

    def codes(self, tag: int) -> tuple[Code, ...]:
        return tuple(code for item in self.items(tag) if (code := code_of(item)) is not None)

    def code(self, tag: int) -> Code | None:
        return next(iter(self.codes(tag)), None)


NOTHING = Dataset()


def _bad() -> bool:
    raise ValueError


def code_of(item: Dataset) -> Code | None:
    """Code Value, Long Code Value or URN Code Value, with designator and meaning."""
    value = item.text(0x00080100) or item.text(0x00080119) or item.text(0x00080120)
    if not value:
        return None
    return Code(value, item.text(0x00080102), item.text(0x00080104), item.uid(0x0008010C))
