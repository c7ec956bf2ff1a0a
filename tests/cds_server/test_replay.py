"""Recorded requests played again: what counts as the same answer, and what a reader is shown where it is not."""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as Xml
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _tokens
from cds_server.hooks.published import HOOKS
from cds_server.hooks.routes import INFERENCES
from cds_server.replay import reports
from cds_server.replay.compare import difference
from cds_server.replay.play import Played, Player, Verdict
from cds_server.replay.tapes import Answer, Exchange, HarFile, tapes
from cds_server.services import all_services
from models.errors import Malformed, Misconfigured, PeerFailed
from tests.peers import ROOT
from tests.peers.server import PATIENT_VIEW, Server, hook, override

ONE = "0b5a5f1e-0000-4000-8000-000000000001"
TWO = "0b5a5f1e-0000-4000-8000-000000000002"


def card(uuid: str = ONE, **more: Any) -> dict[str, Any]:
    return {"cards": [{"uuid": uuid, "summary": "NEWS2 is 14", **more}]}


# ---- what is the same ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (card(ONE), card(TWO)),
        (card(ONE, detail=f"record {ONE}"), card(TWO, detail=f"record {TWO}")),
        (card(detail="data as of 2026-11-20 10:00 UTC"), card(detail="data as of 2027-01-02 23:59 UTC")),
        (card(detail="2026-11-20T10:00:00Z"), card(detail="2026-11-20T10:00:01.123456+01:00")),
        (card(detail="50 min ago"), card(detail="2 days ago")),
        (
            card() | {"extension": {INFERENCES: {"items": [{"service": "a", "seq": 4, "leaf": "ab" * 32}]}}},
            card() | {"extension": {INFERENCES: {"items": [{"service": "a", "seq": 9, "leaf": "cd" * 32}]}}},
        ),
    ],
)  # fmt: skip
def test_identity_and_clock_are_no_difference(then: Any, now: Any) -> None:
    assert difference(Answer(200, then), Answer(200, now)) == ()


@pytest.mark.parametrize(
    ("then", "now", "shown"),
    [
        (Answer(200, card()), Answer(500, card()), "+HTTP 500"),
        (Answer(200, card()), Answer(200, card(indicator="info")), '+    indicator: "info"'),
        (Answer(200, card()), Answer(200, {"cards": []}), "+cards: []"),
        (Answer(401), Answer(401, "no"), '+ "no"'),
        (Answer(200, card(detail="born 1965-03-01")), Answer(200, card(detail="born 1965-03-02")), "1965-03-02"),
        (Answer(200, {"seq": 4}), Answer(200, {"seq": 5}), "+seq: 5"),
        (Answer(200, {"a": 1}), Answer(200, {"a": True}), "+a: true"),
    ],
)
def test_anything_else_is_one_and_is_shown(then: Answer, now: Answer, shown: str) -> None:
    assert any(shown in line for line in difference(then, now))


def test_two_places_that_name_one_thing_must_go_on_naming_one_thing() -> None:
    then = Answer(200, {"cards": [{"uuid": ONE, "record": ONE}]})
    assert difference(then, Answer(200, {"cards": [{"uuid": TWO, "record": TWO}]})) == ()
    assert difference(then, Answer(200, {"cards": [{"uuid": TWO, "record": ONE}]})) != ()


def test_a_server_may_move_and_its_own_links_with_it() -> None:
    then = Answer(200, card(url="https://old.example/app"), "https://old.example")
    assert difference(then, Answer(200, card(url="http://127.0.0.1:1/app"), "http://127.0.0.1:1")) == ()
    assert difference(then, Answer(200, card(url="http://evil.example/app"), "http://127.0.0.1:1")) != ()


def test_what_a_person_names_is_ignored_at_that_place_only() -> None:
    then, now = Answer(200, {"a": [{"b/c": 1, "d": 1}]}), Answer(200, {"a": [{"b/c": 2, "d": 1}]})
    assert difference(then, now) != ()
    assert difference(then, now, ignored=("/a/*/b~1c",)) == ()
    assert difference(then, now, ignored=("/a/*/d", "/*/b~1c")) != ()


