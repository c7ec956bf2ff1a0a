"""An auditor's questions: answered with proofs that hold offline, without a word about a patient, paged."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from cds_server import wire
from cds_server.__main__ import main
from cds_server.access.log import Access
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.checkpoints import Checkpoints
from cds_server.decisions import INFERENCE
from cds_server.ledger.verifier import check_file, leaf_hash, open_checkpoint, verify_inclusion
from cds_server.operators import Operators
from cds_server.questions.card import card
from cds_server.questions.doors import QuestionDoors
from cds_server.questions.facts import corrected, fact
from cds_server.questions.made import LAST, made
from cds_server.questions.proofs import proven, seqs
from cds_server.recalls import Recaller
from cds_server.settings import Settings
from cds_server.store.vault import object_ref
from models.errors import BadInput, NotFound
from smart_app.desk import Door, Role, Viewer
from tests.cds_server.stores import JOINING, learn
from tests.cds_server.test_decisions import SERVICE, hook
from tests.cds_server.test_recalls import size
from tests.peers.server import override

MODEL = "predict-breast@3.2.0"
PLANTED = (
    "jenny",
    "1965-01-01",
    "25 mm",
    "Nottingham",
    "oncologist",
    "353431000119107",
    "tumor-size",
    "87 %",
    "secret word",
)
"""What only a reader with a role may see: ids, dates, values, people, a diagnosis, a card's words, a comment."""


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    built = build(settings)
    yield built
    built.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


@pytest.fixture
def shown(parts: Parts) -> dict[str, Any]:
    """A card that was overridden, and whose tumour size was corrected afterwards."""
    client = TestClient(create_app(parts), client=("127.0.0.1", 5000))
    learn(parts.store, size(2.5), namespace="sandbox")
    found = client.post(SERVICE, json=hook(2.5)).json()["cards"][0]
    taken = client.post(f"{SERVICE}/feedback", json={"feedback": [override(found, "a secret word")]})
    assert taken.status_code == 200
    digest_backlog(parts.store, JOINING, "system")
    learn(parts.store, size(4.5), namespace="sandbox")
    recaller = Recaller(parts.store, parts.registry)
    while recaller.some():
        pass
    return dict(found)


def check_offline(answer: dict[str, Any], keys: list[Any]) -> int:
    """As somebody would who has the log's key and this answer, and nothing else of ours; gives how many entries."""
    head = open_checkpoint(answer["checkpoint"].encode(), keys)
    assert set(answer["proofs"]) == {str(seq) for seq in seqs({**answer, "proofs": {}})}
    for seq, proof in answer["proofs"].items():
        body = base64.b64decode(proof["body"])
        assert json.loads(body)["seq"] == int(seq)
        path = [base64.b64decode(each) for each in proof["inclusion"]]
        verify_inclusion(leaf_hash(body), int(seq) - 1, head.size, head.root, path)
    return len(answer["proofs"])


