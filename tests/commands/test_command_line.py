"""The command as a person uses it: flags, help, several jobs, signals and exit codes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ddtl.commands import launch, multirun
from ddtl.config import help_page, where
from ddtl.config.command_line import CommandLine, expand, parse
from ddtl.utils.errors import NotFinite, Stopped, TrainingFailure, UserError

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "train.py"


def started(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in an empty home, where everything that is left behind can be seen."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DDTL_", "XDG_", "COLUMNS"))}
    environment |= {"HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


# --- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", CommandLine(())),
        ("seed=1 -m lr=2", CommandLine(("seed=1", "lr=2"), multirun=True)),
        ("--multirun", CommandLine((), multirun=True)),
        ("-h", CommandLine((), help=True)),
        ("seed=1 --help", CommandLine(("seed=1",), help=True)),
        ("--cfg job --resolve", CommandLine((), show_config=True)),
        ("-c job a=1", CommandLine(("a=1",), show_config=True)),
        ("--cfg=job", CommandLine((), show_config=True)),
        ("--fast a=1", CommandLine(("--fast", "a=1"))),
    ],
)
def test_flags(line: str, expected: CommandLine) -> None:
    assert parse(line.split()) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [("--cfg", "--cfg job"), ("--cfg all", "--cfg job"), ("-m --cfg job seed=1,2", "omit -m")],
)
def test_flags_that_cannot_be(line: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(line.split())


# --- the help page ----------------------------------------------------------------------------------------------------


def test_the_help_page_shows_what_there_is() -> None:
    page = help_page.render()
    lines = page.splitlines()
    for group in where.groups():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {group}: "))
        for option in where.options(group):
            line = next(line for line in lines[at:] if line[4:].startswith(f"{option} "))
            assert line[26:], f"{group}={option} says nothing about itself"
    assert max(map(len, lines)) < 120
    assert page.isascii()
    for key in help_page._KEYS:
        assert any(line.startswith(f"  {key} ") and len(line.split()) > 2 for line in lines)
    for flag in ("--help", "--cfg job", "--multirun"):
        assert flag in page


# --- several jobs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "jobs"),
    [
        ("", [[]]),
        ("seed=1", [["seed=1"]]),
        ("seed=0,1 optimizer=adamw,sgd", [[f"seed={s}", f"optimizer={o}"] for s in (0, 1) for o in ("adamw", "sgd")]),
        ("seed=choice(3,5)", [["seed=3"], ["seed=5"]]),
        ("seed=range(1,4)", [["seed=1"], ["seed=2"], ["seed=3"]]),
        ("seed=range(0,5,2)", [["seed=0"], ["seed=2"], ["seed=4"]]),
        ("model=glob(resnet*)", [["model=resnet18"], ["model=resnet50"]]),
        ("dataset=glob(*ct,exclude=sars*)", [["dataset=covid19ct"]]),
        ("+experiment=a,b", [["+experiment=a"], ["+experiment=b"]]),
        ("augment.scale=[0.9,1],[0.8,1]", [["augment.scale=[0.9,1]"], ["augment.scale=[0.8,1]"]]),
        ("seed=[", [["seed=["]]),
        ("--fast", [["--fast"]]),
    ],
)
def test_jobs(line: str, jobs: list[list[str]]) -> None:
    assert expand(line.split()) == (jobs, [])


def test_quoted_values_stay_whole() -> None:
    assert expand(["run.name='a,b'"]) == ([["run.name='a,b'"]], [])
    assert expand(["run.name='a b','c,d'"])[0] == [["run.name='a b'"], ["run.name='c,d'"]]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optimizer.lr=interval(0,1)", "no end of values"),
        ("model=glob(vgg*)", "no value at all"),
        ("seed=glob(*)", "no value at all"),
        ("seed=range(3,3)", "no value at all"),
        ("seed=range(100000000000)", "more than 1000 combinations"),
    ],
)
def test_values_that_cannot_be_listed(override: str, says: str) -> None:
    _, problems = expand([override])
    assert len(problems) == 1
    assert says in problems[0]


class Children:
    """Stands in for ``subprocess.Popen``: ends each process with the next code, and remembers what was started."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.commands: list[list[str]] = []
        self.running = 0

    def __call__(self, command: list[str], env: object) -> Children:
        self.commands.append(command)
        return self

    def __enter__(self) -> Children:
        self.running += 1
        assert self.running == 1, "one after the other"
        return self

    def __exit__(self, *_: object) -> None:
        self.running -= 1

    def wait(self) -> int:
        return self.codes.pop(0)


