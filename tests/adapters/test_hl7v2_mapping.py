"""The mapping's data: complete, understood, and shown as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2 import mapped
from adapters.hl7v2.events import EVENTS, event_of
from adapters.hl7v2.feed import Feed
from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.vocabulary import TABLES, code_system, load
from adapters.readers import hl7v2
from models.errors import Unreadable
from tests.adapters.hl7v2_mapping_page import PAGE, page

SEGMENTS, DATATYPES, VOCABULARY = load("segments"), load("datatypes"), load("vocabulary")
parts = st.lists(st.text(st.sampled_from("Ab1-. é"), max_size=3), min_size=1, max_size=3)
READS = {
    *("visit", "people", "coverage", "clinical", "results"),
    *("orders", "reports", "documents", "vaccines", "appointments", "claims"),
}


@pytest.mark.parametrize("name", [*SEGMENTS, *DATATYPES])
def test_every_row_can_be_run(name: str) -> None:
    """A converter, a condition or a target that is not understood fails here, not on a message."""
    assert hl7v2.CONVERTERS
    tables = SEGMENTS if name in SEGMENTS else DATATYPES
    for rule, row in zip(mapped._map(name, tables), tables[name]["rules"], strict=True):
        assert (rule.convert is None) == ("as" not in row)
        assert rule.convert is not None or "value" in row, row
        assert {condition.test for condition in rule.when} <= {"present", "absent", "in", "not"}


@pytest.mark.parametrize("name", [*SEGMENTS, *DATATYPES])
def test_every_row_names_the_map_that_it_follows_or_its_reason(name: str) -> None:
    table = {**SEGMENTS, **DATATYPES}[name]
    assert all(table["ig"] or row.get("own") for row in table["rules"])


def test_every_vocabulary_that_a_row_names_is_there() -> None:
    named = {row["vocabulary"] for table in SEGMENTS.values() for row in table["rules"] if "vocabulary" in row}
    named |= {row["vocabulary"] for table in DATATYPES.values() for row in table["rules"] if "vocabulary" in row}
    assert named <= set(TABLES)
    for name, table in VOCABULARY.items():
        assert table.get("ig") or table.get("own"), name
        reasons = table.get("own", {})
        assert isinstance(reasons, str) or set(reasons) <= {*table["map"], *table.get("same", ())}, name


def test_vocabularies_whose_targets_are_codings_name_their_system() -> None:
    for table in SEGMENTS.values():
        for row in table["rules"]:
            if "vocabulary" in row and row["as"] in ("CWE", "Coding", "conceptOf"):
                assert TABLES[row["vocabulary"]].system, row["vocabulary"]


def test_every_event_says_what_it_reads_and_why() -> None:
    for (kind, trigger), event in EVENTS.items():
        assert event.reads <= READS, (kind, trigger)
        assert bool(event.ig) != bool(event.own), (kind, trigger)


@pytest.mark.parametrize("kind_and_trigger", [("OUL", "R22"), ("ACK", "A01"), ("", ""), ("ADT", "Z99")])
def test_an_event_without_a_row_is_refused_with_its_place(kind_and_trigger: tuple[str, str]) -> None:
    with pytest.raises(Unreadable, match="not mapped") as caught:
        event_of(*kind_and_trigger)
    assert caught.value.where == "MSH-9"


def test_ids_are_readable_where_that_is_legal_and_hashes_elsewhere() -> None:
    assert local_id("HOSP", "12-34") == "HOSP-12-34"
    assert local_id("", "1234") == "1234"
    several = [("A-1", "2"), ("A", "1-2"), ("A", "1", "2"), ("A", "", "2"), ("", "1-2"), ("", "", "1-2"), ("A", "é")]
    made = [local_id(*parts) for parts in several]
    assert len(set(made)) == len(several)
    assert local_id("A", "x" * 90) != local_id("A", "x" * 91)
    assert all(len(each) <= 64 for each in (local_id("A", "x" * 90), *made))


@given(parts, parts)
def test_no_two_lists_of_parts_have_one_id(one: list[str], other: list[str]) -> None:
    made = local_id(*one)
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", made)
    assert (made == local_id(*other)) == (one == other)


def test_systems_are_configured_ones_oids_or_names_below_the_feed() -> None:
    feed = Feed(namespace="lab 1", systems={"HOSP": "https://hosp.example/mrn", "OURS": "https://hosp.example/codes"})
    assert feed.authority("HOSP", "1.2.3", "ISO") == "https://hosp.example/mrn"
    assert feed.authority("ELSE", "2.16.840.1", "ISO") == "urn:oid:2.16.840.1"
    assert feed.authority("ELSE", "") == "urn:id:lab%201:ELSE"
    assert code_system(feed, "LN") == "http://loinc.org"
    assert code_system(feed, "HL70078") == "http://terminology.hl7.org/CodeSystem/v2-0078"
    assert code_system(feed, "OURS") == "https://hosp.example/codes"
    assert code_system(feed, "L") == "urn:id:lab%201:L"


def test_the_page_shows_the_data_and_what_the_samples_give(peer_data: Path) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(peer_data), "run `python -m tests.adapters.hl7v2_mapping_page`"
