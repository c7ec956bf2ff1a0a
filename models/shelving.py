"""Puts a new version on a shelf in one step: staged and synced beside it first, moved into place after the record.

Whoever shelves writes the LedgerEntry between `stage` and `place`: a version without its entry is never found.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from models.errors import Conflict
from models.nouns import JSON
from models.shelf import MANIFEST


@dataclass(frozen=True, slots=True)
class Staged:
    path: Path
    target: Path
    manifest_digest: str

    def place(self) -> None:
        """Raises: Conflict where the version came to be in the meantime."""
        self.target.parent.mkdir(exist_ok=True)
        try:
            self.path.rename(self.target)
        except OSError:
            raise Conflict("this version exists already, and a version is never changed") from None
        _sync(self.target.parent)

    def drop(self) -> None:
        """Forget what was staged; nothing happens where it was placed."""
        shutil.rmtree(self.path, ignore_errors=True)


def stage(root: Path, manifest: JSON, files: Mapping[str, bytes]) -> Staged:
    """Write manifest and files durably below `root`, where no shelf looks; the manifest gets the digests of the files.

    Raises: Conflict where that version exists.
    """
    target = root / str(manifest["name"]) / str(manifest["version"])
    if target.exists():
        raise Conflict("this version exists already, and a version is never changed")
    whole = {**manifest, "files": {name: sha256(body).hexdigest() for name, body in files.items()}}
    text = (json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    root.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".staged-", dir=root))
    try:
        for name, body in {**files, MANIFEST: text}.items():
            _durable(path / name, body)
        _sync(path)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return Staged(path, target, sha256(text).hexdigest())


def _durable(path: Path, body: bytes) -> None:
    with path.open("xb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
