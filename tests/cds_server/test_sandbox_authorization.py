"""The sandbox's authorization server: what SMART App Launch 2.2 asks of it, and whom it sends away."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from starlette.testclient import TestClient

from cds_server.sandbox.app import create_app
from cds_server.sandbox.grants import CODE_SECONDS, Asked, Context, Grants
from cds_server.sandbox.users import USERS
from tests.cds_server.sandbox_app import CALLBACK, CDS, FHIR, FIXTURES, ISSUER, LAUNCH, SECRET, AnApp, HeldKeys, said
from tests.peers.ehr_keys import signing_key


@pytest.fixture(scope="module")
def app() -> Iterator[AnApp]:
    key = signing_key("ES384", "app-1")
    sandbox = create_app(CDS, FIXTURES, secret=SECRET, keys=HeldKeys(key))
    with TestClient(sandbox, base_url="http://127.0.0.1") as browser:
        yield AnApp(browser, key=key)


def test_it_says_what_it_can_do(app: AnApp) -> None:
    told = app.browser.get("/fhir/.well-known/smart-configuration").json()
    assert told["code_challenge_methods_supported"] == ["S256"]
    assert {"launch-ehr", "launch-standalone", "permission-v1", "permission-v2"} <= set(told["capabilities"])
    assert told["issuer"] == ISSUER
    assert app.browser.get("/auth/.well-known/openid-configuration").json() == told


def test_an_ehr_launch_brings_its_context_and_who_looks(app: AnApp) -> None:
    app.browser.cookies.set("sandbox-user", "mary")
    answer = app.authorize(launch=app.launch("/cases/nils-d/launch?intent=order-review"))
    app.browser.cookies.clear()
    sent = said(answer)
    assert (sent["state"], sent["iss"]) == ("s" * 40, ISSUER)
    assert answer.headers["referrer-policy"] == "no-referrer"
    tokens = app.redeem(sent["code"])
    assert tokens.headers["cache-control"] == "no-store"
    told = tokens.json()
    assert (told["patient"], told["encounter"]) == ("nils-d", "nils-d-admission")
    assert (told["intent"], told["need_patient_banner"]) == ("order-review", True)
    assert told["token_type"].lower() == "bearer"
    assert told["scope"] == "openid fhirUser launch online_access patient/*.rs"
    style = app.browser.get(told["smart_style_url"].removeprefix("http://127.0.0.1:8001")).json()
    assert re.fullmatch(r"#[0-9a-f]{6}", style["color_text"])
    keys = KeySet.import_key_set(app.browser.get("/auth/jwks").json())
    assert all(
        set(key) <= {"kty", "n", "e", "crv", "x", "y", "kid", "alg", "use"}
        for key in app.browser.get("/auth/jwks").json()["keys"]
    )
    claims = jwt.decode(told["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["iss"], claims["aud"], claims["sub"], claims["nonce"]) == (ISSUER, app.client_id, "mary", "n-1")
    assert claims["fhirUser"] == f"{FHIR}/Practitioner/us-core-practitioner-mary-obgyn"


def test_the_ehr_may_show_the_patient_itself_and_have_no_style(app: AnApp) -> None:
    told = app.whole_launch("/cases/jenny-m/launch?banner=no&style=no")
    assert told["need_patient_banner"] is False
    assert "smart_style_url" not in told
    assert "encounter" not in told


def test_a_request_may_come_as_a_form(app: AnApp) -> None:
    assert "code" in said(app.authorize("POST", launch=app.launch()))


def test_a_standalone_launch_lets_a_person_choose(app: AnApp) -> None:
    page = app.authorize(scope="launch/patient launch/encounter openid fhirUser patient/Observation.rs")
    assert page.status_code == 200
    assert page.text.count('name="patient"') == 10
    assert f"form-action 'self' {CDS};" in page.headers["content-security-policy"]
    (asked,) = re.findall(r'name="asked" value="([^"]+)"', page.text)
    form = {"asked": asked, "user": "peter", "patient": "ruth-k", "do": "allow"}
    foreign = app.browser.post("/auth/choose", data=form, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    chosen = app.browser.post("/auth/choose", data=form, follow_redirects=False)
    told = app.redeem(said(chosen)["code"]).json()
    assert (told["patient"], told["encounter"]) == ("ruth-k", "ruth-k-admission")
    again = app.browser.post("/auth/choose", data=form, follow_redirects=False)
    assert again.status_code == 404


@pytest.mark.parametrize("form", [{"do": "deny", "patient": "ruth-k"}, {"do": "allow"}, {"patient": "nobody"}])
def test_a_person_may_say_no_or_nothing(app: AnApp, form: dict[str, str]) -> None:
    (asked,) = re.findall(r'name="asked" value="([^"]+)"', app.authorize(scope="launch/patient patient/*.rs").text)
    answer = app.browser.post("/auth/choose", data={"asked": asked, **form}, follow_redirects=False)
    assert said(answer)["error"] == "access_denied"


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": f"{CALLBACK}/more"},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": None},
    ],
)
def test_nobody_is_sent_to_an_address_that_is_not_registered(app: AnApp, changes: dict[str, Any]) -> None:
    answer = app.authorize(launch=app.launch(), **changes)
    assert answer.status_code == 403
    assert "location" not in answer.headers
    assert "evil.example" not in answer.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"aud": "https://other.example/fhir"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"launch": "made-up"}, "invalid_request"),
        ({"scope": "openid"}, "invalid_request"),
        ({"scope": "system/*.rs patient/Observation.dus"}, "invalid_scope"),
        ({"state": None}, "invalid_request"),
    ],
)
def test_a_bad_request_is_told_to_the_app(app: AnApp, changes: dict[str, Any], error: str) -> None:
    answer = app.authorize(**{"launch": app.launch(), **changes})
    told = said(answer)
    assert told["error"] == error
    assert "code" not in told
    assert told["iss"] == ISSUER


def test_a_parameter_twice_is_no_request(app: AnApp) -> None:
    answer = app.browser.get("/auth/authorize?client_id=a&client_id=b", follow_redirects=False)
    assert answer.status_code == 400


def test_a_launch_is_good_once(app: AnApp) -> None:
    launch = app.launch()
    assert "code" in said(app.authorize(launch=launch))
    assert said(app.authorize(launch=launch))["error"] == "invalid_request"


@pytest.mark.parametrize(
    "changes", [{"code_verifier": "w" * 64}, {"code_verifier": None}, {"redirect_uri": CDS}, {"code": "made-up"}]
)
def test_a_code_wants_all_that_it_was_made_with(app: AnApp, changes: dict[str, Any]) -> None:
    code = said(app.authorize(launch=app.launch()))["code"]
    refused = app.redeem(**{"code": code, **changes})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


def test_a_code_used_twice_ends_what_came_of_it(app: AnApp) -> None:
    code = said(app.authorize(launch=app.launch()))["code"]
    token = app.redeem(code).json()["access_token"]
    read = {"authorization": f"Bearer {token}"}
    assert app.browser.get("/fhir/Patient/jenny-m", headers=read).status_code == 200
    assert app.redeem(code).json()["error"] == "invalid_grant"
    assert app.browser.get("/fhir/Patient/jenny-m", headers=read).status_code == 401


def test_refresh_tokens_rotate_and_a_stolen_one_ends_all(app: AnApp) -> None:
    first = app.whole_launch()["refresh_token"]
    renewed = app.token(grant_type="refresh_token", refresh_token=first, client_id=app.client_id).json()
    assert renewed["refresh_token"] != first
    assert renewed["patient"] == "jenny-m"
    assert "id_token" not in renewed
    narrow = app.token(
        grant_type="refresh_token",
        refresh_token=renewed["refresh_token"],
        client_id=app.client_id,
        scope="patient/*.rs",
    ).json()
    assert narrow["scope"] == "patient/*.rs"
    stolen = app.token(grant_type="refresh_token", refresh_token=first, client_id=app.client_id)
    assert stolen.json()["error"] == "invalid_grant"
    last = app.token(grant_type="refresh_token", refresh_token=narrow["refresh_token"], client_id=app.client_id)
    assert last.json()["error"] == "invalid_grant"


def test_a_refresh_token_wants_its_own_client_and_no_more_than_was_granted(app: AnApp) -> None:
    more = app.whole_launch()["refresh_token"]
    wide = app.token(
        grant_type="refresh_token", refresh_token=more, client_id=app.client_id, scope="patient/*.rs user/*.rs"
    )
    assert wide.json()["error"] == "invalid_scope"
    others = app.token(
        auth=("cds-server-symmetric", SECRET),
        grant_type="refresh_token",
        refresh_token=app.whole_launch()["refresh_token"],
    )
    assert others.json()["error"] == "invalid_grant"


def test_without_access_scope_there_is_no_refresh_token(app: AnApp) -> None:
    assert "refresh_token" not in app.whole_launch(scope="launch patient/Patient.r")


# ---- clients prove who they are --------------------------------------------------------------------------------------


def test_a_client_with_a_secret(app: AnApp) -> None:
    ours = AnApp(app.browser, "cds-server-symmetric")
    code = said(ours.authorize(launch=app.launch()))["code"]
    encoded = ("cds-server-symmetric", "a+secret%3A+with+%2F+signs")  # RFC 6749, 2.3.1
    assert ours.redeem(code, encoded, client_id=None).status_code == 200
    code = said(ours.authorize(launch=app.launch()))["code"]
    wrong = ours.redeem(code, ("cds-server-symmetric", "guess"), client_id=None)
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert "www-authenticate" in wrong.headers
    bare = ours.redeem(code)
    assert bare.status_code == 401


def test_a_client_with_a_key(app: AnApp) -> None:
    ours = AnApp(app.browser, "cds-server", app.key)
    code = said(ours.authorize(launch=app.launch()))["code"]
    proof = ours.assertion()
    assert ours.redeem(code, client_id=None, **proof).status_code == 200
    replayed = ours.redeem(said(ours.authorize(launch=app.launch()))["code"], client_id=None, **proof)
    assert replayed.json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://other.example/token"},
        {"sub": "somebody"},
        {"iss": "cds-server-public", "sub": "cds-server-public"},
        {"exp": int(time.time()) + 3600},
        {"exp": int(time.time()) - 600},
        {"jti": None},
        {"by": signing_key("ES384", "app-1")},
        {"by": signing_key("ES384", "app-2")},
        {"by": signing_key("ES256", "app-1")},
    ],
    ids=lambda each: "-".join(each),
)
def test_an_assertion_that_proves_nothing(app: AnApp, changes: dict[str, Any]) -> None:
    ours = AnApp(app.browser, "cds-server", app.key)
    code = said(ours.authorize(launch=app.launch()))["code"]
    refused = ours.redeem(code, client_id=None, **ours.assertion(**changes))
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def test_two_proofs_are_none(app: AnApp) -> None:
    ours = AnApp(app.browser, "cds-server", app.key)
    refused = ours.redeem("x", ("cds-server-symmetric", SECRET), client_id=None, **ours.assertion())
    assert refused.json()["error"] == "invalid_client"


@pytest.mark.parametrize("body", ["", "grant_type=a&grant_type=b"])
def test_a_token_request_that_is_none(app: AnApp, body: str) -> None:
    refused = app.browser.post(
        "/auth/token", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    assert app.token(grant_type="password", client_id=app.client_id).json()["error"] == "unsupported_grant_type"


# ---- what a token means ----------------------------------------------------------------------------------------------


def test_a_token_is_introspected_and_revoked(app: AnApp) -> None:
    told = app.whole_launch()
    who = {"client_id": app.client_id}
    meant = app.browser.post("/auth/introspect", data={"token": told["access_token"], **who}).json()
    assert meant["active"] is True
    assert (meant["client_id"], meant["patient"], meant["scope"]) == (app.client_id, "jenny-m", told["scope"])
    assert (meant["iss"], meant["sub"]) == (ISSUER, "owen")
    assert meant["exp"] - meant["iat"] == told["expires_in"]
    by_token = {"authorization": f"Bearer {told['access_token']}"}
    assert app.browser.post("/auth/introspect", data={"token": "x"}, headers=by_token).json() == {"active": False}
    assert app.browser.post("/auth/introspect", data={"token": "x"}).status_code == 401
    app.browser.post("/auth/revoke", data={"token": told["refresh_token"], **who})
    gone = app.browser.post("/auth/introspect", data={"token": told["access_token"], **who}).json()
    assert gone == {"active": False}


def test_time_ends_everything() -> None:
    now = [1000.0]
    grants = Grants(lambda: now[0])
    code = grants.code(Asked("app", CALLBACK, "s", ("openid",), "c"), Context(USERS[0], "jenny-m"))
    now[0] += CODE_SECONDS
    assert grants.redeem(code) is None


def test_only_a_registered_launch_url_is_launched(app: AnApp) -> None:
    answer = app.browser.get("/cases/jenny-m/launch", headers={"sec-fetch-site": "cross-site"}, follow_redirects=False)
    assert answer.status_code == 403
    answer = app.browser.get("/cases/jenny-m/launch", follow_redirects=False)
    assert answer.headers["location"].startswith(f"{LAUNCH}?iss=")
