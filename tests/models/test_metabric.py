"""The cohort: who is in, what its tables get wrong, and every way in which another file is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.errors import BadInput, DataUnavailable, DigestMismatch
from models.training import metabric
from models.training.metabric import CLINICAL, DIGESTS, MUTATIONS, Cohort

Edit = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module")
def tables(peer_data: Path) -> Path:
    return peer_data / "models" / "metabric"


@pytest.fixture(scope="module")
def cohort(tables: Path) -> Cohort:
    return metabric.load(tables)


def test_who_is_in(cohort: Cohort) -> None:
    five = cohort.at_five_years()
    assert len(cohort) == 1966
    assert int(np.nansum(five)) == 484
    assert int(np.isnan(five).sum()) == 143
    assert len(cohort.genes) == 173
    assert int((cohort.mutated.mean(axis=0) >= 0.01).sum()) == 116


def test_unclassified_subtypes_are_none(cohort: Cohort) -> None:
    assert sum(not subtype for subtype in cohort.subtype) == 7
    assert {subtype for subtype in cohort.subtype if subtype} == set(metabric.SUBTYPES)


def test_nottingham_index_is_computed_again(cohort: Cohort, tables: Path) -> None:
    """0.2 x size in cm + node stage + grade (Galea 1992); their column has a tenth of the size term."""
    at = cohort.ids.index("MB-0002")
    assert (cohort.size[at], cohort.nodes[at], cohort.grade[at]) == (10.0, 0.0, 3.0)
    assert cohort.npi[at] == pytest.approx(0.2 + 1 + 3)
    theirs = next(line for line in (tables / CLINICAL).read_text().splitlines() if "MB-0002" in line).split("\t")[23]
    assert theirs == "4.02"


def altered(tables: Path, folder: Path, name: str, edit: Edit) -> dict[str, str]:
    """Copy the tables, change one, and give the digests that they then have."""
    digests = {}
    for table in DIGESTS:
        lines = (tables / table).read_text().splitlines()
        body = ("\n".join(edit(lines) if table == name else lines) + "\n").encode()
        (folder / table).write_bytes(body)
        digests[table] = hashlib.sha256(body).hexdigest()
    return digests


def replaced(line: int, old: str, new: str) -> Edit:
    def edit(lines: list[str]) -> list[str]:
        assert old in lines[line]
        return [*lines[:line], lines[line].replace(old, new, 1), *lines[line + 1 :]]

    return edit


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (CLINICAL, replaced(0, "Tumor Size", "Size"), "column Tumor Size is missing .at .*header"),
        (CLINICAL, replaced(0, "Tumor Stage", "Tumor Size"), "column Tumor Stage is missing"),
        (CLINICAL, lambda lines: [*lines, lines[1]], "Patient ID is empty or stands twice .at .* line 2511"),
        (CLINICAL, replaced(1, "Positve", "Positive"), "ER status measured by IHC is none of the words .* line 2"),
        (CLINICAL, replaced(1, "Positve", "positve"), "ER status measured by IHC is none of the words"),
        (CLINICAL, replaced(1, "claudin-low", "Claudin-Low"), "Claudin-low subtype is none of the words"),
        (CLINICAL, replaced(1, "75.65", "-3"), "Age at Diagnosis is not a number between"),
        (CLINICAL, replaced(1, "75.65", "nan"), "Age at Diagnosis is not a number between"),
        (CLINICAL, replaced(1, "75.65", "inf"), "Age at Diagnosis is not a number between"),
        (CLINICAL, replaced(1, "\tLiving", ""), "a row does not have the columns"),
        (CLINICAL, replaced(1, "0:Not", "Not"), "Relapse Free Status"),
        (MUTATIONS, replaced(1, "MB-0599", "MB-9999"), "a mutation of a patient who was not sequenced"),
        (MUTATIONS, replaced(0, "hugoGeneSymbol", "gene"), "column hugoGeneSymbol is missing"),
    ],
    ids=[
        "no size column", "a column twice", "duplicate id", "spelling", "case", "subtype spelling", "negative age",
        "NaN", "infinite", "short row", "status word", "stranger's mutation", "mutation header",
    ],
)  # fmt: skip
def test_another_table_is_refused_by_place(tables: Path, tmp_path: Path, name: str, edit: Edit, message: str) -> None:
    digests = altered(tables, tmp_path, name, edit)
    with pytest.raises(BadInput, match=message):
        metabric.load(tmp_path, digests)


def test_file_with_other_bytes_is_refused_before_it_is_read(tables: Path, tmp_path: Path) -> None:
    altered(tables, tmp_path, CLINICAL, lambda lines: [*lines, ""])
    with pytest.raises(DigestMismatch, match="is not the one that this model was made with"):
        metabric.load(tmp_path)


def test_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"brca_metabric_clinical_data\.tsv cannot be read"):
        metabric.load(tmp_path)


def test_mutation_listed_twice_counts_once(cohort: Cohort) -> None:
    at = cohort.ids.index("MB-5173")
    assert cohort.mutated[at, cohort.genes.index("DNAH5")] == 1.0
