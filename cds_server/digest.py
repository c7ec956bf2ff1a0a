"""The verb `digest`: part -> statements (a reader, pure) -> resources and facts (the reducer, in arrival order).

The reducer asserts, supersedes and voids; it never changes a row. What cannot be read becomes a Flag of kind
`quarantine` that names its place; what belongs to nobody we know becomes one of kind `unmatched`. The part itself is
never lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.readers.subjects import identifiers_of
from cds_server import carried
from cds_server.identity import Identifier, join, join_by_feed, part_by_feed, withdraw
from cds_server.projected import Projected
from cds_server.reading import PartRead, Read
from cds_server.store.reads import marks
from cds_server.store.writer import Tx
from cds_server.tally import Tally as Tally
from cds_server.where import Where as Where
from cds_server.where import where_of as where_of
from models.canonical import spell
from models.errors import BadInput, Unreadable
from models.nouns import Statement, Verb

VALIDATOR = "fhir.resources R4B"


# ---- reducing: inside one act ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Open:
    """The open version of a resource."""

    id: int
    content: bytes
    record_id: int | None
    known_from: str
    updated: str | None = None
    subsetted: bool = False


@dataclass(slots=True)
class Reducer:
    """Applies the statements of some parts of one landing, in order, inside one act."""

    tx: Tx
    where: Where
    joining: frozenset[str]
    tally: Tally = field(default_factory=Tally)
    records: dict[bytes, tuple[int, str]] = field(default_factory=dict)
    versions: dict[bytes, Open | None] = field(default_factory=dict)
    locals: dict[tuple[str, str], bytes] = field(default_factory=dict)
    grouped: dict[tuple[int, str], set[bytes]] = field(default_factory=dict)
    """Part and group -> what the part asserted as its members."""
    unread: list[str] = field(default_factory=list)
    """Pointers of resources that a reader took but the projection refused."""

    @property
    def changed(self) -> bool:
        return bool(self.tally.asserted or self.tally.voided or self.tally.flagged)

    def run(self, parts: Sequence[PartRead]) -> Tally:
        self.look_up(parts)
        for part in parts:
            if part.problem is not None:
                self.flag(self.where.unread, "unreadable", part.ordinal, part.pointer, part.problem)
                self.tally.quarantined += 1
            for read in part.reads:
                self.apply(part.ordinal, read)
            if part.image is not None:
                self.index(part)
            asked = {read.statement.pointer: read.invalid for read in part.reads if read.invalid is not None}
            if asked:
                add_validation(self.tx, self.where.landing_id, part.ordinal, asked)
        return self.tally

    def index(self, part: PartRead) -> None:
        """An image object: a row of the index of studies, whose study is put together later (`imaging`)."""
        from cds_server.imaging.index import index_image  # loaded where images come

        index_image(self, part.ordinal, part.image)

    def look_up(self, parts: Sequence[PartRead]) -> None:
        """All records and open versions that these statements name, in two queries."""
        local = self.local
        resources: dict[bytes, None] = {}
        patients: dict[bytes, None] = {}
        for part in parts:
            for read in part.reads:
                if read.prepared is not None:
                    self.locals[read.statement.resource_type, read.statement.local_id] = read.prepared.local
                resources[local(read.statement.resource_type, read.statement.local_id)] = None
                if read.subject is not None and read.subject.local_id is not None:
                    patients[local("Patient", read.subject.local_id)] = None
            if part.image is not None and part.image.patient is not None:
                patients[local("Patient", part.image.patient)] = None
        for chunk in _chunks(list(patients)):
            for row_id, ref, digest in self.tx.read(
                "SELECT id, ref, local_digest FROM patient_record "
                f"WHERE namespace = ? AND local_digest IN ({marks(chunk)})",
                (self.where.namespace, *chunk),
            ):
                self.records[bytes(digest)] = (row_id, ref)
        for chunk in _chunks(list(resources)):
            for row_id, digest, content, record_id, known_from, updated, subsetted in self.tx.read(
                "SELECT r.id, r.local_digest, r.content, r.record_id, r.known_from, r.updated, r.subsetted "
                "FROM resource r "
                "LEFT JOIN resource_closing c ON c.resource_id = r.id "
                f"WHERE r.local_digest IN ({marks(chunk)}) AND c.id IS NULL",
                tuple(chunk),
            ):
                self.versions[bytes(digest)] = Open(
                    row_id, bytes(content), record_id, known_from, updated, bool(subsetted)
                )

    def local(self, resource_type: str, local_id: str) -> bytes:
        """Keyed digest of a local id in this landing's namespace."""
        known = self.locals.get((resource_type, local_id))
        if known is None:
            known = self.tx.vault.index.local(self.where.namespace, resource_type, local_id)
            self.locals[resource_type, local_id] = known
        return known

    def content(self, read: Read) -> bytes:
        """Keyed digest of what a resource says."""
        return self.tx.vault.index.content(read.content) if read.prepared is None else read.prepared.content

    def repeats(self, read: Read) -> bool:
        """Whether the open version of a resource says the same already."""
        known = self.versions.get(self.local(read.statement.resource_type, read.statement.local_id))
        return known is not None and known.content == self.content(read)

    def outranked(self, read: Read) -> bool:
        """Whether what is known of a resource stands against this: the same sender's later word, or its whole one.

        A whole version replaces a subset whatever their ages: the subset's age says nothing of what it left out.
        """
        known = self.versions.get(self.local(read.statement.resource_type, read.statement.local_id))
        if known is None or read.statement.verb is not Verb.ASSERT:
            return False
        if read.subsetted != known.subsetted:
            return read.subsetted
        return read.updated is not None and known.updated is not None and read.updated < known.updated

    def expect(self, read: Read) -> None:
        """Look ahead: go on as if this had been taken."""
        local = self.local(read.statement.resource_type, read.statement.local_id)
        content = self.content(read)
        self.versions[local] = Open(0, content, None, "", read.updated, read.subsetted)

    def void(self, resource_type: str, local: bytes, cause: str) -> None:
        """Close what is known of a resource, if it is open."""
        known = self.versions.get(local)
        if known is None:
            return
        if resource_type == "Patient" and known.record_id is not None:
            withdraw(self.tx, known.record_id, self._withdrawn(known.id, ()))
        self.close(known, cause)
        self.versions[local] = None
        self.tally.voided += 1

    def later(self, known: Open | None, read: Read) -> bool:
        """Whether what is known was said after this."""
        return known is not None and bool(read.updated and known.updated and read.updated < known.updated)

    def replace(self, part: int, read: Read) -> None:
        """Close what is open of a group and not stated any more."""
        group = read.statement.local_id
        stated = self.grouped.get((part, group), set())
        for local, member in carried.members(self.tx, self.local("group", group)):
            known = Open(*member)
            if local not in stated and not self.later(known, read):
                self.versions[local] = known
                self.void(read.statement.resource_type, local, "replaced")

    def apply(self, part: int, read: Read) -> None:
        statement = read.statement
        local = self.local(statement.resource_type, statement.local_id)
        known = self.versions.get(local)
        if statement.verb is Verb.VOID:
            if self.later(known, read):
                self.tally.outranked += 1
            else:
                self.void(statement.resource_type, local, "voided")
            return
        if statement.verb is Verb.REPLACE:
            self.replace(part, read)
            return
        if statement.group is not None:
            self.grouped.setdefault((part, statement.group), set()).add(local)
        if statement.verb is not Verb.ASSERT:
            self.relate(part, statement)
            return
        content = self.content(read)
        if known is not None and known.content == content:
            self.tally.unchanged += 1
            return
        if carried.stands_against(self.tx, known, statement, self.outranked(read)):
            self.tally.outranked += 1
            return
        record = self.resolve(part, read)
        known_from = self.since(known)
        try:
            projected = self.project(part, read, record[1], known_from) if record else Projected()
        except BadInput as error:
            self.flag(self.where.unread, "unreadable", part, error.where or statement.pointer, error.what)
            self.tally.quarantined += 1
            self.unread.append(statement.pointer)
            if known is not None:  # its latest version cannot be read: what the one before said is no longer known
                if statement.resource_type == "Patient" and known.record_id is not None:
                    withdraw(self.tx, known.record_id, self._withdrawn(known.id, ()))
                self.close(known, "unreadable")
                self.versions[local] = None
            return
        if known is not None:
            if statement.keeps and record is not None and known.record_id == record[0]:
                here = (self.where.landing, part)
                projected = carried.over(self.tx, record[1], known.id, statement.keeps, projected, here)
            if known.record_id is not None and record is not None and known.record_id != record[0]:
                self.flag(
                    "flag",
                    "moved",
                    part,
                    statement.pointer,
                    "a resource moved from one patient to another",
                    known.record_id,
                )
            self.close(known, "superseded")
            self.tally.superseded += 1
        resource_id = self.open(part, read, local, content, record, projected, known_from)
        self.versions[local] = Open(
            resource_id, content, record[0] if record else None, known_from, read.updated, read.subsetted
        )
        if statement.resource_type == "Patient" and record is not None:
            before = known.id if known is not None else None
            kept = carried.identifiers(self.tx, before, statement.keeps) if before and statement.keeps else []
            self.identify(part, resource_id, record[0], _held(read), projected, before, kept)

    def project(self, part: int, read: Read, record: str, known_from: str) -> Projected:
        """The facts of one resource, made here or ahead. Raises: Unreadable."""
        ahead = read.prepared
        if ahead is None:
            statement = read.statement
            facts = self.where.project(part, statement, record, known_from)
            return Projected.of(facts, patient=statement.resource_type == "Patient")
        if ahead.problem is not None:
            raise Unreadable(ahead.problem, where=ahead.where)
        return ahead.projected.known(record, known_from)

    def relate(self, part: int, statement: Statement) -> None:
        """Two records of this sender are one person, or no longer."""
        if statement.resource_type != "Patient" or not statement.other_id:
            refused: str | None = "a feed relates something else than two patients"
        else:
            (one, _), (other, _) = self.record(statement.local_id), self.record(statement.other_id)
            act = join_by_feed if statement.verb is Verb.LINK else part_by_feed
            refused = act(self.tx, one, other)
        if refused is not None:
            self.flag("unmatched", "link-by-feed", part, statement.pointer, refused)
            self.tally.unmatched += 1

    # -- whose is it ---------------------------------------------------------------------------------------------------

    def resolve(self, part: int, read: Read) -> tuple[int, str] | None:
        """The record a resource belongs to; None for one of no patient, and, with a Flag, for an unresolved one."""
        subject = read.subject
        if subject is None:
            return None
        if subject.local_id is not None:
            return self.record(subject.local_id)
        if subject.system is not None and subject.value is not None:
            self.tx.flush()  # the patient may have come in this very act
            holders = self.tx.read(
                "SELECT DISTINCT i.record_id, p.ref FROM record_identifier i "
                "JOIN patient_record p ON p.id = i.record_id "
                "LEFT JOIN resource_closing c ON c.resource_id = i.resource_id "
                "WHERE i.system = ? AND i.value_digest = ? AND p.namespace = ? AND c.id IS NULL",
                (
                    subject.system,
                    self.tx.vault.index("identifier", subject.system, subject.value),
                    self.where.namespace,
                ),
            )
            if len(holders) == 1:
                return holders[0][0], holders[0][1]
            problem = (
                "its subject's identifier names no patient"
                if not holders
                else "its subject's identifier names several patients"
            )
        else:
            problem = subject.problem or "its subject cannot be resolved"
        self.flag("unmatched", "subject", part, read.statement.pointer, problem)
        self.tally.unmatched += 1
        return None

    def record(self, local_id: str) -> tuple[int, str]:
        digest = self.local("Patient", local_id)
        known = self.records.get(digest)
        if known is None:
            known = self.records[digest] = add_record(self.tx, self.where.namespace, local_id, digest)
        return known

    def identify(
        self,
        part: int,
        resource_id: int,
        record_id: int,
        held: Sequence[Identifier],
        projected: Projected,
        before: int | None,
        kept: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        demographics = dict(projected.demographics)
        for system, digest in kept:
            self._hold(record_id, resource_id, system, digest)
        if before is not None and (lost := self._withdrawn(before, held, kept)):
            withdraw(self.tx, record_id, lost)
        joined = join(self.tx, record_id, held, demographics, self.joining)
        if joined.refused is not None:
            self.flag("unmatched", "identity", part, None, joined.refused, record_id)
            self.tally.unmatched += 1
        for identifier in held:
            digest = self.tx.vault.index("identifier", identifier.system, identifier.value)
            self._hold(record_id, resource_id, identifier.system, digest)

    def _hold(self, record_id: int, resource_id: int, system: str, digest: bytes) -> None:
        self.tx.add(
            "record_identifier",
            record_id=record_id,
            resource_id=resource_id,
            system=system,
            value_digest=digest,
            joining=system in self.joining,
        )

    def _withdrawn(self, before: int, held: Iterable[Identifier], kept: Iterable[tuple[str, bytes]] = ()) -> list[str]:
        """Joining systems whose value of the version before this one no longer stands."""
        self.tx.flush()
        now = {(i.system, self.tx.vault.index("identifier", i.system, i.value)) for i in held} | set(kept)
        rows = self.tx.read("SELECT system, value_digest FROM record_identifier WHERE resource_id = ?", (before,))
        return sorted(
            {system for system, digest in rows if system in self.joining and (system, bytes(digest)) not in now}
        )

    # -- rows ----------------------------------------------------------------------------------------------------------

    def since(self, known: Open | None) -> str:
        """From when on a version is known: never before the one that it replaces."""
        moment = self.where.known_from or self.tx.now
        return max(moment, known.known_from) if known is not None else moment

    def open(
        self,
        part: int,
        read: Read,
        local: bytes,
        content: bytes,
        record: tuple[int, str] | None,
        projected: Projected,
        known_from: str,
    ) -> int:
        resource_id = self.tx.add(
            "resource",
            record_id=record[0] if record else None,
            namespace=self.where.namespace,
            type=read.statement.resource_type,
            local_digest=local,
            landing_id=self.where.landing_id,
            part=part,
            pointer=read.statement.pointer,
            reader=self.where.reader,
            known_from=known_from,
            content=content,
            test=read.marks.test,
            labels=" ".join(read.marks.labels),
            code=projected.code,
            facts=self.tx.vault.seal_of_record(record[1], projected.facts) if record and projected.facts else None,
            updated=read.updated,
            subsetted=read.subsetted or None,
            member_of=self.local("group", read.statement.group) if read.statement.group else None,
        )
        self.tally.asserted += 1
        self.tally.facts += projected.count
        return resource_id

    def close(self, known: Open, cause: str) -> None:
        self.tx.add("resource_closing", resource_id=known.id, known_to=self.since(known), cause=cause)

    def flag(
        self, kind: str, reason: str, part: int, pointer: str | None, detail: str, record_id: int | None = None
    ) -> None:
        self.tx.add(
            "flag",
            kind=kind,
            reason=reason,
            landing_id=self.where.landing_id,
            part=part,
            pointer=pointer or None,
            record_id=record_id,
            detail=detail,
            at=self.tx.now,
        )
        self.tally.flagged += 1


def _held(read: Read) -> list[Identifier]:
    """The identifiers of a Patient."""
    if read.prepared is not None:
        return [Identifier(*each) for each in read.prepared.identifiers]
    return [Identifier(system, value) for system, value, _ in identifiers_of(read.statement.body or {})]


def add_record(tx: Tx, namespace: str, local_id: str, digest: bytes) -> tuple[int, str]:
    """A new patient record with its key: row id and reference."""
    ref = tx.vault.new_record(tx.fresh_keys)
    row_id = tx.add(
        "patient_record",
        ref=ref,
        namespace=namespace,
        local_digest=digest,
        sealed=tx.vault.seal_of_record(ref, local_id.encode()),
        at=tx.now,
    )
    return row_id, ref


def add_validation(tx: Tx, landing_id: int, part: int, asked: Mapping[str, Sequence[str]]) -> None:
    """Record the verdict of fhir.resources on the resources of one part (pointer -> problems)."""
    problems = {pointer: list(found[:20]) for pointer, found in asked.items() if found}
    tx.add(
        "validation",
        landing_id=landing_id,
        part=part,
        checked=len(asked),
        invalid=len(problems),
        validator=VALIDATOR,
        problems=spell(problems).decode() if problems else None,
    )


def close_digest(
    tx: Tx, reducer: Reducer, span: tuple[int, int], statements: int, actor: str, *, kind: str = "digest"
) -> None:
    """The Digestion row over parts `[span)`, and the ledger entry over everything that came of them."""
    where, tally = reducer.where, reducer.tally
    tx.add(
        "digestion",
        landing_id=where.landing_id,
        reader=where.reader,
        part_from=span[0],
        part_to=span[1],
        statements=statements,
        quarantined=tally.quarantined,
    )
    tx.entry(
        kind, actor, {"landing": where.landing, "parts": list(span), "reader": where.reader, "tally": tally.plain()}
    )


def _chunks(values: list[bytes], size: int = 400) -> Iterable[list[bytes]]:
    return (values[i : i + size] for i in range(0, len(values), size))
