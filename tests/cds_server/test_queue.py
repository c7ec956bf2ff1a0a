"""The work queue and the sandbox's sign-in, over HTTP, without a browser: what is shown, who may, and what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.queue import handlers
from cds_server.settings import Settings
from cds_server.staff_sessions import STAFF
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx

Browser = Callable[[str], TestClient]


@pytest.fixture
def parts(settings: Settings, data_dir: Any) -> Iterator[Parts]:
    built = build(replace(settings, checkpoint_seconds=0))

    def act(tx: Tx) -> None:
        for kind, reason, detail in (
            ("quarantine", "unreadable", "OBX[4]-5 is no number"),
            ("unmatched", "feedback", "feedback on a card that was not shown"),
            ("flag", "recall", "a fact was corrected"),
            ("flag", "break-glass", "somebody broke the glass"),
        ):
            tx.add("flag", kind=kind, reason=reason, detail=detail, at=tx.now)
        tx.entry("test", "user:test", {})

    built.store.writer.submit(act).result()
    yield built
    assert audit(data_dir, settings.database_url, deep=True).findings == ()


@pytest.fixture
def browser(parts: Parts) -> Iterator[Browser]:
    """Signs one of the sandbox's people in, in a browser of their own."""
    app = create_app(parts)
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5)) as first:

        def make(person: str) -> TestClient:
            client = TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5))
            client.portal = first.portal
            form = client.get("/staff/sign-in?next=/work")
            assert "made up" in form.text
            said = {"csrf": token(form.text), "person": person, "next": "/work"}
            assert client.post("/staff/sign-in", data=said, follow_redirects=False).headers["location"] == "/work"
            return client

        yield make


