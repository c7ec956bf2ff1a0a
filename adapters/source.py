"""Ports of the arm: a Source brings bytes, an Intake makes them durable, a Sink takes results away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from models.nouns import JSON, LandingMeta


class Arrival(StrEnum):
    """What became of a delivery."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """The same key with the same bytes was stored before: nothing new was written, and that is fine."""
    CONFLICT = "conflict"
    """The same key was used before for other bytes: nothing was written; a Flag was raised."""


@dataclass(frozen=True, slots=True)
class Receipt:
    arrival: Arrival
    landing: str
    """Reference of the landing that holds these bytes (for a conflict: of the one that holds the key)."""
    parts: int
    beside: str | None = None
    """Stored besides another landing, this one, that has the same key and other bytes."""


class Staged(Protocol):
    """A delivery that is being written. Not durable, not visible, until `commit` returns."""

    async def write(self, chunk: bytes) -> None:
        """Append bytes to the current part. Memory stays bounded however long a part is."""

    async def end_part(self) -> None:
        """Close the current part; the next `write` begins another. A part without bytes is not a part."""

    async def commit(
        self,
        dedup_key: bytes | None = None,
        *,
        learnt: JSON | None = None,
        other: bytes | None = None,
        beside: JSON | None = None,
    ) -> Receipt:
        """Make it durable, once. `learnt`: what only its end could tell, added to the manifest. `other`: the key for
        other bytes under a key that was used before, from a sender who may begin its numbers anew; then nothing is a
        conflict. `beside`: other bytes under a key that was used before are kept, too, and a Flag is raised; this is
        added to their manifest.

        1. Close the last part.
        2. Look the key up (None: the digest of all parts is the key).
        3. Stored: bytes, landing row and ledger entry are on disk when this returns. An acknowledgement may be sent.
        4. Duplicate or conflict: see `Arrival`. Idempotent: committing the same delivery again gives a duplicate.
        5. Raising means refused: nothing of it is visible, and it may be sent again.
        """

    async def abandon(self) -> None:
        """Drop what was written. Safe to call at any time, also after a failure."""


class Intake(Protocol):
    def stage(self, meta: LandingMeta) -> Staged:
        """Begin a delivery."""


class Source(Protocol):
    """A way in. One file in `adapters/sources/`, found by its NAME."""

    async def run(self, intake: Intake) -> None:
        """Bring deliveries to the intake until there are no more (a pull), or until cancelled (a listener)."""
