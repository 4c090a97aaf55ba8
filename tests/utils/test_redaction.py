"""Secrets in URLs and settings: used as given, and nowhere to be seen."""

from __future__ import annotations

import base64
import http.client
import os
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from ddtl.commands import launch
from ddtl.config import checks, load
from ddtl.config.load import ConfigError
from ddtl.data.download.download import Patience, credentials_sent, download
from ddtl.sweeps.plan import plan_file
from ddtl.sweeps.store import storages
from ddtl.training import hardware
from ddtl.utils import console, redaction
from ddtl.utils.files import write_json
from ddtl.utils.redaction import MASK, move_to_environment, redact, redact_tree
from tests.support.sweep_plans import plan

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("sweep.storge=postgresql+psycopg://me:hunter2@h/db", "sweep.storge=postgresql+psycopg://me:***@h/db"),
        ("'sweep.storage=postgresql://me:hun/ter2?#y@h:5432/db'", "'sweep.storage=postgresql://me:***@h:5432/db'"),
        ("postgresql://h/db?user=me&password=hunter2", "postgresql://h/db?user=me&password=***"),
        ("https://hunter2@host/data", "https://***@host/data"),
        ("https://hunter2:x-oauth-basic@host/data: not found", "https://***@host/data: not found"),
        ("https://s3.example/a.pth?X-Amz-Signature=hunter2&size=3", "https://s3.example/a.pth?X-Amz-Signature=***&size=3"),
        ("https://blob.example/x?sv=2024&sig=hunter2 (403)", "https://blob.example/x?sv=2024&sig=*** (403)"),
        ("https://x.example/?api_key=hunter2#token=hunter2", "https://x.example/?api_key=***#token=***"),
        ("a=[http://a:hunter2@b,http://c:hunter2@d]", "a=[http://***@b,http://***@d]"),
        ("me:hunter2@host/db", "me:***@host/db"),
        ("//me:hunter2@host/db", "//me:***@host/db"),
        ("http:/me:hunter2@host/db", "http:/***@host/db"),
        ("http:\\\\me:hunter2@host", "http:***@host"),
        ("https://me:hunter2 two words@host/x", "https://***@host/x"),
        ("postgresql://me:hun ter2@host:5432/db: refused", "postgresql://me:***@host:5432/db: refused"),
        ("logger.wandb.api_key=hunter2: no such key.", "logger.wandb.api_key=*** no such key."),
        ('engine.setup=["export WANDB_API_KEY=hunter2"]', 'engine.setup=["export WANDB_API_KEY=***"]'),
    ],
)  # fmt: skip
def test_a_secret_is_masked(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", "seed=3", "https://[::1]:8080/x", "https://host: refused", "ssh://git@host/x", "sqlite:////tmp/a.db",
        "https://host/@scope/x@2x.png", "https://host:9000/x@2x.png", "https://x.example/?monkey=1&size=2",
        "postgresql://me@host/db", "patients of me@host", "a//b:c@d", "C:/me@home/x",
        "https://host:8080 wrote to me@host", "https://host/x: mail to me@host", "covid/P01@2.png",
        "dataset.own={a: {table: 'b.csv'}}",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


URLS = [
    "http://me:hunter2 two@127.0.0.1:9/x", "http://me:a/hunter2@127.0.0.1:9/x", "http://me:a@hunter2@127.0.0.1:9/x",
    "http://hunter2@127.0.0.1:9/x", "//me:hunter2@127.0.0.1:9/x", "me:hunter2@127.0.0.1:9/x", "http:/me:hunter2@h/x",
    "http://127.0.0.1:9/x?token=hunter2", "http://me:hunter2?x@127.0.0.1:9/", "http://me:hunter2#x@127.0.0.1:9/",
    "http://me:\thunter2@127.0.0.1:9/x", "http://me:12/hunter2@127.0.0.1:9/x", "http://me%3Ahunter2@127.0.0.1:9/x",
    "http:\\\\me:hunter2@127.0.0.1:9/x", "http://me:hunter2@[::1:9/x", "http://me:hunter2\n@127.0.0.1:9/x",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_a_setting_holds_is_masked_however_it_is_written(url: str) -> None:
    assert SECRET not in str(redact_tree({"paths": {"data_mirror": url}, "sweep": {"storage": url}}))


@pytest.mark.parametrize("url", URLS)
def test_a_part_of_the_url_in_other_words_shows_no_secret(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", {})
    redaction.add_secrets_of(url)
    for words in ("nonnumeric port: 'hunter2'", url, quote(url), "password=hunter2;", "hunter2"):
        assert SECRET not in redact(words)
    assert redact("hunter21 of the phantom") == "hunter21 of the phantom"


def test_secrets_of_the_environment_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", {})
    monkeypatch.setenv("WANDB_API_KEY", "0123456789hunter2")
    monkeypatch.setenv("https_proxy", "http://me:hunter2@proxy:3128")
    redaction.add_secrets_of_command(
        ["paths.data_mirror=me:swordfish@host", "sweep.storage=postgresql://u:opensesame@h/d"]
    )
    for words in ("key 0123456789hunter2", "proxy said hunter2", "swordfish", "u, opensesame"):
        assert MASK in redact(words)
    assert redact("/home/me and http://h") == "/home/me and http://h"


@pytest.mark.parametrize(
    "url", ["http://me:a b@h/x", "http://me:a/b@h/x", "http://h:99999/", "http:///x", "http://h\t/x"]
)
def test_a_mirror_that_is_no_url_is_refused(url: str) -> None:
    quoted = "'" + url + "'"
    with pytest.raises(ConfigError, match="is not a URL") as refusal:
        load.load([f"paths.weights_mirror={quoted}", "model.weights=imagenet"])
    assert "me:a" not in redact(str(refusal.value))
    assert checks.no_url(url)
    assert not checks.no_url("https://me:a%2Fb@[::1]:8080/x?token=1")


def test_a_url_is_no_folder() -> None:
    with pytest.raises(ConfigError, match=r"paths\.runs_dir=.*is a URL, and a folder of this machine is wanted"):
        load.load(["paths.runs_dir='http://me:hunter2@host/x'"])


@pytest.mark.parametrize("unit", ["a", "token", "a:", "x@", "://", "?a=b", "-", "&aaaa", "https://a:b"])
def test_long_text_takes_no_time(unit: str) -> None:
    began = time.process_time()
    redact("://" + unit * (1_000_000 // len(unit)) + "=@")
    assert time.process_time() - began < 20


def test_records_hold_no_secret(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"words": ["paths.data_mirror=https://me:hunter2@host/x"], "n": 1.5})
    assert SECRET not in (tmp_path / "x.json").read_text()
    assert redact_tree({"a": ["https://u@h", 1, None, True]}) == {"a": ["https://***@h", 1, None, True]}
    names = {"classes": ["covid:1@2"], "regex": "P(\\d+):x@y", "token=1": "secret=2"}
    assert redact_tree(names) == names


def test_the_composed_configuration_shows_none_and_the_run_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["paths.data_mirror=https://me:hunter2@host/x", "paths.weights_mirror='https://host/x?token=hunter2'"]
    assert SECRET not in load.composed_yaml(words)
    assert yaml.safe_load(load.composed_yaml(words))["paths"]["data_mirror"] == "https://***@host/x"
    config = load.load(words)
    assert config.paths.data_mirror == "https://me:hunter2@host/x"
    assert config.paths.weights_mirror == "https://host/x?token=hunter2"
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    assert hardware.environment()["command"] == [
        "train.py", "paths.data_mirror=https://***@host/x", "paths.weights_mirror='https://host/x?token=***'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "word",
    [
        "sweep.storge=postgresql://me:hunter2@host/db", "paths.data_miror=https://hunter2@host",
        "optimizer.lr=postgresql://me:hunter2@host/db", "paths.weights_mirror=ftp://me:hunter2@host",
        "logger.wandb.api_key=hunter2", "+api_token=hunter2",
    ],
)  # fmt: skip
def test_a_mistake_is_shown_without_it(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> int:
        load.load([word, "model.weights=imagenet"])
        return 0

    console.renew()
    try:
        assert launch._code_of(main, []) == 2
    finally:
        console.renew()
    shown = capsys.readouterr().err
    assert SECRET not in shown
    assert MASK in shown


def test_the_line_that_resumes_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "sweep.py", "sweep.storage=postgresql://me:hunter2@h/db"])
    assert launch._command().startswith("python sweep.py sweep.storage=postgresql://me:***@h/db\n")
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "seed=1"])
    assert launch._command() == "python train.py seed=1"


def test_a_trial_s_words_hold_none_and_its_environment_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDTL_DATA_MIRROR", raising=False)
    words = ["seed=1", "paths.data_mirror='https://me:hunter2@host/x'", "paths.weights_mirror=https://host"]
    assert move_to_environment(words) == ("seed=1", "paths.weights_mirror=https://host")
    assert os.environ["DDTL_DATA_MIRROR"] == "https://me:hunter2@host/x"
    assert load.load().paths.data_mirror == "https://me:hunter2@host/x"


def test_a_sweep_s_plan_and_journal_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDTL_SWEEP_STORAGE", "")
    url = f"sqlite:///{tmp_path / 'db'}?password=hunter2"
    setup = 'engine.setup=["export A_TOKEN=hunter2"]'
    found = plan(tmp_path, f"sweep.storage={url}", "engine=slurm", "engine.workers=1", setup)
    found.folder.mkdir(parents=True)
    plan_file.write(plan_file.without_password(found))
    assert SECRET not in (found.folder / "plan.json").read_text()
    assert found.settings.engine.setup == ("export A_TOKEN=hunter2",)
    assert storages.without_password("postgresql://me:hunter2@h/db?sslpassword=hunter2") == "postgresql://me@h/db"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "DDTL_SWEEP_STORAGE", "PATH"])
