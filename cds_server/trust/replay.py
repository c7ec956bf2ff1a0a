"""A token is good for one call (CDS Hooks 2.0.1: `jti` guards against replay), remembered in the store for all workers.

The memory is written in the first act of the call that the token came with, so it costs no transaction of its own; two
workers that are given the same token at once meet at the one write lock, and the second is refused. What refuses a
call as a replay rolls its act back: nothing of it is landed.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from cds_server.store.writer import Tx
from models.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class TokenUse:
    """A token that was checked, and the one request that it came with."""

    digest: bytes = field(repr=False)
    """Keyed digest of issuer and jti."""
    until: int
    """Seconds since 1970 from which it would be refused as expired."""
    call: bytes = field(default_factory=lambda: os.urandom(8), repr=False)


def spend(tx: Tx, use: TokenUse | None) -> None:
    """Remember in this act that the token was used. Errors: Unauthenticated, where another request used it before."""
    if use is None:
        return
    new = tx.execute(
        "INSERT INTO token_seen (digest, until, call) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (use.digest, use.until, use.call),
    )
    if new != 1:
        ((first,),) = tx.read("SELECT call FROM token_seen WHERE digest = ?", (use.digest,))
        if bytes(first) != use.call:
            raise Unauthenticated(cause="the token was used before")
    elif use.call[0] == 0:  # one call in 256 sweeps what 256 calls left
        tx.execute("DELETE FROM token_seen WHERE until < ?", (int(time.time()),))
