"""What a manifest says, in all its versions; and what is not believed of it.

Bulk Data Access STU2 and STU3, Output Manifest; STU4 (ballot of 2026), logical model BulkDataManifest: `error` became
`outcome`, `request` is gone, `extension` is a list. Manifests in the field lie or are unfinished, so what is only
untidy becomes a warning, and what would lose data or lead astray is refused. No URL, time or name of theirs is ever
repeated in our words: links carry signatures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from adapters.bulk.request import Shape
from models import strict
from models.errors import TooLarge, Unreadable
from models.nouns import instant

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
"""FHIR R4, datatypes, instant."""
_NO_EARLIER = datetime(2000, 1, 1, tzinfo=UTC)
"""Before there was FHIR: what platforms say of a time that nobody set (the year 1, or 1970)."""
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_NDJSON = ("application/fhir+ndjson", "application/ndjson", "ndjson")
_NOT_IN_URLS = re.compile(r"[\s\\<>\"\x00-\x1f\x7f]")
_STU4 = ("manifestType", "outcome", "outputFormat", "outputOrganizedByDetail")
_STU3 = ("outputOrganizedBy", "link")
_MOST_WARNINGS = 50


class FileKind(StrEnum):
    OUTPUT = "output"
    DELETED = "deleted"
    ERROR = "error"
    """OperationOutcomes of any severity; STU4 calls them `outcome`."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    kind: FileKind
    url: str = field(repr=False)
    """Absolute, http or https. It may carry a signature: for the request only."""
    type: str | None = None
    """Of each line's resource. None: mixed (organised by a resource), or not stated."""
    count: int | None = None
    """Lines."""
    size: int | None = None
    """Bytes (STU4, fileSize)."""
    continues_in: str | None = field(default=None, repr=False)
    """URL of the file where the last block goes on (STU3). It may name a file that isn't there."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One page of what a server has exported."""

    transaction_time: str | None
    """Instant in UTC with microseconds; None where it says nothing that can be read as one."""
    requires_token: bool
    """Only what says true: a token that isn't asked for goes to nobody (STU3, Output File Request: SHALL NOT)."""
    files: tuple[FileEntry, ...]
    next: str | None = field(default=None, repr=False)
    """URL of the next page."""
    organized_by: str | None = None
    shape: Shape = Shape.STU2
    """As it looks, not as it may have been asked for."""
    warnings: tuple[str, ...] = ()
    """What was untidy, in our words, with JSON pointers."""


def parse(body: bytes, url: str, *, most_files: int) -> Manifest:
    """One manifest, as it came from `url`, which relative URLs in it are resolved against.

    Errors: Malformed (no JSON), TooLarge (more files than `most_files`), Unreadable (no object, a resource instead, no
    output, a link that is none, the same file twice). Nothing else, whatever the bytes.
    """
    manifest = strict.loads(body, what="the manifest")
    if not isinstance(manifest, dict):
        raise Unreadable("the manifest is no JSON object")
    if "resourceType" in manifest:
        raise Unreadable("there is a FHIR resource where the manifest belongs", where="/resourceType")
    return _Reading(manifest, url, most_files).whole()


