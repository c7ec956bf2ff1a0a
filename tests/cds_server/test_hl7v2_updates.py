"""What a message leaves unsaid: empty is no change, a null deletes, a group that is stated replaces the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.hl7v2.feed import Feed
from adapters.readers.hl7v2 import MESSAGE
from cds_server.backlog import Landings, digest_backlog, redo, retry
from cds_server.feed_counts import counts
from cds_server.prepare import Delivery, prepare_all, prepared_of
from cds_server.reading import Rules
from cds_server.store.store import Store
from cds_server.tally import Tally
from tests.cds_server.stores import ACTOR, SSN, flags, land_parts, person

FEED = Feed(namespace="a", systems={"PID-19": SSN, "PID-20": "http://hospital.example.org/licence"})
RULES = {"test": Rules(FEED, "feed")}
ASKED = frozenset({f"http://hl7.org/fhir/Patient|{name}" for name in ("birthDate", "gender", "deceased")})


@pytest.fixture
def url(data_dir: Path) -> str:
    """One engine is enough: what is asked here is the reducer's."""
    return f"sqlite:///{data_dir / 'cds.db'}"


def adt(event: str, *segments: str, sent: str = "20260301090000+0100", pid: str = "", number: str = "") -> bytes:
    head = f"MSH|^~\\&|ADT|HOSP|CDS|X|{sent}||ADT^{event}|{number or event + sent}|P|2.5.1"
    return "\r".join((head, f"EVN|{event}|{sent}", *((pid,) if pid else ()), *segments, "")).encode()


def pid(born: str = "", sex: str = "", ssn: str = "", who: str = "1", died: str = "") -> str:
    return f"PID|1||{who}^^^HOSP^MR||DOE^JOAN||{born}|{sex}|||||||||||{ssn}|||||||||||{died}"


def tell(store: Store, *messages: bytes, namespace: str = "a", feed: Mapping[str, Rules] = RULES) -> Tally:
    for message in messages:
        land_parts(store, [message], namespace=namespace, media_type=MESSAGE)
    return digest_backlog(store, frozenset({SSN}), ACTOR, validate=False, rules=feed)


def tell_ahead(store: Store, *messages: bytes) -> None:
    """As the background does it: read by another process, which hands on facts and digests, and no resources."""
    for message in messages:
        land_parts(store, [message], namespace="a", media_type=MESSAGE)
    landings = [landing for each in store.reads.undigested() if (landing := store.reads.landing(each[0]))]
    deliveries = [Delivery(landing, store.opened(landing)) for landing in landings]
    parts = prepared_of(prepare_all(deliveries, RULES, store.vault.index.key))
    acts = Landings(store, frozenset({SSN}), "system", RULES)
    assert len(list(acts.done(acts.queue(zip(landings, parts, strict=True))))) == len(messages)


def known(store: Store, who: str = "HOSP-1") -> dict[str, str]:
    """The demographics known of one record."""
    record = store.reads.record("a", who)
    assert record is not None
    facts = store.reads.facts([record.id], ASKED)
    return {fact.code.code: fact.text or fact.coded[0].code for fact in facts}


def coded(store: Store, kind: str, who: str = "HOSP-1") -> list[str]:
    """Codes of the open facts of one kind."""
    record = store.reads.record("a", who)
    assert record is not None
    rows = store.reads.query(
        "SELECT r.facts FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
        "WHERE r.record_id = ? AND r.facts IS NOT NULL AND c.id IS NULL",
        (record.id,),
    )
    facts = [fact for (sealed,) in rows for fact in store.vault.open_facts(record.ref, sealed)]
    return sorted(
        fact.code.code for fact in facts if fact.kind == kind and "entered-in-error" not in (fact.status or "")
    )


def test_an_empty_field_erases_nothing(store: Store) -> None:
    """(C7)"""
    tell(store, adt("A01", pid=pid("19600102", "F")), adt("A08", pid=pid(), sent="20260302090000+0100"))
    assert known(store) == {"birthDate": "1960-01-02", "gender": "female"}
    tell(store, adt("A31", pid=pid(sex="M"), sent="20260303090000+0100"))
    assert known(store) == {"birthDate": "1960-01-02", "gender": "male"}


