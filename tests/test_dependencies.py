"""What runs: every dependency has a reason and a user, the lock is what is installed, and the licences allow it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.peers import ROOT
from tests.test_house import ROOMS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LGPL_ALLOWED = {"psycopg", "psycopg-binary"}
"""The one exception: docs/decisions/0001-dependencies-and-lock.md."""
LOADED_BY_NAME = {
    "fhir.resources": "adapters.readers.validation imports its models one by one, as they are met",
    "httptools": "uvicorn takes it where it is installed",
    "pyjpegls": "pydicom takes it for JPEG-LS",
    "pylibjpeg-openjpeg": "pydicom takes it for JPEG 2000",
    "python-gdcm": "pydicom takes it for JPEG Lossless",
    "uvloop": "uvicorn takes it where it is installed",
    "psycopg": "SQLAlchemy takes it for postgresql+psycopg://",
}


def pinned(file: str) -> dict[str, Requirement]:
    """What a lock file pins on this machine, by normalised name."""
    lines = re.findall(r"^([A-Za-z0-9].*?) \\$", (ROOT / "requirements" / file).read_text(), re.MULTILINE)
    requirements = map(Requirement, lines)
    return {canonicalize_name(one.name): one for one in requirements if one.marker is None or one.marker.evaluate()}


def declared() -> dict[str, list[str]]:
    """Lock file -> requirements of `pyproject.toml` that it has to satisfy."""
    extras = PROJECT["optional-dependencies"]
    app = PROJECT["dependencies"]
    return {
        "app.txt": app,
        "anchor.txt": app + extras["anchor"],
        "radiomics.txt": app + extras["radiomics"],
        "training.txt": app + extras["training"],
        "test.txt": [*app, *extras["training"], *extras["anchor"], *extras["test"]],
    }


def licence(name: str) -> str:
    """What a distribution says: the SPDX expression, else the classifiers, else the first line of the old field."""
    about = metadata.metadata(name)
    if "License-Expression" in about:
        return about["License-Expression"]
    classifiers = [line for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    return "; ".join(classifiers) or (about.get_all("License") or [""])[0].strip().split("\n")[0]


def test_every_dependency_says_why_it_is_there() -> None:
    stated = re.findall(
        r'^    "([\w.-]+)(?:\[\w+\])?[<>=~][^"]*",(.*)$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert len(stated) == len(declared()["test.txt"]) + len(PROJECT["optional-dependencies"]["radiomics"])
    assert [name for name, rest in stated if not re.match(r"  # \w.{11,}", rest)] == []


def test_every_dependency_is_used() -> None:
    """Nothing is listed for later: a package comes with the issue that first imports it."""
    modules = grimp.build_graph(*ROOMS, include_external_packages=True, cache_dir=None).modules
    used = {canonicalize_name(name) for name in LOADED_BY_NAME}
    for module, distributions in metadata.packages_distributions().items():
        if any(imported.split(".")[0] == module for imported in modules):
            used.update(canonicalize_name(name) for name in distributions)
    runtime = {canonicalize_name(Requirement(line).name) for line in declared()["training.txt"]}
    assert runtime - used == set(), "imported nowhere: remove it from pyproject.toml and run `make lock`"


@pytest.mark.parametrize("file", ["anchor.txt", "app.txt", "radiomics.txt", "training.txt", "test.txt"])
def test_the_lock_satisfies_the_project(file: str) -> None:
    """Fails when somebody changed `pyproject.toml` and did not run `make lock`."""
    lock = pinned(file)
    for line in declared()[file]:
        wanted = Requirement(line)
        [exact] = lock[canonicalize_name(wanted.name)].specifier
        assert wanted.specifier.contains(exact.version), line


def test_the_locks_agree() -> None:
    versions = [{name: str(pin.specifier) for name, pin in pinned(file).items()} for file in declared()]
    app, anchor, radiomics, training, test = versions
    assert app.items() <= training.items() <= test.items()
    assert app.items() <= radiomics.items()
    assert app.items() <= anchor.items()


@pytest.mark.parametrize("file", ["anchor.txt", "app.txt", "build.txt", "radiomics.txt", "training.txt", "test.txt"])
def test_every_pin_is_exact_and_hashed(file: str) -> None:
    blocks = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements" / file).read_text())[1:]
    assert len(blocks) >= 2
    assert [
        block.split()[0] for block in blocks if not re.match(r"\S+==\S+ .*\\\n    --hash=sha256:[0-9a-f]{64}", block)
    ] == []


def test_what_is_installed_is_what_is_locked() -> None:
    different = {
        name: metadata.version(name)
        for name, pin in pinned("test.txt").items()
        if not pin.specifier.contains(metadata.version(name))
    }
    assert different == {}


def test_nothing_that_runs_is_gpl_and_lgpl_is_the_one_exception() -> None:
    licences = {name: licence(name) for name in pinned("app.txt")}
    assert [name for name, stated in licences.items() if not stated] == []
    copyleft = {name for name, stated in licences.items() if re.search(r"GPL|GNU .*General Public", stated)}
    assert copyleft == LGPL_ALLOWED
    assert [name for name in copyleft if not re.match(r"LGPL|.*Lesser General Public", licences[name])] == []
