"""Loggers: what they keep, what they send, and that nothing that befalls them harms a run.

A small stand-in for a W&B server on the loopback device answers, dies, hangs and remembers what it was sent.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import wandb
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import Logger

from ddtl.config.load import load
from ddtl.models.weights import Weights
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.training import loggers
from ddtl.training.loggers import CSVFile
from ddtl.training.run import Run
from tests.support import wandb_file

PUBLIC = {"optimizer": {"lr": 0.001}, "seed": 1}
CURVE = [{"val/loss": 0.5}, {"val/loss": 0.25}, {"val/loss": 0.125}]


@pytest.fixture(autouse=True)
def _wandb_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B as on a machine that never saw it, and nobody at the keyboard."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: pytest.fail("asked for a key"))
    monkeypatch.setattr("sys.stdin", None)
    wandb.teardown()
    yield
    wandb.teardown()
    assert cores() == {}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    path = tmp_path / "runs" / "zebra-run"
    path.mkdir(parents=True)
    return RunFolder(path)


def config(mode: str = "offline", *overrides: str) -> Config:
    return load(["dataset=phantom", "logger=none", f"logger.wandb.mode={mode}", "logger.wandb.timeout=60", *overrides])


def log_curve(shown_to: list[Logger]) -> None:
    for logger in shown_to:
        for step, metrics in enumerate(CURVE):
            logger.log_metrics(metrics, step=step)
            logger.save()


def run(config: Config, folder: RunFolder) -> None:
    with loggers.opened(config, folder, PUBLIC) as shown_to:
        assert len(shown_to) == 1
        log_curve(shown_to)


def cores() -> dict[int, str]:
    """Process ids and command lines of W&B's service that this process has started and not ended."""
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return {int(line.split()[0]): line for line in lines if "wandb-core" in line and "<defunct>" not in line}


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name.startswith("ddtl.")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def offline_files(folder: RunFolder) -> list[Path]:
    wandb.teardown()  # as the end of the process does; W&B writes in the background until then
    return wandb_file.find(folder.path)


def the_file(folder: RunFolder) -> Path:
    (path,) = offline_files(folder)
    return path


# Offline


