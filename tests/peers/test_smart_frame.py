"""The app in the frame of an EHR on another site, over TLS, in a real browser that keeps no third party's cookies."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.responses import Response

from tests.cds_server.smart_flow import House, house
from tests.hostile_authorization import HostileEhr, running
from tests.peers import require
from tests.peers.browser import FLAGS
from tests.peers.tls import in_front_of

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


@pytest.fixture(scope="module")
def strict_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        args = [*FLAGS, "--test-third-party-cookie-phaseout"]
        opened = playwright.chromium.launch(executable_path=require("chromium"), args=args)
        yield opened
        opened.close()


@contextmanager
def served(found: House, listening: socket.socket) -> Iterator[None]:
    """The app on a socket, in a thread."""
    servers: list[uvicorn.Server] = []

    async def run() -> None:
        async with found.app() as app:
            servers.append(uvicorn.Server(uvicorn.Config(app.asgi, lifespan="off", log_config=None)))
            await servers[0].serve(sockets=[listening])

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.should_exit = True
        thread.join()


@contextmanager
def framed(
    browser: Browser, folder: Path, migrated: Path, more: str = ""
) -> Iterator[tuple[House, Callable[[str], Page]]]:
    """An app behind TLS, and what opens a chart of an EHR on another site that launches it in a frame."""
    listening = socket.create_server(("127.0.0.1", 0))
    with running(HostileEhr()) as ehr, in_front_of(listening.getsockname()[1], folder.parent) as front:
        site = ehr.root.replace("127.0.0.1", "localhost")
        with (
            house(folder, migrated, ehr, public=front.url, ancestors=site, more=more) as found,
            served(found, listening),
        ):
            context = browser.new_context(ignore_https_errors=True)

            def chart(patient: str) -> Page:
                ehr.patient = patient
                launch = f"{front.url}/app/launch?{urlencode({'iss': ehr.base, 'launch': patient})}"
                ehr.chart = f'<!doctype html><title>chart</title><iframe src="{escape(launch)}"></iframe>'
                page = context.new_page()
                page.goto(f"{site}/chart")
                return page

            yield found, chart
            context.close()
            assert ehr.problems == []


def test_two_launches_in_frames_of_another_site_keep_apart(
    strict_browser: Browser, data_dir: Path, migrated_sqlite: Path
) -> None:
    """`SameSite=None; Partitioned` is kept where nothing else of a third party is; each frame has its own patient."""
    with framed(strict_browser, data_dir, migrated_sqlite) as (found, chart):
        pages = []
        for patient in ("pat-1", "pat-2"):
            pages.append(chart(patient))
            expect(pages[-1].frame_locator("iframe").locator("body")).to_contain_text(f'"patient":"{patient}"')
        for page, patient in zip(pages, ("pat-1", "pat-2"), strict=True):
            (frame,) = page.frames[1:]
            frame.goto(frame.url)  # as a reload: the cookie of that launch proves it again
            expect(page.frame_locator("iframe").locator("body")).to_contain_text(f'"patient":"{patient}"')
        assert all(str(each["name"]).startswith("__Host-cds-app-") for each in pages[0].context.cookies())
        assert found.sessions() == 2


def test_where_a_browser_keeps_no_cookie_in_a_frame_the_app_opens_in_a_window(
    strict_browser: Browser, data_dir: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that does not know `Partitioned` does."""

    def put(response: Response, name: str, value: str, seconds: int, *, secure: bool) -> None:
        said = f"{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=None"
        response.headers.append("Set-Cookie", said)

    monkeypatch.setattr("smart_app.cookies.put", put)
    with framed(strict_browser, data_dir, migrated_sqlite) as (found, chart):
        page = chart("pat-1")
        link = page.frame_locator("iframe").get_by_role("link", name="Open in a window of its own")
        expect(link).to_be_visible()
        assert found.sessions() == 0
        with page.context.expect_page() as window:
            link.click()
        expect(window.value.locator("body")).to_contain_text('"patient":"pat-1"')
        assert found.sessions() == 1


@pytest.mark.smart("52")
def test_an_authorization_request_by_form_sends_itself_and_waits_for_nobody(
    strict_browser: Browser, data_dir: Path, migrated_sqlite: Path
) -> None:
    with framed(strict_browser, data_dir, migrated_sqlite, "app_post = true") as (found, chart):
        found.ehr.configuration = {"capabilities": ["authorize-post"]}
        page = chart("pat-1")
        expect(page.frame_locator("iframe").locator("body")).to_contain_text('"patient":"pat-1"')
        assert "POST" in {each.method for each in found.ehr.asked if each.path == "/authorize"}


def test_the_pages_before_a_case_are_for_everybody(
    strict_browser: Browser, data_dir: Path, migrated_sqlite: Path
) -> None:
    """axe finds nothing (WCAG 2.2 AA), nothing is wider than a phone, and the policy stops nothing of ours."""
    with framed(strict_browser, data_dir, migrated_sqlite) as (found, chart):
        page = chart("pat-1").context.new_page()
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if "Policy" in said.text else None)
        public, iss = found.settings.public_url, found.ehr.base
        page.goto(f"{public}/app")
        look(page, "Open from an EHR")
        page.goto(f"{public}/app/launch?iss=https://elsewhere.example.org&launch=1")
        look(page, "The case was not opened")
        page.goto(f"{public}/app/callback?state=x&code=y")
        look(page, "The case was not opened")
        found.ehr.patients = {"pat-1": {"resourceType": "Patient", "id": "pat-2"}}
        page.goto(f"{public}/app/launch?{urlencode({'iss': iss, 'launch': 'x'})}")
        look(page, "Two patients do not agree")
        assert complaints == []


def look(page: Page, heading: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.set_viewport_size({"width": 1280, "height": 900})
