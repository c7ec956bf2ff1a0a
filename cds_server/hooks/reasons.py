"""Override reasons: HL7's own codes, a short clinical list of them, and ours where HL7 has none.

Codes: CodeSystem non-adherence-reason-codes of the CDS Hooks 3.0.0 ballot (AHRQ CDSiC 2025), six categories with 29
leaf codes. The words shown are ours: seven choices at most, since a longer list is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.nouns import Coding

HL7 = "http://terminology.hl7.org/CodeSystem/non-adherence-reason-codes"
OURS = "https://cds-server.org/fhir/CodeSystem/override-reasons"

CATEGORIES: dict[str, tuple[str, ...]] = {
    "cds-not-applicable": (
        "patient-ineligible",
        "indication-order-exists",
        "action-completed",
        "action-unsuccessful",
        "action-performed-no-adverse-effect",
        "action-not-priority",
    ),
    "cds-suboptimal-context": ("limited-time", "wrong-time-workflow", "inappropriate-recipient", "need-more-info"),
    "recipient-disagrees-evidence": (
        "does-not-align-latest-evidence",
        "expert-contradicts",
        "policy-contradicts",
        "recipient-does-not-trust",
    ),
    "recipient-concerns-outcomes": (
        "risk-benefit-ratio",
        "mitigate-risk-negative-outcome",
        "likely-negative-health-outcomes",
        "patient-contraindication",
    ),
    "does-not-align-preferences": (
        "patient-fears-discomfort",
        "patient-does-not-want-change",
        "cultural-religious-reason",
        "prefers-alternative",
        "patient-refuses",
    ),
    "not-convenient-feasible": (
        "inadequate-support",
        "service-not-available",
        "implementation-challenges",
        "too-costly-uncovered",
        "recipient-does-not-understand",
        "comorbidity-disability",
    ),
}


_CATEGORY = {code: name for name, codes in CATEGORIES.items() for code in codes}


@dataclass(frozen=True, slots=True)
class OverrideReason:
    """A Coding that a clinician may choose; `display` is REQUIRED here (CDS Hooks 2.0.1, Card Attributes)."""

    system: str
    code: str
    display: str
    nearest: str = ""
    """For a code of ours: the HL7 code that counts it."""

    def __post_init__(self) -> None:
        if not (self.system and self.code and self.display):
            raise ValueError("an override reason has system, code and display")
        if self.system == HL7 and self.code not in _CATEGORY:
            raise ValueError(f"{self.code} is not a non-adherence reason code")
        if self.system == OURS and self.nearest not in _CATEGORY:
            raise ValueError(f"{self.code} is mapped to no non-adherence reason code")

    @property
    def category(self) -> str | None:
        """The HL7 category that a report counts it in; None for a system that is neither HL7's nor ours."""
        return _CATEGORY.get(self.nearest or self.code)

    def plain(self) -> dict[str, Any]:
        return {"code": self.code, "system": self.system, "display": self.display}


CLINICAL: tuple[OverrideReason, ...] = (
    OverrideReason(HL7, "patient-ineligible", "Does not apply to this patient"),
    OverrideReason(HL7, "need-more-info", "More information is needed first"),
    OverrideReason(HL7, "expert-contradicts", "Expert or board opinion differs"),
    OverrideReason(HL7, "prefers-alternative", "The patient prefers another way"),
    OverrideReason(HL7, "wrong-time-workflow", "Wrong moment in the work"),
    OverrideReason(OURS, "input-wrong", "An input is wrong or out of date", nearest="recipient-does-not-trust"),
    OverrideReason(OURS, "model-looks-wrong", "The estimate looks wrong", nearest="recipient-does-not-trust"),
)
"""The list of a prognosis card: seven choices and a free comment."""


_OURS = {reason.code: reason.nearest for reason in CLINICAL if reason.system == OURS}


def category(reason: Coding | None) -> str:
    """What a given reason counts as: an HL7 category (or the category itself), `other`, or `none` where none was given.

    A client may add reasons of its own (CDS Hooks 2.0.1, Card Attributes): their codes are never a label of a metric.
    """
    if reason is None:
        return "none"
    code = _OURS.get(reason.code, "") if reason.system == OURS else reason.code if reason.system == HL7 else ""
    return code if code in CATEGORIES else _CATEGORY.get(code, "other")
