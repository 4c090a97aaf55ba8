"""Who is shown the curves. The run's own files are the record; a logger that fails never harms a run.

Nothing that identifies a sample leaves this machine: W&B gets scores and settings, and its own collection of paths,
code, host and user names is switched off, unless ``logger.upload_samples=true``.
"""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from ddtl.records import small
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.training.mlflow_run import MlflowRun
from ddtl.utils import ranks
from ddtl.utils.files import folder_in, write_csv, write_text
from ddtl.utils.isolation import NEUTRAL_FOLDER, is_checkout
from ddtl.utils.reading import Unreadable, read_table

log = logging.getLogger(__name__)

FINISH_TIMEOUT = 60.0  # seconds a run waits at its end for its curves to be uploaded
_OFFLINE_TIMEOUT = 90.0  # seconds for W&B's own process to start; logger.wandb.timeout is for a server's answer


@contextmanager
def opened(config: Config, folder: RunFolder, public: Mapping[str, Any]) -> Iterator[list[Logger]]:
    """Yield the loggers that the configuration requests, ended as finished or failed.

    Args:
        config: of the run.
        folder: of the run; loggers keep their files in it.
        public: the settings to show; must contain nothing that identifies a sample or this machine.
    """
    if not ranks.is_first():
        yield []
        return
    loggers: list[Logger] = []
    if config.logger.csv:
        loggers.append(_harmless(CSVFile(folder.path / "csv" / "metrics.csv")))
    if config.logger.tensorboard:
        loggers.append(_harmless(TensorBoardLogger(folder.path, name="tensorboard", version="")))
    run = _wandb_run(config, folder, public)
    if run is not None:
        loggers.append(_harmless(WandbLogger(experiment=run)))
    if config.logger.mlflow.enabled:
        try:
            loggers.append(_harmless(MlflowRun(config, folder, public)))
        except Exception as error:
            log.warning("MLflow does not work here, continuing without it: %s", _first_line(error))
    failed = True
    try:
        yield loggers
        failed = False
    finally:
        for logger in loggers:
            logger.finalize("failed" if failed else "success")
        if run is not None:
            try:
                run.finish(exit_code=int(failed))
            except Exception as error:
                log.warning("W&B did not come to its end: %s", _first_line(error))


