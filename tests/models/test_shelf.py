"""What stands on the shelf, and what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from models.errors import ContractMismatch, DigestMismatch, NotFound
from models.scoring import Scorer
from models.shelf import SHIPPED, Shelf

V = ("predict-breast", "3.2.0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED / V[0] / V[1], tmp_path / V[0] / V[1])
    return tmp_path


def edit(root: Path, folder: str = V[1], /, **members: object) -> None:
    path = root / V[0] / folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def test_shipped_shelf_is_sound() -> None:
    assert Shelf().verify()
    assert not any(Shelf().verify().values())


def test_highest_version_is_the_default(root: Path) -> None:
    for version in ("3.10.0", "3.9.0"):
        shutil.copytree(root / V[0] / V[1], root / V[0] / version)
        edit(root, version, version=version)
    shelf = Shelf([root])
    assert [known.version for known in shelf.all()] == ["3.2.0", "3.9.0", "3.10.0"]
    assert shelf.get("predict-breast").version == "3.10.0"
    assert shelf.path(shelf.get("predict-breast")) == root / V[0] / "3.10.0"


def test_changed_and_missing_files_are_named(root: Path) -> None:
    with (root / V[0] / V[1] / "clinical.onnx").open("ab") as graph:
        graph.write(b"\0")
    (root / V[0] / V[1] / "head.onnx").unlink()
    found = Shelf([root]).verify()["predict-breast@3.2.0"]
    assert found == [
        "clinical.onnx is not the file that the manifest names",
        "head.onnx is missing or cannot be read (FileNotFoundError)",
    ]
    version = Shelf([root]).get(*V)
    with pytest.raises(DigestMismatch, match=r"clinical\.onnx"):
        Scorer(version, Shelf([root]).path(version))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"version": "9"}, "names another version"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "plain names"),
        ({"files": {"head.onnx": "abc"}}, "plain names"),
        ({"head": None}, "lacks head"),
        ({"rules": {}}, "lacks rules"),
    ],
)
def test_manifest_that_breaks_its_rules_is_refused_and_left_out(
    root: Path, members: dict[str, object], message: str
) -> None:
    edit(root, **members)
    with pytest.raises(ContractMismatch, match=message):
        Shelf([root]).get(*V)
    assert Shelf([root, SHIPPED]).all() == Shelf().all()
    assert message in Shelf([root]).verify()["predict-breast@3.2.0"][0]


@pytest.mark.parametrize("raw", [b"", b"{", b'{"name": "a", "name": "b"}', b"[]", b'{"version": NaN}'])
def test_manifest_that_is_not_strict_json_is_refused(root: Path, raw: bytes) -> None:
    (root / V[0] / V[1] / "manifest.json").write_bytes(raw)
    with pytest.raises(ContractMismatch, match=r"manifest\.json"):
        Shelf([root]).get(*V)


@pytest.mark.parametrize(("name", "version"), [("gail", None), ("predict-breast", "1"), ("..", ".."), ("../x", "1")])
def test_unknown_model_is_not_found(name: str, version: str | None) -> None:
    with pytest.raises(NotFound):
        Shelf().get(name, version)
