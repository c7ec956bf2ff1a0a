"""What comes back from an EHR that is not polite: no case is opened by it, no code exchanged, and nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cds_server.access.log import Access
from cds_server.store.entropy import new_ref, new_uuid
from cds_server.store.writer import Tx
from tests.cds_server.smart_flow import NAMESPACE, App, Browser, House, house
from tests.hostile_authorization import CLIENT, HostileEhr, running
from tests.peers.ehr_keys import public_set, signing_key


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
    with house(data_dir, migrated_sqlite, ehr, more='style_hosts = ["127.0.0.1:1"]') as found:
        yield found


def refused(app: House, status: int, *, exchanged: bool = True) -> str:
    """A launch that ends in a page of refusal, which it gives; nothing is opened."""
    pages = []
    before = app.sessions()

    async def story(browser: Browser) -> None:
        answer = await browser.opened()
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("text/html")
        pages.append(answer.text)

    app.ehr.asked.clear()
    app.run(story)
    assert app.sessions() == before
    assert bool(app.ehr.paths("/token")) is exchanged
    return pages[0]


# ---- the callback ----------------------------------------------------------------------------------------------------


@pytest.mark.smart("4", "60", "61")
def test_a_callback_belongs_to_the_browser_that_began(app: House) -> None:
    async def story(one: App) -> None:
        async with one.browser() as attacker, one.browser() as victim:
            back = app.ehr.authorize((await attacker.launch()).headers["location"])
            answer = await victim.http.get(back)  # no cookie at all
            assert answer.status_code == 401
            assert "Open in a window of its own" in answer.text
            assert (await attacker.http.get(back)).status_code == 401  # its state is spent, whoever brought it
            back = app.ehr.authorize((await attacker.launch()).headers["location"])
            await victim.launch()  # a cookie of a launch of its own
            assert (await victim.http.get(back)).status_code == 401

    app.tell(story)
    assert app.sessions() == 0
    assert app.ehr.paths("/token") == []


@pytest.mark.smart("60", "61")
def test_a_state_is_good_once_and_only_as_it_was_sent(app: House) -> None:
    async def story(browser: Browser) -> None:
        sent = await browser.launch()
        back = app.ehr.authorize(sent.headers["location"])
        assert (await browser.http.head(back)).status_code == 405  # who looks ahead spends nothing
        assert (await browser.http.get(back)).status_code == 303
        assert (await browser.http.get(back)).status_code == 401
        for spoilt in ("", "state=", "code=x", "state=x&code=y", "state=a&state=b&code=c", f"state={'x' * 600}"):
            assert (await browser.http.get(f"/app/callback?{spoilt}")).status_code == 401

    app.run(story)
    assert len(app.ehr.paths("/token")) == 1
    assert app.sessions() == 1


@pytest.mark.smart("5", "6")
def test_what_the_callback_says_is_shown_to_nobody_and_leads_nowhere(app: House) -> None:
    app.ehr.back = {
        "code": None,
        "error": "access_denied",
        "error_description": "<script>alert(1)</script>",
        "error_uri": "https://evil.example.org",
        "next": "https://evil.example.org",
    }
    page = refused(app, 403, exchanged=False)
    assert "the EHR did not grant access" in page
    assert "script>alert" not in page
    assert "evil" not in page
    app.ehr.back |= {"error": "<b>of its own</b>"}
    page = refused(app, 403, exchanged=False)
    assert "the EHR ended the launch with an error" in page
    assert "of its own" not in page


def test_a_callback_of_another_authorization_server_is_refused(app: House) -> None:
    """RFC 9207: `iss` is the authorization server's issuer, never the FHIR base, and chooses nothing."""
    for iss in ("https://evil.example.org", app.ehr.base):
        app.ehr.back = {"iss": iss}
        refused(app, 401, exchanged=False)
    app.ehr.back = {"iss": [app.ehr.root, app.ehr.root]}
    refused(app, 400, exchanged=False)
    app.ehr.back = {}
    app.ehr.configuration = {"authorization_response_iss_parameter_supported": True}
    refused(app, 401, exchanged=False)  # promised, and not there
    app.ehr.back = {"iss": app.ehr.root}

    async def story(browser: Browser) -> None:
        assert (await browser.opened()).status_code == 303

    app.run(story)


def test_a_callback_without_code_or_with_two(app: House) -> None:
    for back in ({"code": None}, {"code": ["a", "b"]}, {"code": "x" * 9000}):
        app.ehr.back = back
        refused(app, 400, exchanged=False)


# ---- the token answer ------------------------------------------------------------------------------------------------


