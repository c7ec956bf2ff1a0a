"""The work queue in a real browser: signed in by a click, worked by keyboard; axe, a phone and a projector."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

from tests.peers.server import Server

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
KEPT = os.environ.get("CDS_PICTURES")
"""A folder, where somebody wants to look at the pages."""


def clean(page: Page, name: str) -> None:
    """axe finds nothing, nothing is wider than the window, also on a phone."""
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
    for width, height in ((390, 800), (1366, 768), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        if KEPT:
            page.screenshot(path=str(Path(KEPT) / f"{name}-{width}.png"), full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, (name, width, wide)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_somebody_signs_in_takes_what_waits_and_resolves_it(
    servers: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    server = servers()
    told = {
        "card": "0" * 8 + "-0000-4000-8000-" + "0" * 12,
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": "x"}],
    }
    told["outcomeTimestamp"] = datetime.now(UTC).isoformat()
    answer = server.http.post("/cds-services/breast-cancer-prognosis/feedback", json={"feedback": [told]})
    assert answer.status_code == 200, answer.text
    broken = tmp_path / "broken.ndjson"
    broken.write_text(json.dumps({"resourceType": "Observation", "id": "o1", "status": 7}) + "\n")
    server.cds("land", broken)
    server.cds("digest")
    page.goto(f"{server.url}/work")
    assert "made up" in page.inner_text("main")
    clean(page, "sign-in")
    page.get_by_role("button", name="Jonas Weber").click()
    assert page.url == f"{server.url}/work"
    clean(page, "work")
    assert page.locator("tbody a[href^='/work/']").count() == 2
    page.goto(f"{server.url}/staff")
    clean(page, "staff")
    page.goto(f"{server.url}/work?kind=unmatched")
    page.locator("tbody a[href^='/work/']").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/work/\d+$"))
    page.get_by_role("button", name="I take it").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=taken by")
    clean(page, "one")
    page.get_by_label("What was done").fill("asked the sender: a test of theirs")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/work")
    assert page.locator("tbody a[href^='/work/']").count() == 1
    page.goto(f"{server.url}/work/1")
    assert "cannot be shown" in page.inner_text("main")
    page.goto(f"{server.url}/staff")
    page.get_by_role("button", name="Sign out").click()
    assert "session here is over" in page.inner_text("main")
    assert page.context.cookies(f"{server.url}/work") == []
    page.goto(f"{server.url}/work")
    assert page.url.startswith(f"{server.url}/staff/sign-in")
