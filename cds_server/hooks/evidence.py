"""What a number on a card rests on: each input with its value, date and origin, what is missing, cautions, the record.

The same on every card of every service, so that a clinician learns to read it once.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache, lru_cache
from operator import itemgetter

from cds_server.hooks.cards import Link, LinkType, Source, escape, heading, words
from cds_server.hooks.service import CardGuide
from models.nouns import Fact, Feature, Judgement, Snapshot

TOPICS = "https://cds-server.org/fhir/CodeSystem/topics"
_COLUMNS = ("Input", "Value", "Dated", "From")


def features(judgement: Judgement) -> dict[str, Feature]:
    """Every feature by its name."""
    return {feature.name: feature for vector in judgement.vectors for feature in vector.features}


def is_read(feature: Feature) -> bool:
    """From the record, or from the request; not a parameter of the release."""
    return not feature.missing and bool(feature.facts or feature.note)


def links(guide: CardGuide, source: Source) -> tuple[Link, ...]:
    """One link: to the full reasoning where there is an app to show it, else to what is published about the method."""
    if guide.smart_app:
        context = f'{{"inference":"{guide.inference}"}}'
        return (Link("Open the full reasoning", f"{guide.public_url}/app/launch", LinkType.SMART, app_context=context),)
    return _published(source.label, source.url) if source.url else ()


@cache
def _published(label: str, url: str) -> tuple[Link, ...]:
    """The same on every card of a service."""
    return (Link(f"About the {label}", url, LinkType.ABSOLUTE),)


def inputs(known: Sequence[Feature], titles: Mapping[str, str], snapshot: Snapshot, *, clock: bool = False) -> str:
    """A table of the inputs that were read. `clock`: vital signs, whose age is told in hours and minutes."""
    if not known:
        return ""
    facts, now = {fact.id: fact for fact in snapshot.facts}, snapshot.clinical_time
    rows = [_row(feature, titles[feature.name], _behind(feature, facts), now, clock) for feature in known]
    return "\n".join(["**What it rests on**", "", heading(_COLUMNS), *rows])


def missing(lacking: Sequence[Feature], titles: Mapping[str, str]) -> str:
    told = [titles[each.name] + (f" ({each.note.removeprefix('unknown: ')})" if each.note else "") for each in lacking]
    return f"**Not known:** {words('; '.join(told))}" if told else ""


def cautions(judgement: Judgement) -> str:
    told = [caution for vector in judgement.vectors for caution in vector.cautions]
    snapshot = judgement.snapshot
    if True in [fact.test for fact in snapshot.facts]:
        told.append("some of these data are marked as test data")
    told += [f"{each}; it had no part in this" for each in snapshot.context.get("lacking", ())]
    if unread := len(snapshot.context.get("unread", ())):
        what = "one resource" if unread == 1 else f"{unread} resources"
        told.append(f"{what} of this request could not be read and had no part in this")
    return "**Please check**\n\n" + "\n".join(f"- {escape(sentence(each))}" for each in told) if told else ""


@cache
def limits(text: str, population: str) -> str:
    """Words of the release, not of a patient: escaped once."""
    return f"*{escape(f'{text} {population}')}*"


def population(judgement: Judgement) -> str:
    return str(judgement.model.manifest.get("population", {}).get("text", ""))


def record(judgement: Judgement, guide: CardGuide) -> str:
    """What the answer lacks besides data; which model, the data of each source as of when, and the record of it."""
    newest = sorted(guide.sources.items(), key=_instant, reverse=True)
    as_of = ", ".join([f"{_minute(at)} ({source})" for source, at in newest]) or _minute(guide.data_as_of)
    model = words(f"Model {judgement.model.name} {judgement.model.version}")
    lacks = f"**Partial answer:** {escape(sentence('; '.join(guide.partial)))}\n\n" if guide.partial else ""
    return f"{lacks}{model} · {escape(f'data as of {as_of}')} · {escape(f'record {guide.inference}')}"


_instant = itemgetter(1)


def _minute(instant: str) -> str:
    return instant[:16].replace("T", " ") + " UTC"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _behind(feature: Feature, facts: Mapping[str, Fact]) -> list[Fact]:
    """Its facts, in the order of the snapshot."""
    if len(feature.facts) == 1:
        fact = facts.get(feature.facts[0])
        return [fact] if fact is not None else []
    return [fact for ref, fact in facts.items() if ref in feature.facts]


def _row(feature: Feature, title: str, facts: Sequence[Fact], now: str, clock: bool) -> str:
    """A line of the table. Only its last cell may hold text of the record."""
    value = feature.label or f"{feature.value:g}"
    if feature.note and feature.facts:
        value += f" ({feature.note})"
    effective = feature.effective or max((fact.effective for fact in facts if fact.effective), default=None)
    origin = escape(_origin(facts) or feature.note or "")
    return f"| {words(title)} | {words(value)} | {_dated(effective, now, clock)} | {origin} |"


def _dated(effective: str | None, now: str, clock: bool) -> str:
    """How long ago, and when: escaped."""
    if not effective:
        return "–"
    if clock and "T" in effective:
        told = f"{age_of_day(effective, now)}, {effective[:16].replace('T', ' ')}{_zone(effective)}"
        return escape(told)
    return _day(effective[:10], now[:10])


@lru_cache(maxsize=1024)
def _day(day: str, today: str) -> str:
    """The results of one card, and of one day's, bear the same few days."""
    return escape(f"{age(day, today)}, {day}")


def _zone(effective: str) -> str:
    return " UTC" if effective.endswith("Z") else f" {effective[-6:]}"


def _origin(facts: Sequence[Fact]) -> str:
    """Which documents say so, and in which words where a measured value was converted."""
    told = []
    for fact in facts[:2]:
        converted = fact.number is not None and fact.original and fact.original != f"{fact.number} {fact.unit}"
        told.append(f"{fact.source.resource} ({fact.original})" if converted else fact.source.resource)
    more = len(facts) - len(told)
    return "; ".join(told) + (f"; {more} more" if more else "")


_DATE = re.compile(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?")


def age(effective: str, now: str) -> str:
    """How long ago, in the unit that a person would use, never finer than the source's own precision."""
    parts = _DATE.match(effective)
    if parts is None:
        return "of unknown date"
    year, month, day = (int(part) if part else None for part in parts.groups())
    today = date.fromisoformat(now[:10])
    if year is None or month is None:
        return _ago(today.year - (year or today.year), "year")
    months = (today.year - year) * 12 + today.month - month
    if day is not None and day <= monthrange(year, month)[1]:
        days = (today - date(year, month, day)).days
        if days < 60:
            return _ago(days, "day")
        months -= today.day < day
    return _ago(months, "month") if months < 24 else _ago(months // 12, "year")


def age_of_day(effective: str, now: str) -> str:
    """The same for what was observed with its time of day, within two days: in minutes and hours."""
    try:
        minutes = int((datetime.fromisoformat(now) - datetime.fromisoformat(effective)).total_seconds() // 60)
    except (ValueError, TypeError):  # not an instant, or one without a zone
        return age(effective, now)
    if not 0 <= minutes < 48 * 60:
        return age(effective, now)
    return f"{minutes} min ago" if minutes < 120 else f"{minutes // 60} hours ago"


def _ago(count: int, unit: str) -> str:
    if count < 0:
        return "in the future"
    if count == 0:
        return "today" if unit == "day" else f"this {unit}"
    return f"{count} {unit}{'s' if count > 1 else ''} ago"
