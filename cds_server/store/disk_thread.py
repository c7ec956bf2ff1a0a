"""A thread that waits for locks and disks, so that an event loop does not.

What `loop.run_in_executor` does, without its second future, its condition and its callbacks: of a group of small acts
that was a tenth of the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_Work = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class DiskThread:
    """Does one thing after the other, in the order in which it was asked."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """What it gives or raises, on the running loop. Begun or not, it is done, also where nobody waits any more."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        self._waiting.put((loop, future, work, args))
        return future

    def close(self) -> None:
        """Finish what was asked for, then stop."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while (asked := self._waiting.get()) is not None:
            _do(*asked)
            del asked  # what it gave is its caller's alone while this waits


def _do(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], work: Callable[..., T], args: tuple[Any, ...]
) -> None:
    result: T | None = None
    error: BaseException | None = None
    try:
        result = work(*args)
    except BaseException as raised:  # noqa: BLE001 (whatever it is, it is for whoever asked)
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_tell, future, result, error)


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
