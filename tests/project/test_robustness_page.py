"""``docs/robustness.md`` says what the tests hold."""

from __future__ import annotations

from tools import robustness


def test_the_page_is_what_the_tests_hold() -> None:
    assert robustness.PAGE.read_text(encoding="utf-8") == robustness.page(), "python -m tools.robustness writes it"


def test_there_are_many_inputs() -> None:
    assert sum(len(rows) for _, rows in robustness.sections()) >= 120
