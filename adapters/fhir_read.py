"""Reads on demand from the FHIR server of a call, with the token that the EHR handed us for this call.

CDS Hooks 2.0.1, FHIR Resource Access: the token is presented as a Bearer token, and is good for this call only. What is
read comes back as bytes, so that it can be kept as it came; the token is taken out of it where a server repeats it. A
search is followed through its pages, and never to another server than the one that was asked.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from models import strict
from models.errors import BadInput, PeerFailed

MAX_PAGES = 20
"""Of one search."""
ACCEPT = "application/fhir+json, application/json;q=0.9"
_PORTS = {"https": 443, "http": 80}


class Door(Protocol):
    """The way out; `cds_server.http.Outbound`."""

    async def get(self, url: str, headers: Mapping[str, str], *, limit: int) -> bytes:
        """The body of a 200 answer in JSON, of at most `limit` bytes. Errors: NotAllowed, PeerFailed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a read or search gave: its pages, each as it came and parsed."""

    pages: tuple[tuple[bytes, Mapping[str, Any]], ...]
    whole: bool
    """False: there are further pages that were not, or could not be, followed."""
    problem: str | None = None
    """Why it is not whole, in our words."""


@dataclass(slots=True)
class FhirServer:
    """One FHIR server during one call. The token stands in here only, and is gone with the call."""

    door: Door
    base: str
    """Without a slash at its end."""
    token: str = field(repr=False)
    budget: int
    """Bytes that all answers of this call may have together."""
    clean: Callable[[bytes, str], bytes] = field(repr=False)
    """Takes every occurrence of a token out of JSON. Errors: BadInput where that cannot be done."""

    async def read(self, url: str) -> Reading:
        """An instance read or a type search, by a URL relative to the base, or by a next link below it.

        Errors: PeerFailed, when not even the first page could be had. NotAllowed, for a link to another server.
        """
        pages: list[tuple[bytes, Mapping[str, Any]]] = []
        seen: set[str] = set()
        absolute = url.startswith(("https://", "http://"))  # a search may hold a whole URL: code=http://loinc.org|1-2
        at: str | None = url if absolute else f"{self.base}/{url}"
        while at is not None:
            if at in seen or len(pages) >= MAX_PAGES:
                return Reading(tuple(pages), False, "it has more pages than are followed")
            seen.add(at)
            try:
                page = await self._page(at)
            except PeerFailed as error:
                if not pages:
                    raise
                return Reading(tuple(pages), False, error.what)
            pages.append(page)
            at = next_link(page[1], at)
        return Reading(tuple(pages), True)

    async def _page(self, url: str) -> tuple[bytes, Mapping[str, Any]]:
        if not below(url, self.base):
            raise PeerFailed("its next page is on another server: not followed")
        body = await self.door.get(
            url, {"Authorization": f"Bearer {self.token}", "Accept": ACCEPT}, limit=max(0, self.budget)
        )
        self.budget -= len(body)
        try:
            body = self.clean(body, self.token)
            resource = strict.loads(body, what="the answer")
        except BadInput:
            raise PeerFailed("answered with what cannot be read") from None
        kind = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(kind, str) or kind == "OperationOutcome":
            raise PeerFailed("answered with no resource")
        return body, resource


def next_link(resource: Mapping[str, Any], at: str) -> str | None:
    """The absolute URL of the next page of a Bundle (FHIR R4, Bundle.link); None when this is the last."""
    links = resource.get("link") if resource.get("resourceType") == "Bundle" else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            return urljoin(at, str(link["url"]))
    return None


# ---- where a URL leads -----------------------------------------------------------------------------------------------


def below(url: str, base: str) -> bool:
    """Whether a URL is the base or stands below it: same scheme, host and port, a path that does not climb out."""
    asked, allowed = _split(url), _split(base)
    if asked is None or allowed is None:
        return False
    if (asked.scheme, asked.hostname, _port(asked)) != (allowed.scheme, allowed.hostname, _port(allowed)):
        return False
    path, root = _path(asked.path), _path(allowed.path)
    return path is not None and root is not None and (path == root or path.startswith(root.rstrip("/") + "/"))


def same(url: str, base: str) -> bool:
    """Whether two URLs are the same base, however host, default port or a slash at the end are written."""
    return below(url, base) and below(base, url)


def _split(url: str) -> SplitResult | None:
    """None for what different programs read differently: signs that do not belong, names before an @, odd ports."""
    if not url.isascii() or re.search(r"[\s\\<>\"^`{}\x00-\x1f\x7f]", url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in _PORTS and parts.hostname and "@" not in parts.netloc else None


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def _path(path: str) -> str | None:
    """The path as a server may resolve it, None where it climbs or hides a climb."""
    plain = unquote(unquote(path))
    if "\\" in plain or "//" in plain or any(step in (".", "..") for step in plain.split("/")):
        return None
    return posixpath.normpath(path or "/")
