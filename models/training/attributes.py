"""What a model card must answer: the 31 source attributes of HTI-1, and the fields of the CHAI applied model card.

HTI-1: 45 CFR 170.315(b)(11)(iv)(B), predictive decision support interventions (89 FR 1192). Attributes that the rule
lets a developer leave open, (b)(11)(v)(A), must then say so: "not available for review". CHAI: applied model card
v0.2. A question without an answer is answered "unknown": it is said, not left out. A proposed rule of 29 December 2025
(HTI-5) would remove the requirement; the questions stay good ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = "unknown"
UNAVAILABLE = "not available for review"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One source attribute: its place in the rule, and what it asks."""

    key: str
    clause: str
    """Within (b)(11)(iv)(B)."""
    asks: str
    may_be_open: bool = False
    """(b)(11)(v)(A): where nothing is known, the rule's own words are shown."""


HTI1 = (
    Attribute("developer", "(1)(i)", "Developer and contact"),
    Attribute("funding", "(1)(ii)", "Funding source of the technical implementation"),
    Attribute("value", "(1)(iii)", "Value produced as an output"),
    Attribute("output_type", "(1)(iv)", "Prediction, classification, recommendation, evaluation, analysis or other"),
    Attribute("intended_use", "(2)(i)", "Intended use"),
    Attribute("patients", "(2)(ii)", "Intended patient population"),
    Attribute("users", "(2)(iii)", "Intended users"),
    Attribute("role", "(2)(iv)", "Intended role in decisions"),
    Attribute("cautioned", "(3)(i)", "Tasks, situations or populations to be careful with"),
    Attribute("risks", "(3)(ii)", "Known risks, inappropriate settings or uses, limits"),
    Attribute("criteria", "(4)(i)", "Inclusion and exclusion criteria of the training data"),
    Attribute("variables", "(4)(ii)", "Use of race, ethnicity, language, sex, date of birth, ... as inputs"),
    Attribute("representativeness", "(4)(iii)", "Demographic representativeness of the training data"),
    Attribute("relevance", "(4)(iv)", "Relevance of the training data to where it will be used"),
    Attribute("fairness_approach", "(5)(i)", "Approach to fair output"),
    Attribute("bias_management", "(5)(ii)", "Approach to manage, reduce or eliminate bias"),
    Attribute("external_source", "(6)(i)", "External validation: data source and setting", may_be_open=True),
    Attribute("external_party", "(6)(ii)", "External validation: who did it", may_be_open=True),
    Attribute("external_representativeness", "(6)(iii)", "External validation: representativeness", may_be_open=True),
    Attribute("external_process", "(6)(iv)", "External validation: process", may_be_open=True),
    Attribute("validity_internal", "(7)(i)", "Validity in test data from the training source"),
    Attribute("fairness_internal", "(7)(ii)", "Fairness in test data from the training source"),
    Attribute("validity_external", "(7)(iii)", "Validity in external data", may_be_open=True),
    Attribute("fairness_external", "(7)(iv)", "Fairness in external data", may_be_open=True),
    Attribute("outcome_references", "(7)(v)", "Evaluations of its use on outcomes", may_be_open=True),
    Attribute("validity_monitoring", "(8)(i)", "How and how often validity is monitored"),
    Attribute("validity_local", "(8)(ii)", "Validity in local data", may_be_open=True),
    Attribute("fairness_monitoring", "(8)(iii)", "How and how often fairness is monitored"),
    Attribute("fairness_local", "(8)(iv)", "Fairness in local data", may_be_open=True),
    Attribute("update_process", "(9)(i)", "How and how often it is updated", may_be_open=True),
    Attribute("correction", "(9)(ii)", "How often performance is corrected when risks are found", may_be_open=True),
)

