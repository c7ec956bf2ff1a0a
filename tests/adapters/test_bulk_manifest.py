"""What a manifest says, in all its versions, and what is not believed of it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.bulk.manifest import FileEntry, FileKind, Manifest, identities, parse, path_key
from adapters.bulk.request import Shape
from models.errors import BadInput, Malformed, TooLarge, Unreadable

URL = "https://ehr.example/fhir/status/7?key=abc"
FILES = "https://files.example"


def manifest(**members: Any) -> dict[str, Any]:
    """As STU2 has it; None takes a member away."""
    plain = {
        "transactionTime": "2026-11-21T10:00:00.123+01:00",
        "request": "https://ehr.example/fhir/$export",
        "requiresAccessToken": True,
        "output": [{"type": "Patient", "url": f"{FILES}/1.ndjson", "count": 12}],
        "error": [],
        **members,
    }
    return {name: value for name, value in plain.items() if value is not None}


def read(plain: Any, *, most_files: int = 100) -> Manifest:
    return parse(json.dumps(plain).encode(), URL, most_files=most_files)


def test_a_manifest_of_stu2() -> None:
    found = read(
        manifest(
            deleted=[{"type": "Bundle", "url": f"{FILES}/d.ndjson"}],
            error=[{"type": "OperationOutcome", "url": f"{FILES}/e.ndjson"}],
            extension={"https://ehr.example/x": True},
        )
    )
    assert found == Manifest(
        transaction_time="2026-11-21T09:00:00.123000Z",
        requires_token=True,
        files=(
            FileEntry(FileKind.OUTPUT, f"{FILES}/1.ndjson", "Patient", 12),
            FileEntry(FileKind.DELETED, f"{FILES}/d.ndjson", "Bundle"),
            FileEntry(FileKind.ERROR, f"{FILES}/e.ndjson", "OperationOutcome"),
        ),
        shape=Shape.STU2,
    )


def test_a_manifest_of_stu3_that_is_organised_by_patient_and_paged() -> None:
    found = read(
        manifest(
            outputOrganizedBy="Patient",
            output=[{"url": f"{FILES}/1", "continuesInFile": f"{FILES}/2"}, {"url": f"{FILES}/2", "count": 0}],
            link=[{"relation": "self", "url": "x"}, {"relation": "next", "url": "../page/2"}],
        )
    )
    assert (found.shape, found.organized_by, found.warnings) == (Shape.STU3, "Patient", ())
    assert found.next == "https://ehr.example/fhir/page/2"
    assert [(file.type, file.count, file.continues_in) for file in found.files] == [
        (None, None, f"{FILES}/2"),
        (None, 0, None),
    ]


def test_a_manifest_of_the_stu4_ballot() -> None:
    """After the guide's own example, with what its logical model adds."""
    found = read(
        {
            "manifestType": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkDataManifest",
            "transactionTime": "2021-01-01T00:00:00Z",
            "requiresAccessToken": False,
            "outputFormat": "application/fhir+ndjson",
            "output": [{"type": "Patient", "url": f"{FILES}/1", "count": 2, "fileSize": 4096}],
            "deleted": [{"url": f"{FILES}/d"}],
            "outcome": [{"url": f"{FILES}/o", "countSeverity": [{"code": "error", "count": 1}]}],
            "extension": [{"url": "https://ehr.example/x", "valueBoolean": True}],
        }
    )
    assert (found.shape, found.requires_token, found.warnings) == (Shape.STU4, False, ())
    assert [(file.kind, file.type, file.size) for file in found.files] == [
        (FileKind.OUTPUT, "Patient", 4096),
        (FileKind.DELETED, None, None),
        (FileKind.ERROR, None, None),
    ]


@pytest.mark.parametrize(
    ("members", "shape"),
    [
        ({}, Shape.STU2),
        ({"link": []}, Shape.STU3),
        ({"outputOrganizedBy": ""}, Shape.STU3),
        ({"error": None, "outcome": []}, Shape.STU4),
        ({"extension": []}, Shape.STU4),
        ({"extension": {}}, Shape.STU2),
    ],
)
def test_the_version_is_seen_by_what_only_it_has(members: dict[str, Any], shape: Shape) -> None:
    assert read(manifest(**members)).shape is shape


@pytest.mark.parametrize(
    "members",
    [
        {"error": None},  # LinuxForHealth/FHIR#2715
        {"outputOrganizedBy": ""},  # bulk-data-server
        {"deleted": []},
        {"request": None},
        {"output": []},
        {"somethingNew": {"a": [1.5]}},
    ],
)
def test_what_differs_without_harm_is_taken_without_a_word(members: dict[str, Any]) -> None:
    assert read(manifest(**members)).warnings == ()