# ---- recordings ------------------------------------------------------------------------------------------------------


def har(*entries: Mapping[str, Any]) -> str:
    return json.dumps({"log": {"version": "1.2", "creator": {"name": "test", "version": "1"}, "entries": entries}})


def entry(
    method: str, url: str, sent: Any = None, status: int = 200, answer: Any = None, **more: Any
) -> dict[str, Any]:
    posted = {} if sent is None else {"postData": {"mimeType": "application/json", "text": json.dumps(sent)}}
    text = "" if answer is None else json.dumps(answer)
    return {
        "request": {"method": method, "url": url, "headers": [], **posted},
        "response": {"status": status, "content": {"mimeType": "application/json", "text": text, **more}},
    }


def test_of_an_archive_only_the_doors_of_cds_hooks_are_played(tmp_path: Path) -> None:
    base = "https://cds.example.org/r4"
    encoded = base64.b64encode(b'{"cards":[]}').decode()
    (tmp_path / "a.har").write_text(
        har(
            entry("GET", f"{base}/cds-services?x=1", answer={"services": []}),
            entry("OPTIONS", f"{base}/cds-services/a"),
            entry("GET", "https://ehr.example.org/style.css"),
            entry("POST", f"{base}/cds-services/a", {"hook": "x"}, text=encoded, encoding="base64"),
            entry("POST", f"{base}/cds-services/a/feedback", {"feedback": []}, status=0),
        )
    )
    (tape,) = tapes(tmp_path)
    exchanges = list(tape.exchanges([]))
    assert [(each.method, each.path) for each in exchanges] == [
        ("GET", "/cds-services"),
        ("POST", "/cds-services/a"),
        ("POST", "/cds-services/a/feedback"),
    ]
    assert exchanges[1].recorded == Answer(200, {"cards": []}, base)
    assert exchanges[2].recorded is None


def test_what_is_no_recording_is_left_alone_and_what_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no")
    (tmp_path / "cards.json").write_text('{"cards": []}')
    (tmp_path / "list.json").write_text("[]")
    assert tapes(tmp_path) == []
    with pytest.raises(Misconfigured):
        tapes(tmp_path / "nowhere")
    for name, text in (("x.json", "{"), ("y.har", "{}"), ("z.har", '{"log": {"entries": 1}}')):
        broken = tmp_path / name
        broken.write_text(text)
        with pytest.raises(Malformed, match=name):
            tapes(broken)
    (tmp_path / "w.har").write_text(har({"request": {}}))
    with pytest.raises(Malformed, match="entry 1"):
        list(HarFile("w", tmp_path / "w.har").exchanges([]))


# ---- playing ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Reply:
    status_code: int
    text: str


@dataclass(slots=True)
class Scripted:
    """A server that gives one answer after the other, and keeps what it was sent."""

    answers: list[Reply]
    sent: list[tuple[str, bytes | None, Mapping[str, str]]] = field(default_factory=list)

    def request(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        self.sent.append((f"{method} {url}", content, headers or {}))
        if not self.answers:
            raise ConnectionError("refused")
        return self.answers.pop(0)


def listing(*services: tuple[str, str]) -> Reply:
    return Reply(200, json.dumps({"services": [{"id": service, "hook": hook} for service, hook in services]}))


def test_a_request_goes_out_as_it_was_but_for_its_instance(tmp_path: Path) -> None:
    raw = b'{ "hook":"patient-view",  "hookInstance" : "%s", "context":{"patientId":"1"}, "n": 7.500 }' % ONE.encode()
    (tmp_path / "a.json").write_bytes(raw)
    server = Scripted([listing(("s", "patient-view"), ("t", "order-sign")), Reply(200, '{"cards": []}')])
    (played,) = Player(server, "http://h", token=lambda url: f"for:{url}").play(tapes(tmp_path))
    assert (played.verdict, played.status) == (Verdict.NEW, 200)
    told, content, headers = server.sent[1]
    assert told == "POST http://h/cds-services/s"
    assert headers["Authorization"] == "Bearer for:http://h/cds-services/s"
    assert content is not None
    instance = json.loads(content)["hookInstance"]
    assert instance != ONE
    assert content == raw.replace(ONE.encode(), instance.encode())
    assert not (tmp_path / "answers").exists()


def test_a_hook_that_nobody_answers_is_said_and_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"hook": "order-sign"}')
    assert list(Player(Scripted([listing()]), "http://h").play(tapes(tmp_path))) == [
        Played("a (order-sign)", Verdict.UNSERVED)
    ]


