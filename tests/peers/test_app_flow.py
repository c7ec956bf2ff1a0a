"""From the EHR to the record and back, in a real browser: launch, card, app, decision, ledger.

`python -m tests.peers.test_app_flow` takes the pictures of docs/pictures anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect, sync_playwright

from cds_server.serve import bind, wait_ready
from models.errors import Misconfigured, PeerFailed
from tests.peers import ROOT, require
from tests.peers.browser import FLAGS
from tests.peers.sandbox import Sandbox
from tests.peers.server import CDS

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 300_000
BANNER = "header.patient"
CASE = re.compile(r"/app/[0-9a-f-]+/$")
KEYSTROKES = 40
"""At most, for an override with a reason: five characters a second are eight seconds."""


@pytest.fixture(scope="module", autouse=True)  # before the browser, beside which each command is a process of its own
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    running = Sandbox(tmp_path_factory.mktemp("flow"))
    yield running
    running.close()


@pytest.fixture
def console(page: Page) -> Iterator[list[str]]:
    """What pages and frames complain of on the console; must be nothing."""
    said: list[str] = []
    page.context.on("console", lambda each: said.append(each.text) if each.type in ("error", "warning") else None)
    yield said
    assert said == []


def fire(page: Page, url: str, patient: str, button: str = "Open the chart") -> None:
    page.goto(f"{url}/cases/{patient}")
    page.get_by_role("button", name=button).click()
    page.wait_for_url("**/visits/*")


def open_app(page: Page) -> FrameLocator:
    """The app of the first card that leads to it, in the frame of the EHR's page."""
    page.get_by_role("link", name="Open the full reasoning").first.click()
    page.wait_for_url("**/app")
    return page.frame_locator("iframe.app")


def launch(page: Page, sandbox: Sandbox, patient: str) -> None:
    """The app about a patient, without a card, in a window of its own."""
    page.goto(f"{sandbox.url}/cases/{patient}/launch")
    expect(page).to_have_url(CASE)


def decide(app: Page | FrameLocator, outcome: str, comment: str = "") -> None:
    form = app.locator("form.decision")
    form.locator(f'input[name=outcome][value="{outcome}"]').check()
    form.get_by_label("Comment").fill(comment)
    form.locator("button[type=submit]").click()


def test_from_a_card_to_the_app_to_an_override_to_the_ledger(page: Page, console: list[str], sandbox: Sandbox) -> None:
    fire(page, sandbox.url, "aisha-t")
    expect(page.locator("article.card h3").first).to_contain_text("38 % after surgery alone")
    app = open_app(page)
    expect(app.locator(BANNER)).to_contain_text("Aisha T")
    expect(app.locator("main")).to_contain_text("38 % after surgery alone")
    for place in ("Timeline", "Then and now", "Similar patients"):
        expect(app.locator("nav").get_by_role("link", name=place)).to_be_visible()
    decide(app, "overridden", "Ki-67 is measured again")
    expect(app.locator("#done")).to_contain_text("Dr. Owen Oncologist")
    expect(app.locator("#done")).to_contain_text("Ki-67 is measured again")
    cards = [card for each in sandbox.server.ask("inference", "all") for card in each["cards"]]
    (action,) = [each for card in cards for each in card["actions"] if each["comment"] == "Ki-67 is measured again"]
    assert action["outcome"] == "overridden"  # the log itself is walked when the server has stopped


def test_a_change_of_mind_and_another_persons_word_are_added(page: Page, sandbox: Sandbox) -> None:
    """The EHR's own override, and two people in the app: one list, nothing replaced."""
    fire(page, sandbox.url, "maria-k")
    card = page.locator("article.card").first
    card.get_by_text("Override…").click()
    card.get_by_label("Override, because").select_option("need-more-info")
    card.get_by_label("In your own words").fill("said in the EHR")
    card.get_by_role("button", name="Override").click()
    page.get_by_label("Signed in as").select_option("mary")  # the app of this visit is Owen's, who fired it
    app = open_app(page)
    expect(app.locator("#done")).to_contain_text("said in the EHR")
    decide(app, "accepted", "all is known now")
    entries = app.locator("#done li")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("all is known now")
    expect(entries.last).to_contain_text("said in the EHR")


