"""No requirement of the standard on its clients is lost, and the operators' page says what the tests say."""

from __future__ import annotations

from tests.smart_app.requirements import PAGE, START, lost, reasons, requirements, shown_by, table


def test_every_requirement_is_shown_or_excused() -> None:
    assert lost() == []


def test_marks_and_reasons_name_requirements_that_exist() -> None:
    assert [id_ for id_ in (*shown_by(), *reasons()) if id_ not in requirements()] == []


def test_a_reason_stands_only_where_no_test_does() -> None:
    assert [id_ for id_ in reasons() if id_ in shown_by()] == []


def test_the_page_is_that_of_these_tests() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(START)[2]
    assert text.lstrip("\n") == table(), "run `python -m tests.smart_app.requirements`"