def test_a_server_that_is_none_is_a_failed_peer(tmp_path: Path) -> None:
    for answers in ([], [Reply(200, "<html>")], [Reply(404, "{}")]):
        with pytest.raises(PeerFailed):
            list(Player(Scripted(answers), "http://h").play(tapes(tmp_path)))


# ---- the whole of it, by the command, against the real server --------------------------------------------------------


def test_record_then_replay_then_a_difference(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "hooks"
    folder.mkdir()
    for name in ("aisha-t.patient-view", "nils-d.encounter-start", "tomas-v.order-select"):
        (folder / f"{name}.json").write_bytes((ROOT / "fixtures" / "hooks" / f"{name}.json").read_bytes())
    first = server.ask("replay", folder, "--to", server.url, code=1)
    assert {each["verdict"] for each in first} == {"new"}
    assert {each["verdict"] for each in server.ask("replay", folder, "--to", server.url, "--record")} == {"recorded"}
    kept = {path: path.read_bytes() for path in (folder / "answers").iterdir()}
    assert len(kept) == len(first) == 4
    again = server.ask("replay", folder, "--to", server.url, "--record")
    assert {(each["verdict"], each["status"]) for each in again} == {("same", 200)}
    assert {path: path.read_bytes() for path in kept} == kept, "what did not change is not written again"

    changed = folder / "answers" / f"aisha-t.patient-view.{PATIENT_VIEW}.json"
    changed.write_text(changed.read_text().replace("Estimated 10-year", "Guessed 10-year"))
    done = server.cds("replay", folder, "--to", server.url, "--report", "seen", code=1)
    assert '-    summary: "Guessed 10-year' in done.stdout
    assert "4 requests: 3 same, 1 different" in done.stdout
    page = (server.home / "seen" / reports.PAGE).read_text()
    assert '<span class="taken">-    summary: &#34;Guessed 10-year' in page
    suite = Xml.parse(server.home / "seen" / reports.JUNIT).getroot()[0]  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
    (failure,) = suite.iter("failure")
    assert "Guessed 10-year" in (failure.text or "")


FOLDER = ROOT / "fixtures" / "hooks"


def test_the_fixtures_cover_every_hook_and_every_service() -> None:
    requests = {
        path.stem: json.loads(path.read_bytes()) for path in FOLDER.rglob("*.json") if path.parent.name != "answers"
    }
    hooks = {body["hook"] for body in requests.values()}
    assert set(HOOKS) - hooks == {"fancy-structure"}, "published by nobody: the suite's own name"
    assert any("." in hook for hook in hooks), "a local hook"
    answered = {path.stem for path in FOLDER.rglob("answers/*.json")}
    for spec in all_services(conformance=True):
        if spec.hook != "fancy-structure":
            names = {f"{name}.{spec.id}" for name, body in requests.items() if body["hook"] == spec.hook}
            assert names, (spec.id, spec.hook)
            assert names <= answered, "record them: cds replay fixtures/hooks --record"
    shapes = [set(body["context"]) for body in requests.values() if body["hook"] == "order-dispatch"]
    assert {"order", "dispatchedOrders"} <= set().union(*shapes), "both shapes of order-dispatch"


@pytest.fixture(scope="module")
def shared(shared_servers: Callable[..., Server]) -> Server:
    """For what shows nobody a card twice, nor answers one."""
    return shared_servers()


def test_the_fixtures_are_answered_as_they_were_recorded(shared: Server) -> None:
    """Where an answer changed on purpose: `cds replay fixtures/hooks --record`, and read the difference."""
    played = shared.ask("replay", FOLDER, "--to", shared.url)
    assert {(each["verdict"], each["status"]) for each in played} == {("same", 200)}


def test_recorded_feedback_names_the_card_of_today(server: Server, tmp_path: Path) -> None:
    call = hook("aisha-t.patient-view")
    answer = server.call(call).json()
    item = override(answer["cards"][0], comment="as recorded")
    url = f"https://cds.example.org/cds-services/{PATIENT_VIEW}"
    recording = tmp_path / "visit.har"
    recording.write_text(
        har(entry("POST", url, call, answer=answer), entry("POST", f"{url}/feedback", {"feedback": [item]}))
    )
    before = recording.read_bytes()
    played = server.ask("replay", recording, "--to", server.url)
    assert [each["verdict"] for each in played] == ["same", "same"]
    assert recording.read_bytes() == before
    assert server.ask("work", "list") == [], "the feedback met the card that was just shown"

    archive = json.loads(before)
    archive["log"]["entries"][0]["response"]["status"] = 500
    recording.write_text(json.dumps(archive))
    assert [each["verdict"] for each in server.ask("replay", recording, "--to", server.url, "--record")] == [
        "recorded",
        "same",
    ]
    kept = json.loads(recording.read_text())["log"]["entries"][0]["response"]
    assert kept["status"] == 200
    assert json.loads(kept["content"]["text"])["cards"][0]["uuid"] == item["card"], "feedback goes on naming it"
    assert [each["verdict"] for each in server.ask("replay", recording, "--to", server.url)] == ["same", "same"]


def test_a_server_that_wants_signatures_gets_one_a_request(servers: Callable[..., Server], tmp_path: Path) -> None:
    keys = _tokens.make_keys(tmp_path)
    config = tmp_path / "cds.toml"
    config.write_text(f'[[ehr]]\nnamespace = "a"\nissuer = "{_tokens.ISSUER}"\njwks = "{keys}"\n')
    server = servers(environment={"CDS_TRUST": "jwt", "CDS_CONFIG": str(config)})
    played = ("replay", FOLDER / "nils-d.patient-view.json", "--to", server.url)
    unsigned = server.cds(*played, code=3)
    assert "discovery was answered 401" in unsigned.stderr
    signed = (*played, "--key", tmp_path / "ES384.pem", "--issuer", _tokens.ISSUER, "--kid", "ES384")
    assert [(each["verdict"], each["status"]) for each in server.ask(*signed)] == [("same", 200)] * 2
    server.cds(*signed[:-4], code=2)


def test_nothing_to_play_and_nobody_there(shared: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "nothing was played" in shared.cds("replay", tmp_path / "empty", "--to", shared.url, code=1).stdout
    shared.cds("replay", tmp_path / "nowhere", "--to", shared.url, code=2)
    shared.cds("replay", tmp_path / "empty", "--to", "http://127.0.0.1:1", code=3)


def test_a_report_is_xml_and_html_whatever_an_answer_says(tmp_path: Path) -> None:
    wild = "<script>alert(1)</script>]]>&\x00\x0b\ud800 \u202e"
    played = [Played(wild, Verdict.DIFFERENT, 200, 0.1, (f"-{wild}", f"+{wild}"))]
    suite = Xml.fromstring(reports.as_junit("http://h", "2026-11-21T10:00:00Z", played))[0]  # noqa: S314
    assert suite[0].get("name", "").startswith("<script>")
    assert "<script>" not in reports.as_page("http://h", "2026-11-21T10:00:00Z", played)
    reports.write(tmp_path, "http://h", "2026-11-21T10:00:00Z", played)
    assert "\ud800" not in reports.told(played)


def test_an_exchange_does_not_print_what_was_sent() -> None:
    assert "secret" not in repr(Exchange("a", "POST", "/cds-services/a", body=b"secret"))
