"""What the page shows: a chart from a hook request's own resources, a card as HTML that cannot run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token
from markupsafe import Markup

from models.nouns import JSON

_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"]).disable("image")
)
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b", re.ASCII)


def _text(_renderer: Any, tokens: Sequence[Token], at: int, _options: Any, _env: Any) -> str:
    """Plain text, escaped; a date stays in one piece where the line breaks."""
    return _DATE.sub(r'<span class="date">\g<0></span>', escapeHtml(tokens[at].content))


_MARKDOWN.add_render_rule("text", _text)


def markdown(text: str) -> Markup:
    """A card's `detail` as HTML: GitHub's tables, no HTML of its own, no images; links are checked by the renderer.

    The alignment of a column becomes a class: the page's policy allows no inline style.
    """
    tokens = _MARKDOWN.parse(text)
    for token in tokens:
        if token.attrs.pop("style", None) == "text-align:right":
            token.attrSet("class", "right")
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return Markup(html)  # noqa: S704 - the renderer escapes; HTML in the text is switched off


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


# ---- the chart -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a chart list."""

    what: str
    value: str = ""
    when: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    name: str
    about: str
    """Sex, date of birth, age."""
    brief: str
    """Sex and age."""
    number: str
    """Medical record number."""
    problems: tuple[Line, ...] = ()
    results: tuple[Line, ...] = ()
    treatments: tuple[Line, ...] = ()
    orders: tuple[Line, ...] = ()
    """Drafts that wait for a signature."""


def chart(request: JSON, today: date) -> Chart:
    """The chart of the patient whom a hook request is about, from its prefetch and draft orders."""
    drafts = _resources({"draftOrders": request.get("context", {}).get("draftOrders")})
    return chart_of(list(_resources(request.get("prefetch") or {})), list(drafts), today)


def chart_of(found: Sequence[JSON], drafts: Sequence[JSON], today: date) -> Chart:
    """The chart that these resources make, the first Patient of which it is about."""
    patient = next((each for each in found if each.get("resourceType") == "Patient"), {})

    def of(*types: str) -> list[JSON]:
        chosen = [each for each in found if each.get("resourceType") in types]
        return sorted(chosen, key=_when, reverse=True)

    return Chart(
        name=_name(patient) or str(patient.get("id", "")),
        about=_about(patient, today),
        brief=", ".join(part for part in (str(patient.get("gender", "")), _age(patient, today)) if part),
        number=_number(patient),
        problems=tuple(Line(_words(each.get("code")), _status(each), _when(each)) for each in of("Condition")),
        results=tuple(_result(each) for each in of("Observation")),
        treatments=tuple(
            Line(ordered(each), str(each.get("status", "")), _when(each))
            for each in of("Procedure", "MedicationRequest")
        ),
        orders=tuple(Line(ordered(each), _dosage(each), _when(each)) for each in drafts),
    )


def _resources(holder: JSON) -> Iterator[dict[str, Any]]:
    for value in holder.values():
        if not isinstance(value, dict):
            continue
        if value.get("resourceType") == "Bundle":
            for entry in value.get("entry", []):
                yield from _resources({"resource": entry.get("resource")})
        elif "resourceType" in value:
            yield value


def _name(patient: JSON) -> str:
    names = patient.get("name") or [{}]
    return names[0].get("text") or " ".join([*names[0].get("given", []), names[0].get("family", "")]).strip()


def _about(patient: JSON, today: date) -> str:
    born = f"born {patient['birthDate']}" if "birthDate" in patient else ""
    return " · ".join(part for part in (str(patient.get("gender", "")), born, _age(patient, today)) if part)


def _age(patient: JSON, today: date) -> str:
    born = str(patient.get("birthDate", ""))
    if len(born) != 10:
        return ""
    birth = date.fromisoformat(born)
    return f"{today.year - birth.year - ((today.month, today.day) < (birth.month, birth.day))} years"


def _number(patient: JSON) -> str:
    return next((str(each["value"]) for each in patient.get("identifier", []) if "value" in each), "")


def _words(concept: Any) -> str:
    if not isinstance(concept, dict):
        return "—"
    coding = (concept.get("coding") or [{}])[0]
    words = concept.get("text") or coding.get("display") or coding.get("code") or "—"
    return str(words).partition(" (")[0] if str(words).endswith(")") else str(words)


def ordered(order: JSON) -> str:
    """What a request or an act is about, in words."""
    return _words(order.get("medicationCodeableConcept") or order.get("code"))


def _dosage(order: JSON) -> str:
    return str((order.get("dosageInstruction") or [{}])[0].get("text", ""))


def is_cancer(condition: JSON) -> bool:
    """By its words: enough for the fixtures, and for no other chart."""
    return re.search(r"malignan|cancer", _words(condition.get("code")), re.IGNORECASE) is not None


def _status(condition: JSON) -> str:
    return _words(condition.get("clinicalStatus")) if "clinicalStatus" in condition else ""


def _when(resource: JSON) -> str:
    for name in ("effectiveDateTime", "performedDateTime", "onsetDateTime", "authoredOn", "recordedDate", "issued"):
        if name in resource:
            return str(resource[name])[:10]
    for name in ("effectivePeriod", "performedPeriod"):
        if name in resource:
            return str(resource[name].get("start", ""))[:10]
    return ""


def _result(observation: JSON) -> Line:
    parts = [f"{_words(each.get('code'))} {_value(each)}" for each in observation.get("component", []) if _value(each)]
    value = _value(observation) or "; ".join(parts) or "no value recorded"
    return Line(_words(observation.get("code")), value, _when(observation))


def _value(holder: JSON) -> str:
    quantity = holder.get("valueQuantity")
    if isinstance(quantity, dict):
        number = f"{quantity.get('comparator', '')}{quantity.get('value', '')}"
        return f"{number} {quantity.get('unit') or quantity.get('code') or ''}".strip()
    if "valueCodeableConcept" in holder:
        return _words(holder["valueCodeableConcept"])
    plain = next((holder[name] for name in ("valueString", "valueInteger", "valueDateTime") if name in holder), "")
    return str(plain)


# ---- the card --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """A card as the page shows it."""

    uuid: str
    summary: str
    indicator: str
    source: str
    source_url: str
    detail: Markup
    suggestions: tuple[JSON, ...]
    reasons: tuple[JSON, ...]
    links: tuple[JSON, ...]


def show(card: JSON) -> Shown:
    """Any server's card; what it lacks is empty, what could run is not shown."""
    source = card.get("source") or {}
    return Shown(
        uuid=str(card.get("uuid", "")),
        summary=str(card.get("summary", "")),
        indicator=card["indicator"] if card.get("indicator") in ("info", "warning", "critical") else "info",
        source=str(source.get("label", "")),
        source_url=_web(source.get("url")),
        detail=markdown(str(card.get("detail", ""))),
        suggestions=tuple(card.get("suggestions", ())),
        reasons=tuple(card.get("overrideReasons", ())),
        links=tuple({**link, "url": _web(link.get("url"))} for link in card.get("links", ())),
    )


def _web(url: Any) -> str:
    return url if isinstance(url, str) and urlsplit(url).scheme in ("http", "https") else ""
