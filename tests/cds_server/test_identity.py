"""Whose record is it: stated rules, reversible links, a Flag instead of a guess."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.readers.fhir import ENTRY
from cds_server.app import build
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.panel import Panel
from cds_server.settings import Settings, load
from cds_server.store.store import Store
from tests.cds_server.stores import (
    ACTOR,
    JOINING,
    MRN,
    SSN,
    flags,
    land,
    land_parts,
    learn,
    patient,
    person,
    weight,
    weights,
)

ONE, TWO = (SSN, "111-22-3333"), (SSN, "999-88-7777")


def test_two_namespaces_have_two_patients_of_one_id(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60), namespace="a")
    learn(store, patient("1"), weight("w", "1", 90), namespace="b")
    assert person(store, "a", "1") == {"a/1"}
    assert person(store, "b", "1") == {"b/1"}
    assert (weights(store, "a", "1"), weights(store, "b", "1")) == (["60 kg"], ["90 kg"])


def test_a_joining_system_links_and_its_withdrawal_unlinks(store: Store) -> None:
    learn(store, patient("1", ONE), namespace="a")
    apart = now()
    learn(store, patient("7", ONE), namespace="b")
    together = now()
    assert person(store, "a", "1") == person(store, "b", "7") == {"a/1", "b/7"}
    learn(store, patient("7", TWO), namespace="b")
    assert person(store, "a", "1") == {"a/1"}
    assert person(store, "a", "1", at=together) == {"a/1", "b/7"}
    assert person(store, "a", "1", at=apart) == {"a/1"}
    learn(store, patient("7", ONE), namespace="b", key=b"once more")
    assert person(store, "b", "7") == {"a/1", "b/7"}
    assert flags(store) == []


def test_a_voided_patient_no_longer_joins(store: Store) -> None:
    learn(store, patient("1", ONE), namespace="a")
    learn(store, patient("7", ONE), namespace="b")
    learn(store, patient("8", ONE), namespace="c")
    land_parts(store, [b'{"request": {"method": "DELETE", "url": "Patient/7"}}'], namespace="b", media_type=ENTRY)
    digest_backlog(store, JOINING, ACTOR)
    assert person(store, "a", "1") == {"a/1", "c/8"}
    assert person(store, "b", "7") == {"b/7"}


@pytest.mark.parametrize(
    "more", [{"born": "1970-01-01"}, {"name": [{"family": "Same"}]}, {"telecom": [{"value": "1"}]}]
)
def test_never_by_name_nor_by_another_system(store: Store, more: dict[str, Any]) -> None:
    learn(store, patient("1", (MRN, "5"), **more), namespace="a")
    learn(store, patient("7", (MRN, "5"), **more), namespace="b")
    assert person(store, "a", "1") == {"a/1"}
    assert flags(store) == []


def test_identifiers_that_claim_different_persons_are_flagged_and_link_nobody(store: Store) -> None:
    second = (MRN, "5")
    joining = frozenset({SSN, MRN})
    for namespace, identifiers in (("a", [ONE]), ("b", [second]), ("c", [ONE, second])):
        land(store, patient("1", *identifiers), namespace=namespace)
        digest_backlog(store, joining, ACTOR)
    assert flags(store) == [("unmatched", "identity")]
    assert {frozenset(person(store, namespace, "1")) for namespace in "abc"} == {
        frozenset({f"{namespace}/1"}) for namespace in "abc"
    }


@pytest.mark.parametrize("together", [True, False], ids=["in one delivery", "one after the other"])
@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ({"born": "1960-01-01"}, {"born": "1961-01-01"}, False),
        ({"gender": "female"}, {"gender": "male"}, False),
        ({"born": "1960-01-01"}, {"born": "1960"}, True),
        ({"born": "1960-01-01"}, {}, True),
    ],
)
def test_contradicting_birth_date_or_sex_keeps_apart(
    store: Store, first: dict[str, str], second: dict[str, str], joined: bool, together: bool
) -> None:
    members = [patient("1", ONE, **first), patient("2", ONE, **second)]
    if together:
        learn(store, *members)
    else:
        for member in members:
            learn(store, member)
    assert person(store, "a", "1") == ({"a/1", "a/2"} if joined else {"a/1"})
    assert flags(store) == ([] if joined else [("unmatched", "identity")])


def test_different_values_of_one_joining_system_keep_persons_apart(store: Store) -> None:
    joining = frozenset({SSN, MRN})
    for namespace, identifiers in (("a", [ONE, (MRN, "5")]), ("b", [TWO, (MRN, "5")])):
        land(store, patient("1", *identifiers), namespace=namespace)
        digest_backlog(store, joining, ACTOR)
    assert person(store, "a", "1") == {"a/1"}
    assert flags(store) == [("unmatched", "identity")]


@pytest.mark.parametrize("together", [True, False], ids=["in one delivery", "one after the other"])
def test_an_identifier_that_moved_on_does_not_join(store: Store, together: bool) -> None:
    """The number was withdrawn from the first before the second claimed it, if only by one line of the same file."""
    members = [patient("1", ONE), patient("1", TWO), patient("2", ONE)]
    if together:
        learn(store, *members)
    else:
        for member in members:
            learn(store, member)
    assert person(store, "a", "1") == {"a/1"}
    assert person(store, "a", "2") == {"a/2"}


@pytest.mark.parametrize("together", [True, False], ids=["in one delivery", "one after the other"])
def test_a_link_of_the_same_delivery_is_withdrawn_too(store: Store, together: bool) -> None:
    members = [patient("1", ONE), patient("2", ONE), patient("2", TWO)]
    if together:
        learn(store, *members)
    else:
        for member in members:
            learn(store, member)
    assert person(store, "a", "1") == {"a/1"}


def test_a_link_never_runs_through_a_record_that_left(store: Store) -> None:
    """a and b share one number, b and c another. When b gives up the first, a and c have nothing in common."""
    joining = frozenset({SSN, MRN})

    def one(namespace: str, *identifiers: tuple[str, str]) -> None:
        land(store, patient("1", *identifiers), namespace=namespace)
        digest_backlog(store, joining, ACTOR)

    one("a", ONE)
    one("b", ONE, (MRN, "5"))
    one("c", (MRN, "5"))
    assert person(store, "a", "1") == {"a/1", "b/1", "c/1"}
    one("b", (MRN, "5"))
    assert person(store, "a", "1") == {"a/1"}
    assert person(store, "c", "1") == {"b/1", "c/1"}


def test_what_others_share_stays_joined_when_one_leaves(store: Store) -> None:
    for namespace in "abc":
        learn(store, patient("1", ONE), namespace=namespace)
    learn(store, patient("1", TWO), namespace="a")
    assert person(store, "a", "1") == {"a/1"}
    assert person(store, "b", "1") == {"b/1", "c/1"}


def logical(value: str) -> dict[str, Any]:
    return {"identifier": {"system": MRN, "value": value}}


def test_a_logical_reference_counts_only_if_it_names_one(store: Store) -> None:
    learn(store, patient("1", (MRN, "5")), weight("same", logical("5"), 60))
    assert weights(store, "a", "1") == ["60 kg"]  # the patient came in the same delivery
    assert learn(store, weight("unknown", logical("6"), 61)).unmatched == 1
    learn(store, patient("2", (MRN, "5")))
    assert learn(store, weight("two", logical("5"), 62)).unmatched == 1
    assert learn(store, weight("other", logical("5"), 63), namespace="b").unmatched == 1
    assert flags(store) == [("unmatched", "subject")] * 3
    assert weights(store, "a", "1") == ["60 kg"]


@pytest.mark.parametrize(
    "subject",
    [
        *({"reference": "Group/1"}, {"reference": "http://elsewhere.example.org/Patient/1"}, {"reference": "#1"}),
        *({"display": "Jane Same"}, {"identifier": {"value": "5"}}, {}, {"reference": 7}),
    ],
)
def test_a_subject_that_cannot_be_resolved_is_flagged(store: Store, subject: dict[str, Any]) -> None:
    learn(store, patient("1", name=[{"text": "Jane Same"}]))
    tally = learn(store, weight("w", subject, 60))
    assert (tally.asserted, tally.facts, tally.unmatched) == (1, 0, 1)
    assert flags(store) == [("unmatched", "subject")]
    assert weights(store, "a", "1") == []


def test_a_resource_that_moves_to_another_patient_is_flagged(store: Store) -> None:
    learn(store, patient("1"), patient("2"), weight("w", "1", 60))
    learn(store, weight("w", "2", 60))
    assert flags(store) == [("flag", "moved")]
    assert (weights(store, "a", "1"), weights(store, "a", "2")) == ([], ["60 kg"])


# ---- marks, and what an EHR sees -------------------------------------------------------------------------------------

HTEST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
RESTRICTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}


def test_test_marks_and_labels_are_carried(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60, meta={"tag": [HTEST], "security": [RESTRICTED]}))
    (row,) = store.reads.query("SELECT test, labels FROM resource WHERE type = 'Observation'")
    assert (bool(row[0]), row[1]) == (True, "R")
    record = store.reads.record("a", "1")
    assert record is not None
    (fact,) = store.reads.facts([record.id], frozenset({"http://loinc.org|29463-7"}))
    assert (fact.test, fact.labels) == (True, ("R",))


def configured(settings: Settings) -> Settings:
    config = settings.data_dir / "ehrs.toml"
    config.write_text(
        f'[identity]\njoining_systems = ["{SSN}"]\n'
        '[[ehr]]\nnamespace = "a"\n[[ehr]]\nnamespace = "b"\nsees = ["a"]\n[[ehr]]\nnamespace = "lab"\ntest = true\n'
    )
    return load({"CDS_CONFIG": str(config)}, data_dir=settings.data_dir, database_url=settings.database_url)


def test_an_ehr_sees_its_namespaces_and_test_data_only_where_it_is_one_for_tests(
    store: Store, settings: Settings
) -> None:
    born = {"born": "1965-01-01", "gender": "female"}
    for namespace in ("a", "b", "c", "lab"):
        marked = {"meta": {"tag": [HTEST]}} if namespace in ("lab", "a") else {}
        learn(store, patient("1", ONE, **born, **marked), namespace=namespace)
    assert person(store, "a", "1") == {"a/1", "b/1", "c/1", "lab/1"}
    parts = build(configured(settings))
    scorer = parts.registry.scorer("breast-cancer-prognosis")
    known = {r.namespace: r for n in ("a", "b", "c", "lab") if (r := parts.store.reads.record(n, "1")) is not None}

    def seen(namespace: str) -> tuple[set[str], set[bool], int]:
        [(_, taken)] = Panel(scorer, ()).asked(parts.decisions.known(scorer.facts_wanted(), known[namespace]), {})
        names = {record.ref: record.namespace for record in known.values()}
        of = {fact.record for fact in taken.facts}
        return {names[ref] for ref in taken.records}, {fact.test for fact in taken.facts}, len(of)

    assert seen("a") == ({"a"}, set(), 0)
    assert seen("b") == ({"a", "b"}, {False}, 1)
    assert seen("c") == ({"c"}, {False}, 1)
    assert seen("lab") == ({"lab"}, {True}, 1)
    parts.close()