def test_a_card_tells_what_made_it_and_what_became_of_it(parts: Parts, shown: dict[str, Any]) -> None:
    checkpoints = Checkpoints(parts.store)
    checkpoints.make()
    answer = proven(parts.store, checkpoints, card(parts.store, shown["uuid"]))
    assert check_offline(answer, checkpoints.signing_keys()) >= 6
    assert not [word for word in PLANTED if word in json.dumps(answer)]
    assert answer["inference"]["service"] == "breast-cancer-prognosis"
    assert answer["model"]["id"] == MODEL
    assert answer["model"]["pinned"]["seq"] in (1, 2, 3)
    (measured,) = [each for each in answer["data"] if "clinical.size" in each["features"]]
    assert (measured["type"], measured["code"], measured["kind"]) == (
        "Observation",
        "http://loinc.org|33728-7",
        "observation",
    )
    assert measured["known_to"] is not None
    assert {each["name"] for each in answer["features"]} >= {"age", "size", "nodes"}
    assert [each["how"] for each in answer["seen"]] == ["call"]
    (done,) = answer["done"]
    assert (done["outcome"], done["door"]) == ("overridden", "cds-hooks")
    assert [each["reason"] for each in answer["corrected"]] == ["recall"]
    body = json.loads(base64.b64decode(answer["proofs"][str(answer["inference"]["seq"])]["body"]))
    assert shown["uuid"] in body["detail"]["cards"]
    assert card(parts.store, answer["inference"]["id"])["inference"] == answer["inference"]
    with pytest.raises(NotFound):
        card(parts.store, "00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_values_are_there_for_whoever_may_see_them(parts: Parts, shown: dict[str, Any]) -> None:
    answer = card(parts.store, shown["uuid"], values=True)
    text = json.dumps(answer, ensure_ascii=False)
    assert all(word in text for word in ("1965-01-01", "25 mm", "secret word", "oncologist"))
    assert answer["cards"][0]["summary"] == shown["summary"]
    (measured,) = [each for each in answer["data"] if "clinical.size" in each["features"]]
    withheld = {f"{measured['landing']}/{measured['part']}{measured['pointer']}#0"}
    known = parts.store.reads.query("SELECT COUNT(*) FROM access")[0][0]
    some = next(each for each in _facts(parts, shown["uuid"]) if "33728-7" in each.code.code)
    hidden = card(parts.store, shown["uuid"], values=True, withheld=frozenset({some.id} | withheld))
    (measured,) = [each for each in hidden["data"] if "clinical.size" in each["features"]]
    assert "value" not in measured
    assert "label" not in next(each for each in hidden["features"] if each["name"] == "size")
    assert parts.store.reads.query("SELECT COUNT(*) FROM access")[0][0] == known


def _facts(parts: Parts, named: str) -> tuple[Any, ...]:
    from cds_server.reproduce import load

    return load(parts.store, named).snapshot.facts


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_of_an_erased_card_stays_that_it_was(parts: Parts, shown: dict[str, Any]) -> None:
    ref = card(parts.store, shown["uuid"])["inference"]["id"]
    whole = card(parts.store, ref)
    parts.store.vault.keys.destroy([object_ref(INFERENCE, ref)])
    left = card(parts.store, shown["uuid"], values=True)
    assert left["erased"] is True
    assert (left["data"], left["features"]) == ([], [])
    for kept in ("inference", "model", "cards", "done", "corrected"):
        assert left[kept] == whole[kept]
    assert [each["outcome"] for each in left["seen"]] == ["answered"]
    assert corrected(parts.store, "", LAST)["inferences"][0]["erased"] is True


def test_a_model_version_answers_for_all_it_did(parts: Parts, shown: dict[str, Any]) -> None:
    client = TestClient(create_app(parts), client=("127.0.0.1", 5000))
    for _ in range(2):
        client.post(SERVICE, json=hook(2.5))
    first = made(parts.store, MODEL, limit=2)
    assert first["counts"] == {
        "inferences": 3, "abstained": 0, "cards": 3, "cards overridden": 1, "flagged recall": 1
    }  # fmt: skip
    assert [each["pinned"] for each in first["switches"]] == [
        "breast-cancer-prognosis",
        "breast-cancer-prognosis-order-sign",
    ]
    rest = made(parts.store, MODEL, after=first["next"], limit=2)
    found = [*first["inferences"], *rest["inferences"]]
    assert (len(found), rest["next"]) == (3, None)
    assert [each["seq"] for each in found] == sorted(each["seq"] for each in found)
    assert shown["uuid"] in found[0]["cards"]
    assert [each["outcome"] for each in found[0]["done"]] == ["overridden"]
    third = found[2]["at"]
    assert made(parts.store, MODEL, third)["counts"]["inferences"] == 1
    assert made(parts.store, MODEL, "", "2020-01-01T00:00:00.000000Z")["counts"]["inferences"] == 0
    with pytest.raises(NotFound):
        made(parts.store, "no-such@1")


def test_a_fact_tells_the_cards_that_rest_on_it_and_what_took_its_place(parts: Parts, shown: dict[str, Any]) -> None:
    (measured,) = [each for each in card(parts.store, shown["uuid"])["data"] if "clinical.size" in each["features"]]
    named = f"{measured['landing'][:12]}:{measured['part']}{measured['pointer']}"
    answer = fact(parts.store, named)
    assert [each["model"].partition("@")[0] for each in answer["inferences"]] == [
        "predict-breast",
        "breast-cancer-recurrence",
    ]
    assert answer["inferences"][0]["cards"] == [shown["uuid"]]
    assert answer["inferences"][0]["features"] == ["clinical.size"]
    assert answer["fact"]["closed"]["cause"] == "superseded"
    assert answer["fact"]["instead"]["states_facts"] is True
    assert not [word for word in PLANTED if word in json.dumps(answer)]
    page = fact(parts.store, named, limit=1)
    assert len(page["inferences"]) == 1
    assert fact(parts.store, named, after=page["next"])["inferences"] == answer["inferences"][1:]
    whole = f"{measured['landing']}/{measured['part']}{measured['pointer']}#0"
    assert fact(parts.store, whole)["inferences"] == answer["inferences"]
    replaced = answer["fact"]["instead"]
    assert fact(parts.store, f"{replaced['landing']}:{replaced['part']}")["inferences"] == []
    with pytest.raises(BadInput):
        fact(parts.store, "a fact of Jenny")
    with pytest.raises(NotFound):
        fact(parts.store, "00000000:0")


def test_corrections_name_every_card_that_they_touched(parts: Parts, shown: dict[str, Any]) -> None:
    checkpoints = Checkpoints(parts.store)
    checkpoints.make()
    answer = proven(parts.store, checkpoints, corrected(parts.store, "", LAST))
    check_offline(answer, checkpoints.signing_keys())
    assert [each["flag"]["reason"] for each in answer["inferences"]] == ["recall", "corrected"]
    own = answer["inferences"][0]
    assert own["cards"] == [shown["uuid"]]
    (gone,) = own["facts"]
    assert (gone["type"], gone["closed"]["cause"]) == ("Observation", "superseded")
    assert own["seq"] > gone["seq"]
    assert gone["closed"]["seq"] > own["seq"]
    first = corrected(parts.store, "", LAST, limit=1)
    assert corrected(parts.store, "", LAST, after=first["next"])["inferences"] == [
        {**each} for each in answer["inferences"][1:]
    ]
    assert corrected(parts.store, "2999-01-01", LAST)["inferences"] == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_over_http_operators_get_answers_and_others_none(parts: Parts, shown: dict[str, Any]) -> None:
    app = create_app(parts)
    here = TestClient(app, client=("127.0.0.1", 5000), base_url="http://localhost")
    there = TestClient(app, client=("192.0.2.7", 5000), base_url="http://localhost")
    paths = {
        "card": f"/ledger/questions/card/{shown['uuid']}",
        "model": f"/ledger/questions/model/{MODEL}?from=2020-01-01&limit=1",
        "corrected": "/ledger/questions/corrected",
        "fact": f"/ledger/questions/fact/{_facts(parts, shown['uuid'])[0].source.landing}/0?pointer=/prefetch/patient",
    }
    for kind, path in paths.items():
        answer = here.get(path)
        assert (answer.status_code, answer.json()["question"]["kind"]) == (200, kind)
        assert answer.headers["cache-control"] == "no-store"
        assert there.get(path).status_code == 401
    assert len(here.get(paths["model"]).json()["inferences"]) == 1
    for wrong in ("limit=0", "limit=501", "limit=x", "after=-1", "after=9007199254740993", "from=yesterday"):
        assert here.get(f"/ledger/questions/model/{MODEL}?{wrong}").status_code == 400
    assert here.get("/ledger/questions/card/nothing").status_code == 404
    assert here.get(f"{paths['card']}?values=some").status_code == 400
    assert here.get(f"/ledger/questions/fact/{'0' * 32}/{10**30}").status_code == 400
    assert here.get(f"{paths['card']}?values=true").status_code == 401  # being on this machine is no role


class SignedIn:
    """A staff member's session, without a provider."""

    def __init__(self, *roles: Role) -> None:
        self._viewer = Viewer("staff-1", "Sam Staff", frozenset(roles), Door.STAFF)

    def person(self, _: Request) -> None:
        return None

    async def viewer(self, _: Request) -> Viewer:
        return self._viewer


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("role", "plain", "valued"),
    [(Role.COMPLIANCE, 200, 200), (Role.AUDITOR, 200, 403), (Role.DATA_SCIENTIST, 200, 403), (None, 403, 403)],
)
def test_roles_decide_over_values_and_a_look_is_on_record(
    parts: Parts, shown: dict[str, Any], role: Role | None, plain: int, valued: int
) -> None:
    sessions: Any = SignedIn(*([role] if role else []))
    doors = QuestionDoors(
        parts.store,
        Checkpoints(parts.store),
        Operators(parts.settings, sessions),
        Access(parts.store, parts.settings),
        sessions,
    )
    app = Starlette(routes=doors.routes())
    wire.install(app)
    client = TestClient(app, client=("192.0.2.7", 5000), base_url="http://localhost")
    path = f"/ledger/questions/card/{shown['uuid']}"
    assert client.get(path).status_code == plain
    answer = client.get(f"{path}?values=true")
    assert answer.status_code == valued
    assert ("25 mm" in answer.text) == (valued == 200)
    looks = parts.store.reads.query("SELECT act, outcome FROM access ORDER BY id")
    assert [tuple(each) for each in looks] == [("inference", "seen" if valued == 200 else "refused")]
    if valued == 200:
        assert [each["act"] for each in client.get(path).json()["seen"] if each["how"] == "look"] == ["inference"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_command_writes_proofs_that_the_verifier_takes(
    parts: Parts,
    shown: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CDS_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("CDS_TRUST", "open")

    def ask(*words: str) -> str:
        assert main(["ask", *words]) == 0
        return capsys.readouterr().out

    out = ask("card", shown["uuid"], "--proofs", str(tmp_path / "proofs"))
    assert "ledger entries, all under a signed head" in out
    assert not [word for word in PLANTED if word in out]
    keys = Checkpoints(parts.store).signing_keys()
    files = sorted((tmp_path / "proofs").iterdir())
    assert len(files) >= 6
    for each in files:
        check_file(each, keys, [], 0)
    assert "25 mm" in ask("card", shown["uuid"], "--values")
    seen = json.loads(ask("card", shown["uuid"], "--json"))["seen"]
    assert [(each["door"], each["act"]) for each in seen if each["how"] == "look"] == [("command", "inference")]
    assert "1 inferences, 0 abstained, 1 cards, 1 cards overridden" in ask("model", MODEL, "--to", "2999-01-01")
    landing = next(each for each in _facts(parts, shown["uuid"]) if each.code.code == "33728-7").source
    assert shown["uuid"] in ask("fact", f"{landing.landing[:8]}:{landing.part}{landing.pointer}")
    assert "recall, noticed" in ask("corrected", "--from", "2020-01-01")
    assert main(["ask", "model", "no-such@1"]) == 1
    assert main(["ask", "corrected", "--limit", "0"]) == 1
    assert main(["ask", "fact", "nonsense"]) == 1
