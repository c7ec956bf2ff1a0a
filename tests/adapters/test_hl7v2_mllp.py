"""The listener over real sockets, row by row of what a receiver owes (docs/hl7v2.md). The intake keeps in memory; the
real one, in real processes, is in tests/peers/test_mllp_peer.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from ipaddress import ip_network
from typing import Any

import pytest
import uvloop

from adapters.hl7v2.frames import START, TRAILER, frame
from adapters.sources import hl7v2_mllp
from models.errors import DiskFull, Misconfigured, ReadOnlyStore
from tests.adapters.hl7v2_senders import Kept, adt, cause, feeding, said, until


def play(story: Coroutine[Any, Any, None]) -> None:
    """On the loop that `cds listen` runs on."""
    uvloop.run(story)


# ---- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 7, 1000, None])
def test_any_split_and_any_merge_gives_the_same_answers_in_order(step: int | None) -> None:
    """(F1): the bytes of twenty messages, one a write, or all in one."""

    async def story() -> None:
        messages = [adt(f"M{number}") for number in range(20)]
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(b"".join(map(frame, messages)), step)
            assert await sender.said(20) == [f"AA M{number}" for number in range(20)]
            assert feed.kept.messages == messages
            assert await sender.silent(0.05)

    play(story())


def test_the_plain_loop_of_asyncio_will_do() -> None:
    """(F1): nothing leans on uvloop."""

    async def story() -> None:
        async with feeding() as feed:
            assert await (await feed.sender()).tell(adt("A"), adt("B")) == ["AA A", "AA B"]

    asyncio.run(story())


def test_bytes_between_frames_are_passed_over_and_counted() -> None:
    """(F2): line ends, NULs, keep-alives, an empty frame."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(b"\r\n\0 hello" + frame(adt("A")) + b"\r\n" + START + TRAILER + frame(adt("B")) + b"\0\0")
            assert await sender.said(2) == ["AA A", "AA B"]
            await feed.counted("skipped bytes", 8 + 2 + 2 + 2)
            assert feed.mllp.counts.of["messages"] == 2

    play(story())


def test_an_end_byte_without_cr_is_data() -> None:
    """(F3): of a source that is not lenient."""

    async def story() -> None:
        odd = adt("A", body="NTE|1||a\x1cb\r")
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(START + odd + b"\x1c")
            assert await sender.silent(0.6)
            await sender.send(b"\x1c\r")
            assert await sender.said() == ["AA A"]
            assert feed.kept.messages == [odd + b"\x1c"]

    play(story())


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_lenient_source_may_leave_the_cr_out(pieces: int) -> None:
    """(F3): after a short silence, also where the message came in pieces: not only after that of a stalled frame."""

    async def story() -> None:
        async with feeding(lenient_trailer=True, idle_seconds=3600) as feed:
            sender = await feed.sender()
            for number in range(3):
                raw = START + adt(f"M{number}") + b"\x1c"
                size = len(raw) // pieces + 1
                for at in range(0, len(raw), size):
                    await sender.send(raw[at : at + size])
                    await asyncio.sleep(0.02)
                assert await sender.said() == [f"AA M{number}"]
            await sender.send(START + adt("A") + b"\x1c" + START + adt("B") + b"\x1c")
            assert await sender.said(2) == ["AA A", "AA B"]

    play(story())


def test_a_second_start_byte_drops_what_was_begun() -> None:
    """(F4): two messages are never glued together."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(START + adt("A")[:40] + frame(adt("B")))
            assert await sender.said() == ["AA B"]
            assert feed.kept.messages == [adt("B")]
            assert feed.mllp.counts.of["dropped frames"] == 1

    play(story())


@pytest.mark.parametrize("step", [None, 700])
def test_a_message_that_is_too_long_is_refused_by_its_id(step: int | None) -> None:
    """(F5): and the connection lives."""

    async def story() -> None:
        async with feeding(max_message=2000) as feed:
            sender = await feed.sender()
            await sender.send(frame(adt("LONG", body="NTE|1||" + "x" * 9000 + "\r")), step)
            await sender.send(frame(adt("NEXT")))
            refused, taken = await sender.answers(2)
            assert (said(refused), cause(refused)) == ("AR LONG", "104")
            assert said(taken) == "AA NEXT"
            assert feed.kept.messages == [adt("NEXT")]
            await sender.send(frame(adt("ENHANCED", accept="ER", application="AL", body="x" * 3000)))
            assert await sender.said() == ["CR ENHANCED"]

    play(story())


def test_half_a_frame_is_no_message() -> None:
    """(F6): the sender goes, or is silent for too long: nothing is stored, nothing is answered."""

    async def story() -> None:
        async with feeding(idle_seconds=1) as feed:
            sender = await feed.sender()
            await sender.send(START + adt("A") + b"\x1c")
            sender.writer.write_eof()
            assert await sender.closed() == b""
            stalled = await feed.sender()
            await stalled.send(frame(adt("B")) + START + adt("C"))
            assert await stalled.said() == ["AA B"]
            assert await stalled.closed() == b""
            assert feed.mllp.counts.of["stalled frames"] == 1
            assert feed.kept.messages == [adt("B")]
            await until(lambda: feed.mllp.counts.open == 0)
            assert feed.mllp.counts.of["dropped frames"] == 2

    play(story())


def test_a_sender_that_shuts_its_side_still_hears_its_answers() -> None:
    """(F6): whole frames before the end are taken and answered."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(b"".join(frame(adt(f"M{number}")) for number in range(5)))
            sender.writer.write_eof()
            assert await sender.said(5) == [f"AA M{number}" for number in range(5)]
            assert await sender.closed() == b""

    play(story())


