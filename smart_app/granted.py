"""What a token answer grants: tokens, scopes, and the context that the app was launched in.

SMART App Launch 2.2, Scopes and Launch Context; CDS Hooks 2.0.1, Link (`appContext`); RFC 6749, 5.1. The scopes may be
wider, narrower or split otherwise than asked; what the app can do follows from what is granted, together. A patient
that is not named, or named twice, is no patient: the launch ends there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from models import strict
from models.errors import BadInput, NotAllowed, PeerFailed, WrongPatient

ASSUMED_SECONDS, LONGEST_SECONDS = 300, 86_400
"""Life of a token whose server does not say; the longest that is believed."""
LAUNCH = "launch"
"""The role of a context reference that states none."""
_WHERE = "the token endpoint"
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_TOKEN = re.compile(r"[!-~]{1,16384}")
_INTENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#\-]{0,127}")
_SCOPE = re.compile(r"(system|user|patient)/(\*|[A-Z][A-Za-z]*)\.(read|write|\*|c?r?u?d?s?)(\?.*)?", re.DOTALL)
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_REFERENCE = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_MOST_CONTEXT = 50


class Refused(PeerFailed):
    """The authorization server understood and said no."""

    retry = False

    def __init__(self, what: str, *, said: str | None = None) -> None:
        super().__init__(what, where=_WHERE)
        self.said = said
        """Its error code, where that is one of RFC 6749, 5.2."""


@dataclass(frozen=True, slots=True)
class Context:
    """One member of `fhirContext`."""

    role: str
    reference: str | None = None
    """Relative or absolute, as stated; never followed with the token to another server."""
    canonical: str | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """A token answer that can be used."""

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    seconds: int
    scopes: tuple[str, ...]
    patient: str
    id_token: str | None = field(default=None, repr=False)
    encounter: str | None = None
    context: tuple[Context, ...] = ()
    banner: bool = True
    intent: str | None = None
    style_url: str | None = None
    inference: str | None = None
    """Of `appContext`: the inference whose card led here."""


def granted(answer: Mapping[str, Any], asked: Sequence[str]) -> Granted:
    """Read the answer to a code.

    Errors: PeerFailed (no usable answer), NotAllowed (no patient was named), WrongPatient (two were).
    """
    patient = answer.get("patient")
    scopes = scopes_of(answer, asked)
    if patient is None:
        promised = any(each.startswith("patient/") for each in scopes)
        raise NotAllowed(
            "the EHR granted access to one patient's data and did not say whose"
            if promised
            else "the EHR opened the app without a patient"
        )
    if not isinstance(patient, str) or not _ID.fullmatch(patient):
        raise PeerFailed("patient is no id", where=_WHERE)
    context = _context(answer.get("fhirContext"))
    for each in context:
        kind, local = reference_of(each.reference)
        if kind == "Patient" and each.role == LAUNCH and local != patient:
            raise WrongPatient("the launch context names two patients", where="fhirContext")
    encounter, intent, style = answer.get("encounter"), answer.get("intent"), answer.get("smart_style_url")
    token = answer.get("id_token")
    return Granted(
        access=access_of(answer),
        refresh=refresh_of(answer),
        seconds=seconds_of(answer),
        scopes=scopes,
        patient=patient,
        id_token=token if isinstance(token, str) else None,
        encounter=encounter if isinstance(encounter, str) and _ID.fullmatch(encounter) else None,
        context=context,
        banner=answer.get("need_patient_banner") is not False,
        intent=intent if isinstance(intent, str) and _INTENT.fullmatch(intent) else None,
        style_url=style if isinstance(style, str) and len(style) <= 2000 else None,
        inference=_inference(answer.get("appContext")),
    )


def access_of(answer: Mapping[str, Any]) -> str:
    kind, token = answer.get("token_type"), answer.get("access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise PeerFailed("token_type is not Bearer", where=_WHERE)
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise PeerFailed("access_token is missing, or cannot stand in a header", where=_WHERE)
    return token


def refresh_of(answer: Mapping[str, Any]) -> str | None:
    token = answer.get("refresh_token")
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None


def seconds_of(answer: Mapping[str, Any]) -> int:
    """Some servers write the number as text."""
    told = answer.get("expires_in")
    if isinstance(told, str) and told.isascii() and told.isdecimal() and len(told) < 10:
        told = int(told)
    if isinstance(told, bool) or not isinstance(told, (int, Decimal)) or told <= 0:
        return ASSUMED_SECONDS
    return max(1, int(min(told, LONGEST_SECONDS)))


def scopes_of(answer: Mapping[str, Any], asked: Sequence[str]) -> tuple[str, ...]:
    """Absent means as asked. Apart by single blanks only: a scope may hold a query with a URL."""
    told = answer.get("scope")
    if told is None:
        return tuple(asked)
    if not isinstance(told, str):
        raise PeerFailed("scope is not text", where=_WHERE)
    return tuple(each for each in told.split(" ") if each)


def _context(told: Any) -> tuple[Context, ...]:
    """What cannot be read of it is left out: it is a hint, and nothing rests on it alone."""
    found = []
    for each in told[:_MOST_CONTEXT] if isinstance(told, list) else ():
        role = each.get("role", LAUNCH) if isinstance(each, dict) else ""
        if not isinstance(role, str) or not role:
            continue
        reference, canonical = each.get("reference"), each.get("canonical")
        if isinstance(reference, str) and _REFERENCE.fullmatch(reference) and len(reference) <= 500:
            found.append(Context(role, reference))
        elif isinstance(canonical, str) and 0 < len(canonical) <= 500:
            found.append(Context(role, canonical=canonical))
    return tuple(found)


def reference_of(reference: str | None) -> tuple[str | None, str | None]:
    """Type and id of a reference, wherever it leads."""
    found = _REFERENCE.fullmatch(reference) if reference else None
    return (found[1], found[2]) if found else (None, None)


def _inference(told: Any) -> str | None:
    """The inference of our card's `appContext`, `{"inference": uuid}`; some clients send it unpacked.

    It is a selector, no proof: the patient of that inference is held against the launch's own.
    """
    if isinstance(told, str) and 0 < len(told) <= 4096:
        try:
            told = strict.loads(told.encode(), what="appContext")
        except (BadInput, UnicodeEncodeError):
            return None
    named = told.get("inference") if isinstance(told, dict) else None
    try:
        return str(UUID(named)) if isinstance(named, str) and len(named) == 36 else None
    except ValueError:
        return None


# ---- what the scopes allow -------------------------------------------------------------------------------------------


def may(scopes: Sequence[str], kind: str, letter: str) -> str:
    """Whether the scopes together let the app do `letter` (of `cruds`) with resources of a type: `all`, `some` (only
    where a query fits: what is not found may be there and not be shown), `no`."""
    fits = [found for found in map(_SCOPE.fullmatch, scopes) if found and found[3] and found[2] in ("*", kind)]
    can = [found for found in fits if letter in _V1.get(found[3], found[3])]
    return "all" if any(found[4] is None for found in can) else "some" if can else "no"
