"""What an answer shows, and how it is put on record beside its inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cds_server.hooks.cards import card_bytes
from cds_server.hygiene import Weighed
from cds_server.store.ready import Names
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.nouns import JSON, Judgement

CARD, SYSTEM_ACTION = b"c", b"y"
"""Kinds of sealed payloads: the first letter of a key reference."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What an answer shows, as it goes out, and what alert hygiene made of its cards."""

    cards: Sequence[JSON]
    system_actions: Sequence[JSON]
    weighed: Sequence[Weighed] = ()

    def weighed_by(self, weighed: Sequence[Weighed]) -> Shown:
        return replace(self, cards=[each.card for each in weighed if each.rule is None], weighed=weighed)

    @property
    def suppressed(self) -> tuple[str, ...]:
        return tuple(each.rule.value for each in self.weighed if each.rule is not None)

    def outcome(self, judgement: Judgement) -> str:
        """Of the call."""
        if self.suppressed and not self.cards:
            return "suppressed"
        return "abstained" if judgement.score.abstained is not None else "answered"


def add_shown(tx: Tx, service: str, namespace: str, inference_id: int, shown: Shown, names: Names) -> dict[str, Any]:
    """Seal each card and each system action; gives what the entry says of them."""
    cards = {}
    for card in shown.cards:
        sealed = tx.vault.seal(object_ref(CARD, card["uuid"]), card_bytes(card), tx.fresh_keys, names)
        tx.add(
            "card",
            uuid=card["uuid"],
            inference_id=inference_id,
            service=service,
            ehr=namespace,
            sealed=sealed.cipher,
            commitment=sealed.commitment,
        )
        cards[card["uuid"]] = sealed.commitment.hex()
    if not shown.system_actions:
        return {"cards": cards}
    actions = []
    for action in shown.system_actions:
        ref = names.ref(SYSTEM_ACTION)
        sealed = tx.vault.seal(object_ref(SYSTEM_ACTION, ref), canonical(action), tx.fresh_keys, names)
        tx.add(
            "system_action",
            ref=ref,
            inference_id=inference_id,
            service=service,
            ehr=namespace,
            sealed=sealed.cipher,
            commitment=sealed.commitment,
        )
        actions.append(sealed.commitment.hex())
    return {"cards": cards, "system_actions": actions}
