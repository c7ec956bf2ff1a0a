"""What happened during an export, one JSON object a line, in the form that other bulk clients write and analysts read.

"Bulk Data Export Log Items", a page of the wiki of smart-on-fhir/bulk-data-client; its client and smart-fetch 1.0.3
write it, Cumulus reads it. Each line has `exportId`, `timestamp`, `eventId` and `eventDetail`.

    kickoff                what was asked, of which software, and whether it was taken
    status_progress        asked, and it is not ready
    status_error           asked, and that failed
    status_page_complete   one page of the manifest is there
    status_complete        the job of the server is done
    manifest_complete      all pages are there
    download_request       a file is asked for (again: a second line)
    download_complete      a file is here and was checked
    download_error         a file did not come
    export_complete        every file is here

The page leaves the parameter `patient` out. We leave out more, so that a log can be handed on: each query of a URL
(links are signed there), the values of type filters, what the server says in its own words, and all headers but those
that `HEADERS` names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from models.nouns import instant

HEADERS = (
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "preference-applied",
    "retry-after",
    "server",
    "x-progress",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-request-id",
)
"""Of an answer: they help to find a fault, and name neither a person nor a secret."""
PARAMETERS = (
    "_outputFormat",
    "_type",
    "_since",
    "_until",
    "_elements",
    "includeAssociatedData",
    "organizeOutputBy",
    "allowPartialManifests",
)
"""Of a kick-off, told with their values; of `_typeFilter` only the type and the names of the search parameters."""
MOST_CHARACTERS = 100
"""Of a header's value (Bulk Data: X-Progress is shorter than that)."""


class ExportLog:
    """Writes the events of one export; keeps the sums that its last event tells.

    A job that is taken up again writes on: `began` is when it was kicked off first.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        export_id: str,
        clock: Callable[[], datetime],
        *,
        began: datetime | None = None,
    ) -> None:
        self._write = write
        self._export_id = export_id
        self._clock = clock
        self._began = began
        self._files = self._resources = self._bytes = 0
        self._pages = {"Output": 0, "Deleted": 0, "Error": 0, "manifests": 0}

    def kickoff(
        self,
        url: str,
        parameters: Iterable[tuple[str, str]],
        *,
        headers: Mapping[str, str],
        software: Mapping[str, str | None] | None = None,
        fhir_version: str | None = None,
        refused: int | None = None,
        why: str | None = None,
    ) -> None:
        """The answer to a kick-off. `software`: name, version, releaseDate of the CapabilityStatement, where known.
        `refused`: its status, if it is no 202, and `why` in our words."""
        told = software or {}
        self._event(
            "kickoff",
            {
                "exportUrl": without_query(url),
                "errorCode": refused,
                "errorBody": why,
                "softwareName": told.get("name"),
                "softwareVersion": told.get("version"),
                "softwareReleaseDate": told.get("releaseDate"),
                "fhirVersion": fhir_version,
                "requestParameters": harmless_parameters(parameters),
                "responseHeaders": harmless_headers(headers),
            },
        )

    def status_progress(self, *, progress: str | None, retry_after: str | None) -> None:
        """A 202 of the status. Both are the headers as they came; the body is not told."""
        self._event("status_progress", {"body": None, "xProgress": _short(progress), "retryAfter": _short(retry_after)})

    def status_error(self, *, code: int | None, headers: Mapping[str, str], why: str) -> None:
        """`code`: None where no answer came."""
        self._event("status_error", _failure(code, headers, why))

    def status_page_complete(self, *, transaction_time: str | None, output: int, deleted: int, error: int) -> None:
        """Files of one page of the manifest, by kind."""
        for kind, count in (("Output", output), ("Deleted", deleted), ("Error", error), ("manifests", 1)):
            self._pages[kind] += count
        counts = {"outputFileCount": output, "deletedFileCount": deleted, "errorFileCount": error}
        self._event("status_page_complete", {"transactionTime": transaction_time, **counts})

    def status_complete(self, *, transaction_time: str | None) -> None:
        self._event("status_complete", {"transactionTime": transaction_time})

    def manifest_complete(self, *, transaction_time: str | None) -> None:
        """The sums of the pages that were told before."""
        counts = {f"total{kind}FileCount": self._pages[kind] for kind in ("Output", "Deleted", "Error")}
        counts["totalManifests"] = self._pages["manifests"]
        self._event("manifest_complete", {"transactionTime": transaction_time, **counts})

    def download_request(self, url: str, *, item: str, resource_type: str | None) -> None:
        """`item`: output, deleted or error."""
        detail = {"fileUrl": without_query(url), "itemType": item, "resourceType": resource_type}
        self._event("download_request", detail)

    def download_complete(self, url: str, *, resources: int, size: int) -> None:
        """`resources`: lines; `size`: bytes, unpacked."""
        self._files += 1
        self._resources += resources
        self._bytes += size
        detail = {"fileUrl": without_query(url), "resourceCount": resources, "fileSize": size}
        self._event("download_complete", detail)

    def download_error(self, url: str, *, code: int | None, headers: Mapping[str, str], why: str) -> None:
        self._event("download_error", {"fileUrl": without_query(url), **_failure(code, headers, why)})

    def export_complete(
        self, *, files: int | None = None, resources: int | None = None, size: int | None = None
    ) -> None:
        """`duration` in milliseconds since the kick-off. The sums are those of this log's own lines, unless a job that
        was taken up again knows more."""
        now = self._clock()
        detail = {
            "files": self._files if files is None else files,
            "resources": self._resources if resources is None else resources,
            "bytes": self._bytes if size is None else size,
            "attachments": 0,
            "duration": max(0, round((now - (self._began or now)).total_seconds() * 1000)),
        }
        self._event("export_complete", detail, now)

    def _event(self, event_id: str, detail: Mapping[str, Any], now: datetime | None = None) -> None:
        now = now or self._clock()
        self._began = self._began or now
        item = {"exportId": self._export_id, "timestamp": instant(now), "eventId": event_id, "eventDetail": detail}
        self._write(json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


# ---- what may be told ------------------------------------------------------------------------------------------------


def without_query(url: str) -> str:
    """A URL without query, fragment and whoever stands before an @."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def harmless_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of `HEADERS`, names in lower case, values cut."""
    given = {name.lower(): value for name, value in headers.items()}
    return {name: str(_short(given[name])) for name in HEADERS if name in given}


def harmless_parameters(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Those of `PARAMETERS`, a repeated one joined by a comma; of a type filter the type and the names it asks by."""
    told: dict[str, list[str]] = {}
    for name, value in parameters:
        if name in PARAMETERS:
            told.setdefault(name, []).append(value)
        elif name == "_typeFilter":
            told.setdefault(name, []).append(_filter_names(value))
    return {name: ",".join(values) for name, values in told.items()}


def _filter_names(type_filter: str) -> str:
    """`Observation?code=1234-5&date=ge2026` is told as `Observation?code&date`: values can name a person."""
    resource_type, _, search = type_filter.partition("?")
    names = [name for name, sign, _ in (part.partition("=") for part in search.split("&")) if sign]
    return (resource_type if resource_type.isalpha() else "") + ("?" + "&".join(names) if names else "")


def _failure(code: int | None, headers: Mapping[str, str], why: str) -> dict[str, Any]:
    return {"code": code, "body": None, "message": why, "responseHeaders": harmless_headers(headers)}


def _short(value: str | None) -> str | None:
    """What a server writes freely, cut and without control characters."""
    return None if value is None else "".join(one for one in value if one.isprintable())[:MOST_CHARACTERS]
