"""From the EHR to the record and back, in a real browser: launch, card, app, decision, ledger.

`python -m tests.peers.test_app_flow` takes the pictures of docs/pictures anew.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FrameLocator, Page, expect, sync_playwright

from tests.peers import ROOT, require
from tests.peers.browser import FLAGS
from tests.peers.sandbox import Sandbox

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 300_000
BANNER = "header.patient"
CASE = re.compile(r"/app/[0-9a-f-]+/$")
KEYSTROKES = 40
"""At most, for an override with a reason: five characters a second are eight seconds."""


@pytest.fixture(scope="module")
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


def acted(sandbox: Sandbox, comment: str) -> list[dict[str, Any]]:
    """What stands on record with this comment, wherever it was done."""
    cards = [card for each in sandbox.server.ask("inference", "all") for card in each["cards"]]
    return [action for card in cards for action in card["actions"] if action["comment"] == comment]


def test_from_a_card_to_the_app_to_an_override_to_the_ledger(page: Page, console: list[str], sandbox: Sandbox) -> None:
    fire(page, sandbox.url, "aisha-t")
    expect(page.locator("article.card h3").first).to_contain_text("38 % after surgery alone")
    app = open_app(page)
    expect(app.locator(BANNER)).to_contain_text("Aisha T")
    expect(app.locator("main")).to_contain_text("38 % after surgery alone")
    decide(app, "overridden", "Ki-67 is measured again")
    expect(app.locator("#done")).to_contain_text("Dr. Owen Oncologist")
    expect(app.locator("#done")).to_contain_text("Ki-67 is measured again")
    (action,) = acted(sandbox, "Ki-67 is measured again")
    assert action["outcome"] == "overridden"
    assert sandbox.server.verify()["ok"]


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
    assert [len(acted(sandbox, each)) for each in ("said in the EHR", "all is known now")] == [1, 1]


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
    (action,) = acted(sandbox, "too high")
    assert action["outcome"] == "overridden"
    assert action["reason"]


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


@pytest.mark.parametrize("name", ["sandbox.png", "app.png", "app-in-ehr.png"])
def test_the_pictures_in_the_tree_are_some(name: str) -> None:
    picture = (PICTURES / name).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < MOST_BYTES


def take_pictures() -> None:
    sandbox = Sandbox(Path(tempfile.mkdtemp()))
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=require("chromium"), args=list(FLAGS))
            page = chromium.new_page(viewport={"width": 1366, "height": 850}, locale="en-GB")
            fire(page, sandbox.url, "aisha-t")
            page.screenshot(path=PICTURES / "sandbox.png")
            app = open_app(page)
            expect(app.locator(BANNER)).to_contain_text("Aisha T")
            page.screenshot(path=PICTURES / "app-in-ehr.png")
            frame = page.frames[-1]
            page.goto(frame.url)
            decide(page, "overridden", "neoadjuvant treatment is planned")
            expect(page.locator("#done")).to_contain_text("neoadjuvant")
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=PICTURES / "app.png")
            chromium.close()
    finally:
        sandbox.close()


if __name__ == "__main__":
    take_pictures()
