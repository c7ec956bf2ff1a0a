"""How long an answer may take, and how many calls may be under way at once.

A call has one deadline for its whole answer. What it may wait for (a FHIR server, a model) gets a share of it, so that
there is time left to say what did not come. The gate counts calls and sheds those that could not be answered in time,
before anything of them is read: to shed late costs as much as to answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from models.errors import Overloaded

FETCHED, JUDGED, ANSWERED = 0.6, 0.8, 0.95
"""Shares of the deadline: until when data may come, until when models may think, until when the answer must stand. The
rest is the network's."""


@dataclass(slots=True)
class Clock:
    """The time of one call, on the monotonic clock."""

    began: float
    seconds: float
    waited: float = 0.0
    """Seconds that it spent on waiting for others than us."""

    @classmethod
    def start(cls, seconds: float) -> Clock:
        return cls(time.monotonic(), seconds)

    def left(self, share: float) -> float:
        """Seconds until this share of the deadline is over; not below zero."""
        return max(0.0, self.began + share * self.seconds - time.monotonic())

    @property
    def own(self) -> float:
        """Seconds that we ourselves have spent on the call."""
        return time.monotonic() - self.began - self.waited


class Gate:
    """Lets in as many calls at once as this process can answer well within the deadline.

    How many that are is found by trying: a call that took us more than two fifths of the deadline takes a tenth off the
    limit (once in that time), one that did not, while the limit was half used, adds a little. Waiting for a FHIR server
    or for a slow model does not count: it keeps no other call from its answer.
    """

    MOST, LEAST = 1024, 8

    def __init__(self, deadline: float, first: int = 96) -> None:
        self._target = deadline / 2.5
        self._limit = float(first)
        self._cut_at = float("-inf")
        self.inside = 0
        self.shed = 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def check(self) -> None:
        """Errors: Overloaded, when one call more could not be answered in time."""
        if self.inside >= self._limit:
            self.shed += 1
            raise Overloaded("there are more calls than can be answered in time")

    def enter(self) -> None:
        self.check()
        self.inside += 1

    def leave(self, clock: Clock) -> None:
        own = clock.own
        if own > self._target:
            at = time.monotonic()
            if at - self._cut_at > self._target:
                self._cut_at = at
                self._limit = max(self.LEAST, 0.9 * self._limit)
        elif self.inside > 0.5 * self._limit:
            self._limit = min(self.MOST, self._limit + 1.0 / self._limit)
        self.inside -= 1
