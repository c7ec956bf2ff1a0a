"""Who may do what. A table, and the grants of `[access]` that give people their roles. Deny by default.

Somebody whom no grant names has no role, and somebody without a role may do nothing. What is allowed at this moment,
whoever asks (labels, opt-out, broken glass), is the other file: `allowed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.errors import NotAllowed
from smart_app.desk import Door, Role, Viewer


class Act(StrEnum):
    """What somebody does when they look."""

    CASE = "case"
    TIMELINE = "timeline"
    PICTURE = "picture"
    WHAT_IF = "what-if"
    ACT = "act"
    """Agree, override, defer: what was done with a card."""
    BOARD_WORKLIST = "board-worklist"
    BOARD_CASE = "board-case"
    BOARD_LEAD = "board-lead"
    """Make meetings, put cases on them, record a recommendation."""
    SIGN = "sign"
    """Sign a board's recommendation."""
    MINUTES = "minutes"
    SIMILAR = "similar"
    QUEUE = "queue"
    QUEUE_HANDLE = "queue-handle"
    """Take, hand over and resolve what could not be read, matched or sent."""
    RECALL_HANDLE = "recall-handle"
    """The same for what somebody saw on a card: recalls, warnings."""
    INFERENCE = "inference"
    PROOF = "proof"
    EXPORT = "export"
    REPORT = "report"
    """The reviewer's report on all of this, and the accounting of disclosures."""
    BREAK_GLASS = "break-glass"
    COMMAND = "command"
    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"


_LOOKS = frozenset({Act.CASE, Act.TIMELINE, Act.PICTURE, Act.SIMILAR, Act.INFERENCE, Act.PROOF})
_TREATS = _LOOKS | {Act.WHAT_IF, Act.ACT, Act.BOARD_WORKLIST, Act.BOARD_CASE, Act.SIGN, Act.MINUTES, Act.BREAK_GLASS}

MAY: Mapping[Role, frozenset[Act]] = {
    Role.CLINICIAN: _TREATS | {Act.QUEUE, Act.RECALL_HANDLE},
    Role.BOARD_CHAIR: _TREATS | {Act.BOARD_LEAD, Act.QUEUE, Act.RECALL_HANDLE},
    Role.DATA_SCIENTIST: frozenset({Act.QUEUE, Act.QUEUE_HANDLE, Act.PROOF}),
    Role.COMPLIANCE: frozenset(
        {Act.QUEUE, Act.QUEUE_HANDLE, Act.RECALL_HANDLE, Act.INFERENCE, Act.PROOF, Act.MINUTES, Act.EXPORT, Act.REPORT}
    ),
    Role.AUDITOR: frozenset({Act.QUEUE, Act.PROOF, Act.REPORT}),
}
"""Data scientists and auditors see no patient: what they may open names none. docs/access.md shows this table."""

COMMANDS = frozenset({Act.COMMAND, Act.INFERENCE, Act.EXPORT, Act.REPORT})
"""What a user of the machine may by `cds`: whoever can read the data directory needs no role; they are recorded."""

CARING = (Role.CLINICIAN, Role.BOARD_CHAIR)


def may(viewer: Viewer, act: str) -> bool:
    if viewer.door is Door.COMMAND:
        return act in COMMANDS
    return any(act in MAY[role] for role in viewer.roles)


def check_may(viewer: Viewer, act: str) -> None:
    """Errors: NotAllowed, which breaking the glass does not help."""
    if not viewer.roles and viewer.door is not Door.COMMAND:
        raise NotAllowed("you have no role here: ask whoever runs this system to give you one")
    if not may(viewer, act):
        raise NotAllowed("your role does not include this")


@dataclass(frozen=True, slots=True)
class Grant:
    """One `[[access.grant]]`: whoever meets all that it states has the role."""

    role: Role
    ehr: str | None = None
    """Namespace of the EHR that vouches for them; None: staff, who sign in at the identity provider."""
    values: frozenset[str] = frozenset()
    """Of staff: one of these is among the values of the claim that `[staff]` names."""
    subjects: frozenset[str] = frozenset()
    """These persons only: fhirUser, or `sub`."""

    def to_ehr(self, namespace: str, subject: str) -> bool:
        return self.ehr == namespace and (not self.subjects or subject in self.subjects)

    def to_staff(self, subject: str, values: Iterable[str]) -> bool:
        if self.ehr is not None or not (self.values or self.subjects):
            return False
        return (not self.values or not self.values.isdisjoint(values)) and (
            not self.subjects or subject in self.subjects
        )


_NOT_STAFF = ("Patient/", "RelatedPerson/")


def roles_by_ehr(grants: Sequence[Grant], namespace: str, subject: str) -> frozenset[Role]:
    """Of somebody whom an EHR vouches for. A fhirUser that is a patient, or a patient's relative, has none, whatever
    is granted to the EHR (SMART App Launch 2.2, fhirUser: Patient, Practitioner, PractitionerRole, RelatedPerson)."""
    if any(subject.startswith(each) or f"/{each}" in subject for each in _NOT_STAFF):
        return frozenset()
    return frozenset(grant.role for grant in grants if grant.to_ehr(namespace, subject))


def roles_of_staff(grants: Sequence[Grant], subject: str, values: Iterable[str]) -> frozenset[Role]:
    """Of somebody who signed in at the identity provider, by the values of the claim that `[staff]` names."""
    said = frozenset(values)
    return frozenset(grant.role for grant in grants if grant.to_staff(subject, said))
