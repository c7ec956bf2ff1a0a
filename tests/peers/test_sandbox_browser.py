"""A person at the sandbox, in a real browser, with the real server behind it.

`python -m tests.peers.test_sandbox_browser` takes the README's picture, docs/pictures/card.png, anew.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from cds_server.sandbox.app import TITLES
from tests.peers import ROOT, require
from tests.peers.browser import FLAGS
from tests.peers.sandbox import Sandbox

PICTURE = ROOT / "docs" / "pictures" / "card.png"
MOST_BYTES = 200_000

AXE = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    "iframes": False,
}

CHART_OPENED = ("infer", "infer", "infer")
"""Opening a chart asks two services: the prognosis, which speaks by two models, and NEWS2, which has one."""


@pytest.fixture(scope="module", autouse=True)  # before the browser, beside which each command is a process of its own
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    running = Sandbox(tmp_path_factory.mktemp("sandbox"))
    yield running
    running.close()


def refused(request: Request) -> bool:
    """Whether a request really failed; one that the browser drops because it goes to the next page did not."""
    return request.failure != "net::ERR_ABORTED"


@pytest.fixture
def console(page: Page) -> Iterator[list[str]]:
    """What the page complains of on the console; must be nothing."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("requestfailed", lambda request: said.append(f"{request.url} failed") if refused(request) else None)
    yield said
    assert said == []


@pytest.fixture
def plain_page(browser: Browser) -> Iterator[Page]:
    """A page in a browser with JavaScript switched off."""
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def open_chart(page: Page, sandbox: Sandbox, patient: str = "Jenny M") -> None:
    page.goto(sandbox.url)
    page.get_by_role("navigation").get_by_role("link", name=patient).click()
    page.get_by_role("button", name="Open the chart").click()


def override(page: Page, comment: str) -> None:
    card = page.locator("article.card")
    card.get_by_text("Override…").click()
    card.get_by_label("Override, because").select_option("need-more-info")
    card.get_by_label("In your own words").fill(comment)
    card.get_by_role("button", name="Override").click()


def told_on_record(page: Page, *acts: str) -> None:
    """These entries, in this order, and no other."""
    expect(page.locator(".record summary")).to_have_text([re.compile(rf"#\d+ {act} ") for act in acts])


def test_a_card_is_overridden_and_stands_on_the_record(page: Page, console: list[str], sandbox: Sandbox) -> None:
    open_chart(page, sandbox)
    card = page.locator("article.card")
    expect(card.locator("h3")).to_contain_text("87 % after surgery alone, 93 % with")
    expect(card.get_by_role("cell", name="surgery alone")).to_be_visible()
    expect(card.get_by_role("cell", name="87.3 %")).to_be_visible()
    override(page, "Ki-67 is on its way")
    expect(page.get_by_role("status")).to_contain_text("Overridden")
    expect(page.get_by_role("status")).to_contain_text("Ki-67 is on its way")
    entries = page.locator(".record li")
    told_on_record(page, *CHART_OPENED, "act")
    entries.last.locator("summary").click()
    expect(entries.last.locator("pre")).to_contain_text('"kind": "act"')
    (shown,) = [
        each for each in sandbox.server.ask("inference", "all") if any(card["actions"] for card in each["cards"])
    ]
    (action,) = shown["cards"][0]["actions"]
    assert (action["outcome"], action["comment"]) == ("overridden", "Ki-67 is on its way")


def test_an_estimate_is_taken_into_account(page: Page, console: list[str], sandbox: Sandbox) -> None:
    open_chart(page, sandbox)
    page.get_by_role("button", name="Take this estimate into account").click()
    expect(page.get_by_role("status")).to_contain_text("Accepted")
    told_on_record(page, *CHART_OPENED, "act")


def test_every_fixture_patient_has_an_answer(page: Page, console: list[str], sandbox: Sandbox) -> None:
    """Each hook of each patient is answered on record, by a card or in so many words; each patient has some card."""
    page.goto(sandbox.url)
    names = page.get_by_role("navigation").get_by_role("link").locator("strong").all_inner_texts()
    assert len(names) >= 10
    hooks = page.get_by_role("button", name=re.compile("|".join(TITLES.values())))
    for name in names:
        page.goto(sandbox.url)
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        cards = 0
        for title in hooks.all_inner_texts():
            page.get_by_role("button", name=title).click()
            page.wait_for_url("**/visits/*")
            asked = page.locator("details.wire").count()
            assert asked > 0
            expect(page.get_by_role("alert")).to_have_count(0)
            shown = page.locator("article.card h3").count()
            assert shown + page.get_by_text("has no guidance for this patient").count() == asked
            assert page.locator(".record li").count() >= asked
            cards += shown
            page.go_back()
        assert cards > 0, name


def test_it_works_without_javascript(plain_page: Page, sandbox: Sandbox) -> None:
    open_chart(plain_page, sandbox)
    override(plain_page, "by a browser without scripts")
    assert "by a browser without scripts" in plain_page.get_by_role("status").inner_text()


def test_nothing_is_wider_than_a_small_screen(page: Page, console: list[str], sandbox: Sandbox) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_chart(page, sandbox)
    expect(page.locator("article.card")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_keeps_people_out(page: Page, sandbox: Sandbox) -> None:
    """axe-core over each page: WCAG 2.2, A and AA. What stands in the app's frame is the app's."""
    open_chart(page, sandbox)
    card = page.locator("article.card").first
    card.get_by_text("Override…").click()
    visit = page.url
    authorize = f"{sandbox.url}/auth/authorize?client_id=cds-server&response_type=code&scope=launch/patient"
    asked = {
        "redirect_uri": f"{sandbox.server.url}/app/callback",
        "aud": f"{sandbox.url}/fhir",
        "state": "s",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    pages = ("", visit, "/cases/jenny-m/app", "/developers", f"{authorize}&{urlencode(asked)}", "/cases/nobody")
    for at in pages:
        if at != visit:
            page.goto(at if at.startswith("http") else sandbox.url + at)
        found = Axe().run(page, options=AXE)
        told = [
            f"{at}: {each['id']} {[node['target'] for node in each['nodes']]}" for each in found.response["violations"]
        ]
        assert told == []


def test_the_picture_in_the_tree_is_one(page: Page) -> None:
    picture = PICTURE.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < MOST_BYTES


def take_picture() -> None:
    sandbox = Sandbox(Path(tempfile.mkdtemp()))
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=require("chromium"), args=list(FLAGS))
            page = chromium.new_page(viewport={"width": 1040, "height": 780})  # one column: the card at its full width
            open_chart(page, sandbox, "Aisha T")
            card = page.locator("article.card").first
            expect(card).to_be_visible()
            card.screenshot(path=PICTURE)
            chromium.close()
    finally:
        sandbox.close()


if __name__ == "__main__":
    take_picture()
    sys.exit(0 if PICTURE.stat().st_size < MOST_BYTES else 1)
