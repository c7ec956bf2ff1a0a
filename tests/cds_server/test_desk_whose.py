"""Whom a page is about: what the Patient resource says, and nothing of the wrong type."""

from __future__ import annotations

from datetime import date

from cds_server.desk.whose import SSN, banner


def test_a_banner_says_what_the_patient_says_and_no_more() -> None:
    today = date(2026, 11, 21)
    ssn, mrn = {"system": SSN, "value": "1"}, {"system": "urn:x:mrn", "value": "7"}
    old = {"use": "old", "family": "Before"}
    full = banner(
        {
            "name": [old, {"use": "official", "family": "Weber", "given": ["Anna", "Maria"]}],
            "birthDate": "2025-05-01",
            "gender": "female",
            "identifier": [ssn, mrn, {"value": 3}],
        },
        today,
    )
    assert (full.name, full.age, full.sex) == ("Anna Maria Weber", "18 months", "female")
    assert [(each.label, each.value) for each in full.identifiers] == [("MRN", "7")]
    assert banner({"identifier": [ssn]}, today).identifiers[0].value == "1"
    dead = banner({"birthDate": "1950-06", "deceasedDateTime": "2020-05-01"}, today)
    assert (dead.age, dead.died) == ("69 years", "2020-05-01")
    assert banner({"birthDate": "1950", "deceasedBoolean": True}, today).age is None
    nobody = banner({"name": "x", "birthDate": 7, "identifier": {}}, today)
    assert (nobody.name, nobody.born, nobody.identifiers) == (None, None, ())
