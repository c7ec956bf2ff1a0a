"""Keys at rest: sealed under a master key from a file, the environment or a hook; another one touches no object."""

from __future__ import annotations

import base64
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cds_server.__main__ import main
from cds_server.checkpoints import Checkpoints
from cds_server.keys import Keys
from cds_server.master_key import HookMaster, new_text, read_master
from cds_server.settings import Settings, load
from cds_server.store.key_store import KeyStore, LocalMaster
from cds_server.store.store import Store
from models.errors import KeysUnavailable, Misconfigured, PeerFailed
from tests.cds_server.stores import ACTOR, learn, patient, weight, weights

HOOK = """
import base64, sys, time
sent = base64.b64decode(sys.stdin.readline())
turned = bytes(255 - each for each in sent)
open(sys.argv[1], "a").write(sys.argv[2] + "\\n")
print(base64.b64encode(turned).decode())
"""


def master(name: str = "the file a", fill: int = 7) -> LocalMaster:
    return LocalMaster(name, bytes([fill]) * 32)


def opened(settings: Settings, key: object) -> Store:
    return Store.open(settings.data_dir, settings.database_url, key)  # type: ignore[arg-type]


def keys_of(store: Store) -> KeyStore:
    assert isinstance(store.vault.keys, KeyStore)
    return store.vault.keys


def plain_keys(settings: Settings) -> list[bytes]:
    """Whatever stands as a key in the file, without any master key."""
    with sqlite3.connect(settings.data_dir / "keys.db") as connection:
        rows = connection.execute("SELECT key FROM object_key").fetchall()
        rows += connection.execute("SELECT value FROM secret WHERE name <> 'instance'").fetchall()
    connection.close()
    return [bytes(row[0]) for row in rows]


def test_a_new_instance_is_sealed_from_its_first_key(sqlite_settings: Settings) -> None:
    store = opened(sqlite_settings, master())
    learn(store, patient("1"), weight("w", "1", 60))
    Checkpoints(store).make()
    Keys(store).new(None, ACTOR, "ES384")
    assert keys_of(store).under_master
    index = store.vault.index.key
    record = store.reads.record("a", "1")
    assert record is not None
    refs = keys_of(store).beginning(b"")
    secrets = [index, *(key for ref in refs if (key := store.vault.key(ref)))]
    assert len(secrets) > 5
    store.close()
    raw = b"".join(path.read_bytes() for path in sqlite_settings.data_dir.rglob("keys.db*"))
    assert not any(secret in raw for secret in secrets)
    with pytest.raises(Misconfigured, match="none is configured"):
        opened(sqlite_settings, None)
    with pytest.raises(KeysUnavailable, match="another master key"):
        opened(sqlite_settings, master("b", 8))
    again = opened(sqlite_settings, master())
    assert weights(again, "a", "1") == ["60 kg"]
    again.close()


def test_an_instance_is_sealed_later_and_its_master_changed(sqlite_settings: Settings) -> None:
    store = opened(sqlite_settings, None)
    learn(store, patient("1"), weight("w", "1", 60))
    before = plain_keys(sqlite_settings)
    store.close()
    store = opened(sqlite_settings, master())  # configured, and nothing sealed yet: as before
    assert not keys_of(store).under_master
    other = opened(sqlite_settings, None)
    assert keys_of(store).seal_under(master()) >= len(before)
    assert weights(store, "a", "1") == ["60 kg"]
    with pytest.raises(KeysUnavailable, match="start it anew"):
        weights(other, "a", "1")
    other.close()
    learn(store, weight("w2", "1", 61))
    store.close()
    raw = b"".join(path.read_bytes() for path in sqlite_settings.data_dir.rglob("keys.db*"))
    assert not any(key in raw for key in before)
    store = opened(sqlite_settings, master())
    sealed = plain_keys(sqlite_settings)
    keys_of(store).rewrap(master(), master("b", 8))
    changed = set(plain_keys(sqlite_settings)) ^ set(sealed)
    assert len(changed) == 2  # the store key, as it was and as it is
    learn(store, weight("w3", "1", 62))  # who has it open goes on
    store.close()
    store = opened(sqlite_settings, master("b", 8))
    assert weights(store, "a", "1") == ["60 kg", "61 kg", "62 kg"]
    store.close()
    with pytest.raises(KeysUnavailable):
        opened(sqlite_settings, master())


