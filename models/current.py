"""What is true of a person now: the latest values that are not too old, diagnoses on record, age and sex.

For equations about a person, not about one tumour (see `models.modalities.clinical` for those). A definition says how
many hours a value stays true (`max_age_hours`); what is older is missing, and says so. A time known only to its day,
month or year counts from its first moment: it may be that old. The clinical time of the snapshot is now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from models import codes, strict
from models.canonical import digest
from models.codes import CodeSet, Key
from models.errors import BadInput
from models.features import NAN, Definition, Picked, calendar, completed_years, read
from models.inputs import checked
from models.nouns import JSON, Fact, Feature, FeatureVector, Snapshot

_ROOM = Path(__file__).parent
_SOURCES = ("codes.py", "current.py", "features.py", "inputs.py")
_NO_DIAGNOSIS = frozenset({"refuted", "entered-in-error", "unconfirmed", "provisional", "differential"})
_OVER = frozenset({"resolved", "inactive"})
"""Clinical statuses of what is over; a cancer in remission is still the cancer that is being treated."""
GIVEN = frozenset({"active", "completed", "in-progress", "intended", "on-hold", "draft"})
"""Statuses of an order or a record of a drug or procedure that was, is or will be given."""


def code_sets(module: str) -> dict[str, CodeSet]:
    """The code sets of `x.json` beside a modality `x.py` (pass `__file__`): key -> set, with scope and source."""
    stated: Mapping[str, Any] = strict.loads(Path(module).with_suffix(".json").read_bytes(), what="code sets")
    return {
        key: CodeSet(each["name"], each["scope"], each["source"], codes.keys(*each["codes"].items()))
        for key, each in stated.items()
    }


@dataclass(frozen=True, slots=True)
class Reading:
    """What a modality reads: made once, when its module is imported."""

    name: str
    encoder: str
    wanted: frozenset[str]
    definitions: tuple[Definition, ...]
    slot: Mapping[Key, tuple[str, ...]]
    """Code -> names of the code sets that it belongs to."""

    @classmethod
    def of(cls, name: str, module: str, definitions: Sequence[Definition], sets: Collection[CodeSet]) -> Reading:
        """`module` is the modality's `__file__`; its code sets may stand beside it, as JSON."""
        every = {each.name: each for each in (*sets, codes.BIRTH_DATE, codes.SEX)}
        every |= {definition.codes.name: definition.codes for definition in definitions}
        slot: dict[Key, tuple[str, ...]] = {}
        for each in every.values():
            for key in each.codes:
                slot[key] = (*slot.get(key, ()), each.name)
        own = [path for path in (Path(module), Path(module).with_suffix(".json")) if path.exists()]
        files = [*(_ROOM / source for source in _SOURCES), *own]
        encoder = digest(
            {
                "sources": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
                "features": [definition.plain() for definition in definitions],
            }
        )
        wanted = frozenset(f"{system}|{code}" for system, code in slot)
        return cls(name, encoder, wanted, tuple(definitions), slot)

    def chart(self, snapshot: Snapshot) -> Chart:
        slots: dict[str, list[Fact]] = {}
        for fact in snapshot.facts:
            names = dict.fromkeys(n for c in fact.codings for n in self.slot.get((c.system, c.code), ()))
            for name in names:
                slots.setdefault(name, []).append(fact)
        return Chart(slots, datetime.fromisoformat(snapshot.clinical_time), snapshot.context)

    def vector(
        self,
        found: Mapping[str, Feature],
        manifest: JSON,
        context: JSON,
        outside: str | None,
        cautions: Sequence[str] = (),
    ) -> FeatureVector:
        """The features in the manifest's column order, after parameters and what-if inputs; absent where one lacks.

        Raises: BadInput, where a what-if input is not one of the manifest's rules.
        """
        every = dict(found)
        for name, (value, label) in manifest["parameters"].items():
            every[name] = Feature(name, value, False, (), label)
        _what_if(every, context.get("what_if"), manifest)
        features = tuple(every[name] for name in manifest["columns"])
        titles = _TITLES | {definition.name: definition.title for definition in self.definitions}
        lacking = [_inside(titles.get(each.name, each.name)) for each in features if each.value != each.value]
        why = outside or (f"required and not usable: {', '.join(lacking)}" if lacking else None)
        return FeatureVector(self.name, self.encoder, features, why, tuple(cautions))


_TITLES = {"male": "Sex", "female": "Sex"}


def _inside(title: str) -> str:
    """A title inside a sentence; eGFR and INR stay as they are."""
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def _what_if(found: dict[str, Feature], what_if: object, manifest: JSON) -> None:
    if not isinstance(what_if, Mapping):
        return
    rules = {rule["name"]: rule for rule in manifest["rules"] if not rule.get("governed")}
    for name, value in what_if.items():
        if name not in rules or name not in found:
            raise BadInput("a what-if input that this model does not have")
        number = checked(rules[name], value, where="what-if input")
        label = rules[name].get("words", {}).get(f"{number:g}", f"{number:g}")
        found[name] = Feature(name, number, False, (), label, None, "as asked in this request")


