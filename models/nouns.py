"""The nouns. Frozen, checked at birth: holding one means that it is valid.

What each noun is stands in the README's glossary. Instants are UTC text in RFC 3339 with microseconds and `Z`, so that
text order is time order; clinical times keep the precision that the source gave ("2018", "2018-03-16", full instants).
Decimals from FHIR are kept as the text they arrived in.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from models.canonical import Noun, curves_spelled, from_plain, number_spelled, spell, spelled, whole, without_none
from models.score import Contribution as Contribution
from models.score import Score as Score

JSON = Mapping[str, Any]

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def instant(moment: datetime) -> str:
    """UTC text of a moment with zone, sortable as text: `2026-11-21T10:00:00.000000Z`."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a zone is not an instant")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def instant_now() -> str:
    """The same of this moment: each act, call and judgement asks for it, most within a second of the one before."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06}Z"


@lru_cache(maxsize=8)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).isoformat()[:19]


@lru_cache(maxsize=256)
def _check_instant(text: str, name: str) -> None:
    """The facts of one request carry the same instants: each is looked at once."""
    if not _INSTANT.fullmatch(text):
        raise ValueError(f"{name} is not an instant in UTC with microseconds")


@dataclass(frozen=True, slots=True)
class LandingMeta:
    """What is known about a delivery before its bytes: who sends, what it claims to be, when it came."""

    source: str
    namespace: str
    media_type: str
    received_at: str
    manifest: JSON = field(default_factory=dict)
    """Anything else worth keeping (file name, headers). Sealed: it may name a patient."""

    def __post_init__(self) -> None:
        _check_instant(self.received_at, "received_at")
        if not self.source or not self.namespace:
            raise ValueError("a landing has a source and a namespace")


class Part(Noun, frozen=True):
    """One line, message or object of a landing: the bytes themselves."""

    landing: str
    """Reference of the landing (32 hex digits)."""
    ordinal: int
    """0 for the first part of its landing."""
    namespace: str
    media_type: str
    received_at: str
    body: bytes


class Verb(StrEnum):
    ASSERT = "assert"
    VOID = "void"
    LINK = "link"
    UNLINK = "unlink"
    REPLACE = "replace"
    """What this part asserts as members of a group is all there is of it: `local_id` names the group."""


class Statement(Noun, frozen=True):
    """What a reader takes from a part: assert a resource, void one, link or unlink two patient records."""

    verb: Verb
    resource_type: str
    local_id: str
    pointer: str = ""
    """JSON pointer (RFC 6901) of the resource inside its part; empty: the whole part."""
    body: JSON | None = None
    """The resource, for an assertion, as `models.strict.loads` gives it (decimals are `decimal.Decimal`)."""
    other_id: str | None = None
    """The second patient record, for link and unlink."""
    base: str | None = None
    """The sender's own FHIR base URL, where the part states it: references below it are local ones."""
    keeps: tuple[str, ...] = ()
    """Elements of which an assertion says nothing: what the version before said of them stands. `identifier|SYSTEM`:
    the identifiers of one system."""
    group: str | None = None
    """The repeating group that an asserted resource is a member of; see `Verb.REPLACE`."""
    settled: bool | None = None
    """Of a result: whether it is final (or corrected, amended), or still to come; None for all else. A settled one
    stands against one that is not, whenever either was sent."""
    at: str | None = None
    """When the sender said it, for statements without a body."""
    notes: tuple[str, ...] = ()
    """What was odd about the part, by codes of ours; on one of its statements."""


class Subject(Noun, frozen=True):
    """Whose a resource claims to be, before anybody believed it.

    Exactly one of: `local_id` (a reference `Patient/x` in the sender's namespace), `system` + `value` (a logical
    reference), or `problem` (none given, a group, a contained or foreign reference).
    """

    local_id: str | None = None
    system: str | None = None
    value: str | None = None
    problem: str | None = None


class Marks(Noun, frozen=True):
    """Labels that travel on every row: test data and confidentiality (meta.tag, meta.security)."""

    test: bool = False
    labels: tuple[str, ...] = ()
    """Codes of v3-Confidentiality and other security labels, sorted, as `code` (v3) or `system|code`."""


# ---- what is known ---------------------------------------------------------------------------------------------------


class Coding(Noun, frozen=True):
    system: str
    code: str
    display: str | None = None

    @property
    def token(self) -> str:
        """`system|code`, as FHIR writes it in a search."""
        return f"{self.system}|{self.code}"


class Provenance(Noun, frozen=True):
    """Where a fact came from: the place in a part, and the reader that took it from there."""

    landing: str
    part: int
    pointer: str
    resource: str
    """`Type/id` in the sender's namespace."""
    reader: str
    """`name@version` of the reader."""

    def below(self, pointer: str) -> Provenance:
        """A place inside this one."""
        return Provenance(self.landing, self.part, self.pointer + pointer, self.resource, self.reader)


