"""Reading ahead: all of a digest that needs no store, done where it holds up nobody, and passed on as a few bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.readers.subjects import identifiers_of
from cds_server.projected import SOMEBODY, SOMETIME, Prepared, Projected
from cds_server.reading import PartRead, Read, SourceRules, read_sealed
from cds_server.store.reads import LandingRow
from cds_server.store.vault import Index
from cds_server.where import Where, where_of
from models.canonical import packed, unpacker_of
from models.errors import BadInput
from models.nouns import Verb

_unpack = unpacker_of(list[tuple[PartRead, ...]])


@dataclass(frozen=True, slots=True)
class Delivery:
    """A landing with its parts opened; None where that cannot be done any more."""

    landing: LandingRow
    bodies: tuple[bytes, ...] | None


def prepare_all(deliveries: Sequence[Delivery], rules: SourceRules, key: bytes) -> bytes:
    """What the readers make of deliveries of few parts each, for `prepared_of`. `key`: of the instance's index."""
    made, index = [], Index(key)
    for each in deliveries:
        of = rules.get(each.landing.source)
        where = where_of(each.landing, of)
        made.append(tuple(prepared(where, part, index) for part in read_sealed(each.landing, each.bodies, of)))
    return packed(made)


def prepared_of(made: bytes) -> list[tuple[PartRead, ...]]:
    """Delivery by delivery, in their order."""
    found: list[tuple[PartRead, ...]] = _unpack(made)
    return found


def prepared(where: Where, part: PartRead, index: Index) -> PartRead:
    """The same reading with its facts, and without the resources that they were taken from."""
    return part.but(reads=tuple(_prepared(where, part.ordinal, read, index) for read in part.reads))


def _prepared(where: Where, part: int, read: Read, index: Index) -> Read:
    statement = read.statement
    if statement.verb is not Verb.ASSERT or statement.body is None:
        return read
    patient = statement.resource_type == "Patient"
    local = index.local(where.namespace, statement.resource_type, statement.local_id)
    content = index.content(read.content)
    try:
        facts = () if read.subject is None else where.project(part, statement, SOMEBODY, SOMETIME)
        held = tuple((system, value) for system, value, _ in identifiers_of(statement.body)) if patient else ()
        made = Prepared(local, content, Projected.of(facts, patient=patient), held)
    except BadInput as error:
        made = Prepared(local, content, problem=error.what, where=error.where)
    return read.but(statement=statement.but(body=None), prepared=made)
