"""Alert hygiene: which cards are held back, by the rule of a site, and each time on record.

Clinicians override 49 to 96 percent of alerts; one that is shown again and again is no longer read. A site may set, for
a service, under `[hygiene.NAME]`:

    threshold      a number that the service's own measure must reach, or the least urgency (`warning`)
    quiet_hours    silence about one patient for the user who overrode its card with a reason from a list
    cap_per_day    so many cards about one patient for one user in 24 hours
    once_minutes   the same advice, shown to this user about this patient by another service, is not shown again

What no rule may do: hold back a critical card; hold back, by a threshold, that the model could not answer; hold back in
a quiet period what is more urgent than what was overridden; guess who looks, where a call names no user. Nothing is set
by default, and then nothing is asked or written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

from cds_server.actions import CODED
from cds_server.hooks.cards import Indicator, card_bytes
from cds_server.hooks.service import ServiceSpec
from cds_server.store.reads import marks
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.errors import Misconfigured
from models.nouns import JSON, Judgement, Outcome, instant

HELD = b"h"
"""Kind of a sealed payload: a card that was held back."""
UNDELIVERED = "undelivered"
"""In the place of a rule: the deadline overtook the answer, nobody saw the card."""
DAY = timedelta(hours=24)
_URGENCY = {indicator.value: rank for rank, indicator in enumerate(Indicator)}


class Rule(StrEnum):
    THRESHOLD = "threshold"
    QUIET = "quiet"
    CAP = "cap"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a site set for one service."""

    least: float | None = None
    urgency: Indicator | None = None
    quiet: timedelta | None = None
    cap: int | None = None
    once: timedelta | None = None


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Occasion:
    """For whom, about whom and by which service cards are about to be shown."""

    spec: ServiceSpec
    judgement: Judgement
    ehr: str
    user: str | None
    records: tuple[int, ...]
    """Row ids of the patient's records, the one that the call named first."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A card, and the rule that holds it back, if one does."""

    card: JSON
    advice: bytes
    rule: Rule | None


