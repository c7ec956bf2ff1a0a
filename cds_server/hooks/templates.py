"""What may be written into a prefetch template: checked when the server starts, and of any server by `cds conformance`.

CDS Hooks 2.0.1, Prefetch Template, Prefetch tokens, Prefetch query restrictions. What 3.0 adds (FHIRPath in tokens) is
not published to a client of 2.0.
"""

from __future__ import annotations

import re

from cds_server.hooks.published import HookContext

PLACE = re.compile(r"\{\{(.*?)\}\}")
USER_TOKENS = {
    "userPractitionerId": "Practitioner/",
    "userPractitionerRoleId": "PractitionerRole/",
    "userPatientId": "Patient/",
    "userRelatedPersonId": "RelatedPerson/",
}

_READ = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]+")
_SEARCH = re.compile(r"[A-Z][A-Za-z]+")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9-]*(?::in)?|_count|_sort|_id|_lastUpdated")
_COUNT = re.compile(r"[1-9][0-9]{0,4}")
_SORT = re.compile(r"-?[A-Za-z_][A-Za-z0-9_-]*(?:,-?[A-Za-z_][A-Za-z0-9_-]*)*")
_FORBIDDEN_PREFIX = re.compile(r"(?:ne|sa|eb|ap)\d")
_MARK = "\x00"
"""Stands for a token while the rest is looked at."""


def lint(template: str, context: HookContext) -> list[str]:
    """What is not legal in a prefetch template for a hook with this context; empty: nothing.

    Tokens are root-level primitive fields of the context, or one of the four user tokens; the query stays in the
    recommended subset (instance read, type search, token equality or `:in`, dates with eq/lt/gt/ge/le, _count, _sort).
    """
    allowed = {f"context.{name}" for name in context.tokens} | set(USER_TOKENS)
    strange = [name for name in PLACE.findall(template) if name not in allowed]
    wrong = [f"{{{{{name}}}}} is not a prefetch token of this hook" for name in strange]
    plain = PLACE.sub(_MARK, template)
    if "{" in plain or "}" in plain:
        wrong.append("a brace stands outside a token")
    if re.search(r"[\s\"<>\\^`#]", plain):
        wrong.append("it holds a sign that no URL may hold")
    path, question, query = plain.partition("?")
    if not _path(template, path, bool(question)):
        wrong.append("it is neither an instance read nor a type search")
    for parameter in query.split("&") if question else ():
        wrong += _parameter(*parameter.partition("=")[::2])
    return wrong


def _path(template: str, path: str, search: bool) -> bool:
    """A read names its instance, by an id or by a field that is a whole reference (`{{context.performer}}`)."""
    if search:
        return _SEARCH.fullmatch(path) is not None
    whole = template in ("{{context.userId}}", "{{context.performer}}")
    return whole or _READ.fullmatch(path.replace(_MARK, "x")) is not None


def _parameter(name: str, value: str) -> list[str]:
    if not _PARAMETER.fullmatch(name):
        shown = name.replace(_MARK, "{{...}}")
        return [f"search parameter {shown} is outside the recommended subset"]
    legal = {"_count": _COUNT, "_sort": _SORT}.get(name)
    if not value or _FORBIDDEN_PREFIX.match(value) or (legal is not None and not legal.fullmatch(value)):
        return [f"the value of {name} is outside the recommended subset"]
    return []
