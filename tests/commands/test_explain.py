"""``ddtl explain`` from the command line: pictures, record, page, and names that try to be something else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddtl.commands import cli
from ddtl.config import checks
from ddtl.explain import sheets
from ddtl.models.backbones import BACKBONES
from ddtl.utils.errors import UserError
from tests.reports.test_run_page import HOSTILE
from tests.support.runs import run
from tests.support.tiny import STAGES, TINY


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of the tiny network, which stays in the place of the large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet18", TINY)
        patch.setitem(checks.STAGES, "resnet18", STAGES)
        yield run(tmp_path_factory.mktemp("explaining"), "model=resnet18", "trainer.max_epochs=2").folder


def explained(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "explain" / "explain.json").read_text(encoding="utf-8"))
    return found


def test_the_record_the_sheets_and_the_page(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", str(trained), "images=2", "randomised=2", "layer=layer2"]) == 0
    assert "hottest cell in a lesion" in capsys.readouterr().out
    record = explained(trained)
    results = json.loads((trained / "results.json").read_text())
    totals = {group["key"]: group["total"] for group in record["groups"]}  # type: ignore[attr-defined]
    c = results["test"]["confusion"]
    assert totals == {
        "true_positives": c["tp"], "false_positives": c["fp"], "false_negatives": c["fn"], "true_negatives": c["tn"],
    }  # fmt: skip
    for group in record["groups"]:  # type: ignore[attr-defined]
        assert len(group["images"]) == min(2, group["total"])
        assert (group["sheet"] is None) == (group["total"] == 0)
        for image in group["images"]:
            assert Image.open(trained / "explain" / image["picture"]).size == (2 * sheets.PAGE_SIDE, sheets.PAGE_SIDE)
        if group["sheet"]:
            assert Image.open(trained / "explain" / group["sheet"]).size[0] > 1000
    if c["tp"]:
        game = record["pointing_game"]
        assert game["images"] == c["tp"]  # type: ignore[index]
        assert len(record["randomised"]["networks"]) == 2  # type: ignore[index]
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/webp') == sum(len(g["images"]) for g in record["groups"])  # type: ignore[attr-defined]
    assert cli.main(["report", str(trained), "images=false"]) == 0
    assert '<img src="data:image/webp' not in (trained / "report.html").read_text(encoding="utf-8")


def test_the_same_again_gives_the_same_maps_in_the_place_of_the_earlier_ones(trained: Path) -> None:
    words = ["explain", str(trained), "images=1", "randomised=1"]
    assert cli.main(words) == 0
    first = explained(trained)
    (trained / "explain" / "left_over.png").touch()
    assert cli.main(words) == 0
    again = explained(trained)
    assert not (trained / "explain" / "left_over.png").exists()
    assert {**first, "when": 0} == {**again, "when": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images=0"], "images=0: must be at least 1."),
        (["layer=block9"], "layer=block9: the network has no such layer."),
        (["imagse=3"], "Did you mean images?"),
    ],
)
def test_a_mistake_is_named(trained: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError) as found:
        cli.main(["explain", str(trained), *words])
    assert message in str(found.value)


def test_without_captum_the_way_on_is_named(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"pip install 'ddtl\[explain\]'"):
        cli.main(["explain", str(trained)])


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_drawn_letter_by_letter(name: str) -> None:
    tile = sheets.Tile(np.zeros((32, 32), np.uint8), np.zeros((4, 4)), None, None, name, ["p = 0.5"])
    page = sheets.sheet(name, name, [tile] * 4)
    assert page.size[0] == 3 * (2 * sheets.SIDE + 16) + 16
    assert page.size[1] < 1500
    shown = sheets.printable(name)
    assert "\u202e" not in shown
    assert all(sheets.printable(c) in shown for c in name)


def test_right_to_left_letters_do_not_turn_a_name_around() -> None:
    assert sheets.printable("a\u05d0b\u202ec肺") == r"a\u05d0b\u202ec\u80ba"
