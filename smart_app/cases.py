"""What the case page shows, as nouns, and the port that gives it. Numbers and dates stand as the record has them.

One `Answer` is what one CDS service said at one call: its card's sentence, and a `Finding` for each model that it
asked. Everything carries the inference that it stands in; nothing is computed again that was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from smart_app.banners import Banner
from smart_app.desk import Case
from smart_app.overrides import Given
from smart_app.timeline import Event, Timeline, Wanted


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from."""

    document: str
    """`Type/id` in its sender's namespace."""
    source: str
    """What delivered it: a source's name, `the EHR's request`; with its namespace where that is another one."""
    at: str
    """When that landed."""
    landing: str
    part: int
    pointer: str
    place: str | None = None
    """File and line, where it came in a file."""
    original: str | None = None
    """As it was written, where a value was converted."""


@dataclass(frozen=True, slots=True)
class Input:
    """One feature of a modality."""

    title: str
    label: str
    missing: bool
    effective: str | None = None
    note: str | None = None
    origins: tuple[Origin, ...] = ()
    amount: float | None = None
    """Logits that this input adds over its reference value; None where the model states none."""
    points: float | None = None
    """The same as percentage points of the modality's own risk."""


@dataclass(frozen=True, slots=True)
class Modality:
    """One modality's part in a score."""

    name: str
    title: str
    amount: float | None
    """What it adds to the fused log-odds; None where it had no part."""
    absent: str | None = None
    """Why it could not speak."""
    inputs: tuple[Input, ...] = ()
    additive: bool = False
    """Whether the inputs' amounts add up."""
    text: str | None = None
    """What the reference values are."""
    after: tuple[float, float] | None = None
    """Of one that is missing: where the probability may stand once it is there (nine of ten)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Percent at each year, with one treatment more than the curve before it."""

    title: str
    percent: tuple[float, ...]
    band: tuple[tuple[float, float], ...] = ()
    """Low and high at each year; empty where the model publishes none."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a score that counts points."""

    title: str
    points: float


@dataclass(frozen=True, slots=True)
class Change:
    """What is otherwise than at the inference before."""

    what: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class Since:
    """The inference before this one, and what changed."""

    inference: str
    at: str
    score: tuple[Change, ...] = ()
    facts: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an inference stands in the log."""

    seq: int
    leaf: str
    at: str
    signed: int | None = None
    """Size of the newest signed head that covers it; None: not signed yet."""
    origin: str = ""
    signed_at: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    value: str
    label: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Switch:
    """One input that a what-if may set."""

    name: str
    title: str
    options: tuple[Option, ...] = ()
    low: float | None = None
    high: float | None = None
    value: str = ""
    """Of a number: the one that the inference used."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A what-if on record, beside what it was asked about."""

    inference: str
    seq: int
    at: str
    by: str | None
    inputs: tuple[Change, ...]
    """What was set, and what the inference itself had."""
    score: tuple[Change, ...]
    curve: Curve | None = None
    abstained: str | None = None


