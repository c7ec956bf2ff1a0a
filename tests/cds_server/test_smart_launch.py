"""Launches against an EHR of our own: what is asked of it, and which launches open a case."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cds_server.keys import Keys
from tests.cds_server.smart_flow import NAMESPACE, PUBLIC, App, Browser, House, asked, house
from tests.hostile_authorization import CLIENT, HostileEhr, running


@pytest.fixture(scope="module")
def one_ehr() -> Iterator[HostileEhr]:
    with running(HostileEhr()) as ehr:
        yield ehr


@pytest.fixture
def ehr(one_ehr: HostileEhr) -> HostileEhr:
    one_ehr.reset()
    return one_ehr


@pytest.fixture
def app(ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path) -> Iterator[House]:
    with house(data_dir, migrated_sqlite, ehr) as found:
        yield found


# ---- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.smart("3", "12", "13", "32", "33", "34", "35", "37", "39", "41", "42", "44", "45", "47", "50", "51")
@pytest.mark.smart("62", "67", "68", "69", "70", "161", "162", "195", "196", "211", "215")
def test_an_ehr_launch_opens_the_case_of_its_patient(app: House) -> None:
    handle = "opaque/+ %25?&=ü"

    async def story(browser: Browser) -> None:
        sent = await browser.launch(handle)
        request = asked(sent)
        assert request["launch"] == handle
        assert request["response_type"] == "code"
        assert request["client_id"] == CLIENT
        assert request["redirect_uri"] == f"{PUBLIC}/app/callback"
        assert request["aud"] == app.ehr.base
        assert request["code_challenge_method"] == "S256"
        assert len(request["code_challenge"]) == 43
        assert request["scope"].split(" ") == ["launch", "openid", "fhirUser", "online_access", "patient/Patient.r"]
        assert not {"max_age", "resource", "auth_time"} & set(request)
        told = await browser.case(await browser.back(sent))
        assert (told["patient"], told["name"]) == ("pat-1", "Dr Ama Osei")
        assert told["subject"] == f"{app.ehr.base}/Practitioner/dr-osei"

    app.run(story)
    assert app.ehr.problems == []  # what the EHR holds against its client: verifier, redirect_uri, code, proof
    (exchange,) = [each for each in app.ehr.asked if each.method == "POST"]
    assert set(exchange.form) == {"grant_type", "code", "redirect_uri", "code_verifier"}
    assert (exchange.path, exchange.form["grant_type"]) == ("/token", "authorization_code")
    assert app.kinds()[-1] == "sign-in"


@pytest.mark.smart("2", "40")
def test_state_nonce_and_challenge_are_new_for_each_launch_and_long(app: House) -> None:
    async def story(browser: Browser) -> None:
        requests = [asked(await browser.launch()) for _ in range(4)]
        for name in ("state", "nonce", "code_challenge"):
            assert len({each[name] for each in requests}) == 4
        assert all(len(each["state"]) >= 43 for each in requests)  # 256 bits in base64url

    app.run(story)


@pytest.mark.smart("36", "46", "148", "150", "151", "152", "166")
def test_a_standalone_launch_begins_at_an_ehr_of_the_configuration(app: House) -> None:
    async def story(browser: Browser) -> None:
        page = (await browser.http.get("/app")).text
        assert "Ward 7" in page
        assert 'type="text"' not in page  # nobody types an address
        (link,) = re.findall(r'href="(/app/launch\?iss=[^"]+)"', page)
        sent = await browser.http.get(link)
        request = asked(sent)
        assert "launch" not in request
        assert request["scope"].split(" ")[0] == "launch/patient"
        assert all("*" not in scope for scope in request["scope"].split(" "))
        assert (await browser.case(await browser.back(sent)))["patient"] == "pat-1"

    app.run(story)


@pytest.mark.smart("121", "125", "132", "216")
def test_scopes_are_those_of_the_configuration_in_the_version_that_the_ehr_speaks(
    ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path
) -> None:
    ehr.configuration["capabilities"] = ["permission-v1"]
    scope = "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
    with house(data_dir, migrated_sqlite, ehr) as app:

        async def story(browser: Browser) -> None:
            assert asked(await browser.launch())["scope"].endswith(" patient/Patient.read")

        app.run(story)
    other = data_dir / "other"
    other.mkdir()
    with house(other, migrated_sqlite, ehr, more=f'app_scopes = ["{scope}"]\napp_offline = true') as app:

        async def configured(browser: Browser) -> None:
            sent = await browser.launch()
            assert asked(sent)["scope"] == f"launch openid fhirUser offline_access {scope}"
            assert "%257C" not in sent.headers["location"]  # encoded once

        app.run(configured)


@pytest.mark.smart("52", "133")
def test_an_ehr_that_takes_forms_gets_one_where_that_is_configured(
    ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path
) -> None:
    ehr.configuration["capabilities"] = ["authorize-post"]
    with house(data_dir, migrated_sqlite, ehr, more="app_post = true") as app:

        async def story(browser: Browser) -> None:
            page = await browser.launch()
            assert page.status_code == 200
            assert f'action="{ehr.root}/authorize"' in page.text
            fields = dict(re.findall(r'name="([a-z_]+)" value="([^"]*)"', page.text))
            assert {"response_type", "state", "code_challenge", "aud", "launch"} <= set(fields)
            assert (
                f"form-action &#39;self&#39; {ehr.root}" in page.text
                or f"form-action 'self' {ehr.root};" in (page.headers["content-security-policy"])
            )

        app.run(story)


# ---- whose launch it is ----------------------------------------------------------------------------------------------


FOREIGN = (
    "https://evil.example.org/fhir",
    "{base}/other",
    "{base}x",
    "{root}",
    "{base}/../fhir",
    "{base}/%2e%2e/fhir",
    "{base}?x=1",
    "{base}#x",
    "http://user@{place}/fhir",
    "https://{place}/fhir",
    "http://{host}:1/fhir",
    "http://{place}//fhir",
    "{base}\\",
    "javascript:alert(1)",
    "",
    "http://[::1/fhir",
)


@pytest.mark.smart("1")
def test_an_issuer_that_is_not_registered_is_refused_before_anything_is_asked(app: House) -> None:
    place = app.ehr.root.removeprefix("http://")

    async def story(browser: Browser) -> None:
        for iss in FOREIGN:
            named = iss.format(base=app.ehr.base, root=app.ehr.root, place=place, host=place.partition(":")[0])
            answer = await browser.http.get("/app/launch", params={"iss": named, "launch": "x"})
            assert answer.status_code == 403, iss
            assert "evil" not in answer.text
            assert "<h1>The case was not opened</h1>" in answer.text
            assert "set-cookie" not in answer.headers

    app.run(story)
    assert app.ehr.asked == []


def test_the_registered_issuer_may_be_spelt_with_a_slash_and_in_capitals(app: House) -> None:
    async def story(browser: Browser) -> None:
        for iss in (f"{app.ehr.base}/", app.ehr.base.replace("http:", "HTTP:")):
            assert asked(await browser.launch(iss=iss))["aud"] == app.ehr.base  # as registered, not as it came

    app.run(story)


def test_a_launch_that_cannot_be_read_is_a_page(app: House) -> None:
    async def story(browser: Browser) -> None:
        for query in ("", "launch=x", "iss={iss}&iss={iss}", "iss={iss}&launch=", "iss={iss}&launch=%00"):
            answer = await browser.http.get(f"/app/launch?{query.format(iss=app.ehr.base)}")
            assert answer.status_code == 400, query
            assert answer.headers["content-type"].startswith("text/html")

    app.run(story)


# ---- discovery -------------------------------------------------------------------------------------------------------


@pytest.mark.smart("29", "375")
def test_the_configuration_is_asked_once_for_all_who_want_it(app: House) -> None:
    async def story(browser: Browser) -> None:
        for _ in range(3):
            await browser.launch()

    app.run(story)
    (question,) = app.ehr.asked
    assert question.path == "/fhir/.well-known/smart-configuration"
    assert question.headers["accept"] == "application/json"


@pytest.mark.smart("379")
def test_relative_endpoints_stand_below_the_fhir_base(app: House) -> None:
    app.ehr.configuration |= {"authorization_endpoint": "auth/authorize", "token_endpoint": "/token"}

    async def story(browser: Browser) -> None:
        sent = await browser.launch()
        assert sent.headers["location"].startswith(f"{app.ehr.base}/auth/authorize?")
        assert (await browser.case(await browser.back(sent)))["patient"] == "pat-1"

    app.run(story)


def test_what_an_ehr_leaves_out_of_its_configuration_refuses_nothing(app: House) -> None:
    app.ehr.configuration |= {"code_challenge_methods_supported": None, "capabilities": None}
    app.ehr.configuration |= {"grant_types_supported": None, "jwks_uri": None}  # then by its issuer's description

    async def story(browser: Browser) -> None:
        sent = await browser.launch()
        assert asked(sent)["code_challenge_method"] == "S256"
        assert (await browser.case(await browser.back(sent)))["patient"] == "pat-1"

    app.run(story)
    assert "/.well-known/openid-configuration" in app.ehr.paths()


ELSEWHERE: tuple[dict[str, Any], ...] = (
    {"token_endpoint": "https://evil.example.org/token"},
    {"authorization_endpoint": "http://127.0.0.1:1/authorize"},
    {"authorization_endpoint": "javascript:alert(1)"},
    {"jwks_uri": "http://169.254.169.254/jwks"},
    {"token_endpoint": None},
    {"authorization_endpoint": 7},
)


@pytest.mark.smart("1")
def test_endpoints_on_other_hosts_are_not_followed(app: House) -> None:
    async def story(browser: Browser) -> None:
        answer = await browser.launch()
        assert answer.status_code == 502
        assert "evil" not in answer.text

    for change in ELSEWHERE:
        app.ehr.reset()
        app.ehr.configuration |= change
        app.run(story)
        assert app.ehr.paths() == ["/fhir/.well-known/smart-configuration"], change


def test_a_configuration_that_is_none(app: House) -> None:
    ehr = app.ehr

    async def story(browser: Browser) -> None:
        for _ in range(3):
            assert (await browser.launch()).status_code == 502

    for kind in ("moved", "missing", "html", "huge", "list"):
        ehr.reset()
        if kind == "moved":
            ehr.move_configuration_to = f"{ehr.root}/style.json"
        elif kind == "missing":
            ehr.configuration_status = 404
        else:
            ehr.raw_configuration = {"html": b"<html>", "huge": b" " * (1 << 18) + b"{}", "list": b"[]"}[kind]
        app.run(story)
        assert len(ehr.asked) == 1, kind  # not again for each who tries; and a redirect is not followed


# ---- who the app is --------------------------------------------------------------------------------------------------


@pytest.mark.smart("63", "71", "317")
def test_a_public_client_names_itself_and_proves_nothing(
    ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path
) -> None:
    with house(data_dir, migrated_sqlite, ehr, method="public") as app:

        async def story(browser: Browser) -> None:
            assert (await browser.case(await browser.opened()))["patient"] == "pat-1"

        app.run(story)
    assert ehr.problems == []
    (exchange,) = [each for each in ehr.asked if each.method == "POST"]
    assert "authorization" not in exchange.headers


@pytest.mark.smart("10", "11", "23", "64", "66", "72", "343", "345")
def test_a_symmetric_client_proves_itself_by_basic(app: House) -> None:
    """Id and secret are percent-encoded (RFC 6749, 2.3.1): both have signs that Basic would read otherwise."""

    async def story(browser: Browser) -> None:
        assert (await browser.case(await browser.opened()))["patient"] == "pat-1"

    app.run(story)
    assert app.ehr.problems == []
    (exchange,) = [each for each in app.ehr.asked if each.method == "POST"]
    assert exchange.headers["authorization"].startswith("Basic ")
    assert not {"client_id", "client_secret"} & set(exchange.form)


@pytest.mark.smart("20", "21", "22", "65", "290", "291", "293", "294", "298", "299", "302", "303", "307", "308", "309")
@pytest.mark.smart("313", "314", "315", "318", "319", "320", "321", "322", "323", "325", "327", "328", "329", "330")
@pytest.mark.smart("331", "332", "333", "334")
@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
def test_an_asymmetric_client_signs_an_assertion_for_each_request(
    ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path, algorithm: str
) -> None:
    with house(data_dir, migrated_sqlite, ehr, method="asymmetric", more='app_keys = "ward"') as app:
        keys = Keys(app.store)
        keys.new("ward", "user:test", algorithm)
        ehr.client_keys = lambda: keys.published("ward")

        async def story(browser: Browser) -> None:
            published = await browser.http.get("/.well-known/jwks/ward.json")  # where the EHR is told to look
            assert "max-age" in published.headers["cache-control"]
            ((key),) = published.json()["keys"]
            assert not {"d", "p", "q", "x5c"} & set(key)
            told = await browser.case(await browser.opened())
            await browser.smart.reads._tokens.usable(told["id"], after="x")  # a refresh is proved anew
            first = next(iter(ehr.refreshes))
            ehr.unauthorized |= {each.headers["authorization"][7:] for each in ehr.asked if "/Patient/" in each.path}
            await browser.smart.reads.read(told["id"], "Patient/pat-1")
            assert ehr.refreshes[first] is False

        app.run(story)
    assert ehr.problems == []
    assert len(ehr.assertions) == 2


def test_an_asymmetric_client_without_a_key_says_so(ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path) -> None:
    with house(data_dir, migrated_sqlite, ehr, method="asymmetric") as app:

        async def story(browser: Browser) -> None:
            answer = await browser.opened()
            assert answer.status_code == 500
            assert "cds keys new" in answer.text

        app.run(story)
    assert [each.method for each in ehr.asked] == ["GET"]


def test_the_audience_of_an_assertion_can_be_another(ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path) -> None:
    with house(data_dir, migrated_sqlite, ehr, method="asymmetric", more='app_audience = "https://as.example"') as app:
        keys = Keys(app.store)
        keys.new(None, "user:test")
        ehr.client_keys = lambda: keys.published(None)

        async def story(browser: Browser) -> None:
            await browser.opened()

        app.run(story)
    assert ehr.problems == ["an assertion of another client, for another server, or without kid and typ"]


# ---- how long, and how many ------------------------------------------------------------------------------------------


def test_a_launch_is_forgotten_after_ten_minutes(app: House) -> None:
    async def story(browser: Browser) -> None:
        sent = await browser.launch()
        app.store.writer.submit(lambda tx: tx.execute("UPDATE app_launch SET until = 1")).result()
        assert (await browser.back(sent)).status_code == 401
        await browser.launch()

    app.run(story)
    assert app.store.reads.query("SELECT COUNT(*) FROM app_launch")[0][0] == 1  # the next one sweeps
    assert app.ehr.paths("/token") == []


def test_launches_that_nobody_finishes_do_not_fill_the_store(app: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cds_server.smart.pending.MOST", 2)

    async def story(browser: Browser) -> None:
        assert [(await browser.launch()).status_code for _ in range(3)] == [302, 302, 503]

    app.run(story)


def test_two_workers_share_a_launch(app: House) -> None:
    async def story(one: App) -> None:
        async with app.app() as other, one.browser() as browser, other.browser() as same:
            sent = await browser.launch()
            same.http.cookies = browser.http.cookies
            told = await same.case(await same.back(sent))
            browser.http.cookies = same.http.cookies
            assert (await browser.http.get(f"/app/{told['id']}/")).status_code == 200
            assert told["patient"] == "pat-1"

    app.tell(story)
    assert app.store.reads.query("SELECT namespace FROM app_session") == [(NAMESPACE,)]
