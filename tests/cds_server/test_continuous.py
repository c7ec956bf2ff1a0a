"""From a feed's message to a score that nobody asked for; and what a correction, a wrong patient, a merge do to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from adapters.hl7v2.feed import Feed
from adapters.readers.hl7v2 import MESSAGE
from cds_server.app import Parts, build
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.continuous import Subscriber
from cds_server.reading import Rules
from cds_server.recalls import Recaller
from cds_server.reproduce import all_refs, load, reproduce
from cds_server.settings import Settings
from tests.cds_server.stores import JOINING, land_parts

RULES = {"test": Rules(Feed("ward"), "")}
ILL = {"9279-1": "27", "59408-5": "89", "3151-8": "4", "8480-6": "88", "8867-4": "132", "8310-5": "39.4"}
WELL = {"9279-1": "14", "59408-5": "98", "3151-8": "0", "8480-6": "124", "8867-4": "70", "8310-5": "36.8"}
UNITS = {"9279-1": "/min", "59408-5": "%", "3151-8": "L/min", "8480-6": "mm[Hg]", "8867-4": "/min", "8310-5": "Cel"}


def stamp(minutes_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes_ago)).strftime("%Y%m%d%H%M%S+0000")


def adt(
    event: str, patient: str = "77", *, born: str = "19500301", merged: str | None = None, ago: float = 60
) -> bytes:
    lines = [
        f"MSH|^~\\&|ADT|H|CDS|H|{stamp(ago)}||ADT^{event}|{event}-{patient}-{ago}|P|2.5.1",
        f"EVN|{event}|{stamp(ago)}",
        f"PID|1||{patient}^^^H^MR||WARD^WILLA||{born}|F",
        *([f"MRG|{merged}^^^H^MR"] if merged else []),
        "PV1|1|I|W^101^1",
    ]
    return "\r".join(lines).encode()


def oru(
    values: dict[str, str], patient: str = "77", *, status: str = "F", ago: float = 30, filler: str = "F1"
) -> bytes:
    lines = [
        f"MSH|^~\\&|MON|H|CDS|H|{stamp(ago)}||ORU^R01|{filler}-{status}-{ago}|P|2.5.1",
        f"PID|1||{patient}^^^H^MR||WARD^WILLA||19500301|F",
        f"OBR|1||{filler}|85353-1^Vital signs^LN|||{stamp(40)}|||||||||||||||{stamp(ago)}||NRS|{status}",
    ]
    for place, (code, value) in enumerate(values.items(), 1):
        unit = UNITS[code]
        lines.append(f"OBX|{place}|NM|{code}^x^LN||{value}|{unit}^^UCUM|||||{status}|||{stamp(40)}")
    lines.append(f"OBX|{len(values) + 1}|CWE|67775-7^ACVPU^LN||LA9340-6^Alert^LN||||||{status}|||{stamp(40)}")
    return "\r".join(lines).encode()


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    built = build(settings)
    yield built
    built.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def feed(parts: Parts, *messages: bytes) -> None:
    """What the listener lands and the background makes of it."""
    for message in messages:
        land_parts(parts.store, [message], namespace="ward", media_type=MESSAGE)
    digest_backlog(parts.store, JOINING, "system", validate=False, rules=RULES)
    for worker in (
        Recaller(parts.store, parts.registry),
        Subscriber(parts.store, parts.registry, parts.decisions),
    ):
        while worker.some():
            pass


def points(parts: Parts) -> list[float | None]:
    """Of each score so far; None where it abstained."""
    found = []
    for ref in all_refs(parts.store.reads):
        score = load(parts.store, ref).plain()["score"]
        found.append(float(score["outputs"]["points"][0]) if score.get("abstained") is None else None)
    return found


def reasons(parts: Parts) -> list[str]:
    return [row[0] for row in parts.store.reads.query("SELECT reason FROM flag ORDER BY id")]


def test_vital_signs_of_a_feed_are_scored_on_record_and_a_warning_waits_for_somebody(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    assert points(parts) == [16.0]
    assert reasons(parts) == ["warned"]
    (ref,) = all_refs(parts.store.reads)
    assert reproduce(parts.registry, load(parts.store, ref)).equal
    assert load(parts.store, ref).call["outcome"] == "unasked"
    assert parts.store.reads.query("SELECT 1 FROM card") == []


def test_someone_who_is_well_is_scored_and_nobody_is_called(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(WELL))
    assert points(parts) == [0.0]
    assert reasons(parts) == []


def test_what_no_service_asks_for_is_not_scored(parts: Parts) -> None:
    feed(parts, adt("A01"))
    assert points(parts) == []


def test_each_fact_set_is_scored_once_and_a_warning_is_said_once(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    feed(parts, oru({**ILL, "8867-4": "125"}, ago=20, filler="F2"))
    feed(parts)
    assert len(points(parts)) == 2
    assert reasons(parts) == ["warned"]


def test_a_corrected_result_flags_the_inference_and_scores_again(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    feed(parts, oru(WELL, status="C", ago=10))
    assert points(parts) == [16.0, 0.0]
    assert reasons(parts) == ["warned", "corrected"]


def test_a_late_preliminary_does_not_replace_a_final(parts: Parts) -> None:
    """It was sent before the final, and came after it."""
    feed(parts, adt("A01"), oru(WELL, ago=20))
    feed(parts, oru(ILL, status="P", ago=30))
    assert points(parts) == [0.0]


def test_a_preliminary_that_is_sent_after_a_final_does_not_replace_it(parts: Parts) -> None:
    """Final is final (tables 0085, 0123): only a correction follows, whatever MSH-7 says."""
    feed(parts, adt("A01"), oru(WELL, ago=30))
    feed(parts, oru(ILL, status="P", ago=20))
    assert points(parts) == [0.0]
    feed(parts, oru(ILL, status="C", ago=15))
    feed(parts, oru(WELL, status="P", ago=10))
    assert points(parts) == [0.0, 16.0]


def test_a_final_replaces_a_preliminary_that_was_stamped_later(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL, status="P", ago=20))
    feed(parts, oru(WELL, ago=30))
    assert points(parts) == [0.0]


def test_results_of_the_wrong_patient_are_withdrawn_at_once(parts: Parts) -> None:
    """OBX-11 W: nothing of it is known any more, and who scored on it is told."""
    feed(parts, adt("A01"), oru(ILL))
    feed(parts, oru(ILL, status="W", ago=10))
    assert points(parts) == [16.0]
    assert reasons(parts) == ["warned", "corrected"]


def test_after_a_merge_data_for_the_dead_identifier_counts_for_the_survivor(parts: Parts) -> None:
    feed(parts, adt("A01", "77", ago=90), adt("A01", "78", ago=80), oru(ILL, "78"))
    feed(parts, adt("A40", "77", merged="78", ago=20))
    survivor = parts.store.reads.record("ward", "H-77")
    assert survivor is not None
    assert len(parts.store.reads.person(survivor.id)) == 2
    feed(parts, oru({"8867-4": "70"}, "77", ago=5, filler="F9"))
    last = load(parts.store, all_refs(parts.store.reads)[-1]).snapshot
    assert {fact.code.code for fact in last.facts} >= set(ILL)


def test_a_merge_of_two_who_cannot_be_one_waits_for_a_person(parts: Parts) -> None:
    feed(parts, adt("A01", "77", ago=90), adt("A01", "79", born="19811212", ago=80))
    feed(parts, adt("A40", "77", merged="79", ago=20))
    survivor = parts.store.reads.record("ward", "H-77")
    assert survivor is not None
    assert len(parts.store.reads.person(survivor.id)) == 1
    assert reasons(parts) == ["link-by-feed"]


def test_a_message_for_training_reaches_no_score(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL).replace(b"|P|2.5.1", b"|T|2.5.1"))
    assert points(parts) in ([], [None])


def test_a_message_that_nobody_understands_is_a_dead_letter(parts: Parts) -> None:
    feed(parts, adt("A01").replace(b"ADT^A01", b"OUL^R22"))
    kinds = parts.store.reads.query("SELECT kind, reason FROM flag")
    assert [tuple(row) for row in kinds] == [("dead-letter", "unreadable")]
