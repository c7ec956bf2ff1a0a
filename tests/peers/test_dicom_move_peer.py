"""Against Debian's Orthanc, in both of its ways to answer a C-MOVE: what came is what counts, whatever it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from typing import Any

import pytest

from adapters.dicom.association import Cause, echo
from adapters.dicom.finding import Ended, find, listed
from adapters.dicom.peers import DicomPeer, Level, Moves, Quirks, Retrieve, Root, Timeouts
from adapters.dicom.query import Query
from adapters.dicom.receiving import Storing
from adapters.sources.dicom_move import Ask, DicomPull
from models.errors import Malformed, Misconfigured
from tests.dicom_made import ct_series, enhanced_ct, mammogram, many, part10, uid
from tests.peers.pacs import Pacs, free_ports
from tests.peers.stored import Hurried, Remembering, Staged, Stored, storage

US, THEM, NOBODY = "MOVESCU", "MOVEDST", "MOVEDEAD"
TIMES = Timeouts(connect=5, accept=5, answer=20, stall=20, settle=0.5, settle_async=1.5, cancel=3)
WHOLE = 1938


def peer_of(pacs: Pacs, **settings: Any) -> DicomPeer:
    moves = Moves.SYNC if pacs.synchronous else Moves.ASYNC
    known = {"moves": moves, "destination": THEM, "timeouts": TIMES, **settings}
    return DicomPeer("archive", "127.0.0.1", pacs.port, "ORTHANC", US, **known)


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module", params=["sync", "async"])
def archive(request: pytest.FixtureRequest, port: int) -> Pacs:
    found: Pacs = request.getfixturevalue("pacs" if request.param == "sync" else "pacs_async")
    found.introduce(US, free_ports(1)[0])
    found.introduce(THEM, port)
    found.introduce(NOBODY, free_ports(1)[0])
    assert set(found.load(part10(each) for each in many(name="move-60", count=60, per_series=20))) == {200}
    return found


@pytest.fixture(scope="module")
def filled(pacs: Pacs) -> Pacs:
    """With 1938 instances in four series of one study."""
    pacs.introduce(US, free_ports(1)[0])
    assert set(pacs.load(part10(each) for each in many(name="move-all", count=WHOLE))) == {200}
    return pacs


@pytest.fixture
def stored(port: int) -> Iterator[Stored]:
    kept = Stored()
    with storage(kept, THEM, port):
        yield kept


def pulled(peer: DicomPeer, asked: Ask, stored: Stored, memory: Remembering | None = None) -> Remembering:
    memory = memory or Remembering()
    storing = Storing("archive", "made") if peer.retrieve is Retrieve.GET else None
    asyncio.run(DicomPull(peer, memory, asked, stored, Hurried(), storing, tick=0.05).run(stored))
    return memory


def uids(name: str, counted: dict[int, int]) -> set[str]:
    return {str(uid(name, series, number)) for series, most in counted.items() for number in range(1, most + 1)}


SIXTY = uids("move-60", {1: 20, 2: 20, 3: 20})


# ---- retrieval -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [Ask(study=str(uid("move-60"))), Ask(accession="A-move-60"), Ask(patient="made-move-60", since="20260101")],
    ids=["study", "accession", "patient"],
)
def test_everything_that_it_has_is_moved_once(archive: Pacs, stored: Stored, asked: Ask) -> None:
    memory = pulled(peer_of(archive), asked, stored)
    assert (memory.state, memory.cause) == ("complete", None)
    assert set(stored.uids) == SIXTY
    assert len(stored.came) == 60
    assert memory.remembers["results"][0]["expected"] == memory.remembers["results"][0]["stored"] == 60


def test_what_is_stored_is_not_asked_for_again(archive: Pacs, stored: Stored) -> None:
    pulled(peer_of(archive), Ask(study=str(uid("move-60"))), stored)
    memory = pulled(peer_of(archive), Ask(study=str(uid("move-60"))), stored)
    assert memory.state == "complete"
    assert "moving" not in [state for state, _ in memory.steps]
    assert len(stored.came) == 60


def test_the_patient_root_is_asked_with_every_key_above(archive: Pacs, stored: Stored) -> None:
    memory = pulled(peer_of(archive, root=Root.PATIENT), Ask(patient="made-move-60"), stored)
    assert memory.state == "complete"
    assert set(stored.uids) == SIXTY


def test_a_series_that_comes_late_is_fetched_by_itself(archive: Pacs, stored: Stored) -> None:
    name = f"move-late-{archive.synchronous}"
    archive.load(part10(each) for each in ct_series(name=name, slices=4, size=16))
    assert pulled(peer_of(archive), Ask(study=str(uid(name))), stored).state == "complete"
    archive.load(part10(each) for each in ct_series(name=name, slices=3, size=16, series=2))
    memory = pulled(peer_of(archive), Ask(study=str(uid(name))), stored)
    assert memory.state == "complete"
    assert memory.remembers["results"][0]["late_series"] == 1
    assert memory.remembers["results"][0]["held_first"] == 4
    assert len(stored.came) == 7  # nothing twice


def test_a_dead_destination_ends_partial_whatever_is_answered(archive: Pacs) -> None:
    """Asynchronous, it answers success; synchronous, a failure without counts."""
    memory = pulled(peer_of(archive, destination=NOBODY), Ask(study=str(uid("move-60"))), Stored())
    assert memory.state == "partial"
    assert memory.cause == "60 instances of 1 studies did not come"
    result = memory.remembers["results"][0]
    assert (result["stored"], result["expected"], set(result["missing"])) == (0, 60, SIXTY)
    said = memory.remembers["said"][0]
    assert said.startswith("refused, status C000" if archive.synchronous else "done, status 0000")


def test_one_object_that_cannot_be_sent_costs_itself_only(archive: Pacs, stored: Stored) -> None:
    """It fails the whole move: so series by series, and image by image in the end."""
    poison = str(uid("move-60", 2, 7))
    stored.refuse = lambda sop, _count: 0xA700 if sop == poison else 0
    memory = pulled(peer_of(archive), Ask(study=str(uid("move-60"))), stored)
    assert poison in stored.came, stored.came.count(poison)
    assert memory.state == "partial"
    assert memory.remembers["results"][0]["missing"] == [poison]
    assert set(stored.uids) == SIXTY - {poison}


def test_a_storage_that_fails_for_a_while_is_made_good(archive: Pacs, stored: Stored) -> None:
    failures = iter([0xA700] * 3)
    stored.refuse = lambda _sop, count: next(failures, 0) if count >= 30 else 0
    memory = pulled(peer_of(archive), Ask(study=str(uid("move-60"))), stored)
    assert memory.state == "complete"
    assert set(stored.uids) == SIXTY


def test_killed_at_any_step_another_process_takes_it_up(archive: Pacs, stored: Stored) -> None:
    """Before each step of an undisturbed pull once: nothing is lost, and the job comes to the same end."""
    for fatal in range(6):
        stored.uids.clear()
        memory = Remembering()
        seen = count()

        def before(_to: str, seen: count[int] = seen, fatal: int = fatal) -> None:
            if next(seen) == fatal:
                raise KeyboardInterrupt

        memory.before = before
        with pytest.raises(KeyboardInterrupt):
            pulled(peer_of(archive), Ask(study=str(uid("move-60"))), stored, memory)
        pulled(peer_of(archive), Ask(study=str(uid("move-60"))), stored, memory)
        assert memory.state == "complete", fatal
        assert set(stored.uids) == SIXTY


def test_a_get_brings_it_over_our_own_connection(archive: Pacs) -> None:
    stored = Stored()
    memory = pulled(peer_of(archive, retrieve=Retrieve.GET, destination=""), Ask(study=str(uid("move-60"))), stored)
    assert memory.state == "complete"
    assert set(stored.uids) == SIXTY
    assert all(each[128:132] == b"DICM" for each in stored.uids.values())


def test_a_get_negotiates_for_the_classes_of_the_study(archive: Pacs) -> None:
    name = "move-kinds"
    objects = chain([mammogram(name=name, rows=64, columns=64)], [enhanced_ct(name=f"{name}-2", frames=3, size=16)])
    archive.load(part10(each) for each in objects)
    for study in (name, f"{name}-2"):
        stored = Stored()
        memory = pulled(peer_of(archive, retrieve=Retrieve.GET, destination=""), Ask(study=str(uid(study))), stored)
        assert (memory.state, len(stored.uids)) == ("complete", 1)


def test_a_get_holds_fragments_and_no_object(filled: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    """(D18): each is stored as it comes; an object may be of any length."""
    filled.load([part10(mammogram(name="move-large", rows=2048, columns=2048))])
    sizes: list[int] = []
    write = Staged.write

    async def watched(staged: Staged, chunk: bytes) -> None:
        sizes.append(len(chunk))
        await write(staged, chunk)

    monkeypatch.setattr(Staged, "write", watched)
    peer, stored = peer_of(filled, retrieve=Retrieve.GET, destination=""), Stored()
    assert pulled(peer, Ask(study=str(uid("move-large"))), stored).state == "complete"
    assert max(sizes) <= peer.max_pdu
    assert sum(sizes) == sum(map(len, stored.uids.values())) > 8_000_000


def test_several_moves_at_a_time(archive: Pacs, stored: Stored) -> None:
    quirks = Quirks(start_at="series")
    memory = pulled(peer_of(archive, concurrency=3, quirks=quirks), Ask(study=str(uid("move-60"))), stored)
    assert memory.state == "complete"
    assert len(stored.came) == 60


def test_a_study_that_it_does_not_have_is_a_failure_and_no_empty_success(archive: Pacs) -> None:
    memory = pulled(peer_of(archive), Ask(study="1.2.3.4.5.6"), Stored())
    assert (memory.state, memory.cause) == ("failed", "the archive has no such study")
    memory = pulled(peer_of(archive), Ask(patient="made-move-60", since="20300101"), Stored())
    assert (memory.state, memory.cause) == ("complete", "the archive has no such study")


# ---- echo and find ---------------------------------------------------------------------------------------------------


def test_echo_tells_what_is_in_the_way(filled: Pacs) -> None:
    peer = peer_of(filled)
    assert echo(peer).fine
    stranger, misnamed = echo(replace(peer, our_ae_title="STRANGER")), echo(replace(peer, ae_title="WRONG"))
    assert stranger.cause is misnamed.cause is Cause.REJECTED
    assert "calling ae title not recognised" in stranger.told
    assert "called ae title not recognised" in misnamed.told
    assert echo(replace(peer, port=free_ports(1)[0])).cause is Cause.REFUSED
    assert echo(replace(peer, host="nowhere.invalid")).cause is Cause.NAME


def test_1938_instances_are_found(filled: Pacs) -> None:
    expected = listed(peer_of(filled), str(uid("move-all")))
    assert (expected.count, len(expected.series), expected.stated) == (WHOLE, 4, WHOLE)
    assert expected.uids() == uids("move-all", {1: 500, 2: 500, 3: 500, 4: 438})
    assert expected.classes == {"1.2.840.10008.5.1.4.1.1.2"}
    assert not expected.contradicts


def test_no_more_is_taken_than_the_limit_says(filled: Pacs) -> None:
    above = {"StudyInstanceUID": str(uid("move-all")), "SeriesInstanceUID": str(uid("move-all", 1))}
    found = find(peer_of(filled), Query(Level.IMAGE, above), most=5)
    assert (len(found.matches), found.ended) == (5, Ended.CUT)
    whole = find(peer_of(filled), Query(Level.IMAGE, above), most=500)
    assert (len(whole.matches), whole.ended) == (500, Ended.DONE)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"PatientName": "W\u00e4chter*"}, {"move-name-1"}),
        ({"PatientName": "W\u00e4chter^?da"}, {"move-name-1"}),
        ({"StudyDate": "20250601-20250630"}, {"move-name-1", "move-name-2"}),
        ({"StudyDate": "-20250610", "PatientID": "move-names"}, {"move-name-1"}),
        ({"StudyDate": "20250611-", "PatientID": "move-names"}, {"move-name-2"}),
        ({"StudyInstanceUID": (str(uid("move-name-1")), str(uid("move-name-2")))}, {"move-name-1", "move-name-2"}),
        ({"AccessionNumber": "A-move-name-2"}, {"move-name-2"}),
    ],
)  # fmt: skip
def test_what_is_matched(filled: Pacs, keys: dict[str, Any], found: set[str]) -> None:
    for name, person, date in (("move-name-1", "W\u00e4chter^Ada", "20250610"), ("move-name-2", "Ono^Ken", "20250620")):
        made = ct_series(
            name=name,
            slices=1,
            size=16,
            patient_id="move-names",
            patient_name=person,
            study_date=date,
            accession=f"A-{name}",
        )
        filled.load(part10(each) for each in made)
    matches = find(peer_of(filled), Query(Level.STUDY, keys)).matches
    assert {each.text("StudyInstanceUID") for each in matches} == {str(uid(name)) for name in found}
    names = {each.text("PatientName") for each in matches if each.text("StudyInstanceUID") == str(uid("move-name-1"))}
    assert names <= {"W\u00e4chter^Ada"}


@pytest.mark.parametrize("root", Root)
def test_each_level_is_answered(filled: Pacs, root: Root) -> None:
    peer = peer_of(filled, root=root)
    keys: dict[str, Any] = {"PatientID": "made-move-all"}
    if root is Root.PATIENT:
        assert [each.text("PatientID") for each in find(peer, Query(Level.PATIENT, keys)).matches] == ["made-move-all"]
    else:
        keys = {}
    keys["StudyInstanceUID"] = str(uid("move-all"))
    assert len(find(peer, Query(Level.STUDY, keys)).matches) == 1
    assert len(find(peer, Query(Level.SERIES, keys)).matches) == 4
    keys["SeriesInstanceUID"] = str(uid("move-all", 4))
    assert len(find(peer, Query(Level.IMAGE, keys)).matches) == 438


def test_what_breaks_the_hierarchy_is_not_sent(filled: Pacs) -> None:
    peer = replace(peer_of(filled), port=1)  # nothing listens there
    with pytest.raises(Malformed, match="StudyInstanceUID"):
        find(peer, Query(Level.SERIES))
    with pytest.raises(Malformed, match="PatientID"):
        find(replace(peer, root=Root.PATIENT), Query(Level.STUDY, {"StudyInstanceUID": "1.2"}))
    with pytest.raises(Misconfigured, match="PATIENT"):
        find(peer, Query(Level.PATIENT))
