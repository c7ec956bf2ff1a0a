"""Everything that a model version did between two instants: inferences, cards, what people did, switches."""

from __future__ import annotations

from typing import Any

from cds_server.store.store import Store
from cds_server.what_if import WHAT_IF
from models.errors import NotFound

FIRST, LAST = "", "9999-12-31T00:00:00.000000Z"


def made(
    store: Store, model: str, since: str = FIRST, until: str = LAST, *, after: int = 0, limit: int = 50
) -> dict[str, Any]:
    """A page of what `NAME@VERSION` did, oldest first, with counts over all of it.

    `since` and `until`: instants, both inclusive. `after`: `next` of the page before. Errors: NotFound (it never spoke,
    and no service was ever given it).
    """
    rows = store.reads.query(
        "SELECT id, ref, entry, at, service, abstained, model_digest, runtime FROM inference "
        "WHERE model = ? AND at >= ? AND at <= ? AND id > ? ORDER BY id LIMIT ?",
        (model, since, until, after, limit + 1),
    )
    switches = _switches(store, model, since, until)
    counts = _counts(store, model, since, until)
    if not counts["inferences"] and not switches and not _known(store, model):
        raise NotFound("no model version of this name (NAME@VERSION) is on record")
    shown = rows[:limit]
    return {
        "question": {"kind": "model", "of": model, "from": since or None, "to": None if until == LAST else until},
        "counts": counts,
        "switches": switches,
        "inferences": [_inference(store, *row) for row in shown],
        "next": int(shown[-1][0]) if len(rows) > limit else None,
    }


def _counts(store: Store, model: str, since: str, until: str) -> dict[str, int]:
    within = (model, since, until)
    count, abstained = store.reads.query(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN abstained THEN 1 ELSE 0 END), 0) FROM inference "
        "WHERE model = ? AND at >= ? AND at <= ?",
        within,
    )[0]
    (asked,) = store.reads.query(
        "SELECT COUNT(*) FROM inference WHERE model = ? AND at >= ? AND at <= ? AND substr(service, 1, ?) = ?",
        (*within, len(WHAT_IF), WHAT_IF),
    )[0]
    (cards,) = store.reads.query(
        "SELECT COUNT(*) FROM card c JOIN inference i ON i.id = c.inference_id "
        "WHERE i.model = ? AND i.at >= ? AND i.at <= ?",
        within,
    )[0]
    actions = store.reads.query(
        "SELECT a.outcome, COUNT(*) FROM action a JOIN card c ON c.id = a.card_id "
        "JOIN inference i ON i.id = c.inference_id WHERE i.model = ? AND i.at >= ? AND i.at <= ? GROUP BY a.outcome",
        within,
    )
    flagged = store.reads.query(
        "SELECT f.reason, COUNT(*) FROM flag f JOIN inference i ON i.id = f.inference_id "
        "WHERE i.model = ? AND i.at >= ? AND i.at <= ? GROUP BY f.reason",
        within,
    )
    return {
        "inferences": int(count),
        "abstained": int(abstained),
        **({"what-ifs": int(asked)} if asked else {}),
        "cards": int(cards),
        **{f"cards {outcome}": int(number) for outcome, number in sorted(map(tuple, actions))},
        **{f"flagged {reason}": int(number) for reason, number in sorted(map(tuple, flagged))},
    }


def _switches(store: Store, model: str, since: str, until: str) -> list[dict[str, Any]]:
    """When services were given it, and when it was stopped or started."""
    name, _, version = model.partition("@")
    pins = store.reads.query(
        "SELECT id, entry, at, service, digest FROM pin WHERE model = ? AND version = ? AND at >= ? AND at <= ?",
        (name, version, since, until),
    )
    states = store.reads.query(
        "SELECT id, entry, at, service, state FROM service_state WHERE service IN (?, ?) AND at >= ? AND at <= ?",
        (f"model:{name}", f"model:{model}", since, until),
    )
    found = [
        *((row[0], {"seq": int(row[1]), "at": row[2], "pinned": row[3], "manifest": row[4]}) for row in pins),
        *((row[0], {"seq": int(row[1]), "at": row[2], row[4]: row[3].removeprefix("model:")}) for row in states),
    ]
    return [each for _, each in sorted(found, key=lambda one: int(one[0]))]


def _known(store: Store, model: str) -> bool:
    name, _, version = model.partition("@")
    pinned = store.reads.one("SELECT 1 FROM pin WHERE model = ? AND version = ? LIMIT 1", (name, version))
    return (
        pinned is not None or store.reads.one("SELECT 1 FROM inference WHERE model = ? LIMIT 1", (model,)) is not None
    )


def _inference(
    store: Store, row: int, ref: str, seq: int, at: str, service: str, abstained: bool, digest: str, runtime: str
) -> dict[str, Any]:
    cards = store.reads.query("SELECT id, uuid FROM card WHERE inference_id = ? ORDER BY id", (row,))
    actions = [
        {"card": uuid, "seq": int(entry), "outcome": outcome, "door": door, "at": done}
        for card, uuid in cards
        for entry, outcome, door, done in store.reads.query(
            "SELECT entry, outcome, door, at FROM action WHERE card_id = ? ORDER BY id", (card,)
        )
    ]
    return {
        "id": ref,
        "seq": int(seq),
        "at": at,
        "service": service,
        "abstained": bool(abstained),
        "manifest": digest,
        "runtime": runtime,
        "cards": [uuid for _, uuid in cards],
        "done": actions,
    }
