"""The app in the frame of an EHR on another site, over TLS, in a real browser that keeps no third party's cookies."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn
from playwright.sync_api import Browser, expect, sync_playwright

from tests.cds_server.smart_flow import House, house
from tests.hostile_authorization import HostileEhr, running
from tests.peers import require
from tests.peers.browser import FLAGS
from tests.peers.tls import in_front_of


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


def test_two_launches_in_frames_of_another_site_keep_apart(
    strict_browser: Browser, data_dir: Path, migrated_sqlite: Path, tmp_path: Path
) -> None:
    """`SameSite=None; Partitioned` is kept where nothing else of a third party is; each frame has its own patient."""
    listening = socket.create_server(("127.0.0.1", 0))
    with running(HostileEhr()) as ehr, in_front_of(listening.getsockname()[1], tmp_path) as front:
        site = ehr.root.replace("127.0.0.1", "localhost")
        with (
            house(data_dir, migrated_sqlite, ehr, public=front.url, more="", ancestors=site) as found,
            served(found, listening),
        ):
            context = strict_browser.new_context(ignore_https_errors=True)
            pages = []
            for patient in ("pat-1", "pat-2"):
                ehr.patient = patient
                launch = f"{front.url}/app/launch?{urlencode({'iss': ehr.base, 'launch': patient})}"
                ehr.chart = f'<!doctype html><title>chart</title><iframe src="{escape(launch)}"></iframe>'
                pages.append(context.new_page())
                pages[-1].goto(f"{site}/chart")
                expect(pages[-1].frame_locator("iframe").locator("body")).to_contain_text(f'"patient":"{patient}"')
            for page, patient in zip(pages, ("pat-1", "pat-2"), strict=True):
                (frame,) = page.frames[1:]
                frame.goto(frame.url)  # as a reload: the cookie of that launch proves it again
                expect(page.frame_locator("iframe").locator("body")).to_contain_text(f'"patient":"{patient}"')
            kept = {str(each["name"]) for each in context.cookies()}
            assert all(name.startswith("__Host-cds-app-") for name in kept)
            context.close()
            assert found.sessions() == 2
            assert ehr.problems == []
