"""An evidence package: the same bytes from the same log, checked offline with the public key only, and spoilt ones."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cds_server.__main__ import main
from cds_server.app import build, create_app
from cds_server.checkpoints import Checkpoints
from cds_server.erasure import erase
from cds_server.evidence import evidence
from cds_server.ledger import evidence_check
from cds_server.ledger.note import Signer, note
from cds_server.ledger.verifier import GENESIS, Key, Wrong
from cds_server.settings import Settings, load
from cds_server.store.store import Store
from models.errors import BadInput, Erased, Misconfigured, NotFound
from models.shelf import SHIPPED, Shelf
from tests.cds_server.stores import ACTOR, stop_row
from tests.cds_server.test_vault import PLANTED, planted_call

SHELF = Shelf((SHIPPED,))


@dataclass
class Story:
    """An instance that judged, its key as an auditor keeps it, and two packages of it."""

    settings: Settings
    folder: Path
    key: Key
    model: str
    card: str
    size: int
    plain: Path
    opened: Path


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("evidence")
    settings = load({}, data_dir=folder / "var", trust="open", deadline_ms=30_000)
    parts = build(settings)
    store, checkpoints = parts.store, Checkpoints(parts.store)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        checkpoints.make()
        key = checkpoints.signing_keys()[0]
        answers = [client.post("/cds-services/breast-cancer-prognosis", json=planted_call()) for _ in range(3)]
        assert all(each.status_code == 200 for each in answers)
        card = answers[-1].json()["cards"][0]["uuid"]
        row = store.reads.one(
            "SELECT i.model FROM inference i JOIN card c ON c.inference_id = i.id WHERE c.uuid = ?", (card,)
        )
        assert row is not None
        checkpoints.rotate(ACTOR)
        signed = checkpoints.make()
        assert signed is not None
        plain, opened = folder / "plain.zip", folder / "opened.zip"
        evidence(store, checkpoints, SHELF, row[0], plain)
        evidence(store, checkpoints, SHELF, row[0], opened, card=card)
    return Story(settings, folder, key, row[0], card, signed.checkpoint.size, plain, opened)


@pytest.fixture
def store(story: Story) -> Iterator[Store]:
    opened = Store.open(story.settings.data_dir, story.settings.database_url)
    yield opened
    opened.close()


def unpacked(package: Path, to: Path) -> Path:
    evidence_check.unpack(package, to)
    return to


def test_an_auditor_checks_it_with_the_public_key_only(story: Story, tmp_path: Path) -> None:
    """In a process that knows nothing of us: the package's own files, isolated from the source tree."""
    folder = unpacked(story.opened, tmp_path / "p")
    done = subprocess.run(
        [sys.executable, "-P", "-B", str(folder / "check.py"), str(story.opened), "--key", str(story.key)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"card: card {story.card} is the one of entry" in done.stdout
    assert len(done.stdout.splitlines()) == 10
    assert evidence_check.main([str(folder), "--key", str(story.key)]) == 0
    stranger = Signer(story.key.name, bytes(32)).key
    assert evidence_check.main([str(folder), "--key", str(stranger)]) == 1


def test_the_same_log_gives_the_same_bytes(story: Story, store: Store, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store)
    again = evidence(store, checkpoints, SHELF, story.model, tmp_path / "again.zip", at=story.size)
    assert (tmp_path / "again.zip").read_bytes() == story.plain.read_bytes()
    assert again.digest == hashlib.sha256(story.plain.read_bytes()).hexdigest()
    store.writer.submit(stop_row).result()
    checkpoints.rotate(ACTOR)
    checkpoints.make()
    evidence(store, checkpoints, SHELF, story.model, tmp_path / "later.zip", at=story.size)
    assert (tmp_path / "later.zip").read_bytes() == story.plain.read_bytes()
    newer = evidence(store, checkpoints, SHELF, story.model, tmp_path / "newer.zip")
    assert newer.size > story.size


def test_nothing_of_a_patient_is_in_it_unless_a_card_is_opened(story: Story) -> None:
    content = story.plain.read_bytes()
    assert not any(word.encode() in content for word in PLANTED)
    with zipfile.ZipFile(story.opened) as archive:
        assert any(word.encode() in archive.read("card/snapshot.json") for word in ("1961-07-23", "25.173"))
        statement = json.loads(archive.read("provenance.json"))
        assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
        assert {each["name"] for each in statement["subject"]} >= {"model/manifest.json", "model/sbom.cdx.json"}
        assert statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        statistics = json.loads(archive.read("statistics.json"))
        assert statistics["inferences"] == statistics["by_service"]["breast-cancer-prognosis"] == 3
        acts = json.loads(archive.read("approvals.json"))["acts"]
        assert any(each["act"] == "pin" for each in acts)
        assert all(each.compress_type == zipfile.ZIP_STORED for each in archive.infolist())


def _edit(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def _resign(folder: Path) -> None:
    """The list of files made to fit, as somebody without the log's key would: under a key of his own."""
    raw = (folder / "CONTENTS").read_text()
    head = raw.split("\n")[:5]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}" for n in names if n != "CONTENTS"]
    text = "\n".join([*head, *listed]) + "\n"
    (folder / "CONTENTS").write_bytes(note(text, [Signer(head[1], b"1" * 32).line(text)]))


def _entries(folder: Path) -> Path:
    return next((folder / "ledger" / "tile" / "entries").rglob("000*/*"), None) or next(
        path for path in (folder / "ledger" / "tile" / "entries").rglob("*") if path.is_file()
    )


def swapped_graph(folder: Path) -> None:
    graph = next((folder / "model").glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00\x01")


def swapped_model(folder: Path) -> None:
    manifest = folder / "model" / "manifest.json"
    content = json.loads(manifest.read_bytes())
    content["limits"] = ["none at all"]
    manifest.write_text(json.dumps(content))
    statement = json.loads((folder / "provenance.json").read_text())
    for each in statement["subject"]:
        each["digest"]["sha256"] = hashlib.sha256((folder / each["name"]).read_bytes()).hexdigest()
    (folder / "provenance.json").write_text(json.dumps(statement))
    _resign(folder)


def edited_entry(folder: Path) -> None:
    _edit(_entries(folder), b'"abstained":false', b'"abstained":true ')


def cut_log(folder: Path) -> None:
    _entries(folder).write_bytes(_entries(folder).read_bytes()[:-40])


def rechained(folder: Path) -> None:
    """The whole log written anew around an edit: bodies, leaves and chain fit each other again."""
    edited_entry(folder)
    raw, bodies, at = _entries(folder).read_bytes(), [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 2])
        bodies.append(raw[at + 2 : at + 2 + length])
        at += 2 + length
    leaves = [hashlib.sha256(b"\0" + body).digest() for body in bodies]
    chain, chains = GENESIS, b""
    for leaf in leaves:
        chain = hashlib.sha256(chain + leaf).digest()
        chains += chain
    (folder / "ledger" / "chain").write_bytes(chains)
    tile = next(path for path in (folder / "ledger" / "tile" / "0").rglob("*") if path.is_file())
    tile.write_bytes(b"".join(leaves))


def forged_head(folder: Path) -> None:
    raw = (folder / "ledger" / "checkpoint").read_text()
    (folder / "ledger" / "checkpoint").write_text(raw.replace(raw.split("\n")[2], "A" * 43 + "="))


def other_proof(folder: Path) -> None:
    proof = sorted((folder / "proofs").glob("*"))[0]
    lines = proof.read_text().split("\n")
    lines[3] = base64.b64encode(bytes(32)).decode()
    proof.write_text("\n".join(lines))


def edited_statistics(folder: Path) -> None:
    _edit(folder / "statistics.json", b'"inferences": 3', b'"inferences": 2')


def invented_approval(folder: Path) -> None:
    said = json.loads((folder / "approvals.json").read_text())
    said["acts"].append({"entry": 2, "at": "2026-11-21T10:00:00Z", "by": "user:chair", "act": "approve"})
    said["approvals"].append(said["acts"][-1])
    (folder / "approvals.json").write_text(json.dumps(said))


def other_provenance(folder: Path) -> None:
    statement = json.loads((folder / "provenance.json").read_text())
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    (folder / "provenance.json").write_text(json.dumps(statement))


def other_card(folder: Path) -> None:
    _edit(folder / "card" / "card.json", b'"summary":"', b'"summary":"Not: ')


def missing_file(folder: Path) -> None:
    (folder / "model" / "MODEL_CARD.md").unlink()


def added_file(folder: Path) -> None:
    (folder / "approval-of-the-board.pdf").write_bytes(b"%PDF-1.7")


def edited_card_of_the_model(folder: Path) -> None:
    _edit(folder / "model" / "MODEL_CARD.md", b"# ", b"#  ")


def edited_list(folder: Path) -> None:
    edited_statistics(folder)
    _resign(folder)


def reordered_list(folder: Path) -> None:
    _edit(folder / "CONTENTS", b"cds evidence v1", b"cds evidence v2")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (swapped_graph, ["files: model/", "is not the file that the manifest names"]),
        (swapped_model, ["contents: a note carries no signature", "not the manifest that the log's entries name"]),
        (edited_card_of_the_model, ["model/MODEL_CARD.md was changed", "model/MODEL_CARD.md is not the file"]),
        (edited_entry, ["log: entry ", "its body was edited"]),
        (cut_log, ["log: entry ", "it is cut off"]),
        (rechained, ["log: entries ", "is not the one that was signed"]),
        (forged_head, ["contents: the signature of", "ledger/checkpoint was changed"]),
        (other_proof, ["proofs: proofs/", "does not lead to the root"]),
        (edited_statistics, ["statistics.json was changed", "inferences is not what the log's entries say"]),
        (invented_approval, ["approvals: approvals.json: its acts are not the ones"]),
        (other_provenance, ["provenance: provenance.json is about another model/"]),
        (other_card, ["card: card/card.json is not what entry"]),
        (missing_file, ["model/MODEL_CARD.md is missing"]),
        (added_file, ["approval-of-the-board.pdf was added"]),
        (edited_list, ["contents: a note carries no signature of a key that you trust", "statistics: "]),
        (reordered_list, ["contents: the signature of"]),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_each_corruption_is_named(story: Story, tmp_path: Path, spoil: Callable[[Path], None], said: list[str]) -> None:
    folder = unpacked(story.opened, tmp_path / "p")
    spoil(folder)
    _, bad = evidence_check.check(folder, [story.key])
    assert bad
    for each in said:
        assert any(each in sentence for sentence in bad), (each, bad)


def test_packages_that_are_none(story: Story, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(story.plain.read_bytes()[:-100])
    with pytest.raises(Wrong, match="damaged"):
        evidence_check.unpack(broken, tmp_path / "a")
    outside = tmp_path / "outside.zip"
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("../out", b"x")
    with pytest.raises(Wrong, match="leads out"):
        evidence_check.unpack(outside, tmp_path / "b")
    empty = tmp_path / "empty"
    empty.mkdir()
    good, bad = evidence_check.check(empty, [story.key])
    assert len(bad) == 7
    assert not any(each.startswith("log") for each in good)


def test_what_is_refused(story: Story, store: Store, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store)
    with pytest.raises(NotFound):
        evidence(store, checkpoints, SHELF, "predict-breast@9.9.9", tmp_path / "a.zip")
    with pytest.raises(BadInput):
        evidence(store, checkpoints, SHELF, "predict-breast", tmp_path / "a.zip")
    with pytest.raises(NotFound):
        evidence(store, checkpoints, SHELF, story.model, tmp_path / "a.zip", card="no-such-card")
    with pytest.raises(BadInput, match="another model"):
        evidence(store, checkpoints, SHELF, "news2@2017.1", tmp_path / "a.zip", card=story.card)
    with pytest.raises(NotFound):
        evidence(store, checkpoints, SHELF, story.model, tmp_path / "a.zip", at=1)
    with pytest.raises(Misconfigured):
        evidence(store, checkpoints, SHELF, story.model, story.plain)
    assert list(tmp_path.iterdir()) == []


def test_by_command_and_after_an_erasure(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "var"
    shutil.copytree(story.settings.data_dir, data)
    monkeypatch.setenv("CDS_DATA_DIR", str(data))
    monkeypatch.setenv("CDS_TRUST", "open")
    made = tmp_path / "e.zip"
    assert main(["evidence", story.model, "--out", str(made), "--card", story.card]) == 0
    capsys.readouterr()
    assert evidence_check.main([str(made), "--key", str(story.key)]) == 0
    told = capsys.readouterr().out
    assert f"card {story.card}" in told
    opened = Store.open(data, f"sqlite:///{data / 'cds.db'}")
    record = opened.reads.record("sandbox", "planted-local-id")
    assert record is not None
    erase(opened, record, "asked for", ACTOR)
    checkpoints = Checkpoints(opened)
    checkpoints.make()
    with pytest.raises(Erased):
        evidence(opened, checkpoints, SHELF, story.model, tmp_path / "f.zip", card=story.card)
    evidence(opened, checkpoints, SHELF, story.model, tmp_path / "f.zip")
    opened.close()
    assert evidence_check.main([str(tmp_path / "f.zip"), "--key", str(story.key)]) == 0