@dataclass(frozen=True, slots=True)
class Chart:
    """The facts of one snapshot by the question that they answer."""

    slots: Mapping[str, list[Fact]]
    now: datetime
    context: JSON

    def facts(self, asked: CodeSet) -> list[Fact]:
        return self.slots.get(asked.name, [])

    def value(self, definition: Definition) -> Feature:
        """The latest usable value within its age, or a missing one that says why."""
        return feature(definition, latest(definition, self.facts(definition.codes), self.now))

    def diagnoses(self, asked: CodeSet, *, past: bool = True) -> list[Fact]:
        """Diagnoses that are not refuted or only suspected, and that began by now; `past`: those that are over, too."""
        found = []
        for fact in self.facts(asked):
            verification, _, clinical = (fact.status or "").partition("/")
            over = clinical in _OVER or (fact.effective_end is not None and began(fact.effective_end) <= self.now)
            if fact.kind != "condition" or verification in _NO_DIAGNOSIS or (over and not past):
                continue
            if fact.effective is None or began(fact.effective) <= self.now:
                found.append(fact)
        return found

    def diagnosis(self, name: str, asked: CodeSet, *, past: bool = True) -> Feature:
        """1 where a diagnosis is on record; else 0, marked missing: a list of problems is seldom complete."""
        found = self.diagnoses(asked, past=past)
        if not found:
            return Feature(name, 0.0, True, (), "not recorded", None, "not recorded: counts as absent")
        when = max((fact.effective for fact in found if fact.effective), default=None)
        return Feature(name, 1.0, False, tuple(fact.id for fact in found), "on record", when)

    def age(self, name: str = "age") -> Feature:
        """Completed years at the clinical time."""
        births = self.facts(codes.BIRTH_DATE)
        texts, ids = {fact.text for fact in births if fact.text}, tuple(fact.id for fact in births)
        birth, today = calendar(texts.pop() if len(texts) == 1 else None), calendar(self.now.date().isoformat())
        if birth is None or today is None or birth.ordinal > today.ordinal:
            why = "recorded dates of birth disagree" if texts else "no usable date of birth"
            return Feature(name, NAN, True, ids, "unknown", None, why)
        age = completed_years(birth, today)
        note = "the date of birth is known to the month or year only" if birth.partial else None
        return Feature(name, float(age), False, ids, f"{age} years", None, note)

    def sex(self, name: str, *, one: str) -> Feature:
        """1 for the sex `one` (male, female), 0 for the other; missing where it is neither, or not clear."""
        facts = self.facts(codes.SEX)
        stated = {fact.text or (fact.coded[0].code if fact.coded else "") for fact in facts}
        ids = tuple(fact.id for fact in facts)
        if stated not in ({"male"}, {"female"}):
            return Feature(name, NAN, True, ids, "unknown", None, "sex is not recorded, or not as male or female")
        sex = stated.pop()
        return Feature(name, float(sex == one), False, ids, sex)


def feature(definition: Definition, found: Picked) -> Feature:
    if found.value is None:
        note = "; ".join(text for text in (found.note, definition.unknown_note) if text) or None
        return Feature(definition.name, definition.unknown, True, found.facts, "unknown", None, note)
    label = definition.label(found.value)
    return Feature(definition.name, found.value, False, found.facts, label, found.effective, found.note)


def latest(definition: Definition, facts: Sequence[Fact], now: datetime) -> Picked:
    """The value of the latest moment within the definition's age, or none, with the reason.

    Two values of one moment must agree. A later answer that was refused (out of range, another unit, only a bound)
    bars earlier ones: what it would have said is not known. Values without a time, or from the future, are not used.
    """
    usable: list[tuple[datetime, float, Fact]] = []
    refused: list[tuple[datetime, str]] = []
    notes: dict[str, None] = {}
    stale: str | None = None
    oldest = now - timedelta(hours=definition.max_age_hours) if definition.max_age_hours else None
    for fact in facts:
        value, why = read(definition, fact)
        if value is None and why is None:
            continue
        when = began(fact.effective)
        if fact.effective is None or when == NEVER:
            notes["a result without a usable time is not used"] = None
        elif when > now:
            notes["a result dated in the future is not used"] = None
        elif oldest is not None and when < oldest:
            stale = max(stale or "", fact.effective[:16].replace("T", " "))
        elif value is None and why is not None and why.endswith("refused"):
            refused.append((when, why))
        elif value is None:
            notes[why or ""] = None
        else:
            usable.append((when, value, fact))
    if stale and not usable and not refused:
        notes[f"the last one, of {stale}, is older than {_span(definition.max_age_hours or 0)}"] = None
    newest = max((when for when, _, _ in usable), default=None)
    barring = [why for when, why in refused if newest is None or when >= newest]
    if barring or newest is None:
        return Picked(None, note="; ".join([*dict.fromkeys(barring), *notes]) or None)
    chosen = [(value, fact) for when, value, fact in usable if when == newest]
    ids = tuple(fact.id for _, fact in chosen)
    if any(value != chosen[0][0] for value, _ in chosen):
        return Picked(None, ids, note="results of the same time disagree")
    return Picked(chosen[0][0], ids, chosen[0][1].effective)


def _span(hours: float) -> str:
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"


NEVER = datetime.max.replace(tzinfo=UTC)
_TIME = re.compile(r"(\d{4})(-\d\d)?(-\d\d)?(T\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d)?)?")


@lru_cache(maxsize=1024)
def began(text: str | None) -> datetime:
    """The first moment that a FHIR time may mean; the end of time where it is not one."""
    match = _TIME.fullmatch(text) if text else None
    if match is None or text is None:
        return NEVER
    year, month, day, clock = match.group(1, 2, 3, 4)
    if clock and not (month and day):
        return NEVER
    try:
        moment = datetime.fromisoformat(f"{year}{month or '-01'}{day or '-01'}{clock or ''}")
    except ValueError:
        return NEVER
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return NEVER