def test_a_null_erases_what_was_said_and_stays_said(store: Store) -> None:
    """(C7)"""
    tell(store, adt("A01", pid=pid("19600102", "F", died="Y")))
    assert known(store)["deceased"] == "true"
    tell(store, adt("A08", pid=pid(died='""'), sent="20260302090000+0100"))
    assert known(store) == {"birthDate": "1960-01-02", "gender": "female"}
    silent, null = (adt("A08", pid=pid(value), sent="20260303090000+0100") for value in ("", '""'))
    tell(store, silent)
    assert "birthDate" in known(store)
    tell(store, null)  # of the same second, and of the same resource but for what it deletes
    assert known(store) == {"gender": "female"}


def test_what_is_carried_over_keeps_its_source(store: Store) -> None:
    """(C7): a birth date is known since the message that stated it, and by that message."""
    tell(store, adt("A01", pid=pid("19600102", "F")))
    record = store.reads.record("a", "HOSP-1")
    assert record is not None
    (first,) = store.reads.facts([record.id], frozenset({"http://hl7.org/fhir/Patient|birthDate"}))
    tell(store, adt("A08", pid=pid(sex="M"), sent="20260302090000+0100"))
    assert store.reads.facts([record.id], frozenset({"http://hl7.org/fhir/Patient|birthDate"})) == [first]


def test_reading_everything_again_is_the_same(store: Store) -> None:
    """(C7)"""
    messages = [
        adt("A01", "AL1|1||A1^x^L", "AL1|2||A2^y^L", pid=pid("19600102", "F", "111-22-3333")),
        adt("A08", "AL1|1||A2^y^L", pid=pid(sex="M"), sent="20260302090000+0100"),
    ]
    tell(store, *messages)
    before = known(store), coded(store, "allergy")
    again = redo(store, frozenset({SSN}), ACTOR, rules=RULES)
    assert (again.asserted, again.voided, again.superseded) == (0, 0, 0)
    assert (
        (known(store), coded(store, "allergy"))
        == before
        == (
            {"birthDate": "1960-01-02", "gender": "male"},
            ["A2"],
        )
    )


def test_a_number_of_its_own_field_stands_until_that_field_speaks(store: Store) -> None:
    """(C7): PID-19 joins two records; a message without it does not part them, a null does."""
    tell(store, adt("A01", pid=pid(ssn="111-22-3333")))
    tell(store, adt("A01", pid=pid(ssn="111-22-3333", who="9")), namespace="b")
    together = {"a/HOSP-1", "b/HOSP-9"}
    assert person(store, "a", "HOSP-1") == together
    tell(store, adt("A08", pid=pid(), sent="20260302090000+0100"))
    assert person(store, "a", "HOSP-1") == together
    tell(store, adt("A08", pid=pid(ssn='""'), sent="20260303090000+0100"))
    assert person(store, "a", "HOSP-1") == {"a/HOSP-1"}


def test_a_merge_that_is_refused_takes_nothing_from_the_prior_record(store: Store) -> None:
    """Birth dates contradict each other: a person must say which message is wrong, and finds both dates."""
    tell(
        store,
        adt("A01", pid=pid("19600102", "F")),
        adt("A01", pid=pid("19710304", "F", who="2"), sent="20260301090001+0100"),
        adt("A40", "MRG|2^^^HOSP^MR", pid=pid(), sent="20260302090000+0100"),
    )
    assert ("unmatched", "link-by-feed") in flags(store)
    assert person(store, "a", "HOSP-1") == {"a/HOSP-1"}
    assert known(store, "HOSP-2") == {"birthDate": "1971-03-04", "gender": "female"}
    assert known(store, "HOSP-1") == {"birthDate": "1960-01-02", "gender": "female"}


def test_a_person_who_was_deleted_leaves_nothing_to_carry_over(store: Store) -> None:
    tell(
        store,
        adt("A01", pid=pid("19600102", "F")),
        adt("A29", pid=pid(), sent="20260302090000+0100"),
        adt("A01", pid=pid(sex="F"), sent="20260303090000+0100"),
    )
    assert known(store) == {"gender": "female"}


def test_a_delete_that_comes_late_deletes_nothing_newer(store: Store) -> None:
    """(C2)"""
    tell(store, adt("A08", pid=pid("19600102", "F"), sent="20260303090000+0100"))
    tally = tell(store, adt("A29", pid=pid(), sent="20260302090000+0100"))
    assert (tally.outranked, tally.voided) == (1, 0)
    assert known(store) == {"birthDate": "1960-01-02", "gender": "female"}


