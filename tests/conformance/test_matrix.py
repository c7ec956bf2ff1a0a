"""No numbered statement of the standard is lost, and the page says what the tests say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import matrix
from tests.conformance.matrix import PAGE, Mark, lost, marks, marks_of, page, reasons, shown_by, statements


def test_the_sets_are_whole() -> None:
    assert len(statements()) == 313
    assert sum(each.ours for each in statements().values()) == 143
    assert {key[0] for key in statements()} == set(matrix.SETS)


def test_every_statement_of_the_service_is_shown_or_excused() -> None:
    assert lost() == []


def test_marks_and_reasons_name_statements_that_exist() -> None:
    assert [mark for mark in marks() if mark.key not in statements()] == []
    assert [key for key in reasons() if key not in statements()] == []


def test_a_reason_stands_only_where_no_test_does() -> None:
    """Or one of the two is wrong."""
    assert [key for key in reasons() if key in shown_by()] == []


def test_the_page_is_that_of_these_tests() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.conformance`"


def test_marks_are_read_where_they_stand(tmp_path: Path) -> None:
    source = tmp_path / "test_x.py"
    source.write_text(
        'import pytest\n\n@pytest.mark.requirement("s", "1", "2")\ndef test_one(): ...\n\n'
        'class TestIt:\n    @pytest.mark.requirement("s", "3")\n    async def test_two(self): ...\n\n'
        'def test_three(): ...\n\n@pytest.mark.requirement("s", "4")\ndef not_a_test(): ...\n'
    )
    found = [
        Mark(("s", "1"), "test_x.py::test_one"),
        Mark(("s", "2"), "test_x.py::test_one"),
        Mark(("s", "3"), "test_x.py::test_two"),
    ]
    assert list(marks_of(source)) == found


def test_a_lost_statement_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = [key for key, each in statements().items() if each.ours and key in shown_by()]
    missing = lost()
    monkeypatch.setattr(matrix, "marks", lambda: tuple(mark for mark in marks() if mark.key != first))
    assert lost() == sorted([*missing, first], key=list(statements()).index)
