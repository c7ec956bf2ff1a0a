"""The manual says what the program does: each page is told again, and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.pages import MANUAL, pages


@pytest.mark.parametrize("name", pages())
def test_the_page_is_the_one_in_the_tree(name: str, tmp_path: Path) -> None:
    told = pages()[name](tmp_path)
    assert told == (MANUAL / f"{name}.md").read_text(encoding="utf-8"), "run: python -m tests.spec"


def test_every_page_has_its_story() -> None:
    assert {path.stem for path in MANUAL.glob("*.md")} == set(pages())
