"""Pages leave with a strict policy, escaped, about a named patient; texts and files are the ones that are named."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from models.errors import DatabaseGone, NotAllowed, NotFound
from smart_app import rendering
from smart_app.banners import Banner, Identifier
from smart_app.desk import Case, Door, Role, Viewer
from smart_app.markdown import markdown
from smart_app.texts import FILES, english, t

ROOM = Path(rendering.__file__).parent
HTMX = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""SHA-256 of htmx.min.js 2.0.11, as its authors published it."""
WHO = Viewer("Practitioner/1", "Dr. <b>Bold</b>", frozenset({Role.CLINICIAN}), Door.SMART_APP, "e")
CASE = Case("1" * 32, WHO, "r" * 32, "csrf", ancestors=("https://ehr.example",))
BANNER = Banner("Ada <script>", "1961-08", "65 years", None, "female", (Identifier("MRN", "7&7"),), test=True)


def policy(page: rendering.HTMLResponse) -> dict[str, list[str]]:
    parts = [each.split() for each in page.headers["content-security-policy"].split(";")]
    return {name: values for name, *values in parts}


def test_a_page_runs_nothing_that_it_was_not_given() -> None:
    page = rendering.refused(NotFound("x"))
    rules = policy(page)
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == ["'self'"]
    assert rules["frame-ancestors"] == ["'none'"]
    assert page.headers["x-frame-options"] == "DENY"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"


def test_a_case_may_be_framed_by_its_ehr_and_names_its_patient_escaped() -> None:
    page = rendering.page("error.html", title="x", case=CASE, banner=BANNER, told="y", back="", places=())
    html = bytes(page.body).decode()
    assert policy(page)["frame-ancestors"] == ["https://ehr.example"]
    assert "x-frame-options" not in page.headers
    assert "Ada &lt;script&gt;" in html
    assert "7&amp;7" in html
    assert "1961-08" in html
    assert t("frame.test") in html


def test_no_page_about_a_patient_leaves_without_saying_whom() -> None:
    with pytest.raises(ValueError, match="whom"):
        rendering.page("error.html", title="x", case=CASE, told="y", back="")
    with pytest.raises(ValueError, match="whom"):
        rendering.page("error.html", title="x", banner=BANNER, told="y", back="")


@pytest.mark.parametrize("origin", ["https://a b", "*", "javascript:x", "https://a;script-src *"])
def test_only_an_origin_gets_into_a_policy(origin: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        rendering.headers((origin,))


def test_an_error_page_says_what_kind_and_nothing_of_what_was_asked() -> None:
    gone = rendering.refused(DatabaseGone("the database server does not answer"))
    assert gone.status_code == 503
    assert t("error.503") in bytes(gone.body).decode()
    told = bytes(rendering.refused(NotAllowed("secret words")).body).decode()
    assert "secret words" not in told


def test_no_template_has_a_style_a_script_or_a_handler_of_its_own() -> None:
    for path in (ROOM / "templates").rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle\s*=|<style|\son[a-z]+\s*=|javascript:", text), path.name
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path.name
        assert "|safe" not in text, path.name


def test_every_text_that_a_template_names_is_there_and_every_text_is_named() -> None:
    """Of the case pages and of the frame: `t("a.b")`, and keys that are put together from a part and a name."""
    used = {"error.400"}
    for path in (*(ROOM / "templates").rglob("*.html"), *ROOM.glob("*.py"), *ROOM.parent.glob("cds_server/desk/*.py")):
        text = path.read_text()
        found = set(re.findall(r"""["']((?:act|case|error|frame|glass|model|timeline)\.[a-z_0-9]+)["']""", text))
        unknown = {key for key in found if not key.endswith("_") and key not in english()}
        assert unknown <= {"case.html", "model.html", "glass.html", "error.html", "timeline.html"}, path.name
        used |= found
    built = ("error.", "timeline.", "frame.", "act.accepted", "act.overridden", "act.deferred", "act.did_", "act.key_")
    built += ("act.done", "act.again", "case.side_")
    idle = {key for key in english() if key.partition(".")[0] in ("act", "case", "glass", "model")}
    assert {key for key in idle - used if not key.startswith(built)} == set()


def test_every_file_of_texts_is_read() -> None:
    listed = {file.__name__.rpartition(".")[2] for file in FILES}
    assert listed == {path.stem for path in (ROOM / "texts").glob("*.py")} - {"__init__"}


def test_htmx_is_the_file_that_its_authors_published() -> None:
    assert hashlib.sha256((ROOM / "static/htmx.min.js").read_bytes()).hexdigest() == HTMX
    assert (ROOM / "static/htmx.LICENSE.txt").read_text().startswith("Zero-Clause BSD")


def test_files_are_kept_by_browsers_under_their_digest() -> None:
    client = TestClient(Starlette(routes=rendering.routes()))
    fresh = client.get(rendering.asset("app.css"))
    assert fresh.status_code == 200
    assert "immutable" in fresh.headers["cache-control"]
    assert fresh.headers["content-type"].startswith("text/css")
    assert client.get("/static/app.css?v=other").headers["cache-control"] == "no-cache"
    assert client.get("/static/..%2Frendering.py").status_code == 404
    with pytest.raises(NotFound):
        client.get("/static/htmx.LICENSE.txt")


def test_markdown_cannot_run_and_keeps_one_first_heading() -> None:
    html = markdown("# A\n\n<script>x</script> [a](javascript:x) ![b](https://c/d.png)\n\n| | b |\n|-|--:|\n|1|2|\n")
    assert "<script" not in html
    assert "javascript:" not in html.replace("[a](javascript:x)", "")
    assert "<img" not in html
    assert "<h2>A</h2>" in html
    assert "style=" not in html
    assert '<td></td>\n<th class="right">b</th>' in html


def test_only_pages_that_the_server_has_are_led_to() -> None:
    try:
        rendering.offer(["/app/{launch_id}/timeline", "/app/{launch_id}/board", "/board"])
        assert [place.label for place in rendering.case_places(CASE)] == ["Case", "Timeline", "Tumour board"]
        rendering.offer([])
        assert [place.current for place in rendering.case_places(CASE)] == [True]
    finally:
        rendering.offer(["/app/{launch_id}/timeline"])
