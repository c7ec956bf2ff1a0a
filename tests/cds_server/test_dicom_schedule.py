"""When an archive is asked for new studies, since when, and up to when it then need not be asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.dicom.peers import DicomPeer, Window
from adapters.dicom.query import Match
from adapters.dicom.reconcile import Limits
from adapters.dicom.states import PULL
from adapters.sources.dicom_move import Ask
from cds_server.dicom_schedule import HELD, NEW, begins, cursor_after, is_due, question, scope
from cds_server.dicom_sources import KIND, DicomSource, dicom_sources
from cds_server.jobs import Job, Jobs, Order
from cds_server.settings import load
from cds_server.store.store import Store
from models.errors import Misconfigured
from tests.cds_server.stores import ACTOR

PATHS = {"complete": ("complete",), "partial": ("found", "partial"), "failed": ("failed",)}


def source(**changed: Any) -> DicomSource:
    peer = DicomPeer("pacs", "127.0.0.1", 104, "PACS", "CDS", destination="CDS", **changed.pop("peer", {}))
    return DicomSource("pacs", "hosp", peer, "images", Limits(), **{"every": timedelta(hours=6), **changed})


def ran(store: Store, of: DicomSource, *states: str, mode: str = NEW) -> Job:
    """A job that came so far, with its cursor as a pull would set it."""
    jobs = Jobs(store, KIND, PULL)
    (job,) = jobs.queue(of.name, [Order(mode, scope(of), question(jobs, of, datetime.now(UTC)))], ACTOR)
    for state in states:
        cursor = cursor_after(jobs, of, job, state) if state in PULL.ends else None
        job = jobs.move(job, state, ACTOR, cursor=cursor)
    return job


def in_hours(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def test_it_is_due_at_first_then_every_so_often(store: Store) -> None:
    jobs, of = Jobs(store, KIND, PULL), source()
    assert is_due(store, of)
    assert not is_due(store, source(every=None))
    ran(store, of, "complete")
    assert not is_due(store, of)
    assert not begins(jobs, of, in_hours(5.9))
    assert is_due(store, of, in_hours(6.1))


def test_what_was_left_is_taken_up_at_once_and_nothing_is_asked_beside_it(store: Store) -> None:
    jobs, of = Jobs(store, KIND, PULL), source()
    ran(store, of, "complete")
    ran(store, of, "found", mode="studies")
    assert is_due(store, of)
    assert not begins(jobs, of, datetime.now(UTC))
    ran(store, of, "found")
    assert not begins(jobs, of, in_hours(7))


def test_a_pull_by_hand_does_not_put_it_off(store: Store) -> None:
    of = source()
    ran(store, of, "complete", mode="studies")
    assert is_due(store, of)


def test_not_outside_the_archives_hours(store: Store) -> None:
    of = source(peer={"windows": (Window.read("22:00-06:00"),)})
    noon = datetime.now().astimezone().replace(hour=12, minute=0)
    assert not is_due(store, of, noon)
    assert is_due(store, of, noon.replace(hour=23))


@pytest.mark.parametrize(
    ("end", "later"), [("complete", timedelta()), ("partial", -HELD), ("failed", None)], ids=PATHS.keys()
)
def test_the_next_question_begins_where_the_last_one_ended_well(
    store: Store, end: str, later: timedelta | None
) -> None:
    jobs, of = Jobs(store, KIND, PULL), source(since="20200101", look_back_days=3)
    job = ran(store, of, *PATHS[end])
    moment = datetime.fromisoformat(job.queued_at) - timedelta(days=3)
    expected = "20200101" if later is None else f"{moment + later:%Y%m%d}"
    assert question(jobs, of, datetime.now(UTC)) == {"since": expected}


def test_a_study_that_stays_incomplete_moves_the_cursor_no_further_back(store: Store) -> None:
    jobs, of = Jobs(store, KIND, PULL), source()
    first = ran(store, of, "complete")
    ran(store, of, "found", "partial")
    before = jobs.cursor(scope(of))
    assert before is not None
    assert (before.id, before.cursor) == (first.id, first.queued_at)


def test_other_modalities_are_another_question(store: Store) -> None:
    jobs, now = Jobs(store, KIND, PULL), datetime.now(UTC)
    ran(store, source(since="20200101"), "complete")
    assert question(jobs, source(since="20200101", modalities=("MR", "CT")), now) == {
        "since": "20200101",
        "modalities": ["MR", "CT"],
    }
    assert question(jobs, source(), now)["since"] == f"{now - timedelta(days=2):%Y%m%d}"


def test_each_modality_is_asked_for_by_itself_and_answers_are_looked_at() -> None:
    asked = Ask.of({"since": "20260101", "modalities": ["CT", "MR"]})
    assert Ask.of(asked.plain()) == asked
    assert [each.keys["ModalitiesInStudy"] for each in asked.queries(source().peer.root)] == ["CT", "MR"]
    known = {"StudyInstanceUID": ("1.2",), "StudyDate": ("20260102",)}
    assert asked.means(Match({**known, "ModalitiesInStudy": ("SR", "MR")}))
    assert asked.means(Match(known))
    assert not asked.means(Match({**known, "ModalitiesInStudy": ("US",)}))
    assert not asked.means(Match({**known, "StudyDate": ("20251231",)}))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('every = "6"', "span of time"),
        ('modalities = ["CT"]', "set every"),
        ('every = "6h"\nmodalities = ["ct*"]', "no modality"),
        ('every = "6h"\nsince = "2026-13-01"', "no day"),
        ('every = "6h"\nroot = "patient"', "patient root"),
        ('every = "6h"\nlook_back_days = 0', "look_back_days"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Any, lines: str, told: str) -> None:
    with pytest.raises(Misconfigured, match=told):
        configured(tmp_path, lines)


def test_settings_of_the_clock(tmp_path: Any) -> None:
    found = configured(tmp_path, 'every = "6h"\nmodalities = ["CT", "MR"]\nsince = "2026-01-31"\nlook_back_days = 5')
    assert (found.every, found.modalities, found.since, found.look_back_days) == (
        timedelta(hours=6),
        ("CT", "MR"),
        "20260131",
        5,
    )


def configured(tmp_path: Any, lines: str) -> DicomSource:
    config = tmp_path / "cds.toml"
    config.write_text(
        '[[source]]\nname = "pacs"\nkind = "dicom"\nnamespace = "hosp"\nhost = "127.0.0.1"\n'
        f'ae_title = "PACS"\nretrieve = "get"\n{lines}\n'
    )
    return dicom_sources(load({"CDS_CONFIG": str(config)}))["pacs"]
