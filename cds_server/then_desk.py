"""The port of the page "then and now" over the record: implements `smart_app.then.ThenDesk`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.routing import Route

from cds_server.access.log import Access, Look
from cds_server.access.roles import Act
from cds_server.desk.whose import Whose
from cds_server.reproduce import last_answer
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.time_machine import Comparison, Machinery, compare
from cds_server.time_machine import Stand as Stood
from cds_server.tracing import Difference as Found
from cds_server.tracing import value_of
from models.nouns import Fact
from smart_app.desk import Case
from smart_app.sessions import Sessions
from smart_app.then import NOW, SAID, THEN, Behind, Difference, Stand, ThenView
from smart_app.then_pages import ThenPages


class Then:
    def __init__(self, machinery: Machinery, settings: Settings, access: Access) -> None:
        self._with, self._access = machinery, access
        self._whose = Whose(machinery.store, settings)
        self._titles = {spec.id: spec.title for spec in machinery.registry.specs}

    async def then(self, case: Case, at: str | None) -> ThenView:
        await self._access.look(Look(case.viewer, Act.CASE, case.record, detail={"section": "then"}))
        record = self._whose.record(case.record)
        await self._with.decisions.catch_up(record)
        return await asyncio.to_thread(self._then, case, record, at)

    def _then(self, case: Case, record: RecordRow, at: str | None) -> ThenView:
        banner = self._whose.banner_of(record)
        person = self._with.store.reads.person(record.id)
        last = last_answer(self._with.store, person, tuple(self._titles))
        if last is None:
            return ThenView(banner)
        service, said_at = last
        found = compare(self._with, service, record, at or said_at)
        hidden = self._hidden(case, found)
        differing = (*found.until_then, *found.since_then)
        return ThenView(
            banner,
            self._titles[service],
            found.at,
            tuple(self._stands(found)),
            tuple(_difference(each, hidden) for each in found.until_then),
            tuple(_difference(each, hidden) for each in found.since_then),
            found.notes,
            sum(_withheld(each, hidden) for each in differing),
        )

    def _hidden(self, case: Case, found: Comparison) -> frozenset[str]:
        """Facts of any of the three that a label withholds from this viewer."""
        facts: dict[str, Fact] = {}
        for stand in filter(None, (found.said, found.then, found.now)):
            for side in stand.sides.values():
                facts |= {fact.id: fact for fact in side.snapshot.facts}
        visible, _ = self._access.sees(case.viewer, list(facts.values()))
        return frozenset(facts.keys() - {fact.id for fact in visible})

    def _stands(self, found: Comparison) -> Sequence[Stand]:
        return [
            _stand(which, each)
            for which, each in ((SAID, found.said), (THEN, found.then), (NOW, found.now))
            if each is not None
        ]


def _stand(which: str, of: Stood) -> Stand:
    done = tuple((str(each["outcome"]), str(each["at"])) for each in of.actions)
    return Stand(which, of.at, of.model, of.summary, of.inference, of.seq, done)


def _difference(of: Found, hidden: frozenset[str]) -> Difference:
    withheld = _withheld(of, hidden)
    facts = tuple(
        Behind(
            trace.cause.value,
            trace.fact.code.display or trace.fact.code.code,
            value_of(trace.fact),
            trace.fact.effective,
            trace.fact.known_from,
            trace.source,
            f"{trace.fact.source.landing[:8]}:{trace.fact.source.part}{trace.fact.source.pointer}",
        )
        for trace in of.traces
        if trace.fact.id not in hidden
    )
    before, after = (None, None) if withheld else (of.before, of.after)
    return Difference(of.title, of.model, before, after, tuple(each.value for each in of.causes), facts)


def _withheld(of: Found, hidden: frozenset[str]) -> bool:
    return any(trace.fact.id in hidden for trace in of.traces)


def then_routes(machinery: Machinery, settings: Settings, access: Access, sessions: Sessions) -> list[Route]:
    """To be matched before other pages of a case."""
    return ThenPages(sessions, Then(machinery, settings, access)).routes()
