"""The verb `land`: what arrived becomes durable, byte for byte, before anybody tries to understand it.

One delivery is one Landing row, its parts sealed one by one, and one ledger entry. `commit` returning means durable;
raising means refused, and nothing of it is visible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from adapters.source import Arrival, Receipt
from cds_server.store.entropy import new_key
from cds_server.store.pack import MANIFEST, PackWriter, part_ref
from cds_server.store.store import Store
from cds_server.store.vault import Vault
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.nouns import JSON, LandingMeta


class StoreIntake:
    """The Intake port of the adapters, on this instance's store."""

    def __init__(
        self, store: Store, actor: str, *, appended: bool = False, alone: Callable[[], bool] | None = None
    ) -> None:
        """`appended`: of many deliveries of some 100 kB, whose sealed bytes share files (`store.segments`).

        `alone`: whether whoever delivers is the only one that the event loop serves just now. Of such a one, who waits
        for the answer anyway, the act is done on the loop's own thread.
        """
        self._store = store
        self._actor = actor
        self._appended = appended
        self._alone = alone
        if appended:
            store.segments.make_ready()

    def stage(self, meta: LandingMeta) -> StagedLanding:
        return StagedLanding(self._store, self._actor, meta, appended=self._appended, alone=self._alone)


class StagedLanding:
    """One delivery on its way in; see `adapters.source.Staged` for the contract."""

    def __init__(
        self,
        store: Store,
        actor: str,
        meta: LandingMeta,
        *,
        appended: bool = False,
        alone: Callable[[], bool] | None = None,
    ) -> None:
        self._store = store
        self._actor = actor
        self._meta = meta
        self._in_thread = appended
        self._alone = alone
        self._pack = store.pack_writer(manifest=bool(meta.manifest), appended=appended)

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
        appended = None
        if self._pack.in_memory:  # nothing to wait for, and a thread costs more than it all
            inline, file = self._pack.settle(blobs)
        elif appended := self._pack.append():
            inline, file = None, str(appended.place)
        else:
            inline, file = await asyncio.to_thread(self._pack.settle, blobs)

        # what needs no lock is done before anybody has it, and the keys are on disk by then
        vault, pack, keys = self._store.vault, self._pack, dict(self._pack.keys)
        sealed = None
        if meta.manifest:
            ref = part_ref(pack.landing, MANIFEST)
            if ref not in pack.ready:
                keys[ref] = new_key()
            if beside is None:  # else it may say more
                sealed = _sealed(vault, pack.landing, meta.manifest, {}, {**pack.ready, **keys})
        content = pack.content
        key = dedup_key if dedup_key is not None else content
        dedup = vault.index("landing", meta.namespace, key)
        delivered = Delivered(pack, inline, file, {**pack.ready, **keys}, sealed, content, dedup)

        def act(tx: Tx) -> Receipt:
            return land(tx, meta, delivered, self._actor, key, other, beside)

        if self._in_thread:
            before = appended.sync if appended is not None else None
            writer = self._store.writer
            queue = writer.at_once if self._alone is not None and self._alone() else writer.submit
            done = queue(act, keys=keys, before=before)
            receipt = done.result() if done.done() else await asyncio.wrap_future(done)
        else:
            receipt = await self._store.writer.write(act, keys=keys)
        if receipt.arrival is not Arrival.STORED:
            pack.forget_keys(keys)
            pack.withdraw(blobs)
        return receipt

    async def abandon(self) -> None:
        self._pack.abandon()


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery, sealed, with all that its row needs and that could be known before the act."""

    pack: PackWriter
    inline: bytes | None
    file: str | None
    keys: Mapping[bytes, bytes]
    """On disk before the act."""
    sealed: bytes | None
    """Its manifest, unless the act may add to it."""
    content: bytes
    dedup: bytes


def land(
    tx: Tx,
    meta: LandingMeta,
    delivered: Delivered,
    actor: str,
    key: bytes,
    other: bytes | None = None,
    beside: JSON | None = None,
) -> Receipt:
    """Write one landing and its entry, unless its key was used before.

    `beside` given: other bytes of that key are a landing, too, whose key is made of it and of their digest.
    """
    pack, content, dedup = delivered.pack, delivered.content, delivered.dedup
    known = tx.read("SELECT ref, content, parts, id FROM landing WHERE dedup = ?", (dedup,))
    reset = known[0][0] if known and other is not None and bytes(known[0][1]) != content else None
    if reset is not None and other is not None:
        dedup = tx.vault.index("landing", meta.namespace, other)
        known = tx.read("SELECT ref, content, parts, id FROM landing WHERE dedup = ?", (dedup,))
    first = known[0][0] if known and beside is not None and bytes(known[0][1]) != content else None
    if first is not None and beside is not None:
        meta = replace(meta, manifest={**meta.manifest, **beside})
        dedup = tx.vault.index("landing", meta.namespace, key + content)
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
    sealed = delivered.sealed
    if sealed is None and meta.manifest:
        sealed = _sealed(tx.vault, pack.landing, meta.manifest, tx.fresh_keys, delivered.keys)
    landing_id = _add(tx, meta, pack, delivered.inline, delivered.file, content, dedup, sealed, None)
    said = {"landing": pack.landing, "source": meta.source, "namespace": meta.namespace, "parts": pack.parts}
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
    return Receipt(Arrival.STORED, pack.landing, pack.parts, first or reset)


def _tell_reset(tx: Tx, landing_id: int, source: str) -> None:
    """A Flag, one at a time of each source: a sender that begins its numbers anew does it a thousand times."""
    detail = f"{source} gave a message the number of an earlier one with other bytes; both are kept"
    if not tx.read(
        "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE f.reason = 'number-used-again' AND f.detail = ? AND c.id IS NULL LIMIT 1",
        (detail,),
    ):
        tx.add("flag", kind="flag", reason="number-used-again", landing_id=landing_id, detail=detail, at=tx.now)


def _sealed(
    vault: Vault, landing: str, manifest: JSON, fresh: dict[bytes, bytes], keys: Mapping[bytes, bytes]
) -> bytes:
    return vault.seal(part_ref(landing, MANIFEST), canonical(dict(manifest)), fresh, keys).cipher


def add_landing(
    tx: Tx,
    meta: LandingMeta,
    pack: PackWriter,
    inline: bytes | None,
    file: str | None,
    dedup: bytes,
    record_id: int | None = None,
) -> int:
    """The Landing row of what comes without a manifest; gives its id. `record_id`: whom a hook call is about.

    Give the keys of the pack to the writer beside the act (`Writer.write`).
    """
    return _add(tx, meta, pack, inline, file, pack.content, dedup, None, record_id)


def _add(
    tx: Tx,
    meta: LandingMeta,
    pack: PackWriter,
    inline: bytes | None,
    file: str | None,
    content: bytes,
    dedup: bytes,
    sealed: bytes | None,
    record_id: int | None,
) -> int:
    return tx.add(
        "landing",
        ref=pack.landing,
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
        manifest=sealed,
        record_id=record_id,
    )
