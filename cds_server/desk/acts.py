"""What people did with a card, and one more of it: the same ClinicianAction as CDS Hooks feedback, by another door."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cds_server.access.log import actor_of
from cds_server.actions import ACTION, Kept, record_actions
from cds_server.hooks.feedback import DOOR as HOOKS
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import NotFound
from models.nouns import ClinicianAction
from smart_app.cases import Acted, Done
from smart_app.desk import Viewer
from smart_app.overrides import Given
from smart_app.texts import t

_CARD = (
    "SELECT c.id, c.service, c.ehr, i.record_id FROM card c JOIN inference i ON i.id = c.inference_id WHERE c.uuid = ?"
)
_DONE = "SELECT ref, sealed, entry, door FROM action WHERE card_id = ? ORDER BY id"


def done_with(store: Store, uuid: str, records: Collection[int], viewer: Viewer) -> tuple[Done, ...]:
    """Oldest first. Errors: NotFound, where the card is not about one of these records."""
    card_id, _, ehr = _card(store, uuid, records)
    rows = store.reads.query(_DONE, (card_id,))
    return tuple(
        _done(store.reads.open_payload(ACTION, ref, cipher), seq, door, ehr, viewer) for ref, cipher, seq, door in rows
    )


async def record(
    store: Store, given: Given, at: str, records: Collection[int], viewer: Viewer
) -> tuple[Acted, str, ClinicianAction]:
    """Put it on record; gives what became of it, the card's service and the action. Errors: NotFound."""
    card_id, service, ehr = _card(store, given.card, records)
    action = ClinicianAction(
        card=given.card,
        outcome=given.outcome,
        at=at,
        door=viewer.door.value,
        actor=viewer.subject,
        reason=given.reason,
        comment=given.comment,
        name=viewer.name,
        instead=given.instead,
    )
    said = {key: value for key, value in action.plain().items() if key != "at"}
    digest = store.vault.index("action-form", given.form, canonical(said))

    def act(tx: Tx) -> Kept:
        return record_actions(tx, service, ehr, actor_of(viewer), [action], [digest])[0]

    kept = await store.writer.write(act)
    rows = store.reads.query(
        "SELECT ref, sealed FROM action WHERE card_id = ? AND entry > ? AND entry < ?",
        (card_id, given.seen, kept.seq),
    )
    said_by = (store.reads.open_payload(ACTION, ref, cipher).get("actor") for ref, cipher in rows)
    others = sum(who != viewer.subject for who in said_by)
    return Acted(kept.seq, kept.fresh, others), service, action


def _card(store: Store, uuid: str, records: Collection[int]) -> tuple[int, str, str]:
    row = store.reads.one(_CARD, (uuid,))
    if row is None or row[3] not in records:
        raise NotFound("this card is not one of this patient")
    return int(row[0]), str(row[1]), str(row[2])


def _done(said: Mapping[str, Any], seq: int, door: str, ehr: str, viewer: Viewer) -> Done:
    reason = said.get("reason")
    who = said.get("name") or said.get("actor")
    return Done(
        outcome=said["outcome"],
        at=said["at"],
        by=who or (t("act.through", ehr=ehr) if door == HOOKS else None),
        own=said.get("actor") == viewer.subject and said.get("actor") is not None,
        door=door,
        seq=int(seq),
        reason=(reason.get("display") or reason["code"]) if reason else None,
        comment=said.get("comment"),
        instead=said.get("instead"),
    )
