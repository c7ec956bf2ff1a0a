"""An inference as it stands in the record, and the same scored again from its stored snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cds_server.actions import ACTION
from cds_server.decisions import CALL, INFERENCE, SNAPSHOT, judged_bytes
from cds_server.hygiene import HELD
from cds_server.registry import Registry, runtime_id
from cds_server.shown import CARD, SYSTEM_ACTION
from cds_server.store.reads import Reads
from cds_server.store.store import Store
from cds_server.store.vault import commitment, object_ref
from models.errors import CdsError, KeysUnavailable, NotFound
from models.nouns import JSON, Snapshot

_COLUMNS = (
    "i.id, i.ref, i.entry, i.service, i.model, i.model_digest, i.runtime, i.abstained, i.sealed, i.commitment, i.at, "
    "s.ref, s.sealed, s.commitment, s.as_of, c.ref, c.hook, c.ehr, c.outcome, c.sealed, c.received_at, l.ref"
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One inference, opened."""

    id: int
    ref: str
    seq: int
    service: str
    model: str
    model_digest: str
    runtime: str
    at: str
    snapshot: Snapshot
    snapshot_bytes: bytes
    judged: bytes
    call: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        judged = orjson.loads(self.judged)
        return {
            "inference": self.ref,
            "seq": self.seq,
            "service": self.service,
            "model": self.model,
            "model_digest": self.model_digest,
            "runtime": self.runtime,
            "at": self.at,
            "call": dict(self.call),
            "snapshot": self.snapshot.plain(),
            "vectors": judged["vectors"],
            "score": judged["score"],
        }


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What scoring again gave."""

    equal: bool
    why: str


def load(store: Store, ref: str) -> Recorded:
    """An inference by its id, or by the uuid of one of its cards.

    Raises: NotFound; KeysUnavailable when its payload was erased, or is not what was committed to.
    """
    row = store.reads.one(_select("i.ref = ?"), (ref,))
    if row is None:
        row = store.reads.one(_select("i.id = (SELECT inference_id FROM card WHERE uuid = ?)"), (ref,))
    if row is None:
        raise NotFound("no such inference or card")
    return _recorded(store, row)


def load_id(store: Store, inference_id: int) -> Recorded:
    """An inference by its row."""
    row = store.reads.one(_select("i.id = ?"), (inference_id,))
    if row is None:
        raise NotFound("no such inference")
    return _recorded(store, row)


def _select(condition: str) -> str:
    return (
        f"SELECT {_COLUMNS} FROM inference i JOIN snapshot s ON s.id = i.snapshot_id JOIN call c ON c.id = i.call_id "
        f"LEFT JOIN landing l ON l.id = c.landing_id WHERE {condition}"
    )


def _recorded(store: Store, row: Any) -> Recorded:
    snapshot_bytes = _opened(store, object_ref(SNAPSHOT, row[11]), row[12], row[13])
    judged = _opened(store, object_ref(INFERENCE, row[1]), row[8], row[9])
    user = store.vault.open(object_ref(CALL, row[15]), row[19]).decode() if row[19] else None
    return Recorded(
        id=row[0],
        ref=row[1],
        seq=row[2],
        service=row[3],
        model=row[4],
        model_digest=row[5],
        runtime=row[6],
        at=row[10],
        snapshot=Snapshot.from_plain(orjson.loads(snapshot_bytes)),
        snapshot_bytes=snapshot_bytes,
        judged=judged,
        call={
            "hook": row[16],
            "ehr": row[17],
            "outcome": row[18],
            "user": user,
            "received_at": row[20],
            "landing": row[21],
        },
    )


def _opened(store: Store, ref: bytes, cipher: bytes, committed: bytes) -> bytes:
    payload = store.vault.open(ref, cipher)
    key = store.vault.keys.get(ref)
    if key is None or commitment(key, payload) != bytes(committed):
        raise KeysUnavailable("a sealed payload is not the one that was committed to")
    return payload


def reproduce(registry: Registry, recorded: Recorded) -> Reproduction:
    """Encode and score again from the stored snapshot, and compare bits."""
    if recorded.snapshot.bytes != recorded.snapshot_bytes:
        return Reproduction(False, "the stored snapshot does not come out of this program byte for byte")
    name, _, version = recorded.model.partition("@")
    try:
        scorer = registry.scorer_of(name, version)
    except CdsError as error:
        return Reproduction(False, f"cannot: {error}")
    if scorer.model.manifest_digest != recorded.model_digest:
        return Reproduction(False, "cannot: the model on the shelf under this name is another one than then")
    if judged_bytes(scorer.judge(recorded.snapshot)) == recorded.judged:
        return Reproduction(True, "equal, bit for bit")
    ran = runtime_id()
    return Reproduction(
        False,
        "differs" + (f" (then {recorded.runtime}, now {ran})" if ran != recorded.runtime else ", on the same runtime"),
    )


def cards_of(store: Store, inference_id: int) -> list[dict[str, Any]]:
    """The cards of an inference as they were sent, each with what people did."""
    shown = []
    for card_id, uuid, sealed in store.reads.query(
        "SELECT id, uuid, sealed FROM card WHERE inference_id = ? ORDER BY id", (inference_id,)
    ):
        actions = [
            {**store.reads.open_payload(ACTION, ref, cipher), "seq": entry}
            for ref, cipher, entry in store.reads.query(
                "SELECT ref, sealed, entry FROM action WHERE card_id = ? ORDER BY id", (card_id,)
            )
        ]
        shown.append({"card": store.reads.open_payload(CARD, uuid, sealed), "actions": actions})
    return shown


def held_of(store: Store, inference_id: int) -> list[dict[str, Any]]:
    """The cards of an inference that alert hygiene held back, each with its rule."""
    return [
        {"rule": rule, "card": store.reads.open_payload(HELD, uuid, sealed)}
        for rule, uuid, sealed in store.reads.query(
            "SELECT rule, card, sealed FROM advice WHERE inference_id = ? AND sealed IS NOT NULL ORDER BY id",
            (inference_id,),
        )
    ]


def system_actions_of(store: Store, inference_id: int) -> list[JSON]:
    """What the EHR was told to do without asking."""
    rows = store.reads.query(
        "SELECT ref, sealed FROM system_action WHERE inference_id = ? ORDER BY id", (inference_id,)
    )
    return [store.reads.open_payload(SYSTEM_ACTION, ref, sealed) for ref, sealed in rows]


def all_refs(reads: Reads) -> list[str]:
    """Every inference, oldest first."""
    return [row[0] for row in reads.query("SELECT ref FROM inference ORDER BY id")]
