"""The process that holds messages against their version: it only takes processor time that nobody else wants.

Nothing is loaded here that it does not need: it is started when the first message has been chosen, and stays.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from cds_server.lifetime import end_with_parent
from models.errors import BadInput

MOST_SECONDS = 1.0
"""Of processor time for one message; what takes longer is not checked to its end, and the report has that as a rule."""

Kind = tuple[str, str, str, str, str]
"""Event, version, place, code, rule."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A message to be checked. `left`: milliseconds of processor time that its source still has."""

    source: str
    at: str
    raw: bytes
    charset: str | None
    left: int


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one message; no kinds where it could not be read."""

    kinds: Mapping[Kind, int] = field(default_factory=dict)
    ms: int = 0
    readable: bool = True
    checked: bool = True


def check(asked: Sequence[Asked]) -> list[Told]:
    """Check messages in turn, each source as long as its time lasts; what comes after that is not checked."""
    spent: Counter[str] = Counter()
    told = []
    for each in asked:
        if spent[each.source] >= each.left:
            told.append(Told(checked=False))
            continue
        began = time.process_time()
        try:
            one = Told(_kinds(each))
        except BadInput:
            one = Told(readable=False)
        ms = max(1, round((time.process_time() - began) * 1000))
        spent[each.source] += ms
        told.append(replace(one, ms=ms))
    return told


def _kinds(asked: Asked) -> Counter[Kind]:
    """Raises: BadInput."""
    from adapters.hl7v2.findings import kind_of, known_event
    from adapters.hl7v2.message import parse
    from adapters.hl7v2.structure import conformance, structure_of

    message = parse(asked.raw, asked.charset)
    named = known_event(message), message.version
    structure = structure_of(message) or ""
    found = conformance(asked.raw, MOST_SECONDS, asked.charset, clock=time.process_time)
    return Counter((*named, *kind_of(each, structure)) for each in found)


def _serve(pipe: Connection) -> None:
    """The life of that process: batches in, results out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
    os.nice(19)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(check(pipe.recv()))


class Checker:
    """That process, started when there is something for it to do, and again where it was killed."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cds-conformance")
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._last: Future[list[Told]] | None = None

    def submit(self, asked: Sequence[Asked]) -> Future[list[Told]]:
        self._last = self._thread.submit(self._ask, asked)
        return self._last

    def _ask(self, asked: Sequence[Asked]) -> list[Told]:
        if self._process is None or self._pipe is None or not self._process.is_alive():
            spawn = multiprocessing.get_context("spawn")
            self._pipe, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs,), daemon=True, name="cds-conformance")
            process.start()
            self._process = process  # known from here on, and started: `stop` may kill it
            theirs.close()
        self._pipe.send(asked)
        told: list[Told] = self._pipe.recv()
        return told

    def stop(self) -> None:
        """At once: what it was doing is done again by the next one."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        while self._last is not None and not self._last.done():
            if self._process is not None:  # else it is started this very moment: look again
                self._process.kill()
            wait([self._last], 0.1)
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
