"""What tests of pages share: a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    with browser.opened(tmp_path_factory.mktemp("profile")) as found:
        yield found
