"""What people type at the board, held against what can be kept. A refusal names the field, never what stood in it."""

from __future__ import annotations

from datetime import date

from smart_app.boards import LONGEST, MOST_PEOPLE, Draft, Unfit

LONGEST_TITLE = 200


def words(told: str) -> str:
    """Text as it was typed, without blanks around it and without signs that no keyboard has. Errors: Unfit."""
    kept = "".join(sign for sign in told.replace("\r\n", "\n") if sign in "\n\t" or sign.isprintable()).strip()
    if len(kept) > LONGEST:
        raise Unfit("board.unfit.long")
    return kept


def titled(told: str) -> str:
    kept = " ".join(words(told).split())
    if not 1 <= len(kept) <= LONGEST_TITLE:
        raise Unfit("board.unfit.title")
    return kept


def day(told: str) -> str:
    """A day of the calendar, YYYY-MM-DD. Errors: Unfit."""
    try:
        found = date.fromisoformat(told.strip())
    except ValueError:
        raise Unfit("board.unfit.date") from None
    return found.isoformat()


def checked(draft: Draft) -> Draft:
    """Errors: Unfit."""
    recommendation = words(draft.recommendation)
    if not recommendation:
        raise Unfit("board.unfit.recommendation")
    if not 1 <= len(draft.participants) <= MOST_PEOPLE:
        raise Unfit("board.unfit.participants")
    if len(draft.follow_up) > MOST_PEOPLE:
        raise Unfit("board.unfit.follow_up")
    return Draft(recommendation, words(draft.rationale), words(draft.dissent), draft.follow_up, draft.participants)