def test_two_people_see_what_each_other_did(page: Page, browser: Browser, sandbox: Sandbox) -> None:
    """Without a reload: the list on Owen's page asks again."""
    fire(page, sandbox.url, "olga-p", "Sign the draft orders")
    owens = open_app(page)
    expect(owens.locator("#done")).to_contain_text("Nobody has acted")
    context = browser.new_context()
    context.add_cookies([{"name": "sandbox-user", "value": "mary", "url": sandbox.url}])
    marys = context.new_page()
    launch(marys, sandbox, "olga-p")
    marys.goto(marys.url + "?inference=" + inference_of(owens))
    decide(marys, "deferred", "a new blood count is on its way")
    expect(owens.locator("#done")).to_contain_text("Dr. Mary Obgyn", timeout=60_000)
    expect(owens.locator("#done")).to_contain_text("a new blood count is on its way")
    context.close()


def inference_of(app: FrameLocator) -> str:
    return app.locator("form.decision input[name=inference]").input_value()


def test_two_patients_in_two_tabs_never_cross(page: Page, sandbox: Sandbox) -> None:
    other = page.context.new_page()
    launch(page, sandbox, "jenny-m")
    launch(other, sandbox, "carla-r")
    for _ in range(2):
        for tab, name, stranger in ((page, "Jenny M", "Carla"), (other, "Carla R", "Jenny")):
            tab.reload()
            expect(tab.locator(BANNER)).to_contain_text(name)
            assert stranger not in tab.content()
    for tab, name in ((page, "Jenny M"), (other, "Carla R")):
        tab.get_by_role("link", name="Timeline").first.click()
        expect(tab.locator(BANNER)).to_contain_text(name)
    cookies = [each for each in page.context.cookies() if each["httpOnly"] and each["name"] != "sandbox-user"]
    assert len(cookies) >= 2
    one, two = (tab.url.split("/app/")[1].split("/")[0] for tab in (page, other))
    assert one != two
    mine = [each for each in cookies if one not in each["name"]]
    assert len(mine) < len(cookies)
    page.context.clear_cookies()
    page.context.add_cookies(mine)
    expect_refused(page, page.url)  # the other patient's cookie opens nothing here
    other.reload()
    expect(other.locator(BANNER)).to_contain_text("Carla R")
    other.close()


def expect_refused(page: Page, url: str) -> None:
    answer = page.goto(url)
    assert answer is not None
    assert answer.status in (401, 403, 404)
    assert "Jenny" not in page.content()


def test_a_card_of_one_patient_never_opens_in_the_chart_of_another(page: Page, sandbox: Sandbox) -> None:
    """The EHR says Carla, the card's inference is about Jenny: nothing of either is shown, and that is on record."""
    fire(page, sandbox.url, "jenny-m")
    answer = json.loads(page.locator("details.wire pre").nth(1).text_content() or "")
    context = answer["cards"][0]["links"][0]["appContext"]
    page.goto(f"{sandbox.url}/cases/carla-r")
    page.get_by_text("Launch the app with other context").click()
    page.get_by_label(re.compile("appContext")).fill(context)
    page.get_by_role("button", name="Launch", exact=True).click()
    app = page.frame_locator("iframe.app")
    expect(app.get_by_role("heading", level=1)).to_be_visible()
    expect(app.locator(BANNER)).to_have_count(0)
    said = app.locator("body").inner_text()
    assert "Jenny" not in said
    assert "Carla" not in said
    flags = sandbox.server.ask("work", "list", "--kind", "flag")
    assert [each["reason"] for each in flags] == ["wrong-patient"]


