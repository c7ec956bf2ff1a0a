"""What an auditor takes away: an export, proofs, the verifier, checked elsewhere with a key from before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cds_server.checkpoints import Checkpoints
from cds_server.ledger import verifier
from cds_server.ledger.entry import GENESIS, chain_hash
from cds_server.ledger.tree import leaf_hash
from cds_server.ledger.verifier import Key, Wrong, parse_checkpoint
from cds_server.proving import export, growth, prove
from models.errors import Misconfigured
from tests.cds_server.conftest import OpenStore
from tests.cds_server.stores import ACTOR
from tests.cds_server.test_checkpoints import URL, act


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """The verifier of an export, by a bare Python in an empty folder, with nothing of ours to import."""
    done = subprocess.run(
        [sys.executable, "-I", "-B", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_an_auditor_checks_an_export_and_a_proof_alone(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    checkpoints = Checkpoints(store, URL)
    act(store, 300)
    first = checkpoints.make()
    assert first is not None
    old = checkpoints.signing_keys()[0]
    checkpoints.rotate(ACTOR)
    act(store, 400)
    last = checkpoints.make()
    assert last is not None
    away = tmp_path / "away"
    export(store, checkpoints, away / "export")
    with pytest.raises(Misconfigured):
        export(store, checkpoints, away / "export")
    shutil.copy(verifier.__file__, away / "verifier.py")
    (away / "entry.tlog-proof").write_bytes(prove(store, checkpoints, 42))
    (away / "first").write_bytes(first.note)
    (away / "growth").write_bytes(growth(checkpoints, last, 301))
    key = ("--key", str(old))
    code, said = run(away, "verifier.py", "export", "entry.tlog-proof", "first", "growth", *key)
    assert code == 0, said
    assert "export: 702 entries are the ones that 2 checkpoints" in said
    assert "entry 42 is in the log" in said
    assert "only grew, from 301 to 702 entries" in said
    stranger = Key(old.name, old.kind, bytes(range(32)))
    code, said = run(away, "verifier.py", "export", "--key", str(stranger))
    assert code == 1
    assert "no signature of a key that you trust" in said
    code, said = run(away, "verifier.py", "export", *key, "--witness", str(Key("w.example.org", 4, bytes(32))))
    assert (code, "0 of 1 witnesses signed" in said) == (1, True)
    assert run(away, "verifier.py", "growth", *key)[1].startswith("NO: growth: name the checkpoint at 301 entries")
    assert run(away, "verifier.py", "nothing", *key)[0] == 1
    assert run(away, "verifier.py", "first", "--key", "x+y")[0] == 2
    spoil(away / "export", [old])


def spoil(folder: Path, keys: list[Key]) -> None:
    """Each file of an export, spoilt in one way at a time: found, and the entry named where one is spoilt."""
    bundle, chain, tile = folder / "tile/entries/001", folder / "chain", folder / "tile/0/000"

    def said(path: Path, content: bytes) -> str:
        kept = path.read_bytes()
        path.write_bytes(content)
        try:
            with pytest.raises(Wrong) as wrong:
                verifier.verify_export(folder, list(keys), (), 0)
        finally:
            path.write_bytes(kept)
        return str(wrong.value)

    raw = bundle.read_bytes()
    assert said(bundle, raw.replace(b"user:test", b"user:evil", 1)) == (
        "entry 257: its body was edited (it does not hash to its leaf)"
    )
    assert said(bundle, raw[:-1]).startswith("entry 512: it is cut off")
    assert said(bundle, raw + b"\0").startswith("entry 512: something stands behind it")
    length = 2 + int.from_bytes(raw[:2])
    assert said(bundle, raw[length:] + raw[:length]).startswith("entry 257: its body was edited")
    links = chain.read_bytes()
    assert said(chain, links[:320] + bytes(32) + links[352:]) == "entry 11: the chain breaks here"
    hashes = tile.read_bytes()
    assert said(tile, hashes[:32] + bytes(32) + hashes[64:]).startswith("entry 2: its body was edited")
    notes = (folder / "checkpoints").read_bytes()
    assert "does not hold" in said(folder / "checkpoints", notes.replace(b"\n301\n", b"\n302\n"))
    assert said(folder / "checkpoints", b"") == "the export has no checkpoint"
    assert verifier.verify_export(folder, list(keys), (), 0)[-1].size == 702


def test_rewritten_entries_in_an_export_are_named_between_heads(open_store: OpenStore, tmp_path: Path) -> None:
    """Whoever writes body, leaf and chain anew still does not have the roots that were signed."""
    store = open_store()
    checkpoints = Checkpoints(store, URL)
    for _ in range(3):
        act(store, 4)
        checkpoints.make()
    folder = tmp_path / "export"
    export(store, checkpoints, folder)
    bodies = list(verifier.bodies(folder, 13))
    bodies[6] = bodies[6].replace(b"user:test", b"user:evil")
    leaves, chain, links = list(map(leaf_hash, bodies)), GENESIS, b""
    for leaf in leaves:
        chain = chain_hash(chain, leaf)
        links += chain
    (folder / "chain").write_bytes(links)
    (folder / "tile/0/000.p/13").write_bytes(b"".join(leaves))
    (folder / "tile/entries/000.p/13").write_bytes(b"".join(len(each).to_bytes(2) + each for each in bodies))
    with pytest.raises(Wrong, match="entries 6 to 9: one of them is not the one that was signed"):
        verifier.verify_export(folder, checkpoints.signing_keys(), (), 0)


def test_two_forms_of_one_log_are_named_beside_each_other() -> None:
    text = "x.example.org/1\n2\n{}\n"
    heads = [parse_checkpoint(text.format(each * 43 + "=")) for each in ("A", "E")]
    assert verifier.compare(heads) == ["two checkpoints at 2 entries have different roots: the log was forked"]
    other = parse_checkpoint(text.format("A" * 43 + "=").replace("x.", "y."))
    assert verifier.compare([heads[0], other]) == ["these are checkpoints of different logs"]
