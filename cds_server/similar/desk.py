"""The port of the page over the record: implements `smart_app.similar.SimilarDesk`.

The access entry comes first. Then everybody in the pool is measured, and the record is asked about each neighbour, as
it is now: erased, opted out (of anything), withheld by a label, of a namespace that this viewer does not see, test data
beside a patient who is none: not counted. Of several records of one person the one with the newest inference counts.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.readers.facts import DECEASED
from cds_server.access.log import Access, Look
from cds_server.access.roles import Act
from cds_server.decisions import Decisions
from cds_server.desk import shown, titles
from cds_server.desk.judged import Judged, Then
from cds_server.desk.whose import Whose
from cds_server.registry import Registry
from cds_server.reproduce import load_id
from cds_server.settings import Settings
from cds_server.similar.gathering import Gathering
from cds_server.similar.groups import STAGE, SUBTYPE, groups_of
from cds_server.similar.pool import Near, Pool
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models.nouns import Coding, Fact, FeatureVector
from smart_app.desk import Case, Viewer
from smart_app.similar import FEWEST, Asked, Found, Overlap, Share, SimilarView, may_be_told
from smart_app.texts import t

SECONDS = 0.3
"""That a page waits for inferences that were not read yet; the rest is read behind it."""
STATUS = Coding("http://loinc.org", "97509-4")
"""Cancer disease progression (mCODE, cancer disease status)."""
WORSE = ("http://snomed.info/sct", "271299001")
"""Patient's condition worsened."""
_PATIENT = (
    "SELECT r.test FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
    "WHERE r.record_id = ? AND r.type = 'Patient' AND c.id IS NULL"
)


class Similar:
    def __init__(
        self, store: Store, settings: Settings, registry: Registry, decisions: Decisions, access: Access
    ) -> None:
        self._store = store
        self._decisions = decisions
        self._access = access
        self._judged = Judged(registry)
        self._whose = Whose(store, settings)
        self.gathering = Gathering(store)

    async def similar(self, case: Case, asked: Asked) -> SimilarView:
        filters = int(asked.subtype) + int(asked.stage)
        seen = await self._access.look(
            Look(case.viewer, Act.SIMILAR, case.record, detail={"nearest": asked.many, "filters": filters})
        )
        record = self._whose.record(case.record)
        await self._decisions.catch_up(record)
        return await asyncio.to_thread(self._similar, case, record, seen.records, asked)

    def _similar(self, case: Case, record: RecordRow, records: Sequence[RecordRow], asked: Asked) -> SimilarView:
        store, ids = self._store, [each.id for each in records]
        banner = self._whose.banner_of(record)
        rows = shown.rows_of(store, ids)
        row = (
            shown.row_of(store, case.inference, ids)
            if case.inference
            else next((each for each in rows if not each.hypothetical), None)
        )
        if row is None:
            return SimilarView(banner)
        if not self.gathering.catch_up(SECONDS):
            self.gathering.begin()
        then = self._judged.of(load_id(store, row.id))
        groups = self._groups(case.viewer, then)
        wanted = {name: groups[name] for name in (SUBTYPE, STAGE) if name in groups and getattr(asked, name)}
        pool, own = self.gathering.pool(row.name), then.judgement.vectors
        judge = _Judge(store, self._access, case.viewer, pool, frozenset(ids))
        near, compared = pool.nearest(own, asked.many, wanted, judge.takes)
        compared -= sum(pool.newest(each) is not None for each in ids)  # the patient, who is no neighbour
        return SimilarView(
            banner=banner,
            model=str(then.judgement.model.manifest.get("title") or row.name),
            at=then.recorded.at,
            own=then.judgement.score.probability,
            subtype=t(f"similar.subtype_{groups[SUBTYPE]}") if SUBTYPE in groups else None,
            stage=groups.get(STAGE),
            left=self.gathering.left(),
            silent=all(vector.absent is not None for vector in own),
            found=self._found(near, compared, own, judge) if min(len(near), compared) >= FEWEST else None,
        )

    def _groups(self, viewer: Viewer, then: Then) -> Mapping[str, str]:
        """Of the patient; none where a fact that the inference read is withheld from this viewer."""
        facts = then.judgement.snapshot.facts
        visible, _ = self._access.allowed.sees(viewer, facts)
        return groups_of(then.judgement.vectors) if len(visible) == len(facts) else {}

    def _found(self, near: Sequence[Near], compared: int, own: Sequence[FeatureVector], judge: _Judge) -> Found:
        distances = [each.distance for each in near]
        estimates = [each.probability for each in near if each.probability is not None]
        return Found(
            many=len(near),
            compared=compared,
            distances=_quarters(distances),
            overlaps=tuple(_overlap(vector, near) for vector in own if vector.absent is None and vector.features),
            outcomes=tuple(self._outcomes([judge.persons[each.record] for each in near])),
            quarters=_quarters(estimates) if len(estimates) >= FEWEST else None,
        )

    def _outcomes(self, persons: Sequence[Sequence[int]]) -> list[Share]:
        """Of those for whom it is on record, whatever it says; whoever has no word on it is not counted."""
        codes = frozenset({DECEASED.token, STATUS.token})
        dead, alive, worse, other = 0, 0, 0, 0
        for person in persons:
            facts = self._store.reads.facts(person, codes)
            vital = [fact.text for fact in facts if fact.code.token == DECEASED.token]
            status = [fact for fact in facts if fact.code.token == STATUS.token and fact.coded]
            dead += "true" in vital
            alive += bool(vital) and "true" not in vital
            if status:
                last = max(status, key=lambda fact: fact.effective or "")
                worse += _is_worse(last)
                other += not _is_worse(last)
        told = []
        if dead + alive:
            told.append(Share.counted(t("similar.died"), dead, dead + alive))
        if worse + other:
            told.append(Share.counted(t("similar.worse"), worse, worse + other))
        return told


