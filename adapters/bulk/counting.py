"""How much there is: asked before a pull (`--dry-run`), and beside what is here after one (`--verify`).

A search that wants no resources is answered with a Bundle whose `total` is the count (FHIR R4, search: `_summary` and
`_total`). Not every server does it: each type has a number, or the reason why there is none. What a server counts is
what this client may see; at the level of patients that may be more than an export gives, which leaves out what stands
in no patient's compartment.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from adapters.peer import Door
from models import strict
from models.errors import BadInput, CdsError, Misconfigured

MOST_ANSWER = 1024 * 1024
MOST_GROUP = 256 * 1024 * 1024
"""Bytes of a Group: some have a hundred thousand members."""
UNSAID = "the server does not say"
ONLY_SOME = "only some patients are asked for, and their ids are not put into a URL"
ACCEPT = "application/fhir+json"
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,255}")
_REASONS = {401: "refused (401)", 403: "refused (403)", 404: "the server does not know this type (404)"}


@dataclass(frozen=True, slots=True)
class Count:
    """A number, or why there is none."""

    number: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.number is None) == (self.reason is None):
            raise ValueError("a count is either a number or a reason")


Token = Callable[[], Awaitable[str]]


async def counts(
    door: Door,
    token: Token | None,
    base: str,
    types: Sequence[str],
    *,
    group: str | None = None,
    patients: Sequence[str] = (),
    since: str | None = None,
) -> Mapping[str, Count]:
    """How many resources of each type the server has, in the order of `types`.

    `base`: of the FHIR server, without a slash at its end. `since`: an instant; only what changed from then on. For a
    group, only its members can be counted (under `Patient`, where that is asked for). One request after the other.
    Never raises for what a server does: that is a reason. Errors: Misconfigured (no key to sign with).
    """
    if group is not None:
        found = dict.fromkeys(types, Count(reason=UNSAID))
        if "Patient" in found and not since:
            found["Patient"] = await members(door, token, base, group)
        return found
    if patients:
        return dict.fromkeys(types, Count(reason=ONLY_SOME))
    return {one: await _of_type(door, token, base, one, since) for one in types}


async def members(door: Door, token: Token | None, base: str, group: str) -> Count:
    """How many a Group has: entries that are not inactive, else its `quantity` (FHIR R4, Group)."""
    if not _ID.fullmatch(group):
        return Count(reason="that is no id of a group")
    resource = await _get(door, token, f"{base}/Group/{group}", MOST_GROUP)
    if isinstance(resource, str):
        return Count(reason=resource.replace("this type", "this group"))
    if resource.get("resourceType") != "Group":
        return Count(reason="answered with no Group")
    entries = resource.get("member")
    if isinstance(entries, list) and entries:
        return Count(sum(isinstance(one, dict) and one.get("inactive") is not True for one in entries))
    return _number(resource.get("quantity")) or Count(reason=UNSAID)


async def _of_type(door: Door, token: Token | None, base: str, resource_type: str, since: str | None) -> Count:
    """By `_summary=count`; where that has no total, by a page of no entries whose total is demanded."""
    if not _TYPE.fullmatch(resource_type):
        return Count(reason="that is no resource type")
    changed = f"&_lastUpdated=ge{quote(since, safe='')}" if since else ""
    reason = UNSAID
    for asked in ("_summary=count", "_total=accurate&_count=0"):
        bundle = await _get(door, token, f"{base}/{resource_type}?{asked}{changed}", MOST_ANSWER)
        if isinstance(bundle, str):
            reason = bundle
            if not bundle.startswith("answered 4"):  # only a parameter that it refuses is worth asking otherwise
                break
        elif bundle.get("resourceType") != "Bundle":
            reason = "answered with no Bundle"
        elif (total := _number(bundle.get("total"))) is not None:
            return total
        else:
            reason = "answered without a total"
    return Count(reason=reason)


async def _get(door: Door, token: Token | None, url: str, limit: int) -> Mapping[str, Any] | str:
    """A resource, or the reason why there is none."""
    try:
        headers = {"Accept": ACCEPT} | ({"Authorization": f"Bearer {await token()}"} if token else {})
        async with door.ask("GET", url, headers=headers) as reply:
            if reply.status != 200:
                return _REASONS.get(reply.status, f"answered {reply.status}")
            resource = strict.loads(await reply.body(limit), what="the answer")
    except BadInput:
        return "answered with what cannot be read"
    except Misconfigured:
        raise
    except CdsError as error:
        return error.what
    return resource if isinstance(resource, dict) else "answered with no resource"


def _number(value: Any) -> Count | None:
    return Count(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