class CSVFile(Logger):
    """The curves as a table, a row a step. A run that is resumed continues in its file.

    Lightning's own deletes the file of a run that is resumed, and drops what is logged after its last flush.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: list[dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        assert step is not None, "Lightning names the step"
        if self._rows is None:
            self._rows = [row for row in _csv_rows(self.path) if int(row["step"]) < step]
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        self._rows[-1] |= {name: float(value) for name, value in metrics.items()}

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        if not self._rows:
            return
        columns = ["step", *sorted({name for row in self._rows for name in row} - {"step"})]
        folder_in(self.path.parents[1], self.path.parent.name)
        write_csv(self.path, columns, ([row.get(name, "") for name in columns] for row in self._rows))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = list(read_table(path))
    if any(not row.get("step", "").isdecimal() for row in rows):
        raise Unreadable(path, "is damaged: a row has no step", f"Delete it: rm {shlex.quote(str(path))}")
    return rows


def _harmless(logger: Logger) -> Logger:
    """Return the logger, silent after its first failure, which is a warning and not the end of the run."""
    broken = False

    def guarded(method: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            nonlocal broken
            if broken:
                return
            try:
                method(*args, **kwargs)
            except Exception as error:
                broken = True
                log.warning("%s is broken, continuing without it: %s", type(logger).__name__, _first_line(error))

        return call

    for name in ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize"):
        setattr(logger, name, guarded(getattr(logger, name)))
    return logger


def _wandb_run(config: Config, folder: RunFolder, public: Mapping[str, Any]) -> Any:
    """Return a W&B run, online or offline; None where W&B is off or broken."""
    mode: str = config.logger.wandb.mode
    if mode == "auto":
        mode = _MODES.get(os.environ.get("WANDB_MODE", ""), "auto")
    if mode == "disabled":
        return None
    # Its reports of errors contain local paths, and a server that does not answer them blocks the end of the process.
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    try:
        run = None if mode == "offline" else _online(config, folder, public, is_requested=mode == "online")
        if run is None:
            run = _init(config, folder, public, "offline")
            log.info("W&B: offline; `wandb sync %s` shows it online", Path(run.dir).parent)
    except Exception as error:
        log.warning("W&B does not work here, continuing without it: %s", _first_line(error))
        return None
    return run


# Values of the variable WANDB_MODE.
_MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}


def _online(config: Config, folder: RunFolder, public: Mapping[str, Any], is_requested: bool) -> Any:
    """Return a run on the server; None, with a warning, where that cannot be had. Never requests a key."""
    import wandb

    if not _logged_in():
        if is_requested:
            log.warning("W&B: not logged in, continuing offline. Type `wandb login`, or set WANDB_API_KEY.")
        return None
    before = set(folder.path.glob("wandb/run-*"))
    try:
        run = _init(config, folder, public, "online")
    except Exception as error:
        log.warning("W&B cannot be reached, continuing offline: %s", _first_line(error))
        if wandb.run is None:  # a run of the caller's own would be ended, too
            wandb.teardown()  # else it continues trying, and blocks the end of the process
        for attempt in set(folder.path.glob("wandb/run-*")) - before:
            shutil.rmtree(attempt, ignore_errors=True)
        return None
    log.info("W&B: %s", run.url)
    return run


def _init(config: Config, folder: RunFolder, public: Mapping[str, Any], mode: Literal["online", "offline"]) -> Any:
    import wandb

    settings = config.logger.wandb
    base = _run_id(folder)
    _set_up()
    run = wandb.init(
        mode=mode,
        project=settings.project,
        entity=settings.entity,
        group=settings.group or base,
        tags=list(settings.tags),
        name=folder.path.name,
        # An offline run cannot be resumed, and sent later under the online run's id it would overwrite its curves.
        # So every offline piece has an id of its own; the group keeps the pieces of a run together.
        id=base if mode == "online" else f"{base}-{secrets.token_hex(2)}",
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        dir=str(folder.path),
        config=dict(public),
        settings=_settings(
            settings.timeout if mode == "online" else _OFFLINE_TIMEOUT, private=not config.logger.upload_samples
        ),
    )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return run


def _set_up() -> Any:
    """W&B with the settings of this user and of the environment alone.

    It would also read ``wandb/settings`` in the current folder, which name the server that it sends a user's key to.
    """
    import wandb

    with chdir(NEUTRAL_FOLDER):
        return wandb.setup()


def _settings(timeout: float, *, private: bool) -> Any:
    import wandb

    return wandb.Settings(
        silent=True,
        console="off" if private else "auto",
        init_timeout=timeout,
        login_timeout=timeout,
        finish_timeout=FINISH_TIMEOUT,
        x_disable_meta=private,
        x_disable_machine_info=private,
        x_save_requirements=not private,
        disable_code=private,
        disable_git=private or not is_checkout(),  # git runs what the settings of a foreign repository say
        save_code=False,
        host="" if private else None,
        program="ddtl.train" if private else None,  # else it sends the script's path
    )


def _run_id(folder: RunFolder) -> str:
    if not folder.wandb_id.exists():
        write_text(folder.wandb_id, secrets.token_hex(4))
    return small.run_id(folder.wandb_id)


def _logged_in() -> bool:
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = _set_up().settings
    if settings.api_key:
        return True
    hosts = {urlsplit(settings.base_url).netloc}
    if settings.base_url == wandb.Settings().base_url:
        hosts.add("api.wandb.ai")  # its name in versions before 0.31, and in the files that they wrote
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return not hosts.isdisjoint(netrc.netrc(path).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