@pytest.mark.parametrize(
    ("text", "moment", "warned"),
    [
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00.000000Z", False),
        ("2026-11-21T10:00:00.1234567Z", "2026-11-21T10:00:00.123456Z", False),
        ("2026-11-21T10:00:00-05:00", "2026-11-21T15:00:00.000000Z", False),
        ("2026-11-21T10:00:00", "2026-11-21T10:00:00.000000Z", True),
        ("2026-11-21 10:00:00", "2026-11-21T10:00:00.000000Z", True),
        ("2026-11-21T10:00:00+0100", "2026-11-21T09:00:00.000000Z", True),
        ("2026-11-21T10:00Z", "2026-11-21T10:00:00.000000Z", True),
        ("2026-11-21", "2026-11-21T00:00:00.000000Z", True),
        ("yesterday", None, True),
        ("0001-01-01T00:00:00+14:00", None, True),
        ("", None, True),
        (1795251165, None, True),
        (None, None, True),
    ],
)
def test_the_transaction_time_is_an_instant_in_utc_or_unknown(text: Any, moment: str | None, warned: bool) -> None:
    found = read(manifest(transactionTime=text))
    assert found.transaction_time == moment
    assert [warning.endswith("(at /transactionTime)") for warning in found.warnings] == [True] * warned


@pytest.mark.parametrize("value", [None, "true", 1, [], {}])
def test_a_token_goes_nowhere_that_does_not_plainly_ask_for_it(value: Any) -> None:
    found = read(manifest(requiresAccessToken=value))
    assert found.requires_token is False
    assert len(found.warnings) == 1


@pytest.mark.parametrize(
    ("relative", "absolute"),
    [
        ("files/1.ndjson", "https://ehr.example/fhir/status/files/1.ndjson"),  # LinuxForHealth/FHIR#2673
        ("/files/1.ndjson", "https://ehr.example/files/1.ndjson"),
        ("//files.example/1", "https://files.example/1"),
        ("?file=1", "https://ehr.example/fhir/status/7?file=1"),
        ("http://files.example/1?a=b#c", "http://files.example/1?a=b"),
    ],
)
def test_links_become_absolute(relative: str, absolute: str) -> None:
    [file] = read(manifest(output=[{"type": "Patient", "url": relative}])).files
    assert file.url == absolute