class Fact(Noun, frozen=True):
    """One coded, timed statement about a patient record.

    At most one of `number`, `coded`, `text` is set; all are None when the source gave no value (see `absent_reason`).
    """

    id: str
    """`landing/part/pointer#n`: the same bytes read by the same reader give the same id."""
    record: str
    """Random reference of the patient record (never an identifier from outside)."""
    kind: str
    """observation, condition, procedure, medication, allergy, family-history, report, demographic, ..."""
    codings: tuple[Coding, ...]
    """First the one it is indexed by (LOINC, SNOMED CT, ... before local codes), then the others as sent."""
    source: Provenance
    known_from: str
    number: str | None = None
    """Decimal text, already in `unit`."""
    unit: str | None = None
    """UCUM, canonical for the dimension (mm for a length of a tumour, ...); None for a pure count or no unit."""
    comparator: str | None = None
    """<, <=, >=, > as FHIR Quantity.comparator."""
    coded: tuple[Coding, ...] = ()
    text: str | None = None
    original: str | None = None
    """The value as it stood in the source, before any conversion: `2.5 cm`."""
    problem: str | None = None
    """Why the value cannot be used as a number (a unit that does not convert, ...), in our words."""
    status: str | None = None
    absent_reason: str | None = None
    effective: str | None = None
    """Clinical time with the source's precision; the start of a period."""
    effective_end: str | None = None
    focus: tuple[str, ...] = ()
    """`Type/id` of what it is about, besides the patient (mCODE: the primary cancer condition)."""
    body_site: tuple[Coding, ...] = ()
    laterality: str | None = None
    """left, right, bilateral; derived from body site or condition codes."""
    method: tuple[Coding, ...] = ()
    specimen: str | None = None
    labels: tuple[str, ...] = ()
    test: bool = False
    derived_from: tuple[str, ...] = ()
    """`Type/id` of what it was measured on: an ImagingStudy, the Media whose id says the digest of its picture."""

    def __post_init__(self) -> None:
        if not self.codings:
            raise ValueError("a fact has a code")
        _check_instant(self.known_from, "known_from")
        if (self.number is not None and (self.coded or self.text is not None)) or (
            self.coded and self.text is not None
        ):
            raise ValueError("a fact has one value")

    @property
    def code(self) -> Coding:
        return self.codings[0]

    @property
    def token(self) -> str:
        """`system|code` that it is indexed by."""
        code = self.codings[0]
        return f"{code.system}|{code.code}"

    @classmethod
    def from_plain(cls, plain: JSON) -> Fact:
        return from_plain(cls, plain)


# ---- what was judged -------------------------------------------------------------------------------------------------


def _place(fact: Fact) -> tuple[str, str, str]:
    """Where it stands among the facts of a snapshot: code (its token), effective time, id."""
    code = fact.codings[0]
    return f"{code.system}|{code.code}", fact.effective or "", fact.id


class Snapshot(Noun, frozen=True):
    """The facts that a model asked for, as known at one instant, in a fixed order, plus the request's own context."""

    person: str
    """Our person uuid at that instant."""
    records: tuple[str, ...]
    as_of: str
    """Facts known after this instant are not in it."""
    clinical_time: str
    """The instant that ages and windows are counted from (now, or --as-of)."""
    model: str
    """`name@version` that asked."""
    facts: tuple[Fact, ...]
    context: JSON = {}  # noqa: RUF012 (msgspec gives each its own)
    """What only this request said: draft orders, a chosen tumour, what-if inputs. Never stored as facts."""

    def __post_init__(self) -> None:
        _check_instant(self.as_of, "as_of")
        _check_instant(self.clinical_time, "clinical_time")
        order = [_place(fact) for fact in self.facts]
        if order != sorted(order):
            raise ValueError("the facts of a snapshot are ordered by code, effective time and id")

    @staticmethod
    def ordered(facts: list[Fact]) -> tuple[Fact, ...]:
        return tuple(sorted(facts, key=_place))

    @classmethod
    def from_plain(cls, plain: JSON) -> Snapshot:
        return from_plain(cls, plain)

    @property
    def bytes(self) -> bytes:
        """RFC 8785. Facts are text and whole numbers by their types; of the context, nobody knows."""
        return spell(
            {
                "person": self.person,
                "records": self.records,
                "as_of": self.as_of,
                "clinical_time": self.clinical_time,
                "model": self.model,
                "facts": self.facts,
                "context": spelled(self.context),
            }
        )


