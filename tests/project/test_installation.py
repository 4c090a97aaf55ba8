"""What is installed, and run on the machine that tests this, is what its hashes say."""

from __future__ import annotations

import re

import pytest

from tests.support.runs import ROOT


def test_actions_are_pinned_by_their_commit() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.y*ml"):
        used = re.findall(r"^.*\buses:\s*(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert used, path
        for action in used:
            assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), f"{path.name}: {action}"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-uv.lock", "requirements-docs.lock"])
def test_every_package_has_a_version_and_hashes(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"\s*[\w.\[\],-]+==\S+.*--hash=sha256:[0-9a-f]{64}\b", line), line
    assert "://" not in text


def test_nothing_is_installed_without_them() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [line for line in recipe.splitlines() if re.search(r"\bpip install\b", line)]
    assert len(installs) == 4
    for line in installs:
        assert "--require-hashes -r requirements" in line or "--no-deps --no-build-isolation -e ." in line, line
