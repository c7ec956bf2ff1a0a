"""The port of the way out: a Sink takes a result away, one at a time, and says what the other side said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Taken(StrEnum):
    """What the receiver said of a result."""

    YES = "yes"
    NO = "no"
    """Its content is not accepted: the same bytes will not be taken the next time either. A person must look."""
    LATER = "later"
    """Not now, for a reason that is not in the content."""


@dataclass(frozen=True, slots=True)
class Told:
    """A receiver's answer."""

    taken: Taken
    code: str
    """As its standard spells it, in no more than four characters: safe to be logged. HL7 v2: MSA-1; DICOM: the status
    in hexadecimal; HTTP: three digits."""


class Sink(Protocol):
    """A way out. One file in `adapters/sinks/`, found by its NAME."""

    async def deliver(self, message: bytes) -> Told:
        """Hand one result over and wait for the word of the receiver.

        1. One result is in flight at a time: the caller waits for this before it delivers the next.
        2. Told: the answer names this very message. One that may belong to another is never returned.
        3. Raising PeerFailed means that nobody knows: the message may have arrived, or not. The line is closed, so that
           an answer that comes late meets nobody; the caller delivers the same bytes again, before any other.
        4. Idempotent at the receiver's side, by the message's own number: the bytes of a repetition are the same.
        """

    async def close(self) -> None:
        """Leave the line. Safe at any time; the next `deliver` opens another."""
