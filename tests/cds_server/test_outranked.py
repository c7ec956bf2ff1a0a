"""Older never replaces newer, nor a part what is whole: by file, by export and in a hook call alike."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog, redo
from cds_server.reproduce import load, reproduce
from cds_server.settings import Settings
from cds_server.store.store import Store
from tests.cds_server.stores import ACTOR, JOINING, SSN, learn, patient, person, weight, weights
from tests.cds_server.test_decisions import SERVICE, hook, own_refs, sizes

EARLY, LATE = "2026-01-01T10:00:00Z", "2026-06-01T10:00:00.250+02:00"
LATE_IN_UTC = "2026-06-01T08:00:00.25Z"
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}


def stamped(updated: str | None = None, *, subset: bool = False) -> dict[str, Any]:
    """A resource's meta."""
    meta = ({"lastUpdated": updated} if updated else {}) | ({"tag": [SUBSETTED]} if subset else {})
    return {"meta": meta} if meta else {}


def known_after(store: Store, *metas: dict[str, Any]) -> tuple[list[str], int]:
    """The weights after versions of 60, 61, … kg with these metas came one after the other; how many were outranked."""
    tallies = [learn(store, weight("w", "1", 60 + n, **meta)) for n, meta in enumerate(metas)]
    return weights(store, "a", "1"), sum(tally.outranked for tally in tallies)


@pytest.mark.parametrize(
    ("first", "second", "known", "outranked"),
    [
        (stamped(EARLY), stamped(LATE), "61 kg", 0),
        (stamped(LATE), stamped(EARLY), "60 kg", 1),
        (stamped(LATE), stamped(LATE_IN_UTC), "61 kg", 0),  # of one age, the later arrival counts
        (stamped(LATE), stamped(), "61 kg", 0),  # who does not say when is taken as it comes
        (stamped(), stamped(EARLY), "61 kg", 0),
        (stamped(LATE), stamped("2026-01-01"), "61 kg", 0),  # not an instant: says nothing
        (stamped(), stamped(), "61 kg", 0),
        (stamped(EARLY), stamped(LATE, subset=True), "60 kg", 1),
        (stamped(), stamped(subset=True), "60 kg", 1),
        (stamped(LATE, subset=True), stamped(EARLY), "61 kg", 0),  # whole, whatever its age
        (stamped(LATE, subset=True), stamped(), "61 kg", 0),
        (stamped(EARLY, subset=True), stamped(LATE, subset=True), "61 kg", 0),
        (stamped(LATE, subset=True), stamped(EARLY, subset=True), "60 kg", 1),
    ],
)
def test_which_of_two_versions_is_known(
    store: Store, first: dict[str, Any], second: dict[str, Any], known: str, outranked: int
) -> None:
    assert known_after(store, first, second) == ([known], outranked)


def test_an_old_one_after_a_subset_after_a_whole_one(store: Store) -> None:
    """The subset that was not taken leaves no mark on what stands."""
    metas = stamped(LATE), stamped("2026-07-01T00:00:00Z", subset=True), stamped(EARLY)
    assert known_after(store, *metas) == (["60 kg"], 2)


def test_within_one_delivery_it_is_the_same(store: Store) -> None:
    tally = learn(
        store,
        weight("w", "1", 60, **stamped(LATE)),
        weight("w", "1", 61, **stamped(EARLY)),
        weight("w", "1", 62, **stamped(LATE, subset=True)),
    )
    assert (tally.asserted, tally.outranked) == (1, 2)
    assert weights(store, "a", "1") == ["60 kg"]


def test_another_namespaces_word_is_another_resource(store: Store) -> None:
    learn(store, weight("w", "1", 60, **stamped(LATE)), namespace="a")
    learn(store, weight("w", "1", 61, **stamped(EARLY)), namespace="b")
    assert (weights(store, "a", "1"), weights(store, "b", "1")) == (["60 kg"], ["61 kg"])


def test_a_subset_of_a_patient_takes_no_identifier_away(store: Store) -> None:
    """As the ids of a group's members come: `_elements=id`."""
    learn(store, patient("1", (SSN, "111-22-3333")), namespace="a")
    learn(store, patient("7", (SSN, "111-22-3333")), namespace="b")
    learn(store, patient("7", **stamped(LATE, subset=True)), namespace="b")
    assert person(store, "a", "1") == {"a/1", "b/7"}


