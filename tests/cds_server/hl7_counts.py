"""Writes docs/hl7v2-samples.md: what becomes of every message of other projects that is landed and digested.

`python -m tests.cds_server.hl7_counts`
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from adapters.hl7v2.feed import Feed
from adapters.hl7v2.message import parse
from adapters.sources.files import land_file
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.intake import StoreIntake
from cds_server.reading import Rules
from cds_server.store.store import Store
from models.errors import BadInput

PAGE = Path(__file__).parents[2] / "docs" / "hl7v2-samples.md"
SOURCE = "samples"
RULES = {SOURCE: Rules(Feed(namespace=SOURCE, zone="Europe/Berlin"), "samples")}

_HEAD = """# HL7 v2: what becomes of other people's messages

Made by `python -m tests.cds_server.hl7_counts`: the files in `../shared/data/hl7` (two projects, MIT and Apache-2.0)
are landed by content into an empty store, as `cds land` does, and digested by the rules of a feed with a zone. A test
compares. Do not edit. Which resources a message gives stands in [hl7v2-mapping.md](hl7v2-mapping.md).

A dead letter is kept, listed by `cds work list --kind dead-letter`, and read again by `cds work retry`. What states
nothing are claims (DFT, BAR): they are evidence only where the feed's `accept_claims` says so.

"""


def landed(store: Store, peer_data: Path) -> int:
    """Land every file as a delivery of its own, and digest; how many there are."""

    async def land() -> int:
        intake = StoreIntake(store, "user:test")
        files = sorted((peer_data / "hl7").rglob("*.hl7"))
        for path in files:
            await land_file(path, intake, source=SOURCE, namespace=SOURCE, received_at=now())
        return len(files)

    count = asyncio.run(land())
    digest_backlog(store, frozenset(), "user:test", rules=RULES)
    return count


def outcomes(store: Store) -> dict[str, Counter[str]]:
    """By event: how many messages were read, stated nothing, or became a dead letter, and why."""
    why = {
        (landing, part): f"dead letter: {detail}"
        for landing, part, detail in store.reads.query(
            "SELECT landing_id, part, detail FROM flag WHERE kind = 'dead-letter'", ()
        )
    }
    stated = dict(store.reads.query("SELECT landing_id, SUM(statements) FROM digestion GROUP BY landing_id", ()))
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for landing_id in store.reads.landing_ids():
        landing = store.reads.landing(landing_id)
        assert landing is not None
        for number, body in store.parts(landing, 0):
            silent = landing.parts == 1 and not stated.get(landing_id)
            found[_event(body)][why.get((landing_id, number), "states nothing" if silent else "read")] += 1
    return found


def _event(body: bytes) -> str:
    try:
        return "^".join(parse(body).trigger)
    except BadInput:
        return "(no message)"


def page(store: Store) -> str:
    found = outcomes(store)
    total: Counter[str] = sum(found.values(), Counter())
    rows = [_HEAD + "| outcome | messages |", "|---|---:|"]
    rows += [
        f"| {outcome} | {count} |" for outcome, count in sorted(total.items(), key=lambda each: (-each[1], each[0]))
    ]
    rows += [f"| **all** | {sum(total.values())} |", "", "| event | messages | outcome |", "|---|---:|---|"]
    for event, tally in sorted(found.items()):
        said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.items()))
        rows.append(f"| {event} | {sum(tally.values())} | {said} |")
    return "\n".join(rows) + "\n"


def made(peer_data: Path) -> str:
    """The page, of a store that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder), f"sqlite:///{folder}/cds.db")
        try:
            landed(store, peer_data)
            return page(store)
        finally:
            store.close()


if __name__ == "__main__":
    from tests.peers import require

    PAGE.write_text(made(require("data")), encoding="utf-8")
