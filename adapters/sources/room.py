"""How many bytes the connections of all sources may hold together (F9): each has its own limits, and their product may
still be more than the machine has."""

from __future__ import annotations

from typing import Generic, TypeVar

Who = TypeVar("Who")


class Room(Generic[Who]):
    """Counts what everybody holds. Over the limit, whoever holds most is asked to go: a sender of small messages never
    pays for one of large ones."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._held: dict[Who, int] = {}

    def hold(self, who: Who, size: int) -> list[Who]:
        """Say how much somebody holds now; gives those who must go, the largest first. They hold nothing any more."""
        self.taken += size - self._held.get(who, 0)
        self._held[who] = size
        gone = []
        while self.taken > self.limit:
            most = max(self._held, key=self._held.__getitem__)
            gone.append(most)
            self.leave(most)
        return gone

    def leave(self, who: Who) -> None:
        self.taken -= self._held.pop(who, 0)
