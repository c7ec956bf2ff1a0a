"""What every page of the app knows: who looks, and at whose case. The ports of the pages stand beside their pages.

A page never takes a patient, a person or a role from the request: it has a `Case`, which the server made from a session
that it proved, and which it proves again on every page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What somebody is here for. The configuration says who has which."""

    CLINICIAN = "clinician"
    BOARD_CHAIR = "board-chair"
    DATA_SCIENTIST = "data-scientist"
    COMPLIANCE = "compliance"
    AUDITOR = "auditor"


class Door(StrEnum):
    """Through which door somebody came; it stands in each action and access entry."""

    SMART_APP = "smart-app"
    BOARD = "board"
    STAFF = "staff"
    COMMAND = "command"
    """The `cds` command, by a user of the machine."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks."""

    subject: str
    """As their door knows them: fhirUser (absolute) or the EHR's `sub`; of staff, the provider's `sub`. Sealed wherever
    it is stored, never logged."""
    name: str
    """To show: of the EHR's user resource or of the provider; the subject where neither says more."""
    roles: frozenset[Role]
    door: Door
    ehr: str | None = None
    """Namespace of the EHR that vouches for them; None: staff."""


@dataclass(frozen=True, slots=True)
class Case:
    """Whose case a page is about, and how it was opened. Made by the server from a proved session only."""

    id: str
    """Names the case in the path: the launch id, or the id of a case that a board opened. Random, proves nothing."""
    viewer: Viewer
    record: str
    """Random reference of the patient record (`patient_record.ref`)."""
    csrf: str
    """What each POST of its pages must carry."""
    inference: str | None = None
    """The inference whose card led here; None: the newest ones of the patient."""
    banner: bool = True
    """Whether the EHR asks us to show whose data these are. We always do; False only makes it smaller."""
    encounter: str | None = None
    intent: str | None = None
    style: Mapping[str, str] = field(default_factory=dict)
    """Filtered properties of the EHR's `smart_style_url`: name -> value, as custom properties of the style sheet."""
    ancestors: tuple[str, ...] = ()
    """Origins that may frame the pages of this case."""
