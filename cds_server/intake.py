"""The verb `land`: what arrived becomes durable, byte for byte, before anybody tries to understand it.

One delivery is one Landing row, its parts sealed one by one, and one ledger entry. `commit` returning means durable;
raising means refused, and nothing of it is visible.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from adapters.source import Arrival, Receipt
from cds_server.store.entropy import new_ref
from cds_server.store.pack import MANIFEST, PackWriter, part_ref
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.nouns import JSON, LandingMeta


class StoreIntake:
    """The Intake port of the adapters, on this instance's store."""

    def __init__(self, store: Store, actor: str) -> None:
        self._store = store
        self._actor = actor

    def stage(self, meta: LandingMeta) -> StagedLanding:
        return StagedLanding(self._store, self._actor, meta)


class StagedLanding:
    """One delivery on its way in; see `adapters.source.Staged` for the contract."""

    def __init__(self, store: Store, actor: str, meta: LandingMeta) -> None:
        self._store = store
        self._actor = actor
        self._meta = meta
        self._ref = new_ref()
        self._pack = store.pack_writer(self._ref)

    async def write(self, chunk: bytes) -> None:
        self._pack.write(chunk)

    async def end_part(self) -> None:
        self._pack.end_part()

    async def commit(
        self,
        dedup_key: bytes | None = None,
        *,
        learnt: JSON | None = None,
        other: bytes | None = None,
        beside: JSON | None = None,
    ) -> Receipt:
        self._pack.end_part()
        meta = self._meta if learnt is None else replace(self._meta, manifest={**self._meta.manifest, **learnt})
        blobs = self._store.data_dir / "blobs"
        if self._pack.in_memory:  # nothing to wait for, and a thread costs more than it all
            inline, file = self._pack.settle(blobs)
        else:
            inline, file = await asyncio.to_thread(self._pack.settle, blobs)

        def act(tx: Tx) -> Receipt:
            return land(tx, meta, self._ref, self._pack, inline, file, self._actor, dedup_key, other, beside)

        receipt = await self._store.writer.write(act)
        if receipt.arrival is not Arrival.STORED and file is not None:
            (self._store.data_dir / "blobs" / file).unlink(missing_ok=True)
        return receipt

    async def abandon(self) -> None:
        self._pack.abandon()


def land(
    tx: Tx,
    meta: LandingMeta,
    ref: str,
    pack: PackWriter,
    inline: bytes | None,
    file: str | None,
    actor: str,
    dedup_key: bytes | None,
    other: bytes | None = None,
    beside: JSON | None = None,
) -> Receipt:
    """Write one landing and its entry, unless its key was used before.

    `beside` given: other bytes of that key are a landing, too, whose key is made of it and of their digest.
    """
    content = pack.content
    dedup = tx.vault.index("landing", meta.namespace, dedup_key if dedup_key is not None else content)
    known = tx.read("SELECT ref, content, parts, id FROM landing WHERE dedup = ?", (dedup,))
    reset = known[0][0] if known and other is not None and bytes(known[0][1]) != content else None
    if reset is not None and other is not None:
        dedup = tx.vault.index("landing", meta.namespace, other)
        known = tx.read("SELECT ref, content, parts, id FROM landing WHERE dedup = ?", (dedup,))
    first = known[0][0] if known and beside is not None and bytes(known[0][1]) != content else None
    if first is not None and beside is not None:
        meta = replace(meta, manifest={**meta.manifest, **beside})
        dedup = tx.vault.index("landing", meta.namespace, (dedup_key or b"") + content)
        known = tx.read("SELECT ref, content, parts, id FROM landing WHERE dedup = ?", (dedup,))
    if known:
        same = bytes(known[0][1]) == content
        if not same:
            tx.add(
                "flag",
                kind="flag",
                reason="conflict",
                landing_id=known[0][3],
                at=tx.now,
                detail="the sender's key of this landing came again with other bytes; the second delivery was refused",
            )
            tx.entry("conflict", actor, {"landing": known[0][0]})
        return Receipt(Arrival.DUPLICATE if same else Arrival.CONFLICT, known[0][0], known[0][2])
    landing_id = add_landing(tx, meta, ref, pack, inline, file, content, dedup)
    said = {"landing": ref, "source": meta.source, "namespace": meta.namespace, "parts": pack.parts}
    if first is not None:
        tx.add(
            "flag",
            kind="flag",
            reason="conflict",
            landing_id=landing_id,
            at=tx.now,
            detail="the sender's key of an earlier landing came again with other bytes; both are kept",
        )
        said["beside"] = first
    if reset is not None:
        _tell_reset(tx, landing_id, meta.source)
        said["beside"] = reset
    tx.entry("land", actor, said)
    return Receipt(Arrival.STORED, ref, pack.parts, first or reset)


def _tell_reset(tx: Tx, landing_id: int, source: str) -> None:
    """A Flag, one at a time of each source: a sender that begins its numbers anew does it a thousand times."""
    detail = f"{source} gave a message the number of an earlier one with other bytes; both are kept"
    if not tx.read(
        "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE f.reason = 'number-used-again' AND f.detail = ? AND c.id IS NULL LIMIT 1",
        (detail,),
    ):
        tx.add("flag", kind="flag", reason="number-used-again", landing_id=landing_id, detail=detail, at=tx.now)


def add_landing(
    tx: Tx,
    meta: LandingMeta,
    ref: str,
    pack: PackWriter,
    inline: bytes | None,
    file: str | None,
    content: bytes,
    dedup: bytes,
    record_id: int | None = None,
) -> int:
    """The Landing row, its keys and its sealed manifest; gives the row's id. `record_id`: whom a hook call is about."""
    tx.fresh_keys.update(pack.keys)
    manifest = None
    if meta.manifest:
        manifest = tx.vault.seal(part_ref(ref, MANIFEST), canonical(dict(meta.manifest)), tx.fresh_keys).cipher
    return tx.add(
        "landing",
        ref=ref,
        source=meta.source,
        namespace=meta.namespace,
        media_type=meta.media_type,
        received_at=meta.received_at,
        dedup=dedup,
        content=content,
        parts=pack.parts,
        size=pack.size,
        pack=inline,
        pack_file=file,
        pack_digest=pack.digest,
        manifest=manifest,
        record_id=record_id,
    )