def test_the_app_pops_out_of_the_frame(page: Page, console: list[str], sandbox: Sandbox) -> None:
    page.goto(f"{sandbox.url}/cases/ruth-k/app")
    expect(page.frame_locator("iframe.app").locator(BANNER)).to_contain_text("Ruth K")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open in a window").click()
    expect(opened.value.locator(BANNER)).to_contain_text("Ruth K")
    expect(page.frame_locator("iframe.app").locator(BANNER)).to_contain_text("Ruth K")


def test_where_no_cookie_survives_a_window_is_offered(page: Page, sandbox: Sandbox) -> None:
    """The EHR is another site here: the browser keeps no cookie of a frame in it."""
    page.goto(f"{sandbox.elsewhere}/cases/ruth-k/app")
    offered = page.frame_locator("iframe.app").get_by_role("link", name=re.compile("window", re.IGNORECASE))
    expect(offered).to_be_visible()
    with page.context.expect_page() as opened:
        offered.click()
    expect(opened.value.locator(BANNER)).to_contain_text("Ruth K")


def test_nobody_else_frames_the_app(page: Page, sandbox: Sandbox) -> None:
    launch(page, sandbox, "jenny-m")
    policy = page.request.get(page.url).headers["content-security-policy"]
    assert f"frame-ancestors {sandbox.url} {sandbox.elsewhere}" in policy
    assert "unsafe" not in policy


def test_an_override_by_the_keyboard_alone(page: Page, sandbox: Sandbox) -> None:
    """From the EHR's card to the record without a pointer; the keys in the app are counted."""
    fire(page, sandbox.url, "jenny-m")
    link = page.get_by_role("link", name="in a window").first
    link.focus()
    with page.context.expect_page() as opened:
        page.keyboard.press("Enter")
    app = opened.value
    expect(app.locator(BANNER)).to_contain_text("Jenny M")
    keys: list[str] = []

    def press(key: str) -> None:
        app.keyboard.press(key)
        keys.append(key)

    def focused(check: str) -> bool:
        return bool(app.evaluate(f"document.activeElement.matches('{check}')"))

    press("Alt+o")  # the access key that the page names
    if not focused("input[name=outcome]"):
        while not focused("input[name=outcome]"):
            press("Tab")
        while not focused("input[name=outcome][value=overridden]:checked"):
            press("ArrowDown")
    press("Space")
    assert focused("input[name=outcome][value=overridden]:checked")
    while not focused("input[name=reason]"):
        press("Tab")
    press("ArrowDown")
    while not focused("#comment"):
        press("Tab")
    app.keyboard.type("too high")
    press("Enter")
    expect(app.locator("#done")).to_contain_text("too high")
    assert len(keys) + len("too high") <= KEYSTROKES
    for told in ("overrode", "(you): More information is needed first"):
        expect(app.locator("#done li")).to_contain_text(told)


def test_it_works_without_javascript_on_a_phone(browser: Browser, sandbox: Sandbox) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    fire(page, sandbox.url, "lena-b")
    app = open_app(page)
    expect(app.locator(BANNER)).to_contain_text("Lena B")
    decide(app, "deferred", "when the size is known")
    expect(app.locator("#done")).to_contain_text("when the size is known")
    context.close()


def test_the_app_is_opened_from_its_own_page(page: Page, sandbox: Sandbox) -> None:
    """Standalone: an EHR of the list, a person, a patient."""
    page.goto(f"{sandbox.server.url}/app")
    page.get_by_role("link", name=re.compile("Sandbox EHR")).click()
    page.get_by_label(re.compile("Mary Obgyn")).check()
    page.get_by_label(re.compile("Ingrid S")).check()
    page.get_by_role("button", name="Allow", exact=True).click()
    expect(page).to_have_url(CASE)
    expect(page.locator(BANNER)).to_contain_text("Ingrid S")
    expect(page.get_by_text("Mary Obgyn").first).to_be_visible()


