"""A part that could not be read, corrected by a person: the corrected bytes are a landing of their own that names the
old one. Nothing is overwritten; the old part's flags are resolved by the new landing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from cds_server.backlog import digest_backlog
from cds_server.intake import StoreIntake
from cds_server.reading import SourceRules, read_part
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from cds_server.tally import Tally
from models.errors import Refused, Unreadable
from models.nouns import LandingMeta, Part, instant

_FRAME = (b"\x0b", b"\x1c\r")


@dataclass(frozen=True, slots=True)
class Fixed:
    landing: str
    """Reference of the corrected landing."""
    resolved: int
    """Flags of the old part that are closed by it."""
    tally: Tally


def fix(
    store: Store,
    joining: frozenset[str],
    actor: str,
    landing: LandingRow,
    part: int,
    body: bytes,
    rules: SourceRules,
) -> Fixed:
    """Land `body` in the place of a part of `landing`, and digest it. Done again with the same bytes, it goes on where
    it was interrupted.

    Raises: Refused (the bytes are those that could not be read), Unreadable (these cannot be read either, and where).
    """
    if landing.media_type.startswith("x-application/hl7-v2"):
        body = body.strip(b"\r\n").removeprefix(_FRAME[0]).removesuffix(_FRAME[1].rstrip()).rstrip(b"\r\n") + b"\r"
    if body.rstrip() == store.part(landing, part).rstrip():
        raise Refused("these are the bytes that could not be read")
    received = instant(datetime.now(UTC))
    tried = read_part(
        Part("0" * 32, 0, landing.namespace, landing.media_type, received, body), rules.get(landing.source)
    )
    if tried.problem is not None:
        raise Unreadable(f"what was corrected cannot be read either: {tried.problem}", where=tried.pointer)
    ref = asyncio.run(_land(store, actor, landing, part, body, received))
    new = store.reads.landing_by_ref(ref)
    tally = digest_backlog(store, joining, actor, up_to=new.id if new is not None else None, rules=rules)
    return Fixed(ref, store.writer.submit(lambda tx: _resolve(tx, actor, landing, part, ref)).result(), tally)


async def _land(store: Store, actor: str, landing: LandingRow, part: int, body: bytes, received: str) -> str:
    meta = LandingMeta(
        landing.source,
        landing.namespace,
        landing.media_type,
        received,
        {"corrects": {"landing": landing.ref, "part": part}},
    )
    staged = StoreIntake(store, actor).stage(meta)
    try:
        await staged.write(body)
        receipt = await staged.commit(b"\x1f".join((b"fix", landing.ref.encode(), str(part).encode(), body)))
    except BaseException:
        await staged.abandon()
        raise
    return receipt.landing


def _resolve(tx: Tx, actor: str, landing: LandingRow, part: int, ref: str) -> int:
    rows = tx.read(
        "SELECT f.id FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE f.kind IN ('quarantine', 'dead-letter') AND f.landing_id = ? AND f.part = ? AND c.id IS NULL",
        (landing.id, part),
    )
    for (flag_id,) in rows:
        tx.add("flag_closing", flag_id=flag_id, resolution=f"corrected by landing {ref}", at=tx.now)
    tx.entry("fix", actor, {"landing": landing.ref, "part": part, "corrected": ref, "flags": len(rows)})
    return len(rows)
