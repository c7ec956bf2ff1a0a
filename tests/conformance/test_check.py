"""`cds conformance` against a server that is wrong on purpose: each fault is found, under its number, and alone."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from cds_server.__main__ import main
from tests.conformance.spoilt import HOOKS, Answer, Spoilt, a_card, a_service, a_suggestion, outcome, sent, serving

URL = "https://example.org/x"
DELETE = {"type": "delete", "description": "Remove it", "resourceId": "ServiceRequest/1"}
CREATE = {"type": "create", "description": "Add it", "resource": {"resourceType": "ServiceRequest"}}


def run(capsys: pytest.CaptureFixture[str], url: str, *options: str) -> tuple[int, list[dict[str, str]]]:
    code = main(["conformance", url, "--json", *options])
    return code, json.loads(capsys.readouterr().out)["results"]


def of(results: list[dict[str, str]], result: str) -> set[str]:
    """Numbers of the checks with that result; groups 3.x and 2 alike."""
    return {re.sub(r"^(2|3\.[1-6])\.", "3.", each["check"]) for each in results if each["result"] == result}


def test_a_sound_server_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Spoilt()) as url:
        code, results = run(capsys, url)
    assert (code, of(results, "failed"), of(results, "warned")) == (0, set(), set())
    assert {each["about"] for each in results if each["about"]} == {f"sound-{hook} ({hook})" for hook in HOOKS}


def services(**changes: Any) -> Callable[[], Answer]:
    def answer() -> Answer:
        first, *rest = (a_service(hook) for hook in HOOKS)
        changed = {name: value for name, value in {**first, **changes}.items() if value is not ...}
        return sent({"services": [changed, *rest]})

    return answer


FAULTS: dict[str, tuple[Spoilt, set[str]]] = {
    "a service without description": (Spoilt(discovery=services(description=...)), {"1.03"}),
    "a service with an empty description": (Spoilt(discovery=services(description=" ")), {"1.03"}),
    "services is no list": (Spoilt(discovery=lambda: sent({"services": {}})), {"1.03"}),
    "discovery is no JSON": (Spoilt(discovery=lambda: (200, {}, b"<html>")), {"1.02", "1.03"}),
    "discovery fails": (Spoilt(discovery=lambda: sent({"services": []}, 500)), {"1.02"}),
    "an empty member": (Spoilt(discovery=services(usageRequirements="")), {"1.04"}),
    "an illegal template": (Spoilt(discovery=services(prefetch={"patient": "Patient/{{context.a.b}}"})), {"1.04"}),
    "an include": (Spoilt(discovery=services(prefetch={"patient": "Patient?_include=x"})), {"1.04"}),
    "prefetch is a list": (Spoilt(discovery=services(prefetch=["Patient"])), {"1.04"}),
    "no cards": (Spoilt(cards=lambda: {"card": "x"}), {"3.05", "4.10"}),
    "a card without indicator": (Spoilt(cards=lambda: {"cards": [a_card(indicator=...)]}), {"3.05"}),
    "another indicator": (Spoilt(cards=lambda: {"cards": [a_card(indicator="hard-stop")]}), {"3.05"}),
    "a card without source": (Spoilt(cards=lambda: {"cards": [a_card(source=...)]}), {"3.05"}),
    "140 characters": (Spoilt(cards=lambda: {"cards": [a_card(summary="x" * 140)]}), {"3.05"}),
    "an action of no type": (
        Spoilt(cards=lambda: {"cards": [a_card(suggestions=[a_suggestion({"type": "do"})], selectionBehavior="any")]}),
        {"3.05"},
    ),
    "a delete without resourceId": (
        Spoilt(cards=lambda: {"cards": [], "systemActions": [{"type": "delete", "description": "x"}]}),
        {"3.05"},
    ),
    "a create without resource": (
        Spoilt(cards=lambda: {"cards": [], "systemActions": [{"type": "create", "description": "x"}]}),
        {"3.05"},
    ),
    "no selectionBehavior": (Spoilt(cards=lambda: {"cards": [a_card(suggestions=[a_suggestion(CREATE)])]}), {"3.06"}),
    "another selectionBehavior": (
        Spoilt(cards=lambda: {"cards": [a_card(suggestions=[a_suggestion(CREATE)], selectionBehavior="all")]}),
        {"3.06"},
    ),
    "detail is null": (Spoilt(cards=lambda: {"cards": [a_card(detail=None)]}), {"3.06"}),
    "links is empty": (Spoilt(cards=lambda: {"cards": [a_card(links=[])]}), {"3.06"}),
    "a reason without display": (
        Spoilt(cards=lambda: {"cards": [a_card(overrideReasons=[{"code": "a", "system": "b"}])]}),
        {"3.06"},
    ),
    "appContext on an absolute link": (
        Spoilt(
            cards=lambda: {"cards": [a_card(links=[{"label": "x", "url": URL, "type": "absolute", "appContext": "y"}])]}
        ),
        {"3.06"},
    ),
    "a link to nowhere": (
        Spoilt(cards=lambda: {"cards": [a_card(links=[{"label": "x", "url": "/x", "type": "absolute"}])]}),
        {"3.06"},
    ),
    "two recommended": (
        Spoilt(
            cards=lambda: {
                "cards": [
                    a_card(
                        suggestions=[a_suggestion(CREATE, isRecommended=True) for _ in range(2)],
                        selectionBehavior="at-most-one",
                    )
                ]
            }
        ),
        {"3.06"},
    ),
    "an extension that is a list": (Spoilt(cards=lambda: {"cards": [], "extension": [{"a": 1}]}), {"3.06"}),
    "one uuid in every answer": (Spoilt(cards=lambda: {"cards": [a_card(uuid="always")]}), {"3.7.04"}),
    "a body that is no JSON is taken": (Spoilt(lenient=frozenset({"json"})), {"4.01"}),
    "another hook is taken": (Spoilt(lenient=frozenset({"hook"})), {"4.01"}),
    "no context is taken": (Spoilt(lenient=frozenset({"context"})), {"4.01"}),
    "an instance that is no UUID is taken": (Spoilt(lenient=frozenset({"instance"})), {"4.01"}),
    "any media type is taken": (Spoilt(lenient=frozenset({"type"})), {"4.01"}),
    "an error is a server error": (Spoilt(refusal=lambda *_: outcome(500)), {"4.01"}),
    "any service is known": (Spoilt(lenient=frozenset({"service", "hook"})), {"4.01", "4.02"}),
    "an error shows a stack": (Spoilt(refusal=lambda *_: outcome(400, "Traceback (most recent call last)")), {"4.03"}),
    "an error echoes the input": (
        Spoilt(refusal=lambda raw, _: outcome(400, raw.decode(errors="replace"))),
        {"4.04"},
    ),
    "a redirect": (Spoilt(slash=lambda: (307, {"location": "/cds-services"}, b"")), {"4.07"}),
    "lacking prefetch is a server error": (Spoilt(lacking=lambda: outcome(500)), {"4.10"}),
    "an unknown card is a server error": (Spoilt(feedback=lambda _: outcome(500)), {"4.20"}),
    "a stranger's page is let in": (
        Spoilt(
            preflight={
                "access-control-allow-origin": "https://conformance-stranger.example",
                "access-control-allow-credentials": "true",
            }
        ),
        {"4.30"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_under_its_number(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoilt, numbers = FAULTS[fault]
    with serving(spoilt) as url:
        code, results = run(capsys, url)
    assert (code, of(results, "failed")) == (1, numbers)


@pytest.mark.parametrize(
    ("spoilt", "number"),
    [
        (Spoilt(discovery=services(title=...)), "1.05"),
        (Spoilt(discovery=services(id="sound-order-sign")), "1.06"),
        (Spoilt(cards=lambda: {"cards": []}), "3.7.06"),
        (Spoilt(cards=lambda: {"cards": [a_card(uuid=...)]}), "3.7.05"),
        (Spoilt(refusal=lambda *_: (400, {}, b"no")), "4.05"),
        (Spoilt(lenient=frozenset({"twice"})), "4.06"),
        (Spoilt(lenient=frozenset({"surrogate"})), "4.06"),
        (Spoilt(feedback=lambda _: (200, {}, b"")), "4.21"),
    ],
)
def test_what_is_allowed_and_unwise_is_a_warning(
    spoilt: Spoilt, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(spoilt) as url:
        _, results = run(capsys, url)
    assert number in of(results, "warned")


def test_no_feedback_endpoint_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Spoilt(feedback=lambda _: outcome(404))) as url:
        code, results = run(capsys, url)
    assert code == 0
    assert "4.20" in of(results, "not seen")


def test_412_is_an_answer_to_lacking_prefetch(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Spoilt(lacking=lambda: outcome(412))) as url:
        assert run(capsys, url)[0] == 0


# ---- what the guide asks ---------------------------------------------------------------------------------------------


def test_the_guides_own_rules_count_only_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    source = {"label": "No topic"}
    with serving(Spoilt(cards=lambda: {"cards": [a_card(source=source)]})) as url:
        assert run(capsys, url)[0] == 0
        code, results = run(capsys, url, "--crd")
    assert code == 1
    assert {"3.05", "3.10", "3.7.01", "3.7.03"} == of(results, "failed")


COVERED = "http://hl7.org/fhir/us/davinci-crd/StructureDefinition/ext-coverage-information"


def covered(*informations: tuple[str, str], kind: str = "update") -> dict[str, Any]:
    """A system action that says something about coverages: (coverage, assertion id) each."""
    said = [
        {
            "url": COVERED,
            "extension": [
                {"url": "coverage", "valueReference": {"reference": f"Coverage/{coverage}"}},
                {"url": "coverage-assertion-id", "valueString": assertion},
            ],
        }
        for coverage, assertion in informations
    ]
    order = {
        "resourceType": "ServiceRequest",
        "id": "1",
        "status": "draft",
        "intent": "order",
        "subject": {"reference": "Patient/1"},
        "extension": said,
    }
    return {"type": kind, "description": "Covered", "resource": order}


@pytest.mark.parametrize(
    ("action", "sound"),
    [
        (covered(("a", "1")), True),
        (covered(("a", "1"), ("b", "2")), True),
        (covered(("a", "1"), ("b", "1")), False),
        (covered(("a", "1"), ("a", "2")), False),
        (covered(("a", "1"), kind="create"), False),
    ],
)
def test_coverage_information(action: dict[str, Any], sound: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Spoilt(cards=lambda: {"cards": [], "systemActions": [action]})) as url:
        _, results = run(capsys, url)
    assert "3.10" in of(results, "passed")
    assert ("3.11" in of(results, "failed")) is not sound


@pytest.mark.parametrize(
    ("actions", "passed"),
    [
        ([{**DELETE, "resourceId": "ServiceRequest/conformance-order"}, CREATE], True),
        ([{**DELETE, "resourceId": "ServiceRequest/conformance-order"}], False),
        ([DELETE, CREATE], False),
    ],
)
def test_an_alternate_request_replaces_what_is_drafted(
    actions: list[dict[str, Any]], passed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {"suggestions": [a_suggestion(*actions)], "selectionBehavior": "any"}
    with serving(Spoilt(cards=lambda: {"cards": [a_card(**card)]})) as url:
        _, results = run(capsys, url, "--crd", "--service", "sound-order-sign")
    (found,) = (each for each in results if each["check"] == "3.6.12")
    assert found["result"] == ("passed" if passed else "failed")


@pytest.mark.parametrize(
    ("card", "number"),
    [
        (a_card(links=[{"label": "x", "url": URL, "type": "absolute"}]), "3.07"),
        (a_card(links=[{"label": "x", "url": URL, "type": "smart"}]), "3.08"),
        (a_card(), "3.09"),
    ],
)
def test_kinds_of_cards_are_told(card: dict[str, Any], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Spoilt(cards=lambda: {"cards": [card]})) as url:
        _, results = run(capsys, url, "--service", "sound-patient-view")
    assert of(results, "passed") & {"3.07", "3.08", "3.09"} == {number}


def test_the_valid_cards_of_the_suite_are_valid(peer_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = json.loads((peer_data / "cds-hooks" / "valid_cards.json").read_bytes())
    several = iter(range(1000))

    def named() -> dict[str, Any]:
        """Each with a uuid of its own: the suite's file gives one to two."""
        fresh = copy.deepcopy(cards)
        for each in (*fresh, *(suggestion for card in fresh for suggestion in card.get("suggestions", ()))):
            each["uuid"] = f"u{next(several)}"
        return {"cards": fresh}

    with serving(Spoilt(cards=named)) as url:
        code, results = run(capsys, url)
    assert (code, of(results, "failed")) == (0, set())
    assert {"3.07", "3.08", "3.09"} <= of(results, "passed")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Spoilt(cards=lambda: {"cards": [a_card(indicator="hard-stop")]})) as url:
        assert main(["conformance", url]) == 1
    told = capsys.readouterr().out
    assert re.search(r"3\.6\.05 +FAIL +answer: required members +sound-order-sign \(order-sign\)", told)
    assert "/cards/0/indicator: not in the set" in told
    assert re.search(r"\d+ passed, 2 failed, \d+ warned, \d+ not seen", told)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["http://127.0.0.1:9"], 3, "does not answer"),
        (["ehr.example"], 2, "no http or https URL"),
        (["http://127.0.0.1:9", "--key", "x.pem"], 2, "give both"),
        (["http://127.0.0.1:9", "--key", "x.pem", "--issuer", URL], 2, "cannot be read"),
        (["http://127.0.0.1:9", "--requests", "/nowhere"], 2, "no file of this folder"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", *arguments]) == code
    assert told in capsys.readouterr().err


def test_a_service_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Spoilt()) as url:
        code, results = run(capsys, url, "--service", "no-such")
    assert (code, of(results, "failed")) == (1, {"3"})