class Hygiene:
    """The rules of every service. A service without a rule of its own is remembered where another one has any: what it
    showed is what the other must not say again."""

    def __init__(self, rules: Mapping[str, Rules]) -> None:
        self._rules = dict(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def weigh(self, tx: Tx, occasion: Occasion, cards: Sequence[JSON]) -> list[Weighed]:
        """Which cards are shown. In the act that records them: two calls at once do not both find nothing."""
        rules = self._rules.get(occasion.spec.id, NO_RULES)
        past = _Past(tx, occasion, rules)
        weighed: list[Weighed] = []
        for card in cards:
            advice = _advice(tx, card)
            shown = sum(each.rule is None for each in weighed)
            weighed.append(Weighed(card, advice, _held_by(rules, occasion, past, card, advice, shown)))
        return weighed

    def remember(self, tx: Tx, occasion: Occasion, inference_id: int, weighed: Sequence[Weighed]) -> dict[str, Any]:
        """Write what was shown and what was held back; gives what the entry says of the latter."""
        who, held = _who(tx, occasion), {}
        for each in weighed:
            sealed = None
            if each.rule is not None:
                sealed = tx.vault.seal(object_ref(HELD, each.card["uuid"]), card_bytes(each.card), tx.fresh_keys)
                held[each.card["uuid"]] = {"rule": each.rule.value, "commitment": sealed.commitment.hex()}
            tx.add(
                "advice",
                inference_id=inference_id,
                record_id=occasion.records[0],
                service=occasion.spec.id,
                ehr=occasion.ehr,
                who=who,
                advice=each.advice,
                indicator=each.card["indicator"],
                card=each.card["uuid"],
                rule=each.rule.value if each.rule else None,
                sealed=sealed.cipher if sealed else None,
                commitment=sealed.commitment if sealed else None,
                at=tx.now,
            )
        return {"held": held} if held else {}

    def take_back(self, tx: Tx, inferences: Sequence[str]) -> None:
        """What these inferences showed never left: it counts for no rule."""
        columns = ("inference_id", "record_id", "service", "ehr", "who", "advice", "indicator", "card")
        rows = tx.read(
            f"SELECT {', '.join(columns)} FROM advice WHERE rule IS NULL AND inference_id IN "
            f"(SELECT id FROM inference WHERE ref IN ({marks(inferences)}))",
            tuple(inferences),
        )
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            cells |= {"who": _plain(cells["who"]), "advice": _plain(cells["advice"])}
            tx.add("advice", **cells, rule=UNDELIVERED, at=tx.now)


def _plain(cell: Any) -> bytes | None:
    """PostgreSQL gives a view of bytes."""
    return bytes(cell) if cell is not None else None


def _held_by(rules: Rules, occasion: Occasion, past: _Past, card: JSON, advice: bytes, shown: int) -> Rule | None:
    """The first rule that holds a card back; None: it is shown."""
    urgency = _URGENCY[card["indicator"]]
    if rules is NO_RULES or card["indicator"] == Indicator.CRITICAL:
        return None
    if occasion.judgement.score.abstained is None and _below(rules, occasion, urgency):
        return Rule.THRESHOLD
    if occasion.user is None:
        return None
    if rules.quiet is not None and past.overridden >= urgency:
        return Rule.QUIET
    if rules.once is not None and advice in past.said_elsewhere:
        return Rule.DUPLICATE
    if rules.cap is not None and past.shown_today + shown >= rules.cap:
        return Rule.CAP
    return None


def _below(rules: Rules, occasion: Occasion, urgency: int) -> bool:
    if rules.urgency is not None and urgency < _URGENCY[rules.urgency]:
        return True
    measure = occasion.spec.measure
    if rules.least is None or measure is None:
        return False
    measured = measure(occasion.judgement)
    return measured is not None and measured < rules.least


class _Past:
    """What this user was shown about this patient, asked for when a rule needs it."""

    def __init__(self, tx: Tx, occasion: Occasion, rules: Rules) -> None:
        self._tx = tx
        self._occasion = occasion
        self._rules = rules

    @cached_property
    def _shown(self) -> list[tuple[str, bytes, str]]:
        """(service, advice, at) of each card within the windows of the rules."""
        records = self._occasion.records
        windows = (DAY if self._rules.cap is not None else timedelta(), self._rules.once or timedelta())
        rows = self._tx.read(
            f"SELECT service, advice, at, card, rule FROM advice WHERE record_id IN ({marks(records)}) AND who = ? "
            "AND (rule IS NULL OR rule = ?) AND at > ?",
            (*records, _who(self._tx, self._occasion), UNDELIVERED, self._since(max(windows))),
        )
        lost = {card for _, _, _, card, rule in rows if rule is not None}
        return [(service, bytes(advice), at) for service, advice, at, card, rule in rows if card not in lost]

    @cached_property
    def overridden(self) -> int:
        """Urgency of the most urgent card of this service that the user overrode with a reason, and has not taken back,
        in the quiet period; -1: none. A time that has not come yet (a clock that is wrong) silences nothing."""
        records = self._occasion.records
        rows = self._tx.read(
            "SELECT v.card, v.indicator, a.outcome, a.reason FROM advice v JOIN card c ON c.uuid = v.card "
            f"JOIN action a ON a.card_id = c.id WHERE v.record_id IN ({marks(records)}) AND v.who = ? "
            "AND v.service = ? AND v.rule IS NULL AND a.at > ? AND a.at <= ? ORDER BY a.at, a.id",
            (
                *records,
                _who(self._tx, self._occasion),
                self._occasion.spec.id,
                self._since(self._rules.quiet or timedelta()),
                self._tx.now,
            ),
        )
        last = {card: (indicator, outcome, reason) for card, indicator, outcome, reason in rows}
        urgencies = (
            _URGENCY[indicator]
            for indicator, outcome, reason in last.values()
            if outcome == Outcome.OVERRIDDEN and reason == CODED
        )
        return max(urgencies, default=-1)

    @cached_property
    def said_elsewhere(self) -> frozenset[bytes]:
        """What other services said: the same service again is the same card, brought up to date."""
        own, since = self._occasion.spec.id, self._since(self._rules.once or timedelta())
        return frozenset(advice for service, advice, at in self._shown if service != own and at > since)

    @cached_property
    def shown_today(self) -> int:
        since = self._since(DAY)
        return sum(service == self._occasion.spec.id and at > since for service, _, at in self._shown)

    def _since(self, window: timedelta) -> str:
        return instant(datetime.fromisoformat(self._tx.now) - window)


def _who(tx: Tx, occasion: Occasion) -> bytes | None:
    return tx.vault.index("who", occasion.ehr, occasion.user) if occasion.user is not None else None


def _advice(tx: Tx, card: JSON) -> bytes:
    topic = card["source"]["topic"]
    return tx.vault.index("advice", topic["system"], topic["code"], card["indicator"], card["summary"])


# ---- configuration ---------------------------------------------------------------------------------------------------

KEYS = frozenset({"threshold", "quiet_hours", "cap_per_day", "once_minutes"})
_YEAR = 366


def hygiene_of(tables: Mapping[str, Mapping[str, Any]], specs: Sequence[ServiceSpec], origin: str) -> Hygiene:
    """The rules of `[hygiene.NAME]`. Raises Misconfigured, naming the key and the file."""
    by_id = {spec.id: spec for spec in specs}
    rules = {}
    for name, table in tables.items():
        if name not in by_id:
            raise Misconfigured(f"[hygiene.{name}] in {origin} names no service")
        rules[name] = _rules(table, by_id[name], f"of [hygiene.{name}] in {origin}")
    return Hygiene(rules)


def _rules(table: Mapping[str, Any], spec: ServiceSpec, of: str) -> Rules:
    if unknown := sorted(set(table) - KEYS):
        raise Misconfigured(f"unknown key {unknown[0]!r} {of}")
    least, urgency = _threshold(table.get("threshold"), spec, of)
    quiet = _count(table, "quiet_hours", 24 * _YEAR, of)
    once = _count(table, "once_minutes", 24 * 60 * _YEAR, of)
    return Rules(
        least=least,
        urgency=urgency,
        quiet=timedelta(hours=quiet) if quiet is not None else None,
        cap=_count(table, "cap_per_day", 1000, of),
        once=timedelta(minutes=once) if once is not None else None,
    )


def _threshold(value: Any, spec: ServiceSpec, of: str) -> tuple[float | None, Indicator | None]:
    if value is None:
        return None, None
    if isinstance(value, str) and value in (Indicator.INFO, Indicator.WARNING):
        return None, Indicator(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Misconfigured(f"threshold {of} is neither a number nor 'info' or 'warning'")
    if spec.measure is None:
        raise Misconfigured(f"threshold {of} is a number, and this service measures nothing: use 'warning'")
    return float(value), None


def _count(table: Mapping[str, Any], key: str, most: int, of: str) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Misconfigured(f"{key} {of} is not a whole number from 1 to {most}")
    return value
