"""Places in a message, counted from 1 as the standard counts: `PID-3.4.2`, `OBX[4]-5`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class Path(NamedTuple):
    """A place in a message, counted from 1 as the standard counts. 0: not narrowed so far."""

    segment: str
    number: int = 1
    field: int = 0
    repetition: int = 0
    component: int = 0
    sub: int = 0

    def __str__(self) -> str:
        """`OBX[4]-5[2].1.2`: what an error says, and what `path` reads."""
        text = self.segment if self.number == 1 else f"{self.segment}[{self.number}]"
        if self.field:
            text += f"-{self.field}"
            text += f"[{self.repetition}]" if self.repetition > 1 else ""
            text += f".{self.component}" if self.component else ""
            text += f".{self.sub}" if self.component and self.sub else ""
        return text


_PATH = re.compile(
    r"(?P<segment>[A-Z][A-Z0-9]{2})(?:\[(?P<number>[0-9]{1,6})\])?"
    r"(?:-(?P<field>[0-9]{1,3})(?:\[(?P<repetition>[0-9]{1,6})\])?"
    r"(?:\.(?P<component>[0-9]{1,3})(?:\.(?P<sub>[0-9]{1,3}))?)?)?"
)


@lru_cache(maxsize=4096)
def path(text: str) -> Path:
    """`PID-3`, `PID-3.4.2`, `PID-3[2].1`, `OBX[4]-5`. Raises: ValueError (a path of ours that is none)."""
    found = _PATH.fullmatch(text)
    if not found:
        raise ValueError(f"not a path into a message: {text}")
    name, number, *rest = found.groups()
    return Path(name, int(number or 1), *(int(part or 0) for part in rest))
