"""Some places of one kind of segment, looked up together: the cheap way to read many segments alike.

RESULT = Columns("OBX", "2", "3.1", "3.3", "5")
for kind, code, system, value in RESULT.rows(message): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from adapters.hl7v2.message import NULL, Message, Segment
from adapters.hl7v2.places import path

_FIRST = ((1, 1),)


class Columns:
    """Each place is `field`, `field.component` or `field.component.sub`; of a repeating field the first repetition."""

    __slots__ = ("_wanted", "name")

    def __init__(self, name: str, *places: str) -> None:
        self.name = name
        asked = [path(f"{name}-{place}") for place in places]
        self._wanted: list[tuple[int, int, list[tuple[int, int]] | None]] = []
        for field, group in groupby(asked, key=lambda to: to.field):
            leaves = [(to.component or 1, to.sub or 1) for to in group]
            self._wanted.append((field, max(leaves)[0], None if leaves == [(1, 1)] else leaves))

    def of(self, segment: Segment) -> list[str]:
        """The texts at these places, unescaped; "" where there is nothing, or a null."""
        fields = segment.fields
        count, delimiters = len(fields), segment.message.delimiters
        _, separator, repetition, escape, divider, _ = delimiters
        rough = not segment.plain
        out: list[str] = []
        for field, most, leaves in self._wanted:
            value = fields[field] if field < count else ""
            if rough and (repetition in value or divider in value or escape in value or field <= 2):
                out += [segment.text(field, component, sub) for component, sub in leaves or _FIRST]
            elif leaves is None:
                if separator in value:
                    value = value[: value.index(separator)]
                out.append("" if value == NULL else value)
            else:
                parts = value.split(separator, most)
                for component, sub in leaves:
                    value = parts[component - 1] if component <= len(parts) and sub == 1 else ""
                    out.append("" if value == NULL else value)
        return out

    def rows(self, message: Message) -> Iterator[list[str]]:
        """`of` for each segment of the name, in order."""
        return map(self.of, message.all(self.name))