# ---- repeating groups ------------------------------------------------------------------------------------------------


def test_allergies_that_are_stated_replace_those_before(store: Store) -> None:
    """(C7): snapshot mode. A message without any says nothing of them, one of nulls deletes them all."""
    tell(store, adt("A01", "AL1|1||A1^x^L", "AL1|2||A2^y^L", pid=pid()))
    assert coded(store, "allergy") == ["A1", "A2"]
    tell(store, adt("A08", pid=pid(), sent="20260302090000+0100"))
    assert coded(store, "allergy") == ["A1", "A2"]
    tell(store, adt("A08", "AL1|1||A2^y^L", "AL1|2||A3^z^L", pid=pid(), sent="20260303090000+0100"))
    assert coded(store, "allergy") == ["A2", "A3"]
    tell(store, adt("A08", 'AL1|1|""|""|""|""|""', pid=pid(), sent="20260304090000+0100"))
    assert coded(store, "allergy") == []


def test_an_old_list_replaces_nothing_newer(store: Store) -> None:
    """(C2)"""
    tell(store, adt("A08", "AL1|1||A1^x^L", pid=pid(), sent="20260303090000+0100"))
    tell(store, adt("A08", "AL1|1||A2^y^L", pid=pid(), sent="20260302090000+0100"))
    assert "A1" in coded(store, "allergy")


def test_diagnoses_are_replaced_within_their_visit(store: Store) -> None:
    """(C7)"""
    visits = ["PV1|1|I|W^1^1" + "|" * 16 + f"V{number}^^^HOSP" for number in (1, 2)]
    tell(
        store,
        adt("A01", visits[0], "DG1|1||C50^breast^I10|||A", "DG1|2||I10^bp^I10|||A", pid=pid()),
        adt("A01", visits[1], "DG1|1||E11^sugar^I10|||A", pid=pid(), sent="20260302090000+0100"),
        adt("A08", visits[0], "DG1|1||C50^breast^I10|||F", pid=pid(), sent="20260303090000+0100"),
    )
    assert coded(store, "condition") == ["C50", "E11"]


def test_what_has_an_action_code_names_itself_alone(store: Store) -> None:
    """(C7): action code mode. What is not named stays, D deletes."""
    visit = "PV1|1|I|W^1^1" + "|" * 16 + "V1^^^HOSP"

    def dg1(code: str, action: str) -> str:
        return f"DG1|1||{code}^x^I10|||A" + "|" * 14 + f"{code}-1^HOSP|{action}"

    tell(store, adt("A01", visit, dg1("C50", "A"), dg1("I10", "A"), pid=pid()))
    tell(store, adt("A08", visit, dg1("E11", "A"), pid=pid(), sent="20260302090000+0100"))
    assert coded(store, "condition") == ["C50", "E11", "I10"]
    tell(store, adt("A08", visit, dg1("I10", "D"), pid=pid(), sent="20260303090000+0100"))
    assert coded(store, "condition") == ["C50", "E11"]


def test_a_feed_may_add_to_its_groups_instead(store: Store) -> None:
    feed = {"test": Rules(Feed(namespace="a", groups="add"), "adds")}
    tell(store, adt("A01", "AL1|1||A1^x^L", pid=pid()), feed=feed)
    tell(store, adt("A08", "AL1|1||A2^y^L", pid=pid(), sent="20260302090000+0100"), feed=feed)
    assert coded(store, "allergy") == ["A1", "A2"]


# ---- a retry ---------------------------------------------------------------------------------------------------------


def test_a_dead_letter_that_is_retried_does_not_overtake_what_came_since(store: Store) -> None:
    """(C2): one lane, and the time of the message counts. What the letter alone says is known from the retry on."""
    ascii_only = {"test": Rules(Feed(namespace="a", charset="ASCII"), "ascii")}
    old = adt("A08", "AL1|1||A1^x^L", pid=pid("19600102", "F")).replace(b"JOAN", "JOÃO".encode())
    tell(store, old, feed=ascii_only)
    assert flags(store) == [("dead-letter", "unreadable")]
    tell(store, adt("A08", pid=pid("19620102", "F"), sent="20260302090000+0100"), feed=ascii_only)
    ids = store.reads.landing_ids()
    tally = retry(store, frozenset({SSN}), ACTOR, ids[:1], rules=RULES)
    assert known(store) == {"birthDate": "1962-01-02", "gender": "female"}
    assert (tally.asserted > 0, coded(store, "allergy"), flags(store)) == (True, ["A1"], [])


