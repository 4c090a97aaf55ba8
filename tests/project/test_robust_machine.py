"""What machines, schedulers, shells and terminals do to a command: it is right, or refused with one line."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ddtl.commands import cli
from ddtl.config import overrides
from ddtl.config.convert import text_keys
from ddtl.config.load import load
from ddtl.models.metrics import of_predictions
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.training import hardware, lightning, verification
from ddtl.training.callbacks import EpochEnd
from ddtl.training.train import train
from ddtl.utils import ranks
from ddtl.utils.errors import InconsistentRecord, UserError
from ddtl.utils.reading import read_lines
from tests.support import fork_server
from tests.support.mounts import mounted
from tests.support.ports import free_port
from tests.support.runs import ROOT, assert_same_run, config, run, small

QUICK = ("model=squeezenet1_1", "model.weights=none", "trainer=cpu", "trainer.max_epochs=3", "trainer.limit_batches=3")
TRAIN = (sys.executable, str(ROOT / "train.py"))
DDTL = (sys.executable, "-m", "ddtl")
UNSET = "unset RANK LOCAL_RANK WORLD_SIZE"

Guarded = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Case:
    """A command as one machine runs it.

    Attributes:
        name: of the case.
        words: of train.py.
        environment: variables beside those of the tests.
        code: the exit code.
        says: what the one line has in it.
    """

    name: str
    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 2
    says: tuple[str, ...] = ()


def step(tasks: str, **more: str) -> dict[str, str]:
    """The variables of the first task of a step."""
    own = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    return {**own, "SLURM_NTASKS": tasks, "SLURM_STEP_NUM_TASKS": tasks, "SLURM_STEP_NODELIST": "localhost", **more}


TWO = ("trainer.devices=2", "trainer.strategy=ddp")
NODES = ("trainer.num_nodes=2", "trainer.strategy=ddp")
MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}

ENVIRONMENTS = (
    Case("ranks alone", (), {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 2, ("WORLD_SIZE=2", UNSET)),
    Case("ranks of the first", (), {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, 2, ("WORLD_SIZE=2", UNSET)),
    Case("empty rank", (), {"RANK": ""}, 2, ("RANK=''", "whole number", UNSET)),
    Case("empty local rank", (), {"LOCAL_RANK": ""}, 2, ("LOCAL_RANK=''", UNSET)),
    Case("empty world size", (), {"WORLD_SIZE": ""}, 2, ("WORLD_SIZE=''", UNSET)),
    Case("rank in words", (), {"RANK": "first"}, 2, ("RANK='first'", UNSET)),
    Case("negative rank", (), {"RANK": "-1"}, 2, ("RANK='-1'", UNSET)),
    Case("empty node rank", (), {"NODE_RANK": ""}, 2, ("NODE_RANK=''", UNSET)),
    Case("local rank alone", (), {"LOCAL_RANK": "1"}, 2, ("LOCAL_RANK=1", "WORLD_SIZE is not set", UNSET)),
    Case("rank beyond the world", TWO, {"RANK": "2", "WORLD_SIZE": "2", **MEETING}, 2, ("RANK=2", "there are 2")),
    Case(
        "ranks that contradict",
        TWO,
        {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", **MEETING},
        2,
        ("RANK=1", "LOCAL_RANK=0"),
    ),
    Case("no address", TWO, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, 2, ("MASTER_ADDR", UNSET)),
    Case(
        "no port",
        TWO,
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        2,
        ("MASTER_PORT=''", "export MASTER_PORT="),
    ),
    Case("a port in words", TWO, {"MASTER_PORT": "http"}, 2, ("MASTER_PORT='http'", "export MASTER_PORT=")),
    Case(
        "an unknown address",
        TWO,
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", **MEETING, "MASTER_ADDR": "nowhere.invalid"},
        2,
        ("nowhere.invalid", "export MASTER_ADDR="),
    ),
    Case("a consistent world of one", (), {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, 0),
    Case("an address that nobody needs", (), {"MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "http"}, 0),
    Case("torchrun with other numbers", (), TORCHRUN, 2, ("torchrun started 2", "trainer.devices=2")),
    Case("torchrun without a rank", TWO, {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, 2, ("RANK is not set",)),
    Case("torchrun as it is", TWO, {**TORCHRUN, **MEETING}, 0),
    Case("a node's rank alone", (), {"NODE_RANK": "1"}, 2, ("NODE_RANK=1", "trainer.num_nodes", UNSET)),
    Case("a node's rank and two processes", TWO, {"NODE_RANK": "1"}, 2, ("NODE_RANK=1", UNSET)),
    Case("the first node's rank alone", (), {"NODE_RANK": "0"}, 0),
    Case("a rank of srun in words, outside a step", (), {"SLURM_PROCID": "x"}, 0),
    Case("an empty rank of srun", (), {"SLURM_STEP_ID": "", "SLURM_PROCID": "", "SLURM_NTASKS": ""}, 0),
    Case("a rank of jsrun in words", (), {"JSM_NAMESPACE_RANK": "x"}, 0),
    Case("a step with a rank in words", (), step("2", SLURM_PROCID="x"), 2, ("SLURM_PROCID='x'", "unset SLURM_PROCID")),
    Case(
        "a step with a size in words",
        (),
        {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "abc"},
        2,
        ("SLURM_STEP_NUM_TASKS='abc'", "unset SLURM_STEP_NUM_TASKS"),
    ),
    Case("a step with a local rank in words", TWO, step("2", SLURM_LOCALID="x"), 2, ("SLURM_LOCALID='x'",)),
    Case(
        "a rank beyond the step",
        TWO,
        step("2", SLURM_PROCID="5", SLURM_LOCALID="1"),
        2,
        ("SLURM_PROCID=5", "there are 2", "srun --ntasks=1"),
    ),
    Case("an empty cache folder", (), {"DDTL_CACHE": ""}, 2, ("paths.cache_dir=", "unset DDTL_CACHE")),
    Case("an empty data folder", (), {"DDTL_DATA": ""}, 2, ("paths.data_dir=", "unset DDTL_DATA")),
    Case(
        "a mirror that is not an address",
        ("model.weights=imagenet",),
        {"DDTL_WEIGHTS_MIRROR": "garbage"},
        2,
        ("paths.weights_mirror=garbage", "https://", "unset DDTL_WEIGHTS_MIRROR"),
    ),
    Case("a mirror that is not needed", ("model.weights=none",), {"DDTL_WEIGHTS_MIRROR": "garbage"}, 0),
    Case("an allocation of four", (), {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 0),
    Case("a shell of salloc", (), step("4", SLURM_STEP_ID="4294967290"), 0),
    Case("a shell of srun --pty", (), step("4", SLURM_JOB_NAME="bash"), 0),
    Case("a step of four", (), step("4"), 2, ("srun started 4 processes", "trainer.devices=4", "srun --ntasks=1")),
    Case("the third of a step of four", (), step("4", SLURM_PROCID="2"), 2, ("srun started 4 processes",)),
    Case("a step of one that starts two", TWO, step("1", SLURM_STEP_NODELIST="nowhere"), 0),
    Case("a step of two", TWO, step("2"), 0),
    Case(
        "a list of nodes that nobody knows",
        TWO,
        step("2", SLURM_STEP_NODELIST="nowhere[01-02].invalid"),
        2,
        ("nowhere01.invalid", "export MASTER_ADDR="),
    ),
    Case("no list of nodes", TWO, step("2", SLURM_STEP_NODELIST=""), 2, ("SLURM_STEP_NODELIST", "export MASTER_ADDR=")),
    Case(
        "two nodes that nobody started",
        NODES,
        {},
        2,
        ("NODE_RANK, MASTER_ADDR, MASTER_PORT", "torchrun --nnodes=2", "srun --nodes=2"),
    ),
    Case("two nodes in a batch script", NODES, {"SLURM_JOB_ID": "1", "SLURM_NNODES": "2"}, 2, ("srun --nodes=2",)),
    Case("trainer arguments for Lightning", (), {"PL_TRAINER_FAST_DEV_RUN": "1"}, 0),
)

LONG = "a" * 300
SETTINGS = (
    Case(
        "a dataset's name of 300", (f"dataset.name={LONG}",), says=("dataset.name=aaa", "300 characters", "200 bytes")
    ),
    Case("a run's name of 300", (f"run.name={LONG}",), says=("run.name='aaa", "200 printable")),
    Case("a run's name of 150 letters of two bytes", ("run.name=" + "é" * 150,), says=("run.name=", "200")),
    Case("a folder's name of 300", (f"paths.runs_dir=/tmp/{LONG}",), says=("paths.runs_dir=", "Set another")),
    Case("a path of 4,000", ("paths.cache_dir=/tmp" + "/abcdefghi" * 400,), says=("paths.cache_dir=", "Set another")),
    Case(
        "one image at a time",
        ("dataset.batch_size=1",),
        says=("dataset.batch_size=1", "BatchNorm", "dataset.batch_size=2"),
    ),
    Case("epochs without end", ("trainer.max_epochs=" + "9" * 23,), says=("must be at most 100000",)),
    Case("patients without end", ("dataset.phantom.n_patients=1000000000",), says=("must be at most 100000",)),
    Case("workers without end", ("dataset.num_workers=100000",), says=("must be at most 1000",)),
    Case("a batch without end", ("dataset.batch_size=100000000",), says=("must be at most 1000000",)),
    Case("one image on each device", ("dataset.batch_size=2", *TWO), says=("BatchNorm", "dataset.batch_size=4")),
    Case(
        "one image at a time, accumulated",
        ("dataset.batch_size=4", "trainer.accumulate=4"),
        says=("BatchNorm", "dataset.batch_size=8"),
    ),
    Case("one image, BatchNorm fixed", ("dataset.batch_size=1", "finetune.batchnorm=frozen_stats"), code=0),
    Case("one image, no BatchNorm", ("dataset.batch_size=1", "model=squeezenet1_1"), code=0),
    Case("a list that is not closed", ("logger.wandb.tags=[a,b",), says=("'logger.wandb.tags=[a, b]'",)),
    Case("a list with brackets in it", ("logger.wandb.tags=[a,b (c)]",), says=("\"logger.wandb.tags=[a, 'b (c)']\"",)),
    Case("a quote that is not closed", ("run.name='(a",), says=("\"run.name='(a'\"",)),
    Case("a name with brackets", ("run.name=50% [x]",), says=("\"run.name='50% [x]'\"",)),
    Case("a name with a comma", ("run.name=a, b",), says=("\"run.name='a, b'\"", "-m")),
    Case("a name in two words", ("run.name=my", "run"), says=("'run.name=my run'",)),
    Case(
        "a dict with brackets in it",
        (r"dataset.own={a: {root: /, patient_regex: (P\d+)_}}",),
        says=("patient_regex: '(P\\d+)_'}}\"",),
    ),
)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a scheduler that the tests themselves run in."""
    for name in list(os.environ):
        ranked = name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "JSM_NAMESPACE_RANK")
        if ranked or name.startswith(("SLURM_", "TORCHELASTIC_", "PL_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("case", [*ENVIRONMENTS, *SETTINGS], ids=lambda case: case.name)
def test_the_command_is_right_or_refused(
    case: Case, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    code = guarded(["--cfg", "job", *case.words])
    out, err = capfd.readouterr()
    assert code == case.code, err
    assert "Traceback" not in err
    assert [words for words in case.says if words not in err] == [], err
    assert (err.count("error: "), bool(out)) == ((1, False) if code else (0, True))


def test_what_an_error_says_is_what_bash_needs(tmp_path: Path) -> None:
    """The corrected argument, pasted into bash, is the value that was meant."""
    for word, meant in (
        ("logger.wandb.tags=[a,b (c)]", ("a", "b (c)")),
        ("run.name=50% [x]", "50% [x]"),
        ("run.name='(a", "(a"),
        ("run.name=a'b (c)", "a'b (c)"),
        ("run.name=a, b", "a, b"),
    ):
        key = word.partition("=")[0]
        problem = overrides.read([word], {}, set(text_keys(Config))).problems[0]
        told = re.search(rf"""(['"]?{re.escape(key)}=.*)$""", problem.partition(": ")[2])
        assert told is not None, problem
        echoed = subprocess.run(
            ["bash", "-c", f"printf %s {told[1]}"], capture_output=True, text=True, check=True
        ).stdout
        found: Any = load([echoed])
        for part in key.split("."):
            found = getattr(found, part)
        assert found == meant


@pytest.mark.parametrize("pattern", [r"(P\d+)_", r"^[A-Z]+(\d{1,3})-", r"(?P<patient>\w+)/", r"\((\d+)\)", r"a|(b)"])
def test_a_regular_expression_is_taken_as_bash_hands_it_over(pattern: str, tmp_path: Path) -> None:
    typed = f"dataset.patient_regex={shlex.quote(pattern)}"
    handed_over = subprocess.run(
        ["bash", "-c", f"printf %s {typed}"], capture_output=True, text=True, check=True
    ).stdout
    own = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.name=mine"]
    assert load([*own, handed_over]).dataset.patient_regex == pattern
    assert load([*own, f"dataset.patient_regex='{pattern}'"]).dataset.patient_regex == pattern


# --- which process this is --------------------------------------------------------------------------------------------


def test_processes_of_each_launcher() -> None:
    alone, two = ranks.Processes(), ranks.Processes(world_size=2)
    assert (
        ranks.assign_process(1, 1, {})
        == ranks.assign_process(1, 1, {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"})
        == alone
    )
    assert (
        ranks.assign_process(2, 1, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"})
        == ranks.assign_process(2, 1, step("1"))
        == two
    )
    fourth = step("4", SLURM_PROCID="3", SLURM_LOCALID="1", SLURM_NODEID="1")
    found = ranks.assign_process(2, 2, fourth)
    assert (found.rank, found.local_rank, found.node_rank, found.world_size) == (3, 1, 1, 4)
    assert (found.external, found.address, found.port) == (True, "localhost", 15000 + 4711)
    by_launcher = {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", **MEETING}
    second = ranks.Processes(1, 1, 0, 2, True, "127.0.0.1", 29517)
    assert ranks.assign_process(2, 1, by_launcher) == ranks.assign_process(2, 1, {**TORCHRUN, **MEETING}) == second


def test_the_first_machine_of_a_list() -> None:
    lists = {"gpu[01-04,07],big1": "gpu01", "a b": "a", "x1,x2": "x1", "n[3]": "n3", "r[1-2]n[5,7]-ib,x": "r1n5-ib"}
    assert {nodes: ranks.first_host(nodes) for nodes in lists} == lists


def test_other_commands_work_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"ddtl evaluate works in one process.*unset RANK"):
        ranks.require_one_process("ddtl evaluate")


def test_other_commands_in_a_step_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in step("4").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match=r"srun started 4 processes\. Start it by itself: srun --ntasks=1 ddtl predict …$"
    ):
        ranks.require_one_process("ddtl predict")


def test_lightning_reads_no_rank_of_another_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads both when it is imported, and fails at what is no number."""
    for name in ("SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.setenv(name, "x")
    ranks.check()
    assert not {"SLURM_PROCID", "JSM_NAMESPACE_RANK"} & set(os.environ)
    for name, value in step("2", SLURM_PROCID="1").items():
        monkeypatch.setenv(name, value)
    ranks.check()
    assert os.environ["SLURM_PROCID"] == "1"
    assert not ranks.is_first()


def first_of_two() -> dict[str, str]:
    """The variables of the first of two processes, at a free port."""
    port = str(free_port())
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_other_processes(tmp_path: Path, signum: signal.Signals) -> None:
    command = [*TRAIN, *small(tmp_path, *QUICK, *TWO)]
    process = fork_server.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **first_of_two()}
    )
    said = ""
    assert process.stderr is not None
    while "waiting for all of the 2 processes" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signum)
    code, text = process.wait(timeout=300), process.stderr.read()
    assert code == 128 + signum, text
    assert "the same command resumes it" in text


@pytest.mark.slow
def test_a_process_that_never_comes(tmp_path: Path) -> None:
    """The wait is announced, and has an end."""
    ranked = first_of_two()
    code = textwrap.dedent("""
        import sys
        from ddtl.commands.launch import guarded
        from ddtl.commands import train as command; from ddtl.training import lightning
        lightning.JOIN_LIMIT, lightning._QUIET = 1.2, 0.3
        sys.exit(guarded(command.main, sys.argv[1:]))
    """)
    program = shlex.join([sys.executable, "-c", code, *small(tmp_path, *QUICK, *TWO)])
    code, text = shell(f"cd {ROOT} && timeout 280 {program}", **ranked)
    assert code == 1, text
    assert text.count("error: ") == 1
    assert f"waiting for all of the 2 processes of this run at 127.0.0.1:{ranked['MASTER_PORT']}" in text
    assert "did not all come within 0.02 minutes" in text
    assert "unset RANK" in text


# --- Lightning's trainer ----------------------------------------------------------------------------------------------

# Lightning as it comes, which these measure ddtl against.
STOCK = ("benchmarks/train_throughput.py", "tools/lightning_drift.py")


def test_one_place_builds_trainers() -> None:
    paths = [
        *ROOT.glob("*.py"),
        *(path for name in ("ddtl", "benchmarks", "tools") for path in (ROOT / name).rglob("*.py")),
    ]
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if getattr(called, "attr", getattr(called, "id", "")) == "Trainer":
                found.add(path.relative_to(ROOT).as_posix())
    assert found == {"ddtl/training/lightning.py", *STOCK}


def test_the_environment_decides_nothing_about_a_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"FAST_DEV_RUN": "1", "MAX_EPOCHS": "1", "LIMIT_TRAIN_BATCHES": "1", "DEVICES": "7"}.items():
        monkeypatch.setenv(f"PL_TRAINER_{name}", value)
    for name, value in step("1", SLURM_PROCID="0").items():
        monkeypatch.setenv(name, value)
    trainer = lightning.build(accelerator="cpu", max_epochs=5, logger=False, enable_progress_bar=False)
    assert (trainer.max_epochs, trainer.limit_train_batches, trainer.num_devices) == (5, 1.0, 1)
    assert not trainer.fast_dev_run
    assert trainer._checkpoint_connector._hpc_resume_path is None
    assert os.environ["PL_TRAINER_DEVICES"] == "7"  # the children of this process may mean something by it


def test_a_rank_of_slurm_alone_silences_no_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 3)  # as Lightning reads it from SLURM_PROCID
    lightning.settle_rank(ranks.assign_process(1, 1, {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}))
    assert rank_zero_only.rank == 0


# --- scores are those of their epoch ----------------------------------------------------------------------------------

KINDS = {
    "plain": ("model=squeezenet1_1", "finetune=full"),
    "bf16": ("model=squeezenet1_1", "trainer.precision=bf16-mixed"),
    "the loss": ("model=squeezenet1_1", "trainer.monitor=val/loss"),
    "f1": ("model=squeezenet1_1", "trainer.monitor=val/f1"),
    "activations": ("model=squeezenet1_1", "finetune=linear_probe", "finetune.cached_views=2"),
    "activations in bf16": (
        "model=squeezenet1_1",
        "finetune=linear_probe",
        "augment=none",
        "trainer.precision=bf16-mixed",
    ),
    "BatchNorm": ("model=resnet18",),
    "BatchNorm adapted": ("model=resnet18", "evaluation.batchnorm=adapt"),
    "a running mean": ("model=resnet18", "trainer.ema=0.9"),
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "plain" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_the_validation_score_is_that_of_the_best_epoch(kind: str, tmp_path: Path) -> None:
    result = train(config(tmp_path, *QUICK, *KINDS[kind]))
    rows = read_lines(result.folder / "metrics.jsonl")
    best = rows[result.results["best_epoch"]]
    from ddtl.records import predictions

    val = predictions.read(result.folder / "predictions.csv").of("val")
    again = of_predictions(torch.from_numpy(val.logits), torch.from_numpy(val.label))
    assert {name: best[name] for name in again} == pytest.approx(again, abs=1e-6)
    for name in ("roc_auc", "average_precision", "accuracy", "f1"):
        assert result.results["val"][name] == pytest.approx(best[f"val/{name}"], abs=1e-6), name


@pytest.mark.slow
def test_averaged_weights_have_a_row_of_their_own(tmp_path: Path) -> None:
    result = run(tmp_path, *QUICK, "model=resnet18", "trainer.average_last=2")
    *epochs, mean = read_lines(result.folder / "metrics.jsonl")
    assert [row["epoch"] for row in epochs] == [0, 1, 2]
    assert (mean["epoch"], mean["averaged_epochs"]) == (2, 2)
    assert mean["val/roc_auc"] == pytest.approx(result.results["val"]["roc_auc"], abs=1e-6)
    assert RunFolder(result.folder).epochs() == epochs
    (result.folder / "results.json").unlink()
    again = run(tmp_path, *QUICK, "model=resnet18", "trainer.average_last=2")
    assert again.results == result.results | {"test_use": again.results["test_use"]}
    assert len(read_lines(result.folder / "metrics.jsonl")) == 4


def test_weights_of_another_epoch_are_not_scored(
    tmp_path: Path, guarded: Guarded, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint holds other weights than those that were validated."""
    save = EpochEnd._save

    def and_spoil(self: EpochEnd, trainer: Any, improved: bool) -> None:
        save(self, trainer, improved)
        if trainer.current_epoch == 2:
            checkpoint = torch.load(self.folder.best, weights_only=True)
            for name, value in checkpoint["state_dict"].items():
                if name.startswith("network.head"):
                    checkpoint["state_dict"][name] = -value
            torch.save(checkpoint, self.folder.best)

    monkeypatch.setattr(EpochEnd, "_save", and_spoil)
    assert guarded(small(tmp_path, *QUICK)) == 1
    err = capfd.readouterr().err
    assert err.count("error: ") == 1
    message = err.partition("error: ")[2]
    assert re.search(r"val/roc_auc 0\.\d+ on validation, and metrics.jsonl recorded 0\.\d+ for epoch \d", message)
    assert "run.overwrite=true" in message
    assert "\n" not in message.strip()
    (folder,) = (path for path in (tmp_path / "phantom").iterdir() if path.is_dir())
    assert not (folder / "results.json").exists()
    assert not list((tmp_path / "phantom").glob("test_looks*")), "the test set was not looked at"


def test_a_network_that_changes_in_prediction_is_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(tmp_path, *QUICK)
    from ddtl.models.module import Classifier

    step_ = Classifier.predict_step

    def and_change(self: Classifier, batch: Any, batch_idx: int) -> Any:
        found = step_(self, batch, batch_idx)
        with torch.no_grad():
            next(self.network.parameters()).add_(1)
        return found

    monkeypatch.setattr(Classifier, "predict_step", and_change)
    (result.folder / "results.json").unlink()
    with pytest.raises(InconsistentRecord, match="changed while it predicted"):
        run(tmp_path, *QUICK)


@pytest.mark.slow
def test_another_machine_may_round_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the recorded score must be reachable by rounding, and one that is far off is not."""
    result = run(tmp_path, *QUICK)
    folder = RunFolder(result.folder)
    rows = folder.epochs()
    best = result.results["best_epoch"]

    def recorded(score: float, machine: str) -> None:
        checkpoint = torch.load(folder.best, weights_only=True)
        torch.save({**checkpoint, "machine": machine}, folder.best)
        changed = {**rows[best], "val/roc_auc": score}
        lines = (json.dumps(changed if i == best else row) + "\n" for i, row in enumerate(rows))
        folder.metrics.write_text("".join(lines))
        folder.results.unlink(missing_ok=True)

    score = rows[best]["val/roc_auc"]
    near = score + 1 / 256 if score < 0.9 else score - 1 / 256  # a pair of 16 × 16 images in another order
    monkeypatch.setitem(verification.ROUNDING, "32-true", 0.05)
    recorded(near, "another")
    run(tmp_path, *QUICK)
    recorded(near, hardware.arithmetic())
    with pytest.raises(InconsistentRecord):
        run(tmp_path, *QUICK)
    recorded(0.0 if score > 0.5 else 1.0, "another")
    with pytest.raises(InconsistentRecord):
        run(tmp_path, *QUICK)


def test_no_record_of_the_epoch_is_said(tmp_path: Path) -> None:
    result = run(tmp_path, *QUICK)
    (result.folder / "metrics.jsonl").unlink()
    (result.folder / "results.json").unlink()
    assert any("could not be compared with it" in line for line in run(tmp_path, *QUICK).results["warnings"])


# --- streams ----------------------------------------------------------------------------------------------------------


def shell(line: str, **environment: str) -> tuple[int, str]:
    """What bash makes of a line: the exit code of its first command, and what went to both streams."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


ENCODINGS = (
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("words", ["finetune show", "data list", "export --help"])
def test_a_terminal_that_lacks_signs(words: str, encoding: dict[str, str]) -> None:
    code, text = shell(f"{shlex.join(DDTL)} {words}", **encoding)
    assert code == 0, text
    assert "Error" not in text


@pytest.mark.slow
def test_a_training_at_a_terminal_that_lacks_signs(tmp_path: Path, guarded: Guarded) -> None:
    argv = small(tmp_path, *QUICK, "logger.wandb.mode=offline", "logger=wandb")
    code, text = shell(shlex.join([*TRAIN, *argv]), PYTHONIOENCODING="ascii")
    assert code == 0, text
    assert "phantom ? protocol grouped" in text
    assert len(list(tmp_path.glob("phantom/*/report.html"))) == 1


@pytest.mark.parametrize(
    "words",
    [(*TRAIN, "--help"), (*TRAIN, "--cfg", "job"), (*DDTL, "data", "list"), (*DDTL, "finetune", "show"), DDTL],
    ids=lambda words: " ".join(words[1:]).replace(str(ROOT), ""),
)
def test_a_reader_that_leaves(words: tuple[str, ...]) -> None:
    assert shell(f"{shlex.join(words)} | head -1")[0] == 0
    code, text = shell(f"{shlex.join(words)} | true")
    assert (code, text) == (0, "")


@pytest.mark.slow
def test_a_training_whose_reader_leaves_comes_to_its_end(tmp_path: Path) -> None:
    code, text = shell(f"{shlex.join([*TRAIN, *small(tmp_path, *QUICK)])} 2>&1 | head -1")
    assert code == 0, text
    assert "Traceback" not in text
    (results,) = tmp_path.glob("phantom/*/results.json")
    assert (results.parent / "report.html").exists()
    assert "test" in json.loads(results.read_text())


def test_streams_that_are_closed_or_full() -> None:
    listing = shlex.join([*DDTL, "data", "list"])
    assert shell(f"{listing} >&- 2>&-") == (0, "")
    code, text = shell(f"{listing} > /dev/full")
    assert code == 1
    assert text == "error: standard output could not take everything: No space left on device.\n"


# --- limits of the machine --------------------------------------------------------------------------------------------


def test_a_user_without_name_and_home(request: pytest.FixtureRequest) -> None:
    folder = tempfile.mkdtemp(dir="/tmp")  # pytest's own is closed to others
    Path(folder).chmod(0o777)
    request.addfinalizer(lambda: shutil.rmtree(folder))
    words = [
        "setpriv",
        "--reuid",
        "12345",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no other user can be taken on here")
    line = shlex.join([*words, "env", "-u", "HOME", "-u", "DDTL_CACHE", *TRAIN, f"paths.runs_dir={folder}"])
    code, text = shell(line)
    assert code == 2
    assert text.count("error: ") == 1
    assert "paths.cache_dir=~/.cache/ddtl: this user has no home folder" in text
    assert "paths.cache_dir=/tmp/ddtl" in text
    code, text = shell(f"{line} --cfg job paths.cache_dir={folder}/cache")
    assert code == 0, text


@pytest.mark.slow
@pytest.mark.parametrize("size", ["64k", "240k"])
def test_a_tiny_dev_shm(size: str, tmp_path: Path) -> None:
    """64 kB hold no batch, which is said before anything else; 240 kB hold one, but not those of both processes."""
    inside = f"mount -t tmpfs -o size={size} tmpfs /dev/shm && exec {shlex.join([*TRAIN, *small(tmp_path, *QUICK)])}"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    code, text = shell(f"timeout 280 unshare -m bash -c {shlex.quote(inside + ' dataset.num_workers=2')}")
    assert code == 1, text
    assert "Traceback" not in text
    assert text.count("error: ") == 1
    assert "error: /dev/shm is too small for the loader processes" in text
    assert "Set dataset.num_workers=0" in text


@pytest.mark.slow
def test_few_open_files(tmp_path: Path) -> None:
    line = shlex.join([*TRAIN, *small(tmp_path, *QUICK), "dataset.num_workers=4"])
    code, text = shell(f"(ulimit -n 40; exec {line})")
    assert code == 1, text
    assert "Traceback" not in text
    assert text.count("error: ") == 1
    assert "ulimit -n 4096" in text


def test_commands_that_write_nothing_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As any user in / : what is written elsewhere, or not at all, needs no place for runs here."""
    from ddtl.training import rescore

    finished = run(tmp_path / "runs", *QUICK).folder
    saved, _ = rescore.load_run(RunFolder(finished))
    access = os.access
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path) and access(path, mode))
    with pytest.raises(UserError, match=r"paths\.runs_dir=results: .* cannot be written to"):
        load(["paths.runs_dir=results"])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    rescore.on_this_machine(saved, [], "cpu", 32)
    assert rescore.read_request(saved, ["evaluation.threshold=youden"]).config.evaluation.threshold == "youden"
    for words in (["train", "--cfg", "job"], ["finetune", "show"], ["data", "list"]):
        assert cli.main(words) == 0


@pytest.mark.parametrize(
    "words", ["train", "sweep seed=0,1", "runs list", "data list", "finetune show", "report a", "compare a b"]
)
def test_a_current_folder_that_is_gone(words: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code, text = shell(f"cd {gone} && rmdir {gone} && PYTHONPATH={ROOT} {shlex.join(DDTL)} {words}")
    assert code == 2
    assert text == "error: the current folder has been deleted or moved. Change to one that is there: cd ~\n"


def test_no_room_for_libraries(tmp_path: Path) -> None:
    line = shlex.join([*TRAIN, *small(tmp_path, *QUICK)])
    code, text = shell(f"(ulimit -v 1000000; exec {line})")
    assert code == 1
    # The system's loader or Python is the first to find no room, as the machine has it.
    assert re.match(r"error: (a library cannot be loaded into memory \(|there is not enough memory for this com)", text)
    assert text.endswith(": its limit is 1.0 GB of address space. Raise the limit: ulimit -v unlimited\n")
    assert text.count("\n") == 1


def test_a_runs_folder_that_can_only_be_read(
    tmp_path: Path, guarded: Guarded, capfd: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert guarded(small(disk / "runs", *QUICK)) == 2
    assert "Set another paths.runs_dir" in capfd.readouterr().err


@pytest.mark.slow
def test_loader_processes_beside_wandb(tmp_path: Path) -> None:
    """W&B's import hook fails in a process that was forked; what such processes need is imported before."""
    argv = small(tmp_path, *QUICK, "logger=wandb", "logger.wandb.mode=offline", "dataset.num_workers=1")
    code, text = shell(shlex.join([*TRAIN, *argv]), TMPDIR="/nowhere")
    assert code == 0, text


# --- SLURM ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("undisturbed"), *QUICK).folder


def after_each_epoch(monkeypatch: pytest.MonkeyPatch, do: Callable[[EpochEnd, Any], None]) -> None:
    save = EpochEnd._save

    def and_then(self: EpochEnd, trainer: Any, improved: bool) -> None:
        save(self, trainer, improved)
        do(self, trainer)

    monkeypatch.setattr(EpochEnd, "_save", and_then)


@pytest.fixture
def in_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a task of a step, in the environment of which Lightning would requeue."""
    for name, value in step("1", SLURM_NTASKS_PER_NODE="1", SLURM_JOB_NAME="ddtl").items():
        monkeypatch.setenv(name, value)


def test_a_notice_of_slurm_changes_nothing(
    undisturbed: Path, tmp_path: Path, in_slurm: None, guarded: Guarded, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    after_each_epoch(monkeypatch, lambda callback, trainer: os.kill(os.getpid(), signal.SIGUSR1))
    assert guarded(small(tmp_path, *QUICK)) == 0
    assert capfd.readouterr().err.count("signal SIGUSR1: the work continues") == 3
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert_same_run(next(tmp_path.glob("phantom/squeezenet1_1-*")), undisturbed)


def test_a_checkpoint_of_lightnings_for_slurm_is_not_read(
    undisturbed: Path, tmp_path: Path, in_slurm: None, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version left one in the run's folder, and another lies where the command is given."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def leave(callback: EpochEnd, trainer: Any) -> None:
        for folder in (callback.folder.path, tmp_path / "here"):
            trainer.save_checkpoint(folder / "hpc_ckpt_1.ckpt")

    after_each_epoch(monkeypatch, leave)
    assert guarded(small(tmp_path / "runs", *QUICK)) == 0
    folder = next((tmp_path / "runs").glob("phantom/squeezenet1_1-*"))
    assert (folder / "hpc_ckpt_1.ckpt").exists()
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_noticed_killed_and_undisturbed_runs_are_the_same(undisturbed: Path, tmp_path: Path, in_slurm: None) -> None:
    """Whole processes: one gets USR1 three times, one is killed and started again."""
    from tests.support.runs import finish, hold_at_checkpoints, start, wait_for_epochs

    noticed = start(small(tmp_path / "noticed", *QUICK, "trainer.profiler=null"))
    for epochs in (1, 2, 3):
        wait_for_epochs(tmp_path / "noticed", noticed, epochs)
        noticed.send_signal(signal.SIGUSR1)
    code, text = finish(noticed)
    assert code == 0, text

    held, _ = hold_at_checkpoints(tmp_path / "hold")
    killed = start(small(tmp_path / "killed", *QUICK), **held)
    wait_for_epochs(tmp_path / "killed", killed, 1)
    killed.kill()
    assert finish(killed)[0] == -signal.SIGKILL
    code, text = finish(start(small(tmp_path / "killed", *QUICK)))
    assert code == 0, text

    for name in ("noticed", "killed"):
        folder = next((tmp_path / name).glob("phantom/squeezenet1_1-*"))
        assert not list(folder.rglob("hpc_ckpt*"))
        results = [json.loads((path / "results.json").read_text()) for path in (folder, undisturbed)]
        assert results[0] == results[1]
        assert (folder / "predictions.csv").read_bytes() == (undisturbed / "predictions.csv").read_bytes()
