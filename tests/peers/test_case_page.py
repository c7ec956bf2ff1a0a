"""The case page in a real browser: WCAG by axe in each state, a keyboard alone, no script, a phone, 200 % zoom, print.

`python -m tests.peers.test_case_page` takes the pictures of docs/pictures anew.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from cds_server.app import Parts, build
from cds_server.checkpoints import Checkpoints
from cds_server.settings import load
from smart_app.desk import Case
from tests.cds_server.case_app import BEN, PROGNOSIS, GivenSessions, call, case_app, fixture, sized
from tests.cds_server.stores import learn, patient
from tests.peers import ROOT, require
from tests.peers.browser import FLAGS
from tests.peers.server import free_port

MOST_KEYS = 14
"""Presses besides the words: at one a second, an override with reason and words stays far below ten seconds more."""
DESK = {"width": 1366, "height": 768}
PICTURES = ROOT / "docs" / "pictures"


class Ward:
    """The case pages of some patients, served on a port."""

    def __init__(self, home: Path) -> None:
        (home / "var").mkdir(parents=True)
        self.parts: Parts = build(load({}, data_dir=home / "var", trust="open", deadline_ms=30_000))
        self.sessions = GivenSessions()
        call(self.parts, PROGNOSIS, sized("jenny-m.patient-view", 1.8))
        call(self.parts, PROGNOSIS, fixture("jenny-m.patient-view"))
        call(self.parts, PROGNOSIS, fixture("carla-r.patient-view"))
        call(self.parts, "/cds-services/vte-risk-chemotherapy-order-select", fixture("tomas-v.order-select"))
        learn(self.parts.store, patient("nobody"), namespace="sandbox")
        Checkpoints(self.parts.store, self.parts.settings.public_url).make()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = uvicorn.Config(case_app(self.parts, self.sessions), port=port, log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        self.parts.close()

    def case(self, name: str) -> Case:
        return self.sessions.open(self.parts, name)

    def at(self, name: str, below: str = "") -> str:
        return f"{self.url}/app/{self.case(name).id}/{below}"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    running = Ward(tmp_path_factory.mktemp("ward"))
    yield running
    running.close()


@contextlib.contextmanager
def opened(browser: Browser, **more: object) -> Iterator[Page]:
    """A page in a fresh profile, whose console must stay silent: a breach of the policy is told there."""
    context: BrowserContext = browser.new_context(**{"viewport": DESK, "locale": "en-GB", **more})  # type: ignore[arg-type]
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(error.message))
    try:
        yield page
        assert [each for each in said if "status of 4" not in each] == []
    finally:
        context.close()


def sound(page: Page) -> None:
    """No violation of WCAG 2.2 A and AA or of axe's own best practice, and nothing wider than the window."""
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"][:3]]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_each_page_is_accessible(ward: Ward, browser: Browser) -> None:
    jenny = ward.case("jenny-m")
    own = f"{ward.url}/app/{jenny.id}/"
    with opened(browser) as page:
        page.goto(own)
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        sound(page)
        page.get_by_label("Override").check()
        sound(page)
        page.goto(own)
        page.locator(".said-sheet .kicker a").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("PREDICT Breast v3.2 equation")
        sound(page)
        for below in ("timeline", "timeline?group=drugs", "timeline?text=nothing-fits", "pictures/none"):
            page.goto(own + below)
            sound(page)
        for name in ("carla-r", "tomas-v", "nobody"):
            page.goto(ward.at(name))
            sound(page)


def test_an_override_with_the_keyboard_alone(ward: Ward, browser: Browser) -> None:
    with opened(browser) as page:
        page.goto(ward.at("jenny-m"))
        keys = ["Tab", "Tab", "Enter", "Tab", "ArrowRight", "Tab", "ArrowDown", "ArrowDown", "Tab"]
        for key in keys:
            page.keyboard.press(key)
        page.keyboard.type("Oncotype first")
        page.keyboard.press("Tab")
        page.keyboard.type("board of Tuesday")
        page.keyboard.press("Enter")
        assert len(keys) + 2 <= MOST_KEYS
        expect(page.get_by_role("status")).to_contain_text("On record: you overrode this")
        latest = page.locator("#done li").first
        expect(latest).to_contain_text("Expert or board opinion differs")
        expect(latest).to_contain_text("Oncotype first")
        expect(latest).to_contain_text("“board of Tuesday”")
        sound(page)