def test_settings_read_no_other_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    for word in (
        f"run.name=${{oc.env:{name}}}",
        f"run.name='${{oc.env:{name},x}}'",
        f"run.name='a-${{oc.env:{name}}}'",
    ):
        with pytest.raises(ConfigError, match=rf"settings may read variables.*not {name}") as raised:
            load.load([word])
        assert SECRET not in str(raised.value)


def test_settings_read_documented_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DDTL_SITE", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "n7")
        assert load.load([f"run.name='x-${{oc.env:{name}}}'"]).run.name == "x-n7"
    assert load.load(["run.name='${oc.env:DDTL_ABSENT,usual}'"]).run.name == "usual"
    with pytest.raises(ConfigError, match="DDTL_ABSENT"):
        load.load(["run.name='${oc.env:DDTL_ABSENT}'"])


def test_another_user_of_omegaconf_reads_what_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    monkeypatch.setenv("MINE", "1")
    load.load()
    assert OmegaConf.create({"a": "${oc.env:MINE}"}).a == "1"


def test_a_mirror_s_password_is_sent_to_it_and_nobody_else() -> None:
    """Python's own client takes it for a part of the port, and says so in its error."""
    asked: list[tuple[str, str | None]] = []

    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/there")  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"me:hunt%40er2@127.0.0.1:{server.server_port}"
        assert download(f"http://{at}/a", 10, Patience(tries=1), threading.Event()) == b""
        assert download(f"http://{at}/moved", 10, Patience(tries=1), threading.Event()) == b""
        assert download(f"http://127.0.0.1:{server.server_port}/b", 10, Patience(tries=1), threading.Event()) == b""
        with credentials_sent(), urllib.request.urlopen(f"http://{at}/c"):
            pass
        with pytest.raises(http.client.InvalidURL):
            urllib.request.urlopen("http://me:hunter2@127.0.0.1/")
        server.shutdown()
    sent = f"Basic {base64.b64encode(b'me:hunt@er2').decode()}"
    assert asked == [("/a", sent), ("/moved", sent), ("/there", None), ("/b", None), ("/c", sent)]
