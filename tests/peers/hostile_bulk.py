"""A bulk server that does to its clients whatever servers in the field do: `HostileBulk(resources, **behaviours)`.

Real HTTP on loopback, in a thread: kick-off, status, manifest, files and removal; discovery, tokens, counts. It
believes every assertion, and remembers every request. Two of them are two origins. The switches are those of
`tests.peers.hostile_behaviours`; what stands on the wire is made in `tests.peers.hostile_wire`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.peers.hostile_behaviours import Behaviours, deletions, ndjson
from tests.peers.hostile_wire import Asked, serving

Resource = Mapping[str, Any]
_SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}


@dataclass(slots=True)
class File:
    kind: str
    type: str
    count: int
    body: bytes
    huge: int = 0


@dataclass(slots=True)
class Job:
    id: str
    request: str
    since: bool
    partial: bool
    began: str
    files: list[File]
    polls: Iterator[int]
    signature: int = 0
    served: int = 0
    """Files that the links of this signature were good for."""
    over: bool = False


@dataclass(slots=True)
class HostileBulk:
    resources: dict[str, list[Resource]]
    """By type. A test may change them between two exports."""
    does: Behaviours
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Ids of groups, and of their patients."""
    asked: list[Asked] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    assertions: list[str] = field(default_factory=list)
    _tokens: dict[str, list[float]] = field(default_factory=dict)
    """Token -> when it ends, and how many uses are left."""
    _counted: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None
    _port: int = 0
    stopped: bool = False

    # -- the process ---------------------------------------------------------------------------------------------------

    def start(self) -> HostileBulk:
        """Again after `stop`, on the same port."""
        self._server = serving(self, self._port)
        self._port, self.stopped = self._server.server_address[1], False
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """No more answers, also on connections that are kept open."""
        if self._server is not None and not self.stopped:
            self.stopped = True
            self._server.shutdown()
            self._server.server_close()

    @property
    def origin(self) -> str:
        assert self._port, "it was never started"
        return f"http://127.0.0.1:{self._port}"

    @property
    def base(self) -> str:
        return f"{self.origin}/fhir"

    def requests(self, method: str, start: str) -> list[Asked]:
        """Those of this method whose path begins so, in the order they came."""
        return [each for each in self.asked if each.method == method and each.path.startswith(start)]

    def first(self, what: str, times: int) -> bool:
        """True for the first so many questions of a kind."""
        with self._lock:
            self._counted[what] = self._counted.get(what, 0) + 1
            return self._counted[what] <= times

    # -- tokens --------------------------------------------------------------------------------------------------------

    def token(self, form: Mapping[str, str]) -> dict[str, Any]:
        self.assertions.append(form.get("client_assertion", ""))
        token = secrets.token_urlsafe(12)
        self._tokens[token] = [time.monotonic() + self.does.token_seconds, self.does.token_uses or 1 << 30]
        scope = form.get("scope", "") if self.does.granted is None else self.does.granted
        lasts = max(1, int(self.does.token_seconds))
        return {"access_token": token, "token_type": "bearer", "expires_in": lasts, "scope": scope}

    def share(self, job: Job) -> None:
        """The other origins of this server know its jobs and its tokens."""
        for other in (self.does.files_at, self.does.redirect_files, self.does.redirect_status):
            if other is not None:
                other.jobs[job.id] = job
                other._tokens = self._tokens

    def lets_in(self, token: str | None) -> bool:
        with self._lock:
            ends, uses = self._tokens.get(token or "", (0.0, 0))
            if self.does.open:
                return True
            if uses:
                self._tokens[token or ""][1] -= 1
            return uses > 0 and time.monotonic() < ends

    # -- what there is -------------------------------------------------------------------------------------------------

    def begin(self, level: str, group: str | None, asked: Mapping[str, Sequence[str]], request: str) -> Job:
        types = [one for value in asked.get("_type", ()) for one in value.split(",")]
        since = (asked.get("_since") or [None])[0] if not self.does.ignores_since else None
        patients = {one.removeprefix("Patient/") for one in asked.get("patient", ())} or None
        if group is not None:
            members = set(self.groups[group])
            patients = members if patients is None else members & patients
        files: list[File] = []
        for name, every in self.resources.items():
            found = [each for each in every if _is_asked(each, since, patients, level)]
            if self.does.only_elements and asked.get("_elements"):
                kept = {"resourceType", "id", *",".join(asked["_elements"]).split(",")}
                found = [{key: value for key, value in each.items() if key in kept} for each in found]
            if found and (not types or name in types):
                files += self._files(name, found)
        if self.does.huge:
            files.append(File("output", "Observation", 0, b"", self.does.huge))
        if self.does.outcomes:
            files.append(File("error", "OperationOutcome", len(self.does.outcomes), ndjson(self.does.outcomes)))
        if self.does.deleted and asked.get("_since"):
            files.append(File("deleted", "Bundle", 1, deletions(self.does.deleted)))
        partial = self.does.partial and asked.get("allowPartialManifests") == ["true"]
        job = Job(secrets.token_hex(6), request, since is not None, partial, _now(), files, iter(self.does.polls))
        self.jobs[job.id] = job
        return job

    def _files(self, name: str, found: Sequence[Resource]) -> list[File]:
        if self.does.subsetted:
            found = [{**each, "meta": {**each.get("meta", {}), "tag": [_SUBSETTED]}} for each in found]
        if self.does.tiny:
            return [File("output", name, 1, ndjson([each])) for each in found]
        body = ndjson(found)
        if (
            self.does.organized_by
        ):  # a block of one patient's data begins with what it is about (STU3, organizeOutputBy)
            about = {"name": "header", "valueReference": {"reference": f"{self.does.organized_by}/all"}}
            body = ndjson([{"resourceType": "Parameters", "parameter": [about]}]) + body
        return [File("output", name, body.count(b"\n"), self.does.bodies.get(name, body))]

    def manifest(self, job: Job, page: int) -> dict[str, Any]:
        """Links have a new signature each time; those of the one before are no longer good."""
        does = self.does
        with self._lock:
            job.signature, job.served = job.signature + 1, 0
        at = (does.files_at or self).origin if not does.relative_urls else ""
        paged = does.pages or job.partial
        numbered = list(enumerate(job.files))
        listed: dict[str, list[dict[str, Any]]] = {"output": [], "error": [], "deleted": []}
        for number, file in numbered[page : page + 1] if paged else numbered:
            url = f"{at}/file/{job.id}/{number}.ndjson?{urlencode({'signature': job.signature})}"
            entry: dict[str, Any] = {"url": url, "type": does.stated_types.get(file.type, file.type)}
            if file.kind == "output" and does.organized_by:
                del entry["type"]
            if not file.huge:
                entry["count"] = file.count + does.wrong_count
            listed[file.kind] += [entry] * (2 if does.duplicate_urls else 1)
        listed["output"] += does.more_output
        told: dict[str, Any] = {"transactionTime": _now() if does.time_is_end else job.began}
        if does.transaction_time is not None:
            told["transactionTime"] = does.transaction_time
        if does.requires_token is not None:
            told["requiresAccessToken"] = does.requires_token
        if does.organized_by is not None:
            told["outputOrganizedBy"] = does.organized_by
        if paged and page + 1 < len(job.files):
            told["link"] = [{"relation": "next", "url": f"{self.origin}/status/{job.id}?page={page + 1}"}]
        if does.stu4:
            return told | {"outcome": listed.pop("error"), "extension": [], **listed}
        if does.without_error:
            del listed["error"]
        return told | {"request": job.request, "extension": {"url": "https://example.org/x"}, **listed}

    def statement(self) -> dict[str, Any]:
        version = "4.0.0-ballot" if self.does.stu4 else "2.0.0"
        canonical = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition"
        return {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "kind": "instance",
            "fhirVersion": "4.0.1",
            "software": {"name": "Hostile", "version": "1"},
            "instantiates": [f"http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data|{version}"],
            "rest": [
                {
                    "mode": "server",
                    "operation": [{"name": "export", "definition": f"{canonical}/export|{version}"}],
                    "resource": [
                        {
                            "type": name,
                            "operation": [{"name": "export", "definition": f"{canonical}/{op}|{version}"}],
                        }
                        for name, op in (("Patient", "patient-export"), ("Group", "group-export"))
                    ],
                }
            ],
        }


def _is_asked(resource: Resource, since: str | None, patients: set[str] | None, level: str) -> bool:
    """By `meta.lastUpdated`, and by whom it is about, where a compartment is asked for."""
    if since is not None and resource.get("meta", {}).get("lastUpdated", "9") < since:
        return False
    if level == "system" and patients is None:
        return True
    about = resource.get("subject") or resource.get("patient") or {}
    mine = resource["id"] if resource["resourceType"] == "Patient" else about.get("reference", "").partition("/")[2]
    return bool(mine) and (patients is None or mine in patients)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def hostile() -> Iterator[Any]:
    """Gives `make(resources, groups=…, **behaviours) -> HostileBulk`, as many origins as a test wants."""
    made: list[HostileBulk] = []

    def make(
        resources: Mapping[str, Sequence[Resource]] | None = None,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        **behaviours: Any,
    ) -> HostileBulk:
        held = {name: list(every) for name, every in (resources or {}).items()}
        made.append(HostileBulk(held, Behaviours(**behaviours), groups or {}).start())
        return made[-1]

    yield make
    for peer in made:
        peer.stop()