@dataclass
class _Judge:
    """Who may be counted for one viewer and one patient, as the record has it now."""

    store: Store
    access: Access
    viewer: Viewer
    pool: Pool
    own: frozenset[int]

    def __post_init__(self) -> None:
        self.persons: dict[int, tuple[int, ...]] = {}
        """Record -> the records of its person that this viewer sees."""
        self._known: dict[int, bool] = {}
        self._withheld = self.access.allowed.withheld_labels(self.viewer)
        self._tests = self._test(sorted(self.own))

    def takes(self, near: Near) -> bool:
        if near.record not in self._known:
            self._known[near.record] = self._takes(near)
        return self._known[near.record]

    def _takes(self, near: Near) -> bool:
        allowed = self.access.allowed
        person = self.store.reads.person(near.record)
        if not self.own.isdisjoint(person):
            return False
        visible = [each.id for each in allowed.visible(self.viewer, self.store.reads.records(person))]
        if near.record not in visible or any((self.pool.newest(each) or 0) > near.inference for each in visible):
            return False
        self.persons[near.record] = tuple(visible)
        return (
            self._test(visible) == self._tests
            and not allowed.opted_out(person)
            and allowed.labels_of(person).isdisjoint(self._withheld)
        )

    def _test(self, records: Sequence[int]) -> bool:
        rows: list[Any] = [row for each in records for row in self.store.reads.query(_PATIENT, (each,))]
        return any(row[0] for row in rows)


def _overlap(vector: FeatureVector, near: Sequence[Near]) -> Overlap:
    counts = [each.shared.get(vector.modality, 0) for each in near]
    having = [count for count in counts if count]
    return Overlap(
        titles.modality(vector.modality),
        sum(not feature.missing for feature in vector.features),
        len(having) if may_be_told(len(having), len(near)) else None,
        round(statistics.median(having)) if having else 0,
    )


def _quarters(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _is_worse(fact: Fact) -> bool:
    return any((each.system, each.code) == WORSE for each in fact.coded)
