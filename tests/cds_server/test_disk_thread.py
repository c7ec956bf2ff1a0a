"""The thread that waits for disks on behalf of an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cds_server.store.disk_thread import DiskThread


@pytest.fixture
def disk() -> Iterator[DiskThread]:
    thread = DiskThread("test-disk")
    yield thread
    thread.close()


def test_what_it_gives_or_raises_is_had_on_the_loop_in_order(disk: DiskThread) -> None:
    done: list[int] = []

    def work(number: int) -> tuple[int, str]:
        done.append(number)
        if number == 2:
            raise OSError(28, "full")
        return number, threading.current_thread().name

    async def ask() -> list[object]:
        return list(await asyncio.gather(*(disk.run(work, number) for number in range(4)), return_exceptions=True))

    told = asyncio.run(ask())
    assert done == [0, 1, 2, 3]
    assert [told[0], told[1], told[3]] == [(number, "test-disk") for number in (0, 1, 3)]
    assert isinstance(told[2], OSError)


def test_the_loop_goes_on_meanwhile_and_who_left_is_not_told(disk: DiskThread) -> None:
    """A caller that was cancelled: its work is done all the same, and the next one is answered."""
    release, done = threading.Event(), threading.Event()

    def slow() -> None:
        release.wait(10)
        done.set()

    async def ask() -> str:
        waiting = asyncio.ensure_future(disk.run(slow))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        return await disk.run(str, "next")

    assert asyncio.run(ask()) == "next"
    assert done.is_set()


def test_a_loop_that_ended_does_not_end_the_thread(disk: DiskThread) -> None:
    release, begun = threading.Event(), threading.Event()

    def slow() -> bool:
        begun.set()
        return release.wait(10)

    async def leave() -> None:
        disk.run(slow)

    asyncio.run(leave())
    release.set()
    assert begun.wait(10)

    async def ask() -> int:
        return await disk.run(int, "7")

    assert asyncio.run(ask()) == 7


def test_closing_finishes_what_was_asked_and_it_may_be_asked_again(disk: DiskThread) -> None:
    done: list[int] = []

    async def ask() -> None:
        for number in range(50):
            disk.run(done.append, number)

    asyncio.run(ask())
    disk.close()
    assert done == list(range(50))
    asyncio.run(ask())
    disk.close()
    assert len(done) == 100
