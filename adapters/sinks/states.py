"""From a result that is to be sent to what its receiver said."""

from __future__ import annotations

from enum import StrEnum

from adapters.states import States


class State(StrEnum):
    WAITING = "waiting"
    ACKNOWLEDGED = "acknowledged"
    PARKED = "parked"
    """Its receiver does not take it as it is: a person must look. What follows of the same patient waits behind it."""
    DROPPED = "dropped"
    """A person said that it shall not be sent any more."""


SEND = States(
    {
        State.WAITING: frozenset({State.ACKNOWLEDGED, State.PARKED}),
        State.PARKED: frozenset({State.WAITING, State.DROPPED}),
        State.ACKNOWLEDGED: frozenset(),
        State.DROPPED: frozenset(),
    }
)
"""A try that failed is no step: the result stays where it is, with the same bytes."""
