"""docs/hl7v2.md against the tests and the configuration that it speaks of."""

from __future__ import annotations

import ast
import re

from cds_server import feeds
from tests.peers import ROOT

MANUAL = (ROOT / "docs" / "hl7v2.md").read_text()
IDS = [f"{letter}{number}" for letter, count in (("F", 10), ("A", 8), ("C", 12)) for number in range(1, count + 1)]
TAGGED = re.compile(r"\(([FAC]\d+)\)")


def rows() -> dict[str, list[str]]:
    """Row -> tests, of the checklist."""
    table = MANUAL.split("## What a receiver owes")[1]
    found = re.findall(r"^\| ([FAC]\d+) \| [^|]+ \| ([^|]+) \|$", table, re.MULTILINE)
    return {row: re.findall(r"`(test_\w+)`", shown) for row, shown in found}


def shown() -> dict[str, str]:
    """Test -> its docstring, of every test."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = ast.get_docstring(node) or ""
    return found


def test_every_row_is_there_and_each_is_shown_by_tests_that_exist() -> None:
    listed, tests = rows(), shown()
    assert list(listed) == IDS
    assert {row for row, names in listed.items() if not names} == set()
    assert {name for names in listed.values() for name in names} <= set(tests)


def test_a_test_that_names_a_row_stands_in_it() -> None:
    listed = rows()
    tagged = {(row, name) for name, said in shown().items() for row in TAGGED.findall(said) if row in listed}
    assert len(tagged) > 50
    assert {(row, name) for row, name in tagged if name not in listed[row]} == set()


def test_every_key_of_a_feed_is_explained() -> None:
    explained = set(re.findall(r"`(?:\[source\.)?(\w+)\]?`", MANUAL.split("## What to expect")[0]))
    assert feeds._KEYS[feeds.MLLP] <= explained
