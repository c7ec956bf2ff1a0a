"""Requirements of SMART App Launch 2.2 on its clients, the tests that show them kept, and the table of docs/smart.md.

A test names requirements by `@pytest.mark.smart(*ids)`. Marks are read from the source, not from a run.
`python -m tests.smart_app.requirements` writes the table.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.peers import ROOT

PAGE = ROOT / "docs" / "smart.md"
START = "<!-- requirements -->\n"
_SOURCE = "https://hl7.org/fhir/smart-app-launch/STU2.2"


@dataclass(frozen=True, slots=True)
class Requirement:
    id: str
    page: str
    keyword: str
    text: str


@cache
def _file() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@cache
def requirements() -> Mapping[str, Requirement]:
    found = {}
    for page, rows in _file().items():
        for id_, row in rows.items():
            if page != "reasons":
                found[id_] = Requirement(id_, page, *row)
    return found


@cache
def reasons() -> Mapping[str, str]:
    """Why a requirement is not shown by a test."""
    return {id_: str(reason) for id_, reason in _file()["reasons"].items()}


@cache
def shown_by() -> Mapping[str, tuple[str, ...]]:
    """Requirement -> tests that show it, as `file::test`."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for id_, test in _marks(path):
            found.setdefault(id_, {})[test] = None
    return {id_: tuple(tests) for id_, tests in found.items()}


def _marks(path: Path) -> Iterator[tuple[str, str]]:
    source = path.read_text(encoding="utf-8")
    if "mark.smart" not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.smart":
                    for argument in mark.args:
                        yield str(ast.literal_eval(argument)), f"{path.relative_to(ROOT).as_posix()}::{node.name}"


def lost() -> list[str]:
    """Requirements with neither a test nor a reason."""
    return [id_ for id_ in requirements() if id_ not in shown_by() and id_ not in reasons()]


def table() -> str:
    lines = []
    page = None
    for each in requirements().values():
        if each.page != page:
            page = each.page
            lines += ["", f"### [{page}]({_SOURCE}/{page}.html)", "", "| no. | keyword | what is asked | shown by |"]
            lines += ["| --- | --- | --- | --- |"]
        lines.append(f"| {each.id} | {each.keyword} | {each.text} | {_by(each.id)} |")
    tested = sum(id_ in shown_by() for id_ in requirements())
    told = (
        f"{len(requirements())} requirements: {tested} are shown by tests, {len(requirements()) - tested} by a reason."
    )
    return "\n".join([told, *lines]) + "\n"


def _by(id_: str) -> str:
    if id_ not in shown_by():
        return f"not by a test: {reasons().get(id_, '**nothing**')}"
    files: dict[str, list[str]] = {}
    for test in shown_by()[id_]:
        file, _, name = test.partition("::")
        files.setdefault(Path(file).name, []).append(name)
    return "<br>".join(f"`{file}`: {', '.join(names)}" for file, names in files.items())


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.partition(START)[0] + START + "\n" + table(), encoding="utf-8")
