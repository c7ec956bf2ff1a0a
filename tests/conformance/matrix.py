"""Statements of CDS Hooks 2.0 and of its hook library, the tests that show them kept, and the page made of both.

A test names statements by `@pytest.mark.requirement(set, *ids)`. Marks are read from the source, not from a run: a test
that is skipped, or not selected, does not lose its statement.
"""

from __future__ import annotations

import ast
import csv
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.peers import ROOT, require

PAGE = ROOT / "docs" / "conformance.md"
REASONS = Path(__file__).with_name("reasons.toml")
OURS = frozenset({"Service", "Server"})
SETS = {"cds-hooks_2.0": "CDS Hooks 2.0", "cds-hooks-library_1.0.1": "CDS Hooks library 1.0.1"}

Key = tuple[str, str]
"""(set, id)."""


@dataclass(frozen=True, slots=True)
class Statement:
    key: Key
    url: str
    text: str
    keyword: str
    actors: frozenset[str]

    @property
    def ours(self) -> bool:
        """Whether the service has to keep it, alone or with the client."""
        return bool(self.actors & OURS)


@dataclass(frozen=True, slots=True)
class Mark:
    key: Key
    test: str
    """`tests/.../test_x.py::test_y`."""


@cache
def statements() -> Mapping[Key, Statement]:
    """Every statement of the two sets, in their order."""
    found: dict[Key, Statement] = {}
    with (require("data") / "cds-hooks" / "requirements.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            key = (row["Req Set"], row["ID"])
            actors = frozenset(actor.strip() for actor in row["Actors"].split(","))
            found[key] = Statement(key, row["URL"], " ".join(row["Requirement"].split()), row["Conformance"], actors)
    return found


@cache
def reasons() -> Mapping[Key, str]:
    """Why a statement cannot be shown by a test of ours."""
    table = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    return {(name, id_): reason for name, ids in table.items() for id_, reason in ids.items()}


@cache
def marks() -> tuple[Mark, ...]:
    """Every mark of every test, in the order of the files."""
    found = (mark for path in sorted((ROOT / "tests").rglob("test_*.py")) for mark in marks_of(path))
    return tuple(dict.fromkeys(found))


def marks_of(path: Path) -> Iterator[Mark]:
    """Errors: ValueError where a mark is not spelt by texts, or by names of texts in the same file."""
    where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    of_all = [
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark"
    ]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            for call in (call for each in (*of_all, *node.decorator_list) for call in ast.walk(each)):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.requirement":
                    name, *ids = (_text(argument, named) for argument in call.args)
                    yield from (Mark((name, id_), f"{where}::{node.name}") for id_ in ids)


def _text(argument: ast.expr, named: Mapping[str, object]) -> str:
    value = named.get(argument.id) if isinstance(argument, ast.Name) else ast.literal_eval(argument)
    if not isinstance(value, str):
        raise ValueError(f"a requirement mark holds {ast.unparse(argument)}, which is no text")
    return value


def shown_by() -> Mapping[Key, tuple[str, ...]]:
    found: dict[Key, dict[str, None]] = {}
    for mark in marks():
        found.setdefault(mark.key, {})[mark.test] = None
    return {key: tuple(tests) for key, tests in found.items()}


def lost() -> list[Key]:
    """Statements that the service has to keep, with neither a test nor a reason."""
    shown, excused = shown_by(), reasons()
    return [key for key, each in statements().items() if each.ours and key not in shown and key not in excused]


# ---- the page --------------------------------------------------------------------------------------------------------


def page() -> str:
    """docs/conformance.md."""
    shown, excused = shown_by(), reasons()
    blocks = [_HEAD]
    for name, title in SETS.items():
        of_set = [each for each in statements().values() if each.key[0] == name]
        ours = [each for each in of_set if each.ours]
        tested = sum(each.key in shown for each in ours)
        also = [each for each in of_set if not each.ours and each.key in shown]
        blocks.append(
            f"## {title} (`{name}`)\n\n{len(ours)} of its {len(of_set)} statements have the service, alone or with the "
            f"client, as their actor: {tested} are shown by tests, {len(ours) - tested} by a reason."
        )
        blocks.append(_table(ours, shown, excused))
        if also:
            blocks.append(
                "Statements about the client that tests of ours rest on, because a service must check or bear them:"
            )
            blocks.append(_table(also, shown, excused))
    return "\n\n".join(blocks) + "\n"


_HEAD = """# Conformance to CDS Hooks

Made by `python -m tests.conformance` from the marks of the tests; a test fails when a statement is lost or this page is
stale. The statements are those of HL7's CDS Hooks specification and of its hook library, as the Inferno test kits
number them, abridged here; each number leads to its page. `cds conformance URL` looks at any server from outside."""


def _table(rows: list[Statement], shown: Mapping[Key, tuple[str, ...]], excused: Mapping[Key, str]) -> str:
    lines = ["| no. | keyword | statement | shown by |", "| --- | --- | --- | --- |"]
    lines += [
        f"| [{each.key[1]}]({each.url}) | {each.keyword} | {_plain(each.text)} | {_by(each.key, shown, excused)} |"
        for each in rows
    ]
    return "\n".join(lines)


def _by(key: Key, shown: Mapping[Key, tuple[str, ...]], excused: Mapping[Key, str]) -> str:
    if key in shown:
        files: dict[str, list[str]] = {}
        for test in shown[key]:
            file, _, name = test.partition("::")
            files.setdefault(file, []).append(name)
        return "<br>".join(f"`{file}`: {', '.join(names)}" for file, names in files.items())
    return f"cannot be shown: {excused[key]}" if key in excused else "**nothing**"


LENGTH = 160


def _plain(text: str) -> str:
    """The statement without its Markdown, cut at a word."""
    for mark, plain in (("`", ""), ("*", ""), ("[", ""), ("]", " "), ("|", "/"), ("<", "less than "), ("\\", "")):
        text = text.replace(mark, plain)
    words = " ".join(word for word in text.split() if not word.startswith("(http"))
    words = re.sub(r" ([:,.;)])", r"\1", words)
    return words if len(words) <= LENGTH else f"{words[:LENGTH].rpartition(' ')[0]} …"
