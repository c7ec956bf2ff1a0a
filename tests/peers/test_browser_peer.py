"""The peer itself: a real browser that renders, runs scripts and reaches a server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page


class OnePage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>loopback</title><h1>served</h1><script>document.title += ' ran'</script>"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), OnePage) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()


def test_it_shows_a_page_and_runs_its_script(page: Page, server: str) -> None:
    page.goto(server)
    assert page.get_by_role("heading").inner_text() == "served"
    assert page.title() == "loopback ran"


def test_it_takes_a_picture(page: Page) -> None:
    page.set_content("<p style='background:#048'>card</p>")
    assert page.screenshot().startswith(b"\x89PNG")
