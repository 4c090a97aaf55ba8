"""A section is one file: each is on the page of its package, has its own title, and an empty one is not shown."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

from ddtl.reports import audit, run, study, sweep
from ddtl.reports.html.page import Section, Text, make_sections


@pytest.mark.parametrize("package", [audit, run, study, sweep])
def test_every_section_is_on_the_page(package: ModuleType) -> None:
    names = [module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    found = [importlib.import_module(name) for name in names]
    listed = importlib.import_module(f"{package.__name__}.report").SECTIONS
    assert [module.__name__ for module in found if hasattr(module, "section") and module.section not in listed] == []
    assert len(set(listed)) == len(listed)


def test_a_section_without_blocks_is_not_shown() -> None:
    def words(fact: str) -> Section:
        return Section("Words", [Text(fact)])

    def nothing(fact: str) -> Section:
        return Section("Nothing", [])

    assert [section.title for section in make_sections([words, nothing], "x")] == ["Words"]
