"""An inference as it stands in the record, and the same scored again from its stored snapshot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from cds_server import runtimes
from cds_server.actions import ACTION
from cds_server.apart import Apart, apart
from cds_server.decisions import CALL, INFERENCE, SNAPSHOT, judged_bytes
from cds_server.hygiene import HELD
from cds_server.registry import Registry
from cds_server.shown import CARD, SYSTEM_ACTION
from cds_server.store.reads import Reads, marks
from cds_server.store.store import Store
from cds_server.store.vault import commitment, object_ref
from models.errors import CdsError, ContractMismatch, KeysUnavailable, ModelFault, NotFound
from models.nouns import JSON, Feature, FeatureVector, Snapshot

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


_EQUAL = "equal, bit for bit"


class Verdict(StrEnum):
    """What scoring again gave."""

    EQUAL = "equal"
    """Snapshot, features and score: bit for bit."""
    WITHIN = "within"
    """Another runtime, and no number further from then than its epsilon."""
    FEATURES = "features"
    """The encoder is another one by now; from the features of then, the score is equal or within."""
    DIFFERS = "differs"
    CANNOT = "cannot"
    """The model is gone, or what was sealed is not what was committed to."""
    ERASED = "erased"
    """The keys were destroyed, or the key store was lost."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What scoring again gave, and why."""

    verdict: Verdict
    why: str
    changed: tuple[str, ...] = ()
    """What of the runtime is another one since: `numpy 2.3.4 then, 2.3.5 now`."""
    outputs: tuple[Apart, ...] = ()
    """Each output of the score, and each feature that differs, with its distance and its epsilon; none where every bit
    is the same, unless asked."""

    @property
    def equal(self) -> bool:
        return self.verdict is Verdict.EQUAL

    @property
    def held(self) -> bool:
        """Whether the inference says again what it said."""
        return self.verdict in (Verdict.EQUAL, Verdict.WITHIN)

    def plain(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "equal": self.equal,
            "why": self.why,
            "changed": list(self.changed),
            "outputs": [each.plain() for each in self.outputs],
        }


def ref_of(store: Store, named: str) -> str:
    """The id of an inference that its id, or the uuid of one of its cards, names. Errors: NotFound."""
    row = store.reads.one(
        "SELECT ref FROM inference WHERE ref = ? OR id = (SELECT inference_id FROM card WHERE uuid = ?)", (named, named)
    )
    if row is None:
        raise NotFound("no such inference or card")
    return str(row[0])


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


def answer_before(store: Store, record_ids: Sequence[int], service: str, model: str, at: str) -> tuple[int, ...]:
    """Rows of the inferences of the last call of a service about these records that was answered up to an instant: the
    one by the model of this name first. Empty where there was none. What was judged unasked, nobody was told."""
    row = store.reads.one(
        "SELECT i.id, i.call_id FROM inference i JOIN call c ON c.id = i.call_id "
        f"WHERE i.record_id IN ({marks(record_ids)}) AND i.service = ? AND substr(i.model, 1, ?) = ? AND i.at <= ? "
        "AND c.outcome <> 'unasked' ORDER BY i.id DESC LIMIT 1",
        (*record_ids, service, len(model) + 1, f"{model}@", at),
    )
    if row is None:
        return ()
    beside = store.reads.query("SELECT id FROM inference WHERE call_id = ? AND id <> ? ORDER BY id", (row[1], row[0]))
    return (int(row[0]), *(int(each[0]) for each in beside))


def last_answer(store: Store, record_ids: Sequence[int], services: Sequence[str]) -> tuple[str, str] | None:
    """(service, instant) of the last inference that one of these services answered about these records with."""
    row = store.reads.one(
        "SELECT i.service, i.at FROM inference i JOIN call c ON c.id = i.call_id "
        f"WHERE i.record_id IN ({marks(record_ids)}) AND i.service IN ({marks(services)}) AND c.outcome <> 'unasked' "
        "ORDER BY i.id DESC LIMIT 1",
        (*record_ids, *services),
    )
    return (str(row[0]), str(row[1])) if row is not None else None


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


def attempt(store: Store, registry: Registry, ref: str, *, stated: bool = False) -> Reproduction:
    """`reproduce` for an inference by its id, also where it cannot be opened any more. Errors: NotFound."""
    try:
        recorded = load(store, ref)
    except KeysUnavailable as error:
        if missing_keys(store, ref):
            return Reproduction(Verdict.ERASED, "cannot: its keys are gone, by an erasure or with the key store")
        return Reproduction(Verdict.CANNOT, f"cannot: {error.what}")
    return reproduce(registry, recorded, stated=stated)