BAD_ANSWERS: tuple[tuple[dict[str, Any], int], ...] = (
    ({"patient": None}, 403),
    ({"patient": None, "scope": "launch openid user/Patient.r"}, 403),
    ({"patient": ""}, 502),
    ({"patient": "Patient/../x"}, 502),
    ({"patient": ["pat-1"]}, 502),
    ({"token_type": None}, 502),
    ({"token_type": "mac"}, 502),
    ({"access_token": None}, 502),
    ({"access_token": "two words"}, 502),
    ({"scope": ["openid"]}, 502),
    ({"id_token": None}, 403),
    ({"id_token": "abc"}, 401),
)


@pytest.mark.smart("137", "147", "201")
def test_an_answer_that_says_too_little_opens_nothing(app: House) -> None:
    for answer, status in BAD_ANSWERS:
        app.ehr.answer = answer
        refused(app, status)
    app.ehr.answer = {}
    for wrong, status in ((400, 502), (500, 502), (302, 502)):
        app.ehr.token_status = wrong
        page = refused(app, status)
        assert "script" not in page.replace("<script src=", "").replace("</script>", "")
    assert app.flags() == []


@pytest.mark.smart("191")
def test_a_context_of_two_patients_is_a_safety_event(app: House) -> None:
    app.ehr.answer = {"fhirContext": [{"reference": "Patient/other"}]}
    page = refused(app, 400)
    assert "Two patients do not agree" in page
    assert app.flags() == ["wrong-patient"]
    assert app.kinds()[-1] == "safety"


@pytest.mark.smart("135", "191", "193")
def test_the_context_comes_along_as_far_as_it_can_be_read(app: House) -> None:
    app.ehr.answer = {
        "token_type": "BEARER",
        "expires_in": "300",
        "encounter": "enc-1",
        "need_patient_banner": False,
        "intent": "reconcile-medications",
        "scope": "launch openid patient/Patient.rs patient/Observation.rs?category=http://x.org|laboratory",
        "fhirContext": [
            {"reference": "ImagingStudy/1"},
            {"reference": "Patient/other", "role": "https://example.org/mother"},
            {"reference": "List/2", "role": ""},
            {"canonical": "http://example.org/q|1", "role": "https://example.org/questionnaire"},
            7,
        ],
        "tenant": "t",
        "__odd": {"a": 1},
    }

    async def story(browser: Browser) -> None:
        told = await browser.case(await browser.opened())
        assert (told["encounter"], told["banner"], told["intent"]) == ("enc-1", False, "reconcile-medications")
        session = browser.smart.sessions.session(told["id"])
        assert [(each.role.rpartition("/")[2], each.reference or each.canonical) for each in session.context] == [
            ("launch", "ImagingStudy/1"),
            ("mother", "Patient/other"),
            ("questionnaire", "http://example.org/q|1"),
        ]
        app.ehr.answer = {"intent": "<script>", "encounter": "../x", "need_patient_banner": "no", "fhirContext": "x"}
        told = await browser.case(await browser.opened())
        assert (told["encounter"], told["banner"], told["intent"]) == (None, True, None)

    app.run(story)


# ---- who looks -------------------------------------------------------------------------------------------------------

BAD_CLAIMS: tuple[dict[str, Any], ...] = (
    {"iss": "https://evil.example.org"},
    {"iss": None},
    {"aud": "another client"},
    {"aud": ["another client"]},
    {"aud": [CLIENT, "another"], "azp": "another"},
    {"aud": [CLIENT, "another"]},
    {"nonce": "another"},
    {"nonce": None},
    {"exp": 1_700_000_000},
    {"exp": None},
    {"iat": None},
    {"sub": None},
    {"sub": 7},
    {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
)


@pytest.mark.smart("201", "218")
def test_an_id_token_that_is_not_for_this_launch_names_nobody(app: House) -> None:
    for claims in BAD_CLAIMS:
        app.ehr.claims = claims
        assert "another" not in refused(app, 401)
    app.ehr.claims = {"aud": [CLIENT, "another"], "azp": CLIENT}

    async def story(browser: Browser) -> None:
        assert (await browser.opened()).status_code == 303

    app.run(story)


@pytest.mark.smart("201", "218")
def test_an_id_token_is_believed_by_its_issuers_signature_only(app: House) -> None:
    ehr = app.ehr
    ehr.sign_with = signing_key("RS256", "ehr-1")  # the published id, another key
    refused(app, 401)
    ehr.sign_with = signing_key("RS256", "unknown")
    refused(app, 401)
    ehr.sign_with = None
    for header in ({"alg": "none"}, {"crit": ["x"]}, {"kid": ""}):
        ehr.answer = {"id_token": _with_header(ehr, header)}
        refused(app, 401)
    ehr.answer = {"id_token": _hmac_by_public_key(ehr)}
    refused(app, 401)
    ehr.answer, ehr.header = {}, {"kid": None}  # none named, and exactly one fits

    async def story(browser: Browser) -> None:
        assert (await browser.opened()).status_code == 303

    app.run(story)


def _with_header(ehr: HostileEhr, header: dict[str, Any]) -> str:
    import base64
    import json

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"iss": ehr.root, "aud": CLIENT, "sub": "x", "exp": 1 << 33, "iat": 1}
    return f"{part({'alg': 'RS256', 'kid': 'ehr-1', **header})}.{part(claims)}.AAAA"