def path_key(url: str) -> str:
    """The URL without query and fragment: what stays of a signed link when it is signed anew."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def identities(files: Sequence[FileEntry]) -> tuple[str, ...]:
    """A name for each file of an export that stays the same under fresh signatures, and holds none.

    `path_key`, and where several files share it (they differ in the query only) also its place among them: a manifest
    that was returned once is not altered but for its URLs and its next link (STU3, In-Progress Status). Give the files
    of all pages at once, in order.
    """
    shared = Counter(path_key(file.url) for file in files)
    seen: Counter[str] = Counter()
    names = []
    for file in files:
        key = path_key(file.url)
        names.append(f"{key}#{seen[key]}" if shared[key] > 1 else key)
        seen[key] += 1
    return tuple(names)


class _Reading:
    """A manifest that is being read; collects warnings."""

    def __init__(self, manifest: Mapping[str, Any], url: str, most_files: int) -> None:
        self.manifest = manifest
        self.url = url
        self.most_files = most_files
        self.warnings: list[str] = []

    def whole(self) -> Manifest:
        organized_by = self._organized_by()
        files = self._files(organized_by)
        return Manifest(
            transaction_time=self._time(),
            requires_token=self._requires_token(),
            files=files,
            next=self._next(),
            organized_by=organized_by,
            shape=self._shape(files),
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        """A manifest of 20,000 files may be untidy 20,000 times."""
        more = len(self.warnings) - _MOST_WARNINGS
        return (*self.warnings[:_MOST_WARNINGS], *([f"and {more} more like these"] if more > 0 else []))

    def _warn(self, what: str, where: str) -> None:
        self.warnings.append(f"{what} (at {where})")

    def _shape(self, files: tuple[FileEntry, ...]) -> Shape:
        if any(name in self.manifest for name in _STU4) or isinstance(self.manifest.get("extension"), list):
            return Shape.STU4
        stu3 = any(name in self.manifest for name in _STU3) or any(file.continues_in for file in files)
        return Shape.STU3 if stu3 else Shape.STU2

    # ---- members -----------------------------------------------------------------------------------------------------

    def _time(self) -> str | None:
        where, text = "/transactionTime", self.manifest.get("transactionTime")
        if not isinstance(text, str) or not text:
            self._warn("the manifest has no transaction time", where)
            return None
        try:
            moment = datetime.fromisoformat(text.strip())
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
                self._warn("the transaction time has no zone: taken as UTC", where)
            elif not _INSTANT.fullmatch(text):
                self._warn("the transaction time is no FHIR instant, but can be read", where)
            if moment.astimezone(UTC) < _NO_EARLIER:
                self._warn("the transaction time was never set", where)
                return None
            return instant(moment)
        except (ValueError, OverflowError):
            self._warn("the transaction time cannot be read", where)
            return None

    def _requires_token(self) -> bool:
        value = self.manifest.get("requiresAccessToken")
        if not isinstance(value, bool):
            self._warn("the manifest does not say whether files need a token: none is sent", "/requiresAccessToken")
        return value is True

    def _organized_by(self) -> str | None:
        value = self.manifest.get("outputOrganizedBy")
        if value is None or value == "":  # bulk-data-server: empty where nothing was asked for
            return None
        if isinstance(value, str) and _TYPE.fullmatch(value):
            return value
        self._warn("what output is organised by is not the name of a resource type", "/outputOrganizedBy")
        return None

    def _next(self) -> str | None:
        found = []
        for place, link in enumerate(self._list("link")):
            if not isinstance(link, dict) or not isinstance(link.get("relation"), str):
                self._warn("a link of the manifest does not say what it leads to: not followed", f"/link/{place}")
            elif link["relation"] == "next":
                found.append(self._link(link.get("url"), f"/link/{place}/url"))
        if len(set(found)) > 1:
            raise Unreadable("the manifest has several next pages", where="/link")
        if found and found[0] == self.url:
            raise Unreadable("the manifest names itself as its next page", where="/link")
        return found[0] if found else None

    def _list(self, name: str) -> list[Any]:
        value = self.manifest.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise Unreadable("the manifest has something else where a list belongs", where=f"/{name}")
        return value

    # ---- files -------------------------------------------------------------------------------------------------------

    def _files(self, organized_by: str | None) -> tuple[FileEntry, ...]:
        self._check_output()
        form = self.manifest.get("outputFormat")
        if form is not None and form not in _NDJSON:
            self._warn("the manifest says that its files are not NDJSON", "/outputFormat")
        lists = [(name, self._list(name)) for name in ("output", "deleted", "outcome", "error")]
        if sum(len(entries) for _, entries in lists) > self.most_files:
            raise TooLarge(f"the manifest names more than {self.most_files} files")
        files: list[FileEntry] = []
        seen: dict[str, str] = {}
        for name, entries in lists:
            kind = FileKind.ERROR if name == "outcome" else FileKind(name)
            for place, entry in enumerate(entries):
                file = self._file(entry, kind, f"/{name}/{place}", organized_by)
                before = seen.setdefault(file.url, name)
                if len(seen) > len(files):
                    files.append(file)
                elif (before, name) != ("outcome", "error"):  # a server that speaks both versions names it twice
                    raise Unreadable("the manifest names the same file twice", where=f"/{name}/{place}/url")
        return tuple(files)

    def _check_output(self) -> None:
        """Without output there is no telling "nothing new" from "not finished". STU4 alone allows its absence (0..*),
        and FHIR's JSON has no empty lists: there, the manifest's own type tells that it is one."""
        if self.manifest.get("output") is not None:
            return
        if "output" in self.manifest or not isinstance(self.manifest.get("manifestType"), str):
            raise Unreadable("the manifest has no output", where="/output")
        self._warn("the manifest has no output: taken as no files", "/output")

    def _file(self, entry: Any, kind: FileKind, where: str, organized_by: str | None) -> FileEntry:
        if not isinstance(entry, dict):
            raise Unreadable("the manifest has something else where a file belongs", where=where)
        return FileEntry(
            kind=kind,
            url=self._link(entry.get("url"), f"{where}/url"),
            type=self._type(entry.get("type"), kind, f"{where}/type", organized_by),
            count=self._number(entry.get("count"), f"{where}/count"),
            size=self._number(entry.get("fileSize"), f"{where}/fileSize"),
            continues_in=self._continues(entry.get("continuesInFile"), f"{where}/continuesInFile"),
        )

    def _continues(self, value: Any, where: str) -> str | None:
        """Nothing is fetched by it, so a bad one is only untidy."""
        if value is None or value == "":
            return None
        try:
            return self._link(value, where)
        except Unreadable as error:
            self._warn(error.what, where)
            return None

    def _type(self, value: Any, kind: FileKind, where: str, organized_by: str | None) -> str | None:
        if isinstance(value, str) and _TYPE.fullmatch(value):
            return value
        if value is not None:
            self._warn("this is not the name of a resource type", where)
        elif kind is FileKind.OUTPUT and organized_by is None:
            self._warn("the type of this file's resources is missing", where)
        return None

    def _number(self, value: Any, where: str) -> int | None:
        if type(value) is int and value >= 0:
            return value
        if value is not None:
            self._warn("this is no whole number of at least 0", where)
        return None

    def _link(self, value: Any, where: str) -> str:
        """An absolute http URL without fragment. Servers also send relative ones (LinuxForHealth/FHIR#2673)."""
        if not isinstance(value, str) or not value:
            raise Unreadable("a link of the manifest is missing", where=where)
        try:
            url = urljoin(self.url, value)
            parts = urlsplit(url)
            fits = parts.scheme in ("https", "http") and bool(parts.hostname) and "@" not in parts.netloc
            fits = fits and not (urlsplit(value).scheme and not urlsplit(value).netloc)  # https:x: no two read it alike
            _ = parts.port
        except ValueError:
            fits, url, parts = False, "", urlsplit("")
        # looked at as it was written: urlsplit drops tabs and line ends
        if not fits or not value.isascii() or _NOT_IN_URLS.search(value):
            raise Unreadable("a link of the manifest is no http URL", where=where)
        return urlunsplit(parts._replace(fragment="")) if parts.fragment else url
