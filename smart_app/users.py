"""Who the EHR says is looking: `fhirUser`, and how its resource names them.

SMART App Launch 2.2, Scopes for requesting identity data: the claim is a URL, absolute or relative to the FHIR base, of
a Patient, Practitioner, PractitionerRole, RelatedPerson or Person. One on another server is a name and nothing else: it
is never asked with the token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smart_app.registered import normal

TYPES = ("Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person")
LONGEST = 120
"""Characters of a name that are shown."""
_ENDS = re.compile(rf"(?:(.*)/)?({'|'.join(TYPES)})/([A-Za-z0-9\-.]{{1,64}})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FhirUser:
    url: str
    """Absolute."""
    kind: str
    id: str
    here: bool
    """Whether it stands below the FHIR base of the launch, and may be read with its token."""

    @property
    def relative(self) -> str:
        return f"{self.kind}/{self.id}"


def fhir_user(claims: Mapping[str, Any], base: str) -> FhirUser | None:
    """Of the claims of a checked ID token; None where they name no user resource.

    Older servers know the claim as `profile` only.
    """
    for name in ("fhirUser", "profile"):
        told = claims.get(name)
        found = _ENDS.fullmatch(told) if isinstance(told, str) and len(told) <= 2000 else None
        if found is None:
            continue
        before, kind, local = found[1], found[2], found[3]
        if before is None:
            return FhirUser(f"{base}/{kind}/{local}", kind, local, True)
        at = normal(before)
        if at is not None:
            return FhirUser(f"{at}/{kind}/{local}", kind, local, at == normal(base))
    return None


def name_in(resource: Mapping[str, Any], user: FhirUser) -> str | None:
    """How the user's own resource names them; None where it is another resource, or names nobody."""
    if resource.get("resourceType") != user.kind or resource.get("id") != user.id:
        return None
    names = resource.get("name")
    if user.kind == "PractitionerRole":
        practitioner = resource.get("practitioner")
        return _shown(practitioner.get("display")) if isinstance(practitioner, dict) else None
    listed = [each for each in names if isinstance(each, dict)] if isinstance(names, list) else []
    listed.sort(key=lambda each: each.get("use") != "official")
    return next((told for told in map(_name, listed) if told), None)


def _name(name: Mapping[str, Any]) -> str | None:
    """Of a HumanName (FHIR R4)."""
    if text := _shown(name.get("text")):
        return text
    given = name.get("given")
    parts = [*_texts(name.get("prefix")), *_texts(given), name.get("family")]
    return _shown(" ".join(part for part in parts if isinstance(part, str) and part))


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _shown(text: Any) -> str | None:
    """One line of what can be printed."""
    if not isinstance(text, str):
        return None
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return plain[:LONGEST] or None


def claimed_name(claims: Mapping[str, Any]) -> str | None:
    """The ID token's own `name` (OpenID Connect Core 1.0, 5.1)."""
    return _shown(claims.get("name"))
