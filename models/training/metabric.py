"""METABRIC as a cohort: who is in, what was known at diagnosis, and when the disease came back.

Two tables of the cBioPortal study `brca_metabric` (Curtis 2012, Nature 486:346; Pereira 2016, Nat Commun 7:11479; ODbL
1.0). They stay where they are: this repository carries what was fitted on them, and the SHA-256 of what it was fitted
on. Traps of these files (all measured): the NPI column has the size term ten times too small in nine rows of ten (so
it is computed again here); positive ER is spelt `Positve`; stage IV is among them; follow-up of zero months says
nothing; one mutation is listed twice.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import BadInput, DataUnavailable, DigestMismatch

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

CLINICAL = "brca_metabric_clinical_data.tsv"
MUTATIONS = "metabric_mutations.tsv"
SEQUENCED = "metabric_clinical.tsv"
"""The sequenced patients: each has a row, also one without any mutation."""
DIGESTS: Mapping[str, str] = {
    CLINICAL: "bfa894af00c08907c19f1ab549c89d625981a31b4dd737a313e0a32caff237ee",
    MUTATIONS: "5c6ea89a6a1b58810ec3de794caafb8544b7a4e0a16bb121d151b87269e5921b",
    SEQUENCED: "049f88a653124f70a5ad425bc3f20b4619296896e39b73f9232590fb495228a1",
}
ATTRIBUTION = (
    "Contains information from METABRIC (Curtis et al. 2012, Nature 486:346-352; Pereira et al. 2016, Nature "
    "Communications 7:11479) as distributed by cBioPortal, made available under the Open Database License 1.0 (ODbL)."
)

SUBTYPES = ("LumA", "LumB", "Her2", "Basal", "Normal", "claudin-low")
SITES = ("1", "2", "3", "4", "5")
HORIZON = 60.0
"""Months: five years."""
_NA = "NA"
_WORDS: Mapping[str, Mapping[str, float]] = {
    "ER status measured by IHC": {"Positve": 1.0, "Negative": 0.0},
    "ER Status": {"Positive": 1.0, "Negative": 0.0},
    "PR Status": {"Positive": 1.0, "Negative": 0.0},
    "HER2 Status": {"Positive": 1.0, "Negative": 0.0},
    "Neoplasm Histologic Grade": {"1": 1.0, "2": 2.0, "3": 3.0},
    "Tumor Stage": {"0": 0.0, "1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0},
    "Relapse Free Status": {"0:Not Recurred": 0.0, "1:Recurred": 1.0},
    "Inferred Menopausal State": {"Pre": 0.0, "Post": 1.0},
    "Chemotherapy": {"NO": 0.0, "YES": 1.0},
    "Hormone Therapy": {"NO": 0.0, "YES": 1.0},
    "Radio Therapy": {"NO": 0.0, "YES": 1.0},
}
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "Age at Diagnosis": (18.0, 110.0),
    "Tumor Size": (0.1, 250.0),
    "Lymph nodes examined positive": (0.0, 100.0),
    "Relapse Free Status (Months)": (0.0, 600.0),
}
_SUBTYPE, _SITE, _ID, _HISTOLOGY = "Pam50 + Claudin-low subtype", "Cohort", "Patient ID", "Oncotree Code"
_COLUMNS = (*_WORDS, *_NUMBERS, _SUBTYPE, _SITE, _ID, _HISTOLOGY)


@dataclass(frozen=True, slots=True)
class Cohort:
    """n patients. Unknown is NaN; `subtype` is empty where there is none."""

    ids: tuple[str, ...]
    months: Floats
    """To recurrence, death without recurrence or last contact."""
    recurred: npt.NDArray[np.bool_]
    """Any relapse. A death without relapse is censored, as the study's own table has it."""
    site: tuple[str, ...]
    age: Floats
    size: Floats
    """mm"""
    nodes: Floats
    grade: Floats
    er: Floats
    pr: Floats
    her2: Floats
    lobular: Floats
    postmenopausal: Floats
    chemotherapy: Floats
    hormone: Floats
    radiotherapy: Floats
    subtype: tuple[str, ...]
    genes: tuple[str, ...]
    """Symbols of all sequenced genes, sorted."""
    mutated: Floats
    """[n, genes], 1 where the tumour carries any coding mutation of the gene."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def npi(self) -> Floats:
        """Nottingham Prognostic Index = 0.2 x size in cm + node stage + grade (Galea 1992, 10.1007/BF01840834)."""
        stage = np.where(self.nodes == 0, 1.0, np.where(self.nodes <= 3, 2.0, 3.0))
        return 0.02 * self.size + np.where(np.isnan(self.nodes), np.nan, stage) + self.grade

    def at_five_years(self) -> Floats:
        """1 recurred within five years, 0 not, NaN censored before."""
        known = np.where(self.months >= HORIZON, 0.0, np.nan)
        return np.where(self.recurred & (self.months <= HORIZON), 1.0, known)


def folder() -> Path:
    """Where the tables are: `models/metabric` below CDS_PEER_DATA, else below `../shared/data`."""
    data = Path(os.environ.get("CDS_PEER_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    return data / "models" / "metabric"


def load(where: Path | None = None, digests: Mapping[str, str] = DIGESTS) -> Cohort:
    """The 1,966 sequenced women without stage IV whose time to recurrence is known: 484 recurrences in five years.

    Raises: DataUnavailable where a table is missing, DigestMismatch where it is another one, BadInput (table, line and
    column, never the value) where its columns or its words are not the ones that this program knows.
    """
    where = where or folder()
    texts = {name: _read(where / name, digest) for name, digest in digests.items()}
    sequenced = {row["patientId"] for _, row in _rows(SEQUENCED, texts[SEQUENCED], ("patientId",), unique="patientId")}
    rows = [
        parsed
        for line, row in _rows(CLINICAL, texts[CLINICAL], _COLUMNS, unique=_ID)
        if row[_ID] in sequenced and _eligible(parsed := _parse(row, line))
    ]
    return _cohort(rows, *_mutations(texts[MUTATIONS], sequenced))


@dataclass(frozen=True, slots=True)
class _Patient:
    id: str
    site: str
    subtype: str
    lobular: float
    values: Mapping[str, float]


def _eligible(patient: _Patient) -> bool:
    values = patient.values
    return (
        values["Tumor Stage"] != 4.0
        and not np.isnan(values["Relapse Free Status"])
        and values["Relapse Free Status (Months)"] > 0.0
    )


def _read(path: Path, digest: str) -> str:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise DataUnavailable(f"cohort table {path.name} cannot be read ({type(error).__name__})") from None
    if hashlib.sha256(body).hexdigest() != digest:
        raise DigestMismatch(f"cohort table {path.name} is not the one that this model was made with")
    return body.decode()


def _rows(table: str, text: str, needed: tuple[str, ...], *, unique: str = "") -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), delimiter="\t", restval=None)
    header = reader.fieldnames or []
    if lacking := [name for name in needed if name not in header]:
        raise BadInput(f"column {lacking[0]} is missing", where=f"{table} header")
    if len(set(header)) != len(header):
        raise BadInput("a column stands twice", where=f"{table} header")
    seen: set[str] = set()
    for line, row in enumerate(reader, start=2):
        if None in row or None in row.values():
            raise BadInput("a row does not have the columns of the header", where=f"{table} line {line}")
        if unique:
            if not row[unique] or row[unique] in seen:
                raise BadInput(f"{unique} is empty or stands twice", where=f"{table} line {line}")
            seen.add(row[unique])
        yield line, row


def _parse(row: Mapping[str, str], line: int) -> _Patient:
    values = {name: _word(name, row[name], line) for name in _WORDS} | {
        name: _number(name, row[name], line) for name in _NUMBERS
    }
    subtype, site = row[_SUBTYPE], row[_SITE]
    if subtype not in (*SUBTYPES, "NC", _NA):
        raise BadInput(f"{_SUBTYPE} is none of the words known here", where=f"{CLINICAL} line {line}")
    if site not in SITES:
        raise BadInput(f"{_SITE} is none of the words known here", where=f"{CLINICAL} line {line}")
    named = subtype if subtype in SUBTYPES else ""
    return _Patient(row[_ID], site, named, float(row[_HISTOLOGY] == "ILC"), values)


def _word(name: str, text: str, line: int) -> float:
    if text == _NA:
        return float("nan")
    if text not in _WORDS[name]:
        raise BadInput(f"{name} is none of the words known here", where=f"{CLINICAL} line {line}")
    return _WORDS[name][text]


def _number(name: str, text: str, line: int) -> float:
    if text == _NA:
        return float("nan")
    low, high = _NUMBERS[name]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise BadInput(f"{name} is not a number between {low:g} and {high:g}", where=f"{CLINICAL} line {line}")
    return value


def _mutations(text: str, sequenced: set[str]) -> tuple[tuple[str, ...], dict[str, set[str]]]:
    """All genes, and the mutated ones by patient. The same mutation listed twice is one."""
    by_patient: dict[str, set[str]] = {}
    for line, row in _rows(MUTATIONS, text, ("patientId", "hugoGeneSymbol")):
        if row["patientId"] not in sequenced or not row["hugoGeneSymbol"]:
            raise BadInput(
                "a mutation of a patient who was not sequenced, or of no gene", where=f"{MUTATIONS} line {line}"
            )
        by_patient.setdefault(row["patientId"], set()).add(row["hugoGeneSymbol"])
    return tuple(sorted(set[str]().union(*by_patient.values()))), by_patient


def _cohort(rows: list[_Patient], genes: tuple[str, ...], mutated: Mapping[str, set[str]]) -> Cohort:
    def column(name: str) -> Floats:
        return np.array([row.values[name] for row in rows])

    stain = column("ER status measured by IHC")
    return Cohort(
        ids=tuple(row.id for row in rows),
        months=column("Relapse Free Status (Months)"),
        recurred=column("Relapse Free Status") == 1.0,
        site=tuple(row.site for row in rows),
        age=column("Age at Diagnosis"),
        size=column("Tumor Size"),
        nodes=column("Lymph nodes examined positive"),
        grade=column("Neoplasm Histologic Grade"),
        er=np.where(np.isnan(stain), column("ER Status"), stain),
        pr=column("PR Status"),
        her2=column("HER2 Status"),
        lobular=np.array([row.lobular for row in rows]),
        postmenopausal=column("Inferred Menopausal State"),
        chemotherapy=column("Chemotherapy"),
        hormone=column("Hormone Therapy"),
        radiotherapy=column("Radio Therapy"),
        subtype=tuple(row.subtype for row in rows),
        genes=genes,
        mutated=np.array([[float(gene in mutated.get(row.id, ())) for gene in genes] for row in rows]),
    )
