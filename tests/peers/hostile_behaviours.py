"""What a bulk server may do to its clients: each switch is one documented behaviour of a server in the field.

Where it was seen, or which clause allows it, stands at each. With no switch the server is polite: Bulk Data Access
2.0.0 (STU2) by GET and POST, a token for everything, absolute links, counts that are true.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import format_date_time

if TYPE_CHECKING:
    from tests.peers.hostile_bulk import HostileBulk

EPOCH_MILLISECONDS = "1795251165831"
"""Retry-After of bulk-data-server, which means it as seconds (seen by running it)."""
FIVE_HOURS = "18000"
"""What Oracle's server once asked for (a comment in smart-fetch's source)."""
GARBAGE = "soon"


@dataclass(frozen=True, slots=True)
class Behaviours:
    # -- tokens --------------------------------------------------------------------------------------------------------
    open: bool = False
    """Nobody is asked for a token."""
    token_seconds: float = 300
    """SMART Backend Services: SHOULD be at most 300; sekmet-fhir can be told 20."""
    token_uses: int | None = None
    """A token is good for so many requests: it ends in the middle of polling or of the files, whatever the clock."""
    bare_400: bool = False
    """A token that ended is answered 400 without a body, not 401 (Epic: smart-fetch 1.0.3)."""
    granted: str | None = None
    """Scopes of the token's answer, where they are not those asked for (RFC 6749, 5.1)."""

    # -- kick-off ------------------------------------------------------------------------------------------------------
    busy: int = 0
    """Kick-offs that are answered 429 first: one export at a time (Epic: for each client and group)."""
    relative_location: bool = False
    """Content-Location without an origin; STU3 demands an absolute one."""
    location: str | None = None
    """Content-Location as stated here: no URL at all, or of another origin."""
    stu4: bool = False
    """STU4 ballot (2026): no GET (405), `outcome` for `error`, `extension` a list, no `request`."""
    refused: str | None = None
    """A parameter that is answered 400 with an OperationOutcome that names it."""
    ignores_since: bool = False
    """Everything is sent, whatever `_since` says; what `_since` hides may also come of joiners (Group, optional)."""

    # -- polling -------------------------------------------------------------------------------------------------------
    polls: tuple[int, ...] = ()
    """Statuses of the first polls: 202, 429, 503 (OperationOutcome `transient`), 500 (`exception`), 404, 410, 401."""
    retry_after: str | None = None
    """With each 202 and 429: a date (cumulus-etl#374), milliseconds since 1970, five hours, garbage."""
    progress: str | None = None
    """X-Progress: free text of less than 100 characters."""
    redirect_status: HostileBulk | None = None
    """The status is answered 307, to another origin."""
    forgets: bool = False
    """The job ends with its manifest: 404 from then on (HAPI removes its own jobs)."""

    # -- the manifest --------------------------------------------------------------------------------------------------
    wrong_count: int = 0
    """Added to each true count; bulk-data-server stated 8 for a file of no lines."""
    stated_types: Mapping[str, str] = field(default_factory=dict)
    """Type of a file -> type that the manifest states; bulk-data-server called Patients Conditions."""
    without_error: bool = False
    """No `error` (LinuxForHealth/FHIR#2715)."""
    organized_by: str | None = None
    """`outputOrganizedBy`: "" (bulk-data-server), or a type: no `type` for each file, a Parameters header in it."""
    transaction_time: str | None = None
    """As stated here: without a zone or odd (cumulus-etl#332)."""
    time_is_end: bool = False
    """`transactionTime` is the end of the job (HAPI before April 2025, hapi-fhir#6841), not its beginning."""
    relative_urls: bool = False
    """LinuxForHealth/FHIR#2673."""
    duplicate_urls: bool = False
    """Each file stands there twice."""
    more_output: tuple[Mapping[str, Any], ...] = ()
    """Further entries, as they are: ftp:, file:, a host inside the network."""
    requires_token: bool | None = True
    """`requiresAccessToken`; None leaves it out. False: a token that comes along all the same is refused (400)."""
    manifest: bytes | None = None
    """The whole body, as it is."""
    pages: bool = False
    """One file a page, `link` of relation `next` (STU3)."""
    partial: bool = False
    """The same while the job goes on: 202 with a manifest, for whoever said `allowPartialManifests` (STU3)."""

    # -- the files -----------------------------------------------------------------------------------------------------
    files_at: HostileBulk | None = None
    """The origin that the links name. With `storage`, it refuses a token (S3 takes one credential, LFH#2874)."""
    redirect_files: HostileBulk | None = None
    """Files are answered 307, to another origin (Oracle: to storage, and the token must not follow)."""
    storage: bool = False
    """This server is such a storage: whoever shows a token gets 400."""
    links_last: int | None = None
    """Files that a manifest's links are good for; then 403, until the manifest is fetched again (STU3: servers may
    give new links)."""
    busy_files: int = 0
    """File requests that are answered 429 first (bulk-data-client#18)."""
    cut_off: int = 0
    """File requests that end in the middle: the connection closes before its Content-Length."""
    gzip: bool = False
    """Content-Encoding: gzip, which a client SHALL accept."""
    bomb: bool = False
    """Every file is gzip of 64 MiB of zeros."""
    damaged_gzip: bool = False
    bodies: Mapping[str, bytes] = field(default_factory=dict)
    """Type -> the file's bytes as they are; its count is that of the true file."""
    slow: float = 0
    """Seconds between the two halves of a file."""
    tiny: bool = False
    """A file for each resource: Oracle made more than 20,000 (bulk-data-client#18)."""
    huge: int = 0
    """One more file, of Observations, of about so many bytes; generated while it is sent."""
    subsetted: bool = False
    """Every resource is tagged SUBSETTED (R4, meta.tag), as `_elements` makes them."""
    only_elements: bool = False
    """`_elements` is honoured; without `subsetted`, nothing says so (R4 search.html: the tag is a SHOULD)."""
    outcomes: tuple[Mapping[str, Any], ...] = ()
    """OperationOutcomes of an error file, of any severity."""
    deleted: tuple[str, ...] = ()
    """`Type/id`, or `PUT Type/id` for an entry that is no deletion; sent with `_since` only (2.0.0, deleted)."""

    # -- afterwards ----------------------------------------------------------------------------------------------------
    delete_status: int = 202
    """Of DELETE: 404 (HAPI), 405."""


