"""Which EHR a launch comes from, and what is asked for: the rules alone."""

from __future__ import annotations

import pytest

from smart_app.discovery import Discovery, endpoints
from smart_app.launch import begin, scopes
from smart_app.registered import Registered, by_issuer, normal

BASE = "https://ehr.example.org/fhir"
APP = Registered("ward-7", "Ward 7", BASE, "cds")
DOCUMENT = {"authorization_endpoint": f"{BASE}/a", "token_endpoint": f"{BASE}/t"}


def anything(_: str) -> str | None:
    return None


@pytest.mark.parametrize(
    "iss",
    [
        "https://ehr.example.org/fhir",
        "https://ehr.example.org/fhir/",
        "HTTPS://EHR.Example.org:443/fhir",
    ],
)
def test_a_base_has_one_spelling(iss: str) -> None:
    assert by_issuer(iss, {"ward-7": APP}) is APP


@pytest.mark.parametrize(
    "iss",
    [
        "https://ehr.example.org/FHIR",
        "https://ehr.example.org/fhir//",
        "https://ehr.example.org/fhir/.",
        "https://ehr.example.org/fhir/%2E%2e/fhir",
        "https://ehr.example.org:0443/fhir?",
        "https://ehr.example.org:99999/fhir",
        "https://ehr.example.org:/fhir",
        "https://ehr.example.org./fhir",
        "https://ehr.example.org/fhir;x",
        "https://ehr.example.org/fhir\t",
        "https://ehr.example.org\\fhir",
        "http://ehr.example.org/fhir",
        "https://ehr.example.org@evil.example.org/fhir",
        "https://ехr.example.org/fhir",
        "ehr.example.org/fhir",
        "",
    ],
)
def test_whatever_is_spelt_otherwise_is_another_server(iss: str) -> None:
    assert by_issuer(iss, {"ward-7": APP}) is None


def test_a_port_is_part_of_a_base() -> None:
    assert normal("http://127.0.0.1:8001/fhir/") == "http://127.0.0.1:8001/fhir"
    assert normal("http://[::1]:80") == "http://[::1]"
    assert normal("https://a.example.org:0/") is None


@pytest.mark.smart("153", "155", "156", "157", "158", "162")
def test_contexts_are_asked_for_as_they_are_configured() -> None:
    wanted = ("launch/encounter", "launch/imagingstudy", "launch/list?role=home", "launch/list?role=ward")
    app = Registered("a", "A", BASE, "cds", scopes=(*wanted, "patient/Patient.r"))
    at = endpoints(DOCUMENT, BASE, anything)
    asked = scopes(app, at, standalone=False)
    assert asked == ("launch", "openid", "fhirUser", "online_access", *wanted, "patient/Patient.r")
    assert begin(app, at, "https://cds.example.org", None).scopes[0] == "launch/patient"


def test_discovery_lives_on_what_it_knows_for_a_day() -> None:
    import asyncio

    from models.errors import PeerFailed

    now, answers = [0.0], [b'{"authorization_endpoint": "a", "token_endpoint": "t"}']
    asked = []

    class Door:
        def refuses(self, _: str) -> str | None:
            return None

        async def get(self, url: str, _: object, *, limit: int) -> bytes:
            asked.append(url)
            if not answers[0]:
                raise PeerFailed("gone")
            return answers[0]

    discovery = Discovery(Door(), BASE, clock=lambda: now[0])

    async def story() -> None:
        first = await discovery.endpoints()
        assert first.authorization == f"{BASE}/a"
        now[0] = 599.0
        assert await discovery.endpoints() is first
        answers[0], now[0] = b"", 601.0
        assert await discovery.endpoints() is first  # it does not answer, and what is known is used
        now[0] = 605.0
        assert await discovery.endpoints() is first
        assert len(asked) == 2  # nor asked again at once
        now[0] = 90_000.0
        for _ in range(2):
            with pytest.raises(PeerFailed):
                await discovery.endpoints()
        assert len(asked) == 3

    asyncio.run(story())


@pytest.mark.smart("29")
def test_what_is_odd_about_a_configuration_is_told() -> None:
    told = endpoints({**DOCUMENT, "code_challenge_methods_supported": ["plain"]}, BASE, anything).odd
    assert [each.partition(" ")[2][:20] for each in told] == [
        "does not say that it",
        "takes the challenge ",
        "names no issuer",
        "has no grant_types_s",
        "has no capabilities",
    ]
