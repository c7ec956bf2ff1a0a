"""Which answers the listener sends, over real sockets: rows A1 to A8, C1 and C12 of what a receiver owes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from adapters.hl7v2.frames import START, TRAILER, frame
from models.errors import DiskFull
from tests.adapters.hl7v2_senders import Kept, adt, cause, feeding, said
from tests.adapters.test_hl7v2_mllp import play

CODES = ("", "AL", "NE", "ER", "SU")


def due(accept: str, application: str, good: bool) -> list[str]:
    """By 2.9.2 and table 0155."""
    if not accept and not application:
        return ["AA" if good else "AE"]
    wanted = {"AL"} | ({"SU"} if good else {"ER"})
    first = (["CA"] if good else ["CE"]) if accept in wanted else []
    return first + (["AA"] if good and application in wanted else [])


@pytest.mark.parametrize("good", [True, False], ids=["stored", "trouble"])
def test_every_pair_of_msh_15_and_16(good: bool) -> None:
    """(A1): original and enhanced mode; what is owed is sent, on the same connection, and nothing else."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            feed.kept.trouble = None if good else DiskFull("the disk is full")
            expected: list[str] = []
            for number, (accept, application) in enumerate(itertools.product(CODES, CODES)):
                await sender.send(frame(adt(f"M{number}", accept=accept, application=application)))
                expected += [f"{code} M{number}" for code in due(accept, application, good)]
            assert await sender.said(len(expected)) == expected
            await sender.send(frame(adt("LAST")))
            assert await sender.said() == [f"{'AA' if good else 'AE'} LAST"]
            assert len(feed.kept.messages) == (26 if good else 0)

    play(story())


@pytest.mark.parametrize(
    ("options", "mode", "code"),
    [
        ({}, "P^T", "AA"),
        ({}, 'P^""', "AA"),
        ({}, "P^A", "AR"),
        ({}, "P^I", "AR"),
        ({}, "P^R", "AR"),
        ({}, "P^?", "AR"),
        ({"modes": frozenset("I")}, "P^I", "AA"),
        ({"modes": frozenset("I")}, "P^A", "AR"),
        ({"modes": frozenset("I"), "processing": frozenset("P")}, "T^I", "AR"),
    ],
)
def test_what_is_not_current_processing_is_taken_only_where_it_is_expected(
    options: dict[str, Any], mode: str, code: str
) -> None:
    """(C12): an archive or an initial load says old things in new messages (MSH-11.2, table 0207)."""

    async def story() -> None:
        async with feeding(**options) as feed:
            sender = await feed.sender()
            await sender.send(frame(adt("M", mode=mode)))
            (answer,) = await sender.answers()
            assert said(answer) == f"{code} M"
            if code == "AR":
                assert cause(answer) == "202"
            assert len(feed.kept.messages) == (code == "AA")

    play(story())


def test_what_is_meant_for_another_receiver_is_refused() -> None:
    """(C12): by MSH-5 and MSH-6, where the source names who we are."""

    async def story() -> None:
        async with feeding(receivers=frozenset({("CDS", "X"), ("TWIN", "")})) as feed:
            sender = await feed.sender()
            others = [
                adt("B").replace(b"|CDS|X|", b"|CDS|WEST|"),
                adt("C").replace(b"|CDS|X|", b"|PACS|X|"),
                adt("D").replace(b"|CDS|X|", b"|||"),
                adt("E").replace(b"|CDS|X|", b"|TWIN^1.2.3^ISO|WEST|"),
            ]
            assert await sender.tell(adt("A"), *others) == ["AA A", "AR B", "AR C", "AR D", "AA E"]
            await sender.send(frame(others[0]))
            (answer,) = await sender.answers()
            assert cause(answer) == "207"
            assert b"MSH^1^5" in answer
            assert len(feed.kept.messages) == 2

    play(story())


@pytest.mark.parametrize(
    ("raw", "code", "why"),
    [
        (adt("T1", mode="T"), "AR T1", "202"),
        (adt("D1", mode="D"), "AR D1", "202"),
        (adt("T2", mode="T^A"), "AR T2", "202"),
        (adt("V3", version="3.0"), "AR V3", "203"),
        (adt(""), "AR ", "101"),
    ],
    ids=["training", "debugging", "with a mode", "not v2", "no control id"],
)
def test_what_is_not_taken_is_refused_with_its_cause(raw: bytes, code: str, why: str) -> None:
    """(A2) (A3) (C12): AR by MSH-11, MSH-12 and MSH-10, and nothing of it is stored."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(frame(raw))
            (answer,) = await sender.answers()
            assert said(answer).rstrip() == code.rstrip()
            assert (cause(answer) if b"|3.0" not in answer else why) == why
            assert feed.kept.staged == 0
            assert await sender.tell(adt("NEXT")) == ["AA NEXT"]

    play(story())


def test_a_test_system_may_take_tests() -> None:
    """(C12): where its source says so; an empty MSH-11 counts as production."""

    async def story() -> None:
        async with feeding(processing=frozenset({"T", "P"})) as feed:
            sender = await feed.sender()
            assert await sender.tell(adt("A", mode="T"), adt("B", mode="")) == ["AA A", "AA B"]
            assert await sender.tell(adt("C", mode="D")) == ["AR C"]

    play(story())


@pytest.mark.parametrize("raw", [b"hello", b"MSH", b"\x00" * 50, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PID|1\r"])
def test_what_is_no_message_is_refused_and_costs_nobody_anything(raw: bytes) -> None:
    """(A3): no MSH can be read, and still there is an answer."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(frame(raw))
            (answer,) = await sender.answers()
            assert said(answer).startswith("AR")
            assert feed.kept.staged == 0
            assert await sender.tell(adt("NEXT")) == ["AA NEXT"]

    play(story())


def test_the_header_of_an_answer_is_turned_round() -> None:
    """(A4): over the wire as in the template; delimiters, version and processing id are the sender's."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(frame(adt("A").replace(b"|", b"!").replace(b"^~\\&", b"@~\\&").replace(b"^", b"@")))
            fields = (await sender.answers())[0].split(b"\r")[0].split(b"!")
            assert fields[1:6] == [b"@~\\&", b"CDS", b"X", b"LAB", b"HOSP"]
            assert fields[8] == b"ACK@A01@ACK"
            assert fields[10:12] == [b"P", b"2.5.1"]

    play(story())


def test_bytes_that_would_break_an_answer_are_left_out() -> None:
    """(A5): 0x1C, and what else no header holds; the frames stay whole."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            await sender.send(START + adt("A\x1cB\x00C") + TRAILER + frame(adt("NEXT")))
            assert await sender.said(2) == ["AA ABC", "AA NEXT"]

    play(story())


def test_what_could_not_be_applied_is_told_and_stays_stored() -> None:
    """(A7): `ack_after = "applied"`: accepted, and an error of the application with a reason in our words."""

    async def story() -> None:
        async def applied(landing: str) -> str | None:
            return "the message was stored and could not be understood" if landing == "landing2" else None

        async with feeding(applied=applied, ack_after="applied") as feed:
            sender = await feed.sender()
            assert await sender.tell(adt("GOOD")) == ["AA GOOD"]
            await sender.send(frame(adt("BAD", accept="AL", application="AL")))
            accepted, answer = await sender.answers(2)
            assert (said(accepted), said(answer), cause(answer)) == ("CA BAD", "AE BAD", "207")
            assert b"ERR" not in accepted
            assert b"could not be understood" in answer
            assert len(feed.kept.messages) == 2

    play(story())


def test_by_default_nobody_waits_for_it_to_be_applied() -> None:
    """(A7): `ack_after = "persist"`."""

    async def story() -> None:
        async def applied(landing: str) -> str | None:
            raise AssertionError("it was asked")

        async with feeding(applied=applied) as feed:
            assert await (await feed.sender()).tell(adt("A")) == ["AA A"]

    play(story())


@pytest.mark.parametrize("kind", ["ACK", "ACK^A01^ACK", "MCF"])
def test_an_acknowledgement_is_never_answered(kind: str) -> None:
    """(A8): nor stored; even where it asks for it, or is too long."""

    async def story() -> None:
        async with feeding(max_message=2000) as feed:
            sender = await feed.sender()
            for size in (10, 5000):
                await sender.send(
                    frame(adt("A", kind=kind, accept="AL", application="AL", body="MSA|AA|" + "x" * size))
                )
            assert await sender.silent()
            assert feed.kept.staged == 0
            assert await sender.tell(adt("B")) == ["AA B"]

    play(story())


def test_the_same_message_again_is_answered_the_same_and_stored_once() -> None:
    """(C1): over eight connections at once, then again."""

    async def story() -> None:
        async with feeding() as feed:
            senders = [await feed.sender() for _ in range(8)]
            messages = [adt(f"M{number}") for number in range(30)]
            for _ in range(2):
                told = await asyncio.gather(*(sender.tell(*messages) for sender in senders))
                assert told == [[f"AA M{number}" for number in range(30)]] * 8
            assert sorted(feed.kept.messages) == sorted(messages)
            assert feed.mllp.counts.of["duplicates"] == 16 * 30 - 30

    play(story())


def test_a_number_that_is_used_again_for_other_bytes_is_another_message() -> None:
    """(C1): control ids begin anew; the second is stored too, once."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            other = adt("A", body="PID|1||456^^^HOSP^MR||ROE^RICHARD\r")
            assert await sender.tell(adt("A"), other, adt("A"), other) == ["AA A"] * 4
            assert feed.kept.messages == [adt("A"), other]
            assert feed.mllp.counts.of["numbers used again"] == 1

    play(story())


def test_the_same_number_of_another_sender_is_another_message() -> None:
    """(C1): the key is of the source, MSH-3, MSH-4 and MSH-10."""

    async def story() -> None:
        kept = Kept()
        async with feeding(kept) as feed:
            sender = await feed.sender()
            await sender.tell(adt("A"), adt("A").replace(b"|LAB|", b"|RAD|"), adt("A").replace(b"|HOSP|", b"|WEST|"))
            assert len(kept.messages) == 3
            assert sum(len(key) < 60 for key in kept.keys) == 3, "none of them needed the key for other bytes"

    play(story())


def test_each_message_of_a_batch_is_answered_for_itself() -> None:
    """(C11): FHS and BHS in one frame; one bad message does not fail the rest, and counts that differ lose nothing."""

    async def story() -> None:
        async with feeding() as feed:
            sender = await feed.sender()
            messages = adt("A") + adt("T", mode="T") + adt("B")
            await sender.send(frame(b"FHS|^~\\&|LAB\rBHS|^~\\&|LAB\r" + messages + b"BTS|7\rFTS|1\r"))
            assert await sender.said(3) == ["AA A", "AR T", "AA B"]
            assert feed.kept.messages == [adt("A"), adt("B")]
            assert feed.mllp.counts.of["odd batches"] == 1
            await sender.send(frame(b"BHS|^~\\&|LAB\rBTS|0\r"))
            (answer,) = await sender.answers()
            assert (said(answer).strip(), feed.kept.staged) == ("AR", 2)

    play(story())
