"""Two records that are one person, or are not: link and unlink statements, and visits under a new number."""

from __future__ import annotations

import pytest

from adapters.readers.validation import validate
from models.errors import Unreadable
from models.nouns import Statement, Verb
from tests.adapters.hl7v2_samples import of_type, read

PID = "PID|1||4711^^^HOSP^MR||DOE^JANE||19700203|F"
OTHER = "PID|1||4712^^^HOSP^MR||ROE^JANE||19700203|F"


def links(statements: list[Statement]) -> list[tuple[str, str, str | None]]:
    return [(each.verb.value, each.local_id, each.other_id) for each in statements if each.body is None]


@pytest.mark.parametrize("event", ["A18", "A30", "A34", "A36", "A39", "A40", "A46", "A47"])
def test_a_merge_links_the_prior_record_and_takes_it_out_of_use(event: str) -> None:
    statements = read(f"ADT^{event}", PID, "MRG|99^^^HOSP^MR|||||| OLD^JANE")
    assert links(statements) == [("link", "HOSP-4711", "HOSP-99")]
    survivor, prior = of_type(statements, "Patient")
    assert survivor["link"] == [{"other": {"reference": "Patient/HOSP-99"}, "type": "replaces"}]
    assert "active" not in survivor
    assert (prior["id"], prior["active"]) == ("HOSP-99", False)
    assert prior["link"] == [{"other": {"reference": "Patient/HOSP-4711"}, "type": "replaced-by"}]
    assert prior["name"] == [{"family": "OLD", "given": ["JANE"]}]
    assert validate(survivor) == validate(prior) == []


def test_each_group_of_a_merge_is_its_own_and_in_order() -> None:
    statements = read("ADT^A40", PID, "MRG|1^^^HOSP^MR", OTHER, "MRG|2^^^HOSP^MR", "MRG|3^^^HOSP^MR")
    assert links(statements) == [
        ("link", "HOSP-4711", "HOSP-1"),
        ("link", "HOSP-4712", "HOSP-2"),
        ("link", "HOSP-4712", "HOSP-3"),
    ]
    assert [each.pointer for each in statements if each.verb is Verb.LINK] == ["/MRG/0", "/MRG/1", "/MRG/2"]


def test_a_chain_of_merges_is_said_link_by_link() -> None:
    """A -> B -> C over two messages: each says its own step; who is who in the end is the reducer's."""
    first = read("ADT^A40", OTHER, "MRG|4711^^^HOSP^MR")
    second = read("ADT^A40", "PID|1||4713^^^HOSP^MR||DOE", "MRG|4712^^^HOSP^MR")
    assert links(first) + links(second) == [("link", "HOSP-4712", "HOSP-4711"), ("link", "HOSP-4713", "HOSP-4712")]


def test_the_prior_identifier_is_chosen_like_the_survivors() -> None:
    statements = read("ADT^A40", PID, "MRG|7^^^STATE^SS~99^^^HOSP^MR")
    assert links(statements) == [("link", "HOSP-4711", "HOSP-99")]
    assert [each["value"] for each in of_type(statements, "Patient")[1]["identifier"]] == ["7", "99"]


def test_a_merge_with_itself_links_nothing() -> None:
    statements = read("ADT^A40", PID, "MRG|4711^^^HOSP^MR")
    assert links(statements) == []
    assert len(of_type(statements, "Patient")) == 1


def test_a_merge_without_a_prior_record_is_refused() -> None:
    with pytest.raises(Unreadable) as caught:
        read("ADT^A40", PID, "MRG||||||DOE")
    assert caught.value.where == "MRG-1"


def test_link_and_unlink_leave_both_records_in_use() -> None:
    assert links(read("ADT^A24", PID, OTHER)) == [("link", "HOSP-4711", "HOSP-4712")]
    statements = read("ADT^A37", PID, OTHER)
    assert links(statements) == [("unlink", "HOSP-4711", "HOSP-4712")]
    assert all("active" not in each for each in of_type(statements, "Patient"))
    with pytest.raises(Unreadable, match="only one is named"):
        read("ADT^A24", PID)


def test_moved_identifiers_link_without_taking_the_prior_record_out_of_use() -> None:
    statements = read("ADT^A43", PID, "MRG|99^^^HOSP^MR")
    assert links(statements) == [("link", "HOSP-4711", "HOSP-99")]
    [patient] = of_type(statements, "Patient")
    assert patient["link"][0]["type"] == "seealso"


def test_a_deleted_person_is_voided() -> None:
    statements = read("ADT^A29", PID)
    assert (statements[0].verb, statements[0].local_id) == (Verb.VOID, "HOSP-4711")
    assert of_type(statements, "Patient") == []


@pytest.mark.parametrize("event", ["A42", "A45", "A50"])
def test_a_visit_under_a_new_number_leaves_the_old_one_in_error(event: str) -> None:
    pv1 = "PV1|1|I|W1||||||||||||||||V2^^^HOSP"
    statements = read(f"ADT^{event}", PID, "MRG|99^^^HOSP^MR||||V1^^^HOSP", pv1)
    now, before = of_type(statements, "Encounter")
    assert (now["id"], now["status"], now["subject"]["reference"]) == ("HOSP-V2", "in-progress", "Patient/HOSP-4711")
    assert (before["id"], before["status"], before["subject"]["reference"]) == (
        "HOSP-V1",
        "entered-in-error",
        "Patient/HOSP-99",
    )
    assert {"value": "V1", "system": "urn:id:hl7v2:HOSP", "use": "old"} in now["identifier"]
    assert links(statements) == []


def test_a_moved_visit_keeps_its_number_and_gets_its_new_patient() -> None:
    pv1 = "PV1|1|I|W1||||||||||||||||V1^^^HOSP"
    statements = read("ADT^A45", PID, "MRG|99^^^HOSP^MR||||V1^^^HOSP", pv1)
    [visit] = of_type(statements, "Encounter")
    assert (visit["id"], visit["subject"]["reference"]) == ("HOSP-V1", "Patient/HOSP-4711")