# ---- connections -----------------------------------------------------------------------------------------------------


def test_silence_between_frames_ends_nothing() -> None:
    """(F7): feeds are silent for hours; TCP asks, and small answers leave at once."""

    async def story() -> None:
        async with feeding(idle_seconds=1) as feed:
            sender = await feed.sender()
            assert await sender.tell(adt("A")) == ["AA A"]
            (connection,) = feed.mllp.connections
            assert connection._transport is not None
            at = connection._transport.get_extra_info("socket")
            assert at.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert at.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == hl7v2_mllp.KEEP_ALIVE
            assert at.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await asyncio.sleep(1.5)
            assert await sender.tell(adt("B")) == ["AA B"]

    play(story())


def test_a_sender_that_takes_no_answers_is_given_up_and_others_are_served() -> None:
    """(F7): it sends and never reads."""

    async def story() -> None:
        async with feeding(write_seconds=1) as feed:
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.connect(("127.0.0.1", feed.port))
            small.setblocking(False)
            deaf = await feed.sender()
            loop = asyncio.get_running_loop()
            many = b"".join(frame(adt(f"D{number}", body="")) for number in range(500))

            async def flood() -> None:
                for _ in range(400):
                    await loop.sock_sendall(small, many)

            flooding = asyncio.create_task(flood())
            for number in range(20):
                assert await deaf.tell(adt(f"M{number}")) == [f"AA M{number}"]
            await feed.counted("slow readers")
            with pytest.raises(OSError):  # reset or broken pipe, as it happens
                await flooding
            small.close()
            assert await deaf.tell(adt("LAST")) == ["AA LAST"]

    play(story())


def test_no_more_connections_than_are_allowed() -> None:
    """(F7): one too many is closed, and does not cost those that are there; a place that is left is free."""

    async def story() -> None:
        async with feeding(max_connections=2) as feed:
            first, second = await feed.sender(), await feed.sender()
            assert await first.tell(adt("A")) == ["AA A"]
            assert await second.tell(adt("B")) == ["AA B"]
            assert await (await feed.sender()).closed() == b""
            assert feed.mllp.counts.of["too many connections"] == 1
            assert await first.tell(adt("C")) == ["AA C"]
            await second.close()
            await until(lambda: feed.mllp.counts.open == 1)
            assert await (await feed.sender()).tell(adt("D")) == ["AA D"]

    play(story())