def test_reading_everything_again_changes_nothing(store: Store) -> None:
    known_after(store, stamped(LATE), stamped(EARLY), stamped(LATE, subset=True))
    again = redo(store, JOINING, ACTOR)
    assert (again.asserted, again.voided, again.superseded) == (0, 0, 0)
    assert weights(store, "a", "1") == ["60 kg"]


# ---- a hook call's own data ------------------------------------------------------------------------------------------


def call(size_cm: float, meta: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(hook(size_cm))
    for entry in body["prefetch"]["observations"]["entry"]:
        if entry["resource"]["id"].startswith("tumor-size"):
            entry["resource"].pop("meta", None)
            entry["resource"].update(copy.deepcopy(meta))
    return body


def agrees(parts: Parts) -> None:
    """What was scored is what the digest makes of it afterwards, and each score comes out again, bit for bit."""
    digest_backlog(parts.store, parts.settings.joining_systems, "system")
    record = parts.store.reads.record("sandbox", "jenny-m")
    assert record is not None
    wanted = parts.registry.scorer("breast-cancer-prognosis").facts_wanted()
    refs = own_refs(parts)
    for ref in refs:
        recorded = load(parts.store, ref)
        assert parts.decisions.known(wanted, record, recorded.snapshot.as_of).facts == recorded.snapshot.facts
        assert reproduce(parts.registry, recorded).equal


@pytest.mark.parametrize("digested", [True, False], ids=["digested between", "not digested between"])
@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        (stamped(EARLY), stamped(LATE), "35 mm"),
        (stamped(LATE), stamped(EARLY), "25 mm"),
        (stamped(LATE), stamped(), "35 mm"),
        (stamped(EARLY), stamped(LATE, subset=True), "25 mm"),
        (stamped(LATE, subset=True), stamped(EARLY), "35 mm"),
        (stamped(EARLY, subset=True), stamped(LATE, subset=True), "35 mm"),
        (stamped(LATE, subset=True), stamped(EARLY, subset=True), "25 mm"),
    ],
)
def test_a_call_sees_the_version_to_believe(
    settings: Settings, first: dict[str, Any], second: dict[str, Any], seen: str, digested: bool
) -> None:
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        assert client.post(SERVICE, json=call(2.5, first)).status_code == 200
        if digested:
            digest_backlog(parts.store, parts.settings.joining_systems, "system")
        assert client.post(SERVICE, json=call(3.5, second)).status_code == 200
        assert [sizes(parts, ref) for ref in own_refs(parts)] == [["25 mm"], [seen]]
        agrees(parts)
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_a_call_does_not_overrule_what_was_pulled_later(settings: Settings) -> None:
    """An EHR's cache is behind its own export."""
    parts = build(settings)
    pulled = [
        entry["resource"]
        for entry in call(4.5, stamped(LATE))["prefetch"]["observations"]["entry"]
        if entry["resource"]["id"].startswith("tumor-size")
    ]
    learn(parts.store, *pulled, namespace="sandbox")
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        assert client.post(SERVICE, json=call(2.5, stamped(EARLY))).status_code == 200
        assert [sizes(parts, ref) for ref in own_refs(parts)] == [["45 mm"]]
        agrees(parts)
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


@pytest.mark.parametrize(
    ("metas", "seen"),
    [
        ((stamped(LATE), stamped(EARLY)), "25 mm"),
        ((stamped(EARLY), stamped(LATE)), "35 mm"),
        ((stamped(EARLY), stamped(LATE, subset=True)), "25 mm"),
        ((stamped(), stamped()), "35 mm"),
    ],
)
def test_a_call_that_brings_two_versions_of_one_resource(
    settings: Settings, metas: tuple[dict[str, Any], dict[str, Any]], seen: str
) -> None:
    """As two prefetch keys do whose searches overlap."""
    parts = build(settings)
    body, again = call(2.5, metas[0]), call(3.5, metas[1])
    entries = body["prefetch"]["observations"]["entry"]
    entries += [
        entry
        for entry in again["prefetch"]["observations"]["entry"]
        if entry["resource"]["id"].startswith("tumor-size")
    ]
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        for _ in range(2):
            assert client.post(SERVICE, json=body).status_code == 200
        assert [sizes(parts, ref) for ref in own_refs(parts)] == [[seen], [seen]]
        agrees(parts)
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()