CHAI: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Basic information",
        (("Model name", "title"), ("Model developer", "developer"), ("Developer contact", "contact")),
    ),
    (
        "Release",
        (
            ("Stage", "stage"),
            ("Release date", "release_date"),
            ("Version", "version"),
            ("Global availability", "availability"),
            ("EHR compatibility", "ehr_compatibility"),
            ("Regulatory approval", "regulatory_approval"),
        ),
    ),
    ("Summary", (("Summary", "intended_use"), ("Keywords", "keywords"))),
    (
        "Uses and directions",
        (
            ("Intended use and workflow", "workflow"),
            ("Primary intended users", "users"),
            ("How to use", "how_to_use"),
            ("Targeted patient population", "patients"),
            ("Cautioned out-of-scope settings", "cautioned"),
        ),
    ),
    (
        "Warnings",
        (
            ("Known risks and limitations", "risks"),
            ("Known biases or ethical considerations", "biases"),
            ("Clinical risk level", "clinical_risk"),
        ),
    ),
    (
        "AI system facts",
        (
            ("Outcomes and outputs", "value"),
            ("Model type", "model_type"),
            ("Foundation models", "foundation_models"),
            ("Input data source", "input_source"),
            ("Output and input data types", "data_types"),
            ("Development data characterization", "development_data"),
            ("Bias mitigation approaches", "bias_management"),
            ("Ongoing maintenance", "update_process"),
            ("Security", "security"),
            ("Transparency", "transparency"),
        ),
    ),
    (
        "Transparency information",
        (
            ("Funding source", "funding"),
            ("Third-party information", "third_party"),
            ("Stakeholders consulted", "stakeholders"),
        ),
    ),
    (
        "Key metrics",
        (
            ("Usefulness, usability and efficacy", "validity_internal"),
            ("Fairness and equity", "fairness_internal"),
            ("Safety and reliability", "safety"),
        ),
    ),
    (
        "Resources",
        (
            ("Evaluation references", "evaluation_references"),
            ("Clinical trial", "clinical_trial"),
            ("Peer-reviewed publications", "publications"),
            ("Reimbursement status", "reimbursement"),
            ("Patient consent or disclosure", "consent"),
        ),
    ),
)
"""Section -> (field, key of the answer)."""

_HOUSE = {
    "developer": "The cds-server project",
    "contact": "unknown: no address is published",
    "output_type": "prediction",
    "users": "clinicians who can look up the inputs and judge the output",
    "role": "informs; never replaces a clinician's decision",
    "stage": "research prototype",
    "release_date": "the date of the release that ships this version: see CHANGELOG.md",
    "availability": "wherever a site installs it; nothing is sent out",
    "ehr_compatibility": "any EHR that calls CDS Hooks 2.0 and gives FHIR R4",
    "regulatory_approval": "none; not a medical device",
    "workflow": "called by the EHR through a CDS Hooks service, or by `cds score` and `cds models run`",
    "how_to_use": "read the number with its inputs, their dates and origin, and what is missing; override where wrong",
    "foundation_models": "none",
    "input_source": "facts read from the patient's record, each followed to the bytes that it came from",
    "data_types": "in: coded and numeric facts; out: numbers",
    "security": "files are checked by SHA-256 before they are loaded; every score is on a verifiable record",
    "transparency": "graph, manifest, training sources and this card are in the repository",
    "validity_monitoring": "not monitored by itself; a site can compare its outcomes by `cds models recalibrate`",
    "fairness_monitoring": "not monitored by itself",
    "update_process": "a change is a new version with a new manifest; no schedule",
}
"""What holds for every model of this house unless its release says otherwise."""


def answers(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Every answer by key: what the release states in `card`, else what the manifest or the house implies."""
    sources = manifest["training"]
    derived = {
        "title": manifest["title"],
        "version": manifest["version"],
        "value": manifest["endpoint"],
        "intended_use": manifest["intended_use"],
        "patients": manifest["population"]["text"],
        "risks": " ".join(manifest["limits"]),
        "third_party": manifest["licence"],
        "development_data": ", ".join(sorted(sources["data"])) or "none: a published equation, nothing was fitted here",
    }
    if not sources["data"]:
        derived["criteria"] = "nothing was trained here; see the publication of the equation"
    return {**_HOUSE, **derived, **manifest.get("card", {})}


def hti1(manifest: Mapping[str, Any]) -> list[tuple[Attribute, str]]:
    """The 31 attributes with their answers; an open one says that it is open."""
    known = answers(manifest)
    return [(a, known.get(a.key) or (UNAVAILABLE if a.may_be_open else UNKNOWN)) for a in HTI1]


def chai(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of the applied model card: (field, answer), unknown where nobody knows."""
    known = answers(manifest)
    return [(section, [(field, known.get(key) or UNKNOWN) for field, key in fields]) for section, fields in CHAI]
