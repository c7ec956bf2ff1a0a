"""The rules of the door to vendors: which URLs are asked, and what a name may lead to."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_server.vendor_door import HostRules
from models.errors import Misconfigured

BASE = "https://ehr.example.org/fhir"

# ---- which URLs ------------------------------------------------------------------------------------------------------

RULES = HostRules(
    BASE,
    hosts=("files.example.org", "Files.example.org:8443", "*.storage.example.org", "[2606:4700::1]", "old.example.org"),
    plain_http=("old.example.org",),
)
NOT_NAMED = "the URL is not on a host that the configuration names"
NO_HOST = "the URL names no host that can be asked"
NOT_READ = "the URL has a fragment or signs that no URL has"


@pytest.mark.parametrize(
    "url",
    [
        BASE,
        "https://EHR.example.org:443/anything?_type=Patient&x=a|b",
        "https://files.example.org/1.ndjson",
        "https://files.example.org:8443/1.ndjson?sig=a%2Fb",
        "https://eu.storage.example.org",
        "https://a.b.storage.example.org/",
        "https://[2606:4700::1]/x",
        "http://old.example.org/x",
        "https://old.example.org/x",
    ],
)
def test_what_the_operator_named_is_asked(url: str) -> None:
    assert RULES.refuses(url) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://elsewhere.example.org/", NOT_NAMED),
        ("https://ehr.example.org.evil.example/", NOT_NAMED),
        ("https://ehr.example.org:8443/", NOT_NAMED),
        ("https://files.example.org:444/", NOT_NAMED),
        ("https://storage.example.org/", NOT_NAMED),
        ("https://evilstorage.example.org/", NOT_NAMED),
        ("https://ehr.example.org./", NO_HOST),
        ("https://8.8.8.8/", NOT_NAMED),
        ("http://ehr.example.org/", NOT_NAMED),
        ("http://ehr.example.org:443/", "the URL is without TLS, and plain_http does not name its host"),
        ("http://files.example.org/", "the URL is without TLS, and plain_http does not name its host"),
        ("ftp://ehr.example.org/", "the URL is not one of http or https"),
        ("file://localhost/etc/passwd", "the URL is not one of http or https"),
        ("/relative", "the URL is not one of http or https"),
        ("https://ehr.example.org@evil.example/", "the URL names a user"),
        ("https://user:pass@ehr.example.org/", "the URL names a user"),
        ("https://ehr.example.org/#fragment", NOT_READ),
        ("https://ehr.example.org\\@evil.example/", NOT_READ),
        ("https://ehr.example.org/\r\nX: y", NOT_READ),
        ("https://ehr.example.org/ü", NOT_READ),
        ("https://", NO_HOST),
        ("https://ehr.example.org:/", NO_HOST),
        ("https://ehr.example.org:0/", NO_HOST),
        ("https://ehr.example.org:99999/", "the URL cannot be read"),
        ("https://[::1", "the URL cannot be read"),
        ("https://ehr%2eexample.org/", NO_HOST),
        ("https://[fe80::1%25eth0]/", NO_HOST),
        ("https://127.1/", NO_HOST),
        ("https://0x7f.0.0.1/", NO_HOST),
        ("https://2130706433/", NO_HOST),
    ],
)
def test_everything_else_is_refused_in_our_words(url: str, reason: str) -> None:
    assert RULES.refuses(url) == reason


@given(st.text())
def test_any_text_is_answered(url: str) -> None:
    assert RULES.refuses(url) is not None
    RULES.refuses(f"https://{url}")


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "*.com",
        "*.*.example.org",
        "https://a.example.org",
        "a.example.org/path",
        "a b",
        "",
        "u@a.org",
        "*.127.0.0.1",
    ],
)
def test_an_entry_that_means_too_much_or_nothing_is_a_mistake(entry: str) -> None:
    with pytest.raises(Misconfigured, match="hosts: "):
        HostRules(BASE, hosts=(entry,))


def test_a_pattern_does_not_say_who_goes_without_tls() -> None:
    with pytest.raises(Misconfigured, match="plain_http: "):
        HostRules(BASE, plain_http=("*.example.org",))


@pytest.mark.parametrize(
    "base", ["", "ehr", "ftp://a.org", "http://ehr.example.org/fhir", "https://10.0.0.5/fhir", "https://u:p@a.org/"]
)
def test_a_base_that_would_be_refused_is_a_mistake(base: str) -> None:
    with pytest.raises(Misconfigured, match="the base URL: the URL "):
        HostRules(base)


# ---- which addresses -------------------------------------------------------------------------------------------------

PUBLIC = ("8.8.8.8", "2606:4700::1", "64:ff9b::808:808")
PRIVATE = ("10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "64:ff9b::a00:5")
LOOPBACK = ("127.0.0.1", "127.8.8.8", "::1")
NEVER = (
    *("0.0.0.0", "169.254.169.254", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),  # noqa: S104
    *("::", "fe80::1", "ff02::1", "fec0::1", "::ffff:8.8.8.8", "::ffff:10.0.0.5", "2002:a00:5::", "2001:0:a00:5::1"),
    *("::7f00:1", "2001:db8::1", "64:ff9b::a9fe:a9fe"),
)


@pytest.mark.parametrize(
    ("rules", "reached"),
    [
        (RULES, PUBLIC),
        (HostRules(BASE, private_network=True), (*PUBLIC, *PRIVATE)),
        (HostRules("http://localhost:8090/fhir", hosts=("ehr.example.org",)), (*PUBLIC, *LOOPBACK)),
        (HostRules("http://[::1]/", hosts=("ehr.example.org",), private_network=True), (*PUBLIC, *PRIVATE, *LOOPBACK)),
    ],
)
def test_what_a_name_may_lead_to(rules: HostRules, reached: Sequence[str]) -> None:
    every = (*PUBLIC, *PRIVATE, *LOOPBACK, *NEVER)
    assert [each for each in every if rules.may_reach("ehr.example.org", ip_address(each))] == [*reached]


def test_what_only_a_pattern_covers_leads_to_public_addresses_only() -> None:
    rules = HostRules("http://localhost/", hosts=("*.example.org", "ehr.example.org"), private_network=True)
    for address in (*PRIVATE, *LOOPBACK):
        assert rules.may_reach("ehr.example.org", ip_address(address))
        assert not rules.may_reach("other.example.org", ip_address(address))
    assert rules.may_reach("other.example.org", ip_address("8.8.8.8"))


def test_an_address_in_the_url_itself_is_held_against_the_same_rules() -> None:
    assert HostRules(BASE, hosts=("10.0.0.5",), private_network=True).refuses("https://10.0.0.5/") is None
    assert HostRules(BASE, hosts=("8.8.8.8",)).refuses("https://8.8.8.8/") is None
    for address in ("10.0.0.5", "127.0.0.1", "169.254.169.254", "[::ffff:10.0.0.5]"):
        reason = HostRules(BASE, hosts=(address,)).refuses(f"https://{address}/")
        assert reason == "the URL names an address that the configuration does not let this server reach"