def test_only_addresses_on_the_list_come_in() -> None:
    """(F7): a stranger is closed before a byte of it is read."""

    async def story() -> None:
        networks = (ip_network("127.0.0.2/32"), ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
        async with feeding(allow=networks) as feed:
            assert await (await feed.sender()).closed() == b""
            assert feed.mllp.counts.of["strangers"] == 1
            known = await feed.sender(local_addr=("127.0.0.2", 0))
            assert await known.tell(adt("A")) == ["AA A"]
            assert feed.mllp.lets_in("::ffff:10.1.2.3")
            assert feed.mllp.lets_in("fd00::1")
            assert not feed.mllp.lets_in("192.0.2.1")
            assert not feed.mllp.lets_in("")

    play(story())


def test_an_address_that_is_taken_is_said() -> None:
    """(F7): a listener that cannot listen is no listener."""

    async def story() -> None:
        async with feeding() as feed:
            other = hl7v2_mllp.Mllp(hl7v2_mllp.Listening("127.0.0.1", feed.port), "other", "hosp")
            with pytest.raises(Misconfigured, match="cannot listen for other"):
                await other.run(Kept())

    play(story())


# ---- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["AE", "AR"])
@pytest.mark.parametrize(
    "trouble",
    [
        DiskFull("the record cannot be written: the disk is full"),
        ReadOnlyStore("the record cannot be written: the data directory is read-only"),
        OSError(5, "Input/output error"),
    ],
    ids=["full", "read-only", "broken"],
)
def test_what_is_not_durable_is_not_acknowledged(trouble: Exception, code: str) -> None:
    """(F9) (A2) (A6): the sender hears what its source is set to, and the same message is taken later."""

    async def story() -> None:
        async with feeding(on_trouble=code) as feed:
            sender = await feed.sender()
            feed.kept.trouble = trouble
            await sender.send(frame(adt("A")))
            (answer,) = await sender.answers()
            assert (said(answer), cause(answer)) == (f"{code} A", "207")
            await sender.send(frame(adt("B", accept="AL", application="AL")))
            assert await sender.said() == [f"C{code[1]} B"]
            assert await sender.silent(0.05), "what is not accepted has no answer of the application"
            assert feed.kept.messages == []
            assert feed.kept.abandoned == 2
            feed.kept.trouble = None
            assert await sender.tell(adt("A")) == ["AA A"]
            assert feed.kept.messages == [adt("A")]

    play(story())


def test_a_mistake_of_ours_ends_the_connection_and_answers_nothing() -> None:
    """(A6): whatever it was, the sender may come again and be told the truth."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            feed.kept.trouble = RuntimeError("a bug")
            await sender.send(frame(adt("A")) + frame(adt("B")))
            assert await sender.closed() == b""
            feed.kept.trouble = None
            assert await (await feed.sender()).tell(adt("A"), adt("B")) == ["AA A", "AA B"]

    play(story())


@pytest.mark.parametrize(("count", "size"), [(30_000, 200), (60, 200_000)])
def test_a_sender_that_does_not_wait_is_not_read_on(count: int, size: int) -> None:
    """(F9): while the disk is slow, what waits stays small, by number and by bytes; then all are answered in order."""

    async def story() -> None:
        kept = Kept(gate=asyncio.Event())
        async with feeding(kept, max_message=1 << 20) as feed:
            sender = await feed.sender()
            raw = b"".join(frame(adt(f"M{number}", body="x" * size)) for number in range(count))
            sending = asyncio.create_task(sender.send(raw, 50_000))
            await feed.counted("messages")
            await asyncio.sleep(0.5)
            (connection,) = feed.mllp.connections
            waiting = [event.payload for event in connection._waiting if hasattr(event, "payload")]
            assert waiting
            assert sum(map(len, waiting)) < 2 << 20
            assert not sending.done()
            assert kept.gate is not None
            kept.gate.set()
            assert await sender.said(count) == [f"AA M{number}" for number in range(count)]
            await sending
            assert len(kept.messages) == count

    play(story())


def test_a_positive_answer_comes_after_the_commit_and_not_before() -> None:
    """(A6): the answer waits for what makes it true."""

    async def story() -> None:
        kept = Kept(gate=asyncio.Event())
        async with feeding(kept) as feed:
            sender, other = await feed.sender(), await feed.sender()
            await sender.send(frame(adt("A")))
            await other.send(frame(adt("B", accept="AL", application="AL")))
            await feed.counted("messages", 2)
            assert await sender.silent()
            assert await other.silent()
            assert kept.messages == []
            assert kept.gate is not None
            kept.gate.set()
            assert await sender.said() == ["AA A"]
            assert await other.said(2) == ["CA B", "AA B"]

    play(story())


def test_a_stop_finishes_what_is_in_progress() -> None:
    """(F10): half a frame is completed, a commit is awaited, both are answered; idle ones end; nobody new comes in."""

    async def story() -> None:
        kept = Kept(gate=asyncio.Event())
        async with feeding(kept) as feed:
            idle, half, committing = await feed.sender(), await feed.sender(), await feed.sender()
            raw = frame(adt("HALF"))
            await half.send(raw[:30])
            await committing.send(frame(adt("COMMITTING")))
            await feed.counted("messages")
            await until(lambda: any(each._decoder.inside for each in feed.mllp.connections))
            feed.task.cancel()
            assert await idle.closed() == b""
            with pytest.raises(ConnectionRefusedError):
                await feed.sender()
            await half.send(raw[30:])
            assert kept.gate is not None
            kept.gate.set()
            assert await half.said() == ["AA HALF"]
            assert await committing.said() == ["AA COMMITTING"]
            assert await half.closed() == b""
            assert await committing.closed() == b""
            await asyncio.wait([feed.task])
            assert sorted(kept.messages) == [adt("COMMITTING"), adt("HALF")]

    play(story())


def test_a_stop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """(F10): a frame that never ends is given up."""
    monkeypatch.setattr(hl7v2_mllp, "GRACE", 0.2)

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(START + adt("A"))
            await until(lambda: any(each._decoder.inside for each in feed.mllp.connections))
            feed.task.cancel()
            assert await sender.closed() == b""
            await asyncio.wait([feed.task], timeout=10)
            assert feed.task.done()
            assert feed.kept.messages == []

    play(story())


def test_over_what_all_may_hold_the_largest_are_given_up() -> None:
    """(F9): of all connections of all sources together; small senders never pay for large ones."""

    async def story() -> None:
        async with feeding() as feed:
            feed.mllp.room.limit = 400_000
            small = await feed.sender()
            await small.send(START + b"MSH|^~")
            large = [await feed.sender() for _ in range(3)]
            for number, sender in enumerate(large):
                await sender.send(START + b"x" * (100_000 + 50_000 * number))
            assert await large[2].closed() == b""
            assert feed.mllp.counts.of["no room"] == 1
            assert await large[0].silent(0.1)
            assert await small.tell(adt("A")) == ["AA A"]
            assert 250_000 <= feed.mllp.room.taken <= 400_000
            for sender in large:
                await sender.close()
            await until(lambda: feed.mllp.room.taken < 1000)

    play(story())
