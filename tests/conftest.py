"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest


def _without_data(reason: str) -> NoReturn:
    """Skips a test that needs the real images; a failure where they are required."""
    if os.environ.get("DDTL_REQUIRE_DATA") == "1":
        pytest.fail(f"DDTL_REQUIRE_DATA=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture
def real_data() -> Path:
    """The folder that holds the public datasets: ``covid19ct/`` and ``sarscov2ct/``."""
    folder = os.environ.get("DDTL_DATA")
    if not folder:
        _without_data("the environment variable DDTL_DATA does not say where the real images are")
    for name in ("covid19ct", "sarscov2ct"):
        if not (Path(folder) / name).is_dir():
            _without_data(f"DDTL_DATA={folder} holds no folder {name}/")
    return Path(folder)


@pytest.fixture
def original_index(real_data: Path) -> Path:
    """The folder with the tables of the original files, from which the shipped index is made."""
    folder = real_data / "index"
    if not folder.is_dir():
        _without_data(f"{real_data} holds no folder index/")
    return folder
