"""An answer with its proofs: every entry that it names (`seq`), and how that leads to the signed head."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cds_server.checkpoints import Checkpoints
from cds_server.ledger.tree import inclusion
from cds_server.proving import prove
from cds_server.store.store import Store
from models.errors import BadInput, Misconfigured

MOST = 500
"""Items of one page."""
PAGE = 50


def proven(store: Store, checkpoints: Checkpoints, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer with `checkpoint`, the signed note, and `proofs`: entry -> body, leaf, audit path.

    Body and hashes are base64. Whoever holds the log's key checks it alone: RFC 6962 leaf of the body, the path from it
    to the root of the checkpoint, its signature. An entry that came after the checkpoint has no path yet.
    """
    signed = checkpoints.last()
    size = signed.checkpoint.size if signed is not None else 0
    proofs = {}
    for seq in sorted(set(seqs(answer))):
        entry = store.reads.entry(seq)
        if entry is None:
            continue
        path = inclusion(checkpoints.tiles.node, seq - 1, size) if seq <= size else None
        proofs[str(seq)] = {
            "body": _text(entry.body),
            "leaf": entry.leaf.hex(),
            "inclusion": None if path is None else [_text(each) for each in path],
        }
    return {**answer, "checkpoint": signed.note.decode() if signed is not None else None, "proofs": proofs}


def seqs(found: Any) -> Iterator[int]:
    """Every entry that an answer names."""
    if isinstance(found, Mapping):
        for name, member in found.items():
            if name == "seq" and isinstance(member, int):
                yield member
            else:
                yield from seqs(member)
    elif isinstance(found, list | tuple):
        for member in found:
            yield from seqs(member)


def write_proofs(store: Store, checkpoints: Checkpoints, answer: Mapping[str, Any], to: Path) -> int:
    """A `.tlog-proof` for each entry that an answer names, for `verifier.py`; gives how many.

    Errors: Misconfigured (the folder is not empty), NotFound (an entry that no checkpoint covers yet), LedgerBroken.
    """
    if to.exists() and any(to.iterdir()):
        raise Misconfigured("the folder for proofs must be empty", where="--proofs")
    to.mkdir(parents=True, exist_ok=True)
    named = sorted(set(seqs(answer)))
    for seq in named:
        (to / f"{seq}.tlog-proof").write_bytes(prove(store, checkpoints, seq))
    return len(named)


def page(limit: int | None) -> int:
    """How many items a page has. Errors: BadInput (none, or too many)."""
    if limit is None:
        return PAGE
    if not 1 <= limit <= MOST:
        raise BadInput(f"a page has 1 to {MOST} items")
    return limit


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
