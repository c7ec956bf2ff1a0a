"""A server that lies, stops, floods or sends us elsewhere: nothing half of an object is kept, and the pull goes on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adapters.dicom.headers import header_of
from adapters.dicom.reconcile import Limits
from adapters.dicom.report import compose
from adapters.sink import Taken, Told
from adapters.sources.dicom_move import Ask
from models.errors import PeerFailed
from tests.adapters.test_dicom_report import REPORT
from tests.dicom_made import ct_series, part10
from tests.peers.hostile_dicomweb import BOUNDARY, RELATED, STUDY, Answer, Asked, HostileWeb, related, row, serving
from tests.peers.stored import Remembering, Stored
from tests.peers.test_dicom_sinks_peer import delivered, stow
from tests.peers.test_dicomweb_peer import pulled

OBJECTS = {str(each.SOPInstanceUID): part10(each) for each in ct_series(name="web-hostile", slices=5, size=16)}
FIRST = min(OBJECTS)
STUDIES = f"/studies/{STUDY}"


@pytest.fixture
def web() -> Iterator[HostileWeb]:
    with serving(HostileWeb(dict(OBJECTS))) as made:
        yield made


def once(said: Callable[[Asked], Answer] | Answer) -> Callable[[Asked], Answer | None]:
    """The first time; the usual answer afterwards."""
    left = [said]

    def answer(asked: Asked) -> Answer | None:
        if not left:
            return None
        found = left.pop()
        return found if isinstance(found, Answer) else found(asked)

    return answer


def pull(web: HostileWeb, **settings: Any) -> tuple[Remembering, Stored]:
    stored = Stored()
    return pulled(web.url, Ask(study=STUDY), stored, limits=Limits(rounds=6), **settings), stored


# ---- bodies ----------------------------------------------------------------------------------------------------------

WHOLE = related(*OBJECTS.values())


@pytest.mark.parametrize(
    "said",
    [
        Answer(media=RELATED.replace(BOUNDARY, "another"), body=WHOLE),
        Answer(media="multipart/related", body=WHOLE),
        Answer(media="text/html", body=b"<html>please sign in</html>"),
        Answer(media=RELATED, body=WHOLE[: len(WHOLE) // 2]),
        Answer(media=RELATED, body=WHOLE[: len(WHOLE) // 2], length=len(WHOLE)),
        Answer(media=RELATED, body=related(*OBJECTS.values(), end=b"")),
        Answer(media=RELATED, body=related(b"no object", b"", bytes(200), bytes(128) + b"DICM" + bytes(40))),
        Answer(media=RELATED, body=b"--" + BOUNDARY.encode() + b"\r\n" + b"A: b\r\n" * 5000),
        Answer(media=RELATED, body=b""),
        Answer(media=RELATED, body=bytes(1 << 20)),
        Answer(media=RELATED, body=gzip.compress(bytes(40 << 20)), headers={"Content-Encoding": "gzip"}),
        Answer(media=RELATED, body=gzip.compress(WHOLE)[:-9], headers={"Content-Encoding": "gzip"}),
        Answer(media=RELATED, body=WHOLE, headers={"Content-Encoding": "br"}),
        Answer(media="application/dicom", body=OBJECTS[FIRST]),
        Answer(media="application/dicom", body=OBJECTS[FIRST][:-40]),
        Answer(503),
        Answer(404),
        Answer(406),
    ],
    ids=lambda said: f"{said.status} {said.media[:24]} {len(said.body)} {said.length} {said.headers}",
)
def test_a_bad_answer_costs_a_round_and_no_object(web: HostileWeb, said: Answer) -> None:
    web.answers[STUDIES] = once(said)
    memory, stored = pull(web)
    assert memory.state == "complete"
    assert {sop: file for sop, file in stored.uids.items() if file != OBJECTS[sop]} in (
        {},
        {FIRST: OBJECTS[FIRST][:-40]},
    )


def test_an_object_that_was_cut_off_inside_the_body_is_not_kept(web: HostileWeb) -> None:
    """The parts before it are; those behind it are asked for by their series."""
    first, second = list(OBJECTS.values())[:2]
    web.answers[STUDIES] = once(Answer(media=RELATED, body=related(first, second)[: len(first) + len(second) // 2]))
    memory, stored = pull(web)
    assert memory.state == "complete"
    assert stored.uids == OBJECTS


def test_an_object_that_was_not_asked_for_is_not_kept(web: HostileWeb) -> None:
    stranger = part10(next(ct_series(name="web-stranger", slices=1, size=16)))
    web.answers[STUDIES] = once(Answer(media=RELATED, body=related(stranger, *OBJECTS.values())))
    memory, stored = pull(web)
    assert memory.state == "complete"
    assert stored.uids == OBJECTS
    assert "an object that was not asked for" in " ".join(memory.remembers["said"])


def test_another_object_under_a_path_is_not_taken_for_the_one(web: HostileWeb) -> None:
    stranger = part10(next(ct_series(name="web-stranger", slices=1, size=16)))
    for path in (STUDIES, STUDIES + "/series/.*"):
        web.answers[path] = lambda _: Answer(media=RELATED, body=related(stranger))
    memory, stored = pull(web)
    assert memory.state == "partial"
    assert stored.uids == {}


def test_an_endless_object_ends_at_the_limit(web: HostileWeb) -> None:
    head = related(OBJECTS[FIRST], end=b"")[:-2]
    web.answers[STUDIES] = once(Answer(media=RELATED, body=head, endless=bytes(1 << 16)))
    memory, stored = pull(web, most=4 << 20, longest=3.0)
    assert memory.state == "complete"
    assert stored.uids == OBJECTS


def test_an_endless_body_of_small_parts_ends_in_time(web: HostileWeb) -> None:
    web.answers[STUDIES] = once(Answer(media=RELATED, endless=related(b"nothing", end=b"")))
    memory, stored = pull(web, longest=1.0)
    assert memory.state == "complete"
    assert stored.uids == OBJECTS


def test_objects_are_asked_for_unpacked(web: HostileWeb) -> None:
    """An empty mask packs a thousandfold, and must not be taken for a bomb."""
    pull(web)
    packing = {each.path.count("/") > 1 and "instances" not in each.path: each.headers for each in web.asked}
    assert packing[True]["accept-encoding"] == "identity"
    assert packing[True]["accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert packing[False]["accept-encoding"] == "gzip, identity"


# ---- listings --------------------------------------------------------------------------------------------------------


def test_small_pages_and_a_server_without_offset(web: HostileWeb) -> None:
    web.page = 2
    memory, stored = pull(web)
    assert (memory.state, len(stored.uids)) == ("complete", 5)


def test_where_it_does_not_know_offset_the_metadata_say_the_rest(web: HostileWeb) -> None:
    web.page, web.pages = 2, False
    memory, stored = pull(web)
    assert (memory.state, len(stored.uids)) == ("complete", 5)
    assert any(each.path.endswith("/metadata") for each in web.asked)


def test_where_instances_are_not_listed_at_all_the_metadata_do(web: HostileWeb) -> None:
    web.answers[STUDIES + "/instances"] = lambda _: Answer(501)
    memory, stored = pull(web)
    assert (memory.state, len(stored.uids)) == ("complete", 5)


def test_an_instance_without_a_sound_uid_makes_the_study_partial(web: HostileWeb) -> None:
    rows = [row(SOPInstanceUID=each, SeriesInstanceUID="1.2.3.1") for each in (*OBJECTS, "../../etc/passwd", "*")]
    web.stated = 7
    web.answers[STUDIES + "/instances"] = lambda asked: (
        Answer(204) if asked.query["offset"] != "0" else Answer(body=json.dumps(rows).encode())
    )
    memory, stored = pull(web)
    assert memory.state == "partial"
    assert memory.cause == "0 instances of 1 studies did not come, 2 cannot be asked for"
    assert len(stored.uids) == 5
    assert not any("etc" in each.path for each in web.asked)


@pytest.mark.parametrize(
    "said",
    [
        Answer(media="text/html", body=b"<html>please sign in</html>"),
        Answer(body=b"{"),
        Answer(body=b"{}"),
        Answer(body=b"[1]"),
        Answer(body=b'["' + b"[" * 1000),
        Answer(body=b"[{}]", headers={"Content-Encoding": "br"}),
        Answer(body=gzip.compress(b" " * (40 << 20), mtime=0), headers={"Content-Encoding": "gzip"}),
        Answer(endless=b" " * (1 << 16)),
        Answer(400),
        Answer(500),
    ],
    ids=lambda said: f"{said.status} {said.body[:8]!r}",
)
def test_a_listing_that_is_none_leaves_the_job_for_later(web: HostileWeb, said: Answer) -> None:
    memory = Remembering()
    web.answers["/studies"] = lambda _: said
    with pytest.raises(PeerFailed):
        pulled(web.url, Ask(study=STUDY), Stored(), memory, attempts=2)
    assert memory.state == "asked"


def test_who_is_not_let_in_or_sent_elsewhere_goes_nowhere(web: HostileWeb) -> None:
    with serving(HostileWeb(dict(OBJECTS))) as elsewhere:
        for said in (Answer(401), Answer(403), Answer(307, headers={"Location": f"{elsewhere.url}/studies"})):
            web.answers["/studies"] = lambda _, said=said: said  # type: ignore[misc]
            before = len(web.asked)
            with pytest.raises(PeerFailed, match=r"let us in|redirects"):
                pulled(web.url, Ask(study=STUDY), Stored())
            assert len(web.asked) == before + 1  # nothing is tried again
        assert elsewhere.asked == []


def test_studies_of_others_are_not_pulled(web: HostileWeb) -> None:
    """A server that does not know a key answers as if it were not asked."""
    rows = [row(StudyInstanceUID=each, NumberOfStudyRelatedInstances=5) for each in ("1.9", "1.8")]
    web.answers["/studies"] = lambda asked: (
        Answer(204) if asked.query["offset"] != "0" else Answer(body=json.dumps(rows).encode())
    )
    memory = pulled(web.url, Ask(accession="A"), Stored())
    assert memory.state == "failed"
    assert "2 others were answered" in str(memory.cause)


# ---- STOW-RS ---------------------------------------------------------------------------------------------------------

FILE = compose(REPORT)
UID = header_of(FILE).sop_uid


def response(failed: dict[str, int] | None = None, stored: tuple[str, ...] = ()) -> bytes:
    made: dict[str, object] = {}
    if failed:
        rows = [
            {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [why]}}
            for uid, why in failed.items()
        ]
        made["00081198"] = {"vr": "SQ", "Value": rows}
    if stored:
        made["00081199"] = {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]}
    return json.dumps(made).encode()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Answer(200, body=response(stored=(UID,))), Told(Taken.YES, "200")),
        (Answer(200), Told(Taken.YES, "200")),
        (Answer(202, body=response(stored=(UID,))), Told(Taken.YES, "202")),
        (Answer(200, body=response({UID: 0xC000})), Told(Taken.NO, "C000")),
        (Answer(202, body=response({UID: 0xA900})), Told(Taken.NO, "A900")),
        (Answer(409, body=response({UID: 0xA700})), Told(Taken.LATER, "A700")),
        (Answer(409, body=response({UID: 0x0110})), Told(Taken.LATER, "0110")),
        (Answer(409, body=response({UID: 0x0111})), Told(Taken.YES, "0111")),
        (Answer(409, body=response({UID: 0x0122})), Told(Taken.NO, "0122")),
        (Answer(409), Told(Taken.NO, "409")),
        (Answer(400, media="text/html", body=b"<html>"), Told(Taken.NO, "400")),
        (Answer(401), Told(Taken.LATER, "401")),
        (Answer(404), Told(Taken.LATER, "404")),
        (Answer(413), Told(Taken.NO, "413")),
        (Answer(503), Told(Taken.LATER, "503")),
    ],
    ids=lambda each: each.code if isinstance(each, Told) else str(each.status),
)
def test_what_each_answer_says_of_the_object(web: HostileWeb, said: Answer, told: Told) -> None:
    web.answers["/studies"] = lambda _: said
    assert delivered(stow(web.url), FILE) == [told]
    (asked,) = web.asked
    assert FILE in asked.body
    assert asked.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')


@pytest.mark.parametrize(
    "said",
    [
        Answer(200, body=response(stored=("1.2.3",))),
        Answer(202),
        Answer(200, body=b"{"),
        Answer(200, endless=b" " * (1 << 16)),
        Answer(307, headers={"Location": "http://127.0.0.1:1/studies"}),
    ],
    ids=["another", "silent", "no JSON", "endless", "elsewhere"],
)
def test_where_it_does_not_say_so_nobody_knows(web: HostileWeb, said: Answer) -> None:
    web.answers["/studies"] = lambda _: said
    with pytest.raises(PeerFailed):
        delivered(stow(web.url), FILE)


def test_nobody_there() -> None:
    with pytest.raises(PeerFailed):
        delivered(stow("http://127.0.0.1:1"), FILE)
