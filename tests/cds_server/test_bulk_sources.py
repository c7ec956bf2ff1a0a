"""A source of kind fhir-bulk: what its table may say, and the sentence for what it may not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cds_server.bulk_sources import RECONCILE_MOST, BulkSource, bulk_sources
from cds_server.settings import load
from models.errors import CdsError, Misconfigured

HEAD = "[[source]]\nname = 'north'\nkind = 'fhir-bulk'\nnamespace = 'n'\n"
URL = "url = 'https://fhir.example.org/r4/'\n"
LEAST = f"{HEAD}{URL}client_id = 'cds'\n"
OF = "of [[source]] 'north' in cds.toml"


def sources(tmp_path: Path, text: str) -> dict[str, BulkSource]:
    config = tmp_path / "cds.toml"
    config.write_text(text)
    return bulk_sources(load({"CDS_CONFIG": str(config)}))


def source(tmp_path: Path, text: str) -> BulkSource:
    return sources(tmp_path, text)["north"]


def test_the_least_that_a_table_says(tmp_path: Path) -> None:
    found = source(tmp_path, LEAST)
    assert found.url == "https://fhir.example.org/r4"
    assert (found.name, found.namespace, found.client_id) == ("north", "n", "cds")
    assert found.request.plain() == {"level": "system"}
    assert found.profile.name == "generic"
    assert found.every is None
    assert found.reconcile is None
    assert found.reconcile_most == RECONCILE_MOST
    assert (found.registration, found.token_url, found.audience, found.proxy) == (None, None, None, None)
    assert found.token_origins == frozenset()
    assert found.scopes == ()
    assert found.may_drop == frozenset()
    assert (found.lineage_file, found.lineage_url) == (None, None)
    limits = found.limits
    assert (limits.days, limits.longest, limits.failure_unit, limits.in_parallel) == (30, 300.0, 60.0, 4)
    assert found.rules.refuses("https://fhir.example.org/r4/x") is None
    assert found.rules.refuses("https://files.example.org/x") is not None


def test_all_that_a_table_may_say(tmp_path: Path) -> None:
    (tmp_path / "authorities.pem").write_text("-")
    (tmp_path / "proxy").write_text("http://user:secret@proxy.example.org:3128\n")
    (tmp_path / "proxy").chmod(0o600)
    found = source(
        tmp_path,
        f"""{LEAST}
