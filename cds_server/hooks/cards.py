"""What a CDS service answers: nouns that cannot be wrong on the wire, and text that cannot run.

CDS Hooks 2.0.1, sections Card Attributes, Source, Suggestion, Action, System Actions, Link. An OPTIONAL member without
a value is omitted, never null or empty (Use of JSON). Text that came from a patient's record goes through `escape`: the
official sandbox shows `detail` as raw HTML, and script in it runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from cds_server.hooks.reasons import OverrideReason
from models.canonical import Noun, canonical, spell, without_none
from models.nouns import JSON, Coding

MAX_SUMMARY = 139
"""`summary` is one sentence of fewer than 140 characters."""


class Indicator(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class SelectionBehavior(StrEnum):
    AT_MOST_ONE = "at-most-one"
    ANY = "any"


class ActionType(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class LinkType(StrEnum):
    ABSOLUTE = "absolute"
    SMART = "smart"


def _need(value: str, name: str) -> None:
    if not value or value.isspace():
        raise ValueError(f"{name} is empty")


def _need_url(url: str, name: str) -> None:
    if not _is_absolute(url):
        raise ValueError(f"{name} is not an absolute URL")


@lru_cache(maxsize=64)
def _is_absolute(url: str) -> bool:
    """The few addresses of a release and of a configuration: each is looked at once."""
    parts = urlsplit(url)
    return parts.scheme in ("https", "http") and bool(parts.netloc) and not re.search(r"[\s<>\"]", url)


@dataclass(frozen=True, slots=True)
class Source:
    label: str
    topic: Coding
    """OPTIONAL in CDS Hooks, mandatory in the Da Vinci CRD guide: always sent."""
    url: str | None = None
    icon: str | None = None

    def __post_init__(self) -> None:
        _need(self.label, "source.label")
        _need(self.topic.system, "source.topic.system")
        _need(self.topic.code, "source.topic.code")
        for url, name in ((self.url, "source.url"), (self.icon, "source.icon")):
            if url is not None:
                _need_url(url, name)


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do in the EHR: in a suggestion when a person chooses it, or as a system action without asking."""

    type: ActionType
    description: str
    """REQUIRED in a suggestion; sent for system actions, too (the table of 2.0 asks for it, its example has none)."""
    resource: JSON | None = None
    """The new resource (create), or the whole changed one (update), never only what changed."""
    resource_id: str | None = None
    """`Type/id` of what is to be deleted."""

    def __post_init__(self) -> None:
        _need(self.description, "action.description")
        if self.type is ActionType.DELETE:
            if self.resource is not None or not _REFERENCE.fullmatch(self.resource_id or ""):
                raise ValueError("a delete action has a resourceId Type/id and no resource")
            return
        resource = self.resource or {}
        if self.resource_id is not None or not _TYPE.fullmatch(resource.get("resourceType", "")):
            raise ValueError("a create or update action has a FHIR resource and no resourceId")
        if self.type is ActionType.UPDATE and not _ID.fullmatch(resource.get("id", "")):
            raise ValueError("an update action has the whole resource, with the id of what it changes")
        if at := _empty(resource, "resource"):
            raise ValueError(f"{at} is empty: FHIR JSON has no empty members")


_TYPE = re.compile(r"[A-Z][A-Za-z]+")
_ID = re.compile(r"[A-Za-z0-9.-]+")
"""Longer than FHIR's 64 characters where an EHR's ids are."""
_REFERENCE = re.compile(f"{_TYPE.pattern}/{_ID.pattern}")


def _empty(value: Any, at: str) -> str | None:
    """Where in a resource something is null, "", [] or {} (FHIR R4, JSON representation)."""
    if value is None or value in ("", [], (), {}):
        return at
    if isinstance(value, Mapping):
        return next((found for name, each in value.items() if (found := _empty(each, f"{at}.{name}"))), None)
    if isinstance(value, (list, tuple)):
        return next((found for n, each in enumerate(value) if (found := _empty(each, f"{at}[{n}]"))), None)
    return None


class Suggestion(Noun, frozen=True):
    label: str
    uuid: str
    actions: tuple[Action, ...] = ()
    recommended: bool = False

    def __post_init__(self) -> None:
        _need(self.label, "suggestion.label")
        _need(self.uuid, "suggestion.uuid")


class Link(Noun, frozen=True):
    label: str
    url: str
    type: LinkType
    app_context: str | None = None
    """Opaque; reaches the SMART app in its token response, never in the URL."""
    autolaunchable: bool = False
    """The client may open it at once and show no card: only where the app says all that the card says."""

    def __post_init__(self) -> None:
        _need(self.label, "link.label")
        _need_url(self.url, "link.url")
        if self.app_context is not None:
            _need(self.app_context, "link.appContext")
        if self.app_context is not None and self.type is not LinkType.SMART:
            raise ValueError("appContext belongs to smart links only")


