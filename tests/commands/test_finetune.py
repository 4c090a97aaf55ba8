"""``ddtl finetune show``, the picture of a schedule, and the page and the methods text that hold it."""

from __future__ import annotations

import io
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ddtl.commands import cli, finetune
from ddtl.config import compose, where
from ddtl.finetuning.schedule import Schedule, compile_schedule
from ddtl.reports.html.page import Drawing, Fold, Table
from ddtl.reports.run import methods, report, schedule as schedule_of_a_run, schedule_svg, stored
from ddtl.schema.backbones import stages_of
from ddtl.schema.run import FinetuneConfig
from ddtl.utils import console
from ddtl.utils.errors import UserError
from tests.support import records

STAGES = stages_of("densenet121")
DOCS = Path(__file__).resolve().parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed."""
    text = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=text, width=200, highlight=False))
    return text


def rows(text: str) -> list[list[str]]:
    """The cells of a printed table's body, those of two lines joined."""
    found: list[list[str]] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if line.startswith("│") and cells[0]:
            found.append(cells)
        elif line.startswith("│"):
            found[-1] = [", ".join(filter(None, pair)) for pair in zip(found[-1], cells, strict=True)]
    return found


def config(*phases: dict[str, Any], **changes: Any) -> FinetuneConfig:
    usual = {
        "name": "mine", "backbone_lr_ratio": 1.0, "head_lr_ratio": 1.0, "decay": 1.0, "batchnorm": "train",
        "rewarm": 0.0, "cached_views": 0, "cache_gb": 4.0,
    }  # fmt: skip
    return FinetuneConfig.model_validate({**usual, "phases": list(phases), **changes})


def gradual(epochs: int = 20, **changes: Any) -> Schedule:
    return compile_schedule(config(**changes), STAGES, epochs)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_phase_and_a_column_for_each_stage(shown: io.StringIO) -> None:
    assert cli.main(["finetune", "show", "finetune=gradual", "trainer.max_epochs=20"]) == 0
    text = shown.getvalue()
    assert text.startswith("gradual · densenet121 · 20 epochs")
    assert [word for word in re.split(r"[┃\s]+", text.splitlines()[2]) if word] == ["phase", "epochs", *STAGES]
    body = rows(text)
    assert body[0] == ["head", "1–2", *["frozen"] * 6, "×1"]
    assert body[1] == ["norm", "3–5", *["frozen"] * 5, "×1, BN train", "×1"]
    assert body[-1] == ["stem", "18–20", *["×1, BN train"] * 6, "×1"]
    assert len(body) == 7
    assert "multiple of optimizer.lr" in text


def test_rates_and_batchnorm_are_told(shown: io.StringIO) -> None:
    settings = ["finetune=layer_decay", "finetune.batchnorm=frozen_stats", "finetune.decay=0.5"]
    finetune.main(["show", "model=resnet18", *settings])
    (row,) = rows(shown.getvalue())
    assert row[2:] == [*(f"×{0.5**depth:.3g}, BN fixed" for depth in (5, 4, 3, 2, 1)), "×1"]


def test_a_network_without_batchnorm_is_told_nothing_of_it(shown: io.StringIO) -> None:
    finetune.main(["show", "model=squeezenet1_1", "finetune=lp_ft", "dataset=covid19ct", "finetune.rewarm=0.5"])
    text = shown.getvalue()
    assert "BN" not in text
    assert "its rate rises linearly, for 0.5 of an epoch's length" in text


