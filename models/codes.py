"""Code lists that the clinical features read by. Each states its scope and where its codes come from.

A list is deliberately short: a code that is not here is not recognised, and what is not recognised is unknown. Sources:
[mCODE] HL7 mCODE 4.0.0 examples and profiles (CC0-1.0); [ICD] ICD-10 and ICD-10-CM chapter II; [LOINC] LOINC terms and
answer lists; [AJCC] AJCC allowable values in SNOMED CT, as listed by national implementation guides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SCT = "http://snomed.info/sct"
LOINC = "http://loinc.org"
ICD10 = "http://hl7.org/fhir/sid/icd-10"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
NCIT = "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl"
PATIENT = "http://hl7.org/fhir/Patient"
"""Codes `birthDate` and `gender`: the demographic facts that our readers take from a Patient resource."""

Key = tuple[str, str]
"""(system, code)"""


@dataclass(frozen=True, slots=True)
class CodeSet:
    """Codes that ask the same question, with what is left out and why."""

    name: str
    scope: str
    source: str
    codes: frozenset[Key]

    @property
    def tokens(self) -> frozenset[str]:
        return frozenset(f"{system}|{code}" for system, code in self.codes)

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "scope": self.scope, "source": self.source, "codes": sorted(self.tokens)}


def keys(*groups: tuple[str, str]) -> frozenset[Key]:
    """`(system, "code code ...")` pairs, spelt out."""
    return frozenset((system, code) for system, codes in groups for code in codes.split())


def answers(groups: Mapping[float | None, Iterable[tuple[str, str]]]) -> dict[Key, float | None]:
    return {key: value for value, pairs in groups.items() for key in keys(*pairs)}


# ---- conditions ------------------------------------------------------------------------------------------------------

_C50_SITES = "0 1 2 3 4 5 6 8 9"
_C50_FEMALE = " ".join(f"C50.{site}1{side}" for site in _C50_SITES.split() for side in "129")
_C50_MALE = " ".join(f"C50.{site}2{side}" for site in _C50_SITES.split() for side in "129")
_C50_ANY = "C50 " + " ".join(f"C50.{site}" for site in _C50_SITES.split())

BREAST_CANCER = CodeSet(
    "invasive breast cancer",
    "Primary invasive cancer of the breast; carcinoma in situ, secondary neoplasms and sarcoma are out.",
    "[mCODE] 353431000119107; [ICD] C50; SNOMED CT disorders by their preferred terms",
    keys(
        (SCT, "254837009 372064008 372137005 353431000119107 353511000119101 448952004 408643008 278054005"),
        (ICD10CM, f"{_C50_ANY} {_C50_FEMALE} {_C50_MALE}"),
        (ICD10, _C50_ANY),
    ),
)
MALE_BREAST_CANCER = keys((ICD10CM, _C50_MALE))
IN_SITU = CodeSet(
    "carcinoma in situ of breast",
    "Named only so that the reason for silence can be given.",
    "[ICD] D05",
    keys(
        (ICD10, "D05 D05.0 D05.1 D05.7 D05.9"),
        (ICD10CM, " ".join(f"D05.{kind}{side}" for kind in "0189" for side in "012")),
    ),
)
METASTASIS = CodeSet(
    "distant metastasis",
    "Secondary malignant neoplasm of another organ. Regional lymph nodes (C77) are no distant metastasis.",
    "[ICD] C78, C79; SNOMED CT for bone, brain, liver, lung and the unspecific term",
    keys(
        (SCT, "128462008 94222008 94225005 94381002 94391008"),
        (ICD10, " ".join(f"{group}{tail}" for group in ("C78", "C79") for tail in ("", *(f".{n}" for n in range(9))))),
        (
            ICD10CM,
            "C78.00 C78.01 C78.02 C78.1 C78.2 C78.30 C78.39 C78.4 C78.5 C78.6 C78.7 C78.80 C78.89 C79.00 C79.01 C79.02 "
            "C79.10 C79.11 C79.19 C79.2 C79.31 C79.32 C79.40 C79.49 C79.51 C79.52 C79.60 C79.61 C79.62 C79.63 C79.70 "
            "C79.71 C79.72 C79.81 C79.82 C79.89 C79.9",
        ),
    ),
)

# ---- questions -------------------------------------------------------------------------------------------------------

BIRTH_DATE = CodeSet("date of birth", "Patient.birthDate", "FHIR R4 Patient", keys((PATIENT, "birthDate")))
SEX = CodeSet("sex", "Patient.gender (administrative)", "FHIR R4 Patient", keys((PATIENT, "gender")))
SIZE = CodeSet(
    "tumour size",
    "Largest dimension; 33729-5 (other dimensions) is out.",
    "[mCODE] mcode-tumor-size: 21889-1, component 33728-7",
    keys((LOINC, "21889-1 33728-7")),
)
GRADE = CodeSet(
    "histologic grade",
    "Nottingham grade. The Nottingham sum score (3 to 9) is another question.",
    "[mCODE] example 44648-4; profile mcode-histologic-grade NCIT C18000, earlier 33732-9",
    keys((LOINC, "44648-4 33732-9"), (NCIT, "C18000")),
)
NODES = CodeSet(
    "positive regional lymph nodes", "All regional nodes together.", "[LOINC] 21893-3", keys((LOINC, "21893-3"))
)
SENTINEL_NODES = CodeSet(
    "positive sentinel lymph nodes",
    "Sentinel nodes only; used where no count of all regional nodes is given. Nodes examined (92833-3) is out.",
    "[mCODE] 92832-5",
    keys((LOINC, "92832-5")),
)
ER = CodeSet(
    "oestrogen receptor",
    "Presence in tumour tissue; percentages and Allred scores are out.",
    "[mCODE] 85337-4, 16112-5; [LOINC] 40556-3",
    keys((LOINC, "85337-4 16112-5 40556-3")),
)
PR = CodeSet(
    "progesterone receptor",
    "Presence in tumour tissue; percentages and Allred scores are out.",
    "[mCODE] 85339-0, 16113-3; [LOINC] 40557-1",
    keys((LOINC, "85339-0 16113-3 40557-1")),
)
HER2 = CodeSet(
    "HER2",
    "Interpretation, immune stain and FISH in tumour tissue; serum HER2 is out.",
    "[mCODE] 48676-1, 85319-2, 85318-4; [LOINC] 18474-7, 31150-6",
    keys((LOINC, "48676-1 85319-2 85318-4 18474-7 31150-6")),
)
KI67 = CodeSet(
    "Ki-67",
    "Percentage of cells stained.",
    "[LOINC] 85330-9, 29593-1 (not in mCODE's value set; its binding is extensible)",
    keys((LOINC, "85330-9 29593-1")),
)
SMOKING = CodeSet("tobacco smoking status", "US Core smoking status.", "[mCODE] 72166-2", keys((LOINC, "72166-2")))
PT = CodeSet(
    "pathological T category",
    "Compared with the size.",
    "[mCODE] 384625004",
    keys((SCT, "384625004"), (LOINC, "21899-0")),
)
PN = CodeSet(
    "pathological N category",
    "Stands in for a missing count only where it is pN0.",
    "[mCODE] 371494008",
    keys((SCT, "371494008"), (LOINC, "21900-6")),
)
M = CodeSet(
    "M category",
    "Clinical and pathological.",
    "[mCODE] 399387003, 371497001",
    keys((SCT, "399387003 371497001"), (LOINC, "21907-1 21901-4")),
)

# ---- answers ---------------------------------------------------------------------------------------------------------
# None: recognised, and says neither yes nor no.

PRESENCE = answers(
    {
        1.0: [(LOINC, "LA6576-8"), (SCT, "10828004")],
        0.0: [(LOINC, "LA6577-6"), (SCT, "260385009")],
        None: [(LOINC, "LA4489-6"), (SCT, "42425007 261665006")],
    }
)
HER2_ANSWERS = PRESENCE | answers(
    {1.0: [(LOINC, "LA11843-2")], 0.0: [(LOINC, "LA11841-6")], None: [(LOINC, "LA11842-4")]}
)
"""With the immune-stain scores of ASCO/CAP 2018: 3+ positive, 1+ negative, 2+ equivocal until FISH."""
GRADE_ANSWERS = answers(
    {
        1.0: [(LOINC, "LA27823-6"), (SCT, "54102005 369790002")],
        2.0: [(LOINC, "LA27824-4"), (SCT, "1663004 369791003 1286893008")],
        3.0: [(LOINC, "LA27825-1"), (SCT, "61026006 369792005 1155707008")],
        None: [(LOINC, "LA4489-6"), (SCT, "60815008 12619005 384668003 261665006 1155708003")],
    }
)
"""Of mCODE's three words, "low" (1155708003) covers grades 1 and 2 where only two words are used: it says nothing."""
SMOKING_ANSWERS = answers(
    {
        1.0: [
            (SCT, "449868002 428041000124106 77176002 428071000124103 428061000124105"),
            (LOINC, "LA18976-3 LA18977-1 LA18981-3 LA18982-1"),
        ],
        0.0: [(SCT, "8517006 266919005 8392000"), (LOINC, "LA15920-4 LA18978-9")],
        None: [(SCT, "266927001"), (LOINC, "LA18979-7 LA18980-5 LA4489-6")],
    }
)