def test_a_hook_is_asked_once_a_process(sqlite_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    asked = tmp_path / "asked"
    hook = HookMaster((sys.executable, str(tmp_path / "hook.py"), str(asked)))
    store = opened(sqlite_settings, hook)
    learn(store, patient("1"), weight("w", "1", 60))
    store.close()
    assert asked.read_text().split() == ["wrap"]
    store = opened(sqlite_settings, hook)
    learn(store, weight("w2", "1", 61))
    assert weights(store, "a", "1") == ["60 kg", "61 kg"]
    store.close()
    assert asked.read_text().split() == ["wrap", "unwrap"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import time; time.sleep(30)", "did not answer within 1 s"),
        ("import sys; sys.exit(3)", "ended with code 3"),
        ("print('no base64 *')", "something else than base64"),
        ("pass", "something else than base64"),
    ],
)
def test_a_hook_that_fails_is_told(program: str, said: str) -> None:
    with pytest.raises(PeerFailed, match=said):
        HookMaster((sys.executable, "-c", program), 1).unwrap(b"x")
    with pytest.raises(PeerFailed, match="cannot be run"):
        HookMaster(("/no/such/program",), 1).wrap(b"x")


def test_what_the_configuration_may_say(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    file.write_text(new_text())
    file.chmod(0o644)
    with pytest.raises(Misconfigured, match="others may read"):
        read_master({"file": str(file)}, "cds.toml", {})
    file.chmod(0o600)
    assert read_master({"file": str(file)}, "cds.toml", {}).name == "the file master.key"  # type: ignore[union-attr]
    assert read_master(None, "cds.toml", {}) is None
    assert read_master(None, "cds.toml", {"CDS_MASTER_KEY": new_text()}) is not None
    given = read_master({"command": ["/bin/kms", "-k", "1"], "seconds": 3}, "cds.toml", {})
    assert given == HookMaster(("/bin/kms", "-k", "1"), 3)
    for entry, environ in (
        ({"file": str(file), "command": ["x"]}, {}),
        ({"file": str(file)}, {"CDS_MASTER_KEY": new_text()}),
        ({}, {}),
        ({"key": "x"}, {}),
        ({"file": str(tmp_path / "none")}, {}),
        (None, {"CDS_MASTER_KEY": base64.b64encode(b"short").decode()}),
        ("text", {}),
    ):
        with pytest.raises(Misconfigured) as refused:
            read_master(entry, "cds.toml", environ)
        assert new_text() not in str(refused.value)
    assert "key=" not in repr(master())


def test_by_commands(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CDS_DATA_DIR", str(data_dir))
    monkeypatch.setenv("CDS_TRUST", "open")
    settings = load({"CDS_DATA_DIR": str(data_dir), "CDS_TRUST": "open"})
    store = opened(settings, None)
    learn(store, patient("1"), weight("w", "1", 60))
    store.close()
    one, two = tmp_path / "one.key", tmp_path / "two.key"
    assert main(["keys", "master", "new", str(one)]) == main(["keys", "master", "new", str(two)]) == 0
    assert main(["keys", "master", "new", str(one)]) == 2  # it is there: never overwritten
    assert main(["keys", "master", "seal"]) == 2  # none configured
    config = tmp_path / "cds.toml"
    config.write_text(f'[master_key]\nfile = "{one}"\n')
    monkeypatch.setenv("CDS_CONFIG", str(config))
    assert main(["keys", "master", "seal"]) == 0
    assert main(["keys", "master", "rotate", "--to-file", str(two)]) == 0
    assert main(["keys", "master", "show"]) == 1
    config.write_text(f'[master_key]\nfile = "{two}"\n')
    capsys.readouterr()
    assert main(["keys", "master", "show"]) == 0
    assert "sealed under the file two.key" in capsys.readouterr().out
    settings = replace(settings, master=load({"CDS_CONFIG": str(config)}).master)
    store = opened(settings, settings.master)
    assert weights(store, "a", "1") == ["60 kg"]
    store.close()


def test_a_secret_in_a_file_is_sealed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client secret, a token of operators: whatever a `…_file` of the configuration names."""
    key, secret, config = tmp_path / "m.key", tmp_path / "token", tmp_path / "cds.toml"
    assert main(["keys", "master", "new", str(key)]) == 0
    said = "an operator's own token"
    secret.write_text(f"{said}\n")
    secret.chmod(0o600)
    config.write_text(f'data_dir = "{tmp_path}"\nops_token_file = "{secret}"\n')
    monkeypatch.setenv("CDS_CONFIG", str(config))
    assert main(["keys", "master", "seal-file", str(secret)]) == 2  # no master key
    config.write_text(f'{config.read_text()}[master_key]\nfile = "{key}"\n')
    assert main(["keys", "master", "seal-file", str(secret)]) == 0
    assert main(["keys", "master", "seal-file", str(secret)]) == 2  # sealed already
    assert b"operator" not in secret.read_bytes()
    assert load({"CDS_CONFIG": str(config)}).ops_token == said
    key.write_text(new_text())
    with pytest.raises(KeysUnavailable):
        load({"CDS_CONFIG": str(config)})
    config.write_text(config.read_text().partition("[master_key]")[0])
    with pytest.raises(Misconfigured, match="sealed under a master key"):
        load({"CDS_CONFIG": str(config)})
    assert capsys.readouterr()
