"""A run's folder from a stranger holds links: nothing outside of it is written, whatever command works on it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddtl.commands import cli
from ddtl.records import run_folder
from ddtl.schema.backbones import BACKBONES
from ddtl.utils.errors import TrainingFailure, UserError
from tests.support import mounts, records
from tests.support.runs import ROOT, SMALL, run, small
from tests.support.tiny import TINY

WORDS = ("model=resnet18", "trainer.max_epochs=1", "trainer.precision=32")
PHANTOM = [word for word in SMALL if word.startswith("dataset.phantom.")]
PRECIOUS = "what is not the run's\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of the tiny network, which stays in the place of the large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet18", TINY)
        yield run(tmp_path_factory.mktemp("linked"), *WORDS).folder


@pytest.fixture
def stranger(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, beside a file and a folder that are not its business."""
    folder = tmp_path / "runs" / finished.parent.name / finished.name
    shutil.copytree(finished, folder)
    (tmp_path / "precious").write_text(PRECIOUS)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text(PRECIOUS)
    return folder


def untouched(tmp_path: Path) -> None:
    assert (tmp_path / "precious").read_text() == PRECIOUS
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["kept"]
    assert (tmp_path / "elsewhere" / "kept").read_text() == PRECIOUS


def pictures(folder: Path) -> list[str]:
    """A folder with a picture, and where the tables go."""
    from PIL import Image

    (folder / "pictures").mkdir()
    Image.linear_gradient("L").save(folder / "pictures" / "a.png")
    return [str(folder / "pictures"), f"output={folder / 'out'}", "overwrite=true"]


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "report": lambda run, _: ["report", str(run)],
    "share": lambda run, _: ["report", str(run), "share=true"],
    "predict": lambda run, here: ["predict", str(run), *pictures(here)],
    "export": lambda run, _: ["export", str(run), "format=safetensors"],
    "evaluate": lambda run, _: ["evaluate", str(run), "evaluation.threshold=youden"],
    "elsewhere": lambda run, _: ["evaluate", str(run), "dataset=phantom", "dataset.phantom.sites=[b]", *PHANTOM],
}
# Names that files which are not whole yet have had, or may be thought to have.
GUESSES = (
    ".report.html.partial", ".methods.md.partial", ".embeddings.safetensors.partial", ".results.json.partial",
    ".predictions.csv.partial", ".predictions.json.partial", ".share.html.partial", ".card.md.partial",
    ".model.safetensors.partial", ".export.partial", ".explain.partial",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_link_in_the_place_of_a_file_is_replaced(stranger: Path, tmp_path: Path, command: str) -> None:
    for name in GUESSES:
        (stranger / name).symlink_to(tmp_path / "precious")
    for name in ("report.html", "methods.md", "share.html", "embeddings.safetensors"):
        (stranger / name).unlink(missing_ok=True)
        (stranger / name).symlink_to(tmp_path / "precious")
    (tmp_path / "out").mkdir()
    for name in ("predictions.csv", "predictions.json", "patients.csv"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "precious")
    assert cli.main(COMMANDS[command](stranger, tmp_path)) == 0
    untouched(tmp_path)
    if command == "report":
        assert not (stranger / "report.html").is_symlink()


@pytest.mark.parametrize(("command", "name"), [("export", "export"), ("elsewhere", "evaluations")])
def test_a_folder_of_results_that_is_a_link_is_refused(stranger: Path, tmp_path: Path, command: str, name: str) -> None:
    (stranger / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link, and nothing is written through it"):
        cli.main(COMMANDS[command](stranger, tmp_path))
    untouched(tmp_path)


@pytest.mark.slow
def test_resuming_writes_through_no_link(stranger: Path, tmp_path: Path) -> None:
    (stranger / "results.json").unlink()
    words = small(stranger.parents[1], *WORDS)
    shutil.rmtree(stranger / "checkpoints")
    (stranger / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="checkpoints: is a link"):
        cli.main(["train", *words])
    untouched(tmp_path)
    (stranger / "checkpoints").unlink()
    (stranger / "metrics.jsonl").unlink()
    (stranger / "metrics.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises((UserError, OSError, TrainingFailure)):
        cli.main(["train", *words])
    untouched(tmp_path)
    (stranger / "metrics.jsonl").unlink()
    (stranger / run_folder.LOCK).unlink(missing_ok=True)
    (stranger / run_folder.LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises((UserError, OSError)):
        cli.main(["train", *words])
    untouched(tmp_path)
    (stranger / run_folder.LOCK).unlink()
    for name in (run_folder.OWNER, "model.safetensors", "predictions.csv"):
        (stranger / name).unlink(missing_ok=True)
        (stranger / name).symlink_to(tmp_path / "precious")
    assert cli.main(["train", *words]) == 0
    untouched(tmp_path)
    assert json.loads((stranger / "results.json").read_text())["best_epoch"] == 0


@pytest.mark.slow
def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "runs" / "d" / "run")
    command = [sys.executable, "-m", "ddtl", "report", str(folder)]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (folder / "report.html").read_text().endswith("</html>")
    assert not list(folder.glob(".*.partial"))


def test_a_full_disk_keeps_the_old_page(tmp_path: Path) -> None:
    run = records.write(tmp_path / "run")
    with mounts.mounted(tmp_path / "disk", "12m") as disk:
        shutil.copytree(run, disk / "run")
        assert cli.main(["report", str(disk / "run")]) == 0
        before = (disk / "run" / "report.html").read_bytes()
        free = shutil.disk_usage(disk).free
        (disk / "filling").write_bytes(b"0" * (free - 100_000))
        with pytest.raises(UserError, match="No space left on device"):
            cli.main(["report", str(disk / "run")])
        assert (disk / "run" / "report.html").read_bytes() == before
        assert not list((disk / "run").glob(".*.partial"))