PN_ZERO = keys((SCT, "1229947003 1229948008 1229949000 1229950000 62455006"))
"""pN0, also with isolated tumour cells, pN0(i+), pN0(mol+): no positive node (AJCC 8)."""
PN_POSITIVE = keys(
    (
        SCT,
        "1229951001 1229952008 1229953003 1229954009 1229955005 1229956006 1229957002 1229958007 1229959004 1229960009 "
        "1229961008 1229962001 1229963006 1229964000 1229965004",
    )
)
"""pN1 to pN3c: at least one, an exact count cannot be told."""
AFTER_NEOADJUVANT = keys((SCT, "1229877005 1229878000 1229884002 1229885001"))
"""ypN: staged after neoadjuvant treatment."""
M1 = keys(
    (
        SCT,
        "1229903009 1229904003 1229907005 1229916009 1229917000 1229918005 1229919002 1229920008 1229921007 1229922000 "
        "1229923005 1229924004 1229925003 1229926002 1229927006 1229928001 55440008",
    )
)
M0 = keys((SCT, "1229901006 30893008"))

PT_SIZE: dict[Key, tuple[str, float, float]] = {
    (SCT, code): (name, low, high)
    for name, low, high, codes in (
        ("pT1", 0.0, 20.0, "1228957006"),
        ("pT1mi", 0.0, 1.0, "1228958001"),
        ("pT1a", 1.0, 5.0, "1228959009"),
        ("pT1b", 5.0, 10.0, "1228962007"),
        ("pT1c", 10.0, 20.0, "1229846008"),
        ("pT2", 20.0, 50.0, "1229852009"),
        ("pT3", 50.0, float("inf"), "1229859000"),
    )
    for code in codes.split()
}
"""AJCC 8, breast: category -> more than, up to (mm). pT4 is any size."""
