"""What is asked for next, and what an archive is asked: pure rules."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dicom.peers import QUIRKS, DicomPeer, Level, Moves, Quirks, Retrieve, Root, Window, overridden
from adapters.dicom.query import Match, Query, halves, study_query
from adapters.dicom.reconcile import Expected, Limits, Progress, Round, begun, gap, next_round, pause, result
from adapters.dicom.retrieving import Watch, storage_contexts
from adapters.dicom.states import PULL, State
from adapters.sources.dicom_move import Ask
from models.errors import Malformed, Misconfigured

LIMITS = Limits()


def expected(**series: int) -> Expected:
    return Expected(
        "1.2", {f"1.2.{name}": frozenset(f"1.2.{name}.{n}" for n in range(count)) for name, count in series.items()}
    )


# ---- rounds ----------------------------------------------------------------------------------------------------------


def rounds(has: Expected, held: set[str], **settings: object) -> list[Round]:
    """The rounds of an archive that sends nothing."""
    made, progress = [], begun(has, held)
    while found := next_round(has, gap(has, held), progress, LIMITS, **settings):  # type: ignore[arg-type]
        made.append(found)
        progress = Progress(progress.round + 1)
    return made


def test_the_ladder_goes_from_the_study_to_single_images_and_ends() -> None:
    levels = [(each.level, each.size) for each in rounds(expected(a=200, b=3), set())]
    assert levels[:5] == [(Level.STUDY, 0), (Level.SERIES, 0), (Level.IMAGE, 64), (Level.IMAGE, 8), (Level.IMAGE, 1)]
    assert levels[5:] == [(Level.IMAGE, 1)] * 3
    assert rounds(expected(a=2), {"1.2.a.0", "1.2.a.1"}) == []


def test_what_is_mostly_here_is_not_asked_for_as_a_whole() -> None:
    has = expected(a=10, b=4)
    assert rounds(has, {f"1.2.a.{n}" for n in range(10)})[0].level is Level.SERIES
    assert rounds(has, set(has.uids()) - {"1.2.a.3"})[0].level is Level.IMAGE
    assert rounds(has, set(), start_at="series")[0].level is Level.SERIES
    assert {each.size for each in rounds(has, set(), start_at="image", uid_lists=False)} == {1}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 90), min_size=1), st.data())
def test_each_round_asks_for_all_that_is_missing_and_for_parents(series: dict[str, int], data: st.DataObject) -> None:
    has = Expected("1.2", expected(**series).series, patient="p")
    held = data.draw(st.sets(st.sampled_from(sorted(has.uids()))))
    lacking = gap(has, held)
    for each in rounds(has, held):
        asked: set[str] = set()
        for query in each.requests(has, lacking, LIMITS):
            query.checked(Root.PATIENT)
            images = query.keys.get("SOPInstanceUID", ())
            if query.level is Level.IMAGE:
                asked |= {images} if isinstance(images, str) else set(images)
            elif query.level is Level.SERIES:
                asked |= has.series[str(query.keys["SeriesInstanceUID"])]
            else:
                asked |= has.uids()
        assert has.uids() - held <= asked
        if each.level is Level.IMAGE:
            assert asked == has.uids() - held


def test_skipped_requests_come_last() -> None:
    has = expected(a=5)
    single, lacking = Round(Level.IMAGE, 1), gap(has, set())
    order = [each.keys["SOPInstanceUID"] for each in single.requests(has, lacking, LIMITS, skip=2)]
    assert order == [f"1.2.a.{n}" for n in (2, 3, 4, 0, 1)]
    assert len(list(single.requests(has, lacking, Limits(singles=3)))) == 3


def test_pauses_only_where_nothing_came() -> None:
    has = expected(a=4)
    lacking = gap(has, {"1.2.a.0"})
    assert pause(Progress(0), lacking, LIMITS) == 0
    assert pause(Progress(2, missing=4), lacking, LIMITS) == 0  # one came
    waits = [pause(Progress(n, missing=3), lacking, LIMITS) for n in range(1, 12)]
    assert waits[:3] == [2, 4, 8]
    assert waits[-1] == LIMITS.longest_pause


def test_late_series_are_told() -> None:
    has = expected(a=2, b=2)
    assert begun(has, set()).late_series == 0
    assert begun(has, {"1.2.a.0", "1.2.a.1"}) == Progress(0, 2, -1, 1)
    assert Progress.of(Progress(3, 2, 1, 1).plain()) == Progress(3, 2, 1, 1)


def test_a_result_says_what_is_missing() -> None:
    has = expected(a=2, b=1)
    told = result(has, gap(has, {"1.2.a.0", "1.2.b.0"}), Progress(8), LIMITS)
    assert (told["expected"], told["stored"], told["missing"], told["complete"]) == (3, 2, ["1.2.a.1"], False)
    assert told["series"] == {"1.2.a": [2, 1], "1.2.b": [1, 0]}
    assert result(has, gap(has, has.uids()), Progress(1), LIMITS)["complete"]
    assert not result(Expected("1.2", {}), gap(Expected("1.2", {}), ()), Progress(), LIMITS)["complete"]


def test_every_state_leads_to_an_end() -> None:
    assert PULL.first == State.ASKED
    assert PULL.ends == {State.COMPLETE, State.PARTIAL, State.FAILED, State.CANCELLED}
    assert "moving --> reconciling" in PULL.diagram()


# ---- questions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"StudyInstanceUID": "1.2.*"}, "StudyInstanceUID"),
        ({"StudyInstanceUID": ""}, None),
        ({"StudyInstanceUID": ("1.2", "")}, "StudyInstanceUID"),
        ({"StudyInstanceUID": "../etc"}, "StudyInstanceUID"),
        ({"StudyInstanceUID": "1" * 65}, "StudyInstanceUID"),
        ({"PatientID": "a\\b"}, "PatientID"),
        ({"PatientID": "a\nb"}, "PatientID"),
        ({"PatientID": ("a", "b")}, "PatientID"),
        ({"StudyDate": "20260132"}, "StudyDate"),
        ({"StudyDate": "20260131-20260101"}, "StudyDate"),
        ({"StudyDate": "-"}, "StudyDate"),
        ({"StudyDate": "2026*"}, "StudyDate"),
        ({"StudyDate": "20260101-"}, None),
        ({"PatientName": "M\u00fc*^?da"}, None),
        ({"PixelData": "1"}, "PixelData"),
    ],
)
def test_keys_are_checked_before_anything_is_sent(keys: dict[str, str | tuple[str, ...]], where: str | None) -> None:
    query = Query(Level.STUDY, keys)
    if where is None:
        assert query.checked(Root.STUDY) is query
        return
    with pytest.raises(Malformed) as wrong:
        query.checked(Root.STUDY)
    assert wrong.value.where == where
    assert not any(str(value) in str(wrong.value) for value in keys.values() if value != "-" and value != "1")


def test_a_pull_names_one_thing_and_no_wildcard() -> None:
    for accession in ("*", "A?", " "):
        with pytest.raises(Malformed):
            study_query(accession=accession)
    with pytest.raises(Misconfigured):
        Ask(modalities=("CT",)).queries(Root.STUDY)
    with pytest.raises(Malformed):
        Ask(since="20260101").queries(Root.PATIENT)
    asked = Ask(patient="p", since="20260101")
    assert Ask.of(asked.plain()) == asked
    (query,) = asked.queries(Root.STUDY)
    assert query.keys == {"PatientID": "p", "StudyDate": "20260101-"}
    assert not asked.means(Match({"StudyInstanceUID": ("1.2",), "PatientID": ("q",)}))
    assert not asked.means(Match({"StudyInstanceUID": ("1.2",), "PatientID": ("p",), "StudyDate": ("20251231",)}))
    assert asked.means(Match({"StudyInstanceUID": ("1.2",), "PatientID": ("p",)}))


@given(st.dates(date(1990, 1, 1), date(2030, 1, 1)), st.integers(0, 5000))
def test_halves_of_a_time_leave_no_day_out(first: date, days: int) -> None:
    last = date.fromordinal(first.toordinal() + days)
    parts = halves(f"{first:%Y%m%d}-{last:%Y%m%d}", last)
    if days == 0:
        assert parts is None
        return
    assert parts is not None
    (a, b), (c, d) = (each.split("-") for each in parts)
    assert (a, d) == (f"{first:%Y%m%d}", f"{last:%Y%m%d}")
    assert (datetime.strptime(c, "%Y%m%d") - datetime.strptime(b, "%Y%m%d")).days == 1  # noqa: DTZ007
    assert halves(f"{first:%Y%m%d}-", last) == (parts[0], f"{c}-")


# ---- peers -----------------------------------------------------------------------------------------------------------


def peer(**settings: object) -> DicomPeer:
    known: dict[str, object] = {"destination": "DST", **settings}
    return DicomPeer("a", "127.0.0.1", 104, "THEM", "US", **known)  # type: ignore[arg-type]


def test_a_peer_is_checked_at_birth() -> None:
    for wrong in ({"destination": ""}, {"destination": "x" * 17}, {"destination": "a\\b"}, {"destination": " a"}):
        with pytest.raises(Misconfigured):
            peer(**wrong)
    assert peer(destination="", retrieve=Retrieve.GET).moves is Moves.SYNC


def test_windows_reach_over_midnight() -> None:
    night = Window.read("22:00-06:00")
    assert night.holds(time(23)) and night.holds(time(5, 59)) and not night.holds(time(6))  # noqa: PT018
    noon = datetime(2026, 1, 2, 12).astimezone()
    assert peer(windows=(night,)).opens_in(noon) == 10 * 3600
    assert peer(windows=(night, Window.read("13:00-14:00"))).opens_in(noon) == 3600
    assert peer().opens_in(noon) == 0
    for spelled in ("22-6", "24:00-06:00", "06:00-06:00", ""):
        with pytest.raises(Misconfigured):
            Window.read(spelled)


def test_switches_are_overridden_one_by_one() -> None:
    assert overridden(QUIRKS["generic"], {"most_matches": 500}) == Quirks(most_matches=500)
    several: list[dict[str, Any]] = [{"most": 1}, {"most_matches": "1"}, {"most_matches": True}]
    for wrong in (*several, {"start_at": "x"}, {"sources": {}}):
        with pytest.raises(Misconfigured):
            overridden(QUIRKS["generic"], wrong)
    known = {"most_matches", "uid_lists", "start_at", "charset", "ask_in", "image_counts"}
    assert all(set(each.sources) <= known for each in QUIRKS.values())


def test_an_association_carries_127_storage_contexts_at_most() -> None:
    assert len(storage_contexts([f"1.2.{n}" for n in range(200)])) == 127
    few = storage_contexts(["1.2.3"])
    assert [str(each.transfer_syntax[0]) for each in few][:2] == ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"]


def test_a_watch_hears_responses_counts_and_arrivals() -> None:
    moment = [0.0]
    limits = peer().timeouts
    watch = Watch(limits, now=lambda: moment[0])

    def after(seconds: float) -> str | None:
        moment[0] += seconds
        return watch.verdict()

    assert after(299) is None
    watch.heard((1, 0))
    assert after(299) is None
    watch.arrived(1)
    assert after(301) is not None  # nothing at all
    watch.heard((1, 0))
    for _ in range(20):
        assert after(200) is None or moment[0] > 598 + limits.idle_pendings
        watch.heard((1, 0))
    assert watch.verdict() is not None  # pendings that say nothing
    watch.arrived(2)
    assert watch.verdict() is None
