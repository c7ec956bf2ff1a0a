"""The page of similar patients in a real browser: WCAG by axe, a phone, and a filter without a script."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Browser, expect

from tests.cds_server.similar_house import House, deceased, made
from tests.peers.server import free_port
from tests.peers.test_case_page import opened, sound


@contextlib.contextmanager
def served(house: House) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(house.app, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    found = made(tmp_path_factory.mktemp("similar"))
    found.land(*(deceased(number, dead=number < 4) for number in range(2, 15)))
    yield found
    found.close()


def test_the_page_is_accessible_and_its_filter_needs_no_script(house: House, browser: Browser) -> None:
    own = f"/app/{house.sessions.open(house.parts, 'pat-1').id}/similar"
    far = f"/app/{house.sessions.open(house.parts, 'pat-14').id}/similar"
    with served(house) as url:
        with opened(browser, java_script_enabled=False) as page:
            page.goto(url + far)
            page.get_by_label("Only the same stage").check()
            page.get_by_role("button", name="Show").click()
            expect(page.get_by_text("Fewer than 11 patients can be compared")).to_be_visible()
        for width, height in ((1366, 768), (390, 844)):
            with opened(browser, viewport={"width": width, "height": height}) as page:
                page.goto(url + own)
                expect(page.get_by_text("The nearest 14 of 14")).to_be_visible()
                sound(page)
                page.goto(url + far + "?stage=1")
                sound(page)
