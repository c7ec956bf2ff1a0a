"""What a token answer is read as; scopes, contexts, users, looks: the rules alone, without a server."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import NotAllowed, PeerFailed, WrongPatient
from smart_app.discovery import endpoints
from smart_app.ehr_style import filtered
from smart_app.granted import Context, granted, may, reference_of, seconds_of
from smart_app.style import sheet
from smart_app.users import fhir_user, name_in

ANSWER = {"access_token": "a", "token_type": "Bearer", "patient": "1"}
BASE = "https://ehr.example.org/fhir"
CATEGORY = "?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory"


@pytest.mark.smart("131", "132", "135", "137", "141", "147")
@pytest.mark.parametrize(
    ("scopes", "kind", "letter", "answer"),
    [
        (["patient/Patient.r"], "Patient", "r", "all"),
        (["patient/Patient.r"], "Patient", "s", "no"),
        (["patient/Patient.r", "user/Patient.s"], "Patient", "s", "all"),  # a union
        (["patient/*.cruds"], "Observation", "r", "all"),
        (["patient/Observation.read"], "Observation", "s", "all"),  # version 1
        (["patient/Observation.write"], "Observation", "r", "no"),
        (["patient/*.*"], "Observation", "d", "all"),
        ([f"patient/Observation.rs{CATEGORY}"], "Observation", "s", "some"),
        ([f"patient/Observation.rs{CATEGORY}", "patient/Observation.rs"], "Observation", "s", "all"),
        (["patient/Observation.dus"], "Observation", "s", "no"),  # letters have one order
        (["patient/Observation."], "Observation", "r", "no"),
        (["patient/observation.rs", "Observation.rs", "launch", "openid"], "Observation", "s", "no"),
        ([], "Patient", "r", "no"),
    ],
)
def test_what_scopes_allow_together(scopes: list[str], kind: str, letter: str, answer: str) -> None:
    assert may(scopes, kind, letter) == answer


@pytest.mark.smart("132", "147")
def test_granted_scopes_are_apart_by_blanks_and_absent_ones_are_as_asked() -> None:
    told = granted({**ANSWER, "scope": f"openid  patient/Observation.rs{CATEGORY}&x=a%20b"}, ["x"])
    assert told.scopes == ("openid", f"patient/Observation.rs{CATEGORY}&x=a%20b")
    assert granted(ANSWER, ["patient/Patient.r"]).scopes == ("patient/Patient.r",)
    assert granted({**ANSWER, "scope": ""}, ["patient/Patient.r"]).scopes == ()


def test_a_patient_is_named_once_or_the_launch_ends() -> None:
    with pytest.raises(NotAllowed, match="did not say whose"):
        granted({**ANSWER, "patient": None, "scope": "patient/Patient.r"}, [])
    with pytest.raises(NotAllowed, match="without a patient"):
        granted({**ANSWER, "patient": None, "scope": "user/Patient.r"}, [])
    for odd in ("", "a b", "a/b", 1, ["1"], {"id": "1"}, "x" * 65):
        with pytest.raises(PeerFailed):
            granted({**ANSWER, "patient": odd}, [])
    for context in ("Patient/2", "https://other.example.org/fhir/Patient/2", "Patient/2/_history/1"):
        with pytest.raises(WrongPatient):
            granted({**ANSWER, "fhirContext": [{"reference": context}]}, [])
    assert granted({**ANSWER, "fhirContext": [{"reference": "Patient/1"}]}, []).context == (
        Context("launch", "Patient/1"),
    )
    assert reference_of("x") == (None, None)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(3600, 3600), ("60", 60), (None, 300), (0, 300), (-5, 300), (True, 300), ("soon", 300), (10**9, 86_400)],
)
def test_a_life_that_is_not_told_is_short(told: Any, seconds: int) -> None:
    assert seconds_of({"expires_in": told}) == seconds


@pytest.mark.smart("97", "202")
@pytest.mark.parametrize(
    ("claims", "url", "here"),
    [
        ({"fhirUser": "Practitioner/1"}, f"{BASE}/Practitioner/1", True),
        ({"fhirUser": f"{BASE}/Person/1"}, f"{BASE}/Person/1", True),
        ({"fhirUser": "HTTPS://EHR.example.org:443/fhir/Patient/1"}, f"{BASE}/Patient/1", True),
        ({"fhirUser": f"{BASE}x/RelatedPerson/1"}, f"{BASE}x/RelatedPerson/1", False),
        ({"fhirUser": "https://evil.example.org/fhir/Practitioner/1"}, None, False),
        ({"fhirUser": f"{BASE}@evil.example.org/Practitioner/1"}, "", False),
        ({"fhirUser": "//evil.example.org/Practitioner/1"}, "", False),
        ({"fhirUser": "/Practitioner/1"}, "", False),
        ({"fhirUser": "Device/1"}, "", False),
        ({"fhirUser": 7, "profile": "PractitionerRole/9"}, f"{BASE}/PractitionerRole/9", True),
        ({"profile": "https://example.org/me"}, "", False),
        ({}, "", False),
    ],
)
def test_a_user_is_here_only_below_the_fhir_base(claims: dict[str, Any], url: str | None, here: bool) -> None:
    found = fhir_user(claims, BASE)
    assert (found.url if found else "") == (claims["fhirUser"] if url is None else url)
    assert (found.here if found else False) is here


def test_names_are_one_line_of_what_can_be_printed() -> None:
    user = fhir_user({"fhirUser": "Practitioner/1"}, BASE)
    assert user is not None
    base = {"resourceType": "Practitioner", "id": "1"}
    names = [{"use": "nickname", "text": "Bo"}, {"use": "official", "given": ["A\n", 7], "family": "O\x00sei"}]
    assert name_in({**base, "name": names}, user) == "A O sei"
    assert name_in({**base, "name": [{"text": "x" * 500}]}, user) == "x" * 120
    for nobody in ({}, {"name": 7}, {"name": [7, {}]}, {"name": [{"text": "\n"}]}, {"id": "2", "name": names}):
        assert name_in({**base, **nobody}, user) is None
    role = fhir_user({"fhirUser": "PractitionerRole/1"}, BASE)
    assert role is not None
    shown = {"resourceType": "PractitionerRole", "id": "1", "practitioner": {"display": "Dr O"}}
    assert name_in(shown, role) == "Dr O"


def test_a_look_is_colours_sizes_and_fonts_that_can_be_read() -> None:
    assert filtered({"color_text": "#eee", "color_background": "#fff", "dim_border_radius": "4px"}) == {
        "dim_border_radius": "4px"
    }
    assert filtered({"color_highlight": "#0B5"}) == {"color_highlight": "#0b5"}
    evil = ["#fff}", "url(x)", "var(--x)", "#12345", "expression(1)", "6px;color:red", "1e3px", "a,b;c", "</style>", 7]
    for name in ("color_text", "dim_spacing_size", "font_family_body"):
        assert [each for each in evil if filtered({name: each})] == []
    assert filtered(["color_text"]) == {}
    assert "<" not in sheet(filtered({"font_family_body": "Georgia, serif", "dim_border_radius": "4px"}))


# ---- whatever comes --------------------------------------------------------------------------------------------------

SOME = ["", "1", "Bearer", "Patient/1", "Practitioner/1", f"{BASE}/Patient/2", "launch", "patient/*.rs", "\x00"]
WORDS = st.sampled_from([*SOME, "https://[::1", "//x/Person/1"])
NUMBERS = st.integers() | st.decimals(allow_nan=False, allow_infinity=False)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=20))
NAMES = ["reference", "role", "canonical", "inference", "text", "given", "family", "use", "display"]
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner), max_leaves=8
)
MEMBERS = ["access_token", "token_type", "expires_in", "scope", "patient", "encounter", "fhirContext", "intent"]
MEMBERS += ["need_patient_banner", "smart_style_url", "appContext", "refresh_token", "id_token", "tenant"]


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=8), st.booleans())
def test_no_answer_breaks_its_reader(members: dict[str, Any], usable: bool) -> None:
    try:
        told = granted({**members, **ANSWER} if usable else members, ["openid"])
    except (NotAllowed, PeerFailed, WrongPatient):
        return
    assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", told.patient)
    assert 0 < told.seconds <= 86_400
    assert all(each.role for each in told.context)


@given(JSON, JSON, JSON)
def test_no_user_and_no_look_breaks_its_reader(claim: Any, name: Any, look: Any) -> None:
    user = fhir_user({"fhirUser": claim, "profile": name}, BASE)
    if user is not None:
        assert user.here is user.url.startswith(f"{BASE}/")
        shown = name_in({"resourceType": user.kind, "id": user.id, "name": name, "practitioner": name}, user)
        assert shown is None or (shown.isprintable() and len(shown) <= 120)
    assert set("{};<>") & set("".join(filtered({"color_text": look, "font_family_body": look}).values())) == set()


@given(st.dictionaries(st.sampled_from(["authorization_endpoint", "token_endpoint", "jwks_uri", "capabilities"]), JSON))
def test_no_configuration_breaks_its_reader(document: dict[str, Any]) -> None:
    with contextlib.suppress(PeerFailed):
        endpoints(document, BASE, lambda url: None if url.startswith(f"{BASE}/") else "elsewhere")
