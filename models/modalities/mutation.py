"""Mutation modality: which genes of the tumour carry a coding mutation, read from mCODE variants and regions studied.

Absence counts only where the report says that the gene was studied: a gene that no region lists, and that no variant
names, is unknown. An unknown gene takes the share of the cohort in which it is mutated; where the genes studied carry
less than a stated share of the model's weight, the modality is off. No element of mCODE's region studied tells a tumour
panel from a germline one; that share keeps the small germline panels out, and the vector cautions about the rest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import codes, features, tumour
from models.canonical import digest
from models.codes import CodeSet, Key
from models.features import USABLE
from models.nouns import JSON, Fact, Feature, FeatureVector, Snapshot
from models.strict import loads

NAME = "mutation"
BURDEN = "burden"
WINDOW_DAYS = 365
"""As for the other results of the tumour: further from the diagnosis, it is another tumour's or a recurrence's."""

_ROOM = Path(__file__).parent.parent
_SOURCES = ("codes.py", "features.py", "modalities/mutation.json", "modalities/mutation.py", "tumour.py")
_SETS: dict[str, Any] = loads(Path(__file__).with_suffix(".json").read_bytes(), what="mutation.json")
GENES: dict[str, str] = dict(_SETS["genes"]["codes"])
"""Symbol -> HGNC id."""
_SYMBOL: dict[Key, str] = {
    (system, code): symbol for symbol, code in GENES.items() for system in _SETS["genes"]["systems"]
}
_SYSTEMS = frozenset(_SETS["genes"]["systems"])


def _code_set(name: str) -> CodeSet:
    stated = _SETS[name]
    return CodeSet(stated["name"], stated["scope"], stated["source"], codes.keys(*stated["codes"].items()))


VARIANT, REGION, GENE, CLASS, CONSEQUENCE, COPIES = (
    _code_set(name) for name in ("variant", "region", "gene", "class", "consequence", "copies")
)
_NO_MUTATION = _code_set("no_mutation").codes
_PRESENT, _SOMATIC, _GERMLINE = (codes.LOINC, "LA9633-4"), (codes.LOINC, "LA6684-0"), (codes.LOINC, "LA6683-2")
ASKED = (VARIANT, REGION, GENE, CLASS, CONSEQUENCE, COPIES)
ENCODER = digest({name: hashlib.sha256((_ROOM / name).read_bytes()).hexdigest() for name in _SOURCES})
_SLOT: dict[Key, str] = {key: asked.name for asked in (*tumour.ASKED, *ASKED) for key in asked.codes}
_WANTED = frozenset(f"{system}|{code}" for system, code in _SLOT)


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _WANTED


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """A flag for each gene of the manifest, then the burden: ln(1 + their sum).

    `manifest` states `genes` (objects `name`, `prevalence`, `share`) and `fewest_studied`, the smallest sum of shares.
    `snapshot.context` may carry `focus` (`Condition/id`, the chosen tumour).
    """
    slots = tumour.by_question(snapshot.facts, _SLOT)
    whose = tumour.chosen(slots, snapshot.context.get("focus"))
    if isinstance(whose, str):
        return _absent(whose)
    outside = tumour.outside_population(slots, whose)
    if outside:
        return _absent(outside)
    found = _found(slots, whose, snapshot.clinical_time[:10])
    symbols = found.known
    known = sum(gene["share"] for gene in manifest["genes"] if gene["name"] in symbols)
    if not symbols:
        return _absent("; ".join(("no report says which genes of the tumour were studied", *found.notes)))
    if known < manifest["fewest_studied"]:
        return _absent(
            f"the genes studied carry {known:.0%} of the model's weight; it needs {manifest['fewest_studied']:.0%}"
        )
    return _vector(found, manifest, known)


@dataclass(slots=True)
class _Found:
    """What the reports say, by gene symbol: facts that it is mutated, facts that it was studied."""

    mutated: dict[str, list[Fact]] = field(default_factory=dict)
    studied: dict[str, list[Fact]] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    """A variant is present that may or may not be somatic: neither mutated nor wild type."""
    notes: list[str] = field(default_factory=list)

    @property
    def known(self) -> set[str]:
        return set(self.mutated) | (set(self.studied) - self.unclear)


@dataclass(slots=True)
class _Result:
    """One observation with its components: they share their resource."""

    whole: Fact | None = None
    parts: dict[str, list[Fact]] = field(default_factory=dict)

    def says(self, asked: CodeSet) -> set[Key]:
        return {(coding.system, coding.code) for fact in self.parts.get(asked.name, ()) for coding in fact.coded}


def _found(slots: tumour.Slots, whose: tumour.Tumour, today: str) -> _Found:
    found = _Found()
    results = _results(slots)
    for kind in (REGION, VARIANT):
        for result in results:
            whole = result.whole
            if whole is None or not _asks(whole, kind) or not tumour.speaks_of(whose, whole):
                continue
            why = _not_usable(whole, whose, today)
            if why is not None:
                if why not in found.notes:
                    found.notes.append(why)
            elif kind is REGION:
                for fact in result.parts.get(GENE.name, ()):
                    for symbol in _symbols(fact):
                        found.studied.setdefault(symbol, []).append(fact)
            else:
                _read_variant(result, whole, found)
    return found


def _results(slots: tumour.Slots) -> Iterable[_Result]:
    results: dict[tuple[str, str], _Result] = {}
    for asked in ASKED:
        for fact in slots.get(asked.name, ()):
            result = results.setdefault((fact.record, fact.source.resource), _Result())
            if asked is VARIANT or asked is REGION:
                result.whole = fact
            else:
                result.parts.setdefault(asked.name, []).append(fact)
    return [results[key] for key in sorted(results)]


def _asks(fact: Fact, asked: CodeSet) -> bool:
    return any((coding.system, coding.code) in asked.codes for coding in fact.codings)


def _not_usable(fact: Fact, whose: tumour.Tumour, today: str) -> str | None:
    if fact.status not in USABLE:
        return "a genomic result that is not final is not used"
    if (fact.effective or "")[:10] > today:
        return "a result dated in the future is not used"
    when, diagnosed = features.calendar(fact.effective), features.calendar(whose.fact.effective)
    if when is not None and diagnosed is not None and abs(when.ordinal - diagnosed.ordinal) > WINDOW_DAYS:
        return "a genomic result from long before or after the diagnosis is not used"
    return None


def _symbols(fact: Fact) -> set[str]:
    """The genes that one component names; several are one panel's (mCODE's persona lists seven in one concept)."""
    return {symbol for coding in fact.coded if (symbol := _SYMBOL.get((coding.system, coding.code))) is not None}


def _read_variant(result: _Result, whole: Fact, found: _Found) -> None:
    if not any((coding.system, coding.code) == _PRESENT for coding in whole.coded):
        return
    named = {key for key in result.says(GENE) if key[0] in _SYSTEMS}
    symbols = {_SYMBOL[key] for key in named if key in _SYMBOL}
    if result.says(CONSEQUENCE) & _NO_MUTATION or COPIES.name in result.parts or len({code for _, code in named}) > 1:
        return  # a copy number change, a silent change, a fusion of two genes: not what the cohort counted
    source = result.says(CLASS)
    for symbol in symbols:
        if source == {_SOMATIC}:
            found.mutated.setdefault(symbol, []).append(whole)
        elif source != {_GERMLINE}:
            found.unclear.add(symbol)


def _vector(found: _Found, manifest: JSON, known: float) -> FeatureVector:
    flags = [_flag(gene["name"], gene["prevalence"], found) for gene in manifest["genes"]]
    studied = [flag for flag in flags if not flag.missing]
    count = sum(flag.value for flag in studied)
    label = f"{count:g} of {len(studied)} studied genes mutated"
    complete = len(studied) == len(flags)
    note = None if complete else f"{len(flags) - len(studied)} genes not studied: each counts as often as in the cohort"
    burden = Feature(BURDEN, math.log1p(sum(flag.value for flag in flags)), not complete, (), label, None, note)
    cautions = ["the report does not say whether tumour tissue was studied"] if found.studied else []
    if not complete:
        cautions.append(f"the genes studied carry {known:.0%} of the weight of the mutation model")
    return FeatureVector(NAME, ENCODER, (*flags, burden), None, (*cautions, *found.notes))


def _flag(symbol: str, prevalence: float, found: _Found) -> Feature:
    if symbol in found.mutated:
        facts = found.mutated[symbol]
        return Feature(symbol, 1.0, False, _ids(facts), "mutated", _latest(facts))
    if symbol in found.studied and symbol not in found.unclear:
        facts = found.studied[symbol]
        return Feature(symbol, 0.0, False, _ids(facts), "not mutated", _latest(facts))
    if symbol in found.unclear:
        return Feature(symbol, prevalence, True, (), "unknown", None, "a variant that does not say it is somatic")
    return Feature(symbol, prevalence, True, (), "not studied")


def _ids(facts: list[Fact]) -> tuple[str, ...]:
    return (facts[0].id,) if len(facts) == 1 else tuple(sorted({fact.id for fact in facts}))


def _latest(facts: list[Fact]) -> str | None:
    latest = facts[0].effective if len(facts) == 1 else max(fact.effective or "" for fact in facts)
    return (latest or "")[:10] or None


def _absent(reason: str) -> FeatureVector:
    return FeatureVector(NAME, ENCODER, (), reason)