def missing_keys(store: Store, ref: str) -> bool:
    """Whether a key that an inference or its snapshot is sealed with is gone."""
    row = store.reads.one(
        "SELECT s.ref FROM inference i JOIN snapshot s ON s.id = i.snapshot_id WHERE i.ref = ?", (ref,)
    )
    if row is None:
        return False
    return any(store.vault.key(each) is None for each in (object_ref(SNAPSHOT, row[0]), object_ref(INFERENCE, ref)))


def reproduce(registry: Registry, recorded: Recorded, *, stated: bool = False) -> Reproduction:
    """Encode and score again from the stored snapshot, by the very model version of then, and compare bits.

    `stated`: the outputs and their epsilons also where every bit is the same (it costs as much again).
    """
    changed = runtimes.changed(recorded.runtime, runtimes.runtime_id())
    if recorded.snapshot.bytes != recorded.snapshot_bytes:
        return Reproduction(
            Verdict.DIFFERS, "the stored snapshot does not come out of this program byte for byte", changed
        )
    name, _, version = recorded.model.partition("@")
    try:
        scorer = registry.scorer_then(name, version, recorded.model_digest)
    except ContractMismatch as error:
        return _from_features(registry, recorded, error, changed)
    except CdsError as error:
        return Reproduction(Verdict.CANNOT, f"cannot: {error}", changed)
    try:
        again = judged_bytes(scorer.judge(recorded.snapshot))
    except ModelFault as error:
        return Reproduction(Verdict.DIFFERS, f"differs: the model does not judge this snapshot now: {error}", changed)
    if again == recorded.judged and not stated:
        return Reproduction(Verdict.EQUAL, _EQUAL, changed)
    return _compared(recorded.judged, again, changed)


def _from_features(
    registry: Registry, recorded: Recorded, error: ContractMismatch, changed: tuple[str, ...]
) -> Reproduction:
    """The encoder of then is not in this program: what it made is stored, and can be fused again."""
    why = f"cannot encode again: {error}"
    judged = orjson.loads(recorded.judged)
    try:
        name, _, version = recorded.model.partition("@")
        scorer = registry.scorer_then(name, version, recorded.model_digest, encoding=False)
        score = scorer.fuse([_vector(each) for each in judged["vectors"]])
    except CdsError as fault:
        return Reproduction(Verdict.CANNOT, f"{why}; nor score its stored features: {fault}", changed)
    outputs = tuple(apart({"score": judged["score"]}, {"score": score.plain()}))
    if all(each.within for each in outputs):
        exact = all(each.distance == 0.0 for each in outputs)
        told = "the same numbers" if exact else f"within epsilon ({_farthest(outputs)})"
        return Reproduction(Verdict.FEATURES, f"{why}; scored from its stored features: {told}", changed, outputs)
    return Reproduction(
        Verdict.DIFFERS, f"{why}; scored from its stored features it differs: {_farthest(outputs)}", changed, outputs
    )


def _compared(then: bytes, now: bytes, changed: tuple[str, ...]) -> Reproduction:
    found = apart(orjson.loads(then), orjson.loads(now))
    outputs = tuple(each for each in found if each.output.startswith("score.") or each.distance)
    if then == now:
        return Reproduction(Verdict.EQUAL, _EQUAL, changed, outputs)
    since = "; ".join(changed)
    if not changed:
        return Reproduction(Verdict.DIFFERS, f"differs, on the same runtime: {_farthest(outputs)}", changed, outputs)
    if all(each.within for each in outputs):
        return Reproduction(Verdict.WITHIN, f"within epsilon: {_farthest(outputs)}; {since}", changed, outputs)
    return Reproduction(Verdict.DIFFERS, f"differs: {_farthest(outputs)}; {since}", changed, outputs)


def _farthest(outputs: Sequence[Apart]) -> str:
    """The output that is farthest beyond, or nearest to, its epsilon; and how many others differ at all."""
    differing = [each for each in outputs if each.distance]
    if not differing:
        return "in its spelling only"
    worst = max(differing, key=lambda each: each.distance / each.epsilon)
    return str(worst) + (f" and {len(differing) - 1} more" if len(differing) > 1 else "")


def _vector(plain: JSON) -> FeatureVector:
    """A stored vector as the noun that it stands for."""
    features = (
        Feature(each["name"], float(each.get("value", math.nan)), each["missing"]) for each in plain.get("features", ())
    )
    return FeatureVector(plain["modality"], plain["encoder"], tuple(features), plain.get("absent"))


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
