"""What the sandbox remembers of a person's work: each firing of a hook, its cards, and what was done with them."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cds_server.hooks.reasons import CLINICAL
from cds_server.hooks.routes import INFERENCES
from cds_server.sandbox import render
from cds_server.sandbox.ehr import Called, Case, Ehr, Entry
from cds_server.sandbox.users import User
from models.errors import NotFound, PeerFailed
from models.nouns import JSON, instant

MAX_VISITS = 200


@dataclass(slots=True)
class Visit:
    """One firing of a hook: what came back, and what the clinician did with it."""

    id: str
    case: Case
    user: User
    hook: str
    request: JSON
    called: list[Called]
    entries: list[Entry] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    """Card uuid -> what was done with it, in words."""
    problem: str = ""

    def card(self, uuid_: str) -> tuple[Called, render.Shown]:
        """A card that was shown here, and the answer it came in. Errors: NotFound."""
        for called in self.called:
            for card in called.cards:
                if card.uuid == uuid_:
                    return called, card
        raise NotFound("this card was not shown here")


class Visits:
    """The last few, of everybody who uses this sandbox."""

    def __init__(self, ehr: Ehr) -> None:
        self._ehr = ehr
        self._held: OrderedDict[str, Visit] = OrderedDict()

    def get(self, id_: str) -> Visit:
        """Errors: NotFound."""
        if id_ not in self._held:
            raise NotFound("this visit is over; open the chart again")
        return self._held[id_]

    async def fire(self, case: Case, user: User, request: JSON) -> Visit:
        """Fire the request's hook, as this user."""
        asked = {**request, "context": {**request["context"], "userId": user.resource}}
        visit = Visit(uuid.uuid4().hex, case, user, asked["hook"], asked, [])
        try:
            visit.called = await self._ehr.fire(visit.hook, asked)
            for called in visit.called:
                items = called.answer.get("extension", {}).get(INFERENCES, {}).get("items", [])
                await self._look_up(visit, [int(item["seq"]) for item in items])
        except PeerFailed as error:
            visit.problem = str(error)
        self._held[visit.id] = visit
        while len(self._held) > MAX_VISITS:
            self._held.popitem(last=False)
        return visit

    async def answer(self, visit: Visit, form: Mapping[str, str]) -> None:
        """Tell the CDS server what was done with a card. Errors: NotFound."""
        called, _ = visit.card(form.get("card", ""))
        item, told = feedback(form, called)
        try:
            numbers = await self._ehr.feedback(called.service, item)
            visit.done[form["card"]] = told
            visit.problem = ""
            await self._look_up(visit, numbers)
        except PeerFailed as error:
            visit.problem = str(error)

    async def _look_up(self, visit: Visit, numbers: list[int]) -> None:
        known = {entry.seq for entry in visit.entries}
        found = [await self._ehr.entry(seq) for seq in numbers if seq not in known]
        visit.entries += [entry for entry in found if entry is not None]


def feedback(form: Mapping[str, str], called: Called) -> tuple[JSON, str]:
    """A feedback item as CDS Hooks 2.0.1 has it, and the same in words for the page."""
    card = next(each for each in called.cards if each.uuid == form["card"])
    item: dict[str, Any] = {"card": card.uuid, "outcomeTimestamp": instant(datetime.now(UTC))}
    if form.get("do") != "override":
        chosen = [each for each in card.suggestions if each.get("uuid") == form.get("suggestion")]
        item |= {"outcome": "accepted", "acceptedSuggestions": [{"id": each["uuid"]} for each in chosen]}
        return item, "Accepted" + (f": {chosen[0].get('label', '')}" if chosen else "")
    offered = card.reasons or tuple(reason.plain() for reason in CLINICAL)
    reason = next((each for each in offered if each["code"] == form.get("reason")), None)
    comment = form.get("comment", "").strip()
    item["outcome"] = "overridden"
    given: dict[str, Any] = {}
    if reason is not None:
        given["reason"] = {"code": reason["code"], "system": reason["system"]}
    if comment:
        given["userComment"] = comment
    if given:
        item["overrideReason"] = given
    words = "; ".join(part for part in (reason["display"] if reason else "", comment) if part)
    return item, "Overridden" + (f": {words}" if words else "")
