"""De-identification against tools of others: what they take away that we keep is listed with the reason, or is a
failure; what was a valid object stays one."""

from __future__ import annotations

import json
import re
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from adapters.dicom.deidentify.copy import Policy, copy
from adapters.dicom.deidentify.profile import profile
from adapters.dicom.deidentify.project import Project
from adapters.dicom.deidentify.risks import RISKS
from tests.adapters.dicom_planted import planted, written
from tests.adapters.dicom_samples import package_files
from tests.dicom_made import ct_series, enhanced_ct, mammogram, part10
from tests.peers import require

Path_ = tuple[tuple[int, int], ...]
ALL = Policy(inspected=frozenset(RISKS))


@dataclass(frozen=True)
class Both:
    name: str
    before: Dataset
    theirs: Dataset
    ours: Dataset


def elements(data: Dataset, path: Path_ = ()) -> Iterator[tuple[Path_, str, object]]:
    """Each element at any depth: where it is (tags, and numbers of items), its VR, its value."""
    for tag in sorted(data.keys()):
        try:
            element = data[tag]
            VR, value = element.VR, element.value
        except Exception:  # noqa: BLE001, S112 (what pydicom cannot read, neither tool keeps)
            continue
        if VR == "SQ":
            for number, item in enumerate(value):
                yield from elements(item, (*path, (int(tag), number)))
        else:
            yield (*path, (int(tag), 0)), VR, str(value)


def read(raw: bytes | Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(BytesIO(raw) if isinstance(raw, bytes) else raw)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Objects with a person planted everywhere: made ones, and one of each class that the packages have."""
    folder = tmp_path_factory.mktemp("before")
    raws = {"made-ct": part10(next(iter(ct_series(slices=1)))), "made-mg": part10(mammogram())}
    raws["made-enhanced"] = part10(enhanced_ct())
    classes: set[str] = set()
    for path in package_files():
        try:
            found = str(read(path).SOPClassUID)
            if found not in classes and path.stat().st_size < 2_000_000:
                raws[f"their-{len(raws)}-{re.sub('[^A-Za-z0-9]', '', path.stem)}"] = written(planted(path))
                classes.add(found)
        except Exception:  # noqa: BLE001, S112 (not an object of its own, or one that pydicom cannot write)
            continue
    for name in ("made-ct", "made-mg", "made-enhanced"):
        raws[name] = written(planted(raws[name]))
    for name, raw in raws.items():
        (folder / f"{name}.dcm").write_bytes(raw)
    return {name: folder / f"{name}.dcm" for name in raws}


@pytest.fixture(scope="module")
def pairs(originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Both]:
    program = require("dicom-anonymizer")
    theirs, ours = tmp_path_factory.mktemp("theirs"), tmp_path_factory.mktemp("ours")
    before = next(iter(originals.values())).parent
    subprocess.run([str(program), str(before), str(theirs)], capture_output=True, timeout=300, check=False)
    made = []
    for number, (name, path) in enumerate(originals.items()):
        outcome = copy(number, lambda path=path: path.open("rb"), ours, profile("basic"), Project(b"k" * 32), ALL, {})
        if outcome.state == "written" and (theirs / path.name).exists():
            made.append(Both(name, read(path), read(theirs / path.name), read(ours / outcome.output)))
    return made


CONTENT, SOURCE_IMAGES = 0x0040A730, 0x00082112
KEPT = {
    "the structure, codes and numbers of a report": (
        CONTENT,
        "Content Sequence is D: they make every leaf of it a dummy, which leaves no report. Here it is Clean "
        "Structured Content, and said to be: text, names, dates and UIDs are replaced; codes and numbers are left",
    ),
    "of which class a source image is, and why it is one": (
        SOURCE_IMAGES,
        "X/Z/U*: they empty it, here its UIDs are mapped, so that references inside an export hold",
    ),
}
"""What dicom-anonymizer changes and we keep: below which sequence, and the reason."""
NO_TEXT = frozenset(
    {0x00080102, 0x0008010C, 0x00081150, 0x00081160, 0x0040A010, 0x0040A040, 0x0040A050, 0x0040A0B0, 0x0040A138}
    | {0x0040A30A, 0x0040DB73}
)
"""The only attributes that may be kept there: schemes, classes, kinds of items, numbers."""


def test_what_another_tool_takes_away_is_not_kept_here(pairs: list[Both]) -> None:
    assert len(pairs) >= 12
    kept: dict[str, set[str]] = {}
    for pair in pairs:
        theirs, ours = ({path: value for path, _, value in elements(each)} for each in (pair.theirs, pair.ours))
        for path, _, value in elements(pair.before):
            listed = path[-1][0] in NO_TEXT and any(path[0][0] == sequence for sequence, _ in KEPT.values())
            if value not in ("", "None", "[]") and not listed and theirs.get(path) != value and ours.get(path) == value:
                kept.setdefault(" ".join(f"{tag:08X}" for tag, _ in path), set()).add(pair.name)
    assert not kept, "\n".join(f"{key}: {value}" for key, value in kept.items())


def test_they_would_find_nothing_left_to_do_in_ours(pairs: list[Both]) -> None:
    """The other way round, for the record: we take away more than they do, never less."""
    ours, theirs = (
        sum(len(list(elements(each))) for each in every)
        for every in ((pair.ours for pair in pairs), (pair.theirs for pair in pairs))
    )
    assert ours < theirs


def test_our_table_is_the_standards_as_they_transcribe_it() -> None:
    """Of each single attribute; repeating groups are walked by their numbers (curves and overlays all go)."""
    python = require("dicom-anonymizer").parent / "python"
    script = (
        "import json; from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as d;"
        "print(json.dumps({k: v for k, v in vars(d).items() if k.endswith('_TAGS') and k != 'ALL_TAGS'}))"
    )
    told = subprocess.run([str(python), "-c", script], capture_output=True, timeout=60, check=True)
    theirs = {
        group << 16 | number: kind.removesuffix("_TAGS").replace("U_STAR", "U*").replace("_", "/")
        for kind, tags in json.loads(told.stdout).items()
        for group, number in (tag for tag in tags if len(tag) == 2)
    }
    assert len(theirs) == 652
    basic = profile("basic")
    assert {tag: basic.action(tag) for tag in theirs} == theirs


# ---- validity --------------------------------------------------------------------------------------------------------


def errors(path: Path, program: Path) -> set[str]:
    """What dciodvfy calls an error, without values and places."""
    told = subprocess.run([str(program), str(path)], capture_output=True, timeout=60, check=False)
    lines = (told.stdout + told.stderr).decode("latin-1").splitlines()
    return {re.sub(r"<[^>]*>|[\d.]{3,}|\b\d+\b ?", "", line) for line in lines if line.startswith("Error")}


@pytest.mark.parametrize("name", ["basic", "research"])
def test_what_was_a_valid_object_stays_one(name: str, tmp_path: Path) -> None:
    program = require("dicom3tools")
    new: dict[str, set[str]] = {}
    tried = 0
    for number, path in enumerate(package_files()):
        if path.stat().st_size > 1_000_000 or number % 3:
            continue
        outcome = copy(number, lambda path=path: path.open("rb"), tmp_path, profile(name), Project(b"k" * 32), ALL, {})
        if outcome.state != "written":
            continue
        tried += 1
        if more := errors(tmp_path / outcome.output, program) - errors(path, program):
            new[path.name] = more
    assert tried >= 25
    assert not new, "\n".join(f"{key}: {value}" for key, value in new.items())
