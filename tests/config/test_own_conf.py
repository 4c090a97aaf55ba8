"""A folder of options of one's own, next to those of ddtl: DDTL_CONF and --config-dir."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddtl.commands import cli, launch, train
from ddtl.config import help_page
from ddtl.config.load import load
from ddtl.config.where import OWN, options
from ddtl.sweeps.plan import settings
from ddtl.training.identity import counting
from ddtl.utils.errors import UserError
from tests.support import fork_server
from tests.support.runs import ROOT, SMALL

FILES = {
    "finetune/long_probe.yaml": "# A long probe.\ndefaults: [lp_ft]\nname: long_probe\nprobe: 0.6\n",
    "experiment/plan.yaml": "# @package _global_\n# mine\ndefaults:\n  - override /finetune: long_probe\nseed: 7\n",
    "search/mine.yaml": "# mine\nname: mine\nspace:\n  optimizer.lr: {float: [1e-4, 1e-2], log: true}\n",
    "notes.txt": "not an option",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my conf, it's [2026]"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv(OWN, str(folder))
    return folder


def test_an_option_has_what_differs_from_another_one(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(["experiment=plan", "model.weights=imagenet"])
    assert (config.seed, config.finetune.name, config.finetune.probe) == (7, "long_probe", 0.6)
    assert "long_probe" in options("finetune")
    assert "long_probe            A long probe." in help_page.render()
    words = ["finetune=lp_ft", "finetune.name=long_probe", "finetune.probe=0.6", "seed=7", "model.weights=imagenet"]
    monkeypatch.delenv(OWN)
    assert counting(load(words)) == counting(config), "the values count, and not where they are from"
    with pytest.raises(UserError, match="finetune=long_probe"):
        load(["finetune=long_probe"])


def test_a_search_and_a_changed_file(own: Path) -> None:
    asked = ["search=mine", "model.weights=none", f"paths.runs_dir={own.parent}"]
    assert list(settings.read(asked).space.described()) == ["optimizer.lr"]
    (own / "finetune" / "long_probe.yaml").write_text(FILES["finetune/long_probe.yaml"].replace("0.6", "0.7"))
    assert load(["finetune=long_probe", "model.weights=imagenet"]).finetune.probe == 0.7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("finetune/full.yaml", "finetune=full is an option of ddtl's. Give the file another name"),
        ("model/resnet18.yaml", "model=resnet18 is an option of ddtl's"),
        ("finetun/mine.yaml", "there is no group finetun. Did you mean finetune"),
        ("mine.yaml", r"an option is in the folder of its group, as .*finetune/mine\.yaml"),
        ("finetune/_common.yaml", "is an option of ddtl's"),
    ],
)
def test_what_cannot_be_meant_is_refused(own: Path, name: str, message: str) -> None:
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).write_text("name: mine\n")
    with pytest.raises(UserError, match=message):
        load([])


@pytest.mark.parametrize(
    "text", ["name: [", "a: &a [1]\nb: [*a, *a]\nname: ${nowhere}\n", "defaults: [nowhere]\nname: x\n"]
)
def test_a_file_that_is_not_in_order_is_named(own: Path, text: str) -> None:
    (own / "finetune" / "torn.yaml").write_text(text)
    with pytest.raises(UserError, match=r"torn|is not in order|nowhere"):
        load(["finetune=torn"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# @package _global_\nseed: 190:20:30\n", "YAML reads 190:20:30 as a number of base 60. Write it in quotes"),
        ("# @package _global_\nseed: 1:30  # half past\n", "YAML reads 1:30 as a number of base 60"),
        ("# @package _global_\nhydra:\n  run: {dir: /x}\n", "settings of Hydra's own, which ddtl does not use"),
        ("# @package hydra.run\ndir: /x\n", "settings of Hydra's own, which ddtl does not use"),
    ],
)
def test_what_yaml_or_hydra_would_take_otherwise_is_refused(own: Path, text: str, message: str) -> None:
    (own / "experiment" / "odd.yaml").write_text(text)
    with pytest.raises(UserError, match=f"odd.yaml: .*{message}"):
        load(["experiment=odd"])


def test_what_only_looks_so_is_read(own: Path) -> None:
    text = "# @package _global_\n# hydra: 1:30\nrun:\n  name: 'at 1:30'  # 1:30\n"
    text += "logger:\n  wandb:\n    tags: ['1:30', hydra]\n"
    (own / "experiment" / "times.yaml").write_text(text)
    found = load(["experiment=times"])
    assert (found.run.name, found.logger.wandb.tags) == ("at 1:30", ("1:30", "hydra"))


def test_a_folder_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(OWN, "/nowhere")
    assert launch._code_of(train.main, ["--cfg", "job"]) == 2
    assert "DDTL_CONF=/nowhere: there is no such folder" in capfd.readouterr().err
    assert launch._code_of(cli.main, ["train", "--config-dir"]) == 2
    assert "--config-dir takes a folder" in capfd.readouterr().err
    for words in (["train", "--config-dir", "no_dir"], ["train", "--config-dir=no_dir"]):
        assert launch._code_of(cli.main, words) == 2
        assert "--config-dir=no_dir: there is no such folder" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words", [["--config-dir", "{}", "a=1"], ["a=1", "--config-dir={}"], ["-m", "--config-dir={}", "a=1"]]
)
def test_the_flag_is_kept_in_front_for_the_processes_that_are_started(
    own: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv(OWN, "")
    typed = [word.format(own) for word in words]
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", *typed])
    seen: list[list[str]] = []
    assert launch._code_of(lambda argv: seen.append(list(argv)) or 0, typed) == 0  # type: ignore[func-returns-value]
    (left,) = seen
    assert left == [word for word in words if word in ("-m", "a=1")]
    assert sys.orig_argv == ["python", "train.py", f"--config-dir={own}", *left]
    assert launch.os.environ[OWN] == str(own)


@pytest.mark.slow
def test_jobs_and_evaluations_work_with_it_and_without(own: Path, tmp_path: Path) -> None:
    small = [
        *SMALL,
        "trainer.max_epochs=2",
        f"paths.runs_dir={tmp_path / 'runs'}",
        "model=squeezenet1_1",
        "model.weights=none",
    ]
    line = ["train.py", "-m", "seed=0,1", "finetune=long_probe", *small, "--config-dir", str(own)]
    environment = {name: value for name, value in launch.os.environ.items() if name != OWN}
    done = fork_server.run(
        [sys.executable, *line], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "runs" / "phantom").glob("squeezenet1_1-long_probe-*"))
    assert len(runs) == 2
    command = [sys.executable, "-m", "ddtl", "evaluate", str(runs[0]), "evaluation.threshold=youden"]
    done = fork_server.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
