"""What a person at the terminal sees. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ddtl.utils.errors import UserError
from ddtl.utils.files import append_to
from ddtl.utils.progress import Progress
from ddtl.utils.reading import printable
from ddtl.utils.redaction import redact
from ddtl.utils.wording import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


class Screen(Console):
    """A console on which no name of a file, a class or a patient can do more than be read, and no secret appears."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(safe(text), **options)


def safe(text: str) -> str:
    """Return text for a terminal: secrets masked, control characters other than our own line breaks and tabs
    escaped.
    """
    text = redact(text)
    if text.isprintable():
        return text
    return "".join(part if part in ("\n", "\t") else printable(part) for part in re.split(r"([\n\t])", text))


class _Standard(Screen):
    """Standard output or standard error."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as usual, but a table into a pipe or a file with whole rows: there is no width to fold them to."""
        if self.is_terminal or self.is_jupyter or not any(isinstance(one, Table) for one in objects):
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            before, self.width = self.width, 10_000
            try:
                super().print(*objects, **options)
            finally:
                self.width = before
        self.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _console(*, stderr: bool = False) -> Console:
    return _Standard(stderr=stderr, soft_wrap=True, highlight=False, emoji=False)


out, err = _console(), _console(stderr=True)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        style = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno, "")
        err.print(escape(_text(record)), style=style)


def set_up_logging() -> None:
    """Our own lines as they are; other libraries only when something is wrong."""
    logger = logging.getLogger("ddtl")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    quiet_libraries()


def quiet_libraries() -> None:
    """Show what other libraries report only when something is wrong."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # By itself, as Lightning sets the level of all its loggers when it is imported later.
    logging.getLogger("pytorch_lightning.trainer.connectors.signal_connector").setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of a cache that it cannot save
    # Advice on Lightning's defaults that this program has decided about itself.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*custom batch sampler.*for prediction.*")
    warnings.filterwarnings("ignore", message=".*The `srun` command is available on your system but is not used.*")
    # Lightning 2.6 uses parts of torch that newer ones deprecate.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def renew() -> None:
    """Examine the streams again: they have been redirected."""
    global out, err
    out, err = _console(), _console(stderr=True)


def be_quiet() -> None:
    """Print nothing but errors: the first process of a distributed run speaks for all."""
    out.quiet = True
    logging.getLogger("ddtl").setLevel(logging.ERROR)


def error(message: str) -> None:
    """Print a mistake or a failure on standard error."""
    err.print("error: " + escape(message), style="red")


def line(message: str) -> None:
    """Print a line on standard error."""
    if not out.quiet:
        err.print(escape(message))
        for copy in _copies:
            copy(message)


_copies: list[Callable[[str], None]] = []


@contextmanager
def copied_to(path: Path) -> Iterator[None]:
    """Append what is printed line by line to a file as well, each line with its time, and how the block ends.

    The file is for people. Where it cannot be written to, as on a full disk, there is one warning, and work continues.
    """
    writable = True

    def append(message: str) -> None:
        nonlocal writable
        if not writable:
            return
        try:
            with append_to(path) as file:
                file.write("".join(f"{now()} {one}\n" for one in safe(message).split("\n")).encode("utf-8", "replace"))
        except OSError as failure:
            writable = False
            log.warning("%s: the log cannot be written (%s)", path, failure.strerror or failure)

    handler = _Copy(append)
    logger = logging.getLogger("ddtl")
    _copies.append(append)
    logger.addHandler(handler)
    try:
        yield
    except BaseException as failure:
        append(f"ended: {failure}" if str(failure) else f"ended: {type(failure).__name__}")
        raise
    finally:
        logger.removeHandler(handler)
        _copies.remove(append)


def copy(message: str) -> None:
    """Write lines into the files of :func:`copied_to`, and nowhere else."""
    for append in _copies:
        append(message)


class _Copy(logging.Handler):
    """Passes log records on as lines."""

    def __init__(self, append: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._append = append

    def emit(self, record: logging.LogRecord) -> None:
        self._append(_text(record))


def _text(record: logging.LogRecord) -> str:
    prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
    return prefix + record.getMessage()


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Show a bar at a terminal; otherwise a line at the start and one at the end."""
    from rich.progress import Progress as Bar

    if out.quiet:
        yield lambda done, total: None
        return
    if not err.is_terminal:
        reported = False

        def tell(done: int, total: int) -> None:
            nonlocal reported
            if not reported or done == total:
                line(f"{what}: {done} of {total}")
                reported = True

        yield tell
        return
    with Bar(console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def confirm(question: str) -> bool:
    """Return whether the person at the terminal agrees to what is deleted.

    Raises:
        UserError: nobody is there.
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise UserError("the deletion must be confirmed, and this is not a terminal. Set yes=true.")
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_terminal() -> bool:
    """Return whether a person is watching."""
    return err.is_terminal and not out.quiet