def test_an_offline_run_records_settings_curves_and_end(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    run(config("offline", "logger.wandb.tags=[a,b]"), folder)
    path = the_file(folder)
    assert wandb_file.config(path) == PUBLIC
    points = [{k: v for k, v in row.items() if not k.startswith("_")} for row in wandb_file.history(path)]
    assert points == [{**metrics, "trainer/global_step": step} for step, metrics in enumerate(CURVE)]
    assert wandb_file.summary(path)["val/loss"] == CURVE[-1]["val/loss"]
    assert wandb_file.exit_code(path) == 0
    record = wandb_file.run(path)
    assert (record.project, record.display_name, list(record.tags)) == ("ddtl", "zebra-run", ["a", "b"])
    assert "metric" in wandb_file.kinds(path), "the x-axis is trainer/global_step"
    assert warnings_in(caplog) == []


def test_long_settings_come_back_whole(folder: RunFolder) -> None:
    long = {"text": "x" * 100_000}
    with loggers.opened(config(), folder, long):
        pass
    assert wandb_file.config(the_file(folder)) == long


def test_a_failed_run_is_marked_as_failed(folder: RunFolder) -> None:
    with pytest.raises(KeyboardInterrupt), loggers.opened(config(), folder, PUBLIC):
        raise KeyboardInterrupt
    assert wandb_file.exit_code(the_file(folder)) == 1


def test_a_run_resumed_with_offline_is_a_further_piece_of_its_group(folder: RunFolder) -> None:
    run(config(), folder)
    base = folder.wandb_id.read_text()
    run(config(), folder)
    assert folder.wandb_id.read_text() == base
    records = [wandb_file.run(path) for path in offline_files(folder)]
    assert {record.run_group for record in records} == {base}
    ids = {record.run_id for record in records}
    assert len(ids) == 2
    assert base not in ids, "sent later, it would overwrite the online run"


def test_a_group_can_be_named(folder: RunFolder) -> None:
    run(config("offline", "logger.wandb.group=study"), folder)
    assert wandb_file.run(the_file(folder)).run_group == "study"


# What leaves the machine

SECRETS = ("secretdir", "secretscript", "secretarg", "secretuser", "secrethost", "secretremote", "secretprinted")


@pytest.fixture
def _secretive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script with a telling command line, run by someone on a host with a name, in a clone of something."""
    here = tmp_path / "secretdir"
    here.mkdir()
    script = here / "secretscript.py"
    script.write_text("import wandb")
    git = ["git", "-C", str(here), "-c", "user.name=secretuser", "-c", "user.email=secretuser@x.org"]
    for command in (["init", "-q"], ["remote", "add", "origin", "https://secretremote/x"], ["add", "."]):
        subprocess.run([*git, *command], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as when started by its path, not by `python -m`
    monkeypatch.setattr(sys, "argv", [str(script), "paths.data_dir=/secretarg"])
    monkeypatch.setattr(socket, "gethostname", lambda: "secrethost")
    for name in ("USER", "LOGNAME", "USERNAME", "EMAIL"):
        monkeypatch.setenv(name, "secretuser")


def secretive_run(folder: RunFolder, mode: str) -> None:
    """A run whose data, weights and initial network lie in telling places."""
    settings = config(mode, "paths.data_dir=/secretdir/data", "paths.runs_dir=/secretdir/runs", "run.name=shown")
    settings = settings.model_copy(
        update={"model": settings.model.model_copy(update={"weights": "/secretdir/secretuser.pth"})}
    )
    weights = Weights("secretdir.pth", Path("/secretdir/secretuser.pth"), "ab" * 32)
    data: Any = SimpleNamespace(digest="cd" * 32)
    none: Any = None
    with loggers.opened(settings, folder, Run(settings, none, data, weights, none).public_settings()) as shown_to:
        print("secretprinted")
        log_curve(shown_to)


def must_hold_nothing_of(content: bytes, *more: str) -> None:
    host = os.uname().nodename
    unlikely_by_chance = [name for name in (*SECRETS, *more, sys.executable, host) if len(name) > 5]
    for name in unlikely_by_chance:
        at = content.find(name.encode())
        assert at < 0, content[max(0, at - 100) : at + 100]


@pytest.mark.usefixtures("_secretive")
def test_an_offline_run_holds_nothing_of_this_machine(folder: RunFolder) -> None:
    secretive_run(folder, "offline")
    path = the_file(folder)
    must_hold_nothing_of(path.read_bytes() + b"".join(wandb_file.payloads(path)), str(folder.path.parent))
    assert set(wandb_file.kinds(path)) <= {
        "header", "run", "config", "telemetry", "metric", "summary", "history", "exit"
    }  # fmt: skip
    assert wandb_file.run(path).host == ""
    assert wandb_file.config(path)["model"]["weights"] == "file"
    assert [file for file in (path.parent / "files").rglob("*") if file.is_file()] == [], "would be sent, too"


@pytest.mark.usefixtures("_secretive")
def test_an_online_run_sends_nothing_of_this_machine(folder: RunFolder, server: Server) -> None:
    secretive_run(folder, "online")
    assert b"val/loss" in server.received()
    must_hold_nothing_of(server.received(), str(folder.path.parent))
    assert {request.path.rpartition("/")[2] for request in server.requests if request.method == "PUT"} == {
        "config.yaml",
        "wandb-summary.json",
    }
    assert not [request.path for request in server.requests if "otel" in request.path]


def test_more_is_sent_where_it_is_allowed() -> None:
    private, allowed = (loggers._settings(1, private=private) for private in (True, False))
    for name in ("x_disable_meta", "x_disable_machine_info", "disable_code", "disable_git"):
        assert (getattr(private, name), getattr(allowed, name)) == (True, False), name
    assert (private.host, allowed.host) == ("", None)
    assert private.console == "off"


# A server


class Server(ThreadingHTTPServer):
    """Says what W&B's server says to a run that it takes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[SimpleNamespace] = []
        self.hangs = False
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def received(self) -> bytes:
        return b"\n".join(f"{r.method} {r.path} {r.headers}".encode() + r.body for r in self.requests)

    def run_ids(self) -> set[str]:
        calls = [json.loads(r.body) for r in self.requests if r.path == "/graphql"]
        return {call["variables"]["name"] for call in calls if "upsertBucket" in call["query"]}

    def exit_codes(self) -> list[int]:
        streams = [json.loads(r.body) for r in self.requests if r.path.endswith("/file_stream")]
        return [stream["exitcode"] for stream in streams if stream.get("complete")]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append(
            SimpleNamespace(method=self.command, path=self.path, headers=dict(self.headers), body=body)
        )
        while self.server.hangs:
            time.sleep(0.1)
        answer = json.dumps(self._contents(body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815

    def _contents(self, body: bytes) -> dict[str, Any]:
        if self.path != "/graphql":
            return {}
        call = json.loads(body)
        if "upsertBucket" in call["query"]:
            name = call["variables"]["name"]
            project = {"id": "p", "name": "ddtl", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": name, "name": name, "displayName": name, "historyLineCount": 0, "project": project}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "createRunFiles" in call["query"]:
            url = f"http://127.0.0.1:{self.server.server_port}/upload/"
            files = [{"name": name, "uploadUrl": url + name} for name in call["variables"]["files"]]
            return {"data": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}}
        if "viewer" in call["query"]:
            return {"data": {"viewer": {"id": "u", "entity": "me", "flags": "{}", "teams": {"edges": []}}}}
        return {"data": {"model": {"bucket": None}}}

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the user is logged in at."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.hangs = False
        server.shutdown()


def test_a_run_resumed_with_online_keeps_its_id(folder: RunFolder, server: Server) -> None:
    run(config("auto"), folder)
    with pytest.raises(ZeroDivisionError), loggers.opened(config("auto"), folder, PUBLIC):
        raise ZeroDivisionError
    base = folder.wandb_id.read_text()
    assert server.run_ids() == {base}
    assert server.exit_codes() == [0, 1]
    assert offline_files(folder) == []
    run(config("offline"), folder)  # sent later under the same id, it would overwrite what is there
    record = wandb_file.run(the_file(folder))
    assert record.run_id != base
    assert record.run_group == base


@pytest.mark.parametrize("how", ["dies", pytest.param("hangs", marks=pytest.mark.slow)])
def test_a_server_lost_in_the_middle_holds_up_the_end_for_a_limited_time(
    folder: RunFolder, server: Server, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(loggers, "FINISH_TIMEOUT", 2.0)
    with loggers.opened(config("auto"), folder, PUBLIC) as shown_to:
        if how == "dies":
            server.shutdown()
            server.server_close()
        else:
            server.hangs = True
        log_curve(shown_to)
        started = time.monotonic()
    wandb.teardown()
    assert time.monotonic() - started < loggers.FINISH_TIMEOUT + 240, "no limit is set"
    (kept,) = folder.path.glob("wandb/run-*/*.wandb")
    assert len(wandb_file.history(kept)) == len(CURVE), "kept for `wandb sync`"


def test_the_death_of_w_and_b_s_own_service_is_a_warning(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    with loggers.opened(config(), folder, PUBLIC) as shown_to:
        (core,) = cores()
        os.kill(core, signal.SIGKILL)
        until = time.monotonic() + 120
        while not warnings_in(caplog):  # W&B notices after a moment
            assert time.monotonic() < until
            log_curve(shown_to)
            time.sleep(0.05)
    with contextlib.suppress(ConnectionError):
        wandb.teardown()
    first, last = warnings_in(caplog)
    assert first.startswith("WandbLogger is broken, continuing without it: ")
    assert last.startswith("W&B did not come to its end: ")


@pytest.mark.parametrize("how", ["refuses", pytest.param("never answers", marks=pytest.mark.slow)])
def test_a_dead_server_is_a_warning_and_an_offline_run(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if how == "never answers":
            listener.listen(50)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        started = time.monotonic()
        with loggers.opened(config("auto", "logger.wandb.timeout=2"), folder, PUBLIC) as shown_to:
            assert time.monotonic() - started < 80, "W&B itself would wait for 90 s"
            (core,) = cores().values()
            assert "--no-observability" in core, "else its reports hold up the end of the process"
            log_curve(shown_to)
        wandb.teardown()
    (warning,) = warnings_in(caplog)
    assert warning.startswith("W&B cannot be reached, continuing offline: ")
    path = the_file(folder)
    assert len(wandb_file.history(path)) == len(CURVE)
    assert wandb_file.exit_code(path) == 0
    assert list(folder.path.glob("wandb/run-*")) == [], "what the failed start left"


DEAD = """
import socket, sys, time
from pathlib import Path
from ddtl.config.load import load
from ddtl.training import loggers
from ddtl.records.run_folder import RunFolder
import wandb
config = load(["dataset=phantom", "logger=wandb"])
started = time.monotonic()
with loggers.opened(config, RunFolder(Path(sys.argv[1])), {}) as shown_to:
    print(time.monotonic() - started, len(shown_to), flush=True)
print(time.time(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "stdin"), [("refuses", "a pipe"), ("never answers", "nothing")])
def test_a_dead_server_in_a_process_of_its_own(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, how: str, stdin: str
) -> None:
    """With the default timeout, nobody at the keyboard, and an end that nothing holds up."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if how == "never answers":
            listener.listen(50)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        process = subprocess.Popen(
            [sys.executable, "-c", DEAD, str(folder.path)],
            stdin=subprocess.PIPE if stdin == "a pipe" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        first, last = process.stdout.readline(), process.stdout.readline()
        assert process.wait(timeout=300) == 0
        ended = time.time()
    print(first, ended - float(last))
    assert float(first.split()[0]) < 80  # W&B itself would wait for 90 s
    assert first.split()[1] == "1"
    assert ended - float(last) < 60


# Without a key, and switched off


def test_without_a_key_it_is_offline_without_a_word(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    run(config("auto"), folder)
    assert warnings_in(caplog) == []
    assert wandb_file.exit_code(the_file(folder)) == 0


def test_online_without_a_key_is_a_warning_and_no_question(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("stdin", "stdout", "stderr"):  # even with somebody at the keyboard
        stream = SimpleNamespace(isatty=lambda: True, write=lambda _: 0, flush=lambda: None, fileno=lambda: 0)
        monkeypatch.setattr(sys, name, stream)
    run(config("online"), folder)
    assert warnings_in(caplog) == ["W&B: not logged in, continuing offline. Type `wandb login`, or set WANDB_API_KEY."]
    assert wandb_file.exit_code(the_file(folder)) == 0


@pytest.mark.parametrize(
    ("machine", "server", "known"),
    [
        ("api.wandb.ai", None, True),
        ("elsewhere.org", None, False),
        ("localhost:8080", "http://localhost:8080", True),
        ("api.wandb.ai", "http://localhost:8080", False),
    ],
)
def test_a_key_in_netrc_is_seen(monkeypatch: pytest.MonkeyPatch, machine: str, server: str | None, known: bool) -> None:
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    path = Path(os.environ["NETRC"])
    path.write_text(f"machine {machine}\n  login user\n  password {'0' * 40}\n")
    path.chmod(0o600)
    assert loggers._logged_in() == known


@pytest.mark.parametrize(
    ("mode", "variable", "pieces"),
    [
        ("auto", "disabled", 0),
        ("auto", "offline", 1),
        ("auto", "dryrun", 1),
        ("disabled", "online", 0),
    ],
)
def test_the_variable_decides_where_the_configuration_does_not(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, mode: str, variable: str, pieces: int
) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    with loggers.opened(config(mode), folder, PUBLIC) as shown_to:
        assert len(shown_to) == pieces
    assert len(offline_files(folder)) == pieces
    assert folder.wandb_id.exists() == bool(pieces)


@pytest.mark.parametrize("how", ["not installed", "broken"])
def test_without_w_and_b_the_run_resumes(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    if how == "not installed":
        monkeypatch.setitem(sys.modules, "wandb", None)
    else:
        monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    with loggers.opened(config(), folder, PUBLIC) as shown_to:
        assert shown_to == []
    (warning,) = warnings_in(caplog)
    assert warning.startswith("W&B does not work here, continuing without it: ")


def test_a_run_of_the_caller_s_own_is_left_alone(folder: RunFolder, tmp_path: Path) -> None:
    own = wandb.init(mode="offline", dir=str(tmp_path), id="own", settings=wandb.Settings(silent=True))
    run(config(), folder)
    assert wandb.run is own
    own.log({"x": 1})
    own.finish()
    assert wandb_file.run(the_file(folder)).run_id != "own"


# The run's own files


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_and_tensorboard_keep_every_point_in_the_run_s_folder(folder: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with loggers.opened(config("disabled", "logger.csv=true", "logger.tensorboard=true"), folder, PUBLIC) as shown_to:
        assert len(shown_to) == 2
        log_curve(shown_to)
        for logger in shown_to:
            logger.finalize("success")  # as Lightning does at the end of training
            logger.log_metrics({"final/test/f1": 0.75}, step=3)
    found = rows(folder.path / "csv" / "metrics.csv")
    assert [row["val/loss"] for row in found] == ["0.5", "0.25", "0.125", ""]
    assert (found[-1]["step"], found[-1]["final/test/f1"]) == ("3", "0.75")
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("val/loss")] == [0.5, 0.25, 0.125]
    assert [event.value for event in events.Scalars("final/test/f1")] == [0.75]
    assert {child.name for child in folder.path.iterdir()} == {"csv", "tensorboard"}


def test_lightning_works_with_the_csv_file(tmp_path: Path) -> None:
    class Logs(BoringModel):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/loss", float(batch_idx))

    path = tmp_path / "csv" / "metrics.csv"
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=2,
        limit_val_batches=2,
        logger=CSVFile(path),
        enable_checkpointing=False,
        enable_progress_bar=False,
        log_every_n_steps=2,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Logs())
    assert trainer.log_dir == str(path.parent)
    assert [(row["step"], row["epoch"], row["val/loss"]) for row in rows(path)] == [
        ("1", "0.0", "0.5"),
        ("3", "1.0", "0.5"),
    ]


def test_the_csv_file_of_a_run_resumed_with_resumes(tmp_path: Path) -> None:
    path = tmp_path / "csv" / "metrics.csv"
    first = CSVFile(path)
    for step in range(4):
        first.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
        first.log_metrics({"val/loss": 2.0 / (step + 1)}, step=step)  # as Lightning, apart, at the same step
        first.save()
    before = rows(path)
    second = CSVFile(path)
    second.save()
    assert rows(path) == before
    second.log_metrics({"train/loss": 9.0, "epoch": 2}, step=2)  # the last checkpoint was made at step 1
    second.save()
    after = rows(path)
    assert [(row["step"], row["train/loss"], row["val/loss"], row["epoch"]) for row in after] == [
        ("0", "1.0", "2.0", ""),
        ("1", "0.5", "1.0", ""),
        ("2", "9.0", "", "2.0"),
    ]


def test_a_logger_that_fails_is_a_warning_and_silent_from_then_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / "csv").write_text("a file where its folder should be")
    with loggers.opened(config("disabled", "logger.csv=true"), folder, PUBLIC) as shown_to:
        log_curve(shown_to)
    (warning,) = [warning for warning in warnings_in(caplog) if "continuing" in warning]
    assert warning.startswith("CSVFile is broken, continuing without it: ")