@pytest.mark.parametrize(
    "url",
    [
        "ftp://files.example/secret",
        "file:/secret",
        "data:,secret",
        "javascript:secret",
        "https://user:secret@files.example/1",
        "https://[secret",
        "https://files.example:secret/1",
        "https:///secret",
        "https:secret",
        "https://files.example/secret\n1",
        "https://files.example/a secret",
        "https://files.example\\secret",
        "https://files.example/sécret",
        "",
        None,
        7,
    ],
)
@pytest.mark.parametrize("kind", ["output", "deleted", "error", "outcome"])
def test_a_link_that_is_no_http_url_is_refused_by_its_place_and_not_repeated(url: Any, kind: str) -> None:
    entries = [{"type": "Patient", "url": f"{FILES}/ok"}, {"type": "Patient", "url": url}]
    with pytest.raises(Unreadable) as error:
        read({**manifest(output=[]), kind: entries})
    assert error.value.where == f"/{kind}/1/url"
    assert "cret" not in str(error.value)


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({"output": None}, "/output"),
        ({"output": {}}, "/output"),
        ({"output": ["x"]}, "/output/0"),
        ({"error": {}}, "/error"),
        ({"deleted": "none"}, "/deleted"),
        ({"link": {}}, "/link"),
        ({"link": [{"relation": "next"}]}, "/link/0/url"),
        ({"link": [{"relation": "next", "url": "ftp://x"}]}, "/link/0/url"),
        ({"link": [{"relation": "next", "url": URL}]}, "/link"),
        ({"link": [{"relation": "next", "url": "/a"}, {"relation": "next", "url": "/b"}]}, "/link"),
        ({"resourceType": "OperationOutcome"}, "/resourceType"),
        ({"output": [{"type": "Patient", "url": "/1"}, {"type": "Observation", "url": "/1"}]}, "/output/1/url"),
        ({"deleted": [{"url": f"{FILES}/1.ndjson"}]}, "/deleted/0/url"),
        ({"error": [{"url": f"{FILES}/1.ndjson"}]}, "/error/0/url"),
    ],
)
def test_what_would_lose_data_or_lead_astray_is_refused(members: dict[str, Any], where: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(manifest(**members))
    assert error.value.where == where


def test_an_output_of_null_is_none() -> None:
    with pytest.raises(Unreadable):
        read({**manifest(), "output": None, "manifestType": "x"})


def test_only_a_manifest_that_says_it_is_one_of_stu4_may_lack_its_output() -> None:
    found = read(
        manifest(output=None, manifestType="http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkDataManifest")
    )
    assert found.files == ()
    assert found.warnings == ("the manifest has no output: taken as no files (at /output)",)


@pytest.mark.parametrize("plain", [[], "x", 1, None, True])
def test_what_is_no_object_is_refused(plain: Any) -> None:
    with pytest.raises(Unreadable):
        read(plain)


@pytest.mark.parametrize("body", [b"", b"<html>", b'\xef\xbb\xbf{"output":[]}', b'{"output":[],"output":[]}'])
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse(body, URL, most_files=10)


def test_more_files_than_the_limit_are_refused_before_they_are_looked_at() -> None:
    three = manifest(output=[{"url": "ftp://x"}], deleted=[{"url": "a"}], error=[{"url": "b"}])
    with pytest.raises(TooLarge):
        read(three, most_files=2)
    three["output"][0]["url"] = "c"
    assert len(read(three, most_files=3).files) == 3


def test_a_file_under_both_names_of_the_error_list_is_one_file() -> None:
    both = [{"url": f"{FILES}/o"}]
    found = read(manifest(error=both, outcome=both))
    assert [file.kind for file in found.files] == [FileKind.OUTPUT, FileKind.ERROR]
    with pytest.raises(Unreadable):
        read(manifest(error=both * 2))


@pytest.mark.parametrize(
    ("entry", "places"),
    [
        ({"count": -1}, ["count"]),
        ({"count": "12"}, ["count"]),
        ({"count": 1.5}, ["count"]),
        ({"count": True, "fileSize": None}, ["count"]),
        ({"fileSize": []}, ["fileSize"]),
        ({"type": "patient"}, ["type"]),
        ({"type": 7}, ["type"]),
        ({"type": None}, ["type"]),
        ({"continuesInFile": "ftp://x"}, ["continuesInFile"]),
        ({"continuesInFile": ""}, []),
    ],
)
def test_what_is_only_untidy_about_a_file_is_a_warning(entry: dict[str, Any], places: list[str]) -> None:
    found = read(manifest(output=[{"type": "Patient", "url": "1", **entry}]))
    [file] = found.files
    assert [warning.rpartition("/output/0/")[2].rstrip(")") for warning in found.warnings] == places
    for place in places:
        assert getattr(file, {"fileSize": "size", "continuesInFile": "continues_in"}.get(place, place)) is None


def test_other_untidy_members_are_warned_of_too() -> None:
    found = read(manifest(outputOrganizedBy=["Patient"], outputFormat="parquet", link=["x", {"url": "/2"}]))
    assert (found.organized_by, found.next) == (None, None)
    assert [warning.rpartition("(at ")[2].rstrip(")") for warning in found.warnings] == [
        "/outputOrganizedBy",
        "/outputFormat",
        "/link/0",
        "/link/1",
    ]


def test_warnings_do_not_grow_with_the_manifest() -> None:
    found = read(manifest(output=[{"url": f"/{n}"} for n in range(1000)]), most_files=1000)
    assert len(found.warnings) == 51
    assert found.warnings[-1] == "and 950 more like these"


def test_a_link_is_not_in_what_is_printed() -> None:
    signed = [{"type": "Patient", "url": f"{FILES}/1?sig=secret", "continuesInFile": "/2?sig=secret"}]
    assert "secret" not in repr(read(manifest(output=signed, link=[{"relation": "next", "url": "/x?secret"}])))


# ---- who is who after links were signed anew -------------------------------------------------------------------------


def test_a_file_is_the_same_one_after_its_link_was_signed_anew() -> None:
    assert path_key(f"{FILES}/a/1.ndjson?X-Amz-Signature=1&Expires=2#x") == f"{FILES}/a/1.ndjson"


def entries(*urls: str) -> list[FileEntry]:
    return [FileEntry(FileKind.OUTPUT, url) for url in urls]


def test_files_that_share_a_path_are_told_apart_by_their_place_among_them() -> None:
    first = identities(entries("https://x/a?s=1", "https://x/get?file=1&s=1", "https://x/get?file=2&s=1"))
    again = identities(entries("https://x/a?s=9", "https://x/get?file=1&s=9", "https://x/get?file=2&s=9"))
    assert first == again == ("https://x/a", "https://x/get#0", "https://x/get#1")


@given(st.lists(st.sampled_from(["https://x/a", "https://x/b", "https://x/get"]), max_size=8))
def test_identities_are_unique_and_hold_no_signature(paths: list[str]) -> None:
    signed = entries(*(f"{path}?sig={place}" for place, path in enumerate(paths)))
    names = identities(signed)
    assert len(set(names)) == len(paths)
    assert not any("sig" in name for name in names)


# ---- whatever comes --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
@example(b'{"output":[{"url":"https://[::1"}]}')
def test_bytes_of_any_kind_are_a_manifest_or_bad_input(body: bytes) -> None:
    with suppress(BadInput):
        parse(body, URL, most_files=5)


WORDS = st.sampled_from(
    ["https://x/1", "ftp://x", "//", "http://[", "Patient", "next", "2026-11-21T10:00:00", "9999-12-31T23:59:59-14:00"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "type", "count", "fileSize", "relation", "continuesInFile"]), inner)
    ),
    max_leaves=20,
)
MEMBERS = [
    *("transactionTime", "requiresAccessToken", "output", "deleted", "error", "outcome", "link", "outputOrganizedBy"),
    *("manifestType", "outputFormat", "extension"),
]


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON))
def test_json_of_any_form_is_a_manifest_or_bad_input(plain: dict[str, Any]) -> None:
    found: Manifest | None = None
    with suppress(BadInput):
        found = read(plain, most_files=5)
    if found is None:
        return
    assert all(file.url.startswith(("https://", "http://")) for file in found.files)
    assert len(set(identities(found.files))) == len(found.files)
