"""What is over of launches and sessions: their rows go, and the keys of what they kept."""

from __future__ import annotations

from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx

LAUNCH, SESSION, TOKEN = b"l", b"e", b"o"
"""Kinds of sealed payloads: the first letter of a key reference."""


def launches_over(tx: Tx, now: int) -> list[bytes]:
    """Remove some of the launches that nobody finished; gives the references of their keys."""
    refs = [str(row[0]) for row in tx.read("SELECT ref FROM app_launch WHERE until <= ? LIMIT 100", (now,))]
    for ref in refs:
        tx.execute("DELETE FROM app_launch WHERE ref = ?", (ref,))
    return [object_ref(LAUNCH, ref) for ref in refs]


def sessions_over(tx: Tx, now: int) -> list[bytes]:
    """The same for sessions."""
    rows = tx.read("SELECT id FROM app_session WHERE until <= ? OR seen + idle <= ? LIMIT 50", (now, now))
    return [ref for row in rows for ref in ended(tx, row[0])]


def ended(tx: Tx, launch_id: str) -> list[bytes]:
    """Remove a session, if it is there; gives the references of its keys."""
    rows = tx.read("SELECT ref, token_ref FROM app_session WHERE id = ?", (launch_id,))
    if not rows or tx.execute("DELETE FROM app_session WHERE id = ?", (launch_id,)) != 1:
        return []
    ref, token_ref = rows[0]
    return [object_ref(SESSION, ref)] + ([object_ref(TOKEN, token_ref)] if token_ref is not None else [])


def sweep(store: Store, now: int) -> int:
    """All that is over at an instant (seconds since 1970): how many keys were destroyed. For a thread."""
    swept = 0
    while refs := store.writer.submit(lambda tx: launches_over(tx, now) + sessions_over(tx, now)).result():
        store.vault.keys.destroy(refs)
        swept += len(refs)
    return swept