def _hmac_by_public_key(ehr: HostileEhr) -> str:
    """Signed by HS256 with the published key as the secret (RFC 8725, 2.1)."""
    import base64
    import hmac

    start = _with_header(ehr, {"alg": "HS256"}).rpartition(".")[0]
    mac = hmac.digest(public_set(ehr.key), start.encode(), "sha256")
    return f"{start}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


@pytest.mark.smart("97", "98", "202")
def test_who_looks_is_named_by_their_own_resource_where_that_is_here(app: House) -> None:
    told: list[tuple[str, str]] = []

    async def story(browser: Browser) -> None:
        case = await browser.case(await browser.opened())
        told.append((case["subject"], case["name"]))

    elsewhere = "https://other.example.org/fhir/Practitioner/9"
    stories: tuple[dict[str, Any], ...] = (
        {"fhirUser": f"{app.ehr.base}/Practitioner/dr-osei"},
        {"fhirUser": elsewhere, "name": "Dr\n<b>Who</b>"},
        {"fhirUser": None, "profile": "Practitioner/dr-osei"},
        {"fhirUser": None},
        {"fhirUser": "Device/1"},
    )
    for claims in stories:
        app.ehr.claims = claims
        app.run(story)
    here = (f"{app.ehr.base}/Practitioner/dr-osei", "Dr Ama Osei")
    nobody = ("dr-osei", "dr-osei")
    assert told == [here, (elsewhere, "Dr <b>Who</b>"), here, nobody, nobody]
    assert len(app.ehr.paths("/fhir/Practitioner")) == 2  # never the one of another server


def test_another_resource_names_nobody(app: House) -> None:
    app.ehr.practitioner = {"resourceType": "Practitioner", "id": "another", "name": [{"text": "Somebody else"}]}

    async def story(browser: Browser) -> None:
        told = await browser.case(await browser.opened())
        assert told["name"] == told["subject"]

    app.run(story)


def test_a_patient_or_a_stranger_is_turned_away_on_record(app: House) -> None:
    app.ehr.claims = {"fhirUser": "Patient/pat-1"}
    page = refused(app, 403)
    assert "no role here" in page
    assert app.kinds()[-1] == "sign-in"
    assert [row[0] for row in app.store.reads.query("SELECT outcome FROM access")] == ["refused"]
    assert app.ehr.paths("/fhir/Patient") == []  # nobody's data is read for whom may see none


# ---- whose case ------------------------------------------------------------------------------------------------------


def test_the_patient_is_read_and_landed_once_while_it_says_the_same(app: House) -> None:
    async def story(browser: Browser) -> None:
        for _ in range(2):
            await browser.case(await browser.opened())
        born = {"resourceType": "Patient", "id": "pat-1", "birthDate": "1961-01-01"}
        app.ehr.patients = {"pat-1": born}
        await browser.case(await browser.opened())

    app.run(story)
    assert app.store.reads.query("SELECT COUNT(*) FROM landing WHERE source = 'smart-launch'") == [(2,)]
    assert app.store.reads.query("SELECT COUNT(*) FROM patient_record") == [(1,)]
    assert app.kinds().count("land") == 2
    bearer = [each.headers["authorization"] for each in app.ehr.asked if "/Patient/" in each.path]
    assert all(each.startswith("Bearer access-") for each in bearer)


def test_what_cannot_be_read_leaves_a_record_of_which_nothing_is_known(app: House) -> None:
    async def story(browser: Browser) -> None:
        assert (await browser.case(await browser.opened()))["patient"] == "pat-1"

    for status in (403, 404, 500):
        app.ehr.fhir_status = {"Patient/pat-1": status}
        app.run(story)
    app.ehr.answer = {"scope": "launch openid fhirUser"}
    app.ehr.asked.clear()
    app.run(story)
    assert app.ehr.paths("/fhir/Patient") == []  # not asked for what was not granted
    assert app.store.reads.query("SELECT COUNT(*) FROM landing") == [(0,)]
    assert app.kinds().count("record") == 1