def test_a_person_who_says_no_is_told(page: Page, sandbox: Sandbox) -> None:
    page.goto(f"{sandbox.server.url}/app")
    page.get_by_role("link", name=re.compile("Sandbox EHR")).click()
    page.get_by_role("button", name="Do not allow").click()
    expect(page.locator("main")).to_contain_text("did not grant access")


@pytest.mark.parametrize("name", ["sandbox", "app", "app-in-ehr", "app-images", "app-timeline", "app-model", "work"])
def test_the_pictures_in_the_tree_are_some(name: str) -> None:
    picture = (PICTURES / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < MOST_BYTES


def take_pictures() -> None:
    """Of the demo, as `make demo` starts it."""
    with tempfile.TemporaryDirectory() as home, demo(Path(home)) as (server, ehr), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=require("chromium"), args=list(FLAGS))
        page = chromium.new_page(viewport={"width": 1366, "height": 850}, locale="en-GB")

        def keep(name: str) -> None:
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=PICTURES / f"{name}.png")

        fire(page, ehr, "aisha-t")
        keep("sandbox")
        app = open_app(page)
        expect(app.locator(BANNER)).to_contain_text("Aisha T")
        keep("app-in-ehr")
        page.goto(page.frames[-1].url)
        decide(page, "overridden", "neoadjuvant treatment is planned")
        expect(page.locator("#done")).to_contain_text("neoadjuvant")
        keep("app")
        page.get_by_role("link", name="predict-breast 3.2.0").first.click()
        keep("app-model")
        fire(page, ehr, "tomas-v", "Sign the draft orders")
        open_app(page)
        expect(page.frame_locator("iframe.app").locator(BANNER)).to_contain_text("Tomas V")
        page.goto(page.frames[-1].url)
        page.locator(".pictures img").last.scroll_into_view_if_needed()
        expect(page.locator(".pictures img").last).to_have_js_property("complete", True)
        page.screenshot(path=PICTURES / "app-images.png")
        page.goto(page.url.split("?")[0] + "timeline")
        keep("app-timeline")
        let_something_wait(page, server)
        page.goto(f"{server}/staff/sign-in?next=/work")
        page.get_by_role("button", name=re.compile("Weber")).click()
        page.wait_for_url("**/work")
        keep("work")
        chromium.close()


def let_something_wait(page: Page, server: str) -> None:
    """An empty queue says little: feedback on cards that nobody knows, from two services."""
    for service in ("breast-cancer-prognosis", "deterioration-news2", "breast-cancer-prognosis"):
        at = datetime.now(UTC).isoformat()
        item = {"card": str(uuid.uuid4()), "outcome": "accepted", "acceptedSuggestions": [], "outcomeTimestamp": at}
        answer = page.request.post(f"{server}/cds-services/{service}/feedback", data={"feedback": [item]})
        assert answer.ok, answer.text()


def two_ports() -> int:
    """The first of two free ones, below those that the system gives to clients: ours ask before anybody listens."""
    for port in range(20_000, 30_000, 10):
        try:
            for each in (port, port + 1):
                bind("127.0.0.1", each).close()
        except Misconfigured:
            continue
        return port
    raise LookupError("no free ports")


@contextmanager
def demo(home: Path) -> Iterator[tuple[str, str]]:
    """`cds demo` in a folder: the server's URL, and the sandbox's."""
    port = two_ports()
    server, ehr = (f"http://127.0.0.1:{port + each}" for each in (0, 1))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    environment = {**plain, "CDS_DATA_DIR": str(home / "var"), "PYTHONPATH": str(ROOT)}
    with (home / "demo.log").open("wb") as told:
        running = subprocess.Popen(
            [*CDS, "demo", "--port", str(port)], cwd=home, env=environment, stdout=told, stderr=told
        )
    try:
        wait_ready(f"{ehr}/", running, 120)
        yield server, ehr
    except PeerFailed:
        sys.stderr.write((home / "demo.log").read_text())
        raise
    finally:
        running.terminate()
        running.wait(timeout=60)


if __name__ == "__main__":
    take_pictures()
