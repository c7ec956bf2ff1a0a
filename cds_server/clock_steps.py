"""Where the wall clock jumped between two entries: each entry carries the time and a clock that only runs forward."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson

from cds_server.ledger.entry import Entry

STEP = 1.0
"""Seconds; less than this is how clocks are."""
SLEW = 0.0005
"""Share of the time that passed by which a clock is allowed to be put right without a jump (500 ppm, NTP's most)."""


class Clock:
    """Watches entries go by; `steps` are the jumps."""

    def __init__(self, before: Entry | None = None) -> None:
        self.steps: list[dict[str, Any]] = []
        self._at: datetime | None = None
        self._processes: dict[str, tuple[datetime, int]] = {}
        if before is not None:
            self._see(before)
            self.steps.clear()

    def watched(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self._see(entry)
            yield entry

    def _see(self, entry: Entry) -> None:
        """Times of one process are held against its own clock; of two processes, time must not run backwards."""
        try:
            body = orjson.loads(entry.body)
            at, boot, mono = datetime.fromisoformat(body["at"]), body["boot"], int(body["mono_ns"])
        except (ValueError, KeyError, TypeError):
            return  # the walk over the entries says that it cannot be read
        seconds = 0.0
        if self._at is not None and (at - self._at).total_seconds() < -STEP:
            seconds = (at - self._at).total_seconds()
        elif (known := self._processes.get(boot)) is not None:
            passed = (mono - known[1]) / 1e9
            off = (at - known[0]).total_seconds() - passed
            if abs(off) > STEP + SLEW * abs(passed):
                seconds = off
        if seconds:
            self.steps.append({"entry": entry.seq, "milliseconds": round(seconds * 1000)})
            self._processes.clear()
        self._at = at
        self._processes[boot] = at, mono
