"""A run as an object: what makes its scores doubtful is with them."""

from __future__ import annotations

from pathlib import Path

import ddtl
from tests.support import records


def test_what_makes_scores_doubtful_is_with_them(tmp_path: Path) -> None:
    sound = ddtl.load(records.write(tmp_path / "sound", warnings=[]))
    assert sound.scores().attrs["warnings"] == []
    assert "<p>!" not in sound._repr_html_()
    doubtful = ddtl.load(records.write(tmp_path / "leaky", warnings=["the split is <leaky>"]))
    assert doubtful.scores().attrs["warnings"] == ["the split is <leaky>"]
    assert "<p>! the split is &lt;leaky&gt;</p>" in doubtful._repr_html_()
