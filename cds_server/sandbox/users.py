"""Who sits before the EHR: two clinicians and the chair of the board, from the fixtures. No passwords: a sandbox."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    id: str
    """The `sub` of an id_token."""
    name: str
    role: str
    """In words."""
    resource: str
    """`Practitioner/id`: `userId` of a hook, `fhirUser` of an id_token."""


_AT = "Practitioner/us-core-practitioner-"
USERS = (
    User("owen", "Dr. Owen Oncologist", "medical oncology", f"{_AT}owen-oncologist"),
    User("mary", "Dr. Mary Obgyn", "gynaecology", f"{_AT}mary-obgyn"),
    User("peter", "Dr. Peter Pathologist", "chairs the tumor board", f"{_AT}peter-pathologist"),
)


def user_of(id_: str | None) -> User:
    """The user of that id; the first where there is none."""
    return next((each for each in USERS if each.id == id_), USERS[0])