def token(html: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', html)
    assert found is not None, html
    return found[1]


def flags(client: TestClient, query: str = "") -> list[int]:
    return list(map(int, re.findall(r'<a href="/work/(\d+)"', client.get(f"/work{query}").text)))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_waits_is_counted_filtered_and_shown_only_to_staff(parts: Parts, browser: Browser) -> None:
    with TestClient(create_app(parts), base_url="http://127.0.0.1:8000") as nobody:
        assert nobody.get("/work", follow_redirects=False).headers["location"] == "/staff/sign-in?next=/work"


def test_filters_and_verbs(parts: Parts, browser: Browser) -> None:
    clinician, officer = browser("clinician"), browser("compliance")
    every = flags(officer)
    assert len(every) == 4
    assert len(flags(officer, "?kind=recall")) == 1
    assert len(flags(officer, "?kind=flag")) == 1
    assert len(flags(officer, "?kind=quarantine&reason=unreadable&handled=nobody")) == 1
    assert flags(officer, "?days=1") == flags(officer, "?handled=mine") == []
    assert flags(officer, "?kind=%27--&after=-1&days=x") == every
    quarantine, _, recall, glass = every
    page = officer.get(f"/work/{quarantine}").text
    assert "OBX[4]-5 is no number" in page
    shown = clinician.get(f"/work/{quarantine}").text
    assert "Your role may look at this, and not handle it." in shown
    csrf = token(clinician.get("/staff", headers={"accept": "text/html"}).text)
    refused = clinician.post(f"/work/{quarantine}/claim", data={"csrf": csrf, "claim": ""})
    assert refused.status_code == 403
    assert officer.post(f"/work/{quarantine}/claim", data={"claim": ""}).status_code == 403  # no token
    csrf = token(page)
    assert officer.post(f"/work/{quarantine}/claim", data={"csrf": csrf, "claim": ""}).status_code == 200
    assert flags(officer, "?handled=mine") == [quarantine]
    assert officer.post(f"/work/{quarantine}/claim", data={"csrf": csrf, "claim": ""}).status_code == 409
    assert handlers(parts.store) == {quarantine: "Jonas Weber (made up)"}
    mine = officer.get(f"/work/{quarantine}").text
    assert "taken by <strong>Jonas Weber (made up)</strong>" in mine
    claim = re.search(r'name="claim" value="([0-9a-f]{32})"', mine)
    assert claim is not None
    officer.post(f"/work/{quarantine}/release", data={"csrf": csrf, "claim": claim[1]})
    assert flags(officer, "?handled=mine") == []
    assert handlers(parts.store) == {}
    for words in ("", "ab", "x" * 501):
        assert officer.post(f"/work/{quarantine}/resolve", data={"csrf": csrf, "words": words}).status_code == 400
    done = officer.post(f"/work/{quarantine}/resolve", data={"csrf": csrf, "words": "asked the sender"})
    assert done.status_code == 200
    assert flags(officer) == every[1:]
    closed = officer.get(f"/work/{quarantine}").text
    assert "resolved by <strong>Jonas Weber (made up)</strong>: asked the sender" in closed
    assert officer.post(f"/work/{quarantine}/resolve", data={"csrf": csrf, "words": "again, please"}).status_code == 404
    csrf = token(clinician.get(f"/work/{recall}").text)  # whoever treats may handle what stood on a card
    people = re.findall(r'<option value="([0-9a-f]{64})">([^<]+)', clinician.get(f"/work/{recall}").text)
    to = next(key for key, name in people if name.startswith("Jonas"))
    assert clinician.post(f"/work/{recall}/give", data={"csrf": csrf, "claim": "", "to": to}).status_code == 200
    assert flags(officer, "?handled=mine") == [recall]
    assert clinician.post(f"/work/{recall}/give", data={"csrf": csrf, "claim": "", "to": "0" * 64}).status_code == 404
    assert "not handle it" in clinician.get(f"/work/{glass}").text  # not even one's own broken glass
    assert clinician.post(f"/work/{glass}/again", data={"csrf": csrf}).status_code == 403
    assert clinician.get("/work/99999999999999999999").status_code == 404
    kinds = [json.loads(each.body) for each in parts.store.reads.entries()]
    assert [e["kind"] for e in kinds if e["kind"] in ("claim", "release", "resolve")] == [
        "claim",
        "release",
        "resolve",
        "claim",
    ]
    assert not any("Weber" in json.dumps(entry) or "sandbox:" in json.dumps(entry) for entry in kinds)
    refusals = parts.store.reads.query("SELECT COUNT(*) FROM access WHERE act = 'queue-handle' AND outcome = 'refused'")
    assert refusals[0][0] >= 1
    assert officer.post("/staff/sign-out", data={"csrf": "x"}).status_code == 403
    officer.post("/staff/sign-out", data={"csrf": token(officer.get("/staff", headers={"accept": "text/html"}).text)})
    assert officer.get("/work", follow_redirects=False).status_code == 303
    assert officer.post(f"/work/{recall}/claim", data={"csrf": "x"}, follow_redirects=False).status_code == 401


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_made_up_people_sign_in_nowhere_but_here(parts: Parts, browser: Browser, settings: Settings) -> None:
    app = create_app(parts)
    for client, headers in (
        (TestClient(app, base_url="http://127.0.0.1", client=("203.0.113.7", 5)), {}),
        (TestClient(app, base_url="http://cds.example.org", client=("127.0.0.1", 5)), {}),
        (TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5)), {"X-Forwarded-For": "203.0.113.7"}),
    ):
        assert client.get("/staff/sign-in", headers=headers).status_code == 403
    here = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5))
    assert here.get("/staff/sign-in?next=https://evil.example.org").text.count('name="next" value="/staff"') == 3
    assert here.post("/staff/sign-in", data={"person": "chair", "csrf": "0"}).status_code == 403
    assert here.post("/staff/sign-in", data={"person": "chair"}).status_code == 403
    closed = create_app(replace(parts, settings=replace(parts.settings, trust="jwt")))
    stranger = TestClient(closed, base_url="http://127.0.0.1", client=("127.0.0.1", 5))
    assert {stranger.get(path).status_code for path in ("/staff/sign-in", "/staff", "/work")} == {404}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_session_that_lay_unused_is_over_and_its_key_goes_with_it(parts: Parts, browser: Browser) -> None:
    officer, chair = browser("compliance"), browser("chair")
    refs = [row[0] for row in parts.store.reads.query("SELECT ref FROM staff_session")]
    assert len(refs) == 2

    def aged(seconds: int) -> None:
        def act(tx: Tx) -> None:
            tx.execute("UPDATE staff_session SET used = used - ?", (seconds,))

        parts.store.writer.submit(act).result()

    aged(600)
    assert officer.get("/work", follow_redirects=False).status_code == 200  # a look moves the idle time on
    aged(600)
    assert officer.get("/work", follow_redirects=False).status_code == 200
    aged(901)
    assert officer.get("/work", follow_redirects=False).status_code == 303
    assert chair.get("/work", follow_redirects=False).status_code == 200  # a board's chair has an hour
    chair.post("/staff/sign-out")
    kept = [ref for ref in refs if parts.store.vault.key(object_ref(STAFF, ref)) is not None]
    assert len(kept) == 1
