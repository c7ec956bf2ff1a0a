"""What a person does with a card on the case page: agree, override or defer, on record in seconds.

The reasons are those of the card's own list (HL7 non-adherence codes, and ours); a number key chooses one, so that a
keyboard alone is enough. The form carries the number of the last action that it showed: who sends it learns whether
somebody acted meanwhile, and nobody's action is ever replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.errors import BadInput, TooLarge
from models.nouns import Coding, Outcome

MAX_WORDS = 2000
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_FORM = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SEQ = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reason:
    """One choice of the form."""

    code: str
    system: str
    display: str


@dataclass(frozen=True, slots=True)
class Given:
    """One filled form, checked."""

    card: str
    outcome: Outcome
    form: str
    """Random, of this showing of the form: the same form twice is one action."""
    seen: int
    """Entry of the last action that the form showed; 0: none."""
    reason: Coding | None = None
    comment: str | None = None
    instead: str | None = None


def given(form: Mapping[str, str], reasons: Sequence[Reason]) -> Given:
    """A posted form as what it says. Errors: BadInput, naming the field, never its value; TooLarge."""
    card, token, seen = form.get("card", ""), form.get("form", ""), form.get("seen", "0")
    if not _UUID.fullmatch(card) or not _FORM.fullmatch(token) or not _SEQ.fullmatch(seen):
        raise BadInput("the form is not one of this page", where="card")
    try:
        outcome = Outcome(form.get("outcome", ""))
    except ValueError:
        raise BadInput("choose one: agree, override or defer", where="outcome") from None
    reason = _reason(form.get("reason", ""), reasons)
    comment, instead = _words(form, "comment"), _words(form, "instead")
    if outcome is Outcome.ACCEPTED:
        reason, instead = None, None
    elif outcome is Outcome.OVERRIDDEN and reason is None and comment is None:
        raise BadInput("an override needs a reason or a comment", where="reason")
    return Given(card, outcome, token, int(seen), reason, comment, instead)


def _reason(code: str, reasons: Sequence[Reason]) -> Coding | None:
    if not code:
        return None
    for each in reasons:
        if each.code == code:
            return Coding(each.system, each.code, each.display)
    raise BadInput("the reason is none of those offered", where="reason")


def _words(form: Mapping[str, str], name: str) -> str | None:
    words = form.get(name, "").strip()
    if len(words) > MAX_WORDS:
        raise TooLarge(f"at most {MAX_WORDS} characters", where=name)
    return words or None
