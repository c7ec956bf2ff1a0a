"""Alert hygiene: what a site's rules hold back, what they never may, and that each time is on record."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.__main__ import main
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.hooks.context import parse
from cds_server.hooks.reasons import HL7
from cds_server.hooks.routes import INFERENCES, SUPPRESSED, Caller
from cds_server.reproduce import cards_of, held_of, load
from cds_server.sandbox.clock import redated
from cds_server.settings import load as settings_of
from models import strict
from models.errors import Misconfigured
from tests.cds_server.played import request
from tests.cds_server.wire_checks import check_response

PROGNOSIS, SIGNING = "breast-cancer-prognosis", "breast-cancer-prognosis-order-sign"
VTE, NEWS2 = "vte-risk-chemotherapy-order-sign", "deterioration-news2"
JENNY, DRAFT = "jenny-m.patient-view", "jenny-m.order-sign"


@dataclass
class Ehr:
    """An EHR of one namespace, at the doors of a server with these rules."""

    parts: Parts
    client: TestClient

    def call(self, service: str, fixture: str, user: str = "Practitioner/one") -> dict[str, Any]:
        body = {**redated(request(fixture), datetime.now(UTC)), "hookInstance": str(uuid.uuid4())}
        body["context"] = {**body["context"], "userId": user}
        answer = self.client.post(f"/cds-services/{service}", json=body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        assert check_response(told) == []
        return told

    def card(self, service: str, fixture: str, user: str = "Practitioner/one") -> dict[str, Any]:
        (card,) = self.call(service, fixture, user)["cards"]
        return dict(card)

    def held(self, service: str, fixture: str, user: str = "Practitioner/one") -> list[str]:
        """The rules that held everything back."""
        told = self.call(service, fixture, user)
        assert told["cards"] == []
        return list(told["extension"][SUPPRESSED]["rules"])

    def override(
        self, card: dict[str, Any], service: str = PROGNOSIS, *, ago: timedelta = timedelta(), coded: bool = True
    ) -> None:
        reason = {"reason": {"system": HL7, "code": "need-more-info"}} if coded else {"userComment": "not today"}
        self.act(card, service, ago=ago, outcome="overridden", overrideReason=reason)

    def act(self, card: dict[str, Any], service: str = PROGNOSIS, *, ago: timedelta = timedelta(), **said: Any) -> None:
        at = (datetime.now(UTC) - ago).isoformat()
        item = {"card": card["uuid"], "outcomeTimestamp": at, **said}
        assert self.client.post(f"/cds-services/{service}/feedback", json={"feedback": [item]}).status_code == 200


@contextmanager
def serving(data_dir: Path, url: str, rules: str) -> Iterator[Ehr]:
    (data_dir / "cds.toml").write_text(rules)
    config = {"CDS_CONFIG": str(data_dir / "cds.toml")}
    settings = settings_of(config, data_dir=data_dir, database_url=url, trust="open", deadline_ms=20_000)
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        yield Ehr(parts, client)
    assert audit(data_dir, url, deep=True).findings == ()


Serve = Callable[[str], Any]


@pytest.fixture
def ehr(data_dir: Path, url: str) -> Serve:
    return lambda rules: serving(data_dir, url, rules)


@pytest.fixture
def small(data_dir: Path) -> Serve:
    """The same on SQLite only."""
    return lambda rules: serving(data_dir, f"sqlite:///{data_dir / 'cds.db'}", rules)


def advice(parts: Parts) -> list[tuple[str, str | None]]:
    return [tuple(row) for row in parts.store.reads.query("SELECT service, rule FROM advice ORDER BY id")]


def test_it_is_off_by_default(small: Serve) -> None:
    with small("") as at:
        for _ in range(3):
            card = at.card(PROGNOSIS, JENNY)
            at.override(card)
        assert advice(at.parts) == []


def test_a_held_card_is_on_record_with_its_rule_and_its_text(ehr: Serve) -> None:
    """The EHR hears that something was held back: no card must not look like nothing to say."""
    with ehr(f"[hygiene.{VTE}]\nthreshold = 6\n") as at:
        told = at.call(VTE, "tomas-v.order-sign")
        assert told["cards"] == []
        assert told["extension"][SUPPRESSED] == {"rules": ["threshold"]}
        store = at.parts.store
        recorded = load(store, told["extension"][INFERENCES]["items"][0]["id"])
        assert recorded.call["outcome"] == "suppressed"
        assert cards_of(store, recorded.id) == []
        (held,) = held_of(store, recorded.id)
        assert held["rule"] == "threshold"
        assert held["card"]["summary"].startswith("Khorana score 5 of 6")
        entry = json.loads(store.reads.entry(recorded.seq).body)
        assert entry["detail"]["held"][held["card"]["uuid"]]["rule"] == "threshold"
        metrics = at.parts.metrics.text().decode()
        assert f'cds_suppressed_cards_total{{rule="threshold",service="{VTE}"}} 1.0' in metrics


def test_a_threshold_is_held_against_the_services_own_measure(small: Serve) -> None:
    with small(f"[hygiene.{VTE}]\nthreshold = 5\n[hygiene.{PROGNOSIS}]\nthreshold = 'warning'\n") as at:
        assert at.card(VTE, "tomas-v.order-sign")["summary"].startswith("Khorana score 5")
        assert at.held(PROGNOSIS, JENNY) == ["threshold"]


def test_a_threshold_never_hides_that_there_is_no_answer(small: Serve) -> None:
    with small(f"[hygiene.{VTE}]\nthreshold = 6\n[hygiene.{PROGNOSIS}]\nthreshold = 'warning'\n") as at:
        assert at.card(VTE, "olga-p.order-sign")["summary"].startswith("No Khorana score")
        assert at.card(PROGNOSIS, "lena-b.patient-view")["summary"].startswith("No survival estimate")


def test_after_an_override_with_a_reason_it_is_quiet_for_this_user_and_patient(ehr: Serve) -> None:
    with ehr(f"[hygiene.{PROGNOSIS}]\nquiet_hours = 24\n") as at:
        card = at.card(PROGNOSIS, JENNY)
        assert at.card(PROGNOSIS, JENNY)["summary"] == card["summary"]
        at.override(card)
        assert at.held(PROGNOSIS, JENNY) == ["quiet"]
        assert at.held(PROGNOSIS, JENNY) == ["quiet"]
        assert at.card(PROGNOSIS, JENNY, user="Practitioner/two")["summary"] == card["summary"]
        assert at.card(PROGNOSIS, "aisha-t.patient-view")
        assert at.card(SIGNING, DRAFT)  # another service, without rules


@pytest.mark.parametrize(
    "how",
    [
        {"coded": False},
        {"ago": timedelta(hours=25)},
        {"ago": timedelta(hours=-2)},  # a clock that is wrong: a time that has not come silences nothing
    ],
)
def test_what_makes_nothing_quiet(small: Serve, how: dict[str, Any]) -> None:
    with small(f"[hygiene.{PROGNOSIS}]\nquiet_hours = 24\n") as at:
        at.override(at.card(PROGNOSIS, JENNY), **how)
        assert at.card(PROGNOSIS, JENNY)


def test_a_change_of_mind_ends_the_quiet(small: Serve) -> None:
    with small(f"[hygiene.{PROGNOSIS}]\nquiet_hours = 24\n") as at:
        card = at.card(PROGNOSIS, JENNY)
        at.override(card, ago=timedelta(minutes=2))
        assert at.held(PROGNOSIS, JENNY) == ["quiet"]
        chosen = [{"id": card["suggestions"][0]["uuid"]}]
        at.act(card, outcome="accepted", acceptedSuggestions=chosen, ago=timedelta(minutes=1))
        assert at.card(PROGNOSIS, JENNY)


def test_no_more_than_the_cap_a_day(ehr: Serve) -> None:
    with ehr(f"[hygiene.{PROGNOSIS}]\ncap_per_day = 2\n") as at:
        assert [len(at.call(PROGNOSIS, JENNY)["cards"]) for _ in range(4)] == [1, 1, 0, 0]
        assert at.card(PROGNOSIS, JENNY, user="Practitioner/two")
        assert at.card(PROGNOSIS, "aisha-t.patient-view")
        assert [rule for _, rule in advice(at.parts)] == [None, None, "cap", "cap", None, None]


def test_calls_at_the_same_moment_share_one_cap(data_dir: Path, url: str) -> None:
    """The rule is applied in the act that records: eight calls at once do not each find nothing."""
    (data_dir / "cds.toml").write_text(f"[hygiene.{PROGNOSIS}]\ncap_per_day = 3\n")
    config = {"CDS_CONFIG": str(data_dir / "cds.toml")}
    parts = build(settings_of(config, data_dir=data_dir, database_url=url, trust="open", deadline_ms=20_000))
    spec = next(spec for spec in parts.registry.specs if spec.id == PROGNOSIS)
    raw = json.dumps(request(JENNY)).encode()
    asked = parse(raw, strict.loads(raw))

    async def at_once() -> list[int]:
        calls = (parts.decisions.call(spec, asked, Caller("sandbox")) for _ in range(8))
        return [len(answer.cards) for answer in await asyncio.gather(*calls)]

    assert sorted(asyncio.run(at_once())) == [0, 0, 0, 0, 0, 1, 1, 1]
    parts.close()
    assert audit(data_dir, url, deep=True).findings == ()


def test_the_same_advice_is_given_once_across_hooks(small: Serve) -> None:
    with small(f"[hygiene.{SIGNING}]\nonce_minutes = 30\n") as at:
        said = at.card(PROGNOSIS, JENNY)["summary"]
        assert at.held(SIGNING, DRAFT) == ["duplicate"]
        assert at.card(PROGNOSIS, JENNY)["summary"] == said  # the same hook again brings its own card up to date
        assert at.card(SIGNING, DRAFT, user="Practitioner/two")["summary"] == said
        assert at.card(SIGNING, "carla-r.order-sign")  # other advice


def test_a_critical_card_is_never_held_back(small: Serve) -> None:
    with small(f"[hygiene.{NEWS2}]\nthreshold = 20\ncap_per_day = 1\nquiet_hours = 24\n") as at:
        for _ in range(3):
            card = at.card(NEWS2, "nils-d.patient-view")
            assert card["indicator"] == "critical"
            at.override(card, NEWS2)


def test_where_no_user_is_named_nobody_guesses(small: Serve) -> None:
    with small(f"[hygiene.{PROGNOSIS}]\ncap_per_day = 1\n") as at:
        raw = json.dumps(request(JENNY)).encode()
        asked = parse(raw, strict.loads(raw))
        asked = replace(asked, context={name: told for name, told in asked.context.items() if name != "userId"})
        spec = next(spec for spec in at.parts.registry.specs if spec.id == PROGNOSIS)
        for _ in range(2):
            answer = at.client.portal.call(at.parts.decisions.call, spec, asked, Caller("sandbox"))
            assert len(answer.cards) == 1


def test_what_was_held_back_can_be_listed(
    small: Serve, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with small(f"[hygiene.{PROGNOSIS}]\ncap_per_day = 1\n[hygiene.{VTE}]\nthreshold = 6\n") as at:
        at.call(VTE, "tomas-v.order-sign")
        for _ in range(2):
            told = at.call(PROGNOSIS, JENNY)
    monkeypatch.setenv("CDS_CONFIG", str(data_dir / "cds.toml"))
    monkeypatch.setenv("CDS_DATA_DIR", str(data_dir))

    capsys.readouterr()

    def listed(*options: str) -> list[dict[str, Any]]:
        assert main(["service", "suppressions", *options, "--json"]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    assert [(row["service"], row["rule"]) for row in listed()] == [(VTE, "threshold"), (PROGNOSIS, "cap")]
    (row,) = listed(PROGNOSIS)
    assert row["inference"] == told["extension"][INFERENCES]["items"][0]["id"]
    assert row["hook"] == "patient-view"
    assert "summary" not in row
    assert listed("--rule", "quiet") == []
    (shown,) = listed("--rule", "cap", "--show-payload")
    assert shown["summary"].startswith("Estimated 10-year survival")
    assert main(["service", "suppressions"]) == 0
    assert "survival" not in (text := capsys.readouterr().out)
    assert "threshold" in text
    assert main(["inference", row["inference"]]) == 0
    assert "held back by cap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("[hygiene.nobody]\ncap_per_day = 1", "[hygiene.nobody] in cds.toml names no service"),
        (f"[hygiene.{VTE}]\ncap = 1", f"unknown key 'cap' of [hygiene.{VTE}] in cds.toml"),
        (f"[hygiene.{VTE}]\ncap_per_day = 0", "cap_per_day of"),
        (f"[hygiene.{VTE}]\nquiet_hours = true", "quiet_hours of"),
        (f"[hygiene.{VTE}]\nonce_minutes = 1.5", "once_minutes of"),
        (f"[hygiene.{VTE}]\nthreshold = 'critical'", "threshold of"),
        (f"[hygiene.{VTE}]\nthreshold = nan", "threshold of"),
        ("hygiene = 1", "hygiene in cds.toml is not a table of tables: write [hygiene.NAME]"),
        ("[hygiene]\ncap_per_day = 1", "hygiene in cds.toml is not a table of tables: write [hygiene.NAME]"),
    ],
)
def test_a_wrong_rule_stops_the_start(small: Serve, rules: str, said: str) -> None:
    with pytest.raises(Misconfigured) as refused, small(rules):
        pytest.fail("it started")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_never_left_counts_for_no_rule(ehr: Serve) -> None:
    """The deadline may overtake an answer whose record was being written: nobody saw that card."""
    with ehr(f"[hygiene.{PROGNOSIS}]\ncap_per_day = 1\n[hygiene.{SIGNING}]\nonce_minutes = 30\n") as at:
        told = at.call(PROGNOSIS, JENNY)
        lost = [item["id"] for item in told["extension"][INFERENCES]["items"]]
        at.client.portal.call(at.parts.decisions._undelivered, PROGNOSIS, Caller("sandbox"), lost)
        assert at.card(SIGNING, DRAFT)
        assert at.card(PROGNOSIS, JENNY)
        assert at.held(PROGNOSIS, JENNY) == ["cap"]
        assert at.held(SIGNING, DRAFT) == ["duplicate"]
        record = load(at.parts.store, lost[0])
        assert held_of(at.parts.store, record.id) == []