@dataclass(frozen=True, slots=True)
class Card:
    uuid: str
    """Always sent: without it a client reports no feedback (CDS Hooks 2.0.1, Feedback)."""
    summary: str
    """Plain text, cut to fewer than 140 characters."""
    indicator: Indicator
    source: Source
    detail: str | None = None
    """GitHub Flavored Markdown; text from outside already through `escape`."""
    suggestions: tuple[Suggestion, ...] = ()
    selection_behavior: SelectionBehavior | None = None
    override_reasons: tuple[OverrideReason, ...] = ()
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", cut(self.summary))
        _need(self.uuid, "card.uuid")
        _need(self.summary, "card.summary")
        if self.detail is not None:
            _need(self.detail, "card.detail")
        if bool(self.suggestions) != (self.selection_behavior is not None):
            raise ValueError("selectionBehavior goes with suggestions, and only with them")
        if self.suggestions:
            recommended = [suggestion.recommended for suggestion in self.suggestions].count(True)
            if recommended > 1 and self.selection_behavior is not SelectionBehavior.ANY:
                raise ValueError("more than one recommended suggestion needs selectionBehavior any")
            if len({self.uuid, *[suggestion.uuid for suggestion in self.suggestions]}) != 1 + len(self.suggestions):
                raise ValueError("a card and its suggestions have a uuid of their own each")
        if len({(reason.system, reason.code) for reason in self.override_reasons}) != len(self.override_reasons):
            raise ValueError("two override reasons have one code")


# ---- the wire --------------------------------------------------------------------------------------------------------


def render(card: Card) -> dict[str, Any]:
    """The card as JSON goes out: members in the order of the specification's table, none empty."""
    plain: dict[str, Any] = {"uuid": card.uuid, "summary": card.summary}
    if card.detail is not None:
        plain["detail"] = card.detail
    plain["indicator"] = str(card.indicator)
    plain["source"] = _source(card.source)
    if card.suggestions:
        plain["suggestions"] = [_suggestion(suggestion) for suggestion in card.suggestions]
        plain["selectionBehavior"] = str(card.selection_behavior)
    if card.override_reasons:
        plain["overrideReasons"] = [reason.plain() for reason in card.override_reasons]
    if card.links:
        plain["links"] = [_link(link) for link in card.links]
    return plain


def card_bytes(rendered: JSON) -> bytes:
    """RFC 8785 of a card as it goes out: text and booleans by its types; of an action's resource, nobody knows."""
    acts = any("actions" in suggestion for suggestion in rendered.get("suggestions", ()))
    return canonical(rendered) if acts else spell(rendered)


def _source(source: Source) -> dict[str, Any]:
    return without_none({"label": source.label, "url": source.url, "icon": source.icon, "topic": source.topic.plain()})


def _suggestion(suggestion: Suggestion) -> dict[str, Any]:
    plain: dict[str, Any] = {"label": suggestion.label, "uuid": suggestion.uuid}
    if suggestion.recommended:
        plain["isRecommended"] = True
    if suggestion.actions:
        plain["actions"] = [render_action(action) for action in suggestion.actions]
    return plain


def render_action(action: Action) -> dict[str, Any]:
    """An action as JSON goes out: of a suggestion, or a system action."""
    return without_none(
        {
            "type": action.type.value,
            "description": action.description,
            "resource": dict(action.resource) if action.resource else None,
            "resourceId": action.resource_id,
        }
    )


def _link(link: Link) -> dict[str, Any]:
    plain: dict[str, Any] = {"label": link.label, "url": link.url, "type": str(link.type)}
    if link.app_context is not None:
        plain["appContext"] = link.app_context
    if link.autolaunchable:
        plain["autolaunchable"] = True
    return plain


# ---- text ------------------------------------------------------------------------------------------------------------

_WORD_JOINER = "\u2060"
_SPACES = re.compile(r"\s+")
_PUNCTUATION = re.compile(
    r"[!-$&')-+.:<-@\[-`{-~-]"  # ASCII punctuation but `, ; / % (`, of which nothing can come; nor can it of
    r"(?<![0-9A-Za-z][+-])"  # a sign or hyphen after a letter or digit,
    r"(?<![^0-9]\))"  # a bracket after anything but a digit,
    r"(?!(?<=[0-9]\.)[0-9])"  # a decimal point,
    r"(?!(?<=[0-9A-Za-z]:)(?:[ 0-9]|\Z))"  # a colon in a time, or after a word
)
"""What `_escaped` is asked about: what ordinary text is full of stays without a question."""
_NEVER = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Controls, formatting (bidirectional overrides, zero-width marks), lone surrogates, private use, unassigned."""
_JOINERS = "\u200c\u200d"
"""Persian, Indic scripts and emoji need them."""


def clean(text: str) -> str:
    """One line without controls, invisible marks or runs of space: what a person can see, and no more."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    line = _SPACES.sub(" ", text)
    return " ".join("".join(c for c in line if c in _JOINERS or unicodedata.category(c) not in _NEVER).split())


