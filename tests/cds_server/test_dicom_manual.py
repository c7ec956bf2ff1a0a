"""docs/dicom-pulls.md says what is: each key, each switch, the states, and tests that are there."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

import pytest

from adapters.dicom.peers import Quirks
from adapters.dicom.states import PULL
from cds_server.dicom_archives import KEYS
from cds_server.dicom_sources import _CLOCK_KEYS, _KEYS
from tests.peers import ROOT

PAGE = (ROOT / "docs" / "dicom-pulls.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| (D\d+) \| .* \| (.*) \|$", PAGE, re.MULTILINE))


def table(name: str) -> set[str]:
    """What the first column of a table names."""
    _, _, rest = PAGE.partition(f"<!-- {name}: begin -->")
    rows = rest.partition(f"<!-- {name}: end -->")[0].splitlines()
    return {key for row in rows for key in re.findall(r"`([a-z_]+)`", row.split("|")[1] if "|" in row else "")}


def test_every_key_and_no_other_is_told() -> None:
    assert table("keys of dicom") == _KEYS | _CLOCK_KEYS | KEYS


def test_every_switch_and_no_other_is_told() -> None:
    assert table("quirks") == {each.name for each in fields(Quirks)} - {"sources"}


def test_the_diagram_is_the_table_of_states() -> None:
    assert f"```mermaid\n{PULL.diagram()}\n```\n" in PAGE


def test_every_row_of_the_checklist_is_there() -> None:
    assert list(ROWS) == [f"D{number}" for number in range(1, 19)]


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_that_a_row_names_are_there(row: str) -> None:
    named = [
        (file, test)
        for file, tests in re.findall(r"`tests/([a-z_]+/test_[a-z0-9_]+\.py)`: ((?:`test_\w+`(?:, )?)+)", ROWS[row])
        for test in re.findall(r"`(test_\w+)`", tests)
    ]
    assert named
    assert ROWS[row].count("`") == 2 * len(named) + 2 * len({file for file, _ in named})
    for file, test in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert test in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}, (file, test)
