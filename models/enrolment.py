"""Takes a third party's model from a folder: everything that can be checked before it stands on the shelf is checked.

A folder holds `manifest.json`, `MODEL_CARD.md`, and the files that the manifest names. Its modality is one of this
program's, or `declared`, whose features the manifest states itself. What the vendor sent stays as it was
(`manifest.submitted.json`); the enrolled manifest adds this program's encoder digest, and, for a model of one modality
without a head, the head that changes nothing. An enrolled model stands beside the fused risk; it joins that only
in a new version of its head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np

import models.modalities
from models.errors import Conflict, ContractMismatch, DigestMismatch, ModelFault, TooLarge
from models.explain import Explainer
from models.modalities import Modality, declared
from models.nouns import JSON, ModelVersion, Snapshot
from models.plugins import discover
from models.runtime import Session
from models.scoring import Scorer
from models.shelf import MANIFEST, SHIPPED, Shelf, read_manifest
from models.table import run_table

CARD = "MODEL_CARD.md"
SUBMITTED = "manifest.submitted.json"
LARGEST = 512 * 2**20
"""Bytes of one file."""
_OUTSIDE = b"\x0a\x08location"
"""A tensor whose data stand in another file (ONNX `external_data`, key `location`): such a file can name any path."""
_LARGEST_NUMBER = 1e15
_EPOCH = "1970-01-01T00:00:00.000000Z"
_SHAPELESS = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
"""What a member of another shape than ours breaks with, wherever it is first used."""
_IDENTITY = ("predict-breast", "3.2.0", "head.onnx")
"""The shipped head of one modality: weight 1, no interval."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a folder holds, read once; nothing is read again after it was checked."""

    manifest: JSON
    """As it will be enrolled; without the digests of the files."""
    files: Mapping[str, bytes]
    submitted: str
    """SHA-256 of the manifest as the vendor wrote it."""

    @property
    def id(self) -> str:
        return f"{self.manifest['name']}@{self.manifest['version']}"


def read(folder: Path) -> Submission:
    """The model that a folder holds.

    Raises: ContractMismatch, DigestMismatch, ModelFault, TooLarge, naming the file; Conflict where the model's name is
    one that this program ships.
    """
    raw = _bytes(folder, MANIFEST)
    manifest = read_manifest(raw)
    try:
        return _submission(folder, raw, manifest)
    except _SHAPELESS as error:
        raise ContractMismatch(f"has not the shape of a manifest ({type(error).__name__})", where=MANIFEST) from None


def _submission(folder: Path, raw: bytes, manifest: JSON) -> Submission:
    if (SHIPPED / manifest["name"]).exists():
        raise Conflict("a model of this name is shipped with the program; enrol it under its own name", where=MANIFEST)
    files = {name: _verified(folder, name, digest) for name, digest in manifest["files"].items()}
    if CARD not in files:
        raise ContractMismatch(f"the manifest names no {CARD}: a model without a card is not enrolled", where=MANIFEST)
    if {MANIFEST, SUBMITTED} & set(files):
        raise ContractMismatch("the manifest names itself among its files", where=MANIFEST)
    _rules_and_parameters(manifest)
    parts = [_part(part, files) for part in manifest["modalities"]]
    if not parts:
        raise ContractMismatch("the manifest names no modality", where=MANIFEST)
    whole = {**manifest, "modalities": parts, "enrolled": {"manifest": sha256(raw).hexdigest()}}
    files[SUBMITTED] = raw
    if not manifest["head"] and any("z" in part["outputs"] for part in parts):
        _with_identity(whole, files)
    if "table" not in whole and len(parts) == 1 and "z" in parts[0]["outputs"]:
        whole["table"] = {"modality": parts[0]["name"], "defaults": {}, "outputs": [["z", "z"]]}
    return Submission(whole, files, sha256(raw).hexdigest())


def check(submission: Submission, directory: Path, manifest_digest: str) -> ModelVersion:
    """Load the version as it was staged in `directory`: encoders, digests, shapes of graphs and head, a trial run.

    Raises: ModelFault and its kinds, as `Scorer` and `Explainer` do.
    """
    digests = {name: sha256(body).hexdigest() for name, body in submission.files.items()}
    manifest = {**submission.manifest, "files": digests}
    model = ModelVersion(manifest["name"], manifest["version"], manifest, manifest_digest, digests)
    try:
        Explainer(model, directory)
        scorer = Scorer(model, directory)
        for part in manifest["modalities"]:
            _try(part, manifest, digests, directory)
        scorer.score(Snapshot("nobody", ("nobody",), _EPOCH, _EPOCH, model.id, ()))
        if "table" in manifest:
            _run(model, directory)
    except _SHAPELESS as error:
        raise ContractMismatch(f"has not the shape of a manifest ({type(error).__name__})", where=MANIFEST) from None
    return model


def free(submission: Submission, shelf: Shelf) -> None:
    """Raises: Conflict where that version is on the shelf already."""
    if submission.id in {model.id for model in shelf.all()} or submission.id in shelf.verify():
        raise Conflict("this version exists already, and a version is never changed", where=MANIFEST)


def _bytes(folder: Path, name: str) -> bytes:
    """A regular file right inside the folder: links could lead anywhere."""
    path = folder / name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ContractMismatch("is not a plain file", where=name)
    try:
        if path.stat().st_size > LARGEST:
            raise TooLarge(f"is larger than {LARGEST // 2**20} MB", where=name)
        return path.read_bytes()
    except OSError as error:
        raise ModelFault(f"is missing or cannot be read ({type(error).__name__})", where=name) from None


