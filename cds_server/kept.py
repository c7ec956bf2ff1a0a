"""Copies of the model versions that inferences were made by: a newer program, or a tidy administrator, takes none away.

Shipped versions come and go with the program. Whoever must score an old inference again needs the very files of then.
So the first time that a service uses a version, its directory is copied to `models/.kept/DIGEST/NAME/VERSION`, where
DIGEST is the SHA-256 of its manifest, which names the SHA-256 of every other file. `models/.kept` goes with every
backup, as enrolled versions do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cds_server.logs import log
from cds_server.store.store import Store
from models.errors import CdsError, ModelFault
from models.nouns import ModelVersion
from models.shelf import MANIFEST, Shelf, problems


class Kept:
    """The copies of one instance. Errors: none where a copy cannot be made: it is logged, and `cds doctor` tells."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "models" / ".kept"
        self._known: set[str] = set()

    def holds(self, model: ModelVersion) -> bool:
        """Whether this process has seen to it already: asked at each call."""
        return model.manifest_digest in self._known

    def keep(self, model: ModelVersion, directory: Path) -> None:
        """Have a sound copy of this version: what a score is computed from is durable when this returns."""
        target = self._root / model.manifest_digest
        try:
            if not _sound(target, model):
                self._copy(model, directory, target)
        except OSError as error:
            log().error("a model version could not be kept", model=model.id, what=type(error).__name__)
        self._known.add(model.manifest_digest)

    def find(self, name: str, version: str, digest: str) -> tuple[ModelVersion, Path]:
        """The version with this manifest, and its directory. Errors: ModelFault (no copy, or it is damaged)."""
        place = self._root / digest / name / version
        shelf = Shelf((self._root / digest,))
        try:
            found = shelf.get(name, version)
        except CdsError:
            raise ModelFault("no copy of it was kept", where=f"{name}@{version}") from None
        if found.manifest_digest != digest or problems(place):
            raise ModelFault("the copy of it that was kept is damaged", where=f"{name}@{version}")
        return found, place

    def _copy(self, model: ModelVersion, directory: Path, target: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=self._root))
        try:
            place = staged / model.name / model.version
            place.mkdir(parents=True)
            for name, digest in {MANIFEST: model.manifest_digest, **model.files}.items():
                if not _copied(directory / name, place / name, digest):
                    log().error("model version not kept", model=model.id)
                    return
            if target.exists() and not _sound(target, model):
                shutil.rmtree(target)  # cut off by a crash, or damaged since
            with contextlib.suppress(FileExistsError):
                _moved(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Needed:
    """A model version that past inferences were made by."""

    model: str
    digest: str
    inferences: int
    wrong: str | None
    """Why they cannot be scored again; None: the files are at hand."""


def needed(store: Store, shelf: Shelf) -> list[Needed]:
    """Every version that any past inference names, and whether its files are still at hand, as they were."""
    kept = Kept(store.data_dir)
    rows = store.reads.query(
        "SELECT model, model_digest, COUNT(*) FROM inference GROUP BY model, model_digest ORDER BY model, model_digest"
    )
    return [Needed(model, digest, int(count), _wrong(shelf, kept, model, digest)) for model, digest, count in rows]


def _wrong(shelf: Shelf, kept: Kept, model: str, digest: str) -> str | None:
    name, _, version = model.partition("@")
    with contextlib.suppress(CdsError):
        found = shelf.get(name, version)
        if found.manifest_digest == digest and not problems(shelf.path(found)):
            return None
    try:
        kept.find(name, version, digest)
    except ModelFault as error:
        return error.what
    return None


def _sound(target: Path, model: ModelVersion) -> bool:
    """Whether a copy stands here, each file as the manifest of this digest names it."""
    place = target / model.name / model.version
    if not (place / MANIFEST).is_file() or problems(place):
        return False
    return Shelf((target,)).get(model.name, model.version).manifest_digest == model.manifest_digest


def _copied(source: Path, to: Path, digest: str) -> bool:
    """Whether it was the file of this SHA-256. What a score is computed from is waited for; cards and licences a crash
    may take, and the next start brings."""
    body = source.read_bytes()
    with to.open("xb") as file:
        file.write(body)
        if to.suffix == ".onnx" or to.name == MANIFEST:
            file.flush()
            os.fsync(file.fileno())
    return hashlib.sha256(body).hexdigest() == digest


def _moved(staged: Path, target: Path) -> None:
    """Errors: FileExistsError where another process was first."""
    try:
        staged.rename(target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(error.errno, error.strerror) from None
        raise
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
