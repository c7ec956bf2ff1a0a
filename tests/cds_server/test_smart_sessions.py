"""Sessions of the app: what proves them, what ends them, and how an EHR's tokens are kept and refreshed."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from cds_server.access.settings import AccessSettings
from cds_server.smart.sweeping import sweep
from models.errors import CdsError, NotAllowed, NotFound, PeerFailed, Unauthenticated
from tests.cds_server.smart_flow import App, Browser, House, house
from tests.hostile_authorization import HostileEhr, running


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


# ---- what proves a session -------------------------------------------------------------------------------------------


@pytest.mark.smart("7")
def test_a_cookie_is_of_one_launch_for_this_host_and_out_of_reach_of_scripts(app: House) -> None:
    async def story(browser: Browser) -> None:
        sent = await browser.launch()
        back = await browser.back(sent)
        launch_id = back.headers["location"].split("/")[-2]
        first, (proof, spent) = sent.headers["set-cookie"], sorted(back.headers.get_list("set-cookie"))
        assert first.startswith("__Host-cds-launch-")
        assert spent.startswith(first.partition("=")[0] + "=; ")
        assert "Max-Age=0" in spent
        assert proof.startswith(f"__Host-cds-app-{launch_id}=")
        for each in (first, proof):
            assert {"Path=/", "Secure", "HttpOnly", "SameSite=None", "Partitioned"} <= set(each.split("; "))
        assert launch_id not in sent.text + first  # made at the callback: nobody could have planted it
        assert "access-" not in str(back.headers) + str(sent.headers)

    app.run(story)


def test_over_plain_http_on_loopback_the_cookie_is_lax(ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path) -> None:
    with house(data_dir, migrated_sqlite, ehr, public="http://127.0.0.1:8000") as app:

        async def story(browser: Browser) -> None:
            sent = await browser.launch()
            assert sent.headers["set-cookie"].startswith("cds-launch-")
            assert sent.headers["set-cookie"].endswith("; HttpOnly; SameSite=Lax")
            assert (await browser.case(await browser.back(sent)))["patient"] == "pat-1"

        app.run(story)


def test_two_patients_side_by_side_never_cross(app: House) -> None:
    async def story(one: App) -> None:
        async with one.browser() as browser, one.browser() as stranger:
            app.ehr.patient = "pat-1"
            first = await browser.launch()
            app.ehr.patient = "pat-2"
            second = await browser.launch()
            told = {}
            app.ehr.patient = "pat-2"
            told["second"] = await browser.case(await browser.back(second))  # they come back in another order
            app.ehr.patient = "pat-1"
            told["first"] = await browser.case(await browser.back(first))
            assert (told["first"]["patient"], told["second"]["patient"]) == ("pat-1", "pat-2")
            for each in told.values():
                again = (await browser.http.get(f"/app/{each['id']}/")).json()
                assert again["patient"] == each["patient"]
                assert (await stranger.http.get(f"/app/{each['id']}/")).status_code == 401
            assert told["first"]["csrf"] != told["second"]["csrf"]
            names = [name for name in browser.http.cookies if "cds-app" in name]
            (mine,) = [name for name in names if told["first"]["id"] in name]
            (other,) = [name for name in names if told["second"]["id"] in name]
            stranger.http.cookies.set(mine, browser.http.cookies[other])  # the proof of one under the name of another
            assert (await stranger.http.get(f"/app/{told['first']['id']}/")).status_code == 401
            for odd in ("0" * 32, "launch", "x"):
                assert (await browser.http.get(f"/app/{odd}/")).status_code == 401

    app.tell(story)


def test_a_session_ends_when_it_is_not_used_and_at_the_latest(app: House) -> None:
    async def story(browser: Browser) -> None:
        one, other = [await browser.case(await browser.opened()) for _ in range(2)]
        change(app, "UPDATE app_session SET seen = seen - 700 WHERE id = ?", one["id"])
        assert (await browser.http.get(f"/app/{one['id']}/")).status_code == 200  # and a look moves it on
        change(app, "UPDATE app_session SET seen = seen - 700 WHERE id = ?", one["id"])
        assert (await browser.http.get(f"/app/{one['id']}/")).status_code == 200
        change(app, "UPDATE app_session SET seen = seen - 901 WHERE id = ?", one["id"])  # a clinician has 15 minutes
        assert (await browser.http.get(f"/app/{one['id']}/")).status_code == 401
        change(app, "UPDATE app_session SET until = 1 WHERE id = ?", other["id"])
        assert (await browser.http.get(f"/app/{other['id']}/")).status_code == 401
        await browser.opened()

    app.run(story)
    assert app.sessions() == 1  # the next one sweeps


def test_what_is_over_is_swept_with_its_keys(app: House) -> None:
    async def story(browser: Browser) -> None:
        await browser.opened()
        await browser.launch()

    app.run(story)
    now = int(time.time())
    assert sweep(app.store, now) == 0
    refs = app.store.reads.query("SELECT ref, token_ref FROM app_session")[0]
    assert sweep(app.store, now + 3600) == 3  # of a launch, of a session, of its tokens
    assert app.sessions() == 0
    assert [
        app.store.vault.keys.get(kind + bytes.fromhex(ref)) for kind, ref in zip((b"e", b"o"), refs, strict=True)
    ] == [
        None,
        None,
    ]


def change(app: House, statement: str, *parameters: object) -> None:
    app.store.writer.submit(lambda tx: tx.execute(statement, parameters)).result()


def test_what_the_configuration_takes_back_is_gone_at_once(app: House) -> None:
    async def story(one: App) -> None:
        async with one.browser() as browser:
            told = await browser.case(await browser.opened())
            for change in ({"access": AccessSettings()}, {"ehrs": ()}):
                now = House(dataclasses.replace(app.settings, **change), app.store, app.ehr)
                async with now.app() as restarted, restarted.browser() as same:
                    same.http.cookies = browser.http.cookies
                    if "ehrs" in change:  # it launches the app no longer
                        assert (await same.http.get(f"/app/{told['id']}/")).status_code == 401
                    else:
                        request = same.http.build_request("GET", f"/app/{told['id']}/")
                        cookie = {"type": "http", "headers": [(b"cookie", request.headers["cookie"].encode())]}
                        asked = Request({**cookie, "path_params": {"launch_id": told["id"]}})
                        assert (await restarted.smart.sessions.case(asked)).viewer.roles == frozenset()

    app.tell(story)


def test_signing_out_ends_a_session_for_all_workers_and_destroys_its_keys(app: House) -> None:
    async def story(one: App) -> None:
        async with app.app() as other, one.browser() as browser, other.browser() as same:
            told = await browser.case(await browser.opened())
            same.http.cookies = browser.http.cookies
            (refs,) = app.store.reads.query("SELECT ref, token_ref FROM app_session")
            for spoilt in ("", "x" * 43):
                answer = await browser.http.post(f"/app/{told['id']}/sign-out", data={"csrf": spoilt})
                assert answer.status_code == 403
            answer = await browser.http.post(f"/app/{told['id']}/sign-out", data={"csrf": told["csrf"]})
            assert "You are signed out" in answer.text
            assert "Max-Age=0" in answer.headers["set-cookie"]
            assert (await same.http.get(f"/app/{told['id']}/")).status_code == 401
            for kind, ref in zip((b"e", b"o"), refs, strict=True):
                assert app.store.vault.keys.get(kind + bytes.fromhex(ref)) is None

    app.tell(story)
    assert app.kinds()[-2:] == ["sign-in", "sign-out"]


@pytest.mark.smart("8", "9", "90", "295")
def test_nothing_of_a_token_stands_on_disk_or_reaches_the_browser(app: House) -> None:
    async def story(browser: Browser) -> None:
        sent = await browser.launch()
        back = await browser.back(sent)
        told = await browser.case(back)
        page = await browser.http.get(f"/app/{told['id']}/")
        said = "".join(str(each.headers) + each.text for each in (sent, back, page))
        for refresh in app.ehr.refreshes:
            assert refresh not in said

    app.run(story)
    app.store.close()
    kept = b"".join(path.read_bytes() for path in app.settings.data_dir.rglob("*") if path.is_file())
    secrets = [*app.ehr.refreshes, *(each.headers.get("authorization", "")[7:] for each in app.ehr.asked)]
    secrets += [each.form["code"] for each in app.ehr.asked if each.form]
    secrets += [each["state"] for each in app.ehr.granted]
    assert len(secrets) > 4
    assert [each for each in secrets if each and each.encode() in kept and each not in app.ehr.base] == []


def test_a_session_whose_patients_no_longer_agree_is_ended_as_a_safety_event(app: House) -> None:
    async def story(browser: Browser) -> None:
        app.ehr.patient = "pat-2"
        other = await browser.case(await browser.opened())
        app.ehr.patient = "pat-1"
        mine = await browser.case(await browser.opened())
        (record,) = app.store.reads.query("SELECT record FROM app_session WHERE id = ?", (other["id"],))[0]
        change(app, "UPDATE app_session SET record = ? WHERE id = ?", record, mine["id"])  # as a fault would
        for status in (403, 401):
            assert (await browser.http.get(f"/app/{mine['id']}/")).status_code == status

    app.run(story)
    assert app.flags() == ["wrong-patient"]


def test_a_record_that_is_another_patients_ends_the_session(app: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(browser: Browser) -> None:
        told = await browser.case(await browser.opened())
        monkeypatch.setattr(type(app.store.reads), "local_id", lambda *_: "pat-2")
        for status in (403, 401):
            assert (await browser.http.get(f"/app/{told['id']}/")).status_code == status

    app.run(story)
    monkeypatch.undo()
    assert app.flags() == ["wrong-patient"]
    assert app.kinds()[-1] == "safety"


# ---- frames ----------------------------------------------------------------------------------------------------------


def test_in_a_frame_the_cookie_is_tried_before_the_launch_is_used(app: House) -> None:
    frame = {"sec-fetch-dest": "iframe"}

    async def story(one: App) -> None:
        async with one.browser() as browser, one.browser() as forgetful:
            sent = await browser.launch(**frame)
            assert sent.status_code == 303
            onward = await browser.http.get(sent.headers["location"])
            assert (await browser.case(await browser.back(onward)))["patient"] == "pat-1"
            sent = await forgetful.launch("handle-7", **frame)
            forgetful.http.cookies.clear()  # as browsers do that keep none for third parties
            page = await forgetful.http.get(sent.headers["location"])
            assert page.status_code == 200
            assert f"/app/launch?iss={app.ehr.base.replace(':', '%3A').replace('/', '%2F')}&amp;launch=handle-7" in (
                page.text
            )
            assert 'target="_blank"' in page.text
            policy = page.headers["content-security-policy"]
            assert "frame-ancestors https://ehr.example.org" in policy
            assert "unsafe" not in policy
            assert "x-frame-options" not in page.headers
            assert len(app.ehr.granted) == 1  # what the EHR gave is unused, and good for the window
            assert (await forgetful.http.get(f"/app/launch/{'0' * 32}")).status_code == 404

    app.tell(story)


def test_pages_before_a_case_are_kept_by_nobody_and_tell_nobody_where_they_were(app: House) -> None:
    async def story(browser: Browser) -> None:
        sent = await browser.launch()
        back = await browser.back(sent)
        for answer in (
            sent,
            back,
            await browser.http.get("/app"),
            await browser.http.get("/app/callback?state=x&code=y"),
        ):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["referrer-policy"] == "no-referrer"
        assert back.status_code == 303
        assert back.headers["location"].count("?") == 0

    app.run(story)


# ---- tokens ----------------------------------------------------------------------------------------------------------


def spent(app: House) -> None:
    """The EHR takes none of the access tokens any more that it gave."""
    app.ehr.unauthorized |= {each.headers["authorization"][7:] for each in app.ehr.asked if "/fhir/P" in each.path}


@pytest.mark.smart("93", "105", "106", "107", "108", "117")
def test_a_token_that_is_taken_no_more_is_refreshed_once_and_replaced(app: House) -> None:
    async def story(browser: Browser) -> None:
        told = await browser.case(await browser.opened())
        reads = browser.smart.reads
        for _ in range(3):
            spent(app)
            reading = await reads.read(told["id"], "Patient/pat-1")
            assert reading.pages[0][1]["id"] == "pat-1"
        assert sum(app.ehr.refreshes.values()) == 1
        spent(app)
        app.ehr.refreshed = {"access_token": next(iter(app.ehr.unauthorized))}
        with pytest.raises(Unauthenticated):
            await reads.read(told["id"], "Patient/pat-1")

    app.run(story)
    assert app.ehr.problems == []
    refreshes = [each.form for each in app.ehr.asked if each.form.get("grant_type") == "refresh_token"]
    assert len(refreshes) == 4
    assert all(set(each) == {"grant_type", "refresh_token"} for each in refreshes)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_of_all_workers_one_refreshes(
    ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    url = None if engine == "sqlite" else str(request.getfixturevalue("migrated_postgres_url"))
    with house(data_dir, migrated_sqlite, ehr, url=url) as app:

        async def story(one: App) -> None:
            async with app.app() as two, app.app() as three, one.browser() as browser:
                told = await browser.case(await browser.opened())
                change(app, "UPDATE app_session SET refreshing = 'another', refreshing_until = 1")  # a dead one's lease
                spent(app)
                ehr.slow_refresh = 0.3
                workers = [each.smart.reads for each in (one, two, three)]
                found = await asyncio.gather(*(each.read(told["id"], "Patient/pat-1") for each in workers * 2))
                assert {each.pages[0][1]["id"] for each in found} == {"pat-1"}

        app.tell(story)
        assert app.kinds()[-1] == "sign-in"
    assert len([each for each in ehr.asked if each.form.get("grant_type") == "refresh_token"]) == 1
    assert ehr.problems == []


def test_a_refresh_that_is_refused_ends_the_session_and_one_that_fails_does_not(app: House) -> None:
    async def story(browser: Browser) -> None:
        reads = browser.smart.reads
        told = await browser.case(await browser.opened())
        spent(app)
        app.ehr.token_status = 500
        for _ in range(2):  # its lease was given back
            with pytest.raises(PeerFailed):
                await reads.read(told["id"], "Patient/pat-1")
        assert (await browser.http.get(f"/app/{told['id']}/")).status_code == 200
        app.ehr.token_status, app.ehr.refuse_refresh = 200, "invalid_grant"
        with pytest.raises(Unauthenticated, match="open the app again"):
            await reads.read(told["id"], "Patient/pat-1")
        assert (await browser.http.get(f"/app/{told['id']}/")).status_code == 401

    app.run(story)


def test_another_patient_in_a_refresh_ends_the_session_as_a_safety_event(app: House) -> None:
    async def story(browser: Browser) -> None:
        told = await browser.case(await browser.opened())
        spent(app)
        app.ehr.refreshed = {"patient": "pat-2"}
        with pytest.raises(NotAllowed):
            await browser.smart.reads.read(told["id"], "Patient/pat-1")
        assert (await browser.http.get(f"/app/{told['id']}/")).status_code == 401

    app.run(story)
    assert app.flags() == ["wrong-patient"]


@pytest.mark.smart("97", "98", "147")
def test_a_token_goes_below_its_fhir_base_only_and_a_refusal_names_the_scope(app: House) -> None:
    async def story(browser: Browser) -> None:
        told = await browser.case(await browser.opened())
        reads = browser.smart.reads
        before = len(app.ehr.asked)
        for elsewhere in ("https://evil.example.org/fhir/Patient/1", f"{app.ehr.root}/style.json", "../style.json"):
            with pytest.raises(CdsError):
                await reads.read(told["id"], elsewhere)
        assert len(app.ehr.asked) == before
        app.ehr.fhir_status = {"Observation": 403, "Patient/pat-1": 403}
        with pytest.raises(NotAllowed, match=r"patient/Observation\.s lacks"):
            await reads.read(told["id"], "Observation?patient=pat-1")
        with pytest.raises(NotAllowed, match=r"does not let the app read this$"):
            await reads.read(told["id"], "Patient/pat-1")
        with pytest.raises(NotFound):
            await reads.read("0" * 32, "Patient/pat-1")

    app.run(story)


def test_without_a_refresh_token_the_app_is_opened_again(app: House) -> None:
    app.ehr.answer = {"refresh_token": None, "expires_in": 1}

    async def story(browser: Browser) -> None:
        told = await browser.case(await browser.opened())
        with pytest.raises(Unauthenticated, match="open the app again"):
            await browser.smart.reads.read(told["id"], "Patient/pat-1")
        assert (await browser.http.get(f"/app/{told['id']}/")).status_code == 200  # what is known here can be looked at

    app.run(story)


def test_cookies_of_sessions_that_are_over_are_dropped(app: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smart_app.launch_doors._MOST_COOKIES", 1)

    async def story(browser: Browser) -> None:
        ids = [(await browser.case(await browser.opened()))["id"] for _ in range(2)]
        change(app, "DELETE FROM app_session WHERE id = ?", ids[0])
        await browser.opened()
        held = [name for name in browser.http.cookies if "cds-app" in name]
        assert not any(ids[0] in name for name in held)
        assert any(ids[1] in name for name in held)

    app.run(story)
