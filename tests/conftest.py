"""What several test files share."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

# How long a case takes says more about the machine than about the code.
settings.register_profile("ddtl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ddtl")

# Where the suite was started by nohup, a hang-up is ignored, by its children too; tests are about hang-ups.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Before anything imports torch: threads × processes must not exceed the cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Phantoms and decoded images of the tests, drawn once; never the user's own, and nothing online."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDTL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_MODE", "offline")
        # Where images are to be fetched, nobody answers: no test reaches out of this machine.
        patch.setenv("DDTL_DATA_MIRROR", "http://127.0.0.1:9")
        patch.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sequence[str]], int]]:
    """``train.py`` with a command line, in this process; its exit code. Signals and logging are put back afterwards."""
    from ddtl.commands import launch, train
    from ddtl.utils import console

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {signum: signal.getsignal(signum) for signum in handled}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(console.out, "quiet", console.out.quiet)
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "as=typed"])
    logger = logging.getLogger("ddtl")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    yield lambda argv: launch.guarded(train.main, list(argv))
    for signum, handler in before.items():
        signal.signal(signum, handler)


def _without_data(reason: str) -> NoReturn:
    """Skips a test that needs the real images; a failure where they are required."""
    if os.environ.get("DDTL_REQUIRE_DATA") == "1":
        pytest.fail(f"DDTL_REQUIRE_DATA=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture
def real_data() -> Path:
    """The folder that holds the public datasets: ``covid19ct/`` and ``sarscov2ct/``."""
    folder = os.environ.get("DDTL_DATA")
    if not folder:
        _without_data("the environment variable DDTL_DATA does not say where the real images are")
    for name in ("covid19ct", "sarscov2ct"):
        if not (Path(folder) / name).is_dir():
            _without_data(f"DDTL_DATA={folder} holds no folder {name}/")
    return Path(folder)


@pytest.fixture
def original_index(real_data: Path) -> Path:
    """The folder with the tables of the original files, from which the shipped index is made."""
    folder = real_data / "index"
    if not folder.is_dir():
        _without_data(f"{real_data} holds no folder index/")
    return folder


@pytest.fixture
def real_weights() -> Path:
    """SqueezeNet 1.1's real ImageNet weights."""
    folder = os.environ.get("DDTL_TEST_WEIGHTS")
    if not folder:
        _without_data("the environment variable DDTL_TEST_WEIGHTS does not say where the real ImageNet weights are")
    path = Path(folder) / "squeezenet1_1-imagenet.safetensors"
    if not path.is_file():
        _without_data(f"DDTL_TEST_WEIGHTS={folder} holds no {path.name}")
    return path
