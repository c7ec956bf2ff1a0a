"""The verb `act`: what clinicians did with cards, with its entry.

One item is one ClinicianAction, tied to the inference of its card. Idempotent: the same item again, from the same EHR
at the same service, is the same action, whenever it comes. A card that this EHR was not shown by this service is kept
as unmatched and answered like any other: nobody learns which cards exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cds_server.store.entropy import new_ref
from cds_server.store.reads import marks
from cds_server.store.vault import Vault, object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.nouns import ClinicianAction

T = TypeVar("T")

ACTION = b"a"
"""Kind of a sealed payload: the first letter of its key reference."""
CODED, COMMENT = "coded", "comment"
"""Whether an override gave a reason from a list, or only words."""
_ASKED = 200
"""Values in one look-up."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one item."""

    seq: int
    """Of the entry that holds it."""
    fresh: bool
    """False: it was said before."""


def record_actions(
    tx: Tx, service: str, namespace: str, actor: str, actions: Sequence[ClinicianAction], digests: Sequence[bytes]
) -> list[Kept]:
    """Write what is new, in the order of the items, under one entry."""
    known = _known(tx, digests)
    cards = _cards(tx, service, namespace, actions)
    fresh: set[bytes] = set()
    first: list[bool] = []
    for action, digest in zip(actions, digests, strict=True):
        first.append(digest not in known and digest not in fresh)
        if first[-1]:
            fresh.add(digest)
            _add(tx, action, digest, cards.get(action.card))
    if fresh:
        seq = tx.entry("act", actor, {"service": service, "actions": len(fresh), "door": actions[0].door}).seq
        known |= dict.fromkeys(fresh, seq)
    return [Kept(known[digest], new) for digest, new in zip(digests, first, strict=True)]


def digests_of(vault: Vault, service: str, namespace: str, actions: Sequence[ClinicianAction]) -> list[bytes]:
    """What tells an item from another: everything that it says, and who said it where."""
    return [vault.index("action", namespace, service, canonical(action.plain())) for action in actions]


def _known(tx: Tx, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Digest -> entry of the items that are on record."""
    known: dict[bytes, int] = {}
    for some in _some(list(dict.fromkeys(digests))):
        rows = tx.read(f"SELECT dedup, entry FROM action WHERE dedup IN ({marks(some)})", tuple(some))
        known |= {bytes(dedup): int(entry) for dedup, entry in rows}
    return known


def _cards(tx: Tx, service: str, namespace: str, actions: Sequence[ClinicianAction]) -> dict[str, tuple[int, int]]:
    """uuid -> (card, its inference), of the cards that this service showed to this EHR."""
    found: dict[str, tuple[int, int]] = {}
    for some in _some(list(dict.fromkeys(action.card for action in actions))):
        rows = tx.read(
            f"SELECT uuid, id, inference_id FROM card WHERE uuid IN ({marks(some)}) AND service = ? AND ehr = ?",
            (*some, service, namespace),
        )
        found |= {uuid: (int(card), int(inference)) for uuid, card, inference in rows}
    return found


def _some(values: list[T]) -> list[list[T]]:
    return [values[start : start + _ASKED] for start in range(0, len(values), _ASKED)]


def _add(tx: Tx, action: ClinicianAction, digest: bytes, card: tuple[int, int] | None) -> None:
    ref = new_ref()
    sealed = tx.vault.seal(object_ref(ACTION, ref), canonical(action.plain()), tx.fresh_keys)
    card_id, inference_id = card or (None, None)
    tx.add(
        "action",
        ref=ref,
        card_id=card_id,
        inference_id=inference_id,
        outcome=action.outcome.value,
        reason=CODED if action.reason else COMMENT if action.comment else None,
        door=action.door,
        dedup=digest,
        sealed=sealed.cipher,
        commitment=sealed.commitment,
        at=action.at,
    )
    if card is None:
        tx.add(
            "flag",
            kind="unmatched",
            reason="feedback",
            at=tx.now,
            detail="feedback on a card that was not shown to this EHR",
        )
