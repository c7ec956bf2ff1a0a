"""A tumor board in a real browser: from the worklist to signed minutes, by keyboard, without scripts, on a projector.

`python -m tests.peers.test_board_browser` takes the pictures of the documentation anew: docs/pictures/board-*.png.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.peers import ROOT, require
from tests.peers.browser import FLAGS
from tests.peers.server import Server, finish, hook

PICTURES = ROOT / "docs" / "pictures"
QUESTIONS = {
    "jenny-m": "Extended endocrine therapy? A PALB2 variant: consequences for surgery?",
    "carla-r": "Two tumours: which one leads the systemic treatment?",
    "aisha-t": "Trastuzumab alone, or with pertuzumab?",
}
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
PROJECTOR: ViewportSize = {"width": 1920, "height": 1080}
LAPTOP: ViewportSize = {"width": 1366, "height": 768}
ZOOMED: ViewportSize = {"width": 683, "height": 384}
"""The laptop at 200 %."""
PHONE: ViewportSize = {"width": 390, "height": 800}


def room(home: Path) -> Server:
    """A server with the fixture patients, and scores of those of the board."""
    server = Server(home=home, data_dir=home / "var")
    server.land_fixtures()
    server.start()
    for name in QUESTIONS:
        assert server.call(hook(f"{name}.patient-view")).status_code == 200
    return server


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = room(tmp_path_factory.mktemp("board"))
    yield running
    finish(running)


def sign_in(page: Page, server: Server, who: str = "Brandt") -> None:
    page.goto(f"{server.url}/board")
    page.get_by_role("button", name=re.compile(who)).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tumour board")


def plan(page: Page, title: str, cases: int = 3) -> None:
    page.get_by_label("Title").fill(title)
    page.get_by_label("Date").fill("2026-11-24")
    page.get_by_label("Place").fill("Room 4")
    page.get_by_role("button", name="Plan it").click()
    for name, question in list(QUESTIONS.items())[:cases]:
        page.get_by_label("Identifier").fill(f"sandbox/{name}")
        page.get_by_role("button", name="Look the patient up").click()
        page.get_by_label("Question to the board").fill(question)
        page.get_by_role("button", name="Add this patient").click()


def accessible(page: Page) -> None:
    """No violation of WCAG 2.2 A and AA that axe can find, and nothing wider than the window."""
    found = Axe().run(page, options=RULES).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def write_down(page: Page) -> None:
    page.get_by_label("Recommendation", exact=True).fill("Letrozole for five years; genetic counselling.")
    page.get_by_label("Rationale").fill("ER positive, pN0; the PALB2 variant is reported as somatic.")
    page.get_by_label("Dissent").fill("Dr Meyer: no surgery before the germline result.")
    page.get_by_label("Follow-up").fill("Germline panel\nBone density scan")
    page.get_by_label("Participants").fill("Prof. Helen Brandt, chair\nDr Amara Osei, oncology")
    page.get_by_role("button", name="Record this version").click()


def test_a_meeting_from_worklist_to_signed_minutes(page: Page, board: Server) -> None:
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    sign_in(page, board)
    accessible(page)
    plan(page, "Breast board")
    accessible(page)
    page.get_by_role("button", name="Move case 3 up").click()
    expect(page.locator("tbody tr").nth(1)).to_contain_text("Aisha T")
    page.get_by_role("button", name="Open case 1").click()
    expect(page.locator("header.patient")).to_contain_text("Jenny M")
    expect(page.get_by_role("region", name="What the models say")).to_contain_text("missing")
    accessible(page)
    write_down(page)
    expect(page.get_by_text("Nobody signed this version yet")).to_be_visible()
    page.get_by_role("button", name="Sign version 1").click()
    expect(page.get_by_text("You signed this version")).to_be_visible()
    page.get_by_role("button", name="Give out the minutes").click()
    expect(page.get_by_text("were given out")).to_be_visible()
    accessible(page)
    with page.expect_download() as held:
        page.get_by_role("link", name="Minutes of this case (PDF)").click()
    assert Path(held.value.path()).read_bytes().startswith(b"%PDF-")
    assert "jenny" not in page.url.lower()
    assert wrong == []


def test_a_presentation_goes_by_keys(page: Page, board: Server) -> None:
    page.set_viewport_size(PROJECTOR)
    sign_in(page, board)
    plan(page, "By keys")
    page.get_by_role("button", name="Present from case 1").click()
    name = page.locator("header.patient .name")
    expect(name).to_have_text("Jenny M")
    for key, shown in (("ArrowRight", "Carla R"), ("n", "Aisha T"), ("p", "Carla R"), ("ArrowLeft", "Jenny M")):
        page.wait_for_load_state()  # keys are heard once the script ran
        page.keyboard.press(key)
        expect(name).to_have_text(shown)
    accessible(page)
    page.wait_for_load_state()
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Recommendation of the board")).to_be_in_viewport()
    page.get_by_label("Rationale").press_sequentially("pn")  # what is typed is no command
    expect(name).to_have_text("Jenny M")
    for size in (ZOOMED, PHONE):
        page.set_viewport_size(size)
        accessible(page)
    page.keyboard.press("Escape")
    page.locator("h1").focus()
    page.get_by_role("link", name="Worklist").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("By keys")


def test_it_works_without_scripts(browser: Browser, board: Server) -> None:
    context: BrowserContext = browser.new_context(java_script_enabled=False, viewport=LAPTOP)
    page = context.new_page()
    sign_in(page, board)
    plan(page, "Without scripts", 2)
    page.get_by_role("button", name="Present from case 1").click()
    page.get_by_role("link", name="Next case").click()
    expect(page.locator("header.patient")).to_contain_text("Carla R")
    page.get_by_role("link", name="Recommendation").click()
    write_down(page)
    page.get_by_role("button", name="Sign version 1").click()
    expect(page.get_by_text("You signed this version")).to_be_visible()
    context.close()


def pictures() -> None:
    """What the documentation shows."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server = room(Path(home))
        running = playwright.chromium.launch(executable_path=require("chromium"), args=list(FLAGS))
        page = running.new_context(viewport=LAPTOP, locale="en-GB", timezone_id="UTC").new_page()
        sign_in(page, server)
        plan(page, "Breast board")
        page.screenshot(path=PICTURES / "board-worklist.png")
        page.get_by_role("button", name="Open case 1").click()
        page.screenshot(path=PICTURES / "board-case.png")
        write_down(page)
        page.get_by_role("button", name="Sign version 1").click()
        page.get_by_role("heading", name="Recommendation of the board").scroll_into_view_if_needed()
        page.screenshot(path=PICTURES / "board-recommendation.png")
        page.get_by_role("link", name="Projector view").click()
        page.set_viewport_size(PROJECTOR)
        page.screenshot(path=PICTURES / "board-projector.png")
        running.close()
        finish(server)


if __name__ == "__main__":
    pictures()
