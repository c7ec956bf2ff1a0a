"""The house itself: its layers and doors, its top level, its sizes and names, and what its papers say about it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from models.plugins import discover
from tests.peers import ROOT

ROOMS = ("adapters", "cds_server", "models", "smart_app")
TOP_LEVEL = {
    *ROOMS,
    *("pyproject.toml", "tests", "fixtures", "Dockerfile", "README.md"),  # given
    *("Makefile", ".ci", "CHANGELOG.md", "docs", "benchmarks", "requirements"),  # what the tools need
    *(".gitignore", ".gitattributes", ".dockerignore", "LICENSE", "NOTICE"),
}
PLUGIN_PACKAGES = ("models.modalities", "cds_server.services", "adapters.sources", "adapters.readers", "adapters.sinks")
MAX_LINES = 500
SOURCE = {".py", ".toml", ".html", ".css", ".js", ".sql", ".sh"}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file under version control, relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [Path(name) for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*ROOMS, include_external_packages=True, cache_dir=None)


def text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


# ---- layers and doors ------------------------------------------------------------------------------------------------


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", command], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def test_the_contracts_are_kept() -> None:
    verdict = lint_imports(ROOT)
    assert verdict.returncode == 0, verdict.stdout


def test_each_contract_breaks_when_its_rule_is_broken(tmp_path: Path) -> None:
    """A house in which every rule is broken once: a contract that still holds there checks nothing."""
    wrong = {
        "adapters": "import authlib, pydicom, smart_app, fhir.resources, fhir_core, hl7apy, httpcore, httpx, joserfc, "
        "msgspec, onnx, pint, prometheus_client, reportlab, rfc8785, ucumvert, uvicorn",
        "cds_server": "import cryptography, onnxruntime",
        "cds_server.ledger": "import fastapi",
        "cds_server.services": "import cds_server.store",
        "cds_server.store": "",
        "models": "import socket, sqlmodel, models.training",
        "models.training": "",
        "smart_app": "",
    }
    for package, body in wrong.items():
        folder = tmp_path.joinpath(*package.split("."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(body)
    (tmp_path / "pyproject.toml").write_text(text(Path("pyproject.toml")))
    contracts = tomllib.loads(text(Path("pyproject.toml")))["tool"]["importlinter"]["contracts"]
    assert f"Contracts: 0 kept, {len(contracts)} broken." in lint_imports(tmp_path).stdout


def test_a_cds_service_sees_cards_and_models_only(imports: grimp.ImportGraph) -> None:
    """The contract `services-cannot-forget` says what it can't reach; this says the little that it may name."""
    hooks = r"cds_server\.hooks\.(cards|evidence|orders|published|reasons|service)"
    allowed = re.compile(rf"(cds_server\.services|{hooks}|models)(\.|$)")
    services = {module for module in imports.modules if module.startswith("cds_server.services.")}
    seen = {(module, other) for module in services for other in imports.find_modules_directly_imported_by(module)}
    assert {
        pair for pair in seen if pair[1].split(".")[0] not in sys.stdlib_module_names and not allowed.match(pair[1])
    } == set()


def test_only_two_files_import_by_name(tracked: list[Path]) -> None:
    """What is imported by a text, no contract sees: plug-ins, and the many models of fhir.resources (in its door)."""
    by_name = re.compile(r"\bimport_module\(|__import__\(")
    files = {
        str(path) for path in tracked if path.parts[0] in ROOMS and path.suffix == ".py" and by_name.search(text(path))
    }
    assert files <= {"models/plugins.py", "adapters/readers/validation.py"}


# ---- the tree --------------------------------------------------------------------------------------------------------


def test_the_top_level_is_the_given_one(tracked: list[Path]) -> None:
    assert {path.parts[0] for path in tracked} <= TOP_LEVEL


def test_no_file_is_too_long(tracked: list[Path]) -> None:
    lengths = {str(path): len(text(path).splitlines()) for path in tracked if path.suffix in SOURCE}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_has_a_name_that_says_nothing(tracked: list[Path]) -> None:
    empty_names = re.compile(r"(^|_)(utils?|helpers?|managers?|common|misc)(_|$)")
    assert [str(path) for path in tracked if path.suffix == ".py" and empty_names.search(path.stem)] == []


def test_no_file_names_a_package_index_or_a_place_on_somebodys_machine(tracked: list[Path]) -> None:
    elsewhere = re.compile(
        r"py[p]i\.org|python[h]osted\.org|registry\.npm[j]s|deb\.debian[.]org|[f]ile:///|/[w]ork/(?:main|shared)|/[r]oot/|/[h]ome/\w|/[o]pt/py[p]i"
    )
    assert [str(path) for path in tracked if elsewhere.search(text(path))] == []


def test_ci_runs_what_people_run() -> None:
    listed = subprocess.run(["git", "ls-files", "-s", ".ci/run"], cwd=ROOT, capture_output=True, check=True).stdout
    assert listed.startswith(b"100755 ")
    commands = [line for line in text(Path(".ci/run")).splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]


# ---- the image -------------------------------------------------------------------------------------------------------


def test_what_the_image_copies_is_there_and_let_through() -> None:
    let_through = {line[1:] for line in text(Path(".dockerignore")).splitlines() if line.startswith("!")}
    copies = [
        line.split()[1:-1] for line in text(Path("Dockerfile")).splitlines() if re.match(r"COPY (?!--from)", line)
    ]
    sources = {source.rstrip("/") for copy in copies for source in copy}
    assert sources == let_through
    assert sorted(source for source in sources if not (ROOT / source).exists()) == []


def test_the_image_runs_unprivileged_with_a_health_check_and_without_test_packages() -> None:
    final_stage = text(Path("Dockerfile")).rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER cds$", final_stage, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\n.*/healthz", final_stage, re.MULTILINE)
    assert not re.search(r"requirements/(test|training)", text(Path("Dockerfile")))


# ---- the papers ------------------------------------------------------------------------------------------------------


def plugin_names() -> list[str]:
    """Every name by which one new file makes itself known."""
    present = [name for name in PLUGIN_PACKAGES if (ROOT / name.replace(".", "/") / "__init__.py").is_file()]
    return [name for package in present for name in discover(importlib.import_module(package), "NAME")]


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="README.md is not written yet")
def test_the_readme_names_every_plugin() -> None:
    readme = text(Path("README.md"))
    assert [name for name in plugin_names() if f"`{name}`" not in readme] == []


def test_each_decision_has_the_four_headings_and_stands_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    pages = sorted(folder.glob("0*.md"))
    assert pages
    for page in pages:
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Check"], page.name
        assert f"]({page.name})" in index


def test_a_server_that_answers_hooks_loads_no_library_of_images() -> None:
    """Most of a second of imports once came with the first call, and took its whole deadline."""
    asked = (
        "import sys; from cds_server import app, reading; reading.readers_by_media_type(); "
        "print([name for name in ('pydicom', 'pynetdicom', 'highdicom', 'PIL') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
