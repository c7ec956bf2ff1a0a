"""An EHR in a browser: a page of one origin calls the doors of another, in a real Chromium."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from playwright.sync_api import Page

from tests.peers.server import PATIENT_VIEW, Server, hook

DOOR = f"/cds-services/{PATIENT_VIEW}"
CALL = """async ([url, method, body]) => {
    const type = {"Content-Type": "application/json"}
    const headers = {"Authorization": "Bearer x.y.z", ...type, "X-Request-ID": "0190f3c25b1e7c3a9d428f60c1d2e3f4"}
    try {
        const answer = await fetch(url, {method, headers, body})
        await answer.text()
        return [answer.status, answer.headers.get("x-request-id")]
    } catch (error) { return ["blocked", null] }
}"""
"""As the official sandbox calls: its preflight asks for `authorization, content-type`."""


class Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def origins() -> Iterator[tuple[str, str]]:
    """Two origins with an empty page each."""
    made = [ThreadingHTTPServer(("127.0.0.1", 0), Blank) for _ in range(2)]
    for each in made:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    first, second = (f"http://127.0.0.1:{each.server_port}" for each in made)
    yield first, second
    for each in made:
        each.shutdown()
        each.server_close()


@pytest.mark.requirement("cds-hooks_2.0", "208")
def test_pages_of_listed_origins_call_and_no_others(
    page: Page, servers: Callable[..., Server], origins: tuple[str, str]
) -> None:
    listed, other = origins
    server = servers(environment={"CDS_CORS_ORIGINS": f"https://ehr.example.org {listed}"})
    body = httpx.Request("POST", server.url, json=hook("aisha-t.patient-view")).content.decode()

    def call(path: str, method: str, sent: str | None = None) -> list[object]:
        told: list[object] = page.evaluate(CALL, [server.url + path, method, sent])
        return told

    page.goto(listed)
    assert call("/cds-services", "GET") == [200, "0190f3c25b1e7c3a9d428f60c1d2e3f4"]
    assert call(DOOR, "POST", body) == [200, "0190f3c25b1e7c3a9d428f60c1d2e3f4"]
    assert call(DOOR, "POST", "{}") == [400, "0190f3c25b1e7c3a9d428f60c1d2e3f4"]  # an error can be read, too
    assert call("/cds-services/none", "POST", "{}") == [404, "0190f3c25b1e7c3a9d428f60c1d2e3f4"]
    assert call("/metrics", "GET") == ["blocked", None]
    page.goto(other)
    assert call("/cds-services", "GET") == ["blocked", None]
    assert call(DOOR, "POST", body) == ["blocked", None]


def test_what_the_headers_say(servers: Callable[..., Server]) -> None:
    server = servers(environment={"CDS_CORS_ORIGINS": "https://ehr.example.org"})
    asked = {"Origin": "https://ehr.example.org", "Access-Control-Request-Method": "POST"}
    granted = server.http.options(DOOR, headers=asked)
    assert granted.status_code == 204
    assert granted.headers["access-control-allow-origin"] == "https://ehr.example.org"
    assert {"authorization", "content-type"} <= set(granted.headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-credentials" not in granted.headers
    for origin in ("https://ehr.example.org.evil", "null", "http://ehr.example.org", "https://EHR.example.org"):
        refused = server.http.options(DOOR, headers={**asked, "Origin": origin})
        plain = server.http.get("/cds-services", headers={"Origin": origin})
        for answer in (refused, plain):
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "Origin"
    off = servers()
    for answer in (off.http.options(DOOR, headers=asked), off.http.get("/cds-services", headers=asked)):
        assert "access-control-allow-origin" not in answer.headers