def test_the_underlined_letters_are_access_keys_and_focus_is_seen(ward: Ward, browser: Browser) -> None:
    with opened(browser) as page:
        page.goto(ward.at("carla-r"))
        keys = {each.get_attribute("accesskey") for each in page.locator("[accesskey]").all()}
        assert keys == {"a", "o", "d", "r"}
        page.keyboard.press("Tab")
        skip = page.locator("a.skip").first
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        page.get_by_role("button", name="Put on record").focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"


def test_everything_works_without_a_script(ward: Ward, browser: Browser) -> None:
    with opened(browser, java_script_enabled=False) as page:
        page.goto(ward.at("carla-r"))
        page.get_by_label("Defer").check()
        page.get_by_label("Comment").fill("no tumour is chosen")
        page.get_by_role("button", name="Put on record").click()
        expect(page.locator("#done li").first).to_contain_text("deferred")
        page.goto(ward.at("jenny-m"))
        page.get_by_label("Chemotherapy").select_option("none")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#what-if")).to_contain_text("Chemotherapy: none")
        expect(page.locator("#what-if")).to_contain_text("91.5 %")


def test_what_others_do_comes_to_an_open_page(ward: Ward, browser: Browser) -> None:
    jenny = ward.case("jenny-m")
    ben = ward.sessions.open(ward.parts, "jenny-m", BEN)
    with opened(browser) as page, opened(browser) as other:
        page.goto(f"{ward.url}/app/{jenny.id}/")
        other.goto(f"{ward.url}/app/{ben.id}/")
        other.get_by_label("Agree").check()
        other.get_by_role("button", name="Put on record").click()
        expect(other.get_by_role("status")).to_be_visible()
        swap = "{target: '#done', swap: 'outerHTML'}"
        page.evaluate(f"htmx.ajax('GET', document.querySelector('#done').getAttribute('hx-get'), {swap})")
        expect(page.locator("#done li").first).to_contain_text("Dr. Ben Okafor")
        sound(page)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (683, 384), (1920, 1080)])
def test_a_phone_200_percent_and_a_projector(ward: Ward, browser: Browser, width: int, height: int) -> None:
    """683 x 384 is 1366 x 768 at 200 %."""
    with opened(browser, viewport={"width": width, "height": height}, reduced_motion="reduce") as page:
        page.goto(ward.at("jenny-m"))
        sound(page)
        expect(page.locator(".patient .name")).to_be_in_viewport()
        moving = (
            "[...document.querySelectorAll('*')].filter(e => parseFloat(getComputedStyle(e).transitionDuration) > 0)"
        )
        assert page.evaluate(f"{moving}.length") == 0


def pictures(folder: Path) -> None:
    """Take the pictures of the pages of a case."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        ward = Ward(Path(home) / "ward")
        chromium = playwright.chromium.launch(executable_path=require("chromium"), args=list(FLAGS))
        jenny = ward.case("jenny-m")
        own = f"{ward.url}/app/{jenny.id}/"
        try:
            with opened(chromium) as page:
                page.goto(own)
                page.get_by_label("Override").check()
                page.screenshot(path=folder / "case.png")
                page.goto(own + "timeline")
                page.screenshot(path=folder / "timeline.png")
            with opened(chromium, viewport={"width": 390, "height": 844}) as page:
                page.goto(own)
                page.screenshot(path=folder / "case-phone.png")
        finally:
            chromium.close()
            ward.close()


if __name__ == "__main__":
    pictures(PICTURES)
    sys.exit(0)
