"""Score some of the past again: inferences drawn by a seed, each held against its entry, its proof and its bits.

Which ones are drawn, anybody can work out who has the ids and the seed: the N whose SHA-256 of `SEED:ID` is smallest.
So an auditor names the seed, and nobody chooses what is looked at.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson

from cds_server.checkpoints import Checkpoints
from cds_server.ledger.tree import inclusion
from cds_server.ledger.verifier import Wrong, verify_inclusion
from cds_server.registry import Registry
from cds_server.reproduce import Reproduction, Verdict, attempt
from cds_server.store.store import Store

FAILED = frozenset({Verdict.DIFFERS, Verdict.CANNOT})
_COMMITTED = """
SELECT i.entry, i.commitment, s.commitment
FROM inference i JOIN snapshot s ON s.id = i.snapshot_id WHERE i.ref = ?
"""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What an audit of a sample found."""

    seed: str
    since: str | None
    of: int
    """Inferences that it was drawn from."""
    results: dict[str, tuple[int, Reproduction]]
    """Inference -> its entry, and what scoring it again gave."""

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(result.verdict.value for _, result in self.results.values())
        return {verdict.value: found[verdict.value] for verdict in Verdict}

    @property
    def ok(self) -> bool:
        return not any(result.verdict in FAILED for _, result in self.results.values())

    def plain(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "since": self.since,
            "of": self.of,
            "sample": len(self.results),
            "counts": self.counts,
            "ok": self.ok,
            "inferences": [
                {"inference": ref, "seq": seq, **result.plain()} for ref, (seq, result) in self.results.items()
            ],
        }


def drawn(store: Store, count: int, seed: str, since: str | None = None) -> tuple[list[str], int]:
    """(ids of the sample in the order of the log, how many there were to draw from)."""
    rows = store.reads.query("SELECT ref, id FROM inference WHERE at >= ?", (since or "",))
    chosen = heapq.nsmallest(count, rows, key=lambda row: hashlib.sha256(f"{seed}:{row[0]}".encode()).digest())
    return [row[0] for row in sorted(chosen, key=lambda row: int(row[1]))], len(rows)


def audit_sample(
    store: Store,
    registry: Registry,
    checkpoints: Checkpoints,
    count: int,
    seed: str,
    since: str | None,
    actor: str,
) -> Sampled:
    """Draw, look, and put on record that somebody looked and what came of it."""
    refs, of = drawn(store, count, seed, since)
    found = Sampled(seed, since, of, {ref: _looked_at(store, registry, checkpoints, ref) for ref in refs})
    counts = {verdict: number for verdict, number in found.counts.items() if number}
    detail = {"seed": seed, "sample": len(refs), "of": of, **({"since": since} if since else {}), "found": counts}
    store.writer.submit(lambda tx: tx.entry("audit", actor, detail)).result()
    return found


def _looked_at(store: Store, registry: Registry, checkpoints: Checkpoints, ref: str) -> tuple[int, Reproduction]:
    seq, judged, snapshot = store.reads.query(_COMMITTED, (ref,))[0]
    wrong = not_on_record(store, checkpoints, int(seq), {"judged": bytes(judged), "snapshot": bytes(snapshot)}, ref)
    return int(seq), Reproduction(Verdict.CANNOT, f"cannot: {wrong}") if wrong else attempt(store, registry, ref)


def not_on_record(
    store: Store, checkpoints: Checkpoints, seq: int, commitments: dict[str, bytes], ref: str
) -> str | None:
    """Why the entry of an inference does not vouch for it; None: it does, and stands under the newest checkpoint, if
    that covers it."""
    entry = store.reads.entry(seq)
    if entry is None:
        return "its entry is not in the log"
    detail = orjson.loads(entry.body)["detail"]
    if detail.get("inference") != ref or any(detail.get(name) != each.hex() for name, each in commitments.items()):
        return "its entry is about something else"
    signed = checkpoints.last()
    if signed is None or signed.checkpoint.size < seq:
        return None
    head = signed.checkpoint
    try:
        verify_inclusion(
            entry.leaf, seq - 1, head.size, head.root, inclusion(checkpoints.tiles.node, seq - 1, head.size)
        )
    except Wrong:
        return "its entry is not under the signed checkpoint"
    return None


def said(found: Sampled) -> str:
    """For a terminal."""
    told = {
        Verdict.EQUAL: "equal bit for bit",
        Verdict.WITHIN: "within epsilon",
        Verdict.FEATURES: "equal from their stored features (the encoder changed)",
        Verdict.ERASED: "erased",
        Verdict.DIFFERS: "DIFFER",
        Verdict.CANNOT: "CANNOT BE SCORED AGAIN",
    }
    counts = ", ".join(f"{found.counts[verdict]} {text}" for verdict, text in told.items() if found.counts[verdict])
    since = f" since {found.since}" if found.since else ""
    lines = [f"{len(found.results)} of {found.of} inferences{since}, seed {found.seed}: {counts or 'none'}"]
    others = ((ref, seq, each) for ref, (seq, each) in found.results.items() if not each.equal)
    return "\n".join([*lines, *(f"{ref} (entry {seq}): {each.why}" for ref, seq, each in others)])
