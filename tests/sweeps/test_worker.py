"""A worker: its slots, how it is stopped, and what becomes of its trials when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ddtl.sweeps import engines
from ddtl.sweeps.store import open, outcome
from ddtl.sweeps.store.outcome import Outcome
from ddtl.sweeps.store.store import Store
from ddtl.sweeps.workers import cleanup, processes, stopping, worker
from ddtl.sweeps.workers.processes import Slot
from ddtl.sweeps.workers.stopping import Stop
from ddtl.sweeps.workers.trial import TrialJob
from ddtl.utils.errors import Stopped, TrainingFailure
from ddtl.utils.files import write_json
from ddtl.utils.reading import read_lines
from tests.support import records
from tests.support.sweep_plans import plan
from tests.support.sweep_trials import attempts, instead, states, unseen, worked

ROOT = Path(__file__).resolve().parents[2]


def marks(job: TrialJob) -> Path:
    """A file that trials write to."""
    return job.sweep / "marks.jsonl"


def mark(job: TrialJob, **facts: object) -> None:
    with marks(job).open("a") as file:
        file.write(json.dumps({"number": job.number, "at": time.monotonic(), **facts}) + "\n")


def until_asked(job: TrialJob) -> Outcome:
    """An endless trial that has a checkpoint twenty times a second."""
    while not job.stop.exists():
        mark(job)
        time.sleep(0.05)
    return outcome.stopped()


def when(*steps: tuple[Callable[[], bool], signal.Signals]) -> threading.Thread:
    """Send this process each signal as soon as its condition holds."""

    def send() -> None:
        for condition, signum in steps:
            wait_for(condition)
            assert isinstance(getattr(signal.getsignal(signum), "__self__", None), Stop), "it would end the tests"
            os.kill(os.getpid(), signum)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def running(store: Store, count: int) -> Callable[[], bool]:
    """Whether so many trials have marked something."""
    path = store.folder / "marks.jsonl"
    return lambda: path.exists() and len({row["number"] for row in read_lines(path)}) >= count


def stopping_begun(store: Store) -> bool:
    """Whether the first signal has been answered."""
    return bool(list(store.folder.glob(".stop*")))


def test_as_many_trials_run_at_a_time_as_there_are_slots(monkeypatch, tmp_path):
    def body(job: TrialJob) -> Outcome:
        mark(job, what="begin", slot=os.environ["CUDA_VISIBLE_DEVICES"])
        if job.number < 2:  # the first two end when both have begun
            wait_for(lambda: len({row["number"] for row in read_lines(marks(job))}) >= 2)
        mark(job, what="end")
        return outcome.completed([job.number / 10])

    instead(monkeypatch, body)
    store = open.open_sweep(plan(tmp_path / "runs", "n_trials=5"))
    slots = [Slot("left", ("0", "3")), Slot("right", ("GPU-7",))]
    assert worker.work(store, slots, Stop(tmp_path / "stop"), unseen) is None
    rows = read_lines(store.folder / "marks.jsonl")
    at_a_time = [sum(1 if row["what"] == "begin" else -1 for row in rows[: i + 1]) for i in range(len(rows))]
    assert max(at_a_time) == 2
    assert {row["slot"] for row in rows if row["what"] == "begin"} == {"0,3", "GPU-7"}
    assert {trial.user_attrs["owner"]["worker"] for trial in store.trials()} == {"left", "right"}
    assert states(store) == ["COMPLETE"] * 5


def test_slurm_is_hidden_from_trials_and_an_unset_slot_leaves_the_gpus_alone(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert "SLURM_NTASKS" not in Slot("any").environment()
    assert Slot("any").environment()["CUDA_VISIBLE_DEVICES"] == "2"
    assert Slot("none", ()).environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_the_first_ctrl_c_lets_trials_come_to_a_checkpoint(monkeypatch, tmp_path):
    instead(monkeypatch, until_asked)
    store = open.open_sweep(plan(tmp_path / "runs", "n_trials=3"))
    thread = when((running(store, 1), signal.SIGINT))
    with pytest.raises(Stopped) as stopped:
        engines.run(store, unseen)
    thread.join()
    assert stopped.value.exit_code == 130
    assert attempts(store) == [("stopped", "")]
    assert states(store) == ["WAITING"]
    assert not list(store.folder.glob(".stop*"))

    instead(monkeypatch, lambda job: outcome.completed([0.5]))
    engines.run(open.open_sweep(plan(tmp_path / "runs", "n_trials=3")), unseen)
    assert states(store) == ["COMPLETE"] * 3
    assert [reason for reason, _ in attempts(store)] == ["stopped", "completed"]


def test_the_second_ctrl_c_ends_trials_now(monkeypatch, tmp_path):
    def deaf(job: TrialJob) -> Outcome:
        mark(job, pid=os.getpid())
        time.sleep(600)
        raise AssertionError

    instead(monkeypatch, deaf)
    store = open.open_sweep(plan(tmp_path / "runs", "n_trials=2", "engine.workers=2"))
    thread = when((running(store, 2), signal.SIGINT), (lambda: stopping_begun(store), signal.SIGTERM))
    with pytest.raises(Stopped) as stopped:
        engines.run(store, unseen)
    thread.join()
    assert stopped.value.exit_code == 143
    assert states(store) == ["WAITING"] * 2
    for row in read_lines(store.folder / "marks.jsonl"):
        with pytest.raises(ProcessLookupError):
            os.kill(row["pid"], 0)


def test_handlers_of_signals_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with stopping.opened(tmp_path) as stop, stop.by_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
        assert not stop.is_requested()
        stop.ask()
        assert Stop(stop.path).is_requested()  # in another process
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list(tmp_path.iterdir())


def test_trials_end_with_a_worker_that_is_killed(tmp_path):
    script = f"""