class Feature(Noun, frozen=True):
    """One number that goes into a model, and the facts behind it."""

    name: str
    value: float
    """binary64; NaN when missing."""
    missing: bool
    facts: tuple[str, ...] = ()
    """Ids of the facts it was taken from; empty for a governed parameter or a request input."""
    label: str = ""
    """The value as a person reads it: `25 mm`, `positive`, `unknown`."""
    effective: str | None = None
    note: str | None = None
    """What a reader of the card must know: derived from pN0, 14 months old, two results disagree, ..."""

    def __post_init__(self) -> None:
        if -math.inf < self.value < math.inf:
            return
        if not math.isnan(self.value):
            raise ValueError(f"feature {self.name} is infinite")
        if not self.missing:
            raise ValueError(f"feature {self.name} is NaN and not marked missing")

    def plain(self, number: Callable[[float], Any] = whole) -> dict[str, Any]:
        """`number` writes the value: `whole` for a JSON object, `number_spelled` for what is given to `spell`."""
        plain: dict[str, Any] = {"name": self.name}
        if not math.isnan(self.value):
            plain["value"] = number(self.value)
        plain["missing"] = self.missing
        plain["label"] = self.label
        if self.facts:
            plain["facts"] = list(self.facts)
        if self.effective is not None:
            plain["effective"] = self.effective
        if self.note is not None:
            plain["note"] = self.note
        return plain


class FeatureVector(Noun, frozen=True):
    """One modality's numbers in the order of its graph's input columns.

    A missing feature may still carry the number that the published equation prescribes for "unknown" (PREDICT: grade
    unknown -> 2.13); the mask says that it was not observed. `absent` is the reason why the modality as a whole cannot
    speak; then the vector is not scored.
    """

    modality: str
    encoder: str
    """Digest of the encoder's source and feature definitions (SHA-256 hex)."""
    features: tuple[Feature, ...]
    absent: str | None = None
    cautions: tuple[str, ...] = ()
    """Sentences for the reader: contradictory stage and size, a value outside its usual range, ..."""

    def plain(self, number: Callable[[float], Any] = whole) -> dict[str, Any]:
        """`number`: as for a feature."""
        return without_none(
            {
                "modality": self.modality,
                "encoder": self.encoder,
                "features": [feature.plain(number) for feature in self.features],
                "absent": self.absent,
                "cautions": list(self.cautions),
            }
        )

    def feature(self, name: str) -> Feature:
        return {feature.name: feature for feature in self.features}[name]


@dataclass(frozen=True)
class ModelVersion:
    """Name, version, and digests of the manifest and of each file that the manifest names."""

    name: str
    version: str
    manifest: JSON
    manifest_digest: str
    files: Mapping[str, str]
    """File name -> SHA-256 hex."""

    @cached_property
    def id(self) -> str:
        return f"{self.name}@{self.version}"


class Judgement(Noun, frozen=True):
    """A snapshot with what the model made of it: everything an Inference holds besides its Call."""

    snapshot: Snapshot
    vectors: tuple[FeatureVector, ...]
    model: ModelVersion
    score: Score

    def vector(self, modality: str) -> FeatureVector:
        return {vector.modality: vector for vector in self.vectors}[modality]

    @property
    def bytes(self) -> bytes:
        """RFC 8785: what an Inference seals besides its snapshot. Numbers are spelled where they stand: one a feature,
        hundreds in the outputs of a score; of its other members, nobody knows."""
        score = self.score.plain()
        outputs = score.pop("outputs", None)
        score = {name: spelled(member) for name, member in score.items()}
        if outputs is not None:
            score["outputs"] = curves_spelled(outputs)
        return spell({"vectors": [vector.plain(number_spelled) for vector in self.vectors], "score": score})


# ---- what was done ---------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    OVERRIDDEN = "overridden"
    DEFERRED = "deferred"
    """Put off: neither taken nor refused. CDS Hooks feedback has no word for it; our own pages do."""


@dataclass(frozen=True, slots=True)
class ClinicianAction:
    """What a person did with a card. A change of mind is a new one."""

    card: str
    outcome: Outcome
    at: str
    door: str
    """cds-hooks, smart-app, sandbox, command."""
    actor: str | None = None
    """Who, as the door knows it (the hook call's userId); sealed."""
    suggestions: tuple[str, ...] = ()
    reason: Coding | None = None
    comment: str | None = None
    name: str | None = None
    """The actor's name as the door shows it; sealed."""
    instead: str | None = None
    """What was done in place of it, in the actor's words; sealed."""

    def __post_init__(self) -> None:
        _check_instant(self.at, "at")

    def plain(self) -> dict[str, Any]:
        return without_none(
            {
                "card": self.card,
                "outcome": self.outcome.value,
                "at": self.at,
                "door": self.door,
                "actor": self.actor,
                "suggestions": list(self.suggestions),
                "reason": self.reason.plain() if self.reason else None,
                "comment": self.comment,
                "name": self.name,
                "instead": self.instead,
            }
        )