level = 'group'
group = 'oncology'
types = ['Patient', 'Observation']
type_filters = ['Observation?category=laboratory']
elements = ['id']
until = '2026-01-01T00:00:00Z'
associated = ['LatestProvenanceResources']
organize_by = 'Patient'
partial_manifests = true
profile = 'epic'
drop_refused = ['_typeFilter']
registration = 'north'
token_url = 'https://auth.example.org/token'
audience = 'https://auth.example.org'
scopes = ['system/*.rs', 'system/Group.r']
token_origins = ['https://files.example.org']
hosts = ['files.example.org', '*.storage.example.org', 'auth.example.org']
plain_http = ['old.example.org']
private_network = true
proxy_file = '{tmp_path / "proxy"}'
ca_file = '{tmp_path / "authorities.pem"}'
every = '6h'
reconcile = '30d'
reconcile_most = 5
days = 7
files_in_parallel = 2
longest_wait = 60
failure_wait = 0
lineage_file = 'lineage.ndjson'
lineage_url = 'https://lineage.example.org/api/v1/lineage'
[source.quirks]
since_overlap = 600
""",
    )
    assert found.request.plain() == {
        "level": "group",
        "group": "oncology",
        "types": ["Patient", "Observation"],
        "type_filters": ["Observation?category=laboratory"],
        "elements": ["id"],
        "until": "2026-01-01T00:00:00Z",
        "associated": ["LatestProvenanceResources"],
        "organize_by": "Patient",
        "partial_manifests": True,
    }
    assert (found.profile.name, found.profile.since_overlap, found.profile.kick_off) == ("epic", 600, "get")
    assert found.may_drop == {"_typeFilter"}
    assert (found.registration, found.audience) == ("north", "https://auth.example.org")
    assert found.token_url == "https://auth.example.org/token"  # noqa: S105 (no secret)
    assert found.scopes == ("system/*.rs", "system/Group.r")
    assert found.token_origins == {("https", "files.example.org", 443)}
    assert found.rules.refuses("https://a.storage.example.org/1") is None
    assert found.rules.private_network
    assert found.proxy == "http://user:secret@proxy.example.org:3128"
    assert found.ca_file == tmp_path / "authorities.pem"
    assert (found.every, found.reconcile) == (timedelta(hours=6), timedelta(days=30))
    limits = found.limits
    assert (limits.days, limits.longest, limits.failure_unit, limits.in_parallel) == (7, 60.0, 0.0, 2)
    assert found.reconcile_most == 5
    assert found.lineage_file == Path("lineage.ndjson")
    assert found.lineage_url == "https://lineage.example.org/api/v1/lineage"


def test_sources_of_other_kinds_are_not_looked_at(tmp_path: Path) -> None:
    other = "[[source]]\nname = 'mllp'\nkind = 'hl7v2-mllp'\nnamespace = 'n'\nanything = 1\n"
    assert list(sources(tmp_path, f"{other}{LEAST}")) == ["north"]


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "localhost", "[::1]:8090"])
def test_a_server_on_this_machine_may_want_no_token(tmp_path: Path, host: str) -> None:
    found = source(tmp_path, f"{HEAD}url = 'http://{host}/fhir'\nauth = 'none'\n")
    assert found.client_id is None


@pytest.mark.parametrize(
    ("text", "every"),
    [("30m", timedelta(minutes=30)), ("1h", timedelta(hours=1)), ("99999d", timedelta(days=99999))],
)
def test_a_span_of_time(tmp_path: Path, text: str, every: timedelta) -> None:
    assert source(tmp_path, f"{LEAST}every = '{text}'\n").every == every


SPAN = "is not a span of time as 30m, 12h or 7d"
LIST = "is not a list of texts"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD, "[[source]] 'north' in cds.toml has no url"),
        (f"{HEAD}{URL}", "[[source]] 'north' in cds.toml has no client_id"),
        (f"{LEAST}typs = ['Patient']", f"unknown key 'typs' {OF}"),
        (f"{HEAD}url = 5", f"url {OF} is not text"),
        (f"{LEAST}auth = 'basic'", f"auth {OF} is neither 'backend-services' nor 'none'"),
        (f"{HEAD}{URL}auth = 'none'", f"auth {OF} is 'none', which is for a server on this very machine only"),
        (f"{LEAST}level = 'all'", f"level {OF} is none of system, patient, group"),
        (f"{LEAST}level = 'group'", "[[source]] 'north' in cds.toml: a bulk export at group level names its group"),
        (f"{LEAST}group = 'g'", "[[source]] 'north' in cds.toml: a bulk export at group level names its group"),
        (f"{LEAST}types = 'Patient'", f"types {OF} {LIST}"),
        (f"{LEAST}types = ['patient']", "[[source]] 'north' in cds.toml: "),
        (f"{LEAST}type_filters = 'x'", f"type_filters {OF} {LIST}"),
        (f"{LEAST}type_filters = ['Observation']", "[[source]] 'north' in cds.toml: a filter of a bulk export reads"),
        (f"{LEAST}elements = [1]", f"elements {OF} {LIST}"),
        (f"{LEAST}until = '2026-01-01'", "[[source]] 'north' in cds.toml: "),
        (f"{LEAST}until = 2026", f"until {OF} is not text"),
        (f"{LEAST}associated = ['-']", "[[source]] 'north' in cds.toml: "),
        (f"{LEAST}organize_by = 'patient'", "[[source]] 'north' in cds.toml: organize_by"),
        (f"{LEAST}partial_manifests = 'yes'", f"partial_manifests {OF} is neither true nor false"),
        (f"{LEAST}profile = 'acme'", f"profile {OF} is none of generic, epic, oracle, hapi, medplum"),
        (f"{LEAST}quirks = 1", f"quirks {OF} is not a table"),
        (f"{LEAST}[source.quirks]\nnone = 1", f"quirks {OF} cannot be used: there is no such switch"),
        (f"{LEAST}[source.quirks]\nsince_overlap = -1", f"quirks {OF} cannot be used: the switch since_overlap"),
        (f"{LEAST}drop_refused = ['_since']", f"drop_refused {OF} names '_since', which is never left out"),
        (f"{LEAST}drop_refused = ['patient']", f"drop_refused {OF} names 'patient', which is never left out"),
        (f"{LEAST}drop_refused = ['_count']", f"drop_refused {OF} names '_count', which is never left out, or is no"),
        (f"{LEAST}hosts = ['https://x']", f"url {OF} cannot be asked: hosts: an entry is"),
        (f"{LEAST}plain_http = ['*.x.org']", f"url {OF} cannot be asked: plain_http: a pattern"),
        (f"{LEAST}private_network = 1", f"private_network {OF} is neither true nor false"),
        (f"{LEAST}token_origins = ['ftp://x']", f"token_origins {OF} is not an https URL"),
        (f"{LEAST}token_url = 5", f"token_url {OF} is not text"),
        (f"{LEAST}token_url = 'http://auth.example.org/t'", f"token_url {OF} cannot be asked: the URL is not on"),
        (
            f"{LEAST}token_url = 'http://fhir.example.org:443/t'",
            f"token_url {OF} cannot be asked: the URL is without TLS",
        ),
        (f"{LEAST}scopes = 'system/*.rs'", f"scopes {OF} {LIST}"),
        (f"{LEAST}scopes = ['system/*.rs system/*.c']", f"scopes {OF} has one that is no scope"),
        (f"{LEAST}registration = '../x'", f"registration {OF} is no name that keys can have"),
        (f"{LEAST}proxy_file = 'none.txt'", f"proxy_file {OF} names a file that cannot be read"),
        (f"{LEAST}ca_file = 'none.pem'", f"ca_file {OF} names no file"),
        (f"{LEAST}every = '5'", f"every {OF} {SPAN}"),
        (f"{LEAST}every = '0h'", f"every {OF} {SPAN}"),
        (f"{LEAST}every = '1 h'", f"every {OF} {SPAN}"),
        (f"{LEAST}every = '90s'", f"every {OF} {SPAN}"),
        (f"{LEAST}every = 60", f"every {OF} is not text"),
        (f"{LEAST}reconcile = 'monthly'", f"reconcile {OF} {SPAN}"),
        (f"{LEAST}reconcile_most = 101", f"reconcile_most {OF} is not a whole number between 0 and 100"),
        (f"{LEAST}days = 0", f"days {OF} is not a whole number between 1 and 365"),
        (f"{LEAST}days = true", f"days {OF} is not a whole number between 1 and 365"),
        (f"{LEAST}longest_wait = 1.5", f"longest_wait {OF} is not a whole number between 1 and 3600"),
        (f"{LEAST}failure_wait = -1", f"failure_wait {OF} is not a whole number between 0 and 3600"),
        (f"{LEAST}files_in_parallel = 17", f"files_in_parallel {OF} is not a whole number between 1 and 16"),
        (f"{LEAST}lineage_file = 1", f"lineage_file {OF} is not text"),
        (f"{LEAST}lineage_url = 'ftp://x'", f"lineage_url {OF} is not an https URL"),
        (f"{HEAD}url = 'http://fhir.example.org/r4'\nclient_id = 'c'", f"url {OF} cannot be asked: the base URL"),
        (f"{HEAD}url = 'fhir.example.org'\nclient_id = 'c'", f"url {OF} cannot be asked: the base URL"),
        (f"{HEAD}url = 'https://u:p@fhir.example.org'\nclient_id = 'c'", f"url {OF} cannot be asked: the base URL"),
        (f"{HEAD}url = 'https://169.254.169.254/'\nclient_id = 'c'", f"url {OF} cannot be asked: the base URL"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        sources(tmp_path, text)
    sentence = str(refused.value)
    assert sentence.startswith(said)
    assert "\n" not in sentence
    assert "u:p" not in sentence


@pytest.mark.parametrize("url", ["https://[::1", "http://127.0.0.1:99999/", "https://fhir.example.org/a b"])
@pytest.mark.parametrize("auth", ["auth = 'none'", "client_id = 'c'"])
def test_a_url_that_cannot_be_read_is_a_sentence_too(tmp_path: Path, url: str, auth: str) -> None:
    with pytest.raises(CdsError) as refused:
        sources(tmp_path, f"{HEAD}url = '{url}'\n{auth}\n")
    assert type(refused.value) is Misconfigured


def test_a_scope_is_another_one_where_other_things_are_asked(tmp_path: Path) -> None:
    def scope(more: str = "") -> Any:
        return source(tmp_path, f"{LEAST}{more}").scope

    assert scope() == scope("every = '1h'\nreconcile = '7d'")
    different = {scope(), scope("types = ['Patient']"), scope("level = 'patient'"), scope("elements = ['id']")}
    assert len(different) == 4
    assert scope("types = ['Patient', 'Condition']") == scope("types = ['Condition', 'Patient']")
