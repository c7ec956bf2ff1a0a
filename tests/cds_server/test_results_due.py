"""From a recorded inference to the message that is to be sent; and what corrections and doubts do to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.hl7v2.message import Message, parse
from adapters.hl7v2.structure import conformance
from cds_server.app import Parts, build
from cds_server.audit import audit
from cds_server.jobs import Job
from cds_server.outbox import Line as Queue
from cds_server.outbox import acknowledged, again, begin, jobs_of, message_of, parked
from cds_server.outgoing import Composer
from cds_server.reproduce import all_refs
from cds_server.results_due import Due
from cds_server.settings import Settings, load
from models.errors import NotAllowed
from tests.cds_server.stores import flags, learn
from tests.cds_server.test_continuous import ILL, WELL, adt, feed, oru, stamp

SERVICE = "deterioration-news2"
WARD = f"""
[[source]]
name = "test"
kind = "hl7v2-files"
namespace = "ward"

[[destination]]
name = "his"
kind = "hl7v2-mllp"
namespace = "ward"
host = "127.0.0.1"
port = 2575
services = ["{SERVICE}"]
sending_facility = "H"
receiving_application = "HIS"
receiving_facility = "H"
"""
Outgoing = Callable[[], list[Message]]


@pytest.fixture
def configured(data_dir: Path) -> Callable[[str], Settings]:
    def made(text: str = WARD) -> Settings:
        config = data_dir / "cds.toml"
        config.write_text(f'[identity]\njoining_systems = ["http://hl7.org/fhir/sid/us-ssn"]\n{text}')
        url = f"sqlite:///{data_dir / 'cds.db'}"
        return load({"CDS_CONFIG": str(config)}, data_dir=data_dir, database_url=url, trust="open")

    return made


@pytest.fixture
def parts(configured: Callable[[], Settings]) -> Iterator[Parts]:
    yield from opened(configured())


def opened(settings: Settings) -> Iterator[Parts]:
    built = build(settings)
    begin(built.store, [each.name for each in settings.destinations])
    yield built
    built.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def due_of(parts: Parts, settings: Settings | None = None) -> Due:
    composer = Composer(parts.store, settings or parts.settings, parts.registry)
    return Due(parts.store, composer, parts.registry, parts.decisions)


def queued(parts: Parts, name: str = "his") -> list[Job]:
    """What was ever queued for a destination, after what is due now was queued."""
    due = due_of(parts)
    while due.some():
        pass
    return jobs_of(parts.store)._jobs("j.source = ?", (name,))


def sent(parts: Parts) -> list[Message]:
    return [parse(message_of(job)) for job in queued(parts)]


def said(message: Message) -> dict[str, str]:
    return {each.text(3): each.text(5) for each in message.all("OBX")}


# ---- what goes out ---------------------------------------------------------------------------------------------------


def test_a_score_that_nobody_asked_for_is_queued_with_the_patient_as_the_feed_named_them(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    (message,) = sent(parts)
    (ref,) = all_refs(parts.store.reads)
    assert message.get("MSH-9.3") == "ORU_R01"
    assert [message.get(f"MSH-{n}") for n in (3, 4, 5, 6, 11, 12, 18)] == [
        *("CDS", "H", "HIS", "H", "P", "2.5.1", "UNICODE UTF-8")
    ]
    assert message["PID"].raw(3) == "77^^^H^MR"
    assert (message.get("PID-5"), message.get("PID-5.2")) == ("WARD", "WILLA")
    assert (message.get("PID-7"), message.get("PID-8")) == ("19500301", "F")
    assert (message.get("OBR-3"), message.get("OBR-4"), message.get("OBR-25")) == (ref, SERVICE, "F")
    assert (said(message)["news2.points"], said(message)["news2.items.pulse"]) == ("16", "3")
    assert {each.text(11) for each in message.all("OBX")} == {"F"}
    assert {each.text(17) for each in message.all("OBX")} == {"news2@2017.1"}
    assert message.all("OBX")[0].raw(6) == "{score}^^UCUM"
    assert "NEWS2 is 16" in message.get("NTE-3")
    assert conformance(message_of(queued(parts)[0])) == ()


def test_an_inference_is_queued_once_however_often_somebody_looks(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    assert len(queued(parts)) == len(queued(parts)) == 1
    feed(parts, oru({**ILL, "8867-4": "125"}, ago=20, filler="F2"))
    first, second = queued(parts)
    assert first.asked["lane"] == second.asked["lane"]
    assert parse(message_of(first)).get("MSH-10") != parse(message_of(second)).get("MSH-10")


def test_what_was_recorded_before_a_destination_was_configured_is_not_sent(
    configured: Callable[..., Settings],
) -> None:
    for parts in opened(configured("")):
        feed(parts, adt("A01"), oru(ILL))
    for parts in opened(configured()):
        assert queued(parts) == []
        feed(parts, oru(WELL, ago=20, filler="F2"))
        assert len(queued(parts)) == 1


def test_nothing_is_queued_without_a_destination(configured: Callable[..., Settings]) -> None:
    for parts in opened(configured("")):
        feed(parts, adt("A01"), oru(ILL))
        assert due_of(parts).some() == 0
        assert parts.store.reads.query("SELECT 1 FROM job") == []


def test_only_what_a_destination_lists_goes_there(configured: Callable[..., Settings]) -> None:
    other = WARD.replace(f'services = ["{SERVICE}"]', 'models = ["khorana"]')
    for parts in opened(configured(other)):
        feed(parts, adt("A01"), oru(ILL))
        assert queued(parts) == []
    fewer = WARD.replace("port = 2575", 'port = 2575\noutputs = ["points"]').replace('"his"', '"other"')
    for parts in opened(configured(fewer)):
        feed(parts, adt("A01", "88"), oru(WELL, "88", filler="F8"))
        (job,) = queued(parts, "other")
        assert list(said(parse(message_of(job)))) == ["news2.points"]


def test_an_abstention_is_sent_with_its_reason(parts: Parts) -> None:
    feed(parts, adt("A01"), oru({"8867-4": "70"}))
    (message,) = sent(parts)
    ((code, why),) = said(message).items()
    assert (code, message.get("OBX-2")) == ("news2.abstained", "ST")
    assert why


# ---- whom it is about ------------------------------------------------------------------------------------------------


def test_a_patient_whom_the_receiver_cannot_know_is_held_and_flagged_once(configured: Callable[..., Settings]) -> None:
    elsewhere = WARD.replace('kind = "hl7v2-mllp"\nnamespace = "ward"', 'kind = "hl7v2-mllp"\nnamespace = "clinic"')
    for parts in opened(configured(elsewhere)):
        feed(parts, adt("A01"), oru(ILL))
        feed(parts, oru(WELL, ago=20, filler="F2"))
        assert queued(parts) == []
        assert flags(parts.store).count(("flag", "not-sent")) == 1
        row = parts.store.reads.one("SELECT detail FROM flag WHERE reason = 'not-sent'")
        assert row is not None
        assert row[0] == "not sent to his: the patient is not known in the namespace clinic"


def test_only_identifiers_with_a_configured_assigner_are_sent_where_there_are_any(
    configured: Callable[..., Settings],
) -> None:
    named = WARD + '[destination.assigners]\n"urn:id:ward:H" = "HOSP&1.2.3&ISO"\n'
    for parts in opened(configured(named)):
        feed(parts, adt("A01"), oru(ILL))
        assert sent(parts)[0]["PID"].raw(3) == "77^^^HOSP&1.2.3&ISO^MR"
    for parts in opened(configured(named.replace("urn:id:ward:H", "urn:id:ward:X").replace('"his"', '"other"'))):
        feed(parts, oru(WELL, ago=20, filler="F2"))
        assert queued(parts, "other") == []
        assert ("flag", "not-sent") in flags(parts.store)


def test_after_a_merge_the_survivor_is_named(parts: Parts) -> None:
    feed(parts, adt("A01", "77", ago=90), adt("A01", "78", ago=80), adt("A40", "77", merged="78", ago=50))
    feed(parts, oru(ILL, "78", ago=30))
    assert [each["PID"].raw(3) for each in sent(parts)] == ["77^^^H^MR"]


def test_a_test_patient_goes_to_a_test_system_and_nobody_else_does(configured: Callable[..., Settings]) -> None:
    both = WARD + WARD[WARD.index("[[destination]]") :].replace('"his"', '"trial"').replace(
        "port = 2575", 'port = 2575\nprocessing = "T"'
    )
    for parts in opened(configured(both)):
        feed(parts, adt("A01"), oru(ILL))
        assert (len(queued(parts)), queued(parts, "trial")) == (1, [])
        tests = [adt("A01", "99").replace(b"|P|2.5.1", b"|T|2.5.1"), oru(ILL, "99", filler="F9")]
        feed(parts, *tests)
        assert len(queued(parts)) == 1
        (trial,) = queued(parts, "trial")
        assert parse(message_of(trial)).get("MSH-11") == "T"


def later(values: dict[str, str]) -> bytes:
    """Vital signs taken a quarter of an hour after those of `oru`."""
    return re.sub(rb"\|\d{14}\+0000(?=\r|$)", b"|" + stamp(25).encode(), oru(values, ago=20, filler="F2"))


# ---- corrections -----------------------------------------------------------------------------------------------------


def test_a_corrected_result_goes_out_corrected_under_the_same_number(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    (first,) = sent(parts)
    feed(parts, oru(WELL, status="C", ago=10))
    _, second = sent(parts)
    assert second.get("OBR-3") == first.get("OBR-3")
    assert (second.get("OBR-25"), {each.text(11) for each in second.all("OBX")}) == ("C", {"C"})
    assert (said(first)["news2.points"], said(second)["news2.points"]) == ("16", "0")
    assert len(all_refs(parts.store.reads)) == 2
    assert conformance(message_of(queued(parts)[1])) == ()


def test_a_correction_of_a_correction_stays_in_the_chain(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    queued(parts)
    feed(parts, oru(WELL, status="C", ago=10))
    queued(parts)
    feed(parts, oru({**WELL, "8867-4": "132"}, status="C", ago=5))
    messages = sent(parts)
    assert [each.get("OBR-25") for each in messages] == ["F", "C", "C"]
    assert len({each.get("OBR-3") for each in messages}) == 1
    assert said(messages[-1])["news2.points"] == "3"


def test_results_of_the_wrong_patient_are_withdrawn_where_nothing_comes_in_their_place(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    (first,) = sent(parts)
    feed(parts, oru(ILL, status="W", ago=10))
    _, second = sent(parts)
    assert second.get("OBR-3") == first.get("OBR-3")
    assert (second.get("OBR-25"), {each.text(11) for each in second.all("OBX")}) == ("C", {"W"})
    assert said(second) == said(first)
    assert len(queued(parts)) == 2


def test_a_correction_beside_a_newer_score_that_was_sent_withdraws_the_old_one(parts: Parts) -> None:
    """The newer one stands under a number of its own: the same values under two numbers would be two results."""
    feed(parts, adt("A01"), oru(ILL))
    feed(parts, later(WELL))
    first, second = sent(parts)
    assert first.get("OBR-3") != second.get("OBR-3")
    feed(parts, oru({**ILL, "8867-4": "99"}, status="C", ago=10))
    _, _, third, fourth = sent(parts)
    assert (third.get("OBR-3"), {each.text(11) for each in third.all("OBX")}) == (first.get("OBR-3"), {"W"})
    assert (fourth.get("OBR-3"), {each.text(11) for each in fourth.all("OBX")}) == (second.get("OBR-3"), {"C"})


# ---- what its receiver says ------------------------------------------------------------------------------------------


def test_a_refused_result_waits_for_a_person_and_so_does_what_follows_of_the_same_patient(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL), adt("A01", "88"), oru(WELL, "88", filler="F8"))
    feed(parts, oru(WELL, ago=20, filler="F2"))
    jobs = queued(parts)
    lanes = [job.asked["lane"] for job in jobs]
    line = Queue(parts.store, "his")
    first = line.next()
    assert first is not None
    assert first.id == jobs[0].id
    parked(parts.store, first, "AE", "system")
    second = line.next()
    assert second is not None
    assert second.asked["lane"] != first.asked["lane"]
    acknowledged(parts.store, line, second, "system")
    assert lanes.count(first.asked["lane"]) == 2
    assert line.next() is None
    assert Queue(parts.store, "his").next() is None
    counted = line.counted()
    assert (counted.waiting, counted.parked, counted.trouble) == (1, 1, "answered AE")
    assert ("dead-letter", "not-taken") in flags(parts.store)


def test_sent_again_it_has_another_number_of_its_own_and_the_same_one_of_the_result(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    (job,) = queued(parts)
    parked(parts.store, job, "AE", "system")
    row = parts.store.reads.one("SELECT id FROM flag WHERE reason = 'not-taken'")
    assert row is not None
    again(parts.store, Composer(parts.store, parts.settings, parts.registry), job.ref, row[0], "user:test")
    after = Queue(parts.store, "his").next()
    assert after is not None
    before, now = parse(message_of(job)), parse(message_of(after))
    assert before.get("MSH-10") != now.get("MSH-10")
    assert before.get("OBR-3") == now.get("OBR-3")
    assert ("dead-letter", "not-taken") not in flags(parts.store)


def test_a_result_that_must_not_go_any_more_is_not_sent_again(
    parts: Parts, configured: Callable[..., Settings]
) -> None:
    feed(parts, adt("A01"), oru(ILL))
    (job,) = queued(parts)
    parked(parts.store, job, "AE", "system")
    row = parts.store.reads.one("SELECT id FROM flag WHERE reason = 'not-taken'")
    assert row is not None
    elsewhere = configured(WARD.replace("port = 2575", 'port = 2575\nprocessing = "T"'))
    with pytest.raises(NotAllowed):
        again(parts.store, Composer(parts.store, elsewhere, parts.registry), job.ref, row[0], "user:test")
    assert ("dead-letter", "not-taken") in flags(parts.store)


def test_the_next_process_begins_at_the_oldest_that_is_open(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    feed(parts, oru(WELL, ago=20, filler="F2"))
    first, second = queued(parts)
    line = Queue(parts.store, "his")
    assert line.next() is not None
    acknowledged(parts.store, line, first, "system")
    fresh = Queue(parts.store, "his")
    found = fresh.next()
    assert found is not None
    assert (found.id, message_of(found)) == (second.id, message_of(second))
    acknowledged(parts.store, fresh, found, "system")
    assert Queue(parts.store, "his").next() is None
    assert Queue(parts.store, "his").counted().heard is not None


# ---- patients of an EHR ----------------------------------------------------------------------------------------------

CLINIC = """
[[destination]]
name = "his"
kind = "hl7v2-mllp"
namespace = "clinic"
host = "127.0.0.1"
port = 2575
services = ["deterioration-news2"]
"""
MRN_OF = '[destination.assigners]\n"http://hospital.example.org/mrn" = "HOSP"\n'
MR = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}


def scored(parts: Parts, **more: Any) -> None:
    """A patient of an EHR's namespace, whose vital signs were scored."""
    names = [{"use": "old", "family": "BEFORE"}, {"use": "official", "family": "O'Neill|x", "given": ["Ada", "B."]}]
    one = {"system": "http://hospital.example.org/mrn", "value": "M-1", "type": MR}
    patient = {"resourceType": "Patient", "id": "p1", "identifier": [one], "name": names, "gender": "female", **more}
    at = datetime.now(UTC).isoformat()
    pulse = {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "effectiveDateTime": at,
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": "Patient/p1"},
        "valueQuantity": {"value": 70, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
    }
    learn(parts.store, {key: value for key, value in patient.items() if value}, pulse, namespace="clinic")
    record = parts.store.reads.record("clinic", "p1")
    assert record is not None
    spec = next(spec for spec in parts.registry.specs if spec.id == SERVICE)
    assert parts.decisions.score_unasked(spec, record) is not None


def test_a_patient_of_an_ehr_is_named_by_the_assigner_that_was_configured(configured: Callable[..., Settings]) -> None:
    for parts in opened(configured(CLINIC + MRN_OF)):
        scored(parts, birthDate="1960-02")
        (message,) = sent(parts)
        assert message["PID"].raw(3) == "M-1^^^HOSP^MR"
        assert [message.get(f"PID-5.{n}") for n in (1, 2, 3)] == ["O'Neill|x", "Ada", "B."]
        assert (message.get("PID-7"), message.get("PID-8")) == ("196002", "F")


def test_a_system_that_nobody_named_is_no_assigner_and_is_not_guessed(configured: Callable[..., Settings]) -> None:
    for parts in opened(configured(CLINIC)):
        scored(parts)
        assert queued(parts) == []
        assert ("flag", "not-sent") in flags(parts.store)


def test_record_ids_are_sent_where_the_receiver_knows_patients_by_them(configured: Callable[..., Settings]) -> None:
    for parts in opened(configured(CLINIC + 'local_assigner = "EHR"\n')):
        scored(parts, identifier=None, name=None)
        (message,) = sent(parts)
        assert (message["PID"].raw(3), message["PID"].raw(5)) == ("p1^^^EHR", "^^^^^^U")


def test_an_identifier_with_an_oid_needs_no_configuration(configured: Callable[..., Settings]) -> None:
    for parts in opened(configured(CLINIC)):
        kept = {"system": "urn:oid:1.2.36.1", "value": "9", "type": MR}
        scored(parts, identifier=[kept, {**kept, "value": "8", "use": "old"}, {**kept, "value": "7", "type": None}])
        assert sent(parts)[0]["PID"].raw(3) == "9^^^&1.2.36.1&ISO^MR"


def test_results_of_a_patient_who_has_opted_out_stay_here(configured: Callable[..., Settings]) -> None:
    consent = {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "patient": {"reference": "Patient/p1"},
        "provision": {"type": "deny"},
    }
    for parts in opened(configured(CLINIC + MRN_OF)):
        learn(parts.store, consent, namespace="clinic")
        scored(parts)
        assert queued(parts) == []
        (flag,) = parts.store.reads.query("SELECT detail FROM flag WHERE reason = 'not-sent'")
        assert "opted out" in flag[0]


@pytest.mark.parametrize(
    ("label", "why"),
    [("R", "restricted"), ("V", "restricted"), ("HTEST", "")],
)
def test_what_is_restricted_or_a_test_does_not_leave(configured: Callable[..., Settings], label: str, why: str) -> None:
    """HTEST: a test patient stays where tests are, and nobody has to look."""
    actor = "http://terminology.hl7.org/CodeSystem/v3-"
    marked = {"system": f"{actor}Confidentiality" if why else f"{actor}ActReason", "code": label}
    for parts in opened(configured(CLINIC + MRN_OF)):
        scored(parts, meta={"security": [marked]})
        assert queued(parts) == []
        assert (("flag", "not-sent") in flags(parts.store)) == bool(why)