def escape(text: str) -> str:
    """Text from outside, as Markdown and as HTML that shows exactly this text and does nothing.

    Every ASCII punctuation character that could begin or end a tag, an entity, emphasis, code, a link, a list, a
    heading or a table cell becomes a numeric character reference, which GitHub Flavored Markdown (6.2) takes as literal
    text, and HTML too. What stays as it is, because nothing can come of it: `, ; / % (`, and `. - + : )` where they
    belong to a number, a date or a sentence ("2.5 mm", "2018-03-16", "+6.0", "HER2+", "(pN0)."). Autolink extensions
    look at text after references are resolved, so an invisible word joiner stands inside what they would find (`www.`,
    `://`, `@`).
    """
    return _PUNCTUATION.sub(_escaped, clean(text))


words = lru_cache(maxsize=2048)(escape)
"""The same for words of a release and numbers, which stand on one card as on the next: escaped once, while they come
again. Text of a patient's record goes through `escape`, and is not kept."""


def _escaped(found: re.Match[str]) -> str:
    line, at = found.string, found.start()
    mark, before, after = line[at], line[at - 1 : at], line[at + 1 : at + 2]
    if mark in "+-" and (before.isalnum() or after.isdigit()):
        return mark
    if mark == ")" and not _numbers_a_list(line, at):
        return mark
    if mark == "." and (
        (before.isdigit() and after.isdigit()) or (after in ("", " ") and not _numbers_a_list(line, at))
    ):
        return mark
    if mark == ":" and before.isalnum() and (not after or after in " 0123456789"):
        return mark
    joiner = _WORD_JOINER if mark in ".:@" and after not in ("", " ") else ""
    return f"{joiner if mark != ':' else ''}&#{ord(mark)};{joiner}"


def _numbers_a_list(line: str, at: int) -> bool:
    """`1.` and `1)` begin an ordered list, at the start of a line only (GitHub Flavored Markdown 5.2)."""
    return not line[:at].strip("0123456789")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: bool = False) -> str:
    """A table of GitHub Flavored Markdown; every cell is escaped, as `words`. `numeric`: all columns but the first
    align right."""
    lines = [heading(tuple(header), numeric=numeric)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError("a row is as wide as its header")
        lines.append(_line([words(cell) for cell in row]))
    return "\n".join(lines)


@lru_cache(maxsize=64)
def heading(header: tuple[str, ...], *, numeric: bool = False) -> str:
    """The first two lines of a table, for whoever writes the others: cells escaped one by one, between ` | `."""
    align = ["---", *(["---:" if numeric else "---"] * (len(header) - 1))]
    return f"{_line([escape(cell) for cell in header])}\n{_line(align)}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cut(text: str, limit: int = MAX_SUMMARY) -> str:
    """One line of at most `limit` UTF-16 units (what JavaScript counts), ended by an ellipsis if something was lost.

    It is cut between words, which is always between grapheme clusters; a single longer word is cut before a base
    character (no mark, joiner, variation selector, emoji modifier or second half of a flag may follow the cut: a
    stricter rule than UAX 29, GB9 to GB13).
    """
    line = clean(text).replace("<", "\u2039").replace(">", "\u203a")
    if _utf16(line) <= limit:
        return line
    end = min(len(line), limit - 1)
    while end and (_utf16(line[:end]) > limit - 1 or not _boundary(line, end)):
        end -= 1
    space = line.rfind(" ", 0, end + 1)
    while space > 0 and not _boundary(line, space + 1):
        space = line.rfind(" ", 0, space)
    if space > limit // 2:
        end = space
    return line[:end].rstrip(" ,;:") + "\u2026"


def _utf16(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _boundary(text: str, at: int) -> bool:
    """May the text be cut before the character at `at`?"""
    after, before = text[at : at + 1], text[at - 1]
    return not (
        unicodedata.category(after or " ").startswith("M")
        or "\u200d" in (before, after)
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or "\U0001f1e6" <= after <= "\U0001f1ff"
        or "\u1160" <= after <= "\u11ff"
    )
