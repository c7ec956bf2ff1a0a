"""Mutations as mCODE reports them: what counts as one, what absence needs, and when the modality is off."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from models.modalities import mutation
from models.nouns import FeatureVector
from models.shelf import Shelf
from tests.models.genomics import (
    ABL1,
    BAP1,
    BCR,
    GATA3,
    GERMLINE,
    LOINC,
    PALB2,
    STK11,
    TP53,
    component,
    concept,
    read,
    region,
    variant,
)
from tests.models.records import condition, demographics, jenny

PART: dict[str, Any] = next(
    part for part in Shelf().get("metabric-genomic").manifest["modalities"] if part["name"] == "mutation"
)
ALL = [gene["hgnc"] for gene in PART["genes"]]
PREVALENCE = {gene["name"]: gene["prevalence"] for gene in PART["genes"]}
FIXTURE = Path(__file__).parents[2] / "fixtures" / "patients" / "jenny-m.bundle.json"


def encode(*resources: dict[str, Any], **members: Any) -> FeatureVector:
    return mutation.encode(jenny(also=read(*resources), **members), PART)


def test_somatic_variant_of_a_studied_gene_is_a_mutation_and_the_others_are_wild_type() -> None:
    vector = encode(region(ALL), variant(TP53))
    flags = {feature.name: feature for feature in vector.features}
    assert vector.absent is None
    assert (flags["TP53"].value, flags["TP53"].label) == (1.0, "mutated")
    assert (flags["GATA3"].value, flags["GATA3"].label) == (0.0, "not mutated")
    assert not any(feature.missing for feature in vector.features)
    assert flags["burden"].value == pytest.approx(math.log(2))
    assert flags["burden"].label == "1 of 116 studied genes mutated"


def test_flags_lead_to_the_facts_that_they_came_from() -> None:
    vector = encode(region(ALL), variant(TP53))
    assert vector.feature("TP53").facts == ("genomics/1/#0",)
    assert vector.feature("GATA3").facts == ("genomics/0/#1",)
    assert vector.feature("TP53").effective == "2018-04-01"


def test_gene_that_no_region_lists_is_unknown_not_wild_type() -> None:
    left_out = mutation.GENES["MUC16"]
    flag = encode(region([gene for gene in ALL if gene != left_out])).feature("MUC16")
    assert (flag.missing, flag.value, flag.label) == (True, PREVALENCE["MUC16"], "not studied")


def test_no_region_studied_is_no_answer_even_with_a_variant() -> None:
    assert encode().absent == "no report says which genes of the tumour were studied"
    assert str(encode(variant(BAP1)).absent).startswith("the genes studied carry 0%")


def test_panel_with_too_little_of_the_weight_turns_the_modality_off() -> None:
    assert encode(region([TP53])).absent == "the genes studied carry 68% of the model's weight; it needs 80%"


def test_part_of_the_panel_is_enough_and_the_reader_is_told() -> None:
    studied = [gene["hgnc"] for gene in PART["genes"] if gene["name"] in ("TP53", "GATA3", "MAP3K1")]
    vector = encode(region(studied))
    assert vector.absent is None
    assert "the genes studied carry 82% of the weight of the mutation model" in vector.cautions
    burden = vector.feature("burden")
    unstudied = sum(PREVALENCE.values()) - sum(PREVALENCE[name] for name in ("TP53", "GATA3", "MAP3K1"))
    assert burden.missing
    assert burden.value == pytest.approx(math.log1p(unstudied))


@pytest.mark.parametrize(
    "result",
    [
        variant(TP53, source=GERMLINE),
        variant(TP53, present="LA9634-2"),
        variant(TP53, status="preliminary"),
        variant(TP53, status="entered-in-error"),
        variant(TP53, consequence="SO:0001743"),
        variant(TP53, consequence="SO:0001819"),
        variant(TP53, BCR),
        variant(BCR, ABL1),
        variant(STK11),
        variant(TP53, effectiveDateTime="2030-01-01"),
        variant(TP53, effectiveDateTime="2016-01-01"),
        variant(TP53, also=[component(LOINC, "82155-3", concept(LOINC, "LA6686-5"))]),
        variant(TP53, focus=[{"reference": "Condition/other"}]),
    ],
    ids=[
        "germline", "called absent", "preliminary", "in error", "copy number loss", "silent", "fusion with TP53",
        "fusion", "a gene outside the panel", "in the future", "years before", "copy number stated",
        "of another tumour",
    ],
)  # fmt: skip
def test_what_is_no_mutation_of_this_tumour_leaves_the_studied_gene_wild_type(result: dict[str, Any]) -> None:
    flag = encode(region(ALL), result).feature("TP53")
    assert (flag.value, flag.missing) == (0.0, False)


def test_variant_that_does_not_say_it_is_somatic_makes_its_gene_unknown() -> None:
    flag = encode(region(ALL), variant(GATA3, source=None)).feature("GATA3")
    assert (flag.missing, flag.value, flag.label) == (True, PREVALENCE["GATA3"], "unknown")
    assert flag.note == "a variant that does not say it is somatic"


def test_two_reports_add_up() -> None:
    half = len(ALL) // 2
    regions = (region(ALL[:half], id="a"), region(ALL[half:], id="b"))
    vector = encode(*regions, variant(TP53, id="v"), variant(GATA3, id="w"))
    assert not vector.feature("burden").missing
    assert vector.feature("TP53").value == vector.feature("GATA3").value == 1.0


def test_persona_panel_of_seven_inherited_genes_is_not_enough() -> None:
    """The persona's own report (mCODE, EX_ExtendedExample): seven genes, a somatic PALB2 variant."""
    bundle = json.loads(FIXTURE.read_text())
    resources = [entry["resource"] for entry in bundle["entry"]]
    genomic = [r for r in resources if r["id"] in ("genomic-region-studied-jenny-m", "genomic-variant-jenny-m")]
    assert len(genomic) == 2
    vector = encode(*genomic)
    assert vector.absent == "the genes studied carry 70% of the model's weight; it needs 80%"
    assert PALB2 not in ALL


def test_both_systems_of_gene_ids_are_read() -> None:
    assert encode(region(ALL, system="http://www.genenames.org")).absent is None
    assert str(encode(region(ALL, system="urn:somebody:else")).absent).startswith("no report says")


def test_without_a_breast_cancer_or_in_a_man_or_with_metastasis_it_is_off() -> None:
    genes = (region(ALL), variant(TP53))
    born, man = demographics(sex="male")
    assert encode(*genes, without="tumour").absent == "no invasive breast cancer is recorded"
    assert encode(*genes, born=born, sex=man).absent == "the equation holds for women only"
    spread = condition(code="94222008", resource="Condition/spread", laterality=None)
    both = mutation.encode(jenny(also=[spread, *read(*genes)]), PART)
    assert str(both.absent).startswith("distant metastasis is recorded")


def test_two_tumours_and_none_chosen_is_no_answer() -> None:
    right = condition(code="353511000119101", laterality="right", resource="Condition/right")
    vector = mutation.encode(jenny(also=[right, *read(region(ALL))]), PART)
    assert vector.absent == "two tumours, none chosen"
