"""Finds ModelVersions: those shipped beside the code, and those enrolled in the data directory.

A version lives in `<root>/<name>/<version>/`: `manifest.json`, the files that it names, `MODEL_CARD.md`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from models import strict
from models.errors import BadInput, ContractMismatch, DigestMismatch, ModelFault, NotFound
from models.nouns import ModelVersion

SHIPPED = Path(__file__).parent / "artifacts"
MANIFEST = "manifest.json"

_REQUIRED: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "version": str,
    "title": str,
    "endpoint": str,
    "population": dict,
    "modalities": list,
    "head": dict,
    "rules": list,
    "parameters": dict,
    "limits": list,
    "files": dict,
    "licence": str,
}
_WORD = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """Model versions under some roots; where two roots hold the same version, the first one counts."""

    def __init__(self, roots: Sequence[Path] = (SHIPPED,)) -> None:
        self._roots = tuple(roots)

    def all(self) -> tuple[ModelVersion, ...]:
        """Every version whose manifest can be read, by name and version. `verify` tells about the others."""
        found: dict[str, ModelVersion] = {}
        for directory in self._directories():
            try:
                version = load_manifest(directory)
            except ModelFault:
                continue
            found.setdefault(version.id, version)
        return tuple(sorted(found.values(), key=lambda version: (version.name, _order(version.version))))

    def get(self, name: str, version: str | None = None) -> ModelVersion:
        """One version; without `version` the highest that is no site's recalibration: that one is only used by name.

        Raises: NotFound; ModelFault where its manifest is broken.
        """
        if version is not None:
            return load_manifest(self._directory(name, version))
        known = [one for one in self.all() if one.name == name and "recalibration" not in one.manifest]
        if not known:
            raise NotFound("no model of that name on the shelf")
        return known[-1]

    def path(self, version: ModelVersion) -> Path:
        """The directory of a version."""
        return self._directory(version.name, version.version)

    def verify(self) -> dict[str, list[str]]:
        """`name@version` -> what is wrong with it, by file; an empty list is a sound version."""
        return {f"{directory.parent.name}@{directory.name}": problems(directory) for directory in self._directories()}

    def _directories(self) -> Iterator[Path]:
        for root in self._roots:
            for manifest in sorted(root.glob(f"*/*/{MANIFEST}")):
                yield manifest.parent

    def _directory(self, name: str, version: str) -> Path:
        if _WORD.fullmatch(name) and _WORD.fullmatch(version):
            for root in self._roots:
                if (root / name / version / MANIFEST).is_file():
                    return root / name / version
        raise NotFound("no such model version on the shelf")


def is_version(text: str) -> bool:
    """Whether a version may be called so: it is a directory's name."""
    return _WORD.fullmatch(text) is not None


def problems(directory: Path) -> list[str]:
    """What is wrong with one version's directory, one sentence per file."""
    try:
        version = load_manifest(directory)
    except ModelFault as error:
        return [error.what]
    found = []
    for name, digest in version.files.items():
        try:
            check_file(directory / name, digest)
        except ModelFault as error:
            found.append(error.what)
    return found


def check_file(path: Path, digest: str) -> None:
    """Raises: ModelFault where the file is missing, DigestMismatch where it is another one."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ModelFault(f"{path.name} is missing or cannot be read ({type(error).__name__})") from None
    if hashlib.sha256(body).hexdigest() != digest:
        raise DigestMismatch(f"{path.name} is not the file that the manifest names")


def load_manifest(directory: Path) -> ModelVersion:
    """The version that a directory holds. Raises: ContractMismatch where the manifest breaks its rules."""
    try:
        raw = (directory / MANIFEST).read_bytes()
    except OSError as error:
        raise ModelFault(f"{MANIFEST} is missing or cannot be read ({type(error).__name__})") from None
    manifest = read_manifest(raw)
    if (manifest["name"], manifest["version"]) != (directory.parent.name, directory.name):
        raise ContractMismatch(f"{MANIFEST} names another version than its directory")
    return ModelVersion(
        manifest["name"], manifest["version"], manifest, hashlib.sha256(raw).hexdigest(), manifest["files"]
    )


def read_manifest(raw: bytes) -> dict[str, Any]:
    """A manifest from its bytes, wherever they stand. Raises: ContractMismatch where it breaks its rules."""
    try:
        manifest = _binary(strict.loads(raw, what=MANIFEST))
    except BadInput as error:
        raise ContractMismatch(error.what) from None
    if not isinstance(manifest, dict):
        raise ContractMismatch(f"{MANIFEST} is not an object")
    for name, kind in _REQUIRED.items():
        if not isinstance(manifest.get(name), kind):
            raise ContractMismatch(f"{MANIFEST} lacks {name}, or it is of another type")
    if not _WORD.fullmatch(manifest["name"]) or not _WORD.fullmatch(manifest["version"]):
        raise ContractMismatch(f"{MANIFEST}: name and version are lower-case letters, digits, dots and hyphens")
    for file, digest in manifest["files"].items():
        if not _FILE.fullmatch(file) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ContractMismatch(f"{MANIFEST}: files must map plain names to SHA-256 in lower-case hex")
    return manifest


def _binary(value: Any) -> Any:
    """Decimals as binary64: a manifest's numbers are parameters, not measurements."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _binary(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_binary(member) for member in value]
    return value


def _order(version: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.-]", version))