@dataclass(frozen=True, slots=True)
class ModelLine:
    name: str
    version: str
    title: str
    digest: str
    endpoint: str = ""
    population: str = ""
    limits: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    use: str = ""
    gone: str | None = None
    """Why the version cannot be shown, where it is not there any more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one model said."""

    inference: str
    model: ModelLine
    at: str
    """Data as of."""
    said: str
    """One sentence."""
    receipt: Receipt
    abstained: str | None = None
    probability: float | None = None
    base: float = 0.0
    logit: float | None = None
    """`base` and the modalities' amounts add up to it."""
    band: tuple[float, float] | None = None
    no_band: str | None = None
    after: tuple[float, float] | None = None
    """Range if missing results arrive."""
    validated: bool = True
    curves: tuple[Curve, ...] = ()
    items: tuple[Item, ...] = ()
    modalities: tuple[Modality, ...] = ()
    missing: tuple[Input, ...] = ()
    """Inputs that are not known."""
    cautions: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    """Set by the release of the model, read from nobody's record."""
    since: Since | None = None
    switches: tuple[Switch, ...] = ()
    asked: tuple[Asked, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What somebody did with a card."""

    outcome: str
    """accepted, overridden, deferred."""
    at: str
    by: str | None
    own: bool
    door: str
    seq: int
    reason: str | None = None
    comment: str | None = None
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class ShownCard:
    """The card that was shown for an answer."""

    uuid: str
    summary: str
    indicator: str
    source: str
    url: str | None = None
    ehr: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one service said at one call."""

    service: str
    title: str
    at: str
    findings: tuple[Finding, ...]
    """Its own model first."""
    card: ShownCard | None = None
    held: str | None = None
    """The rule that held its card back."""
    done: tuple[Done, ...] = ()
    """Oldest first."""
    base: str | None = None
    """Of a what-if: the inference that it was asked about."""
    newer: int = 0
    """Facts that its own model asks for, and that came after it was scored."""
    recalled: bool = False
    """Facts that it rests on were corrected since."""


@dataclass(frozen=True, slots=True)
class Line:
    """An inference in a list."""

    inference: str
    title: str
    said: str
    at: str
    abstained: bool
    current: bool = False
    """The newest of its service."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A key slice with the region drawn."""

    media: str
    title: str
    note: str
    digest: str


@dataclass(frozen=True, slots=True)
class CaseView:
    """Everything on the case page."""

    banner: Banner
    answer: Answer | None
    """The one that the card led to, else the newest; None: nothing was ever inferred."""
    lines: tuple[Line, ...] = ()
    """All that was inferred, newest first, what-ifs apart."""
    latest: tuple[Event, ...] = ()
    counts: Mapping[str, int] | None = None
    """Facts by group of the timeline; None: none are known."""
    pictures: tuple[Picture, ...] = ()
    viewer_url: str | None = None
    """The hospital's own viewer, opened on this patient."""
    withheld: int = 0
    """Facts that a confidentiality label keeps from this viewer."""
    glass: str | None = None
    """Until when the glass is broken."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What became of a form."""

    seq: int
    fresh: bool
    """False: this very form had been sent before."""
    meanwhile: int = 0
    """How many others acted on this card since the form was shown."""


class CaseDesk(Protocol):
    """What the case page asks of the server. Each call checks who may, and is an access entry before it shows anything.

    Errors of all: NotAllowed (its `glass` says whether breaking it helps), NotFound (not of this case),
    RecordUnavailable.
    """

    async def view(self, case: Case, inference: str | None) -> CaseView:
        """The page; `inference`: another one of this patient than the case's own."""
        ...

    async def timeline(self, case: Case, wanted: Wanted) -> tuple[Banner, Timeline]: ...

    async def done(self, case: Case, card: str) -> tuple[Done, ...]:
        """What was done with a card so far: a look that goes on, so no entry of its own."""
        ...

    async def act(self, case: Case, given: Given) -> Acted:
        """Put on record what the viewer did. Durable when it returns; the same form twice is one action."""
        ...

    async def what_if(self, case: Case, inference: str, inputs: Mapping[str, str]) -> str:
        """Score the inference's snapshot again with these inputs; gives the new inference. Errors: BadInput."""
        ...

    async def model_card(self, case: Case, inference: str) -> tuple[Banner, ModelLine, str]:
        """The model card (GitHub-flavoured markdown) of the version that an inference used."""
        ...

    async def proof(self, case: Case, inference: str) -> bytes:
        """The `.tlog-proof` of an inference. Errors: NotFound, while no head covers it."""
        ...

    async def picture(self, case: Case, media: str) -> bytes:
        """PNG."""
        ...

    async def break_glass(self, case: Case, reason: str) -> None:
        """From now on this viewer sees what labels and opt-out withhold, for a limited time. Errors: BadInput."""
        ...
