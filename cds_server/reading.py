"""What a reader makes of a part, with everything about it that needs no store. Pure, and re-runnable."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from adapters import readers
from adapters.readers import facts as projection
from adapters.readers.fhir import SUBSET
from adapters.readers.subjects import UNMARKED, marks_of, stamp_of, subject_of
from cds_server.projected import Prepared
from cds_server.store.reads import LandingRow
from models.canonical import Noun
from models.errors import BadInput
from models.nouns import Marks, Part, Statement, Subject
from models.plugins import discover


class Read(Noun, frozen=True):
    """One statement, with everything about it that needs no store."""

    statement: Statement
    subject: Subject | None
    marks: Marks
    updated: str | None = None
    """When its sender last changed it, as far as it says so."""
    subsetted: bool = False
    """Its sender left elements out."""
    invalid: tuple[str, ...] | None = None
    """What fhir.resources says against it (paths and rules); None while it was not asked."""
    prepared: Prepared | None = None
    """What its act needs, where that was made ahead: then the statement comes without its body."""

    @property
    def content(self) -> bytes:
        """The resource in one spelling, for telling a new version from a repetition."""
        said: Any = self.statement.body
        if self.statement.keeps:  # to leave out what was said before is not to delete it
            said = [said, self.statement.keeps]
        return orjson.dumps(said, default=str, option=orjson.OPT_SORT_KEYS)


class PartRead(Noun, frozen=True):
    """What a reader made of one part."""

    ordinal: int
    reads: tuple[Read, ...] = ()
    problem: str | None = None
    """Why the part could not be read, and where: never a value."""
    pointer: str | None = None
    image: Any = None
    """What an image object says of itself (`imaging.index.Image`): it is indexed, whatever it states."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a source's configuration says of how its parts are read."""

    feed: Any
    """What the reader takes besides the part."""
    digest: str
    """Of what may change while the reader's version stays (code maps): a redo may then see something else."""


SourceRules = Mapping[str, Rules]
"""Name of a source -> its rules, where it has any."""
NO_RULES: SourceRules = {}


@functools.cache
def readers_by_media_type() -> Mapping[str, Any]:
    """Reader modules, found by what they read."""
    return {media_type: module for module in discover(readers, "NAME").values() for media_type in module.MEDIA_TYPES}


def _reader(media_type: str) -> Any:
    """The reader of a media type, whatever its parameters say besides; None where there is none."""
    return readers_by_media_type().get(media_type.partition(";")[0])


def _for(module: Any, rules: Rules | None) -> Rules | None:
    """The rules, where the reader takes them: one source may send several kinds of parts."""
    return rules if rules is not None and isinstance(rules.feed, getattr(module, "RULES", ())) else None


def reader_id(media_type: str, rules: Rules | None = None) -> str:
    """`name@version` of the reader of a media type, with the version of the fact projection: what a redo compares."""
    module = _reader(media_type)
    name = f"{module.NAME}@{module.VERSION}" if module else "none@0"
    if (taken := _for(module, rules)) is not None:
        name += f"~{taken.digest[:12]}"
    return f"{name}+facts@{projection.VERSION}"


def read_part(part: Part, rules: Rules | None = None) -> PartRead:
    """Run the part's reader, by its source's rules where there are any. Never raises on bad input: the problem is the
    result."""
    module = _reader(part.media_type)
    if module is None:
        return PartRead(part.ordinal, problem="no reader for this media type")
    try:
        taken = _for(module, rules)
        statements = module.read(part) if taken is None else module.read(part, taken.feed)
        reads = reads_of(statements)
        if part.media_type.endswith(SUBSET):
            reads = tuple(read.but(subsetted=True) for read in reads)
        return PartRead(part.ordinal, reads)
    except BadInput as error:
        return PartRead(part.ordinal, problem=error.what, pointer=error.where)


def read_sealed(
    landing: LandingRow, bodies: Sequence[bytes] | None, rules: Rules | None = None
) -> tuple[PartRead, ...]:
    """What the reader makes of a delivery of few parts; None: their bytes cannot be opened any more."""
    if bodies is None:
        problem = "its sealed bytes cannot be opened"
        return tuple(PartRead(ordinal, problem=problem) for ordinal in range(landing.parts))
    of = (landing.namespace, landing.media_type, landing.received_at)
    return tuple(read_part(Part(landing.ref, ordinal, *of, body), rules) for ordinal, body in enumerate(bodies))


def reads_of(statements: Iterable[Statement]) -> tuple[Read, ...]:
    """The statements of one part, with everything about them that needs no store. Raises: Unreadable."""
    known: dict[str, Subject] = {}
    return tuple([_as_read(statement, known) for statement in statements])


def _as_read(statement: Statement, known: dict[str, Subject]) -> Read:
    body = statement.body
    if body is None:
        stamp = stamp_of({"meta": {"lastUpdated": statement.at}})[0] if statement.at else None
        return Read(statement, None, UNMARKED, stamp)
    subject = subject_of(body, base=statement.base, known=known)
    if "meta" not in body:
        return Read(statement, subject, UNMARKED)
    return Read(statement, subject, marks_of(body), *stamp_of(body))
