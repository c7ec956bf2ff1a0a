"""How the clinical inputs are read from facts: one test per trap that is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codes import ICD10CM, LOINC, NCIT, SCT
from models.modalities import clinical
from models.nouns import Coding, Fact, Feature, FeatureVector, Snapshot
from models.scoring import Scorer
from tests.models.records import NEGATIVE, NOW, POSITIVE, condition, demographics, fact, jenny, persona, snapshot

UNCONVERTED = "value in a unit that does not convert: refused"


@pytest.fixture
def encode(scorer: Scorer) -> Any:
    def encoded(given: Snapshot) -> FeatureVector:
        return scorer.judge(given).vector("clinical")

    return encoded


def one(encode: Any, name: str, given: Snapshot) -> Feature:
    vector: FeatureVector = encode(given)
    return vector.feature(name)


# ---- the persona -----------------------------------------------------------------------------------------------------


def test_persona_is_the_one_that_hl7_publishes(peer_data: Path) -> None:
    published = (peer_data / "models" / "mcode" / "EX_ExtendedExample.fsh").read_text()
    assert "2.5 'cm'" in published
    for known in persona().values():
        said = [coding.code for coding in (*known.codings, *known.coded)] + [known.text or ""]
        named = {"birthDate", "33728-7"}  # FSH names the element, and the slice tumorLongestDimension
        assert [text for text in said if text not in published and text not in named] == []
        assert known.effective is None or known.effective[:10] in published


def test_persona_is_read_as_published(encode: Any) -> None:
    vector = encode(jenny())
    assert vector.absent is None
    observed = {feature.name: feature.value for feature in vector.features if not feature.missing and feature.facts}
    assert observed == {"age": 53, "size": 25, "grade": 2, "nodes": 0, "er": 1, "her2": 0, "pr": 0, "smoker": 1}
    assert {f.name for f in vector.features if f.missing} == {"screen", "ki67"}


def test_every_input_names_its_facts_its_date_and_its_words(encode: Any) -> None:
    given = jenny()
    size = one(encode, "size", given)
    assert (size.label, size.effective, size.facts) == ("25 mm", "2018-04-01", (the_only(given, "33728-7").id,))
    assert one(encode, "smoker", jenny()).label == "current smoker"


def the_only(given: Snapshot, code: str) -> Fact:
    (found,) = (known for known in given.facts if known.code.code == code)
    return found


def test_sentinel_count_without_a_value_falls_back_to_pn0(encode: Any) -> None:
    given = jenny()
    nodes = one(encode, "nodes", given)
    assert (nodes.value, nodes.missing) == (0.0, False)
    assert nodes.note == "no count recorded; derived from pN0"
    assert nodes.facts == (the_only(given, "371494008").id,)


def test_pt3_beside_25_mm_is_a_caution(encode: Any) -> None:
    (caution,) = encode(jenny()).cautions
    assert caution == "the recorded pT3 does not fit the recorded tumour size; one of them is wrong"
    assert encode(jenny(pt=fact(SCT, "384625004", answer=(SCT, "1229852009")))).cautions == ()


# ---- nodes -----------------------------------------------------------------------------------------------------------


def test_examined_nodes_are_not_positive_nodes(encode: Any) -> None:
    examined = fact(LOINC, "92833-3", number="3", unit="1")
    assert "positive nodes" in encode(jenny(without="pn", also=[examined])).absent


def test_other_pn_categories_give_no_count(encode: Any) -> None:
    vector = encode(jenny(pn=fact(SCT, "371494008", answer=(SCT, "1229951001"))))
    assert vector.absent == "required and not usable: number of positive nodes"
    assert vector.feature("nodes").note == "pN tells that nodes are positive, not how many"


def test_clinical_n0_is_not_pathological_n0(encode: Any) -> None:
    cn0 = fact(SCT, "399534004", answer=(SCT, "1229967007"))
    assert encode(jenny(without="pn", also=[cn0])).absent == "required and not usable: number of positive nodes"


def test_all_regional_nodes_go_before_sentinel_nodes(encode: Any) -> None:
    sentinel, every = fact(LOINC, "92832-5", number="1"), fact(LOINC, "21893-3", number="4", unit="{nodes}")
    assert one(encode, "nodes", jenny(nodes=sentinel, also=[every])).value == 4
    alone = one(encode, "nodes", jenny(nodes=sentinel))
    assert (alone.value, alone.note) == (1, "counts sentinel nodes only")


def test_positive_count_beside_pn0_is_a_caution(encode: Any) -> None:
    vector = encode(jenny(nodes=fact(LOINC, "92832-5", number="2")))
    assert vector.feature("nodes").value == 2
    assert "the recorded pN category does not fit the number of positive nodes" in vector.cautions


# ---- unknown is not negative -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["her2", "pr", "grade", "smoking"])
def test_what_is_not_recorded_is_unknown(encode: Any, name: str) -> None:
    column = {"smoking": "smoker"}.get(name, name)
    feature = one(encode, column, jenny(without=name))
    assert (feature.value, feature.missing, feature.label) == (9.0, True, "unknown")


def test_er_is_required(encode: Any) -> None:
    assert encode(jenny(without="er")).absent == "required and not usable: ER status"


@pytest.mark.parametrize("answer", [(SCT, "42425007"), (LOINC, "LA11842-4"), (SCT, "373121007"), ("urn:local", "neg")])
def test_equivocal_or_foreign_answer_is_unknown(encode: Any, answer: tuple[str, str]) -> None:
    her2 = one(encode, "her2", jenny(her2=fact(LOINC, "85319-2", answer=answer)))
    assert her2.missing
    assert her2.note


def test_fish_settles_an_equivocal_stain(encode: Any) -> None:
    stain = fact(LOINC, "85319-2", answer=(LOINC, "LA11842-4"))
    fish = fact(LOINC, "85318-4", answer=POSITIVE)
    assert one(encode, "her2", jenny(her2=stain, also=[fish])).value == 1.0


@pytest.mark.parametrize(
    ("name", "column", "code"), [("er", "er", "16112-5"), ("pr", "pr", "16113-3"), ("her2", "her2", "85318-4")]
)
@pytest.mark.parametrize("answer", [(SCT, "10828004"), POSITIVE])
def test_each_coding_of_a_marker_is_read(
    encode: Any, name: str, column: str, code: str, answer: tuple[str, str]
) -> None:
    assert one(encode, column, jenny(**{name: fact(LOINC, code, answer=answer)})).value == 1.0


def test_local_code_first_and_loinc_second_is_read(encode: Any) -> None:
    her2 = fact("urn:lab", "H2", codings=(Coding("urn:lab", "H2"), Coding(LOINC, "48676-1")), answer=POSITIVE)
    assert one(encode, "her2", jenny(her2=her2)).value == 1.0


def test_two_codes_of_one_answer_that_disagree_are_refused(encode: Any) -> None:
    both = fact(LOINC, "48676-1", coded=(Coding(*POSITIVE), Coding(SCT, "260385009")))
    assert one(encode, "her2", jenny(her2=both)).note.startswith("codes of one answer disagree")


def test_ki67_is_positive_above_ten_percent(encode: Any) -> None:
    values = [
        one(encode, "ki67", jenny(also=[fact(LOINC, "85330-9", number=n, unit="%")])).value for n in ("10", "10.1")
    ]
    assert values == [0.0, 1.0]
    assert one(encode, "ki67", jenny(also=[fact(LOINC, "85330-9", number="0.2")])).missing


# ---- grade -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "code", "members", "value"),
    [
        (LOINC, "44648-4", {"answer": (LOINC, "LA27825-1")}, 3.0),
        (NCIT, "C18000", {"answer": (SCT, "369790002")}, 1.0),
        (NCIT, "C18000", {"number": "3"}, 3.0),
        (NCIT, "C18000", {"answer": (SCT, "1286893008")}, 2.0),
        (NCIT, "C18000", {"answer": (SCT, "1155708003")}, 9.0),
        (LOINC, "44648-4", {"number": "2", "unit": "1"}, 2.0),
        (LOINC, "44648-4", {"number": "3"}, 9.0),
        (LOINC, "44648-4", {"number": "7"}, 9.0),
        (LOINC, "44648-4", {"number": "1.5"}, 9.0),
    ],
)
def test_grade_in_its_codings(encode: Any, system: str, code: str, members: dict[str, Any], value: float) -> None:
    grade = one(encode, "grade", jenny(grade=fact(system, code, **members)))
    assert (grade.value, grade.missing) == (value, value == 9.0)


# ---- one result ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "preliminary", "registered", "unknown", None])
def test_result_that_is_not_final_is_not_used(encode: Any, status: str | None) -> None:
    vector = encode(jenny(size=fact(LOINC, "21889-1", number="25", unit="mm", status=status)))
    assert vector.absent == "required and not usable: tumour size"
    told = vector.feature("size").note
    assert (told is not None) == (status in ("preliminary", "registered"))


@pytest.mark.parametrize(
    ("members", "note"),
    [
        ({"number": "20", "unit": "mm", "comparator": "<"}, "only a bound (< or >) is given: refused"),
        ({"number": "9000", "unit": "mm", "original": "900 cm"}, "value outside plausible range: refused"),
        ({"number": "-3", "unit": "mm"}, "value outside plausible range: refused"),
        ({"number": "NaN", "unit": "mm"}, "value outside plausible range: refused"),
        ({"number": "2.5", "unit": "cm"}, "value without the expected unit: refused"),
        ({"number": "25"}, "value without the expected unit: refused"),
        ({"number": "25", "unit": "[bogus]", "problem": "no such unit"}, UNCONVERTED),
        ({"text": "about an inch"}, "an answer in free text: refused"),
        ({"absent_reason": "not-performed"}, None),
    ],
)
def test_size_that_cannot_be_believed_is_missing_and_never_quoted(
    encode: Any, members: dict[str, Any], note: str | None
) -> None:
    size = one(encode, "size", jenny(size=fact(LOINC, "21889-1", **members)))
    assert (size.missing, math.isnan(size.value), size.label, size.note) == (True, True, "unknown", note)


def test_latest_result_counts(encode: Any) -> None:
    biopsy = fact(LOINC, "21889-1", number="31", unit="mm", effective="2018-03-06")
    assert one(encode, "size", jenny(also=[biopsy])).value == 25


@pytest.mark.parametrize("effective", ["2018-04-01", "2018-04-01T09:00:00Z", "2018-04", "2018", None])
def test_two_results_of_one_day_that_disagree_are_no_result(encode: Any, effective: str | None) -> None:
    other = fact(LOINC, "21889-1", number="31", unit="mm", effective=effective)
    size = one(encode, "size", jenny(also=[other]))
    assert size.missing
    assert size.note == "results of the same day disagree"
    assert len(size.facts) == 2


def test_two_results_of_one_day_that_agree_are_one(encode: Any) -> None:
    size = one(encode, "size", jenny(also=[fact(LOINC, "21889-1", number="25.0", unit="mm")]))
    assert (size.value, len(size.facts)) == (25, 2)


def test_older_result_does_not_stand_in_for_a_later_one_that_is_refused(encode: Any) -> None:
    later = fact(LOINC, "21889-1", number="9000", unit="mm", effective="2018-04-20")
    assert one(encode, "size", jenny(also=[later])).missing
    earlier = fact(LOINC, "21889-1", number="9000", unit="mm", effective="2018-03-20")
    assert one(encode, "size", jenny(also=[earlier])).value == 25


def test_results_of_the_future_and_of_long_ago_are_not_used(encode: Any) -> None:
    for effective in ("2019-01-01", "2016-01-01"):
        size = fact(LOINC, "21889-1", number="25", unit="mm", effective=effective)
        assert one(encode, "size", jenny(size=size)).missing
    named = fact(LOINC, "21889-1", number="25", unit="mm", effective="2016-01-01", focus=("Condition/primary",))
    assert one(encode, "size", jenny(size=named)).value == 25


def test_receptor_of_a_later_recurrence_is_not_that_of_the_tumour(encode: Any) -> None:
    recurrence = fact(LOINC, "85337-4", answer=NEGATIVE, effective="2022-05-01", focus=("Condition/primary",))
    later = snapshot([*persona().values(), recurrence], at="2022-06-01T00:00:00.000000Z")
    er = one(encode, "er", later)
    assert (er.value, er.note) == (1.0, "a result from long after the diagnosis is not used")


# ---- one tumour ------------------------------------------------------------------------------------------------------

RIGHT = {"code": "353511000119101", "laterality": "right", "resource": "Condition/right"}


def test_no_tumour(encode: Any) -> None:
    assert encode(jenny(without="tumour")).absent == "no invasive breast cancer is recorded"
    in_situ = condition(system=ICD10CM, code="D05.12")
    assert "only carcinoma in situ" in encode(jenny(tumour=in_situ)).absent


@pytest.mark.parametrize("status", ["refuted/", "entered-in-error/", "refuted/inactive"])
def test_refuted_diagnosis_is_no_tumour(encode: Any, status: str) -> None:
    assert encode(jenny(tumour=condition(status=status))).absent == "no invasive breast cancer is recorded"
    assert encode(jenny(also=[condition(**RIGHT, status=status)])).absent is None


def test_family_member_with_breast_cancer_is_no_tumour(encode: Any) -> None:
    aunt = fact(SCT, "254837009", kind="family-history", resource="FamilyMemberHistory/aunt", status="completed")
    assert encode(jenny(also=[aunt])).absent is None
    assert encode(jenny(without="tumour", also=[aunt])).absent == "no invasive breast cancer is recorded"


def test_two_tumours_without_a_choice(encode: Any) -> None:
    assert encode(jenny(also=[condition(**RIGHT)])).absent == "two tumours, none chosen"
    elsewhere = {"context": {"focus": "Condition/third"}}
    assert "not among" in encode(jenny(also=[condition(**RIGHT)], **elsewhere)).absent


def test_facts_of_two_tumours_are_never_mixed(encode: Any) -> None:
    choice = {"context": {"focus": "Condition/primary"}}
    right = condition(**RIGHT)
    unfocused = encode(jenny(also=[right], **choice))
    assert unfocused.absent == "required and not usable: tumour size, number of positive nodes, ER status"
    left_size = fact(LOINC, "21889-1", number="25", unit="mm", laterality="left")
    assert encode(jenny(size=left_size, also=[right], **choice)).feature("size").value == 25
    focused = fact(LOINC, "21889-1", number="12", unit="mm", focus=("Condition/right",), effective="2018-05-01")
    assert encode(jenny(size=left_size, also=[right, focused], **choice)).feature("size").value == 25


def test_side_does_not_tell_two_tumours_of_one_breast_apart(encode: Any) -> None:
    second = condition(resource="Condition/second")
    size = fact(LOINC, "21889-1", number="25", unit="mm", laterality="left")
    vector = encode(jenny(size=size, also=[second], context={"focus": "Condition/primary"}))
    assert vector.feature("size").missing


@pytest.mark.parametrize("members", [{"focus": ("Condition/colon",)}, {"laterality": "right"}])
def test_fact_about_something_else_is_not_used(encode: Any, members: dict[str, Any]) -> None:
    other = fact(LOINC, "21889-1", number="60", unit="mm", effective="2018-05-01", **members)
    assert one(encode, "size", jenny(also=[other])).value == 25


def test_reference_counts_only_within_its_own_record(encode: Any) -> None:
    foreign = fact(LOINC, "21889-1", number="60", unit="mm", record="record-2", focus=("Condition/primary",))
    assert encode(jenny(size=foreign)).feature("size").missing


# ---- the population --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"sex": demographics(sex="male")[1]}, "women only"),
        ({"sex": demographics(sex="unknown")[1]}, "sex is not recorded"),
        ({"without": "sex"}, "sex is not recorded"),
        ({"also": demographics(sex="male")[1:]}, "not clearly"),
        ({"tumour": condition(system=ICD10CM, code="C50.922")}, "sex is not recorded, or not clearly"),
        ({"tumour": condition(status="confirmed/recurrence")}, "recurrent"),
        ({"cm": fact(SCT, "399387003", answer=(SCT, "1229903009"))}, "distant metastasis"),
        ({"also": [condition(system=ICD10CM, code="C79.51", resource="Condition/bone")]}, "distant metastasis"),
        ({"pn": fact(SCT, "371494008", answer=(SCT, "1229878000"))}, "neoadjuvant"),
        ({"born": demographics(born="1930-01-01")[0]}, "25 to 85 years"),
        ({"born": demographics(born="2000-01-01")[0]}, "25 to 85 years"),
        ({"without": "born"}, "age at diagnosis"),
        ({"born": demographics(born="soon")[0]}, "age at diagnosis"),
        ({"also": demographics(born="1970-01-01")[:1]}, "age at diagnosis"),
    ],
)
def test_outside_the_population_is_refused_with_the_reason(encode: Any, given: dict[str, Any], reason: str) -> None:
    assert reason in encode(jenny(**given)).absent


def test_metastasis_of_either_tumour_counts(encode: Any) -> None:
    m1 = fact(SCT, "399387003", answer=(SCT, "1229903009"), focus=("Condition/right",))
    chosen = jenny(also=[condition(**RIGHT), m1], context={"focus": "Condition/primary"})
    assert "distant metastasis" in encode(chosen).absent


def test_secondary_neoplasm_is_not_a_primary(encode: Any) -> None:
    secondary = condition(system=ICD10CM, code="C79.81")
    assert encode(jenny(tumour=secondary)).absent == "no invasive breast cancer is recorded"


def test_refuted_metastasis_is_none(encode: Any) -> None:
    bone = condition(system=ICD10CM, code="C79.51", resource="Condition/bone", status="refuted/")
    assert encode(jenny(also=[bone])).absent is None


def test_assumed_absence_of_metastasis_is_a_caution(encode: Any) -> None:
    assert "no M category is recorded; absence of metastasis is assumed" in encode(jenny(without="cm")).cautions


@pytest.mark.parametrize(
    ("born", "diagnosed", "age"),
    [
        ("1965-01-01", "2018-03-16", 53), ("1965-03-16", "2018-03-16", 53), ("1965-03-17", "2018-03-16", 52),
        ("1965", "2018-03-16", 52), ("1965", "2018-08-01", 53), ("1965-03", "2018-03-20", 53),
        ("1965-06-30", "2018", 53),
        ("1960-02-29", "2018-02-28T23:00:00-05:00", 57),
    ],
)  # fmt: skip
def test_age_at_diagnosis_from_whole_and_partial_dates(encode: Any, born: str, diagnosed: str, age: int) -> None:
    given = jenny(born=demographics(born=born)[0], tumour=condition(effective=diagnosed))
    feature = one(encode, "age", given)
    assert feature.value == age
    assert ("middle" in (feature.note or "")) == (len(born) < 10 or len(diagnosed) < 10)


def test_age_without_a_date_of_diagnosis_is_that_of_the_measurement(encode: Any) -> None:
    age = one(encode, "age", jenny(tumour=condition(effective=None)))
    assert (age.value, age.effective) == (53, "2018-04-01")
    assert "not recorded" in (age.note or "")


# ---- for any record --------------------------------------------------------------------------------------------------

_values = st.one_of(
    st.fixed_dictionaries({"number": st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,3})?", fullmatch=True)}),
    st.fixed_dictionaries({"answer": st.sampled_from([POSITIVE, NEGATIVE, (SCT, "42425007"), (SCT, "1229951001")])}),
    st.fixed_dictionaries({"text": st.sampled_from(["1965", "female", "", "Positive", "2018-13-45"])}),
    st.just({}),
)
_facts = st.builds(
    lambda value, **members: fact(**members, **value),
    _values,
    system=st.sampled_from([LOINC, SCT, ICD10CM]),
    code=st.sampled_from([code for _, code in sorted(clinical._SLOT)]),
    kind=st.sampled_from(["observation", "condition", "demographic"]),
    status=st.sampled_from(["final", "preliminary", "confirmed/active", "refuted/", None]),
    effective=st.sampled_from([None, "2018", "2018-04", "2018-04-01", "2018-13-45", "2031-01-01"]),
    unit=st.sampled_from(["mm", "%", None]),
    comparator=st.sampled_from([None, "<"]),
    laterality=st.sampled_from([None, "left", "right"]),
    focus=st.sampled_from([(), ("Condition/primary",), ("Condition/9",)]),
)


@given(st.lists(_facts, max_size=12), st.sampled_from(sorted(persona())))
def test_any_record_gives_a_score_or_a_reason(scorer: Scorer, more: list[Fact], left_out: str) -> None:
    judgement = scorer.judge(jenny(without=left_out, also=more))
    vector = judgement.vector("clinical")
    assert (judgement.score.probability is None) == (vector.absent is not None)
    known = {known.id for known in judgement.snapshot.facts}
    assert all(set(feature.facts) <= known for feature in vector.features)


@given(st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(scorer: Scorer, random: Any) -> None:
    facts = list(jenny().facts)
    expected = scorer.score(snapshot(facts, at=NOW)).plain()
    random.shuffle(facts)
    assert scorer.score(snapshot(facts, at=NOW)).plain() == expected
