"""Which cards rest on a fact; and, of all facts that were corrected or withdrawn, which cards rested on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from cds_server.reproduce import Recorded, load_id
from cds_server.store.store import Store
from cds_server.tracing import row_of
from models.errors import BadInput, KeysUnavailable, NotFound
from models.nouns import Fact

_NAMED = re.compile(r"([0-9a-f]{8,32})[:/](\d+)(?:/)?((?:[A-Z/][^#]*)?)(?:#\d+)?")
"""`LANDING:PART[POINTER]`, as `cds patient` and `cds inference --explain` print it, or the id of a fact."""
_DIGITS = 9
"""Of a part's number: no landing has so many."""
_RESOURCE = (
    "SELECT r.id, r.entry, r.record_id, r.pointer, r.local_digest, r.known_from, r.type, c.entry, c.known_to, c.cause "
    "FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
    "WHERE r.landing_id = ? AND r.part = ? ORDER BY r.id"
)


def fact(store: Store, named: str, *, after: int = 0, limit: int = 50) -> dict[str, Any]:
    """The inferences that rest on a fact, and their cards. `named`: its id, or landing (8 hex digits of it will do),
    part and pointer. Errors: BadInput (no name of a fact), NotFound."""
    landing, part, pointer = _place(store, named)
    rows = store.reads.query(_RESOURCE, (landing[0], part))
    mine = [row for row in rows if not pointer or not row[3] or pointer == row[3] or pointer.startswith(row[3] + "/")]
    if not mine:
        raise NotFound("no fact was read from that place")
    newest = max(mine, key=lambda row: (len(row[3]), row[0]))
    touched = _touched(store, landing[1], part, newest[3], newest[2], after)
    shown: list[dict[str, Any]] = []
    last = None
    for recorded, features in touched:
        if len(shown) == limit:
            last = shown[-1].pop("row")
            break
        shown.append({"row": recorded.id, **_inference(store, recorded), "features": features})
    for each in shown:
        each.pop("row", None)
    return {
        "question": {"kind": "fact", "landing": landing[1], "part": part, "pointer": pointer},
        "landed": {"seq": int(landing[0]) >> 20, "source": landing[2], "arrived": landing[3]},
        "fact": _life(store, newest),
        "inferences": shown,
        "next": last,
    }


def corrected(store: Store, since: str, until: str, *, after: int = 0, limit: int = 50) -> dict[str, Any]:
    """Every inference whose facts were corrected or withdrawn after it was made, by the time at which we noticed
    (`recalls`), with the facts: what they are of, since when they are no longer known, and what came instead."""
    rows = store.reads.query(
        "SELECT f.id, f.entry, f.reason, f.at, f.inference_id, c.entry, c.at FROM flag f "
        "LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE f.reason IN ('corrected', 'recall') AND f.at >= ? AND f.at <= ? AND f.id > ? ORDER BY f.id LIMIT ?",
        (since, until, after, limit + 1),
    )
    found: list[dict[str, Any]] = []
    for _, seq, reason, at, inference, closed, closed_at in rows[:limit]:
        flag = {"seq": int(seq), "reason": reason, "at": at}
        handled = {"seq": int(closed), "at": closed_at} if closed is not None else None
        try:
            recorded = load_id(store, int(inference))
        except KeysUnavailable:
            found.append({"flag": flag, "handled": handled, "erased": True})
            continue
        facts = [_life(store, row) for row in _gone(store, recorded)]
        found.append({"flag": flag, "handled": handled, **_inference(store, recorded), "facts": facts})
    return {
        "question": {"kind": "corrected", "from": since or None, "to": until},
        "inferences": found,
        "next": int(rows[limit - 1][0]) if len(rows) > limit else None,
    }


