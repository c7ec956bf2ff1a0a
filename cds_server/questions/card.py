"""Which data, features and model made this card; who saw it; what did they do; was it corrected since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from cds_server.access.log import ACCESS
from cds_server.actions import ACTION
from cds_server.reproduce import Recorded, cards_of, load, missing_keys, ref_of
from cds_server.store.store import Store
from cds_server.tracing import row_of, value_of
from models.errors import KeysUnavailable
from models.nouns import Fact

_QUESTIONS = ("observation", "demographic", "report")
"""Kinds of facts whose code says nothing of the patient."""


def card(store: Store, named: str, *, values: bool = False, withheld: frozenset[str] = frozenset()) -> dict[str, Any]:
    """All that stands behind a card (its uuid) or an inference (its id).

    `values`: with the numbers, the texts and the people; else only where things stand, what they are of, and when they
    came to be known. `withheld`: ids of facts whose values this reader may not see. Of an erased one, what stands in
    clear: that it was made, by which model, and what was done. Errors: NotFound, KeysUnavailable (it was changed).
    """
    ref = ref_of(store, named)
    try:
        recorded = load(store, ref)
    except KeysUnavailable:
        if not missing_keys(store, ref):
            raise  # changed, not erased
        return _erased(store, ref, named)
    judged = orjson.loads(recorded.judged)
    used = _used(judged)
    (row,) = store.reads.query("SELECT record_id, abstained, call_id FROM inference WHERE id = ?", (recorded.id,))
    shown = cards_of(store, recorded.id)
    uuids = store.reads.query("SELECT uuid, id, entry FROM card WHERE inference_id = ? ORDER BY id", (recorded.id,))
    answer: dict[str, Any] = {
        "question": {"kind": "card", "of": named, "values": values},
        "inference": {
            "id": recorded.ref,
            "seq": recorded.seq,
            "service": recorded.service,
            "at": recorded.at,
            "abstained": bool(row[1]),
        },
        "model": _model(store, recorded.service, recorded.model, recorded.model_digest, recorded.runtime, recorded.at),
        "data": [_fact(store, fact, used, values and fact.id not in withheld) for fact in recorded.snapshot.facts],
        "features": [
            _feature(vector, feature, values and withheld.isdisjoint(feature.get("facts", ())))
            for vector in judged["vectors"]
            for feature in vector.get("features", ())
        ],
        "cards": [
            {"uuid": uuid, "seq": int(entry), **({"summary": each["card"]["summary"]} if values else {})}
            for (uuid, _, entry), each in zip(uuids, shown, strict=True)
        ],
        "seen": [_answered(recorded, values), *_looks(store, int(row[0]), recorded.at, values)],
        "done": [action for _, each, _ in uuids for action in _actions(store, int(each), values)],
        "corrected": _flags(store, recorded.id),
    }
    if values:
        answer["score"] = judged["score"]
    return answer


def _erased(store: Store, ref: str, named: str) -> dict[str, Any]:
    (row,) = store.reads.query(
        "SELECT i.id, i.entry, i.service, i.at, i.abstained, i.record_id, i.model, i.model_digest, i.runtime, "
        "c.received_at, c.ehr, c.hook, c.outcome FROM inference i JOIN call c ON c.id = i.call_id WHERE i.ref = ?",
        (ref,),
    )
    seq, call = int(row[1]), dict(zip(("at", "ehr", "hook", "outcome"), row[9:], strict=True))
    uuids = store.reads.query("SELECT uuid, id, entry FROM card WHERE inference_id = ? ORDER BY id", (row[0],))
    return {
        "question": {"kind": "card", "of": named, "values": False},
        "erased": True,
        "inference": {"id": ref, "seq": seq, "service": row[2], "at": row[3], "abstained": bool(row[4])},
        "model": _model(store, row[2], row[6], row[7], row[8], row[3]),
        "data": [],
        "features": [],
        "cards": [{"uuid": uuid, "seq": int(entry)} for uuid, _, entry in uuids],
        "seen": [{"how": "call", "seq": seq, **call}, *_looks(store, int(row[5]), row[3], values=False)],
        "done": [action for _, each, _ in uuids for action in _actions(store, int(each), values=False)],
        "corrected": _flags(store, int(row[0])),
    }


def _used(judged: Mapping[str, Any]) -> dict[str, list[str]]:
    """Fact -> the features that were taken from it."""
    used: dict[str, list[str]] = {}
    for vector in judged["vectors"]:
        for feature in vector.get("features", ()):
            for fact in feature.get("facts", ()):
                used.setdefault(fact, []).append(f"{vector['modality']}.{feature['name']}")
    return used


def _model(store: Store, service: str, model: str, digest: str, runtime: str, at: str) -> dict[str, Any]:
    """The version that spoke, what it ran on, and the pin by which it did."""
    name, _, version = model.partition("@")
    row = store.reads.one(
        "SELECT entry, at FROM pin WHERE service = ? AND model = ? AND version = ? AND at <= ? "
        "ORDER BY id DESC LIMIT 1",
        (service, name, version, at),
    )
    pinned = {"seq": int(row[0]), "at": row[1]} if row is not None else None
    return {"id": model, "manifest": digest, "runtime": runtime, "pinned": pinned}


def _fact(store: Store, fact: Fact, used: Mapping[str, list[str]], values: bool) -> dict[str, Any]:
    """Where a fact stands. The code of an observation says what was asked; that of a diagnosis is the answer."""
    source = fact.source
    landed = store.reads.one(
        "SELECT entry, source, namespace, received_at FROM landing WHERE ref = ?", (source.landing,)
    )
    row = row_of(store, fact)
    found: dict[str, Any] = {
        "landing": source.landing,
        "part": source.part,
        "pointer": source.pointer,
        "seq": int(landed[0]) if landed is not None else None,
        "source": landed[1] if landed is not None else None,
        "namespace": landed[2] if landed is not None else None,
        "arrived": landed[3] if landed is not None else None,
        "reader": source.reader,
        "type": source.resource.partition("/")[0],
        "kind": fact.kind,
        "code": fact.code.token if values or fact.kind in _QUESTIONS else None,
        "known_from": fact.known_from,
        "known_to": row[3] if row is not None else None,
        "features": used.get(fact.id, []),
    }
    if values:
        found |= {"value": value_of(fact), "effective": fact.effective, "resource": source.resource}
    return found


def _feature(vector: Mapping[str, Any], feature: Mapping[str, Any], values: bool) -> dict[str, Any]:
    found = {
        "modality": vector["modality"],
        "encoder": vector["encoder"],
        "name": feature["name"],
        "missing": feature["missing"],
        "facts": len(feature.get("facts", ())),
    }
    if values:
        found |= {"value": feature.get("value"), "label": feature.get("label"), "note": feature.get("note")}
    return found


def _answered(recorded: Recorded, values: bool) -> dict[str, Any]:
    """The call that it was the answer of: whoever called got it, and the EHR showed it to them or not."""
    call = recorded.call
    seen = {"how": "call", "seq": recorded.seq, "at": call["received_at"], "ehr": call["ehr"], "hook": call["hook"]}
    return {**seen, "outcome": call["outcome"], **({"user": call["user"]} if values else {})}


def _looks(store: Store, record_id: int, since: str, values: bool) -> list[dict[str, Any]]:
    """Who opened pages of this patient since, in our own app or by a command."""
    rows = []
    for each in store.reads.person(record_id):
        rows += store.reads.query(
            "SELECT a.id, a.entry, a.at, a.act, a.door, a.ehr, a.roles, a.purpose, a.ref, a.sealed FROM access a "
            "JOIN access_record r ON r.access_id = a.id "
            "WHERE r.record_id = ? AND r.outcome <> 'refused' AND a.at >= ? ORDER BY a.id",
            (each, since),
        )
    found = []
    for _, seq, at, act, door, ehr, roles, purpose, ref, sealed in sorted(set(map(tuple, rows))):
        seen = {"how": "look", "seq": int(seq), "at": at, "act": act, "door": door, "ehr": ehr}
        who = {"user": store.reads.open_payload(ACCESS, ref, sealed)} if values else {}
        found.append({**seen, "roles": roles.split(), "purpose": purpose, **who})
    return found


def _actions(store: Store, card_id: int, values: bool) -> list[dict[str, Any]]:
    found = []
    for seq, outcome, reason, door, at, ref, sealed in store.reads.query(
        "SELECT entry, outcome, reason, door, at, ref, sealed FROM action WHERE card_id = ? ORDER BY id", (card_id,)
    ):
        done = {"seq": int(seq), "outcome": outcome, "reason": reason, "door": door, "at": at}
        found.append({**done, **({"action": store.reads.open_payload(ACTION, ref, sealed)} if values else {})})
    return found


def _flags(store: Store, inference_id: int) -> list[dict[str, Any]]:
    """Flags of facts behind it that were corrected, and whether somebody dealt with them."""
    rows: Iterable[Any] = store.reads.query(
        "SELECT f.entry, f.reason, f.at, c.entry, c.resolution, c.at FROM flag f "
        "LEFT JOIN flag_closing c ON c.flag_id = f.id WHERE f.inference_id = ? ORDER BY f.id",
        (inference_id,),
    )
    return [
        {
            "seq": int(row[0]),
            "reason": row[1],
            "at": row[2],
            "closed": {"seq": int(row[3]), "resolution": row[4], "at": row[5]} if row[3] is not None else None,
        }
        for row in rows
    ]
