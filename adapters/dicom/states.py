"""From the wish for studies to what became of them."""

from __future__ import annotations

from enum import StrEnum

from adapters.states import States


class State(StrEnum):
    ASKED = "asked"
    FOUND = "found"
    MOVING = "moving"
    RECONCILING = "reconciling"
    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


_GIVEN_UP = {State.FAILED, State.CANCELLED}
PULL = States(
    {
        State.ASKED: frozenset({State.FOUND, State.COMPLETE, *_GIVEN_UP}),
        State.FOUND: frozenset({State.RECONCILING, State.COMPLETE, State.PARTIAL, *_GIVEN_UP}),
        State.MOVING: frozenset({State.RECONCILING, *_GIVEN_UP}),
        State.RECONCILING: frozenset({State.MOVING, State.FOUND, *_GIVEN_UP}),
        State.COMPLETE: frozenset(),
        State.PARTIAL: frozenset(),
        State.FAILED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)
"""Asked -> complete: nothing is new. Found: the next study of the list, or none is left. Reconciling compares what the
archive has with what is stored, before anything is moved too; moving asks for what is missing. A process that finds a
job moving, as another one left it that was killed, goes to reconciling: what came meanwhile is not asked for again."""
