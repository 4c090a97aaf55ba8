"""A run's curves, settings and scores in MLflow: in an SQLite file next to the runs, or on a server.

MLflow's own collection of user, script and repository names is not used, and its telemetry is switched off.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from ddtl.records import small
from ddtl.records.run_folder import RunFolder
from ddtl.schema.run import Config
from ddtl.utils.files import lock, write_text

FILE = "mlflow.db"
_LONGEST = 500  # characters of a setting; older servers take no more
_MOST = 100  # settings or scores that a server takes at once


class MlflowRun(Logger):
    """One run in MLflow. A run that is resumed continues in it.

    Lightning's own sends the path of the script, the user and the state of a repository, and begins a new run where one
    is resumed.

    Raises:
        Exception: of many kinds, where the store cannot be had.
    """

    def __init__(self, config: Config, folder: RunFolder, public: Mapping[str, Any]) -> None:
        super().__init__()
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # A server that does not answer costs a run seconds, and not the quarter of an hour of MLflow's seven trials.
        for name, value in (("REQUEST_TIMEOUT", "10"), ("REQUEST_MAX_RETRIES", "1")):
            os.environ.setdefault(f"MLFLOW_HTTP_{name}", value)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._folder = folder
        settings = config.logger.mlflow
        store = settings.store or _in(Path(config.paths.runs_dir).absolute())
        with _locked(store):  # two that begin at once would both make the tables
            self._client = MlflowClient(tracking_uri=store, registry_uri=store)
            experiment = self._experiment(settings.experiment, store)
            self._id, is_new = self._run(experiment)
        if is_new:
            params = [Param(key, str(value)[:_LONGEST]) for key, value in _flat(public)]
            for begin in range(0, len(params), _MOST):
                self._client.log_batch(self._id, params=params[begin : begin + _MOST])

    @property
    def name(self) -> str:
        return "mlflow"

    @property
    def version(self) -> str:
        return self._id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        points = [Metric(key, float(value), now, step or 0) for key, value in metrics.items()]
        for begin in range(0, len(points), _MOST):
            self._client.log_batch(self._id, metrics=points[begin : begin + _MOST])

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They were logged when the run began."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._id, "FINISHED" if status == "success" else "FAILED")

    def _experiment(self, name: str, store: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Where none is given, MLflow writes down the current folder. No file is ever kept there.
        artifacts = "mlflow-artifacts:/" if store.startswith("sqlite") else None
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def _run(self, experiment: str) -> tuple[str, bool]:
        """Return the id of this run in MLflow, and whether it is a new one."""
        from mlflow.exceptions import MlflowException

        name = self._folder.path.name
        if self._folder.mlflow_id.exists():
            run_id = small.run_id(self._folder.mlflow_id)
            try:
                info = self._client.get_run(run_id).info
            except MlflowException:
                info = None  # of another store
            if info is not None and info.run_name == name:  # a folder of another machine may name any run
                self._client.update_run(run_id, status="RUNNING")
                return run_id, False
        run_id = self._client.create_run(experiment, run_name=name).info.run_id
        write_text(self._folder.mlflow_id, run_id)
        return str(run_id), True


def _in(folder: Path) -> str:
    """Return the URL of the SQLite file in a folder."""
    path = folder / FILE
    if any(mark in str(path) for mark in "?#%") or path.is_symlink():
        raise ValueError(f"{path}: is a link, or its name has ?, # or % in it; name a file by logger.mlflow.store")
    return f"sqlite:///{path}"


def _locked(store: str) -> AbstractContextManager[Any]:
    """Return a lock on the store, where that is a file of this machine."""
    path = Path(store.removeprefix("sqlite:///"))
    return lock(path.with_name(f".{path.name}.lock")) if store.startswith("sqlite:///") else nullcontext()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
