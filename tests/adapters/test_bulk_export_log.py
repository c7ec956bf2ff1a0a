"""The log that analysts read: its events and members as the wiki page names them, and nothing that names a person."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.bulk.export_log import ExportLog, harmless_headers, harmless_parameters, without_query

BEGAN = datetime(2026, 11, 21, 10, tzinfo=UTC)
PRIVATE = "eyJhbGciOiJub25lIn0.c2VjcmV0."
HEADERS = {
    "Content-Type": "application/fhir+ndjson",
    "Authorization": f"Bearer {PRIVATE}",
    "Set-Cookie": f"session={PRIVATE}",
    "Content-Location": f"https://ehr.example/status?sig={PRIVATE}",
    "Retry-After": "120",
    "X-Patient": PRIVATE,
}


class Log:
    """An `ExportLog` whose clock goes on by a second each time it is asked, and what it wrote."""

    def __init__(self, **options: Any) -> None:
        self.raw = b""
        self._now = BEGAN
        self.log = ExportLog(self._write, "export-1", self._clock, **options)

    def _write(self, chunk: bytes) -> None:
        self.raw += chunk

    def _clock(self) -> datetime:
        now, self._now = self._now, self._now + timedelta(seconds=1)
        return now

    def details(self) -> list[tuple[str, dict[str, Any]]]:
        assert self.raw.endswith(b"\n")
        items = [json.loads(line) for line in self.raw.splitlines()]
        for item in items:
            assert list(item) == ["exportId", "timestamp", "eventId", "eventDetail"]
            assert item["exportId"] == "export-1"
            assert datetime.fromisoformat(item["timestamp"]).tzinfo is not None
        return [(item["eventId"], item["eventDetail"]) for item in items]


def whole_export() -> Log:
    """Every event, each with secrets where the peer could put them."""
    made = Log()
    log = made.log
    log.kickoff(
        f"https://user:{PRIVATE}@ehr.example/fhir/$export?patient={PRIVATE}#{PRIVATE}",
        [("_type", "Patient"), ("_type", "Goal"), ("patient", PRIVATE), ("_typeFilter", f"Patient?name={PRIVATE}")],
        headers=HEADERS,
        software={"name": "HAPI", "version": "8"},
        fhir_version="4.0.1",
    )
    log.status_progress(progress="50%", retry_after="120")
    log.status_error(code=503, headers=HEADERS, why="answered 503")
    log.status_page_complete(transaction_time="2026-11-21T09:00:00.000000Z", output=2, deleted=1, error=0)
    log.status_page_complete(transaction_time="2026-11-21T09:00:00.000000Z", output=1, deleted=0, error=1)
    log.status_complete(transaction_time="2026-11-21T09:00:00.000000Z")
    log.manifest_complete(transaction_time="2026-11-21T09:00:00.000000Z")
    url = f"https://files.example/1.ndjson?X-Amz-Signature={PRIVATE}"
    log.download_request(url, item="output", resource_type="Patient")
    log.download_error(url, code=None, headers={}, why="cut off")
    log.download_request(url, item="output", resource_type="Patient")
    log.download_complete(url, resources=3, size=300)
    log.download_request(url, item="error", resource_type=None)
    log.download_complete(url, resources=1, size=50)
    log.export_complete()
    return made


def test_the_events_of_an_export_in_their_order() -> None:
    assert [name for name, _ in whole_export().details()] == [
        "kickoff",
        "status_progress",
        "status_error",
        "status_page_complete",
        "status_page_complete",
        "status_complete",
        "manifest_complete",
        "download_request",
        "download_error",
        "download_request",
        "download_complete",
        "download_request",
        "download_complete",
        "export_complete",
    ]


def test_the_members_of_each_event() -> None:
    details = dict(whole_export().details())
    assert details["kickoff"] == {
        "exportUrl": "https://ehr.example/fhir/$export",
        "errorCode": None,
        "errorBody": None,
        "softwareName": "HAPI",
        "softwareVersion": "8",
        "softwareReleaseDate": None,
        "fhirVersion": "4.0.1",
        "requestParameters": {"_type": "Patient,Goal", "_typeFilter": "Patient?name"},
        "responseHeaders": {"content-type": "application/fhir+ndjson", "retry-after": "120"},
    }
    assert details["status_progress"] == {"body": None, "xProgress": "50%", "retryAfter": "120"}
    assert details["status_error"] == {
        "code": 503,
        "body": None,
        "message": "answered 503",
        "responseHeaders": {"content-type": "application/fhir+ndjson", "retry-after": "120"},
    }
    time = "2026-11-21T09:00:00.000000Z"
    assert details["status_complete"] == {"transactionTime": time}
    assert details["status_page_complete"] == {
        "transactionTime": time,
        "outputFileCount": 1,
        "deletedFileCount": 0,
        "errorFileCount": 1,
    }
    assert details["manifest_complete"] == {
        "transactionTime": time,
        "totalOutputFileCount": 3,
        "totalDeletedFileCount": 1,
        "totalErrorFileCount": 1,
        "totalManifests": 2,
    }
    file = "https://files.example/1.ndjson"
    assert details["download_request"] == {"fileUrl": file, "itemType": "error", "resourceType": None}
    assert details["download_complete"] == {"fileUrl": file, "resourceCount": 1, "fileSize": 50}
    assert details["download_error"] == {
        "fileUrl": file,
        "code": None,
        "body": None,
        "message": "cut off",
        "responseHeaders": {},
    }
    assert details["export_complete"] == {
        "files": 2,
        "resources": 4,
        "bytes": 350,
        "attachments": 0,
        "duration": 13_000,
    }


def test_no_secret_and_no_patient_stands_in_a_log() -> None:
    assert PRIVATE.encode() not in whole_export().raw


def test_a_refused_kick_off_says_so_in_our_words() -> None:
    made = Log()
    made.log.kickoff("https://ehr.example/fhir/$export", [], headers={}, refused=429, why="one export at a time")
    [(_, detail)] = made.details()
    assert (detail["errorCode"], detail["errorBody"]) == (429, "one export at a time")


def test_a_job_that_is_taken_up_again_counts_from_its_first_kick_off() -> None:
    made = Log(began=BEGAN - timedelta(hours=1))
    made.log.export_complete(files=5, resources=50, size=500)
    [(_, detail)] = made.details()
    assert detail["duration"] == 3_600_000
    assert (detail["files"], detail["resources"], detail["bytes"]) == (5, 50, 500)


def test_a_header_is_one_line_and_short() -> None:
    told = harmless_headers({"X-Progress": "half\r\nof it \x00" + "x" * 200, "X-Request-ID": "abc", "ETag": "1"})
    assert told["x-progress"] == ("halfof it " + "x" * 200)[:100]
    assert set(told) == {"x-progress", "x-request-id"}


@pytest.mark.parametrize(
    ("type_filter", "told"),
    [
        ("Observation?category=laboratory&date=ge2026", "Observation?category&date"),
        ("Observation?category=a,b,Condition?code=1", "Observation?category"),
        ("Patient", "Patient"),
        ("name=somebody", ""),
        ("Patient?somebody", "Patient"),
    ],
)
def test_of_a_filter_only_names_are_told(type_filter: str, told: str) -> None:
    assert harmless_parameters([("_typeFilter", type_filter)]) == {"_typeFilter": told}


def test_an_unknown_parameter_is_not_told() -> None:
    assert harmless_parameters([("_since", "2026-01-01T00:00:00Z"), ("identifier", "123")]) == {
        "_since": "2026-01-01T00:00:00Z"
    }


def test_what_is_no_url_is_not_told_at_all() -> None:
    assert without_query("http://[broken?secret") == ""
