"""The software bill of materials of an artifact: CycloneDX 1.6, JSON, the same bytes each time.

No serial number and no timestamp: both are optional in CycloneDX, and both would make two equal builds differ. Versions
and hashes are those of the lock (`requirements/training.txt`); a library that is installed in another version than the
locked one stops the build, because then nobody could say what the artifact was made with.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from models.errors import Misconfigured

NAME = "sbom.cdx.json"
LOCK = Path(__file__).parent.parent.parent / "requirements" / "training.txt"
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)")
_ELSEWHERE = re.compile(r"\b(extra|sys_platform|platform_system|platform_machine)\b")


@dataclass(frozen=True, slots=True)
class Pin:
    """One locked library."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """SHA-256 of every distribution file that the lock allows (sdist and wheels)."""

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


@cache
def locked(lock: Path = LOCK) -> Mapping[str, Mapping[str, Pin]]:
    """The lock: normalised name -> version -> pin (a universal lock may hold two versions, one per Python).

    Raises: Misconfigured where it holds no pins.
    """
    pins: dict[str, dict[str, Pin]] = {}
    for block in re.split(r"\n(?=\S)", lock.read_text()):
        if pinned := _PIN.match(block):
            pin = Pin(_normal(pinned[1]), pinned[2], tuple(sorted(_HASH.findall(block))))
            pins.setdefault(pin.name, {})[pin.version] = pin
    if not pins:
        raise Misconfigured("the lock pins nothing", where=lock.name)
    return pins


def versions(libraries: Sequence[str]) -> dict[str, str]:
    """Installed versions, held against the lock. Raises: Misconfigured where they differ."""
    return {name: _installed(name).version for name in libraries}


def bill(manifest: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """The bill of one version: `files` are the digests of its graphs; data and libraries are in `manifest.training`."""
    training = manifest["training"]
    closure = _closure(tuple(training["libraries"]))
    model = f"{manifest['name']}@{manifest['version']}"
    components = [
        *(
            {
                "type": "library",
                "bom-ref": pin.purl,
                "name": pin.name,
                "version": pin.version,
                "purl": pin.purl,
                "hashes": [{"alg": "SHA-256", "content": content} for content in pin.hashes],
            }
            for pin in closure
        ),
        *(_file("data", name, content) for name, content in sorted(training["data"].items())),
        *(_file("file", f"models/training/{name}", content) for name, content in sorted(training["sources"].items())),
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": model,
                "name": manifest["name"],
                "version": manifest["version"],
                "description": manifest["title"],
                "components": [_file("file", name, content) for name, content in sorted(files.items())],
            },
            "properties": [
                {"name": "cds:python", "value": platform.python_version().rpartition(".")[0]},
                {"name": "cds:lock", "value": f"requirements/{LOCK.name}"},
            ],
        },
        "components": components,
        "dependencies": [{"ref": model, "dependsOn": [str(component["bom-ref"]) for component in components]}],
    }
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _file(kind: str, name: str, content: str) -> dict[str, Any]:
    return {
        "type": kind,
        "bom-ref": f"{kind}:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": content}],
    }


@cache
def _closure(libraries: tuple[str, ...]) -> tuple[Pin, ...]:
    """The libraries and what they need to be installed, as the lock has them; extras and other platforms are out."""
    found: dict[str, Pin] = {}
    waiting = list(libraries)
    while waiting:
        name = _normal(waiting.pop())
        if name in found or name not in locked():
            continue
        found[name] = _installed(name)
        for requirement in metadata.requires(name) or ():
            plain, _, marker = requirement.partition(";")
            if not _ELSEWHERE.search(marker) and (match := _REQUIREMENT.match(plain)):
                waiting.append(match[1])
    return tuple(found[name] for name in sorted(found))


def _installed(name: str) -> Pin:
    pins = locked().get(_normal(name))
    if pins is None:
        raise Misconfigured(f"{name} is not in the lock of the training", where=f"requirements/{LOCK.name}")
    installed = metadata.version(name)
    if installed not in pins:
        raise Misconfigured(f"{name} is installed in another version than the locked one", where=LOCK.name)
    return pins[installed]


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