def test_another_patient_than_the_launch_is_a_safety_event(app: House) -> None:
    app.ehr.patients = {"pat-1": {"resourceType": "Patient", "id": "pat-2", "birthDate": "1960-01-01"}}
    assert "Two patients do not agree" in refused(app, 400)
    assert app.flags() == ["wrong-patient"]
    assert app.store.reads.query("SELECT COUNT(*) FROM landing") == [(0,)]


def inference_of(app: House, local_id: str, namespace: str = NAMESPACE) -> str:
    """An inference that a call of an EHR left behind, about one of its patients."""

    def act(tx: Tx) -> str:
        from cds_server.digest import add_record

        digest = tx.vault.index("local", NAMESPACE, "Patient", local_id)
        known = tx.read("SELECT id FROM patient_record WHERE local_digest = ?", (digest,))
        record = known[0][0] if known else add_record(tx, NAMESPACE, local_id, digest)[0]
        call = tx.add(
            "call", ref=new_ref(), service="s", ehr=namespace, outcome="answered", status=200, received_at=tx.now
        )
        ref = new_uuid()
        tx.add(
            "inference",
            ref=ref,
            call_id=call,
            snapshot_id=0,
            record_id=record,
            service="s",
            model="m@1",
            model_digest="",
            runtime="",
            abstained=False,
            sealed=b"",
            commitment=b"",
            at=tx.now,
        )
        tx.entry("infer", "user:test", {})
        return ref

    return app.store.writer.submit(act).result()


def test_the_card_that_led_here_is_about_this_very_patient(
    ehr: HostileEhr, data_dir: Path, migrated_sqlite: Path
) -> None:
    with house(data_dir, migrated_sqlite, ehr, audited=False) as app:
        mine, other = inference_of(app, "pat-1"), inference_of(app, "pat-2")
        elsewhere = inference_of(app, "pat-1", "another-ehr")

        async def story(browser: Browser) -> None:
            for context in (f'{{"inference":"{mine}"}}', {"inference": mine}, f'{{"inference":"{mine.upper()}"}}'):
                app.ehr.answer = {"appContext": context}
                assert (await browser.case(await browser.opened()))["inference"] == mine
            for odd in ("{", '{"inference":7}', "x", 7, '{"a":1}', '{"inference":"not a uuid"}'):
                app.ehr.answer = {"appContext": odd}
                assert (await browser.case(await browser.opened()))["inference"] is None

        app.run(story)
        for wrong in (other, elsewhere):
            app.ehr.answer = {"appContext": f'{{"inference":"{wrong}"}}'}
            assert "Two patients do not agree" in refused(app, 400)
        assert app.flags() == ["wrong-patient"] * 2
        app.ehr.answer = {"appContext": f'{{"inference":"{new_uuid()}"}}'}
        assert "is not known here" in refused(app, 403)
        flagged = app.store.reads.query("SELECT record_id, inference_id FROM flag ORDER BY id")
        assert all(record and inference for record, inference in flagged)


def test_the_look_of_an_ehr_is_asked_without_a_token_and_filtered(app: House) -> None:
    app.ehr.style = (
        b'{"color_background":"#ffffff","color_text":"#303030","color_highlight":"red;} body{display:none",'
        b'"dim_border_radius":"6px","dim_font_size":"900px","font_family_body":"Georgia, \'Times New Roman\', serif",'
        b'"font_family_heading":"x; background:url(//evil)","evil":"1"}'
    )

    async def story(browser: Browser) -> None:
        app.ehr.answer = {"smart_style_url": f"{app.ehr.root}/style.json"}
        for _ in range(2):
            told = await browser.case(await browser.opened())
        assert told["style"] == {
            "color_background": "#ffffff",
            "color_text": "#303030",
            "dim_border_radius": "6px",
            "font_family_body": "Georgia, 'Times New Roman', serif",
        }
        for elsewhere in (
            "https://evil.example.org/style.json",
            "ftp://evil.example.org/style.json",
            f"{app.ehr.root}/nothing",
            7,
        ):
            app.ehr.answer = {"smart_style_url": elsewhere}
            assert (await browser.case(await browser.opened()))["style"] == {}

    app.run(story)
    styles = [each for each in app.ehr.asked if each.path == "/style.json"]
    assert len(styles) == 1  # a new look has a new URL
    assert "authorization" not in styles[0].headers


def test_roles_come_from_the_configuration(app: House) -> None:
    access = Access(app.store, app.settings)
    assert access.by_ehr(NAMESPACE, "x").roles
    assert not access.by_ehr("another", "x").roles
