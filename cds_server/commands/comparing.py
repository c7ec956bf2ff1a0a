"""What `cds score --as-of` prints: what was said, would have been said, is said now, and what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cds_server.commands.opening import table

if TYPE_CHECKING:
    from cds_server.time_machine import Comparison, Stand
    from cds_server.tracing import Difference


def told(found: Comparison) -> str:
    """For a terminal: the card of then in full, the three in a table, each difference with its facts."""
    then = "\n\n".join(f"{card['summary']}\n\n{card.get('detail', '')}" for card in found.then.cards)
    stands = (("it said", found.said), ("as known then", found.then), ("as known now", found.now))
    rows = [_row(name, stand) for name, stand in stands if stand is not None]
    lines = [
        then or found.then.summary,
        "",
        table(["", "known up to", "model", "score", "card"], rows),
        *_record(found.said),
        *(f"note: {note}" for note in found.notes),
    ]
    if found.said is not None:
        lines += ["", _between("from what it said to what was known then", found.until_then)]
    lines += ["", _between("from what was known then to what is known now", found.since_then)]
    return "\n".join(lines)


def _row(name: str, stand: Stand) -> list[str]:
    from cds_server.commands.inference import said

    score = dict(stand.score)
    number = said(score) if "abstained" not in score else "abstained"
    return [name, stand.at[:19] + "Z", stand.model, number, stand.summary[:60]]


def _record(said: Stand | None) -> list[str]:
    if said is None:
        return []
    actions = "; ".join(f"{each['outcome']} at {each['at'][:19]}Z (entry {each['seq']})" for each in said.actions)
    return [f"it said so in entry {said.seq}, inference {said.inference}" + (f"; {actions}" if actions else "")]


def _between(title: str, found: Sequence[Difference]) -> str:
    from cds_server.tracing import SAID

    if not found:
        return f"{title}: no input differs"
    rows = []
    for each in found:
        first = [each.title[:28], each.before[:24], each.after[:24]]
        facts = [
            [
                SAID[trace.cause],
                f"{(trace.fact.code.display or trace.fact.code.code)[:28]}",
                (trace.fact.effective or "")[:10],
                trace.fact.known_from[:19] + "Z",
                f"{trace.fact.source.landing[:8]}:{trace.fact.source.part}{trace.fact.source.pointer}",
            ]
            for trace in each.traces
        ] or [[", ".join(SAID[cause] for cause in each.causes), "", "", "", ""]]
        rows += [(first if n == 0 else ["", "", ""]) + fact for n, fact in enumerate(facts)]
    header = ["input", "before", "after", "why", "fact", "effective", "known from", "landing:part"]
    return f"{title}:\n" + table(header, rows)