def test_ones_own_requests_are_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = {"userId": "Practitioner/1", "patientId": "no id of a patient"}
    (tmp_path / "mine.json").write_text(json.dumps({"hook": "patient-view", "context": context}))
    with serving(Spoilt()) as url:
        _, results = run(capsys, url, "--requests", str(tmp_path), "--suite")
    assert [each["about"] for each in results if each["result"] == "failed"] == ["sound-patient-view (patient-view)"]
    assert of(results, "failed") == {"3.03"}


@pytest.mark.parametrize("kind", ["ES384", "RS384", "jwk", "jwks"])
def test_calls_are_signed(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that asks for nothing fails the checks of tokens, and only those; each call had a fresh token."""
    key: Any = ECKey.generate_key("P-384") if kind != "RS384" else RSAKey.generate_key(2048)
    file = tmp_path / "key"
    if kind in ("ES384", "RS384"):
        file.write_bytes(key.as_pem(private=True))
    else:
        one = {**key.as_dict(private=True), "kid": "k1"}
        file.write_text(json.dumps(one if kind == "jwk" else {"keys": [one]}))
    spoilt = Spoilt()
    with serving(spoilt) as url:
        code, results = run(capsys, url, "--key", str(file), "--issuer", URL, "--jku", f"{URL}/jwks")
    assert (code, of(results, "failed")) == (1, {"4.40"})
    assert "4.42" in of(results, "warned")
    first = [seen for seen in spoilt.seen[:3] if seen.startswith("Bearer ey")]
    assert len(set(first)) == 3
