"""Images that landed are indexed; a study that has settled becomes one ImagingStudy, and grows when more comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from pydicom.dataset import Dataset

from adapters.dicom.part10 import MEDIA_TYPE
from adapters.dicom.states import PULL, State
from cds_server.backlog import digest_backlog, redo
from cds_server.imaging.studies import Settling
from cds_server.imaging.work import Imaging
from cds_server.jobs import Jobs, Order
from cds_server.reading import NO_RULES, SourceRules
from cds_server.store.store import Store
from tests.cds_server.stores import ACTOR, JOINING, land_parts
from tests.dicom_made import ct_series, part10


def arrive(store: Store, datasets: Iterable[Dataset], *, together: bool = False) -> None:
    """Objects as C-STORE lands them, one by one; `together`: as files of one delivery."""
    files = [part10(each) for each in datasets]
    for parts in [files] if together else [[file] for file in files]:
        land_parts(store, parts, media_type=MEDIA_TYPE)


def imaging(store: Store, *, quiet: float = 0.0, rules: SourceRules = NO_RULES) -> Imaging:
    return Imaging(store, JOINING, rules, quiet=quiet)


def open_types(store: Store) -> Counter[str]:
    """Resources that are open, by type."""
    rows = store.reads.query(
        "SELECT r.type FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id WHERE c.id IS NULL"
    )
    return Counter(row[0] for row in rows)


def flags(store: Store) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in store.reads.query("SELECT kind, reason FROM flag ORDER BY id")]


def outcomes(store: Store) -> list[tuple[str, int]]:
    return [(row[0], row[1]) for row in store.reads.query("SELECT outcome, objects FROM examined_study ORDER BY id")]


@pytest.mark.parametrize("together", [False, True])
def test_a_series_becomes_one_study_of_one_patient(store: Store, together: bool) -> None:
    arrive(store, ct_series(slices=12), together=together)
    work = imaging(store)
    assert work.index() == (1 if together else 12)
    assert open_types(store) == {}, "an image says nothing by itself"
    assert work.settle() == 1
    assert open_types(store) == {"Patient": 1, "ImagingStudy": 1, "Observation": 2, "Media": 3}
    assert outcomes(store) == [("examined", 12)]
    assert flags(store) == []
    assert work.some() == 0, "nothing is new"


def test_a_late_series_opens_the_study_again(store: Store) -> None:
    work = imaging(store)
    arrive(store, ct_series(slices=3))
    work.some()
    arrive(store, ct_series(slices=2, series=2))
    work.some()
    assert outcomes(store) == [("examined", 3), ("examined", 5)]
    assert open_types(store)["ImagingStudy"] == 1
    closed = store.reads.query("SELECT r.type FROM resource_closing c JOIN resource r ON r.id = c.resource_id")
    assert [row[0] for row in closed] == ["ImagingStudy"]


def test_a_study_waits_until_nothing_more_comes(store: Store) -> None:
    arrive(store, ct_series(slices=2))
    work = imaging(store, quiet=3600)
    assert work.index() == 2
    assert work.settle() == 0
    assert work.everything().asserted == 3, "the patient, the study, and that two slices are too few for features"


def test_each_source_has_its_own_patience(store: Store) -> None:
    arrive(store, ct_series(slices=2))
    work = Imaging(store, JOINING, NO_RULES, quiet=0.0, by_source={"test": 3600.0})
    assert work.index() == 2
    assert work.settle() == 0


def test_another_process_finds_the_studies_that_were_left(store: Store) -> None:
    """Who indexed them was killed before they had settled."""
    arrive(store, ct_series(slices=2))
    imaging(store, quiet=3600).some()
    settling = Settling(store, 0.0, {})
    settling.look()
    assert len(settling.due()) == 1
    assert imaging(store).some() == 1
    left = Settling(store, 0.0, {})
    left.look()
    assert left.due() == []


def test_a_study_of_two_patients_is_nobodys(store: Store) -> None:
    arrive(store, [*ct_series(slices=2), *ct_series(slices=2, series=2, patient_id="made-2")])
    imaging(store).some()
    assert open_types(store) == {}
    assert outcomes(store) == [("refused", 4)]
    assert flags(store) == [("unmatched", "study")]


def test_an_object_without_a_patients_number_is_flagged_and_its_study_refused(store: Store) -> None:
    arrive(store, ct_series(slices=1, patient_id=""))
    imaging(store).some()
    assert flags(store) == [("unmatched", "subject"), ("quarantine", "study")]
    assert open_types(store) == {}


def test_other_bytes_under_the_same_uid_are_kept_and_not_used(store: Store) -> None:
    [first] = ct_series(slices=1)
    [second] = ct_series(slices=1)
    second.WindowCenter = 41
    arrive(store, [first, second], together=True)
    work = imaging(store)
    work.some()
    assert flags(store) == [("flag", "conflict")]
    assert outcomes(store) == [("examined", 1)]
    rows = store.reads.query("SELECT part, other FROM dicom_object ORDER BY id")
    assert [(row[0], bool(row[1])) for row in rows] == [(0, False), (1, True)]


def test_what_is_no_dicom_object_is_quarantined_by_its_place(store: Store) -> None:
    land_parts(store, [b"no object", *(part10(each) for each in ct_series(slices=1))], media_type=MEDIA_TYPE)
    tally = digest_backlog(store, JOINING, ACTOR)
    assert tally.quarantined == 1
    assert store.reads.one("SELECT COUNT(*) FROM dicom_object")[0] == 1


def test_a_redo_sees_the_same(store: Store) -> None:
    arrive(store, ct_series(slices=4))
    imaging(store).some()
    before = store.reads.one("SELECT COUNT(*) FROM dicom_object")[0], open_types(store)
    tally = redo(store, JOINING, ACTOR)
    assert (tally.asserted, tally.superseded, tally.quarantined) == (0, 0, 0)
    assert (store.reads.one("SELECT COUNT(*) FROM dicom_object")[0], open_types(store)) == before


def test_nothing_of_an_image_stands_readable_in_the_database(store: Store) -> None:
    arrive(store, ct_series(slices=1, patient_name="Qwertzenberg^Aloysiane", patient_id="PLANT-7741"))
    imaging(store).some()
    store.close()
    for path in store.data_dir.rglob("*"):
        if path.is_file():
            assert not any(each in path.read_bytes() for each in (b"Qwertzenberg", b"PLANT-7741")), path.name


def ended(store: Store, study: str, *, expected: int, stored: int) -> None:
    """A pull of one study, as `dicom_pulls` leaves it at its end."""
    jobs = Jobs(store, "dicom", PULL)
    [job] = jobs.queue("pacs", [Order("studies", "dicom:pacs", {})], ACTOR)
    result = {"study": study, "expected": expected, "stored": stored, "complete": expected == stored}
    job = jobs.move(job, State.FOUND, ACTOR, remember={"results": [result]})
    jobs.move(job, State.COMPLETE if expected == stored else State.PARTIAL, ACTOR)


def test_a_pull_that_ended_settles_its_study_and_says_what_is_missing(store: Store) -> None:
    slices = list(ct_series(slices=3))
    arrive(store, slices)
    work = Imaging(store, JOINING, NO_RULES, quiet=3600, namespaces={"pacs": "a"})
    assert work.some() == 3
    assert outcomes(store) == []
    ended(store, slices[0].StudyInstanceUID, expected=5, stored=3)
    assert work.some() == 1
    rows = store.reads.query("SELECT outcome, complete FROM examined_study")
    assert [(row[0], bool(row[1])) for row in rows] == [("examined", False)]
    arrive(store, ct_series(slices=2, series=2))
    ended(store, slices[0].StudyInstanceUID, expected=5, stored=5)
    assert work.some() == 3
    rows = store.reads.query("SELECT objects, complete FROM examined_study ORDER BY id")
    assert [(row[0], bool(row[1])) for row in rows] == [(3, False), (5, True)]