def _verified(folder: Path, name: str, digest: str) -> bytes:
    body = _bytes(folder, name)
    if sha256(body).hexdigest() != digest:
        raise DigestMismatch("is not the file that the manifest names", where=name)
    if name.endswith(".onnx") and _OUTSIDE in body:
        raise ContractMismatch("keeps data in another file, which is not taken", where=name)
    return body


def _part(part: Any, files: Mapping[str, bytes]) -> dict[str, Any]:
    """One modality, with this program's encoder; a stated encoder must be this one."""
    known = cast("dict[str, Modality]", discover(models.modalities, "NAME"))
    if not isinstance(part, dict) or part.get("encoded_by", part.get("name")) not in known:
        raise ContractMismatch("names a modality that this program does not have", where=MANIFEST)
    lacking = [
        member for member in ("name", "file", "columns", "inputs", "outputs", "features") if not part.get(member)
    ]
    if lacking:
        raise ContractMismatch(f"a modality lacks {', '.join(lacking)}", where=MANIFEST)
    if part["name"] in known and part["name"] != part.get("encoded_by", part["name"]):
        raise ContractMismatch(f"{part['name']} is the name of another modality here", where=MANIFEST)
    if part["file"] not in files:
        raise ContractMismatch(f"modality {part['name']} has a graph that is not among the files", where=MANIFEST)
    encoded_by = str(part.get("encoded_by", part["name"]))
    encoder = known[encoded_by].ENCODER
    if part.get("encoder", encoder) != encoder:
        raise ContractMismatch(f"the encoder of modality {part['name']} is not the one here", where=MANIFEST)
    if encoded_by == declared.NAME:
        stated = {definition.name for definition in declared.definitions(part)} | set(declared.OF_PERSON)
        if unread := [column for column in part["columns"] if column not in stated]:
            raise ContractMismatch(f"no feature is stated for column {unread[0]}", where=MANIFEST)
    return {**part, "encoder": encoder, "curves": part.get("curves", {})}


def _with_identity(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
    name, version, file = _IDENTITY
    if len(manifest["modalities"]) != 1 or file in files:
        raise ContractMismatch("a model of several modalities brings its own head", where=MANIFEST)
    house = Shelf().get(name, version)
    only = manifest["modalities"][0]["name"]
    files[file] = _verified(SHIPPED / name / version, file, house.files[file])
    manifest["head"] = {**house.manifest["head"], "modalities": [only], "patterns": [[only]]}


def _try(part: JSON, manifest: JSON, digests: Mapping[str, str], directory: Path) -> None:
    """The graph gives numbers on one row in the middle of its own ranges."""
    session = Session(directory / part["file"], digests[part["file"]], inputs=part["inputs"], outputs=part["outputs"])
    row = [_middle(rule) for rule in _rules_of(part, manifest)]
    results = session.run({"x": np.array([row])})
    if not all(math.isfinite(value) for result in results for value in np.ravel(result).tolist()):
        raise ContractMismatch(f"{part['file']} gives no number in the middle of its own ranges", where=MANIFEST)


def _rules_of(part: JSON, manifest: JSON) -> list[JSON]:
    """The rule of each column."""
    rules = {rule["name"]: rule for rule in part.get("rules", manifest["rules"])}
    if lacking := [column for column in part["columns"] if column not in rules]:
        raise ContractMismatch(f"rules have none for column {lacking[0]}", where=MANIFEST)
    return [rules[column] for column in part["columns"]]


def _middle(rule: JSON) -> float:
    return float(rule["allowed"][0]) if "allowed" in rule else sum(map(float, rule["range"])) / 2


def _run(model: ModelVersion, directory: Path) -> None:
    """One row of `cds models run`."""
    table, names = model.manifest["table"], [part["name"] for part in model.manifest["modalities"]]
    if "fused" not in table and table.get("modality") not in names:
        raise ContractMismatch("table names a modality that the manifest does not have", where=MANIFEST)
    rows = [rule for part in model.manifest["modalities"] for rule in _rules_of(part, model.manifest)]
    for result in run_table(model, directory, [{rule["name"]: repr(_middle(rule)) for rule in rows}]):
        if not result:
            raise ContractMismatch("table has no outputs", where=MANIFEST)


def _rules_and_parameters(manifest: JSON) -> None:
    for rule in (*manifest["rules"], *(rule for part in manifest["modalities"] for rule in part.get("rules", ()))):
        _rule(rule)
    for part in manifest["modalities"]:
        for rule in part.get("guard", ()):
            _rule(rule)
            if rule["name"] not in part["columns"] or not isinstance(rule.get("title"), str) or "allowed" in rule:
                raise ContractMismatch("guard is not column, range and title", where=MANIFEST)
    for name, (value, label) in manifest["parameters"].items():
        if not _is_number(value) or not isinstance(label, str):
            raise ContractMismatch(f"parameter {name} is not a number and a label", where=MANIFEST)


def _rule(rule: Any) -> None:
    """`allowed`, or a `range` of two numbers: what `models.inputs.checked` reads."""
    allowed, span = rule.get("allowed"), rule.get("range")
    numbers = allowed if allowed is not None else span
    sound = isinstance(numbers, list) and numbers and all(map(_is_number, numbers))
    if not isinstance(rule["name"], str) or not sound or (allowed is None and (len(span) != 2 or span[0] > span[1])):
        raise ContractMismatch("a rule is not a name with `allowed` or a `range` of two numbers", where=MANIFEST)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER
