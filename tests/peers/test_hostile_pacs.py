"""What archives say and do, each of it once: the end is what is stored, nothing hangs, nothing is believed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from adapters.dicom.finding import Ended, find, listed
from adapters.dicom.peers import DicomPeer, Level, Moves, Quirks, Root
from adapters.dicom.query import Query
from adapters.dicom.reconcile import Limits
from adapters.dicom.retrieving import Said, retrieve
from adapters.sources.dicom_move import Ask, DicomPull
from models.errors import PeerFailed
from tests.peers.hostile_pacs import PENDING, STUDY, Exchange, HostilePacs, written
from tests.peers.stored import Hurried, Remembering

LIMITS = Limits(rounds=6)
STUDY_QUERY = Query(Level.STUDY, {"StudyInstanceUID": STUDY})


@pytest.fixture
def pacs(hostile_pacs: HostilePacs) -> Iterator[HostilePacs]:
    hostile_pacs.play()
    yield hostile_pacs
    hostile_pacs.stop.set()


def pulled(
    pacs: HostilePacs, memory: Remembering | None = None, limits: Limits = LIMITS, **settings: Any
) -> Remembering:
    memory = memory or Remembering()
    peer = pacs.peer(**settings)
    pull = DicomPull(peer, memory, Ask(study=STUDY), pacs.stored, Hurried(), limits=limits, tick=0.05)
    asyncio.run(asyncio.wait_for(pull.run(pacs.stored), 30))
    return memory


def moved(pacs: HostilePacs, **settings: Any) -> Said:
    async def arrivals() -> int:
        return len(pacs.stored.uids)

    return asyncio.run(asyncio.wait_for(retrieve(pacs.peer(**settings), STUDY_QUERY, arrivals=arrivals, tick=0.05), 15))


# ---- C-MOVE: what it says is not what it did -------------------------------------------------------------------------


def test_final_success_with_nothing_delivered_is_partial(pacs: HostilePacs) -> None:
    pacs.move = lambda exchange: exchange.respond(0x0000, completed=8, failed=0, warning=0)
    memory = pulled(pacs)
    assert (memory.state, memory.cause) == ("partial", "8 instances of 1 studies did not come")
    assert memory.remembers["said"] == ["done, status 0000 (8 completed, 0 failed, 0 warning)"]
    assert set(memory.remembers["results"][0]["missing"]) == pacs.uids


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xA801, 0xA900, 0xB000, 0xC001, 0xFE00, 0x0122, 0x1234])
def test_any_final_status_with_everything_delivered_is_complete(pacs: HostilePacs, status: int) -> None:
    def move(exchange: Exchange) -> None:
        pacs.deliver(*pacs.wanted(exchange.asked))
        exchange.respond(status, completed=0, failed=8, warning=0)

    pacs.move = move
    memory = pulled(pacs)
    assert (memory.state, len(pacs.moved)) == ("complete", 1)


def test_no_pendings_at_all_while_things_arrive(pacs: HostilePacs) -> None:
    """For longer than the stall time: what arrives keeps it alive."""

    def move(exchange: Exchange) -> None:
        for uid in sorted(pacs.uids):
            pacs.stop.wait(0.2)
            pacs.deliver(uid)
        exchange.respond(0x0000)

    pacs.move = move
    assert moved(pacs).ended is Ended.DONE
    assert pacs.stored.uids.keys() == pacs.uids


def test_pendings_keep_alive_what_takes_long(pacs: HostilePacs) -> None:
    """From tape: for longer than the stall time it says no more than pending, with counts that stand still."""

    def move(exchange: Exchange) -> None:
        for _ in range(10):
            pacs.stop.wait(0.1)
            exchange.respond(PENDING, remaining=8, completed=0)
        pacs.deliver(*pacs.uids)
        exchange.respond(0x0000)

    pacs.move = move
    said = moved(pacs)
    assert (said.ended, said.responses) == (Ended.DONE, 11)


def test_pending_for_ever_is_cancelled_in_the_end(pacs: HostilePacs) -> None:
    heeded = threading.Event()

    def move(exchange: Exchange) -> None:
        while not exchange.gone and not pacs.stop.is_set():
            if exchange.cancelled:
                heeded.set()
                exchange.respond(0xFE00, remaining=8, completed=0)
                return
            exchange.respond(PENDING, remaining=8, completed=0)
            pacs.stop.wait(0.05)

    pacs.move = move
    said = moved(pacs)
    assert heeded.is_set()
    assert (said.ended, said.status) == (Ended.CANCELLED, 0xFE00)


def test_who_does_not_heed_a_cancel_is_aborted(pacs: HostilePacs) -> None:
    def move(exchange: Exchange) -> None:
        while not exchange.gone and not pacs.stop.is_set():
            exchange.respond(PENDING, remaining=8, completed=0)
            pacs.stop.wait(0.05)

    pacs.move = move
    assert moved(pacs).ended is Ended.STALLED


def test_who_cancels_us_is_not_kept_waiting(pacs: HostilePacs) -> None:
    pacs.move = pacs.linger

    async def cancelled() -> None:
        task = asyncio.create_task(retrieve(pacs.peer(), STUDY_QUERY, tick=0.05))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancelled(), 15))


def test_silence_is_ended(pacs: HostilePacs) -> None:
    pacs.move = pacs.linger
    assert moved(pacs).ended is Ended.STALLED


def test_an_abort_in_the_middle_costs_what_had_not_come(pacs: HostilePacs) -> None:
    def move(exchange: Exchange) -> None:
        pacs.move = None  # the next is honest
        pacs.deliver("1.2.3.1.1", "1.2.3.1.2")
        exchange.respond(PENDING, remaining=6, completed=2)
        exchange.abort()

    pacs.move = move
    memory = pulled(pacs)
    assert memory.state == "complete"
    assert len(pacs.moved) > 1
    assert pacs.stored.uids.keys() == pacs.uids


def test_counts_that_make_no_sense_change_nothing(pacs: HostilePacs) -> None:
    def move(exchange: Exchange) -> None:
        exchange.respond(PENDING, remaining=65_535, completed=0, failed=65_535, warning=9)
        pacs.deliver(*pacs.uids)
        exchange.respond(0x0000, remaining=17, completed=0, failed=65_535, warning=3)

    pacs.move = move
    assert pulled(pacs).state == "complete"


def test_a_list_of_failed_uids_is_a_hint(pacs: HostilePacs) -> None:
    def move(exchange: Exchange) -> None:
        pacs.deliver(*pacs.wanted(exchange.asked))
        exchange.respond(0xB000, written({"FailedSOPInstanceUIDList": b"1.2.3.1.1\\../../etc\\1.2.3.1.2"}), failed=2)

    pacs.move = move
    assert moved(pacs).failed_uids == ("1.2.3.1.1", "1.2.3.1.2")
    pacs.stored.uids.clear()
    assert pulled(pacs).state == "complete"


@pytest.mark.parametrize(
    "identifier", [b"\xff" * 40, b"\x08\x00\x58\x00UI\xff\xff1", b"\x08\x00\x58\x00UI\x04\x00*?\\."]
)
def test_an_identifier_that_cannot_be_read_is_none(pacs: HostilePacs, identifier: bytes) -> None:
    pacs.move = lambda exchange: exchange.respond(0xC000, identifier)
    assert (moved(pacs).status, moved(pacs).failed_uids) == (0xC000, ())


def test_stores_after_the_final_response_are_waited_for(pacs: HostilePacs) -> None:
    def move(exchange: Exchange) -> None:
        exchange.respond(0x0000, completed=8)
        threading.Timer(0.15, pacs.deliver, sorted(pacs.uids)).start()

    pacs.move = move
    timeouts = replace(pacs.peer().timeouts, settle_async=100)  # of the hurried clock: a second
    memory = pulled(pacs, moves=Moves.ASYNC, timeouts=timeouts)
    assert (memory.state, len(pacs.moved)) == ("complete", 1)


def test_one_poisoned_image_is_all_that_is_missing(pacs: HostilePacs) -> None:
    def move(exchange: Exchange) -> None:
        for uid in pacs.wanted(exchange.asked):
            if uid == "1.2.3.1.3":
                exchange.respond(0xC000)
                return
            pacs.deliver(uid)
        exchange.respond(0x0000)

    pacs.move = move
    memory = pulled(pacs)
    assert memory.state == "partial"
    assert memory.remembers["results"][0]["missing"] == ["1.2.3.1.3"]
    levels = [each["QueryRetrieveLevel"] for each in pacs.moved]
    assert levels[0] == "STUDY"
    assert levels[-1] == "IMAGE"
    assert all(each["StudyInstanceUID"] == STUDY for each in pacs.moved)
    assert all("SeriesInstanceUID" in each for each in pacs.moved if each["QueryRetrieveLevel"] == "IMAGE")


def test_an_archive_that_takes_no_lists_is_given_none(pacs: HostilePacs) -> None:
    def move(exchange: Exchange) -> None:
        images = exchange.asked.get("SOPInstanceUID")
        if isinstance(images, str):
            pacs.deliver(images)
        exchange.respond(0x0000 if isinstance(images, str) else 0xA900)

    pacs.move = move
    memory = pulled(pacs, quirks=Quirks(uid_lists=False, start_at="image"))
    assert memory.state == "complete"
    assert all(isinstance(each["SOPInstanceUID"], str) for each in pacs.moved)


def test_a_dead_storage_does_not_cost_a_request_for_each_image(pacs: HostilePacs) -> None:
    pacs.play(move=lambda exchange: exchange.respond(0xC000), images=300)
    memory = pulled(pacs, limits=Limits(rounds=5, barren=4))
    assert memory.state == "partial"
    assert len(pacs.moved) < 20


# ---- C-FIND ----------------------------------------------------------------------------------------------------------


def test_the_parents_of_an_image_are_always_named(pacs: HostilePacs) -> None:
    for root in Root:
        expected = listed(pacs.peer(root=root), STUDY, "p")
        assert expected.uids() == pacs.uids
        images = [each for each in pacs.found if each["QueryRetrieveLevel"] == "IMAGE"]
        assert all(each["StudyInstanceUID"] == STUDY and each["SeriesInstanceUID"] for each in images)
        assert all(("PatientID" in each) is (root is Root.PATIENT) for each in images)
        pacs.found.clear()


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        (b"", b"Made^Person", "Made^Person"),
        (b"ISO_IR 100", b"W\xe4chter^Ada", "W\u00e4chter^Ada"),
        (b"ISO_IR 192", "Wächter^Ada".encode(), "W\u00e4chter^Ada"),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9",
        ),
        (b"GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c"),
    ],
    ids=["ascii", "latin", "utf-8", "japanese", "korean", "chinese"],
)  # fmt: skip
def test_names_in_every_character_set(pacs: HostilePacs, charset: bytes, raw: bytes, name: str) -> None:
    """The three from PS3.5, annexes H, I and J."""

    def answer(exchange: Exchange) -> None:
        values = {"StudyInstanceUID": b"1.2.3", "PatientName": raw}
        exchange.respond(PENDING, written({**values, "SpecificCharacterSet": charset} if charset else values))
        exchange.respond(0x0000)

    pacs.find = answer
    found = find(pacs.peer(), Query(Level.STUDY))
    assert (found.matches[0].text("PatientName"), found.flaws) == (name, [])


@pytest.mark.parametrize(
    ("values", "flawed"),
    [
        ({"SpecificCharacterSet": b"ISO_IR 9999", "PatientName": b"W\xe4chter"}, "SpecificCharacterSet"),
        ({"SpecificCharacterSet": b"ISO_IR 192", "PatientName": b"W\xe4chter"}, "PatientName"),
        ({"StudyInstanceUID": b"../../../etc/passwd"}, "StudyInstanceUID"),
        ({"StudyInstanceUID": b"1." * 200}, "StudyInstanceUID"),
        ({"StudyInstanceUID": b"1.2.*"}, "StudyInstanceUID"),
        ({"PatientName": b"A" * 9000}, "PatientName"),
        ({"NumberOfStudyRelatedInstances": b"many"}, None),
        ({"PatientID": b""}, None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_answer_is_named_without_its_value(
    pacs: HostilePacs, values: dict[str, bytes], flawed: str | None
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(PENDING, written(values))
        exchange.respond(0x0000)

    pacs.find = answer
    found = find(pacs.peer(), Query(Level.STUDY))
    assert found.ended is Ended.DONE
    assert len(found.matches) == 1
    assert [each.partition(":")[0] for each in found.flaws] == ([flawed] if flawed else [])
    assert not any(word in str(found.flaws) for word in ("passwd", "chter", "AAAA"))
    assert found.matches[0].text("StudyInstanceUID") == ""
    assert found.matches[0].whole("NumberOfStudyRelatedInstances") is None


def test_an_answer_that_cannot_be_read_at_all_is_no_answer(pacs: HostilePacs) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(PENDING, b"\x08\x00\x20\x00DA\x08\x00202")  # shorter than it says
        exchange.respond(PENDING, written({"StudyInstanceUID": b"1.2.3"}))
        exchange.respond(0x0000)

    pacs.find = answer
    found = find(pacs.peer(), Query(Level.STUDY))
    assert found.undecodable == 1
    with pytest.raises(PeerFailed):
        found.whole("hostile")
    assert [each.text("StudyInstanceUID") for each in found.matches] == ["1.2.3"]


def test_more_than_we_take_is_cancelled_however_late_that_is_heeded(pacs: HostilePacs) -> None:
    """787 answers came after a cancel, from an archive of the field."""
    sent: list[int] = []

    def answer(exchange: Exchange) -> None:
        row, after = written({"StudyInstanceUID": b"1.2.3"}), -1
        for number in range(100_000):
            if exchange.gone:
                return
            exchange.respond(PENDING, row)
            sent.append(number)
            after = number if after < 0 and exchange.cancelled else after
            if 0 <= after <= number - 300:
                break
        exchange.respond(0xFE00)

    pacs.find = answer
    patient = replace(pacs.peer().timeouts, cancel=20)
    found = find(pacs.peer(timeouts=patient), Query(Level.STUDY), most=5)
    assert (len(found.matches), found.ended) == (5, Ended.CUT)
    assert 300 < len(sent) < 5000


def test_answers_without_end_after_a_cancel_are_aborted(pacs: HostilePacs) -> None:
    def answer(exchange: Exchange) -> None:
        row = written({"StudyInstanceUID": b"1.2.3"})
        while not exchange.gone and not pacs.stop.is_set():
            exchange.respond(PENDING, row)
            pacs.stop.wait(0.001)

    pacs.find = answer
    assert find(pacs.peer(), Query(Level.STUDY), most=5).ended is Ended.CUT


def test_a_limit_of_the_archive_is_met_by_windows_of_dates(pacs: HostilePacs) -> None:
    """It gives three at most: silently, or by A700."""
    days = [f"202601{day:02}" for day in range(1, 11)]

    for final in (0x0000, 0xA700):

        def answer(exchange: Exchange, final: int = final) -> None:
            first, _, last = str(exchange.asked.get("StudyDate") or "-").partition("-")
            fits = [each for each in days if (first or "0") <= each <= (last or "9")]
            for each in fits[:3]:
                exchange.respond(PENDING, written({"StudyInstanceUID": f"1.2.{each}".encode()}))
            exchange.respond(final if len(fits) > 3 else 0x0000)

        pacs.find = answer
        peer = pacs.peer(quirks=Quirks(most_matches=3))
        found = find(peer, Query(Level.STUDY, {"StudyDate": "20260101-20260110"}))
        assert [each.text("StudyInstanceUID") for each in found.matches] == [f"1.2.{each}" for each in days]
        assert found.ended is Ended.DONE
        assert found.questions > 4
        pacs.find = lambda exchange, answer=answer: answer(exchange)
        assert len(find(peer, Query(Level.STUDY)).matches) == 10  # without a date: since the first image


def test_more_on_one_day_than_the_archive_gives_is_said(pacs: HostilePacs) -> None:
    def answer(exchange: Exchange) -> None:
        for each in range(3):
            exchange.respond(PENDING, written({"StudyInstanceUID": f"1.2.{each}".encode()}))
        exchange.respond(0xA700)

    pacs.find = answer
    found = find(pacs.peer(quirks=Quirks(most_matches=3)), Query(Level.STUDY, {"StudyDate": "20260101"}))
    assert (len(found.matches), found.ended, found.status) == (3, Ended.CUT, 0xA700)


@pytest.mark.parametrize(
    ("play", "ended"),
    [
        (lambda exchange: exchange.respond(0xA900), Ended.REFUSED),
        (lambda exchange: exchange.respond(0xFE00), Ended.CANCELLED),
        (lambda exchange: exchange.abort(), Ended.BROKEN),
    ],
    ids=["refused", "cancelled", "aborted"],
)
def test_an_answer_that_is_not_whole_is_never_taken_for_one(pacs: HostilePacs, play: Any, ended: Ended) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(PENDING, written({"StudyInstanceUID": STUDY.encode()}))
        play(exchange)

    pacs.find = answer
    found = find(pacs.peer(), Query(Level.STUDY))
    assert found.ended is ended
    with pytest.raises(PeerFailed):
        found.whole("hostile")
    memory = Remembering()
    with pytest.raises(PeerFailed):
        pulled(pacs, memory)
    assert memory.state == "asked"  # to be taken up


def test_a_find_that_stalls_is_ended(pacs: HostilePacs) -> None:
    pacs.find = pacs.linger
    impatient = replace(pacs.peer().timeouts, answer=0.5)
    assert find(pacs.peer(timeouts=impatient), Query(Level.STUDY)).ended is Ended.STALLED


def test_everybodys_studies_are_not_taken_for_those_asked_for(pacs: HostilePacs) -> None:
    """A key that an archive does not know, it answers as if it had not been asked."""

    def answer(exchange: Exchange) -> None:
        for each in (b"1.9.1", b"1.9.2"):
            exchange.respond(
                PENDING, written({"StudyInstanceUID": each, "PatientID": b"somebody", "AccessionNumber": b"B"})
            )
        exchange.respond(0x0000)

    pacs.find = answer
    memory = pulled(pacs)
    assert (memory.state, memory.cause) == ("failed", "the archive has no such study; 2 others were answered")
    assert pacs.moved == []


def test_instances_that_cannot_be_asked_for_are_no_complete_study(pacs: HostilePacs) -> None:
    pacs.series["1.2.3.2"] = ["1.2.3.2.1", "..\\..", "1.2.3.1.1"]  # none, and one of another series
    memory = pulled(pacs)
    assert memory.state == "partial"
    assert memory.remembers["results"][0]["unaskable"] >= 1


def test_an_archive_that_is_away_leaves_the_job_to_be_taken_up(pacs: HostilePacs) -> None:
    memory = Remembering()
    away: DicomPeer = replace(pacs.peer(), port=1)
    pull = DicomPull(away, memory, Ask(study=STUDY), pacs.stored, Hurried(), tick=0.05)
    with pytest.raises(PeerFailed, match="nothing listens there"):
        asyncio.run(pull.run(pacs.stored))
    assert memory.state == "asked"
    assert pulled(pacs, memory).state == "complete"


def test_nothing_about_patients_is_logged(pacs: HostilePacs, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever level anybody sets: pynetdicom prints whole identifiers at INFO."""
    caplog.set_level(logging.DEBUG)
    find(pacs.peer(), Query(Level.STUDY, {"PatientName": "SECRET^PERSON", "StudyInstanceUID": STUDY}))
    assert pulled(pacs).state == "complete"
    assert "SECRET" not in caplog.text
    assert not [each for each in caplog.records if each.name.startswith(("pynetdicom", "pydicom"))]
