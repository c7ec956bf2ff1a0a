"""`[retention]`: how long each kind of data is kept; a kind that is not named is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cds_server.configured import Table
from models.errors import Misconfigured

LEAST = {"parts": 1, "decisions": 184, "results": 1, "access": 2192}
"""Days that the law asks for at the least: logs of a high-risk AI system six months (Regulation (EU) 2024/1689,
Articles 19 and 26(6)), records of who looked six years (45 CFR 164.316(b)(2))."""
_MOST = 36_525


@dataclass(frozen=True, slots=True)
class Retention:
    """Days; None: for ever."""

    parts: int | None = None
    """What was delivered, byte for byte. What was read of it stays."""
    decisions: int | None = None
    """Snapshots, judgements, cards, actions, and who called."""
    results: int | None = None
    """What was sent, and what was asked of others: payloads of jobs that came to their end."""
    access: int | None = None
    """Who looked."""

    def kinds(self) -> dict[str, int]:
        """Kind -> days, of those that are not kept for ever."""
        named = {"parts": self.parts, "decisions": self.decisions, "results": self.results, "access": self.access}
        return {kind: days for kind, days in named.items() if days is not None}


def read_retention(entry: Any, origin: str) -> Retention:
    """Errors: Misconfigured (an unknown kind; fewer days than the least)."""
    if entry is None:
        return Retention()
    if not isinstance(entry, dict):
        raise Misconfigured(f"retention in {origin} is not a table: write [retention]")
    table = Table(entry, "[retention]", origin)
    table.known_only(frozenset(f"{kind}_days" for kind in LEAST))
    days = {
        kind: table.whole(f"{kind}_days", least, least, _MOST)
        for kind, least in LEAST.items()
        if f"{kind}_days" in entry
    }
    return Retention(**days)