def _place(store: Store, named: str) -> tuple[Sequence[Any], int, str]:
    """(row id, reference, source, arrival) of the landing, the part, the pointer."""
    found = _NAMED.fullmatch(named)
    if found is None or len(found[2]) > _DIGITS:
        raise BadInput("a fact is named LANDING:PART[POINTER], or by its id", where="FACT")
    rows = store.reads.query(
        "SELECT id, ref, source, received_at FROM landing WHERE substr(ref, 1, ?) = ? LIMIT 2",
        (len(found[1]), found[1]),
    )
    if len(rows) != 1:
        raise NotFound("several landings begin like that: name more of it" if rows else "there is no such landing")
    return rows[0], int(found[2]), found[3]


def _touched(
    store: Store, landing: str, part: int, pointer: str, record_id: int | None, after: int
) -> Iterator[tuple[Recorded, list[str]]]:
    """Inferences about the person that had the fact in their snapshot, with the features that were taken from it."""
    if record_id is None:
        return
    rows = [
        int(row[0])
        for each in store.reads.person(record_id)
        for row in store.reads.query("SELECT id FROM inference WHERE record_id = ? AND id > ?", (each, after))
    ]
    for row in sorted(rows):
        try:
            recorded = load_id(store, row)
        except KeysUnavailable:
            continue  # erased: it rests on nothing that anybody could name
        mine = {each.id for each in recorded.snapshot.facts if _from(each, landing, part, pointer)}
        if mine:
            yield recorded, _features(recorded, mine)


def _from(each: Fact, landing: str, part: int, pointer: str) -> bool:
    source = each.source
    return (source.landing, source.part) == (landing, part) and (
        not pointer or source.pointer == pointer or source.pointer.startswith(pointer + "/")
    )


def _features(recorded: Recorded, facts: set[str]) -> list[str]:
    return [
        f"{vector['modality']}.{feature['name']}"
        for vector in recorded.plain()["vectors"]
        for feature in vector.get("features", ())
        if not facts.isdisjoint(feature.get("facts", ()))
    ]


def _inference(store: Store, recorded: Recorded) -> dict[str, Any]:
    cards = store.reads.query("SELECT uuid FROM card WHERE inference_id = ? ORDER BY id", (recorded.id,))
    return {
        "id": recorded.ref,
        "seq": recorded.seq,
        "at": recorded.at,
        "service": recorded.service,
        "model": recorded.model,
        "cards": [row[0] for row in cards],
    }


def _gone(store: Store, recorded: Recorded) -> list[Sequence[Any]]:
    """Resource versions behind an inference that stopped being known after it was made."""
    found: dict[int, Sequence[Any]] = {}
    for each in recorded.snapshot.facts:
        row = row_of(store, each)
        if row is None or row[3] is None or row[3] < recorded.snapshot.as_of:
            continue
        (landing,) = store.reads.query("SELECT id FROM landing WHERE ref = ?", (each.source.landing,))
        for whole in store.reads.query(_RESOURCE, (landing[0], each.source.part)):
            if whole[0] == row[4]:
                found[int(whole[0])] = whole
    return list(found.values())


def _life(store: Store, row: Sequence[Any]) -> dict[str, Any]:
    """Since when a resource version is known, until when, why no longer, and where the next version stands."""
    resource, seq, _, pointer, local, known_from, kind, closing, known_to, cause = row
    found: dict[str, Any] = {
        "type": kind,
        "pointer": pointer,
        "seq": int(seq),
        "known_from": known_from,
        "known_to": known_to,
        "closed": {"seq": int(closing), "cause": cause} if closing is not None else None,
        "instead": None,
    }
    if known_to is not None:
        after = store.reads.one(
            "SELECT r.entry, l.ref, r.part, r.pointer, r.known_from, r.facts IS NOT NULL FROM resource r "
            "JOIN landing l ON l.id = r.landing_id WHERE r.local_digest = ? AND r.known_from >= ? AND r.id <> ? "
            "ORDER BY r.id LIMIT 1",
            (local, known_to, resource),
        )
        if after is not None:
            names = ("seq", "landing", "part", "pointer", "known_from", "states_facts")
            found["instead"] = dict(zip(names, (int(after[0]), *after[1:5], bool(after[5])), strict=True))
    return found