ARGV = ["-m", "several=1,2"]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    fake = Children()
    monkeypatch.setattr(multirun.subprocess, "Popen", fake)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "bin/ddtl", "train", *ARGV])
    return fake


def test_each_job_is_a_process_of_its_own(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    children.codes = [0, 0, 0]
    assert multirun.run_each(["seed=0,1,2", "run.name='s 1-${seed}'"], ARGV) == 0
    assert children.commands == [
        [sys.executable, "-X", "dev", "bin/ddtl", "train", f"seed={seed}", "run.name='s 1-${seed}'"]
        for seed in range(3)
    ]
    assert "job 2 of 3: seed=1" in capfd.readouterr().err


def test_a_failing_job_is_reported_and_the_others_run(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    children.codes = [0, 1, 2, 0]
    assert multirun.run_each(["seed=range(4)"], ARGV) == 1
    assert len(children.commands) == 4
    written = capfd.readouterr().err
    assert "job 2 of 4 ended with exit code 1: seed=1" in written
    assert "job 3 of 4 ended with exit code 2: seed=2" in written


@pytest.mark.parametrize(("code", "ends_in"), [(130, 130), (143, 143), (-signal.SIGTERM, 143), (-signal.SIGKILL, 137)])
def test_a_job_stopped_by_a_signal_ends_the_command(children: Children, code: int, ends_in: int) -> None:
    children.codes = [0, code, 0]
    with pytest.raises(Stopped) as stop:
        multirun.run_each(["seed=range(3)"], ARGV)
    assert stop.value.exit_code == ends_in
    assert len(children.commands) == 2


def test_all_mistakes_of_all_jobs_come_before_the_first_starts(children: Children) -> None:
    with pytest.raises(UserError) as caught:
        multirun.run_each(["seed=0,x,-1", "optimizer=adamw,sgdd", "lr=1", "trainer.max_epochs=interval(1,2)"], ARGV)
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 problems in the configuration:"
    for start in ("trainer.max_epochs=interval(1,2):", "seed=x:", "seed=-1:", "optimizer=sgdd:", "lr=1:"):
        assert sum(line.strip().startswith(start) for line in lines) == 1
    assert children.commands == []


def test_jobs_of_one_name_are_refused(children: Children) -> None:
    with pytest.raises(UserError, match=r"run\.name=x: 2 jobs would share this one folder"):
        multirun.run_each(["seed=0,1", "run.name=x"], ARGV)
    children.codes = [0, 0, 0, 0]
    assert multirun.run_each(["seed=0,1", "run.name=x,y", "debug=limit"], ARGV) == 0


def test_warnings_come_from_the_jobs_alone(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    children.codes = [0, 0]
    assert multirun.run_each(["seed=0,1", "optimizer.momentum=0.3"], ARGV) == 0
    assert "no effect" not in capfd.readouterr().err


# --- exit codes and signals -------------------------------------------------------------------------------------------


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``guarded`` with the signal handlers put back afterwards."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "orig_argv", ["/env/bin/python3", "train.py", "run.name=two words", "seed=1"])
    yield launch.guarded
    for signum, handler in before.items():
        signal.signal(signum, handler)


def raiser(error: BaseException) -> Any:
    def main(argv: list[str]) -> int:
        raise error

    return main


AGAIN = "/env/bin/python3 train.py 'run.name=two words' seed=1"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("seed=[x]: no"), 2, "error: seed=[x]: no\n"),
        (TrainingFailure("broken"), 1, f"error: broken\nThe same command resumes it:\n  {AGAIN}\n"),
        (NotFinite("nan: lower optimizer.lr"), 1, "error: nan: lower optimizer.lr\n"),  # it would be so again
        (Stopped(15), 143, f"stopped by signal 15; the same command resumes it:\n  {AGAIN}\n"),
    ],
)
def test_what_ends_a_command(
    guard: Any, capfd: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    assert guard(raiser(error), []) == code
    written = capfd.readouterr()
    assert written.err == says
    assert written.out == ""


def test_what_a_library_makes_of_a_stop_is_a_stop(guard: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except Stopped as stop:
            raise ValueError(f"Error building schema: {stop}") from None
        return 0

    assert guard(main, []) == 130
    assert capfd.readouterr().err.startswith("stopped by signal 2; the same command resumes it:")


def test_the_line_to_paste_is_the_command(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shlex.split(launch._command()) == sys.orig_argv
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "run.overwrite=true", "seed=1"])
    assert launch._command() == "python train.py seed=1"


def test_other_exceptions_are_bugs(guard: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        guard(raiser(ZeroDivisionError()), [])
    assert guard(len, ["a", "b", "c"]) == 3


JOB = """\
import sys, time
from ddtl.commands.launch import guarded

def main(argv):
    if "-m" in argv:
        from ddtl.commands.multirun import run_each
        return run_each([word for word in argv if word != "-m"], argv)
    try:
        print("started", flush=True)
        time.sleep(30)
    finally:
        print("unwound", flush=True)
    return 0

sys.exit(guarded(main, sys.argv[1:]))
"""


def test_a_signal_to_the_command_lets_its_job_unwind(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(JOB)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, str(script), "-m", "seed=0,1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 143
    assert out == "unwound\n"
    assert "job 2" not in err
    assert err.endswith(f"  {shlex.join(command)}\n")


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_terminal_that_closes(guard: Any, capfd: pytest.CaptureFixture[str], handler: signal.Handlers) -> None:
    """A hang-up ends the command in order; not under nohup, which has it ignored."""
    signal.signal(signal.SIGHUP, handler)

    def main(argv: list[str]) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return 0

    ignored = handler == signal.SIG_IGN
    assert guard(main, []) == (0 if ignored else 129)
    said = f"stopped by signal 1; the same command resumes it:\n  {AGAIN}\n"
    assert capfd.readouterr().err == ("" if ignored else said)


# --- whole commands ---------------------------------------------------------------------------------------------------


def test_a_mistake_costs_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    ended = started(str(TRAIN), "dataset=phantum", "seeds=1", "trainer.max_epochs=ten", "--fast", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert lines[0] == "error: 4 problems in the configuration:"
    assert [line.strip().split(":")[0] for line in lines[1:]] == [
        "dataset=phantum", "--fast", "seeds=1", "trainer.max_epochs=ten",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_several_devices_are_refused_in_a_sweep(tmp_path: Path) -> None:
    ended = started(str(TRAIN), "-m", "seed=0", "trainer.devices=2,1", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "Start such runs one by one" in ended.stderr
    assert "seed=0 trainer.devices=2 requests trainer.devices=2" in ended.stderr
    assert list(tmp_path.iterdir()) == []


LIGHT = f"""\
import importlib, pkgutil, sys
sys.path.insert(0, {str(ROOT)!r})
heavy = ("torch", "pytorch_lightning", "albumentations", "wandb", "sklearn", "scipy", "torchvision", "optuna", "pandas")

def check(after):
    loaded = [name for name in heavy if name in sys.modules]
    assert not loaded, (after, loaded)

import train
from ddtl.commands.launch import guarded
check("start")
import ddtl.config
for module in pkgutil.iter_modules(ddtl.config.__path__):
    importlib.import_module(f"ddtl.config.{{module.name}}")
    check(module.name)
for words, code in (
    (["--help"], 0),
    (["--cfg", "job", "experiment=ddtl_cov_covid19ct"], 0),
    (["seed=x"], 2),
    (["-m", "seed=x,1"], 2),
):
    assert guarded(train.main, words) == code
    check(words)
from ddtl.config.load import load
load(["seed=3", "logger=csv"])
check("load")
import ddtl.utils.errors
assert ddtl.utils.errors.EXIT_MISTAKE == 2
1 / 0
"""


def test_nothing_heavy_is_imported_before_training(tmp_path: Path) -> None:
    """Torch and Lightning take seconds; a mistake is answered without them. An exception of ours is a traceback."""
    ended = started("-c", LIGHT, cwd=tmp_path)
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr.splitlines()[-1], ended.stderr[-2000:]
    assert ended.stdout.startswith("Train, score and record one model.")
    assert "protocol: official" in ended.stdout
    assert list(tmp_path.iterdir()) == []
