"""What a client says that clinicians did with cards: the body of `POST /cds-services/{id}/feedback`.

CDS Hooks 2.0.1, Feedback. One body may speak of many cards, of many calls, and of one card again: a change of mind. An
item that breaks the contract refuses the whole body, so that a client never has to guess what was kept.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from cds_server.hooks.published import broken
from models.errors import TooLarge
from models.nouns import JSON, ClinicianAction, Coding, Outcome, instant

DOOR = "cds-hooks"
MAX_BODY = 2**20
MAX_ITEMS = 500
"""All items are one act, or none is kept: more would hold the write lock for too long."""
MAX_COMMENT = 4000
MAX_TEXT = 256

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")


def actions(body: Any) -> tuple[ClinicianAction, ...]:
    """The items of a feedback body, all or none (CDS Hooks 2.0.1, Feedback).

    Codes of reasons that we do not know are taken: a client may add its own. Errors: ContractBroken, naming item and
    member; TooLarge.
    """
    items = body.get("feedback") if isinstance(body, dict) else None
    if not isinstance(items, list) or not items:
        raise broken("feedback", "is required, and is a list with items")
    if len(items) > MAX_ITEMS:
        raise TooLarge(f"a batch has at most {MAX_ITEMS} items: send it in several", where="feedback")
    return tuple(_action(item, f"feedback[{ordinal}]") for ordinal, item in enumerate(items))


def _action(item: Any, where: str) -> ClinicianAction:
    if not isinstance(item, dict):
        raise broken(where, "must be a JSON object")
    outcome = item.get("outcome")
    if outcome not in ("accepted", "overridden"):
        raise broken(f"{where}.outcome", "is required, and is accepted or overridden")
    accepted = outcome == "accepted"
    reason, comment = _override(item, where)
    return ClinicianAction(
        card=_text(item, "card", where),
        outcome=Outcome(outcome),
        at=_moment(item.get("outcomeTimestamp"), f"{where}.outcomeTimestamp"),
        door=DOOR,
        suggestions=_accepted(item, where) if accepted else (),
        reason=None if accepted else reason,
        comment=None if accepted else comment,
    )


def _text(members: JSON, name: str, where: str, limit: int = MAX_TEXT) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise broken(f"{where}.{name}", f"is required, and is a text of at most {limit} characters")
    return value


def _accepted(item: JSON, where: str) -> tuple[str, ...]:
    """REQUIRED when accepted. Empty is taken: a card without suggestions can only be accepted like this."""
    where = f"{where}.acceptedSuggestions"
    chosen = item.get("acceptedSuggestions")
    if not isinstance(chosen, list):
        raise broken(where, "is required when the outcome is accepted, and is a list")
    for ordinal, suggestion in enumerate(chosen):
        if not isinstance(suggestion, dict):
            raise broken(f"{where}[{ordinal}]", "must be a JSON object")
    return tuple(_text(suggestion, "id", f"{where}[{ordinal}]") for ordinal, suggestion in enumerate(chosen))


def _override(item: JSON, where: str) -> tuple[Coding | None, str | None]:
    """Reason and comment. 3.0 invariant cds-fb-3: an overrideReason has at least one of the two."""
    given = item.get("overrideReason")
    if "overrideReason" not in item:
        return None, None
    where = f"{where}.overrideReason"
    if not isinstance(given, dict) or not ("reason" in given or "userComment" in given):
        raise broken(where, "must be an object with reason or userComment")
    comment = _text(given, "userComment", where, MAX_COMMENT) if "userComment" in given else None
    if "reason" not in given:
        return None, comment
    reason = given["reason"]
    if not isinstance(reason, dict):
        raise broken(f"{where}.reason", "must be a Coding")
    display = _text(reason, "display", f"{where}.reason") if "display" in reason else None
    code, system = (_text(reason, name, f"{where}.reason") for name in ("code", "system"))
    return Coding(system=system, code=code, display=display), comment


def _moment(value: Any, where: str) -> str:
    """RFC 3339 with a zone (UTC is asked for; another zone says the same instant)."""
    if isinstance(value, str) and _TIMESTAMP.fullmatch(value):
        try:
            return instant(datetime.fromisoformat(value.upper()))
        except (ValueError, OverflowError):
            pass
    raise broken(where, "is required, and is an instant with its zone (RFC 3339)")
