"""Who is shown the curves. The run's own files are the record; a logger that fails never harms a run.

Nothing that identifies a sample leaves this machine: W&B gets scores and settings, and its own collection of paths,
code, host and user names is switched off, unless ``logger.upload_samples=true``.
"""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from ddtl.config.schema import Config, WandbConfig
from ddtl.files import write_text
from ddtl.training.run_folder import RunFolder

log = logging.getLogger(__name__)

FINISH_TIMEOUT = 60.0  # seconds a run waits at its end for its curves to be uploaded


@contextmanager
def opened(config: Config, folder: RunFolder, public: Mapping[str, Any]) -> Iterator[list[Logger]]:
    """The loggers that the configuration asks for, ended as finished or failed.

    Args:
        config: of the run.
        folder: of the run; loggers keep their files in it.
        public: the settings to show; must hold nothing that identifies a sample or this machine.
    """
    loggers: list[Logger] = []
    if config.logger.csv:
        loggers.append(CSVLogger(folder.path, name="csv", version=""))
    if config.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder.path, name="tensorboard", version=""))
    run = _wandb_run(config, folder, public)
    if run is not None:
        from pytorch_lightning.loggers import WandbLogger

        loggers.append(WandbLogger(experiment=run))
    failed = True
    try:
        yield loggers
        failed = False
    finally:
        if run is not None:
            run.finish(exit_code=int(failed))


def _wandb_run(config: Config, folder: RunFolder, public: Mapping[str, Any]) -> Any:
    """A W&B run, online or offline; None where W&B is off or broken."""
    settings = config.logger.wandb
    mode = os.environ.get("WANDB_MODE", settings.mode) if settings.mode == "auto" else settings.mode
    if mode == "disabled":
        return None
    if mode == "auto":
        mode = "online" if _logged_in() else "offline"
    try:
        if mode == "online":
            try:
                return _init(config, folder, public, "online")
            except Exception as error:
                _abandon()
                log.warning("W&B cannot be reached, going on offline: %s", str(error).strip().split("\n")[0])
        run = _init(config, folder, public, "offline")
    except Exception as error:
        log.warning("W&B does not work here, going on without it: %s", str(error).strip().split("\n")[0])
        return None
    log.info("W&B: offline; `wandb sync %s` shows it online", Path(run.dir).parent)
    return run


def _init(config: Config, folder: RunFolder, public: Mapping[str, Any], mode: str) -> Any:
    import wandb

    settings: WandbConfig = config.logger.wandb
    base = _run_id(folder)
    segments = len(list(folder.path.glob("wandb/offline-run-*")))
    # An offline run cannot be gone on with; what follows is a further piece, kept together with the first by the group.
    piece = f"{base}-{segments}" if mode == "offline" and segments else base
    return wandb.init(
        mode=mode,  # type: ignore[arg-type]
        project=settings.project,
        entity=settings.entity,
        group=settings.group or base,
        tags=list(settings.tags),
        name=folder.path.name,
        id=piece,
        resume="allow" if mode == "online" else None,
        dir=str(folder.path),
        config=dict(public),
        settings=_settings(config, settings.timeout),
    )


def _settings(config: Config, timeout: float) -> Any:
    import wandb

    private = not config.logger.upload_samples
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
        disable_git=private,
        save_code=False,
        host="" if private else None,
    )


def _run_id(folder: RunFolder) -> str:
    if not folder.wandb_id.exists():
        write_text(folder.wandb_id, secrets.token_hex(4))
    return folder.wandb_id.read_text(encoding="utf-8").strip()


def _abandon() -> None:
    """Forget a run whose start failed halfway, so that the offline one is not taken for its sequel."""
    import wandb

    wandb.teardown()


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