import multiprocessing, os, time
from pathlib import Path
from ddtl.sweeps.store import open as opening, outcome as settle
from ddtl.sweeps.workers import processes, trial, worker
from ddtl.sweeps.workers.processes import Slot
from ddtl.sweeps.workers.stopping import Stop
from tests.support.sweep_plans import plan

def body(job):
    (job.sweep / "pid").write_text(str(os.getpid()))
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    (job.sweep / "child").write_text(str(child))
    time.sleep(600)

trial._run = body
processes.prepare = lambda **_: multiprocessing.get_context("fork")
store = opening.open_sweep(plan(Path({str(tmp_path)!r}), "n_trials=1"))
worker.work(store, [Slot("one")], Stop(store.folder / "stop"), lambda snapshot: None)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    folder = tmp_path / "sweeps" / "small"
    wait_for(lambda: (folder / "child").exists() and (folder / "child").read_text() != "", process)
    process.kill()
    process.wait()
    for name in ("pid", "child"):
        pid = int((folder / name).read_text())
        wait_for(lambda pid=pid: not runs(pid))
    store = open.open_sweep(plan(tmp_path, "n_trials=1"))
    assert states(store) == ["WAITING"]
    assert attempts(store)[0][0] == "killed"


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        assert process is None or process.poll() is None or condition(), "it has ended"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_that_cannot_be_started_is_a_failure_with_words(monkeypatch):
    class Broken:
        def start(self) -> None:
            raise EOFError

    with pytest.raises(TrainingFailure, match="training stack cannot be imported"):
        processes._start(Broken())


def folder(tmp_path: Path, name: str) -> Path:
    """A run's folder with its checkpoints."""
    path = tmp_path / "runs" / "phantom" / name
    (path / "checkpoints").mkdir(parents=True)
    for file in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "predictions.csv"):
        (path / file).touch()
    write_json(path / "identity.json", {})
    return path


def kept(path: Path) -> bool:
    """Whether its checkpoints are there; its record always is."""
    assert (path / "predictions.csv").exists()
    here = [(path / "checkpoints" / name).exists() for name in ("last.ckpt", "best.ckpt")]
    assert here in ([True, True], [False, False])
    return here[0]


def test_checkpoints_are_kept_of_the_best_trials_and_of_what_was_there_before(monkeypatch, tmp_path):
    before = folder(tmp_path, "before")
    os.utime(before / "identity.json", (0, 0))
    scores = {0: 0.5, 1: 0.9, 2: 0.7, 3: 0.6, 4: 0.1}

    def body(job: TrialJob) -> Outcome:
        store = open.reopen(job.sweep)
        path = before if job.number == 4 else folder(tmp_path, str(job.number))
        store.note(job.number, {"run": str(path)})
        if job.number == 5:
            return outcome.pruned()
        if job.number == 6:
            raise ValueError("broken")
        if job.number == 3:
            write_json(path / "results.json", records.record(records.table()))
        return outcome.completed([scores[job.number]])

    instead(monkeypatch, body)
    store, _ = worked(tmp_path, "n_trials=7", "sweep.keep=2")
    assert states(store) == [*["COMPLETE"] * 5, "PRUNED", "FAIL"]
    assert [kept(tmp_path / "runs" / "phantom" / str(i)) for i in (0, 1, 2, 3, 5, 6)] == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]
    assert kept(before)


def test_checkpoints_of_a_run_that_a_better_trial_shares_are_kept(monkeypatch, tmp_path):
    shared = folder(tmp_path, "shared")

    def body(job: TrialJob) -> Outcome:
        open.reopen(job.sweep).note(job.number, {"run": str(shared)})
        return outcome.completed([0.9]) if job.number else outcome.pruned()

    instead(monkeypatch, body)
    store, _ = worked(tmp_path, "n_trials=2", "sweep.keep=1")
    assert len(cleanup.losers(store)) == 0


@pytest.mark.slow
def test_the_server_that_trials_are_forked_from_has_one_thread_no_gpu_and_all_that_a_trial_imports(tmp_path):
    code = """
import sys
from pathlib import Path
import ddtl.sweeps.workers.preload
threads = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads:"))
assert threads.split()[1] == "1", threads
assert not sys.modules["torch"].cuda.is_initialized()

before = set(sys.modules)
from tests.support import runs
words = ("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_batches=1", "evaluation.test=false")
squeezenet = ("model=squeezenet1_1", "model.weights=none", "finetune=full")
runs.train(runs.config(Path(sys.argv[1]), *words, *squeezenet))
new = {name.partition(".")[0] for name in set(sys.modules) - before}
large = {"albumentations", "cv2", "pandas", "scipy", "sklearn", "torchvision", "pytorch_lightning", "plotly", "wandb"}
assert not new & large, new & large
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    typed = [sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(typed, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