def test_a_merge_that_was_a_dead_letter_is_done_by_the_retry(store: Store) -> None:
    ascii_only = {"test": Rules(Feed(namespace="a", charset="ASCII"), "ascii")}
    merge = adt("A40", "MRG|2^^^HOSP^MR", pid=pid(), sent="20260302090000+0100").replace(b"JOAN", "JOÃO".encode())
    tell(store, adt("A01", pid=pid(who="2")), merge, feed=ascii_only)
    assert person(store, "a", "HOSP-2") == {"a/HOSP-2"}
    retry(store, frozenset({SSN}), ACTOR, store.reads.landing_ids(), rules=RULES)
    assert person(store, "a", "HOSP-2") == {"a/HOSP-1", "a/HOSP-2"}
    retry(store, frozenset({SSN}), ACTOR, store.reads.landing_ids(), rules=RULES)
    assert flags(store) == []


# ---- events out of order ---------------------------------------------------------------------------------------------


def test_a_cancel_that_comes_before_what_it_cancels_is_remembered(store: Store) -> None:
    """A11 of a visit that nobody knows is taken; the A01 that was sent before it does not open the visit again."""
    visit = "PV1|1|I|W^1^1" + "|" * 16 + "V1^^^HOSP"
    tell(store, adt("A11", visit, pid=pid(), sent="20260301100000+0100"))
    tally = tell(store, adt("A01", visit, pid=pid(), sent="20260301090000+0100"))
    assert tally.outranked == 2  # the patient and the visit
    (open_since,) = store.reads.query(
        "SELECT l.part, l.pointer, c.id FROM resource l LEFT JOIN resource_closing c ON c.resource_id = l.id "
        "WHERE l.type = 'Encounter'"
    )
    assert open_since[2] is None


def test_a_chain_of_merges_ends_in_one_person_with_what_came_for_the_dead_numbers(store: Store) -> None:
    """A -> B -> C, and then data for A."""
    tell(
        store,
        *(adt("A01", pid=pid(who=who), sent=f"2026030109000{who}+0100") for who in "123"),
        adt("A40", "MRG|1^^^HOSP^MR", pid=pid(who="2"), sent="20260302090000+0100"),
        adt("A40", "MRG|2^^^HOSP^MR", pid=pid(who="3"), sent="20260303090000+0100"),
    )
    everybody = {"a/HOSP-1", "a/HOSP-2", "a/HOSP-3"}
    assert person(store, "a", "HOSP-3") == everybody
    tell(store, adt("A08", "AL1|1||A1^x^L", pid=pid(who="1"), sent="20260304090000+0100"))
    assert person(store, "a", "HOSP-1") == everybody
    assert coded(store, "allergy", "HOSP-1") == ["A1"]


def test_a_merge_into_somebody_unknown_makes_the_survivor(store: Store) -> None:
    tell(store, adt("A40", "MRG|8^^^HOSP^MR", pid=pid("19600102", who="7")))
    assert person(store, "a", "HOSP-7") == {"a/HOSP-7", "a/HOSP-8"}
    assert known(store, "HOSP-7") == {"birthDate": "1960-01-02"}


def test_what_is_read_ahead_is_carried_over_replaced_and_counted_alike(store: Store) -> None:
    """(C7): the background's way; several messages in one transaction."""
    tell_ahead(
        store,
        adt("A01", "AL1|1||A1^x^L", "AL1|2||A2^y^L", pid=pid("19600102", "F", ssn="111-22-3333")),
        adt("A08", "AL1|1||A2^y^L", pid=pid(), sent="20260302090000+0100"),
        adt("A08", pid=pid(sex="M"), sent="20260303090000+0100").replace(b"|2.5.1", b"|2.9"),
        adt("A29", pid=pid(who="1"), sent="20260301080000+0100"),
    )
    assert known(store) == {"birthDate": "1960-01-02", "gender": "male"}
    assert coded(store, "allergy") == ["A2"]
    tell(store, adt("A01", pid=pid(ssn="111-22-3333", who="9")), namespace="b")
    assert person(store, "a", "HOSP-1") == {"a/HOSP-1", "b/HOSP-9"}
    assert [(each.what, each.times) for each in counts(store)] == [("odd: version-unknown", 1)]
