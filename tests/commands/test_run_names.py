"""A run's folder, or a part of its name, behind a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddtl.commands import cli
from ddtl.commands.run_names import named_folder, run_folder
from ddtl.utils.errors import UserError
from tests.support import records


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("densenet121-full-s0-0123456789", "densenet121-full-s1-abcdef0123"):
        records.write(tmp_path / "runs" / "covid19ct" / name)
    return tmp_path / "runs"


def test_a_part_of_just_one_name_is_that_run(runs: Path) -> None:
    path = runs / "covid19ct" / "densenet121-full-s1-abcdef0123"
    assert run_folder("evaluate", ["abcdef"]).resolve() == path
    assert named_folder("full-s1").resolve() == path
    assert named_folder("abcdef", ("sweep",)) == Path("abcdef")


def test_several_are_refused_and_none_is_left_to_the_command(runs: Path) -> None:
    with pytest.raises(UserError, match=r"densenet121: 2 folders in runs are called so, as covid19ct/.*Give more"):
        named_folder("densenet121")
    assert named_folder("resnet50") == Path("resnet50")
    with pytest.raises(UserError, match="no such option"):
        run_folder("evaluate", ["--hep"])


def test_a_path_is_never_taken_for_a_name(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "s1-abc").mkdir()
    assert named_folder("s1-abc") == Path("s1-abc")


def test_commands_take_names(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "s0-0123"]) == 0
    assert cli.main(["compare", "s0-0123", "s1-abc"]) == 0
    assert (runs / "covid19ct" / "densenet121-full-s0-0123456789" / "report.html").exists()
    inside = runs / "covid19ct" / "densenet121-full-s1-abcdef0123" / "x.json"
    with pytest.raises(UserError, match="a run's folder contains its record alone"):
        cli.main(["compare", "s0-0123", "s1-abc", f"json={inside}"])


NAMED = ("evaluate", "predict", "report", "compare", "export", "explain", "runs", "data")


@pytest.mark.parametrize("name", NAMED)
def test_a_variable_of_the_shell_that_is_not_set_is_no_success(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``ddtl evaluate $RUN && next``, and ``"$RUN"``, which as a path would be the current folder."""
    with pytest.raises(UserError, match=f"ddtl {name}: nothing is named behind it"):
        cli.main([name])
    assert "Exit codes" in capsys.readouterr().out
    if name != "runs":
        with pytest.raises(UserError, match="one of the words behind it is empty"):
            cli.main([name, "", "output=x"])
