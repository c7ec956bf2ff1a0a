"""From the wish for an export to what became of it."""

from __future__ import annotations

from enum import StrEnum

from adapters.states import States


class State(StrEnum):
    QUEUED = "queued"
    KICKED_OFF = "kicked off"
    POLLING = "polling"
    DOWNLOADING = "downloading"
    APPLYING = "applying"
    DONE = "done"
    DONE_WITH_FAULTS = "done with faults"
    FAILED = "failed"
    CANCELLED = "cancelled"


_GIVEN_UP = {State.FAILED, State.CANCELLED}
EXPORT = States(
    {
        State.QUEUED: frozenset({State.KICKED_OFF, State.DONE, *_GIVEN_UP}),
        State.KICKED_OFF: frozenset({State.POLLING, *_GIVEN_UP}),
        State.POLLING: frozenset({State.DOWNLOADING, State.QUEUED, *_GIVEN_UP}),
        State.DOWNLOADING: frozenset({State.POLLING, State.APPLYING, State.QUEUED, *_GIVEN_UP}),
        State.APPLYING: frozenset({State.DONE, State.DONE_WITH_FAULTS, *_GIVEN_UP}),
        State.DONE: frozenset(),
        State.DONE_WITH_FAULTS: frozenset(),
        State.FAILED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)
"""Queued -> done: there was nothing to ask. Polling or downloading -> queued: the server forgot the job, and is asked
once more. Downloading -> polling: the manifest goes on, on a page that is not there yet."""