def test_the_image_is_written(shown: io.StringIO, tmp_path: Path) -> None:
    file = tmp_path / "a b.svg"
    finetune.main(["show", "finetune=gradual", f"svg={file}"])
    assert ET.parse(file).getroot().tag == f"{SVG}svg"
    with pytest.raises(UserError, match="there is no folder"):
        finetune.main(["show", f"svg={tmp_path}/nowhere/a.svg"])
    with pytest.raises(UserError, match="svg="):
        finetune.main(["show", "svg="])


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "is a folder. Name a file in it"), ("a.png", "the image is an SVG. Name it so"), ("/proc/x.svg", "/proc")],
)
def test_an_image_that_cannot_be_written_is_refused_before_the_table(
    shown: io.StringIO, tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(UserError) as error:
        finetune.main(["show", f"svg={tmp_path / name}"])
    assert says in str(error.value)
    assert (shown.getvalue(), list(tmp_path.iterdir())) == ("", [])


def test_a_mistake_is_answered_as_in_a_run(shown: io.StringIO) -> None:
    with pytest.raises(UserError, match=r"Set trainer\.max_epochs=7 or more"):
        finetune.main(["show", "finetune=gradual", "trainer.max_epochs=3"])
    with pytest.raises(UserError, match=r"Did you mean show\?"):
        finetune.main(["shwo"])
    assert shown.getvalue() == ""


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune.main(["--help"]) == finetune.main(["show", "--help"]) == 0
    text = capsys.readouterr().out
    for name in where.options("finetune"):
        assert name in text


# --- the picture ------------------------------------------------------------------------------------------------------


def texts(svg: str) -> list[str]:
    return [found.text or "" for found in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_rectangle_for_each_stage_and_phase_as_wide_as_its_epochs() -> None:
    schedule = gradual()
    rectangles = list(ET.fromstring(schedule_svg.svg(schedule, True)).iter(f"{SVG}rect"))
    assert len(rectangles) == len(STAGES) * len(schedule.phases)
    widths = [float(found.get("width", 0)) + 2 for found in rectangles]
    for i, phase in enumerate(schedule.phases):
        for width in widths[i * len(STAGES) : (i + 1) * len(STAGES)]:
            assert width == pytest.approx(sum(widths[:: len(STAGES)]) * (phase.end - phase.first) / 20, abs=0.2)
    filled = ["fill-opacity" in found.attrib for found in rectangles]
    assert filled == [not phase.states[stage].frozen for phase in schedule.phases for stage in reversed(STAGES)]


def test_the_darker_a_stage_the_higher_its_rate() -> None:
    schedule = compile_schedule(config({"name": "all", "train": ["all"], "fraction": 1.0}, decay=0.3), STAGES, 3)
    found = re.findall(r'fill-opacity="([\d.]+)"', schedule_svg.svg(schedule, True))
    assert len(found) == len(STAGES)
    assert [float(value) for value in found] == sorted((float(value) for value in found), reverse=True)
    assert float(found[0]) > float(found[-1])


def test_the_image_tells_those_who_do_not_see_it() -> None:
    title = ET.fromstring(schedule_svg.svg(gradual(), True)).find(f"{SVG}title")
    assert title is not None
    assert title.text is not None
    assert "epochs 1–2: stem frozen" in title.text
    assert "head ×1" in title.text


def test_names_are_text_and_no_markup() -> None:
    phase = {"name": "<script>alert(1)</script> & co", "train": ["all"], "fraction": 1.0}
    svg = schedule_svg.svg(compile_schedule(config(phase), STAGES, 5), True)
    assert "<script" not in svg
    assert "<script>alert(1)</script> & co" in texts(svg)


def test_many_short_phases_leave_out_what_has_no_room() -> None:
    phases = [{"name": f"phase number {i}", "train": ["all"], "epochs": 1} for i in range(80)]
    svg = schedule_svg.svg(compile_schedule(config(*phases), STAGES, 80), True)
    assert texts(svg) == [*reversed(STAGES), "epoch"]


# --- the run's page and the methods text ------------------------------------------------------------------------------


def run(tmp_path: Path, *overrides: str) -> stored.Stored:
    return stored.read(records.write(tmp_path / "run", overrides=("dataset=covid19ct", *overrides)))


def test_the_page_shows_the_schedule_of_the_run(tmp_path: Path) -> None:
    found = run(tmp_path, "finetune=gradual", "trainer.max_epochs=14")
    (section,) = [section for section in report.page(found).sections if section.title == "Schedule"]
    drawn, fold = section.blocks
    assert isinstance(drawn, Drawing)
    assert isinstance(fold, Fold)
    assert drawn.svg == schedule_svg.svg(gradual(14), True)
    (table,) = fold.blocks
    assert isinstance(table, Table)
    assert [row[1] for row in table.rows] == ["1–2", "3–4", "5–6", "7–8", "9–10", "11–12", "13–14"]
    assert drawn.svg in report.render_run(found)


def test_a_record_of_an_older_version_has_a_page_without_a_schedule(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "run")
    path = folder / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["finetune"] = {"name": "full", "backbone_lr_ratio": 1.0, "head_lr_ratio": 1.0, "batchnorm": "train"}
    path.write_text(yaml.safe_dump(settings))
    found = stored.read(folder)
    assert "Schedule" not in [section.title for section in report.page(found).sections]
    assert "All layers were trained" in methods.render(found)


@pytest.mark.parametrize(
    ("overrides", "strategy", "rates"),
    [
        (("finetune=full",), "All layers were trained", "peak learning rate 0.0005"),
        (("finetune=linear_probe",), "Only the classification head was trained", "peak learning rate 0.005"),
        (("finetune=surgical",), "Only the stages stem and head were trained", "peak learning rate 0.0005"),
        (
            ("finetune=lp_ft", "trainer.max_epochs=10"),
            "2 phases: the classification head in epochs 1–3 and all layers in epochs 4–10",
            "peak learning rates from 5e-05 to 0.005, by stage and phase",
        ),
        (("finetune=layer_decay",), "All layers were trained", "peak learning rates from 5.88e-05 to 0.0005"),
        (
            ("finetune=full", "finetune.backbone_lr_ratio=0.1"),
            "All layers were trained",
            "peak learning rates 5e-05 (backbone) and 0.0005 (head)",
        ),
    ],
)
def test_the_schedule_in_words(tmp_path: Path, overrides: tuple[str, ...], strategy: str, rates: str) -> None:
    found = run(tmp_path, *overrides)
    assert schedule_of_a_run.of(found) is not None
    assert strategy in schedule_of_a_run.strategy(found)
    assert schedule_of_a_run.peak_rates(found).startswith(rates)
    assert strategy in methods.render(found)


# --- the documentation ------------------------------------------------------------------------------------------------


def test_the_documented_schedule_of_ones_own_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    text = (DOCS / "finetuning.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(# [^\n]*\ndefaults: .*?)```", text, flags=re.DOTALL)
    folder = tmp_path / "conf"
    shutil.copytree(where.conf_dir(), folder)
    for module in (where, compose):
        monkeypatch.setattr(module, "conf_dir", lambda: folder)
    name = yaml.safe_load(example)["name"]
    (folder / "finetune" / f"{name}.yaml").write_text(example, encoding="utf-8")
    finetune.main(["show", f"finetune={name}", "dataset=covid19ct", "trainer.max_epochs=20"])
    printed = [" ".join(row) for row in rows(shown.getvalue())]
    (told,) = re.findall(r"```text\n(phase .*?)```", text, flags=re.DOTALL)
    assert [" ".join(line.split()) for line in told.splitlines()[1:]] == printed
