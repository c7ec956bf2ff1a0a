"""What a digest did, in counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    asserted: int = 0
    unchanged: int = 0
    outranked: int = 0
    """Not taken: older than what is known, or a part of what is known whole."""
    superseded: int = 0
    voided: int = 0
    facts: int = 0
    quarantined: int = 0
    unmatched: int = 0
    flagged: int = 0

    def add(self, other: Tally) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def plain(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}
