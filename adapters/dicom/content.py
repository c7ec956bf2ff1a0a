"""The content tree of a structured report (PS3.3 C.17.3): nodes with a name, a value, a relation to their parent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pydicom.sr._snomed_dict import mapping as _snomed

from adapters.dicom.values import Code, Dataset

Key = tuple[str, str]
MAX_TEXT = 64 << 10
CONTENT = 0x0040A730
ANATOMY = frozenset({("SCT", "123037004"), ("SCT", "91723000")})
"""Categories of a finding or segment that is a part of the body: body structure, anatomical structure."""


def key_of(code: Code | None) -> Key:
    """(scheme, value), SNOMED RT style codes as SNOMED CT: old and new writers name the same concept."""
    if code is None:
        return "", ""
    if code.scheme in ("SRT", "SNM3", "99SDM") and code.value in _snomed["SRT"]:
        return "SCT", _snomed["SRT"][code.value]
    return code.scheme, code.value


@dataclass
class Node:
    """One content item. `place` counts items below the root from 1: `1.7.2` (PS3.3, as (0040,DB73) counts)."""

    item: Dataset
    place: str

    @cached_property
    def name(self) -> Code | None:
        return self.item.code(0x0040A043)

    @cached_property
    def key(self) -> Key:
        return key_of(self.name)

    @cached_property
    def kind(self) -> str:
        return self.item.text(0x0040A040)

    @cached_property
    def relation(self) -> str:
        return self.item.text(0x0040A010)

    @cached_property
    def children(self) -> tuple[Node, ...]:
        return tuple(Node(item, f"{self.place}.{at}") for at, item in enumerate(self.item.items(CONTENT), start=1))

    @property
    def code(self) -> Code | None:
        return self.item.code(0x0040A168)

    @property
    def text(self) -> str:
        """The value of TEXT, DATETIME, DATE, TIME, PNAME and UIDREF."""
        tag = _TEXTS.get(self.kind)
        return self.item.text(tag, MAX_TEXT) if tag else ""

    @property
    def instance(self) -> str:
        """SOP Instance UID of what an IMAGE, WAVEFORM or COMPOSITE refers to."""
        return self.item.item(0x00081199).uid(0x00081155)

    def below(self, *keys: Key) -> Iterator[Node]:
        """Children of one of these names."""
        return (child for child in self.children if child.key in keys)

    def first(self, *keys: Key) -> Node | None:
        return next(self.below(*keys), None)

    def walk(self) -> Iterator[Node]:
        """It and everything below it, in the order of the document."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def shown(self) -> str:
        """The value as a person reads it."""
        if self.kind == "CODE":
            return self.code.meaning or self.code.value if self.code else ""
        if self.kind == "NUM":
            measured = self.item.item(0x0040A300)
            unit = measured.code(0x004008EA)
            if number := measured.text(0x0040A30A):
                return f"{number} {unit.value if unit and unit.value != '1' else ''}".rstrip()
            reason = self.item.code(0x0040A301)
            return reason.meaning if reason else ""
        return self.text if self.kind != "UIDREF" else ""


_TEXTS = {
    "TEXT": 0x0040A160,
    "DATETIME": 0x0040A120,
    "DATE": 0x0040A121,
    "TIME": 0x0040A122,
    "PNAME": 0x0040A123,
    "UIDREF": 0x0040A124,
}


def rendered(root: Node, most: int = 256 << 10) -> str:
    """The document as plain text: a line an item, indented, without the references; at most so many characters."""
    lines: list[str] = []
    left = most

    def write(node: Node, depth: int) -> None:
        nonlocal left
        name, shown = node.name.meaning if node.name else "", node.shown
        if (name or shown) and (shown or node.children):
            line = "  " * depth + ": ".join(filter(None, (name, shown)))
            left -= len(line) + 1
            if left < 0:
                return
            lines.append(line)
        for child in node.children:
            write(child, depth + 1)

    write(root, 0)
    if left < 0:
        lines.append("[the document is longer]")
    return "\n".join(lines)
