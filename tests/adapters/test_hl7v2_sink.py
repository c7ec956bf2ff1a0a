"""What a receiver's answer may mean, and that an answer is never taken for that of another message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adapters.hl7v2.frames import START
from adapters.sink import Taken
from adapters.sinks.hl7v2_mllp import Mllp, Peer
from adapters.sinks.states import SEND, State
from models.errors import Malformed, PeerFailed
from tests.adapters.hl7v2_receiver import CLOSE, Behaviour, Receiver, ack, always, number_of, receiving
from tests.adapters.hl7v2_senders import adt, feeding

A, B = adt("A"), adt("B")


def play(behave: Behaviour, story: Callable[[Mllp], Awaitable[None]], wait: float = 0.3) -> Receiver:
    async def run(port: int) -> None:
        sink = Mllp(lambda: Peer("127.0.0.1", port, wait=wait))
        try:
            await story(sink)
        finally:
            await sink.close()

    with receiving(behave) as receiver:
        asyncio.run(run(receiver.port))
    return receiver


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        *(("AA", Taken.YES), ("CA", Taken.YES), ("AE", Taken.NO), ("CE", Taken.NO)),
        *(("AR", Taken.LATER), ("CR", Taken.LATER)),
    ],
)
def test_each_code_has_its_meaning(code: str, taken: Taken) -> None:
    async def story(sink: Mllp) -> None:
        told = await sink.deliver(A)
        assert (told.taken, told.code) == (taken, code)

    play(always(code), story, 20)


def test_one_line_serves_many_messages_and_a_not_now_ends_it() -> None:
    async def story(sink: Mllp) -> None:
        for raw in (A, B, A):
            await sink.deliver(raw)

    assert play(always(), story, 20).connections == 1
    assert play(always("AE"), story, 20).connections == 1
    assert play(always("AR"), story, 20).connections == 3


def bad(*said: bytes) -> Behaviour:
    """These instead of the first answer."""
    return lambda raw, before: list(said) if before == 0 else [ack(number_of(raw))]


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(bad(), id="no answer"),
        pytest.param(bad(CLOSE), id="closes"),
        pytest.param(bad(ack("A")[:20], CLOSE), id="closes inside its answer"),
        pytest.param(bad(ack("A")[:20]), id="half an answer"),
        pytest.param(bad(ack("other")), id="another number"),
        pytest.param(bad(ack("")), id="no number"),
        pytest.param(bad(ack("A", "OK")), id="another code"),
        pytest.param(bad(START + b"what?\x1c\r"), id="no message"),
        pytest.param(bad(START + b"x" * 2_000_000 + b"\x1c\r"), id="two megabytes"),
    ],
)
def test_what_says_nothing_of_the_message_is_no_answer_and_ends_the_line(behave: Behaviour) -> None:
    async def story(sink: Mllp) -> None:
        with pytest.raises(PeerFailed) as failed:
            await sink.deliver(A)
        assert "other" not in str(failed.value)
        assert (await sink.deliver(A)).taken is Taken.YES

    receiver = play(behave, story, 2)
    assert receiver.got == [(1, A), (2, A)]


def test_an_answer_that_comes_late_meets_nobody() -> None:
    """The first message is given up; its answer comes with that to the second, on a line that is no longer ours."""

    async def story(sink: Mllp) -> None:
        with pytest.raises(PeerFailed):
            await sink.deliver(A)
        assert (await sink.deliver(B)).code == "AE"

    def behave(raw: bytes, before: int) -> list[bytes]:
        return [] if before == 0 else [ack("B", "AE")]

    receiver = play(behave, story)
    assert receiver.got == [(1, A), (2, B)]


def test_an_answer_to_the_message_before_is_not_one_to_this() -> None:
    async def story(sink: Mllp) -> None:
        await sink.deliver(A)
        with pytest.raises(PeerFailed):
            await sink.deliver(B)

    play(lambda raw, _: [ack("A")], story)


def test_two_answers_to_one_message_are_one() -> None:
    """The second waits in the line when the next message goes out, and is passed over."""

    async def story(sink: Mllp) -> None:
        assert (await sink.deliver(A)).code == "AA"
        await asyncio.sleep(0.05)
        assert (await sink.deliver(B)).code == "AE"

    def behave(raw: bytes, before: int) -> list[bytes]:
        return [ack("A"), ack("A")] if before == 0 else [ack("A"), ack("B", "AE")]

    assert play(behave, story, 20).connections == 1


def test_a_line_that_the_receiver_closed_meanwhile_is_opened_anew() -> None:
    async def story(sink: Mllp) -> None:
        await sink.deliver(A)
        await asyncio.sleep(0.1)
        await sink.deliver(B)

    receiver = play(lambda raw, _: [ack(number_of(raw)), CLOSE], story, 20)
    assert receiver.got == [(1, A), (2, B)]


def test_nobody_there_and_a_message_that_no_frame_can_hold() -> None:
    async def run() -> None:
        sink = Mllp(lambda: Peer("127.0.0.1", 1, wait=1))
        with pytest.raises(PeerFailed, match="no connection"):
            await sink.deliver(A)

    asyncio.run(run())

    async def story(sink: Mllp) -> None:
        with pytest.raises(Malformed):
            await sink.deliver(adt("A", body="NTE|1||\x1c\r\r"))

    play(always(), story)


def test_our_own_listener_takes_what_our_own_sender_sends() -> None:
    async def story() -> None:
        async with feeding() as feed:
            sink = Mllp(lambda: Peer("127.0.0.1", feed.port, wait=20))
            assert [(await sink.deliver(raw)).code for raw in (A, B, A)] == ["AA", "AA", "AA"]
            await sink.close()
            assert feed.kept.messages == [A, B]

    asyncio.run(story())


def test_what_may_follow_on_what() -> None:
    assert SEND.first == State.WAITING
    assert SEND.ends == {State.ACKNOWLEDGED, State.DROPPED}
    assert SEND.moves[State.PARKED] == {State.WAITING, State.DROPPED}
