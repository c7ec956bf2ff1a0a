"""What a message says nothing of: an empty field is no change, `""` deletes (HL7 v2.5.1 chapter 2, 2.5.3.5).

A reader sees one message, so it names the elements that no field of the message spoke of; what is known of them from
the message before is carried over by whoever knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from adapters.hl7v2.mapped import rows
from adapters.hl7v2.message import Segment

_CHOICES = ("deceased", "multipleBirth")
"""R4's `deceased[x]` is one element, whichever of its types a field gives."""


@lru_cache(maxsize=32)
def _fed(name: str) -> tuple[tuple[str, frozenset[int]], ...]:
    """Element -> the fields that a segment's map takes it from."""
    found: dict[str, set[int]] = {}
    for row in rows(name):
        if "at" in row:
            element = row["to"].split(".")[0].removesuffix("[]").lstrip("_")
            element = next((choice for choice in _CHOICES if element.startswith(choice)), element)
            found.setdefault(element, set()).add(int(str(row["at"]).partition(".")[0]))
    return tuple((element, frozenset(fields)) for element, fields in found.items())


def elements(name: str) -> list[str]:
    """All that a segment's map may state."""
    return [element for element, _ in _fed(name)]


def says_nothing(segment: Segment, field: int) -> bool:
    """Whether a field is empty or not there. A null says something: that there is nothing."""
    fields = segment.fields
    return field >= len(fields) or not fields[field].strip()


def silent(maps: Sequence[tuple[str, Segment | None]]) -> tuple[str, ...]:
    """Elements of which none of these segments says anything, by their maps; a segment that is not there says nothing
    at all."""
    spoken: set[str] = set()
    every: dict[str, None] = {}
    for name, segment in maps:
        for element, fields in _fed(name):
            every[element] = None
            if segment is not None and not all(says_nothing(segment, field) for field in fields):
                spoken.add(element)
    return tuple(element for element in every if element not in spoken)
