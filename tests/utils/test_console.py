"""What is printed line by line reaches a file as well, and a file that cannot be written ends nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ddtl.utils import console


def test_lines_warnings_and_the_end_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with console.copied_to(path):
        console.line("epoch 1/3 [red]x[/red]")
        logging.getLogger("ddtl.somewhere").warning("odd: %s", "a\x1b[31mb https://me:hunter22@host/")
    console.line("later")
    with pytest.raises(ValueError, match="broke"), console.copied_to(path):
        raise ValueError("broke\nhere")
    lines = path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "epoch 1/3 [red]x[/red]", "warning: odd: a\\x1b[31mb https://***@host/", "ended: broke", "here",
    ]  # fmt: skip
    assert all(line.startswith("20") for line in lines)


def test_a_log_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "log.txt").symlink_to(secret)
    with console.copied_to(tmp_path / "log.txt"):
        console.line("one")
        console.line("two")
    assert secret.read_text() == "secret"
    assert caplog.text.count("the log cannot be written") == 1


def test_a_pipe_in_the_place_of_the_log_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.txt")
    with console.copied_to(tmp_path / "log.txt"):
        console.line("one")


def test_lightning_does_not_report_signals_that_ddtl_answers() -> None:
    """It sets the level of all its loggers as it is imported, which is after ddtl has set them."""
    console.quiet_libraries()
    import pytorch_lightning

    assert pytorch_lightning.__name__
    assert not logging.getLogger("pytorch_lightning.trainer.connectors.signal_connector").isEnabledFor(logging.INFO)
