"""The reference pages are made from the program: every key, option and command is there, with what is true of it."""

from __future__ import annotations

import re
from pathlib import Path

import ddtl
from ddtl.commands.cli import COMMANDS
from ddtl.config.load import load
from ddtl.config.where import groups, options
from ddtl.schema.run import Config
from tools import reference


def keys(page: str) -> dict[str, tuple[str, str, str]]:
    """The rows of the page's tables of keys: default, what it takes, meaning."""
    rows = (re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| `"))
    return {row[0].strip("`"): (row[1].strip("`"), row[2], row[3]) for row in rows if len(row) == 4}


def test_every_setting_of_a_run_is_on_the_page_with_its_default() -> None:
    found = keys(reference.settings("train"))
    config = load(["model.weights=none"], writes=False).model_dump()

    def leaves(tree: dict[str, object], prefix: str = "") -> list[str]:
        return [
            name
            for key, value in tree.items()
            for name in (leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"])
        ]

    missing = [key for key in leaves(config) if key not in found and not any(k.startswith(f"{key}.") for k in found)]
    assert missing == ["dataset.source_settings"], "which a pool's own sources fill in"
    assert found["optimizer.lr"][0] == str(config["optimizer"]["lr"])
    assert found["trainer.precision"][:2] == ("auto", "auto, 32, bf16-mixed, 16-mixed")
    assert found["dataset.phantom.shortcut"] == (
        "0.0",
        "number, at least 0, at most 1",
        "strength of a planted mark, 0 for none: alone it scores ROC AUC 0.5 + shortcut / 2",
    )


def test_every_key_has_a_meaning() -> None:
    for name in ("train", "sweep"):
        assert [key for key, row in keys(reference.settings(name)).items() if not row[2]] == []


def test_every_option_is_on_the_page() -> None:
    for name in ("train", "sweep"):
        page = reference.settings(name)
        for group in groups(name):
            for option in options(group):
                assert f"`{group}={option}`" in page


def test_what_a_key_takes_is_what_the_schema_takes() -> None:
    schema = Config.model_json_schema()
    assert reference.allowed(schema, "trainer.ema") == "number, above 0, below 1 or null"
    assert reference.allowed(schema, "dataset.window.width") == "number, above 1"
    assert reference.allowed(schema, "evaluation.test") == "true, false"
    assert reference.allowed(schema, "loss.gamma") == ""


def test_text_is_no_markup() -> None:
    assert reference.cell("a | b <c> `d | <e>` f_g") == r"a \| b \<c\> `d \| <e>` f\_g"


def test_every_command_has_its_help() -> None:
    page = reference.commands()
    for name, (_, about) in COMMANDS.items():
        assert f"## `ddtl {name}`" in page
        assert about
    assert "false_alarms=0.05     share of images" in page
    assert "```text\nTrain, score and record one model." in page


def test_every_public_name_is_on_the_page() -> None:
    page = reference.api()
    names = [f":: ddtl.{'utils.' if name == 'plugins' else ''}{name}\n" for name in ddtl.__all__]
    assert [name for name in names if name not in page] == []


def test_pages_are_written_where_they_differ(tmp_path: Path) -> None:
    reference.write(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"train.md", "sweep.md", "commands.md", "api.md", "changelog.md", "contributing.md", "security.md"}
    dates = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "api.md").write_text("old")
    reference.write(tmp_path)
    assert [path.name for path, date in dates.items() if path.stat().st_mtime_ns != date] == ["api.md"]