def in_seconds(seconds: float) -> str:
    """Retry-After as a date (RFC 9110, 10.2.3)."""
    return format_date_time((datetime.now(UTC) + timedelta(seconds=seconds)).timestamp())


def outcome(severity: str, code: str, text: str = "") -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": code, "diagnostics": text}]}


def ndjson(resources: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in resources)


def untidy(resources: Sequence[Mapping[str, Any]]) -> bytes:
    """The same lines with a byte order mark, Windows line ends, blank lines between them, and no end to the last."""
    lines = ndjson(resources).split(b"\n")[:-1]
    return b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines)


def damaged(resources: Sequence[Mapping[str, Any]]) -> bytes:
    """The same lines, and among them what is no resource: half a line, a list, a name twice, no id, another type."""
    bad = (
        b'{"resourceType":"Patient","id":"half',
        b'["Patient"]',
        b'{"resourceType":"Patient","id":"one","id":"two"}',
        b'{"resourceType":"Patient"}',
        b'{"resourceType":"Basic","id":"other","code":{"text":"x"}}',
        b"\x00\xff\xfe",
    )
    lines = ndjson(resources).split(b"\n")[:-1]
    return b"\n".join([*lines[:1], *bad, *lines[1:]]) + b"\n"


def deletions(entries: Iterable[str]) -> bytes:
    """One line: a transaction whose entries delete (Bulk Data Access 2.0.0, deleted)."""
    requests = [each.split(" ") if " " in each else ["DELETE", each] for each in entries]
    bundle = [{"request": {"method": method, "url": url}} for method, url in requests]
    return ndjson([{"resourceType": "Bundle", "type": "transaction", "entry": bundle}])
